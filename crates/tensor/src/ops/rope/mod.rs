//! Rotary position embedding (Su et al. 2021).

mod cpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::ops::binary::same_kind;
use crate::{DType, Error, Result, Tensor};

pub use imaginal_kernels::rope::RopeStyle;

impl Tensor {
    /// Rotates the first `r` elements of each head: `x[b, t, h, d]`, `cos` and `sin` `[t, r/2]` of the angle of each
    /// position and pair.
    ///
    /// # Errors
    /// Shapes do not fit, `r` is larger than `d`, or types or devices differ.
    pub fn rope(&self, cos: &Tensor, sin: &Tensor, style: RopeStyle) -> Result<Tensor> {
        self.check_rope(cos, sin)?;
        if !(self.device().is_cpu() && self.dtype() == DType::F32) {
            return self.rope_reference(cos, sin, style);
        }
        let (cos, sin) = (cos.detach(), sin.detach());
        let out = cpu::rotate(self, &cos, &sin, style, false)?;
        Ok(record(out, &[self], move |b| Ok(vec![Some(cpu::rotate(b.grad, &cos, &sin, style, true)?)])))
    }

    fn check_rope(&self, cos: &Tensor, sin: &Tensor) -> Result<()> {
        let op = "rope";
        same_kind(op, self, cos)?;
        same_kind(op, self, sin)?;
        let [_, t, _, d] = self.dims_n(op)?;
        let [ct, half] = cos.dims_n(op)?;
        if ct != t || cos.shape() != sin.shape() || half * 2 > d {
            return Err(Error::shapes(op, self.shape(), cos.shape()));
        }
        Ok(())
    }

    /// The reference form of [`Tensor::rope`], composed of primitives.
    ///
    /// # Errors
    /// As [`Tensor::rope`].
    pub fn rope_reference(&self, cos: &Tensor, sin: &Tensor, style: RopeStyle) -> Result<Tensor> {
        self.check_rope(cos, sin)?;
        let [b, t, h, d] = self.dims_n("rope")?;
        let half = cos.shape()[1];
        let (cos, sin) = (cos.unsqueeze(1)?, sin.unsqueeze(1)?);
        let turned = self.narrow(3, 0, 2 * half)?;
        let (x, y) = match style {
            RopeStyle::Half => (turned.narrow(3, 0, half)?, turned.narrow(3, half, half)?),
            RopeStyle::Interleaved => {
                let pairs = turned.reshape([b, t, h, half, 2])?;
                (pairs.narrow(4, 0, 1)?.squeeze(4)?, pairs.narrow(4, 1, 1)?.squeeze(4)?)
            }
        };
        let first = x.mul(&cos)?.sub(&y.mul(&sin)?)?;
        let second = x.mul(&sin)?.add(&y.mul(&cos)?)?;
        let turned = match style {
            RopeStyle::Half => Tensor::cat(&[&first, &second], 3)?,
            RopeStyle::Interleaved => Tensor::stack(&[&first, &second], 4)?.reshape([b, t, h, 2 * half])?,
        };
        if 2 * half == d {
            return Ok(turned);
        }
        Tensor::cat(&[&turned, &self.narrow(3, 2 * half, d - 2 * half)?], 3)
    }
}
