use crate::{DType, Device, Tensor};

fn t(v: &[f64], shape: &[usize]) -> Tensor {
    Tensor::from_slice(v, shape, &Device::Cpu).unwrap()
}

type Op = fn(&Tensor, &Tensor) -> crate::Result<Tensor>;
type Oracle = fn(f64, f64) -> f64;
const OPS: [(Op, Oracle); 7] = [
    (Tensor::add, |a, b| a + b),
    (Tensor::sub, |a, b| a - b),
    (Tensor::mul, |a, b| a * b),
    (Tensor::div, |a, b| a / b),
    (Tensor::maximum, f64::max),
    (Tensor::minimum, f64::min),
    (Tensor::pow, f64::powf),
];

#[test]
fn broadcast_values_in_every_float_type() {
    let a: Vec<f64> = (0..12).map(|i| 0.5 + i as f64 * 0.25).collect();
    let b: Vec<f64> = (0..3).map(|i| 2.0 - i as f64 * 0.5).collect();
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
        let eps = match dtype {
            DType::F16 => 2e-3,
            DType::BF16 => 1e-2,
            _ => 1e-6,
        };
        let x = t(&a, &[4, 3]).to_dtype(dtype).unwrap().transpose(0, 1).unwrap();
        let y = t(&b, &[3, 1]).to_dtype(dtype).unwrap();
        for (op, f) in OPS {
            let out = op(&x, &y).unwrap();
            assert_eq!(out.shape(), [3, 4]);
            for (k, v) in out.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap().into_iter().enumerate() {
                let expected = f(a[k % 4 * 3 + k / 4], b[k / 4]);
                assert!((v - expected).abs() <= eps * expected.abs().max(1.0), "{dtype} {v} {expected}");
            }
        }
    }
}

#[test]
fn gradients_match_central_differences() {
    let av: Vec<f64> = (0..6).map(|i| 0.7 + i as f64 * 0.3).collect();
    let bv: Vec<f64> = (0..3).map(|i| 1.9 - i as f64 * 0.45).collect();
    let w = t(&[1.0, -2.0, 0.5, 3.0, 0.25, -1.0], &[2, 3]);
    for (op, _) in OPS {
        let loss = |av: &[f64], bv: &[f64]| -> f64 {
            op(&t(av, &[2, 3]), &t(bv, &[3])).unwrap().mul(&w).unwrap().sum_all().unwrap().to_scalar().unwrap()
        };
        let (a, b) = (t(&av, &[2, 3]).requires_grad(), t(&bv, &[3]).requires_grad());
        let grads = op(&a, &b).unwrap().mul(&w).unwrap().sum_all().unwrap().backward().unwrap();
        let check = |got: Vec<f64>, at: &dyn Fn(usize, f64) -> f64| {
            for (i, g) in got.iter().enumerate() {
                let numeric = (at(i, 1e-6) - at(i, -1e-6)) / 2e-6;
                assert!((g - numeric).abs() < 1e-6 * numeric.abs().max(1.0), "{g} {numeric}");
            }
        };
        let bump = |v: &[f64], i: usize, h: f64| {
            let mut v = v.to_vec();
            v[i] += h;
            v
        };
        check(grads.get(&a).unwrap().to_vec().unwrap(), &|i, h| loss(&bump(&av, i, h), &bv));
        check(grads.get(&b).unwrap().to_vec().unwrap(), &|i, h| loss(&av, &bump(&bv, i, h)));
    }
}

#[test]
fn integers_wrap_and_refuse_division_by_zero() {
    let a = Tensor::from_vec(vec![250u8, 7], 2, &Device::Cpu).unwrap();
    let b = Tensor::from_vec(vec![10u8, 2], 2, &Device::Cpu).unwrap();
    assert_eq!(a.add(&b).unwrap().to_vec::<u8>().unwrap(), [4, 9]);
    assert_eq!(a.div(&b).unwrap().to_vec::<u8>().unwrap(), [25, 3]);
    let zero = Tensor::zeros(2, DType::U8, &Device::Cpu).unwrap();
    assert!(a.div(&zero).unwrap_err().to_string().contains("divided by zero"));
    assert!(a.add(&t(&[1.0], &[1])).is_err());
    assert!(t(&[1.0; 3], &[3]).add(&t(&[1.0; 2], &[2])).is_err());
}

#[test]
fn large_operands_agree_with_small_ones() {
    let n = 70_001;
    let a: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
    let x = Tensor::from_slice(&a, n, &Device::Cpu).unwrap();
    let out = x.mul(&x).unwrap().to_vec::<f32>().unwrap();
    assert!(out.iter().zip(&a).all(|(o, v)| *o == v * v));
    let m = Tensor::from_slice(&a[..70_000], [700, 100], &Device::Cpu).unwrap();
    let col = m.narrow(1, 3, 1).unwrap();
    let out = m.sub(&col).unwrap().to_vec::<f32>().unwrap();
    assert!(out.iter().enumerate().all(|(i, o)| *o == a[i] - a[i / 100 * 100 + 3]));
}
