//! Tensors joined and taken apart along a dimension.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;

use crate::autograd::record;
use crate::dtype::with_element;
use crate::ops::binary::same_kind;
use crate::ops::common::build_as;
use crate::storage::Storage;
use crate::{Error, Result, Tensor};

impl Tensor {
    /// The tensors one after another along dimension `dim`; their other sizes are equal.
    ///
    /// # Errors
    /// There is no tensor or no such dimension, or shapes (besides `dim`), types or devices differ.
    pub fn cat<T: Borrow<Tensor>>(tensors: &[T], dim: usize) -> Result<Tensor> {
        let op = "cat";
        let parts: Vec<&Tensor> = tensors.iter().map(|t| t.borrow()).collect();
        let Some(&first) = parts.first() else { return Err(Error::argument(op, "there are no tensors to join")) };
        first.layout().check_dim(op, dim)?;
        let mut shape = first.shape().to_vec();
        shape[dim] = 0;
        for t in &parts {
            same_kind(op, first, t)?;
            let fits = t.rank() == shape.len() && (0..shape.len()).all(|d| d == dim || t.shape()[d] == shape[d]);
            if !fits {
                return Err(Error::shapes(op, first.shape(), t.shape()));
            }
            shape[dim] = shape[dim]
                .checked_add(t.shape()[dim])
                .ok_or_else(|| Error::argument(op, "the sizes add up to more than fits in memory"))?;
        }
        if let [one] = parts[..] {
            return Ok(one.clone());
        }
        let out = match first.storage() {
            Storage::Cpu(_) => with_element!(first.dtype(), T => {
                build_as::<T>(shape, first.dtype(), |out| cpu::cat(&parts, dim, out))
            })?,
            #[cfg(feature = "gpu")]
            Storage::Gpu(_) => gpu::cat(&parts, dim, shape)?,
        };
        Ok(record(out, &parts, move |b| {
            let mut start = 0;
            b.inputs
                .iter()
                .map(|t| {
                    let n = t.shape()[dim];
                    start += n;
                    t.tracks_grad().then(|| b.grad.narrow(dim, start - n, n)).transpose()
                })
                .collect()
        }))
    }

    /// The tensors, of one shape, side by side along a new dimension `dim`.
    ///
    /// # Errors
    /// There is no tensor, `dim` is more than the number of dimensions, or shapes, types or devices differ.
    pub fn stack<T: Borrow<Tensor>>(tensors: &[T], dim: usize) -> Result<Tensor> {
        let parts: Result<Vec<Tensor>> = tensors.iter().map(|t| t.borrow().unsqueeze(dim)).collect();
        Tensor::cat(&parts?, dim)
    }

    /// Views of consecutive ranges of dimension `dim` with these sizes.
    ///
    /// # Errors
    /// There is no such dimension, or the sizes do not add up to its.
    pub fn split(&self, dim: usize, sizes: &[usize]) -> Result<Vec<Tensor>> {
        let n = self.dim(dim)?;
        if sizes.iter().try_fold(0usize, |sum, &s| sum.checked_add(s)) != Some(n) {
            return Err(Error::argument("split", format!("sizes {sizes:?} do not add up to {n}")));
        }
        let mut start = 0;
        sizes
            .iter()
            .map(|&len| {
                start += len;
                self.narrow(dim, start - len, len)
            })
            .collect()
    }

    /// At most `count` views of consecutive ranges of dimension `dim`, of equal size but for a smaller last one.
    ///
    /// # Errors
    /// There is no such dimension, or `count` is 0.
    pub fn chunk(&self, dim: usize, count: usize) -> Result<Vec<Tensor>> {
        let n = self.dim(dim)?;
        if count == 0 {
            return Err(Error::argument("chunk", "a tensor cannot be cut into no parts"));
        }
        let len = n.div_ceil(count).max(1);
        (0..n.div_ceil(len).max(1)).map(|i| self.narrow(dim, i * len, len.min(n - i * len))).collect()
    }
}
