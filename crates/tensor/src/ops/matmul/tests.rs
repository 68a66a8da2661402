use crate::ops::testing::noise;
use crate::{DType, Device, Tensor};

fn naive(a: &Tensor, b: &Tensor, batch: usize, m: usize, k: usize, n: usize) -> Vec<f64> {
    let values = |t: &Tensor, r, c| {
        t.to_dtype(DType::F64).unwrap().broadcast_as([batch, r, c]).unwrap().to_vec::<f64>().unwrap()
    };
    let (a, b) = (values(a, m, k), values(b, k, n));
    let at = |i: usize| {
        let (s, r, c) = (i / (m * n), i / n % m, i % n);
        (0..k).map(|j| a[(s * m + r) * k + j] * b[(s * k + j) * n + c]).sum()
    };
    (0..batch * m * n).map(at).collect()
}

#[test]
fn equals_the_definition_for_batches_broadcasts_and_strides() {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        let eps = if dtype == DType::BF16 { 0.05 } else { 1e-5 };
        let make = |shape: &[usize], seed| noise(shape, seed).to_dtype(dtype).unwrap();
        let cases = [
            (make(&[5, 7], 1), make(&[7, 3], 2), 1, 5, 7, 3),
            (make(&[4, 5, 7], 1), make(&[7, 3], 2), 4, 5, 7, 3),
            (make(&[1, 5, 7], 1), make(&[6, 7, 3], 2), 6, 5, 7, 3),
            (make(&[4, 7, 5], 1).t().unwrap(), make(&[4, 3, 7], 2).t().unwrap(), 4, 5, 7, 3),
            (make(&[2, 9, 4, 6], 1).transpose(1, 2).unwrap().reshape([8, 9, 6]).unwrap(), make(&[6, 2], 2), 8, 9, 6, 2),
            (make(&[3, 2, 0], 1), make(&[3, 0, 4], 2), 3, 2, 0, 4),
        ];
        for (a, b, batch, m, k, n) in cases {
            let got = a.matmul(&b).unwrap().to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
            for (x, y) in got.iter().zip(naive(&a, &b, batch, m, k, n)) {
                assert!((x - y).abs() <= eps, "{dtype} {x} {y}");
            }
        }
    }
    // A batch of strided matrices without one step between them.
    let a = noise(&[2, 3, 4, 5], 1);
    let b = noise(&[3, 5, 2], 2);
    let got = a.matmul(&b).unwrap();
    assert_eq!(got.shape(), [2, 3, 4, 2]);
    let one = a.narrow(0, 1, 1).unwrap().narrow(1, 2, 1).unwrap().reshape([4, 5]).unwrap();
    let expected = one.matmul(&b.narrow(0, 2, 1).unwrap().squeeze(0).unwrap()).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(got.to_vec::<f32>().unwrap()[40..], expected);
}

#[test]
fn gradients_match_central_differences() {
    let (a, b) = (noise(&[2, 3, 4], 1), noise(&[4, 5], 2));
    let [a, b] = [a, b].map(|t| t.to_dtype(DType::F64).unwrap());
    let w = noise(&[2, 3, 5], 3).to_dtype(DType::F64).unwrap();
    let loss = |a: &Tensor, b: &Tensor| a.matmul(b).unwrap().mul(&w).unwrap().sum_all().unwrap();
    let (la, lb) = (a.requires_grad(), b.requires_grad());
    let grads = loss(&la, &lb).backward().unwrap();
    for (t, leaf, first) in [(&a, &la, true), (&b, &lb, false)] {
        let values = t.to_vec::<f64>().unwrap();
        for (i, g) in grads.get(leaf).unwrap().to_vec::<f64>().unwrap().into_iter().enumerate() {
            let at = |h: f64| {
                let mut v = values.clone();
                v[i] += h;
                let t = Tensor::from_vec(v, t.shape(), &Device::Cpu).unwrap();
                let l = if first { loss(&t, &b) } else { loss(&a, &t) };
                l.to_scalar::<f64>().unwrap()
            };
            assert!(((at(1e-5) - at(-1e-5)) / 2e-5 - g).abs() < 1e-8);
        }
    }
}

#[test]
fn wrong_operands_are_errors() {
    let a = noise(&[3, 4], 1);
    assert!(a.matmul(&noise(&[3, 4], 2)).is_err());
    assert!(a.matmul(&noise(&[4], 2)).is_err());
    assert!(noise(&[2, 3, 4], 1).matmul(&noise(&[3, 4, 2], 2)).is_err());
    let ints = Tensor::zeros([4, 4], DType::I32, &Device::Cpu).unwrap();
    assert!(ints.matmul(&ints).is_err());
}
