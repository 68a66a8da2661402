//! Running sums along a dimension.

mod cpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::dtype::with_element;
use crate::ops::common::{around, not_bool};
use crate::storage::Storage;
use crate::{Result, Tensor};

fn running(op: &'static str, x: &Tensor, dim: usize, reverse: bool) -> Result<Tensor> {
    x.layout().check_dim(op, dim)?;
    not_bool(op, x)?;
    let out = match x.storage() {
        Storage::Cpu(_) => {
            let dense = crate::no_grad(|| x.contiguous())?;
            with_element!(x.dtype(), T => Tensor::build::<T>(x.shape(), |out| {
                cpu::running_sum(dense.as_slice::<T>()?, around(x.shape(), dim), reverse, out);
                Ok(())
            }))?
        }
        #[cfg(feature = "gpu")]
        Storage::Gpu(_) => return Err(crate::gpu::missing(op, x.dtype())),
    };
    Ok(record(out, &[x], move |b| Ok(vec![Some(running(op, b.grad, dim, !reverse)?)])))
}

impl Tensor {
    /// Along dimension `dim`, the sum of each element and all before it. Floats are added in `f64`; integers wrap.
    ///
    /// # Errors
    /// There is no such dimension, or the type is `bool`.
    pub fn cumsum(&self, dim: usize) -> Result<Tensor> {
        running("cumsum", self, dim, false)
    }
}
