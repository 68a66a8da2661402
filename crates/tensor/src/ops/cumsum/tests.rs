use crate::ops::testing::{check_grads, of, sample};
use crate::{DType, Device, Tensor};

#[test]
fn running_sums_along_every_dimension() {
    let x = of(&(0..24).map(f64::from).collect::<Vec<_>>(), &[2, 3, 4]);
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::U32, DType::U8] {
        let view = x.to_dtype(dtype).unwrap().permute(&[1, 2, 0]).unwrap();
        let v = view.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
        for dim in 0..3 {
            let step = [8, 2, 1][dim];
            let n = view.shape()[dim];
            let got = view.cumsum(dim).unwrap();
            assert_eq!((got.dtype(), got.shape()), (dtype, view.shape()));
            for (k, g) in got.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap().into_iter().enumerate() {
                let i = k / step % n;
                assert_eq!(g, (0..=i).map(|j| v[k - (i - j) * step]).sum::<f64>(), "{dtype}");
            }
        }
    }
}

#[test]
fn long_sums_stay_accurate_and_integers_wrap() {
    let x = Tensor::full([3, 30_000], 0.1, DType::F32, &Device::Cpu).unwrap();
    let last = x.cumsum(1).unwrap().narrow(1, 29_999, 1).unwrap().to_vec::<f32>().unwrap();
    assert!(last.iter().all(|&s| (s - 3000.0).abs() < 1e-3), "{last:?}");
    assert_eq!(of(&[200u8, 100], &[2]).cumsum(0).unwrap().to_vec::<u8>().unwrap(), [200, 44]);
}

#[test]
fn gradients_and_errors() {
    check_grads(&[sample(&[3, 4])], |x| x[0].cumsum(1));
    check_grads(&[sample(&[3, 4])], |x| x[0].t()?.unsqueeze(1)?.cumsum(0));
    let x = Tensor::zeros([2, 0], DType::F32, &Device::Cpu).unwrap();
    assert_eq!(x.cumsum(1).unwrap().shape(), [2, 0]);
    assert!(x.cumsum(2).is_err() && x.to_dtype(DType::Bool).unwrap().cumsum(0).is_err());
}

#[test]
fn products_with_a_triangle_are_running_sums() {
    for (shape, dim) in [(&[5][..], 0), (&[3, 4], 0), (&[3, 4], 1), (&[2, 3, 4], 1)] {
        let x = sample(shape);
        for reverse in [false, true] {
            let (a, b) = (super::running("cumsum", &x, dim, reverse), super::by_product(&x, dim, reverse));
            let (a, b) = (a.unwrap().to_vec::<f64>().unwrap(), b.unwrap().to_vec::<f64>().unwrap());
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-12), "{shape:?} {dim}: {a:?} {b:?}");
        }
    }
}
