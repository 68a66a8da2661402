//! Softmax and its logarithm along a dimension.

mod cpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::{DType, Error, Result, Tensor};

impl Tensor {
    /// `exp(x − max) / Σ exp(x − max)` along `dim`.
    ///
    /// # Errors
    /// There is no such dimension or the type is no float.
    pub fn softmax(&self, dim: usize) -> Result<Tensor> {
        self.normalised(dim, false)
    }

    /// The logarithm of [`Tensor::softmax`], without the loss of small values.
    ///
    /// # Errors
    /// As [`Tensor::softmax`].
    pub fn log_softmax(&self, dim: usize) -> Result<Tensor> {
        self.normalised(dim, true)
    }

    fn normalised(&self, dim: usize, log: bool) -> Result<Tensor> {
        let op = if log { "log_softmax" } else { "softmax" };
        self.dim(dim)?;
        if !self.dtype().is_float() {
            return Err(Error::DType { op, got: self.dtype(), expected: "a float".into() });
        }
        if !(self.device().is_cpu() && self.dtype() == DType::F32) {
            return if log { self.log_softmax_reference(dim) } else { self.softmax_reference(dim) };
        }
        // The kernels work on rows: the dimension goes last and comes back.
        let last = self.rank() - 1;
        let y = cpu::forward(&self.detach().transpose(dim, last)?, log)?;
        let saved = y.clone();
        Ok(record(y.transpose(dim, last)?, &[self], move |b| {
            Ok(vec![Some(cpu::backward(&saved, &b.grad.transpose(dim, last)?, log)?.transpose(dim, last)?)])
        }))
    }

    /// The reference form of [`Tensor::softmax`], composed of primitives.
    ///
    /// # Errors
    /// As [`Tensor::softmax`].
    pub fn softmax_reference(&self, dim: usize) -> Result<Tensor> {
        let e = self.sub(&self.detach().max(dim, true)?)?.exp()?;
        e.div(&e.sum(&[dim], true)?)
    }

    /// The reference form of [`Tensor::log_softmax`], composed of primitives.
    ///
    /// # Errors
    /// As [`Tensor::softmax`].
    pub fn log_softmax_reference(&self, dim: usize) -> Result<Tensor> {
        let x = self.sub(&self.detach().max(dim, true)?)?;
        x.sub(&x.exp()?.sum(&[dim], true)?.log()?)
    }
}
