//! For the tests of operations: sample values and gradients by central differences.

use crate::{Device, Element, Result, Tensor};

/// Irregular values in about -2 .. 2, none of them near another or near zero.
pub(crate) fn sample(shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>();
    let v: Vec<f64> = (0..n).map(|i| (((i * 7919 + 13) % 997) as f64 + 0.37) / 250.0 - 2.0).collect();
    Tensor::from_vec(v, shape, &Device::Cpu).unwrap()
}

/// A CPU tensor of these values.
pub(crate) fn of<T: Element>(values: &[T], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

/// Compares the gradients of `f`, weighted by irregular numbers, with central differences in every element of every
/// input. Inputs are `f64`.
pub(crate) fn check_grads(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let loss = |xs: &[Tensor]| -> Result<Tensor> {
        let y = f(xs)?;
        let w: Vec<f64> = (0..y.elem_count()).map(|i| ((i * 31 + 7) % 17) as f64 * 0.25 - 1.7).collect();
        y.mul(&of(&w, y.shape()))?.sum_all()
    };
    let leaves: Vec<Tensor> = inputs.iter().map(|x| x.requires_grad()).collect();
    let grads = loss(&leaves).unwrap().backward().unwrap();
    for (k, x) in inputs.iter().enumerate() {
        let got = match grads.get(&leaves[k]) {
            Some(g) => {
                assert_eq!(g.shape(), x.shape(), "input {k}");
                assert_eq!(g.dtype(), x.dtype(), "input {k}");
                g.to_vec::<f64>().unwrap()
            }
            None => panic!("no gradient for input {k}"),
        };
        let values = x.to_vec::<f64>().unwrap();
        for (i, g) in got.iter().enumerate() {
            let at = |step: f64| -> f64 {
                let mut v = values.clone();
                v[i] += step;
                let mut xs = inputs.to_vec();
                xs[k] = of(&v, x.shape());
                crate::no_grad(|| loss(&xs)).unwrap().to_scalar().unwrap()
            };
            let h = 1e-5;
            let numeric = (at(h) - at(-h)) / (2.0 * h);
            assert!(
                (g - numeric).abs() <= 1e-6 * numeric.abs().max(1.0),
                "input {k}, element {i}: gradient {g}, central difference {numeric}"
            );
        }
    }
}

/// Reproducible values, roughly uniform in (−1, 1).
pub(crate) fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let n = shape.iter().product();
    let values: Vec<f32> = (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u64 << 23) as f32) - 1.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Largest difference of two tensors relative to the largest value of the second (at least 1).
pub(crate) fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.shape(), b.shape());
    let (a, b) = (a.to_vec::<f32>().unwrap(), b.to_vec::<f32>().unwrap());
    let scale = b.iter().fold(1.0f32, |m, v| m.max(v.abs()));
    a.iter()
        .zip(&b)
        .fold(0.0f32, |m, (x, y)| if (x - y).is_nan() { f32::INFINITY } else { m.max((x - y).abs() / scale) })
}

/// Compares a fused operation with its reference form: values and, under a random weighting of the result, the
/// gradients of all inputs.
pub(crate) fn check_against_reference(
    inputs: &[Tensor],
    fused: impl Fn(&[Tensor]) -> Result<Tensor>,
    reference: impl Fn(&[Tensor]) -> Result<Tensor>,
    bound: f32,
) {
    let run = |f: &dyn Fn(&[Tensor]) -> Result<Tensor>| {
        let leaves: Vec<Tensor> = inputs.iter().map(Tensor::requires_grad).collect();
        let out = f(&leaves).unwrap();
        let weights = noise(out.shape(), 99);
        let grads = out.mul(&weights).unwrap().sum_all().unwrap().backward().unwrap();
        (out.detach(), leaves.iter().map(|l| grads.get(l).cloned()).collect::<Vec<_>>())
    };
    let (value, grads) = run(&fused);
    let (expected, expected_grads) = run(&reference);
    let d = difference(&value, &expected);
    assert!(d <= bound, "values differ by {d}");
    for (i, (g, e)) in grads.iter().zip(&expected_grads).enumerate() {
        let (Some(g), Some(e)) = (g, e) else { panic!("gradient of input {i}: {g:?} and {e:?}") };
        let d = difference(g, e);
        assert!(d <= bound, "gradients of input {i} differ by {d}");
    }
}
