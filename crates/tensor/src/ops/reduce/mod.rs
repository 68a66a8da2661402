//! Reductions over dimensions: sum, mean, max, min, argmax, argmin.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::dtype::with_element;
use crate::storage::Storage;
use crate::{DType, Error, Result, Tensor};

/// Which reduction.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Reduce {
    Sum,
    Max,
    Min,
}

/// The shape with the dimensions `dims` of size 1.
fn kept_shape(op: &'static str, x: &Tensor, dims: &[usize]) -> Result<Vec<usize>> {
    let mut shape = x.shape().to_vec();
    for (i, &d) in dims.iter().enumerate() {
        x.layout().check_dim(op, d)?;
        if dims[..i].contains(&d) {
            return Err(Error::argument(op, format!("dimension {d} is named twice")));
        }
        shape[d] = 1;
    }
    Ok(shape)
}

fn without(shape: &[usize], dims: &[usize]) -> Vec<usize> {
    shape.iter().enumerate().filter(|(i, _)| !dims.contains(i)).map(|(_, &d)| d).collect()
}

/// Reduces over `dims`, which stay as dimensions of size 1. No gradient.
fn reduce(kind: Reduce, op: &'static str, x: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let shape = kept_shape(op, x, dims)?;
    if x.dtype() == DType::Bool {
        return Err(Error::DType { op, got: DType::Bool, expected: "a number; cast with to_dtype".into() });
    }
    if kind != Reduce::Sum && dims.iter().any(|&d| x.shape()[d] == 0) {
        return Err(Error::argument(op, format!("shape {:?} has nothing to choose from", x.shape())));
    }
    // Reduced dimensions go last, so that each result is made of one run of the dense tensor.
    let order: Vec<usize> =
        (0..x.rank()).filter(|d| !dims.contains(d)).chain((0..x.rank()).filter(|d| dims.contains(d))).collect();
    let run: usize = dims.iter().map(|&d| x.shape()[d]).product();
    match x.storage() {
        Storage::Cpu(s) => with_element!(x.dtype(), T => Tensor::build::<T>(shape, |out| {
            let layout = x.layout().permute(op, &order)?;
            cpu::reduce(kind, s.slice::<T>(), &layout, run, out);
            Ok(())
        })),
        #[cfg(feature = "gpu")]
        Storage::Gpu(s) => {
            let layout = x.layout().permute(op, &order)?;
            let results = shape.iter().product();
            Ok(Tensor::from_gpu(gpu::reduce(kind, op, x.dtype(), s, &layout, run, results)?, shape, x.dtype()))
        }
    }
}

impl Tensor {
    /// Sum over the dimensions `dims`, which become of size 1 (`keepdim`) or vanish. Integers wrap; `f16` and `bf16`
    /// are added in `f32`.
    ///
    /// # Errors
    /// There are no such dimensions, or one is named twice.
    pub fn sum(&self, dims: &[usize], keepdim: bool) -> Result<Tensor> {
        let kept = reduce(Reduce::Sum, "sum", self, dims)?;
        let out = if keepdim { kept } else { kept.reshape(without(self.shape(), dims))? };
        let dims = dims.to_vec();
        Ok(record(out, &[self], move |b| {
            let shape = b.inputs[0].shape();
            let kept = kept_shape("sum", &b.inputs[0], &dims)?;
            Ok(vec![Some(b.grad.reshape(kept)?.broadcast_as(shape)?)])
        }))
    }

    /// Sum of all elements, a scalar.
    ///
    /// # Errors
    /// The type cannot be summed (`bool`).
    pub fn sum_all(&self) -> Result<Tensor> {
        self.sum(&(0..self.rank()).collect::<Vec<_>>(), false)
    }

    /// Mean over the dimensions `dims`; NaN over nothing.
    ///
    /// # Errors
    /// As [`Tensor::sum`]; the type must be a float.
    pub fn mean(&self, dims: &[usize], keepdim: bool) -> Result<Tensor> {
        if !self.dtype().is_float() {
            return Err(Error::DType { op: "mean", got: self.dtype(), expected: "a float".into() });
        }
        let sum = self.sum(dims, keepdim)?;
        let n: usize = dims.iter().map(|&d| self.shape()[d]).product();
        sum.mul_scalar(1.0 / n as f64)
    }

    /// Mean of all elements, a scalar.
    ///
    /// # Errors
    /// The type is not a float.
    pub fn mean_all(&self) -> Result<Tensor> {
        self.mean(&(0..self.rank()).collect::<Vec<_>>(), false)
    }

    /// Largest element along `dim` (NaN wins); equal ones share the gradient.
    ///
    /// # Errors
    /// There is no such dimension or it is empty.
    pub fn max(&self, dim: usize, keepdim: bool) -> Result<Tensor> {
        self.extreme(Reduce::Max, "max", dim, keepdim)
    }

    /// Smallest element along `dim` (NaN wins); equal ones share the gradient.
    ///
    /// # Errors
    /// There is no such dimension or it is empty.
    pub fn min(&self, dim: usize, keepdim: bool) -> Result<Tensor> {
        self.extreme(Reduce::Min, "min", dim, keepdim)
    }

    fn extreme(&self, kind: Reduce, op: &'static str, dim: usize, keepdim: bool) -> Result<Tensor> {
        let kept = reduce(kind, op, self, &[dim])?;
        let out = if keepdim { kept.clone() } else { kept.squeeze(dim)? };
        Ok(record(out, &[self], move |b| {
            let x = &b.inputs[0];
            let is_extreme = x.detach().eq(&kept)?.to_dtype(x.dtype())?;
            let share = is_extreme.div(&is_extreme.sum(&[dim], true)?)?;
            let mut shape = x.shape().to_vec();
            shape[dim] = 1;
            Ok(vec![Some(share.mul(&b.grad.reshape(shape)?)?)])
        }))
    }

    /// Index of the first largest element along `dim` (NaN wins), as `u32`; the dimension vanishes.
    ///
    /// # Errors
    /// There is no such dimension or it is empty.
    pub fn argmax(&self, dim: usize) -> Result<Tensor> {
        self.arg_extreme(Reduce::Max, "argmax", dim)
    }

    /// Index of the first smallest element along `dim` (NaN wins), as `u32`; the dimension vanishes.
    ///
    /// # Errors
    /// There is no such dimension or it is empty.
    pub fn argmin(&self, dim: usize) -> Result<Tensor> {
        self.arg_extreme(Reduce::Min, "argmin", dim)
    }

    fn arg_extreme(&self, kind: Reduce, op: &'static str, dim: usize) -> Result<Tensor> {
        let n = self.dim(dim)?;
        if n == 0 || n > u32::MAX as usize {
            return Err(Error::argument(op, format!("a dimension of size {n} has no u32 index to choose")));
        }
        let order: Vec<usize> = (0..self.rank()).filter(|&d| d != dim).chain([dim]).collect();
        match self.storage() {
            Storage::Cpu(s) => Tensor::build::<u32>(without(self.shape(), &[dim]), |out| {
                let layout = self.layout().permute(op, &order)?;
                with_element!(self.dtype(), T => cpu::arg_extreme(kind, s.slice::<T>(), &layout, n, out));
                Ok(())
            }),
            #[cfg(feature = "gpu")]
            Storage::Gpu(s) => {
                let layout = self.layout().permute(op, &order)?;
                let found = gpu::arg_extreme(kind, op, self.dtype(), s, &layout, n)?;
                Ok(Tensor::from_gpu(found, without(self.shape(), &[dim]), DType::U32))
            }
        }
    }

    /// Sums a broadcast gradient back to `shape`: over added leading dimensions and those that were of size 1.
    ///
    /// # Errors
    /// This shape is not one that `shape` broadcasts to.
    pub fn sum_to(&self, shape: &[usize]) -> Result<Tensor> {
        if self.shape() == shape {
            return Ok(self.clone());
        }
        let lead = self.rank().checked_sub(shape.len()).ok_or_else(|| Error::shapes("sum_to", self.shape(), shape))?;
        let dims: Vec<usize> =
            (0..self.rank()).filter(|&d| d < lead || (shape[d - lead] == 1 && self.shape()[d] != 1)).collect();
        self.sum(&dims, true)?.reshape(shape)
    }
}
