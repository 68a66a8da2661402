use imaginal_kernels::softmax;

use crate::{Result, Tensor};

fn sizes(x: &Tensor) -> (usize, usize) {
    let d = x.shape()[x.rank() - 1];
    (x.elem_count().checked_div(d).unwrap_or(0), d)
}

/// Over the last dimension.
pub(super) fn forward(x: &Tensor, log: bool) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (rows, d) = sizes(&x);
    let f = if log { softmax::log_softmax } else { softmax::softmax };
    Tensor::build::<f32>(x.shape(), |out| {
        f(x.as_slice()?, rows, d, out);
        Ok(())
    })
}

/// Gradient of the input, given the result.
pub(super) fn backward(y: &Tensor, grad: &Tensor, log: bool) -> Result<Tensor> {
    let grad = grad.contiguous()?;
    let (rows, d) = sizes(y);
    let f = if log { softmax::log_softmax_backward } else { softmax::softmax_backward };
    Tensor::build::<f32>(y.shape(), |out| {
        f(y.as_slice()?, grad.as_slice()?, rows, d, out);
        Ok(())
    })
}
