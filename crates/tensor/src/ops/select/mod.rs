//! Choice by a condition, elementwise and broadcasting.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::layout::broadcast_shape;
use crate::ops::binary::same_kind;
use crate::ops::common::same_device;
use crate::storage::Storage;
use crate::{DType, Error, Result, Tensor};

impl Tensor {
    /// `a` where this `Bool` tensor is true and `b` elsewhere; all three broadcast. The gradient goes to the chosen.
    ///
    /// # Errors
    /// This is not a `Bool` tensor, the shapes do not broadcast to one another, or types or devices differ.
    pub fn select(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let op = "select";
        if self.dtype() != DType::Bool {
            return Err(Error::DType { op, got: self.dtype(), expected: "a bool condition".into() });
        }
        same_kind(op, a, b)?;
        same_device(op, self, a)?;
        let shape = broadcast_shape(op, &broadcast_shape(op, self.shape(), a.shape())?, b.shape())?;
        let (lc, la, lb) = (
            self.layout().broadcast(op, &shape)?,
            a.layout().broadcast(op, &shape)?,
            b.layout().broadcast(op, &shape)?,
        );
        let out = match (self.storage(), a.storage(), b.storage()) {
            (Storage::Cpu(c), Storage::Cpu(sa), Storage::Cpu(sb)) => {
                cpu::select(a.dtype(), (c, &lc), (sa, &la), (sb, &lb))?
            }
            #[cfg(feature = "gpu")]
            _ => gpu::select((self, &lc), (a, &la), (b, &lb))?,
        };
        let cond = self.detach();
        Ok(record(out, &[a, b], move |ctx| {
            let zero = Tensor::zeros((), ctx.grad.dtype(), ctx.grad.device())?;
            let da = ctx.needs(0).then(|| cond.select(ctx.grad, &zero)?.sum_to(ctx.inputs[0].shape())).transpose()?;
            let db = ctx.needs(1).then(|| cond.select(&zero, ctx.grad)?.sum_to(ctx.inputs[1].shape())).transpose()?;
            Ok(vec![da, db])
        }))
    }

    /// `value` where the `Bool` tensor `mask` is true, these values elsewhere; the mask broadcasts to this shape.
    ///
    /// # Errors
    /// As [`Tensor::select`], or the mask has a larger shape.
    pub fn masked_fill(&self, mask: &Tensor, value: f64) -> Result<Tensor> {
        let mask = mask.broadcast_as(self.shape())?;
        mask.select(&Tensor::full((), value, self.dtype(), self.device())?, self)
    }
}
