//! One step of AdamW (Loshchilov and Hutter 2019), in place.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(test)]
mod tests;

pub use imaginal_kernels::optim::AdamW;

use crate::ops::binary::same_kind;
use crate::{DType, Error, Result, Tensor};

impl Tensor {
    /// Moves this parameter by one step of AdamW, as torch.optim.AdamW does, and updates its two moments; all of one
    /// shape. What nobody else holds changes in place, anything else is copied first. Its history is cut off.
    ///
    /// # Errors
    /// The shapes, types or devices differ, or the type is not f32.
    pub fn adamw_step(
        &mut self,
        grad: &Tensor,
        first: &mut Tensor,
        second: &mut Tensor,
        settings: &AdamW,
    ) -> Result<()> {
        let op = "adamw_step";
        for other in [grad, first, second] {
            same_kind(op, self, other)?;
            if other.shape() != self.shape() {
                return Err(Error::shapes(op, self.shape(), other.shape()));
            }
        }
        #[cfg(feature = "gpu")]
        if !self.device().is_cpu() {
            return crate::no_grad(|| gpu::step(self, grad, first, second, settings));
        }
        if !self.device().is_cpu() || self.dtype() != DType::F32 {
            let device = self.device().to_string();
            return Err(Error::Unsupported { op, dtype: self.dtype(), device });
        }
        crate::no_grad(|| cpu::step(self, grad, first, second, settings))
    }
}
