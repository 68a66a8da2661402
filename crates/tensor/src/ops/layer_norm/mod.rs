//! Layer normalisation (Ba, Kiros and Hinton 2016).

mod cpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::ops::binary::same_kind;
use crate::{DType, Error, Result, Tensor};

impl Tensor {
    /// `(x − mean) / sqrt(variance + eps) · w + bias` over the last dimension: `x[.., d]`, `w[d]`, `bias[d]`.
    ///
    /// # Errors
    /// `w` or `bias` is not `[d]`, or types or devices differ.
    pub fn layer_norm(&self, w: &Tensor, bias: Option<&Tensor>, eps: f32) -> Result<Tensor> {
        let op = "layer_norm";
        for other in [Some(w), bias].into_iter().flatten() {
            same_kind(op, self, other)?;
            if self.rank() == 0 || other.shape() != &self.shape()[self.rank() - 1..] {
                return Err(Error::shapes(op, self.shape(), other.shape()));
            }
        }
        if !(self.device().is_cpu() && self.dtype() == DType::F32) {
            return self.layer_norm_reference(w, bias, eps);
        }
        let out = cpu::forward(self, w, bias, eps)?;
        let inputs: Vec<&Tensor> = [self, w].into_iter().chain(bias).collect();
        let has_bias = bias.is_some();
        Ok(record(out, &inputs, move |b| {
            let [dx, dw, db] = cpu::backward(&b.inputs[0], &b.inputs[1], eps, b.grad)?;
            Ok([dx, dw].into_iter().chain(has_bias.then_some(db)).map(Some).collect())
        }))
    }

    /// The reference form of [`Tensor::layer_norm`], composed of primitives.
    ///
    /// # Errors
    /// As [`Tensor::layer_norm`].
    pub fn layer_norm_reference(&self, w: &Tensor, bias: Option<&Tensor>, eps: f32) -> Result<Tensor> {
        let last = [self.rank() - 1];
        let x = self.sub(&self.mean(&last, true)?)?;
        let variance = x.sqr()?.mean(&last, true)?;
        let y = x.mul(&variance.add_scalar(eps as f64)?.rsqrt()?)?.mul(w)?;
        bias.map_or(Ok(y.clone()), |bias| y.add(bias))
    }
}
