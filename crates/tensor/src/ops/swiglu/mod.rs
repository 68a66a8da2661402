//! The gate of SwiGLU feed-forward layers (Shazeer 2020) and of Mamba blocks.

mod cpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::ops::binary::same_kind;
use crate::{DType, Error, Result, Tensor};

impl Tensor {
    /// `silu(self) · up` elementwise; `self` is the gate. Shapes are equal.
    ///
    /// # Errors
    /// Shapes, types or devices differ.
    pub fn swiglu(&self, up: &Tensor) -> Result<Tensor> {
        let op = "swiglu";
        same_kind(op, self, up)?;
        if self.shape() != up.shape() {
            return Err(Error::shapes(op, self.shape(), up.shape()));
        }
        if !(self.device().is_cpu() && self.dtype() == DType::F32) {
            return self.swiglu_reference(up);
        }
        let out = cpu::forward(self, up)?;
        Ok(record(out, &[self, up], |b| {
            let [dgate, dup] = cpu::backward(&b.inputs[0], &b.inputs[1], b.grad)?;
            Ok(vec![Some(dgate), Some(dup)])
        }))
    }

    /// The reference form of [`Tensor::swiglu`], composed of primitives.
    ///
    /// # Errors
    /// As [`Tensor::swiglu`].
    pub fn swiglu_reference(&self, up: &Tensor) -> Result<Tensor> {
        self.silu()?.mul(up)
    }
}
