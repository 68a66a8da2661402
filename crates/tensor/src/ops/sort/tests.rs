use crate::ops::testing::{check_grads, of, sample};
use crate::{DType, Device, Error, Tensor};

#[test]
fn sorts_along_every_dimension_in_every_type() {
    let x = of(&(0..60).map(|i| f64::from(i * 37 % 23)).collect::<Vec<_>>(), &[3, 4, 5]);
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::U32, DType::U8] {
        let view = x.to_dtype(dtype).unwrap().permute(&[1, 2, 0]).unwrap();
        for dim in 0..3 {
            for descending in [false, true] {
                let (values, ids) = view.sort(dim, descending).unwrap();
                assert_eq!((values.dtype(), values.shape(), ids.shape()), (dtype, view.shape(), view.shape()));
                let rows = |t: &Tensor| {
                    let n = t.shape()[dim];
                    let t = t.transpose(dim, 2).unwrap().to_dtype(DType::I64).unwrap();
                    t.to_vec::<i64>().unwrap().chunks(n).map(<[i64]>::to_vec).collect::<Vec<_>>()
                };
                for ((row, values), ids) in rows(&view).iter().zip(rows(&values)).zip(rows(&ids)) {
                    let mut expected: Vec<(i64, i64)> = row.iter().copied().zip(0..).collect();
                    expected.sort_by_key(|&(v, _)| if descending { -v } else { v });
                    assert_eq!(values.into_iter().zip(ids).collect::<Vec<_>>(), expected);
                }
            }
        }
    }
}

#[test]
fn nan_comes_last_and_equal_elements_keep_their_order() {
    let x = of(&[2f32, f32::NAN, -1.0, 2.0, f32::INFINITY, f32::NAN, 0.0, -0.0], &[8]);
    assert_eq!(x.argsort(0, false).unwrap().to_vec::<u32>().unwrap(), [2, 6, 7, 0, 3, 4, 1, 5]);
    assert_eq!(x.argsort(0, true).unwrap().to_vec::<u32>().unwrap(), [4, 0, 3, 6, 7, 2, 1, 5]);
    let truth = of(&[1u8, 0, 1, 0], &[4]).to_dtype(DType::Bool).unwrap();
    let (values, ids) = truth.sort(0, false).unwrap();
    assert_eq!(values.dtype(), DType::Bool);
    assert_eq!(ids.to_vec::<u32>().unwrap(), [1, 3, 0, 2]);
}

#[test]
fn topk_is_the_head_of_the_descending_sort() {
    let v: Vec<f32> = (0..6000).map(|i| ((i * 7919) % 611) as f32 - if i % 97 == 0 { f32::NAN } else { 0.0 }).collect();
    let x = of(&v, &[20, 300]);
    let (all, places) = x.sort(1, true).unwrap();
    for k in [0, 1, 7, 299, 300] {
        let (values, ids) = x.topk(1, k).unwrap();
        let bits = |t: Tensor| t.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(values), bits(all.narrow(1, 0, k).unwrap()));
        assert_eq!(ids.to_vec::<u32>().unwrap(), places.narrow(1, 0, k).unwrap().to_vec::<u32>().unwrap());
    }
    let (values, _) = x.t().unwrap().topk(0, 3).unwrap();
    assert_eq!(values.shape(), [3, 20]);
}

#[test]
fn gradients_match_central_differences() {
    check_grads(&[sample(&[3, 5])], |x| Ok(x[0].sort(1, true)?.0));
    check_grads(&[sample(&[3, 5])], |x| Ok(x[0].t()?.sort(0, false)?.0));
    check_grads(&[sample(&[4, 3])], |x| Ok(x[0].topk(0, 2)?.0));
}

#[test]
fn empty_and_wrong_arguments() {
    let x = Tensor::zeros([2, 0], DType::F32, &Device::Cpu).unwrap();
    assert_eq!(x.sort(1, false).unwrap().0.shape(), [2, 0]);
    assert_eq!(x.sort(0, false).unwrap().1.shape(), [2, 0]);
    assert_eq!(x.topk(1, 0).unwrap().0.shape(), [2, 0]);
    assert!(matches!(x.topk(1, 1), Err(Error::OutOfRange { .. })));
    assert!(x.sort(2, false).is_err());
    assert!(Tensor::zeros((), DType::F32, &Device::Cpu).unwrap().sort(0, false).is_err());
}
