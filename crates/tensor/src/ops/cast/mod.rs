//! Casts between element types.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::storage::Storage;
use crate::{DType, Result, Tensor};

impl Tensor {
    /// The same values as another element type.
    ///
    /// Floats round to nearest even; a float becomes an integer by truncation, saturating at the ends of its range
    /// (NaN becomes 0), and integers saturate too; anything but 0 becomes `true`. Gradients flow back between floats,
    /// in the type of the input; no gradient flows through integers.
    ///
    /// # Errors
    /// The device refuses.
    pub fn to_dtype(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        let out = match self.storage() {
            Storage::Cpu(s) => cpu::cast(s, self.layout(), self.dtype(), dtype)?,
            #[cfg(feature = "gpu")]
            Storage::Gpu(s) => Tensor::from_gpu(gpu::cast(s, self.layout(), self.dtype(), dtype)?, self.shape(), dtype),
        };
        if !(dtype.is_float() && self.dtype().is_float()) {
            return Ok(out);
        }
        Ok(record(out, &[self], |b| Ok(vec![Some(b.grad.to_dtype(b.inputs[0].dtype())?)])))
    }
}
