//! Comparisons, elementwise and broadcasting, to `Bool`.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(test)]
mod tests;

use crate::layout::broadcast_shape;
use crate::ops::binary::same_kind;
use crate::storage::Storage;
use crate::{Result, Tensor};

/// Which comparison.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Compare {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Compare::Eq => "eq",
            Compare::Ne => "ne",
            Compare::Lt => "lt",
            Compare::Le => "le",
            Compare::Gt => "gt",
            Compare::Ge => "ge",
        }
    }
}

fn compare(kind: Compare, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let op = kind.name();
    same_kind(op, a, b)?;
    let shape = broadcast_shape(op, a.shape(), b.shape())?;
    let (la, lb) = (a.layout().broadcast(op, &shape)?, b.layout().broadcast(op, &shape)?);
    match (a.storage(), b.storage()) {
        (Storage::Cpu(sa), Storage::Cpu(sb)) => cpu::compare(kind, a.dtype(), sa, &la, sb, &lb),
        #[cfg(feature = "gpu")]
        _ => gpu::compare(kind, a, &la, b, &lb),
    }
}

impl Tensor {
    /// Where `self` equals `other`, as `Bool`, broadcasting. NaN equals nothing.
    ///
    /// # Errors
    /// The shapes do not broadcast to one another, or types or devices differ; so for all comparisons.
    pub fn eq(&self, other: &Tensor) -> Result<Tensor> {
        compare(Compare::Eq, self, other)
    }

    /// Where `self` differs from `other`, as `Bool`, broadcasting. NaN differs from everything.
    ///
    /// # Errors
    /// As [`Tensor::eq`].
    pub fn ne(&self, other: &Tensor) -> Result<Tensor> {
        compare(Compare::Ne, self, other)
    }

    /// Where `self` is less than `other`, as `Bool`, broadcasting.
    ///
    /// # Errors
    /// As [`Tensor::eq`].
    pub fn lt(&self, other: &Tensor) -> Result<Tensor> {
        compare(Compare::Lt, self, other)
    }

    /// Where `self` is at most `other`, as `Bool`, broadcasting.
    ///
    /// # Errors
    /// As [`Tensor::eq`].
    pub fn le(&self, other: &Tensor) -> Result<Tensor> {
        compare(Compare::Le, self, other)
    }

    /// Where `self` is greater than `other`, as `Bool`, broadcasting.
    ///
    /// # Errors
    /// As [`Tensor::eq`].
    pub fn gt(&self, other: &Tensor) -> Result<Tensor> {
        compare(Compare::Gt, self, other)
    }

    /// Where `self` is at least `other`, as `Bool`, broadcasting.
    ///
    /// # Errors
    /// As [`Tensor::eq`].
    pub fn ge(&self, other: &Tensor) -> Result<Tensor> {
        compare(Compare::Ge, self, other)
    }
}
