use imaginal_kernels::vecmath;

use crate::{Result, Tensor};

pub(super) fn forward(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let (gate, up) = (gate.detach().contiguous()?, up.detach().contiguous()?);
    Tensor::build::<f32>(gate.shape(), |out| {
        vecmath::swiglu(gate.as_slice()?, up.as_slice()?, out);
        Ok(())
    })
}

/// Gradients of the gate and of the other factor.
pub(super) fn backward(gate: &Tensor, up: &Tensor, grad: &Tensor) -> Result<[Tensor; 2]> {
    let (gate, up, grad) = (gate.detach().contiguous()?, up.detach().contiguous()?, grad.contiguous()?);
    Tensor::build_n::<f32, 2>([gate.shape(), gate.shape()], |[dgate, dup]| {
        vecmath::swiglu_backward(gate.as_slice()?, up.as_slice()?, grad.as_slice()?, dgate, dup);
        Ok(())
    })
}
