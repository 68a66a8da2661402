use crate::ops::testing::of;
use crate::{DType, Device, Result, Tensor};

type Op = fn(&Tensor, &Tensor) -> Result<Tensor>;
type Oracle = fn(&f64, &f64) -> bool;
const OPS: [(Op, Oracle); 6] = [
    (Tensor::eq, |a, b| a == b),
    (Tensor::ne, |a, b| a != b),
    (Tensor::lt, |a, b| a < b),
    (Tensor::le, |a, b| a <= b),
    (Tensor::gt, |a, b| a > b),
    (Tensor::ge, |a, b| a >= b),
];

#[test]
fn every_comparison_in_every_type_broadcasts() {
    let a: Vec<f64> = (0..12).map(|i| f64::from(i * 5 % 7)).collect();
    let b = [3.0, 0.0, 5.0];
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::U32, DType::U8] {
        let x = of(&a, &[4, 3]).to_dtype(dtype).unwrap().t().unwrap();
        let y = of(&b, &[3, 1]).to_dtype(dtype).unwrap();
        for (op, f) in OPS {
            let out = op(&x, &y).unwrap();
            assert_eq!((out.dtype(), out.shape()), (DType::Bool, &[3, 4][..]));
            let expected: Vec<u8> = (0..12).map(|k| f(&a[k % 4 * 3 + k / 4], &b[k / 4]) as u8).collect();
            assert_eq!(out.to_vec::<u8>().unwrap(), expected, "{dtype}");
        }
    }
}

#[test]
fn nan_compares_as_ieee_says() {
    let x = of(&[f32::NAN, 1.0], &[2]);
    let y = of(&[f32::NAN], &[1]);
    for (i, (op, _)) in OPS.iter().enumerate() {
        assert_eq!(op(&x, &y).unwrap().to_vec::<u8>().unwrap(), [(i == 1) as u8; 2]);
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let x = Tensor::zeros([2, 3], DType::F32, &Device::Cpu).unwrap();
    assert!(x.eq(&Tensor::zeros([2], DType::F32, &Device::Cpu).unwrap()).is_err());
    assert!(x.eq(&Tensor::zeros([2, 3], DType::F64, &Device::Cpu).unwrap()).is_err());
    assert_eq!(x.narrow(0, 0, 0).unwrap().lt(&x.narrow(0, 0, 1).unwrap()).unwrap().shape(), [0, 3]);
    assert!(!x.requires_grad().lt(&x).unwrap().tracks_grad());
}
