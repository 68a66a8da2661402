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
        Storage::Gpu(_) => crate::no_grad(|| by_product(x, dim, reverse))?,
    };
    Ok(record(out, &[x], move |b| Ok(vec![Some(running(op, b.grad, dim, !reverse)?)])))
}

/// The sums of floats as a product with a triangle of ones, for devices without a kernel.
#[cfg(any(test, feature = "gpu"))]
fn by_product(x: &Tensor, dim: usize, reverse: bool) -> Result<Tensor> {
    let before = crate::ops::chunks::lower(x.dim(dim)?, false, x.device())?.to_dtype(x.dtype())?;
    let ones = if reverse { before } else { before.t()? };
    let (x, last) = (x.unsqueeze(0)?, x.rank());
    x.transpose(dim + 1, last)?.matmul(&ones)?.transpose(dim + 1, last)?.squeeze(0)?.contiguous()
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
