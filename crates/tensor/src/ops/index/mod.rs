//! Elements by index. [`Tensor::index_select`] picks whole slices of a dimension (embeddings, reordering) and
//! [`Tensor::index_add`] adds slices into place; [`Tensor::gather`] picks single elements along a dimension and
//! [`Tensor::scatter_add`] adds single elements. Each is the gradient of the other of its pair.
//!
//! Indices are `u32`, `i32` or `i64`, and all of them are checked before anything is read or written.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::dtype::with_element;
use crate::ops::binary::same_kind;
use crate::ops::common::{around, build_as, indices, not_bool, same_device};
use crate::storage::Storage;
use crate::{DType, Error, Result, Tensor};

/// The shape of picked slices: dimension `dim` of `shape` replaced by the dimensions of `ids`.
fn picked_shape(shape: &[usize], dim: usize, ids: &[usize]) -> Vec<usize> {
    [&shape[..dim], ids, &shape[dim + 1..]].concat()
}

/// Indices of single elements have the rank of the tensor, and besides `dim` no size above its.
fn check_elementwise(op: &'static str, x: &Tensor, dim: usize, ids: &Tensor) -> Result<()> {
    x.layout().check_dim(op, dim)?;
    same_device(op, x, ids)?;
    let fits = x.rank() == ids.rank() && (0..x.rank()).all(|d| d == dim || ids.shape()[d] <= x.shape()[d]);
    if fits { Ok(()) } else { Err(Error::shapes(op, x.shape(), ids.shape())) }
}

/// Sums of many halves are taken in `f32` and rounded once.
fn widened(x: &Tensor, src: &Tensor, add: impl Fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
    match x.dtype() {
        DType::F16 | DType::BF16 => {
            crate::no_grad(|| add(&x.to_dtype(DType::F32)?, &src.to_dtype(DType::F32)?)?.to_dtype(x.dtype()))
        }
        _ => add(x, src),
    }
}

impl Tensor {
    /// The slices of dimension `dim` that `ids` names, in its order and as often as it names them. The dimension is
    /// replaced by those of `ids`, which may have any shape: an embedding `[v, d]` with `dim` 0 and ids `[b, t]` gives
    /// `[b, t, d]`.
    ///
    /// # Errors
    /// There is no such dimension, an index is negative or not below its size (the error names it), or `ids` is not of
    /// type `u32`, `i32` or `i64`.
    pub fn index_select(&self, dim: usize, ids: &Tensor) -> Result<Tensor> {
        let op = "index_select";
        self.layout().check_dim(op, dim)?;
        same_device(op, self, ids)?;
        let shape = picked_shape(self.shape(), dim, ids.shape());
        let out = match self.storage() {
            Storage::Cpu(_) => {
                let list = indices(op, ids, self.shape()[dim])?;
                let x = crate::no_grad(|| self.contiguous())?;
                with_element!(self.dtype(), T => build_as::<T>(shape, self.dtype(), |out| {
                    cpu::pick(x.as_slice::<T>()?, around(self.shape(), dim), &list, out);
                    Ok(())
                }))?
            }
            #[cfg(feature = "gpu")]
            Storage::Gpu(_) => {
                indices(op, ids, self.shape()[dim])?;
                gpu::index_select(self, dim, ids, shape)?
            }
        };
        let ids = ids.detach();
        Ok(record(out, &[self], move |b| Ok(vec![Some(b.inputs[0].zeros_like()?.index_add(dim, &ids, b.grad)?)])))
    }

    /// These values with slices of `src` added to those of dimension `dim` that `ids` names; an index may come more
    /// than once. `src` has this shape with dimension `dim` replaced by those of `ids`. Sums are taken in the order of
    /// `ids`, whatever the number of threads.
    ///
    /// # Errors
    /// As [`Tensor::index_select`]; the shape of `src` is another, types or devices differ, or the type is `bool`.
    pub fn index_add(&self, dim: usize, ids: &Tensor, src: &Tensor) -> Result<Tensor> {
        let op = "index_add";
        self.layout().check_dim(op, dim)?;
        same_kind(op, self, src)?;
        same_device(op, self, ids)?;
        not_bool(op, self)?;
        let expected = picked_shape(self.shape(), dim, ids.shape());
        if src.shape() != expected {
            return Err(Error::shapes(op, src.shape(), &expected));
        }
        let out = match self.storage() {
            Storage::Cpu(_) => {
                let list = indices(op, ids, self.shape()[dim])?;
                widened(self, src, |x, src| cpu::add_slices(x, around(self.shape(), dim), &list, src))?
            }
            #[cfg(feature = "gpu")]
            Storage::Gpu(_) => {
                indices(op, ids, self.shape()[dim])?;
                gpu::index_add(self, dim, ids, src)?
            }
        };
        let ids = ids.detach();
        Ok(record(out, &[self, src], move |b| {
            let to_src = b.needs(1).then(|| b.grad.index_select(dim, &ids)).transpose()?;
            Ok(vec![Some(b.grad.clone()), to_src])
        }))
    }

    /// One element of dimension `dim` per index: with `dim` 1, `out[i, j, k] = self[i, ids[i, j, k], k]`. `ids` has the
    /// rank of this tensor and, besides `dim`, no larger sizes; the result has its shape.
    ///
    /// # Errors
    /// As [`Tensor::index_select`], or the shape of `ids` does not fit.
    pub fn gather(&self, dim: usize, ids: &Tensor) -> Result<Tensor> {
        let op = "gather";
        check_elementwise(op, self, dim, ids)?;
        let out = match self.storage() {
            Storage::Cpu(s) => {
                let list = indices(op, ids, self.shape()[dim])?;
                with_element!(self.dtype(), T => build_as::<T>(ids.shape(), self.dtype(), |out| {
                    cpu::gather(s.slice::<T>(), self.layout(), dim, &list, out, ids.shape())
                }))?
            }
            #[cfg(feature = "gpu")]
            Storage::Gpu(_) => {
                indices(op, ids, self.shape()[dim])?;
                gpu::gather(self, dim, ids)?
            }
        };
        let ids = ids.detach();
        Ok(record(out, &[self], move |b| Ok(vec![Some(b.inputs[0].zeros_like()?.scatter_add(dim, &ids, b.grad)?)])))
    }

    /// These values with each element of `src` added along dimension `dim` where its index says: with `dim` 1,
    /// `self[i, ids[i, j, k], k] += src[i, j, k]`, in order. `src` and `ids` have one shape, that of this tensor or
    /// smaller besides `dim`.
    ///
    /// # Errors
    /// As [`Tensor::gather`]; types or devices differ, or the type is `bool`.
    pub fn scatter_add(&self, dim: usize, ids: &Tensor, src: &Tensor) -> Result<Tensor> {
        let op = "scatter_add";
        check_elementwise(op, self, dim, ids)?;
        same_kind(op, self, src)?;
        not_bool(op, self)?;
        if src.shape() != ids.shape() {
            return Err(Error::shapes(op, src.shape(), ids.shape()));
        }
        let out = match self.storage() {
            Storage::Cpu(_) => {
                let list = indices(op, ids, self.shape()[dim])?;
                widened(self, src, |x, src| cpu::scatter_add(x, dim, &list, src))?
            }
            #[cfg(feature = "gpu")]
            Storage::Gpu(_) => {
                indices(op, ids, self.shape()[dim])?;
                gpu::scatter_add(self, dim, ids, src)?
            }
        };
        let ids = ids.detach();
        Ok(record(out, &[self, src], move |b| {
            let to_src = b.needs(1).then(|| b.grad.gather(dim, &ids)).transpose()?;
            Ok(vec![Some(b.grad.clone()), to_src])
        }))
    }
}
