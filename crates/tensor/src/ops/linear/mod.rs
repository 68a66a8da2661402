//! `x · Wᵀ + b`, the product every layer with weights is made of.

mod cpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::ops::binary::same_kind;
use crate::{DType, Error, Result, Tensor};

impl Tensor {
    /// `x[.., k] · w[n, k]ᵀ + bias[n]` → `[.., n]`; the layout of PyTorch's and GGUF's weight matrices.
    ///
    /// # Errors
    /// `w` is no matrix, the inner sizes differ, `bias` is not `[n]`, or types or devices differ.
    pub fn linear(&self, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let op = "linear";
        same_kind(op, self, w)?;
        let [n, k] = w.dims_n(op)?;
        if self.shape().last() != Some(&k) {
            return Err(Error::shapes(op, self.shape(), w.shape()));
        }
        if let Some(b) = bias {
            same_kind(op, self, b)?;
            if b.shape() != [n] {
                return Err(Error::shapes(op, w.shape(), b.shape()));
            }
        }
        if !(self.device().is_cpu() && self.dtype() == DType::F32) {
            return self.linear_reference(w, bias);
        }
        let out = cpu::forward(self, w, bias)?;
        let inputs: Vec<&Tensor> = [self, w].into_iter().chain(bias).collect();
        Ok(record(out, &inputs, move |b| {
            let (x, w) = (&b.inputs[0], &b.inputs[1]);
            let mut grads = vec![
                b.needs(0).then(|| cpu::grad_input(b.grad, w, x.shape())).transpose()?,
                b.needs(1).then(|| cpu::grad_weight(b.grad, x, w.shape())).transpose()?,
            ];
            if let Some(bias) = b.inputs.get(2) {
                grads.push(Some(b.grad.sum_to(bias.shape())?));
            }
            Ok(grads)
        }))
    }

    /// The reference form of [`Tensor::linear`]: a transposed view, a matrix product and an addition.
    ///
    /// # Errors
    /// As [`Tensor::linear`].
    pub fn linear_reference(&self, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let k = self.shape().last().copied().unwrap_or(0);
        let rows = self.elem_count().checked_div(k).unwrap_or(0);
        let mut shape = self.shape().to_vec();
        if let (Some(last), Some(&n)) = (shape.last_mut(), w.shape().first()) {
            *last = n;
        }
        let y = self.reshape([rows, k])?.matmul(&w.t()?)?.reshape(shape)?;
        match bias {
            Some(b) => y.add(b),
            None => Ok(y),
        }
    }
}
