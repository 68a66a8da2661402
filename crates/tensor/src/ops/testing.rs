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
