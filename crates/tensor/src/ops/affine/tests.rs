use crate::ops::testing::{check_grads, of, sample};
use crate::{DType, Device, Tensor};

#[test]
fn values_in_every_type() {
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::U32, DType::U8] {
        let x = of(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]).to_dtype(dtype).unwrap().t().unwrap();
        let read = |t: Tensor| {
            assert_eq!((t.dtype(), t.shape()), (dtype, &[3, 2][..]));
            t.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap()
        };
        assert_eq!(read(x.add_scalar(3.0).unwrap()), [4.0, 7.0, 5.0, 8.0, 6.0, 9.0]);
        assert_eq!(read(x.mul_scalar(2.0).unwrap()), [2.0, 8.0, 4.0, 10.0, 6.0, 12.0]);
        assert_eq!(
            read(x.clamp(2.0, 4.5).unwrap()),
            [2.0, 4.0, 2.0, if dtype.is_float() { 4.5 } else { 4.0 }, 3.0, if dtype.is_float() { 4.5 } else { 4.0 }]
        );
        assert_eq!(read(x.clamp(f64::NEG_INFINITY, 3.0).unwrap()), [1.0, 3.0, 2.0, 3.0, 3.0, 3.0]);
    }
    let x = of(&[0.25f32, 4.0, 9.0], &[3]);
    assert_eq!(x.powf(0.5).unwrap().to_vec::<f32>().unwrap(), [0.5, 2.0, 3.0]);
    assert_eq!(x.powf(2.0).unwrap().to_vec::<f32>().unwrap(), [0.0625, 16.0, 81.0]);
}

#[test]
fn integers_wrap_and_refuse_fractions() {
    let x = of(&[250u8, 3], &[2]);
    assert_eq!(x.add_scalar(10.0).unwrap().to_vec::<u8>().unwrap(), [4, 13]);
    for c in [0.5, -1.0, 256.0, f64::NAN, f64::INFINITY] {
        assert!(x.add_scalar(c).is_err() && x.mul_scalar(c).is_err(), "{c}");
    }
    assert!(of(&[1i64], &[1]).add_scalar(9.3e18).is_err());
    assert_eq!(of(&[i64::MAX], &[1]).add_scalar(-1.0).unwrap().to_scalar::<i64>().unwrap(), i64::MAX - 1);
    assert!(x.powf(2.0).is_err());
    assert!(x.to_dtype(DType::Bool).unwrap().add_scalar(1.0).is_err());
    assert!(sample(&[2]).clamp(2.0, 1.0).is_err() && sample(&[2]).clamp(f64::NAN, 1.0).is_err());
    assert!(of(&[f32::NAN], &[1]).clamp(0.0, 1.0).unwrap().to_scalar::<f32>().unwrap().is_nan());
    assert_eq!(Tensor::zeros([0], DType::F32, &Device::Cpu).unwrap().mul_scalar(2.0).unwrap().elem_count(), 0);
}

#[test]
fn gradients_match_central_differences() {
    let x = sample(&[4, 3]);
    check_grads(std::slice::from_ref(&x), |x| x[0].t()?.add_scalar(1.5));
    check_grads(std::slice::from_ref(&x), |x| x[0].t()?.mul_scalar(-2.5));
    check_grads(std::slice::from_ref(&x), |x| x[0].t()?.clamp(-0.7, 0.9));
    check_grads(&[x.abs().unwrap()], |x| x[0].t()?.powf(1.7));
    check_grads(std::slice::from_ref(&x), |x| x[0].powf(3.0));
    check_grads(&[x], |x| x[0].unsqueeze(0)?.broadcast_as([2, 4, 3])?.powf(2.0));
    let zero = of(&[0f64, 2.0], &[2]).requires_grad();
    let g = zero.powf(0.0).unwrap().sum_all().unwrap().backward().unwrap();
    assert_eq!(g.get(&zero).unwrap().to_vec::<f64>().unwrap(), [0.0, 0.0]);
}
