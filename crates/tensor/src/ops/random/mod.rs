//! Random tensors by seed. Element `i` of a tensor depends on the seed and on `i` alone: not on the number of threads,
//! the device, or what was drawn before. The same seed gives the same tensor on every machine.
//!
//! Numbers come from Philox4x32-10, a generator whose state is a counter: J. K. Salmon, M. A. Moraes, R. O. Dror,
//! D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

mod cpu;
mod philox;
#[cfg(test)]
mod tests;

pub use philox::Philox;

use crate::autograd::record;
use crate::dtype::with_element;
use crate::ops::common::{build_as, with_float};
use crate::{DType, Device, Error, Result, Shape, Tensor};

impl Tensor {
    /// Uniform in `low .. high`. Rounding to a narrow type may reach `high`.
    ///
    /// # Errors
    /// The type is no float, or an end is not finite.
    pub fn rand(
        shape: impl Into<Shape>,
        low: f64,
        high: f64,
        dtype: DType,
        seed: u64,
        device: &Device,
    ) -> Result<Tensor> {
        if !(low.is_finite() && high.is_finite()) {
            return Err(Error::argument("rand", format!("{low} .. {high} is not a finite range")));
        }
        with_float!("rand", dtype, T => Tensor::build::<T>(shape, |out| {
            cpu::uniform(seed, low, high, out);
            Ok(())
        }))?
        .to_device(device)
    }

    /// Normal with this mean and standard deviation (Box and Muller 1958).
    ///
    /// # Errors
    /// The type is no float, or a number is not finite.
    pub fn randn(
        shape: impl Into<Shape>,
        mean: f64,
        std: f64,
        dtype: DType,
        seed: u64,
        device: &Device,
    ) -> Result<Tensor> {
        if !(mean.is_finite() && std.is_finite()) {
            return Err(Error::argument("randn", format!("mean {mean} and deviation {std} must be finite")));
        }
        with_float!("randn", dtype, T => Tensor::build::<T>(shape, |out| {
            cpu::normal(seed, mean, std, out);
            Ok(())
        }))?
        .to_device(device)
    }

    /// Whole numbers, uniform in `low .. high`, as any number type.
    ///
    /// # Errors
    /// The range is empty, or has numbers that the type cannot hold exactly.
    pub fn randint(
        shape: impl Into<Shape>,
        low: i64,
        high: i64,
        dtype: DType,
        seed: u64,
        device: &Device,
    ) -> Result<Tensor> {
        let op = "randint";
        // Every whole number up to these is a value of the type.
        let (min, max) = match dtype {
            DType::I64 => (i64::MIN, i64::MAX),
            DType::F64 => (-1 << 53, 1 << 53),
            DType::F32 => (-1 << 24, 1 << 24),
            DType::F16 => (-1 << 11, 1 << 11),
            DType::BF16 => (-1 << 8, 1 << 8),
            DType::I32 => (i32::MIN as i64, i32::MAX as i64),
            DType::U32 => (0, u32::MAX as i64),
            DType::U8 => (0, u8::MAX as i64),
            DType::Bool => (0, 1),
        };
        if low >= high || low < min || high - 1 > max {
            return Err(Error::argument(op, format!("{low} .. {high} is not a range of whole numbers of {dtype}")));
        }
        with_element!(dtype, T => build_as::<T>(shape, dtype, |out| {
            cpu::whole(seed, low, high, out);
            Ok(())
        }))?
        .to_device(device)
    }

    /// A `Bool` tensor, each element true with probability `p`.
    ///
    /// # Errors
    /// `p` does not lie in 0 ..= 1.
    pub fn bernoulli(shape: impl Into<Shape>, p: f64, seed: u64, device: &Device) -> Result<Tensor> {
        if !(0.0..=1.0).contains(&p) {
            return Err(Error::argument("bernoulli", format!("{p} is not a probability")));
        }
        build_as::<u8>(shape, DType::Bool, |out| {
            cpu::bernoulli(seed, p, out);
            Ok(())
        })?
        .to_device(device)
    }

    /// The numbers `0 .. n` in random order, as `u32`.
    ///
    /// # Errors
    /// `n` is beyond `u32`.
    pub fn randperm(n: usize, seed: u64, device: &Device) -> Result<Tensor> {
        if u32::try_from(n).is_err() {
            return Err(Error::argument("randperm", format!("{n} numbers do not fit u32")));
        }
        Tensor::build::<u32>(n, |out| {
            cpu::permutation(seed, out);
            Ok(())
        })?
        .to_device(device)
    }

    /// Each element 0 with probability `p`, else divided by `1 - p` (Srivastava et al. 2014). The gradient draws the
    /// same elements again from the seed, so that no mask is kept.
    ///
    /// # Errors
    /// `p` does not lie in 0 .. 1, or the type is no float.
    pub fn dropout(&self, p: f64, seed: u64) -> Result<Tensor> {
        if !(0.0..1.0).contains(&p) {
            return Err(Error::argument("dropout", format!("{p} is not a probability below 1")));
        }
        if !self.dtype().is_float() {
            return Err(crate::ops::common::not_a_float("dropout", self.dtype()));
        }
        if p == 0.0 {
            return Ok(self.clone());
        }
        let apply = move |x: &Tensor| {
            let drop = Tensor::bernoulli(x.shape(), p, seed, x.device())?;
            x.mul_scalar(1.0 / (1.0 - p))?.masked_fill(&drop, 0.0)
        };
        let out = crate::no_grad(|| apply(self))?;
        Ok(record(out, &[self], move |b| Ok(vec![Some(apply(b.grad)?)])))
    }
}
