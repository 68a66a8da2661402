//! Root mean square normalisation (Zhang and Sennrich 2019).

mod cpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::ops::binary::same_kind;
use crate::{DType, Error, Result, Tensor};

impl Tensor {
    /// `x / sqrt(mean(x²) + eps) · w` over the last dimension: `x[.., d]`, `w[d]`.
    ///
    /// # Errors
    /// `w` is not `[d]`, or types or devices differ.
    pub fn rms_norm(&self, w: &Tensor, eps: f32) -> Result<Tensor> {
        let op = "rms_norm";
        same_kind(op, self, w)?;
        if self.rank() == 0 || w.shape() != &self.shape()[self.rank() - 1..] {
            return Err(Error::shapes(op, self.shape(), w.shape()));
        }
        if !(self.device().is_cpu() && self.dtype() == DType::F32) {
            return self.rms_norm_reference(w, eps);
        }
        let out = cpu::forward(self, w, eps)?;
        Ok(record(out, &[self, w], move |b| {
            let [dx, dw] = cpu::backward(&b.inputs[0], &b.inputs[1], eps, b.grad)?;
            Ok(vec![Some(dx), Some(dw)])
        }))
    }

    /// The reference form of [`Tensor::rms_norm`], composed of primitives.
    ///
    /// # Errors
    /// As [`Tensor::rms_norm`].
    pub fn rms_norm_reference(&self, w: &Tensor, eps: f32) -> Result<Tensor> {
        let mean = self.sqr()?.mean(&[self.rank() - 1], true)?;
        self.mul(&mean.add_scalar(eps as f64)?.rsqrt()?)?.mul(w)
    }
}
