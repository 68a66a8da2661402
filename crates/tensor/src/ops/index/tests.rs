use crate::ops::testing::{check_grads, of, sample};
use crate::{DType, Device, Error, Tensor};

const NUMBERS: [DType; 8] =
    [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::U32, DType::U8];

fn counting(shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>();
    of(&(0..n).map(|i| i as f64).collect::<Vec<_>>(), shape)
}

fn f64s(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap()
}

#[test]
fn index_select_picks_slices_of_any_dimension_and_stride() {
    let x = counting(&[3, 4, 5]);
    let ids = of(&[2i64, 0, 2, 1], &[2, 2]);
    for dtype in NUMBERS.into_iter().chain([DType::Bool]) {
        let x = x.to_dtype(dtype).unwrap();
        for view in [x.clone(), x.permute(&[2, 0, 1]).unwrap(), x.narrow(1, 0, 3).unwrap()] {
            for dim in 0..3 {
                let got = view.index_select(dim, &ids).unwrap();
                assert_eq!(got.dtype(), dtype);
                assert_eq!(&got.shape()[dim..dim + 2], [2, 2]);
                for (i, id) in [2, 0, 2, 1].into_iter().enumerate() {
                    let one = got.narrow(dim, i / 2, 1).unwrap().narrow(dim + 1, i % 2, 1).unwrap();
                    assert_eq!(f64s(&one), f64s(&view.narrow(dim, id, 1).unwrap()));
                }
            }
        }
    }
}

#[test]
fn index_add_adds_repeated_indices_in_every_number_type() {
    for dtype in NUMBERS {
        let x = counting(&[2, 3]).to_dtype(dtype).unwrap().t().unwrap();
        let src = of(&[1.0, 2.0, 10.0, 20.0, 5.0, 6.0], &[3, 2]).to_dtype(dtype).unwrap();
        let y = x.index_add(0, &of(&[2u32, 0, 2], &[3]), &src).unwrap();
        assert_eq!(f64s(&y), [10.0, 23.0, 1.0, 4.0, 8.0, 13.0]);
        assert_eq!(f64s(&x), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }
}

#[test]
fn large_sums_of_halves_are_rounded_once() {
    let n = 5000;
    let ids = Tensor::zeros(n, DType::U32, &Device::Cpu).unwrap();
    let ones = Tensor::ones(n, DType::BF16, &Device::Cpu).unwrap();
    let sum = Tensor::zeros(1, DType::BF16, &Device::Cpu).unwrap().index_add(0, &ids, &ones).unwrap();
    assert_eq!(f64s(&sum), [4992.0]);
    assert_eq!(
        f64s(&Tensor::zeros(1, DType::BF16, &Device::Cpu).unwrap().scatter_add(0, &ids, &ones).unwrap()),
        [4992.0]
    );
}

#[test]
fn parallel_index_add_equals_the_plain_loop() {
    let (v, d, n) = (37, 64, 1500);
    let ids: Vec<u32> = (0..n).map(|i| (i * i * 7 % v) as u32).collect();
    let src: Vec<f32> = (0..n * d).map(|i| ((i * 7919) % 1013) as f32 * 0.013 - 5.0).collect();
    let mut expected = vec![0f32; v * d];
    for (i, &id) in ids.iter().enumerate() {
        (0..d).for_each(|j| expected[id as usize * d + j] += src[i * d + j]);
    }
    let zero = Tensor::zeros([v, d], DType::F32, &Device::Cpu).unwrap();
    let got = zero.index_add(0, &of(&ids, &[n]), &of(&src, &[n, d])).unwrap();
    assert!(got.to_vec::<f32>().unwrap() == expected);
    // The same along a dimension that is not the first.
    let zero = Tensor::zeros([2, v, d / 2], DType::F32, &Device::Cpu).unwrap();
    let src = of(&src, &[n, 2, d / 2]).transpose(0, 1).unwrap();
    let got = zero.index_add(1, &of(&ids, &[n]), &src).unwrap().transpose(0, 1).unwrap();
    assert!(got.to_vec::<f32>().unwrap() == expected);
}

#[test]
fn gather_and_scatter_follow_their_definition() {
    let x = counting(&[3, 4, 2]);
    for view in [x.clone(), x.permute(&[1, 2, 0]).unwrap()] {
        let v = f64s(&view);
        let s = view.shape().to_vec();
        for dim in 0..3 {
            let mut shape = s.clone();
            shape[dim] = 5;
            let last = if dim == 2 { 1 } else { 2 };
            shape[last] = shape[last].min(s[last] - 1).max(1);
            let n: usize = shape.iter().product();
            let ids: Vec<i32> = (0..n).map(|i| ((i * 5 + 1) % s[dim]) as i32).collect();
            let it = of(&ids, &shape);
            let place = |k: usize| {
                let mut at = [k / shape[2] / shape[1], k / shape[2] % shape[1], k % shape[2]];
                at[dim] = ids[k] as usize;
                (at[0] * s[1] + at[1]) * s[2] + at[2]
            };
            let got = f64s(&view.gather(dim, &it).unwrap());
            assert!(got.iter().enumerate().all(|(k, &g)| g == v[place(k)]));
            let mut expected = v.clone();
            (0..n).for_each(|k| expected[place(k)] += k as f64 + 0.5);
            let src = of(&(0..n).map(|k| k as f64 + 0.5).collect::<Vec<_>>(), &shape);
            assert_eq!(f64s(&view.scatter_add(dim, &it, &src).unwrap()), expected);
        }
    }
}

#[test]
fn gradients_match_central_differences() {
    let ids = of(&[2u32, 0, 2, 1], &[2, 2]);
    check_grads(&[sample(&[3, 4])], |x| x[0].index_select(0, &ids));
    check_grads(&[sample(&[3, 4])], |x| x[0].t()?.index_select(1, &ids));
    check_grads(&[sample(&[3]), sample(&[2, 2])], |x| x[0].index_add(0, &ids, &x[1]));
    check_grads(&[sample(&[2, 3]), sample(&[2, 4])], |x| x[0].index_add(1, &ids.reshape(4)?, &x[1]));
    check_grads(&[sample(&[3, 3])], |x| x[0].t()?.gather(0, &ids));
    check_grads(&[sample(&[3, 3]), sample(&[2, 2])], |x| x[0].scatter_add(1, &ids, &x[1].t()?));
}

#[test]
fn wrong_indices_are_named() {
    let cpu = &Device::Cpu;
    let x = counting(&[3, 4]);
    let far = of(&[0u32, 3], &[2]);
    let message = x.index_select(0, &far).unwrap_err().to_string();
    assert!(message.contains("index_select") && message.contains("index 3"), "{message}");
    assert!(x.index_select(0, &of(&[-1i64], &[1])).unwrap_err().to_string().contains("-1"));
    assert!(matches!(x.index_select(2, &far), Err(Error::OutOfRange { .. })));
    assert!(matches!(x.index_select(0, &of(&[0f32], &[1])), Err(Error::DType { .. })));
    assert!(x.index_add(0, &far, &counting(&[2, 4])).is_err());
    assert!(x.index_add(1, &far, &counting(&[2, 4])).is_err());
    assert!(x.index_add(1, &far, &Tensor::zeros([3, 2], DType::F32, cpu).unwrap()).is_err());
    assert!(x.gather(0, &far).is_err());
    assert!(x.gather(0, &of(&[0u32; 5], &[1, 5])).is_err());
    assert!(x.gather(1, &of(&[4u32], &[1, 1])).is_err());
    assert!(x.scatter_add(1, &of(&[0u32], &[1, 1]), &counting(&[1, 2])).is_err());
    assert!(Tensor::zeros((), DType::F32, cpu).unwrap().gather(0, &of(&[0u32], &[])).is_err());
}

#[test]
fn nothing_may_be_picked_from_nothing() {
    let cpu = &Device::Cpu;
    let none = Tensor::zeros([0, 4], DType::F32, cpu).unwrap();
    let ids = Tensor::zeros(0, DType::U32, cpu).unwrap();
    assert_eq!(none.index_select(0, &ids).unwrap().shape(), [0, 4]);
    assert!(none.index_select(0, &of(&[0u32], &[1])).is_err());
    assert_eq!(none.index_select(1, &of(&[3u32, 3], &[2])).unwrap().shape(), [0, 2]);
    assert_eq!(none.index_add(0, &ids, &none).unwrap().shape(), [0, 4]);
    let ids = Tensor::zeros([0, 4], DType::U32, cpu).unwrap();
    assert_eq!(none.gather(0, &ids).unwrap().shape(), [0, 4]);
    assert_eq!(none.scatter_add(0, &ids, &none).unwrap().shape(), [0, 4]);
}
