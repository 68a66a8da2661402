//! Elementwise operations with a number: sum, product, bounds, power.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
mod grad;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::storage::Storage;
use crate::{DType, Error, Result, Tensor};

/// Which operation, with its numbers.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(crate) enum Scalar {
    Add(f64),
    Mul(f64),
    Clamp(f64, f64),
    Powf(f64),
}

impl Scalar {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scalar::Add(_) => "add_scalar",
            Scalar::Mul(_) => "mul_scalar",
            Scalar::Clamp(..) => "clamp",
            Scalar::Powf(_) => "powf",
        }
    }
}

fn scalar(kind: Scalar, x: &Tensor) -> Result<Tensor> {
    let op = kind.name();
    if x.dtype() == DType::Bool {
        return Err(Error::DType { op, got: DType::Bool, expected: "a number; cast with to_dtype".into() });
    }
    let out = match x.storage() {
        Storage::Cpu(s) => cpu::run(kind, x.dtype(), s, x.layout())?,
        #[cfg(feature = "gpu")]
        Storage::Gpu(_) => gpu::run(kind, x)?,
    };
    Ok(record(out, &[x], move |b| grad::backward(kind, b)))
}

impl Tensor {
    /// `x + c`. Integers take a whole number and wrap.
    ///
    /// # Errors
    /// The type is `bool`, or an integer type that cannot hold `c`.
    pub fn add_scalar(&self, c: f64) -> Result<Tensor> {
        scalar(Scalar::Add(c), self)
    }

    /// `x · c`. Integers take a whole number and wrap.
    ///
    /// # Errors
    /// As [`Tensor::add_scalar`].
    pub fn mul_scalar(&self, c: f64) -> Result<Tensor> {
        scalar(Scalar::Mul(c), self)
    }

    /// Each element moved to the nearer end of `low ..= high` where it lies outside (NaN stays); either end may be
    /// infinite. The gradient is 0 outside.
    ///
    /// # Errors
    /// `low` is above `high`, either is NaN, or the type is `bool`.
    pub fn clamp(&self, low: f64, high: f64) -> Result<Tensor> {
        if low.is_nan() || high.is_nan() || low > high {
            return Err(Error::argument("clamp", format!("{low} ..= {high} is not a range")));
        }
        scalar(Scalar::Clamp(low, high), self)
    }

    /// `x` to the power `e`, of floats.
    ///
    /// # Errors
    /// The type is not a float.
    pub fn powf(&self, e: f64) -> Result<Tensor> {
        if !self.dtype().is_float() {
            return Err(crate::ops::common::not_a_float("powf", self.dtype()));
        }
        scalar(Scalar::Powf(e), self)
    }
}
