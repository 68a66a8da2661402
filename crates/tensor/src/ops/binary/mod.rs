//! Elementwise operations of two tensors, broadcasting by NumPy's rule. Both have the same element type.

pub(crate) mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
mod grad;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::dtype::with_element;
use crate::layout::broadcast_shape;
use crate::storage::Storage;
use crate::{DType, Error, Result, Tensor};

/// Which operation.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Maximum,
    Minimum,
    Pow,
}

impl Binary {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "div",
            Binary::Maximum => "maximum",
            Binary::Minimum => "minimum",
            Binary::Pow => "pow",
        }
    }
}

/// The common checks of operations with two operands: one device and one type.
pub(crate) fn same_kind(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.device() != b.device() {
        return Err(Error::DeviceMismatch { op, lhs: a.device().to_string(), rhs: b.device().to_string() });
    }
    if a.dtype() != b.dtype() {
        return Err(Error::DType { op, got: b.dtype(), expected: a.dtype().to_string() });
    }
    Ok(())
}

pub(crate) fn binary(kind: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let op = kind.name();
    same_kind(op, a, b)?;
    if a.dtype() == DType::Bool {
        return Err(Error::DType { op, got: DType::Bool, expected: "a number; cast with to_dtype".into() });
    }
    let shape = broadcast_shape(op, a.shape(), b.shape())?;
    let (la, lb) = (a.layout().broadcast(op, &shape)?, b.layout().broadcast(op, &shape)?);
    let out = match (a.storage(), b.storage()) {
        (Storage::Cpu(sa), Storage::Cpu(sb)) => with_element!(a.dtype(), T => Tensor::build::<T>(shape, |out| {
            cpu::run(kind, sa.slice::<T>(), &la, sb.slice::<T>(), &lb, out)
        }))?,
        #[cfg(feature = "gpu")]
        _ => gpu::run(kind, a, &la, b, &lb)?,
    };
    Ok(record(out, &[a, b], move |ctx| grad::backward(kind, ctx)))
}

impl Tensor {
    /// `self + other`, broadcasting.
    ///
    /// # Errors
    /// The shapes do not broadcast to one another, or types or devices differ; so for all operations of two tensors.
    pub fn add(&self, other: &Tensor) -> Result<Tensor> {
        binary(Binary::Add, self, other)
    }

    /// `self - other`, broadcasting.
    ///
    /// # Errors
    /// As [`Tensor::add`].
    pub fn sub(&self, other: &Tensor) -> Result<Tensor> {
        binary(Binary::Sub, self, other)
    }

    /// `self · other` elementwise, broadcasting.
    ///
    /// # Errors
    /// As [`Tensor::add`].
    pub fn mul(&self, other: &Tensor) -> Result<Tensor> {
        binary(Binary::Mul, self, other)
    }

    /// `self / other`, broadcasting. Integer division truncates.
    ///
    /// # Errors
    /// As [`Tensor::add`]; integers may not be divided by zero.
    pub fn div(&self, other: &Tensor) -> Result<Tensor> {
        binary(Binary::Div, self, other)
    }

    /// The larger of both, broadcasting; the gradient goes to the larger, half to each where equal.
    ///
    /// # Errors
    /// As [`Tensor::add`].
    pub fn maximum(&self, other: &Tensor) -> Result<Tensor> {
        binary(Binary::Maximum, self, other)
    }

    /// The smaller of both, broadcasting; the gradient goes to the smaller, half to each where equal.
    ///
    /// # Errors
    /// As [`Tensor::add`].
    pub fn minimum(&self, other: &Tensor) -> Result<Tensor> {
        binary(Binary::Minimum, self, other)
    }

    /// `self` to the power `other`, broadcasting; computed in floating point.
    ///
    /// # Errors
    /// As [`Tensor::add`].
    pub fn pow(&self, other: &Tensor) -> Result<Tensor> {
        binary(Binary::Pow, self, other)
    }

    /// `self + other` of equal shapes, in place where nobody else holds `self`. Records no gradient.
    ///
    /// # Errors
    /// As [`Tensor::add`].
    pub fn into_add(mut self, other: &Tensor) -> Result<Tensor> {
        same_kind("add", &self, other)?;
        if self.dtype() == DType::F32
            && self.shape() == other.shape()
            && other.is_contiguous()
            && other.device().is_cpu()
        {
            let src = other.as_slice::<f32>()?;
            if let Some(out) = self.unique_slice_mut::<f32>() {
                cpu::add_in_place(out, src);
                return Ok(self);
            }
        }
        crate::no_grad(|| self.add(other))
    }
}
