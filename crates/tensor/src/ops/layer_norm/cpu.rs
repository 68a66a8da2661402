use imaginal_kernels::norm;

use crate::{Result, Tensor};

pub(super) fn forward(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, eps: f32) -> Result<Tensor> {
    let rows = x.elem_count().checked_div(w.elem_count()).unwrap_or(0);
    let (x, w) = (x.detach().contiguous()?, w.detach().contiguous()?);
    let bias = bias.map(|b| b.detach().contiguous()).transpose()?;
    Tensor::build::<f32>(x.shape(), |out| {
        let bias = bias.as_ref().map_or(Ok(&[][..]), |b| b.as_slice())?;
        norm::layer_norm(x.as_slice()?, w.as_slice()?, bias, eps, rows, out);
        Ok(())
    })
}

/// Gradients of the input, the weight and the bias.
pub(super) fn backward(x: &Tensor, w: &Tensor, eps: f32, grad: &Tensor) -> Result<[Tensor; 3]> {
    let (x, w, grad) = (x.detach().contiguous()?, w.detach().contiguous()?, grad.contiguous()?);
    Tensor::build_n::<f32, 3>([x.shape(), w.shape(), w.shape()], |[dx, dw, db]| {
        norm::layer_norm_backward(x.as_slice()?, w.as_slice()?, eps, grad.as_slice()?, dx, dw, db);
        Ok(())
    })
}
