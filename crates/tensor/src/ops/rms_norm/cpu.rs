use imaginal_kernels::norm;

use crate::{Result, Tensor};

fn sizes(x: &Tensor) -> (usize, usize) {
    let d = x.shape()[x.rank() - 1];
    (x.elem_count().checked_div(d).unwrap_or(0), d)
}

pub(super) fn forward(x: &Tensor, w: &Tensor, eps: f32) -> Result<Tensor> {
    let (rows, d) = sizes(x);
    let (x, w) = (x.detach().contiguous()?, w.detach().contiguous()?);
    Tensor::build::<f32>(x.shape(), |out| {
        norm::rms_norm(x.as_slice()?, w.as_slice()?, eps, rows, d, out);
        Ok(())
    })
}

/// Gradients of the input and of the weight.
pub(super) fn backward(x: &Tensor, w: &Tensor, eps: f32, grad: &Tensor) -> Result<[Tensor; 2]> {
    let (rows, d) = sizes(x);
    let (x, w, grad) = (x.detach().contiguous()?, w.detach().contiguous()?, grad.contiguous()?);
    Tensor::build_n::<f32, 2>([x.shape(), w.shape()], |[dx, dw]| {
        norm::rms_norm_backward(x.as_slice()?, w.as_slice()?, eps, rows, d, grad.as_slice()?, dx, dw);
        Ok(())
    })
}
