use crate::ops::testing::{check_grads, of, sample};
use crate::{DType, Device, Tensor};

#[test]
fn joined_parts_come_apart_again() {
    let x = sample(&[3, 5, 4]);
    for dtype in [DType::F64, DType::F32, DType::BF16, DType::I64, DType::U8, DType::Bool] {
        let x = x.to_dtype(dtype).unwrap();
        for view in [x.clone(), x.permute(&[2, 0, 1]).unwrap(), x.permute(&[1, 2, 0]).unwrap()] {
            for dim in 0..3 {
                let n = view.shape()[dim];
                let parts = view.split(dim, &[1, 0, n - 2, 1]).unwrap();
                let y = Tensor::cat(&parts, dim).unwrap();
                assert_eq!((y.dtype(), y.shape()), (dtype, view.shape()));
                let read = |t: &Tensor| t.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
                assert_eq!(read(&y), read(&view));
                let stacked = Tensor::stack(&parts[..1], dim).unwrap();
                assert_eq!(read(&stacked.squeeze(dim).unwrap()), read(&parts[0]));
                assert_eq!(Tensor::cat(&view.chunk(dim, 2).unwrap(), dim).unwrap().shape(), view.shape());
            }
        }
    }
}

#[test]
fn stack_puts_tensors_side_by_side() {
    let (a, b) = (of(&[1f32, 2.0], &[2]), of(&[3f32, 4.0], &[2]));
    assert_eq!(Tensor::stack(&[&a, &b], 0).unwrap().to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);
    let y = Tensor::stack(&[&a, &b], 1).unwrap();
    assert_eq!(y.shape(), [2, 2]);
    assert_eq!(y.to_vec::<f32>().unwrap(), [1.0, 3.0, 2.0, 4.0]);
}

#[test]
fn chunks_cover_the_dimension() {
    let x = sample(&[7, 2]);
    let sizes = |n: usize| x.chunk(0, n).unwrap().iter().map(|t| t.shape()[0]).collect::<Vec<_>>();
    assert_eq!(sizes(3), [3, 3, 1]);
    assert_eq!(sizes(1), [7]);
    assert_eq!(sizes(100), [1; 7]);
    assert_eq!(x.narrow(0, 0, 0).unwrap().chunk(0, 3).unwrap_or_default().len(), 1);
    assert!(x.chunk(0, 0).is_err() && x.chunk(2, 1).is_err());
    assert!(x.split(0, &[3, 3]).is_err() && x.split(0, &[usize::MAX, 8]).is_err());
}

#[test]
fn gradients_match_central_differences() {
    check_grads(&[sample(&[2, 3]), sample(&[2, 1]), sample(&[4, 2])], |x| Tensor::cat(&[&x[0], &x[1], &x[2].t()?], 1));
    check_grads(&[sample(&[2, 3]), sample(&[3, 2])], |x| Tensor::stack(&[&x[0], &x[1].t()?, &x[0]], 1));
    check_grads(&[sample(&[2, 6])], |x| {
        let parts = x[0].split(1, &[1, 2, 3])?;
        parts[1].mul(&parts[0])?.add(&parts[2].narrow(1, 1, 2)?)
    });
}

#[test]
fn what_does_not_fit_is_an_error() {
    let x = Tensor::zeros([2, 3], DType::F32, &Device::Cpu).unwrap();
    let none: [Tensor; 0] = [];
    assert!(Tensor::cat(&none, 0).is_err() && Tensor::stack(&none, 0).is_err());
    assert!(Tensor::cat(&[&x, &x], 2).is_err());
    assert!(Tensor::cat(&[&x, &x.t().unwrap()], 0).is_err());
    assert!(Tensor::cat(&[&x, &x.to_dtype(DType::F64).unwrap()], 0).is_err());
    assert!(Tensor::cat(&[&x, &x.unsqueeze(0).unwrap()], 0).is_err());
    assert!(Tensor::stack(&[&x], 3).is_err());
}
