//! Views: other shapes and ranges of the same storage, without a copy; and the copy that makes a view dense.

mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::dtype::with_element;
use crate::storage::Storage;
use crate::{Error, Result, Shape, Tensor};

impl Tensor {
    /// The same elements, row-major, in another shape; a view where the strides allow one, else a copy.
    ///
    /// # Errors
    /// The shape has another number of elements.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if shape.checked_count() != Some(self.elem_count()) {
            return Err(Error::shapes("reshape", self.shape(), shape.dims()));
        }
        let Some(layout) = self.layout().reshape(&shape) else { return self.contiguous()?.reshape(shape) };
        let out = self.with_layout(layout);
        Ok(record(out, &[self], |b| Ok(vec![Some(b.grad.reshape(b.inputs[0].shape())?)])))
    }

    /// Merges dimensions `first ..= last` into one.
    ///
    /// # Errors
    /// There are no such dimensions.
    pub fn flatten(&self, first: usize, last: usize) -> Result<Tensor> {
        self.layout().check_dim("flatten", last)?;
        if first > last {
            return Err(Error::argument("flatten", format!("first dimension {first} lies after the last, {last}")));
        }
        let d = self.shape();
        let shape: Vec<usize> = d[..first]
            .iter()
            .copied()
            .chain([d[first..=last].iter().product()])
            .chain(d[last + 1..].iter().copied())
            .collect();
        self.reshape(shape)
    }

    /// Dimensions in another order: `order[i]` is the old place of the new dimension `i`.
    ///
    /// # Errors
    /// `order` is not a permutation.
    pub fn permute(&self, order: &[usize]) -> Result<Tensor> {
        let out = self.with_layout(self.layout().permute("permute", order)?);
        let mut inverse = vec![0; order.len()];
        for (i, &d) in order.iter().enumerate() {
            inverse[d] = i;
        }
        Ok(record(out, &[self], move |b| Ok(vec![Some(b.grad.permute(&inverse)?)])))
    }

    /// Exchanges two dimensions.
    ///
    /// # Errors
    /// There are no such dimensions.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Tensor> {
        self.layout().check_dim("transpose", a)?;
        self.layout().check_dim("transpose", b)?;
        let mut order: Vec<usize> = (0..self.rank()).collect();
        order.swap(a, b);
        self.permute(&order)
    }

    /// Exchanges the last two dimensions.
    ///
    /// # Errors
    /// There are fewer than two.
    pub fn t(&self) -> Result<Tensor> {
        match self.rank() {
            0 | 1 => Err(Error::Rank { op: "t", expected: 2, shape: self.shape().to_vec() }),
            n => self.transpose(n - 2, n - 1),
        }
    }

    /// Elements `start .. start + len` of dimension `dim`.
    ///
    /// # Errors
    /// The range does not lie within the dimension.
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Tensor> {
        let out = self.with_layout(self.layout().narrow("narrow", dim, start, len)?);
        Ok(record(out, &[self], move |b| {
            let mut grad = Tensor::zeros(b.inputs[0].shape(), b.grad.dtype(), b.grad.device())?;
            grad.copy_into(dim, start, b.grad)?;
            Ok(vec![Some(grad)])
        }))
    }

    /// Repeats dimensions of size 1 (and adds leading ones) to reach `shape`, without a copy.
    ///
    /// # Errors
    /// Another size than 1 would have to change.
    pub fn broadcast_as(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        let out = self.with_layout(self.layout().broadcast("broadcast_as", shape.dims())?);
        Ok(record(out, &[self], |b| Ok(vec![Some(b.grad.sum_to(b.inputs[0].shape())?)])))
    }

    /// Adds a dimension of size 1 at `dim`.
    ///
    /// # Errors
    /// `dim` is more than the number of dimensions.
    pub fn unsqueeze(&self, dim: usize) -> Result<Tensor> {
        if dim > self.rank() {
            return Err(Error::OutOfRange { op: "unsqueeze", what: "dimension", index: dim, bound: self.rank() + 1 });
        }
        let out = self.with_layout(self.layout().insert_dim(dim));
        Ok(record(out, &[self], move |b| Ok(vec![Some(b.grad.squeeze(dim)?)])))
    }

    /// Removes dimension `dim` of size 1.
    ///
    /// # Errors
    /// There is no such dimension or it has another size.
    pub fn squeeze(&self, dim: usize) -> Result<Tensor> {
        if self.dim(dim)? != 1 {
            return Err(Error::argument("squeeze", format!("dimension {dim} of {:?} is not 1", self.shape())));
        }
        let out = self.with_layout(self.layout().remove_dim(dim));
        Ok(record(out, &[self], move |b| Ok(vec![Some(b.grad.unsqueeze(dim)?)])))
    }

    /// The same values lying row-major without gaps: itself where they do, else a copy.
    ///
    /// # Errors
    /// The device refuses.
    pub fn contiguous(&self) -> Result<Tensor> {
        if self.is_contiguous() {
            return Ok(self.clone());
        }
        let out = match self.storage() {
            Storage::Cpu(s) => with_element!(self.dtype(), T => {
                let source = s.slice::<T>();
                Tensor::build::<T>(self.shape(), |out| { cpu::copy_strided(source, self.layout(), out); Ok(()) })
            })?,
            #[cfg(feature = "gpu")]
            Storage::Gpu(s) => {
                Tensor::from_gpu(gpu::dense("contiguous", s, self.layout())?, self.shape(), self.dtype())
            }
        };
        let out = if out.dtype() == self.dtype() { out } else { out.with_dtype(self.dtype()) };
        Ok(record(out, &[self], |b| Ok(vec![Some(b.grad.clone())])))
    }

    /// Writes `src` over the elements `start .. start + src.dim(dim)` of dimension `dim`: in place if nobody else
    /// holds this tensor's storage, else into a copy. Records no gradient; for state and accumulators.
    ///
    /// # Errors
    /// Type, device or shapes differ (besides `dim`), or the range does not lie within the dimension.
    pub fn copy_into(&mut self, dim: usize, start: usize, src: &Tensor) -> Result<()> {
        let op = "copy_into";
        if self.dtype() != src.dtype() {
            return Err(Error::DType { op, got: src.dtype(), expected: self.dtype().to_string() });
        }
        if self.device() != src.device() {
            return Err(Error::DeviceMismatch { op, lhs: self.device().to_string(), rhs: src.device().to_string() });
        }
        let written = self.layout().narrow(op, dim, start, src.dim(dim)?)?;
        if written.dims() != src.shape() {
            return Err(Error::shapes(op, written.dims(), src.shape()));
        }
        #[cfg(feature = "gpu")]
        if let Storage::Gpu(_) = self.storage() {
            return gpu::copy_into(self, dim, start, src);
        }
        with_element!(self.dtype(), T => {
            if self.unique_slice_mut::<T>().is_none() {
                *self = self.deep_copy()?;
            }
            let base = self.layout().offset();
            let target = self.layout().narrow(op, dim, start, src.dim(dim)?)?;
            match self.unique_slice_mut::<T>() {
                Some(out) => {
                    cpu::write_strided(src.cpu_storage::<T>(op)?, src.layout(), out, &target, base);
                    Ok(())
                }
                None => Err(Error::Unsupported { op, dtype: self.dtype(), device: self.device().to_string() }),
            }
        })
    }

    /// The same values in storage of their own, dense and without history.
    ///
    /// # Errors
    /// The device refuses.
    pub fn deep_copy(&self) -> Result<Tensor> {
        #[cfg(feature = "gpu")]
        if let Storage::Gpu(s) = self.storage() {
            return Ok(Tensor::from_gpu(gpu::dense("deep_copy", s, self.layout())?, self.shape(), self.dtype()));
        }
        let dense = crate::no_grad(|| self.contiguous())?;
        let out = with_element!(self.dtype(), T => {
            Tensor::build::<T>(self.shape(), |out| {
                let from = dense.layout().offset();
                out.copy_from_slice(&dense.cpu_storage::<T>("deep_copy")?[from..from + out.len()]);
                Ok(())
            })
        })?;
        Ok(if out.dtype() == self.dtype() { out } else { out.with_dtype(self.dtype()) })
    }
}
