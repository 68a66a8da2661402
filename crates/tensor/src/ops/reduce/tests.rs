use crate::{DType, Device, Tensor};

fn sample(n: usize) -> Vec<f64> {
    (0..n).map(|i| ((i * 7919 + 13) % 101) as f64 * 0.25 - 12.0).collect()
}

fn tensor(shape: &[usize]) -> Tensor {
    Tensor::from_vec(sample(shape.iter().product()), shape, &Device::Cpu).unwrap()
}

#[test]
fn sums_over_any_dimensions_of_a_strided_view() {
    let x = tensor(&[3, 4, 5]).permute(&[2, 0, 1]).unwrap();
    let v = x.to_vec::<f64>().unwrap();
    for dims in [vec![0], vec![1], vec![2], vec![0, 1], vec![0, 2], vec![1, 2], vec![0, 1, 2], vec![]] {
        for dtype in [DType::F64, DType::F32, DType::I32] {
            let y = x.to_dtype(dtype).unwrap();
            let v: Vec<f64> = if dtype == DType::I32 { v.iter().map(|x| x.trunc()).collect() } else { v.clone() };
            let got = y.sum(&dims, true).unwrap();
            let gv = got.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
            let mut expected = vec![0.0; gv.len()];
            for (k, val) in v.iter().enumerate() {
                let idx = [k / 12, k / 4 % 3, k % 4];
                let at = (0..3).fold(0, |at, d| at * got.shape()[d] + if dims.contains(&d) { 0 } else { idx[d] });
                expected[at] += val;
            }
            assert!(gv.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{dims:?} {dtype}");
        }
    }
}

#[test]
fn extremes_and_their_places() {
    let x = tensor(&[4, 6]);
    let v = x.to_vec::<f64>().unwrap();
    let max = x.max(0, false).unwrap().to_vec::<f64>().unwrap();
    let arg = x.argmax(0).unwrap().to_vec::<u32>().unwrap();
    let min = x.t().unwrap().min(0, true).unwrap();
    assert_eq!(min.shape(), [1, 4]);
    for c in 0..6 {
        let column: Vec<f64> = (0..4).map(|r| v[r * 6 + c]).collect();
        assert_eq!(max[c], column.iter().copied().fold(f64::MIN, f64::max));
        assert_eq!(column[arg[c] as usize], max[c]);
    }
    for (r, m) in min.to_vec::<f64>().unwrap().into_iter().enumerate() {
        assert_eq!(m, v[r * 6..r * 6 + 6].iter().copied().fold(f64::MAX, f64::min));
    }
    let nan = Tensor::from_vec(vec![1.0f32, f32::NAN, 3.0], 3, &Device::Cpu).unwrap();
    assert!(nan.max(0, false).unwrap().to_scalar::<f32>().unwrap().is_nan());
    assert_eq!(nan.argmin(0).unwrap().to_scalar::<u32>().unwrap(), 1);
    assert!(Tensor::zeros([2, 0], DType::F32, &Device::Cpu).unwrap().max(1, false).is_err());
    assert_eq!(Tensor::zeros([2, 0], DType::F32, &Device::Cpu).unwrap().sum(&[1], false).unwrap().shape(), [2]);
}

#[test]
fn gradients_reach_every_element() {
    let x = tensor(&[3, 4]).requires_grad();
    let w = tensor(&[3]);
    let g = x.sum(&[1], false).unwrap().mul(&w).unwrap().sum_all().unwrap().backward().unwrap();
    let wv = w.to_vec::<f64>().unwrap();
    assert!(g.get(&x).unwrap().to_vec::<f64>().unwrap().iter().enumerate().all(|(i, g)| *g == wv[i / 4]));
    let tied = Tensor::from_vec(vec![2.0f64, 5.0, 5.0], 3, &Device::Cpu).unwrap().requires_grad();
    let g = tied.max(0, false).unwrap().backward().unwrap();
    assert_eq!(g.get(&tied).unwrap().to_vec::<f64>().unwrap(), [0.0, 0.5, 0.5]);
    let g = x.mean_all().unwrap().backward().unwrap();
    assert!(g.get(&x).unwrap().to_vec::<f64>().unwrap().iter().all(|g| (g - 1.0 / 12.0).abs() < 1e-12));
}

#[test]
fn large_sums_stay_accurate() {
    let x = Tensor::full([300, 1000], 0.1, DType::F32, &Device::Cpu).unwrap();
    let s = x.sum_all().unwrap().to_scalar::<f32>().unwrap();
    assert!((s - 30_000.0).abs() < 0.02, "{s}");
    let s = x.sum(&[0], false).unwrap().to_vec::<f32>().unwrap();
    assert!(s.iter().all(|v| (v - 30.0).abs() < 1e-4));
}
