use half::{bf16, f16};

use crate::ops::testing::{check_grads, of, sample};
use crate::{DType, Device, Tensor};

const ALL: [DType; 9] =
    [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::U32, DType::U8, DType::Bool];

#[test]
fn small_integers_survive_every_pair_of_types() {
    let values: Vec<f64> = (0..120).map(f64::from).collect();
    let x = of(&values, &[10, 12]).t().unwrap();
    let expected = x.to_vec::<f64>().unwrap();
    for a in ALL {
        for b in ALL {
            let y = x.to_dtype(a).unwrap().to_dtype(b).unwrap();
            assert_eq!((y.dtype(), y.shape()), (b, x.shape()));
            let back = y.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
            let truth = a == DType::Bool || b == DType::Bool;
            assert!(
                back.iter().zip(&expected).all(|(&g, &e)| g == if truth { (e != 0.0) as u8 as f64 } else { e }),
                "{a} {b}"
            );
        }
    }
}

#[test]
fn values_that_do_not_fit_saturate() {
    let x = of(&[f64::NAN, -1e30, 1e30, -1.9, 300.7, f64::INFINITY], &[6]);
    assert_eq!(x.to_dtype(DType::U8).unwrap().to_vec::<u8>().unwrap(), [0, 0, 255, 0, 255, 255]);
    assert_eq!(x.to_dtype(DType::I32).unwrap().to_vec::<i32>().unwrap(), [0, i32::MIN, i32::MAX, -1, 300, i32::MAX]);
    let n = of(&[i64::MIN, -1, 255, 256, i64::MAX], &[5]);
    assert_eq!(n.to_dtype(DType::U8).unwrap().to_vec::<u8>().unwrap(), [0, 0, 255, 255, 255]);
    assert_eq!(n.to_dtype(DType::U32).unwrap().to_vec::<u32>().unwrap(), [0, 0, 255, 256, u32::MAX]);
    assert_eq!(
        of(&[f64::NAN, 0.0, -0.0, 0.1], &[4]).to_dtype(DType::Bool).unwrap().to_vec::<u8>().unwrap(),
        [1, 0, 0, 1]
    );
}

#[test]
fn halves_round_to_nearest_even() {
    let v: Vec<f32> = (0..4000).map(|i| (i as f32 * 0.371 - 700.0) * 1.00017).collect();
    let x = of(&v, &[4000]);
    let h = x.to_dtype(DType::F16).unwrap();
    assert_eq!(h.to_vec::<f16>().unwrap(), v.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>());
    let back: Vec<f32> = v.iter().map(|&x| f16::from_f32(x).to_f32()).collect();
    assert_eq!(h.to_dtype(DType::F32).unwrap().to_vec::<f32>().unwrap(), back);
    let b = x.to_dtype(DType::BF16).unwrap();
    assert_eq!(b.to_vec::<bf16>().unwrap(), v.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>());
    // 2049 lies between the halves 2048 and 2050; the even one wins.
    assert_eq!(of(&[2049f32], &[1]).to_dtype(DType::F16).unwrap().to_vec::<f16>().unwrap()[0].to_f32(), 2048.0);
}

#[test]
fn gradients_flow_between_floats_only() {
    check_grads(&[sample(&[2, 3])], |x| x[0].to_dtype(DType::F64)?.t());
    let x = sample(&[4]).requires_grad();
    let y = x.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap().sum_all().unwrap();
    let g = y.backward().unwrap();
    assert_eq!(g.get(&x).unwrap().dtype(), DType::F64);
    assert_eq!(g.get(&x).unwrap().to_vec::<f64>().unwrap(), [1.0; 4]);
    assert!(!x.to_dtype(DType::I32).unwrap().tracks_grad());
}

#[test]
fn empty_tensors_cast_too() {
    let x = Tensor::zeros([3, 0, 2], DType::F32, &Device::Cpu).unwrap();
    for d in ALL {
        assert_eq!(x.to_dtype(d).unwrap().shape(), [3, 0, 2]);
    }
}
