//! Elementwise functions of one float tensor. `f16` and `bf16` are computed in `f32` and rounded once.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
mod grad;
#[cfg(test)]
mod tests;

use half::{bf16, f16};

use crate::autograd::record;
use crate::ops::common::not_a_float;
use crate::storage::Storage;
use crate::{DType, Element, Result, Tensor};

/// Which function.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Unary {
    Neg,
    Exp,
    Log,
    Sqrt,
    Rsqrt,
    Recip,
    Sqr,
    Abs,
    Sin,
    Cos,
    Tanh,
    Sigmoid,
    Silu,
    Gelu,
    GeluErf,
    Relu,
    Softplus,
}

impl Unary {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Unary::Neg => "neg",
            Unary::Exp => "exp",
            Unary::Log => "log",
            Unary::Sqrt => "sqrt",
            Unary::Rsqrt => "rsqrt",
            Unary::Recip => "recip",
            Unary::Sqr => "sqr",
            Unary::Abs => "abs",
            Unary::Sin => "sin",
            Unary::Cos => "cos",
            Unary::Tanh => "tanh",
            Unary::Sigmoid => "sigmoid",
            Unary::Silu => "silu",
            Unary::Gelu => "gelu",
            Unary::GeluErf => "gelu_erf",
            Unary::Relu => "relu",
            Unary::Softplus => "softplus",
        }
    }
}

/// A tensor of the shape of `x` that `fill` writes.
fn filled<T: Element>(x: &Tensor, fill: impl FnOnce(&mut [T])) -> Result<Tensor> {
    Tensor::build(x.shape(), |out| {
        fill(out);
        Ok(())
    })
}

fn unary(kind: Unary, x: &Tensor) -> Result<Tensor> {
    let (op, l) = (kind.name(), x.layout());
    let out = match x.storage() {
        Storage::Cpu(s) => match x.dtype() {
            DType::F64 => filled(x, |out| cpu::values(kind, s.slice::<f64>(), l, out))?,
            DType::F32 => filled(x, |out| cpu::values_f32(kind, s.slice(), l, out))?,
            DType::F16 => filled(x, |out| cpu::values_half(kind, s.slice::<f16>(), l, out))?,
            DType::BF16 => filled(x, |out| cpu::values_half(kind, s.slice::<bf16>(), l, out))?,
            other => return Err(not_a_float(op, other)),
        },
        #[cfg(feature = "gpu")]
        Storage::Gpu(_) => gpu::values(kind, x)?,
    };
    let saved = kind.slope_uses_result().then(|| out.clone());
    Ok(record(out, &[x], move |b| grad::backward(kind, b, saved.as_ref())))
}

impl Tensor {
    /// `-x`.
    ///
    /// # Errors
    /// The element type is not a float; so for all functions of one tensor.
    pub fn neg(&self) -> Result<Tensor> {
        unary(Unary::Neg, self)
    }

    /// e to the power of x.
    ///
    /// # Errors
    /// As [`Tensor::neg`].
    pub fn exp(&self) -> Result<Tensor> {
        unary(Unary::Exp, self)
    }

    /// Natural logarithm: −∞ of 0, NaN of negative numbers.
    ///
    /// # Errors
    /// As [`Tensor::neg`].
    pub fn log(&self) -> Result<Tensor> {
        unary(Unary::Log, self)
    }

    /// Square root.
    ///
    /// # Errors
    /// As [`Tensor::neg`].
    pub fn sqrt(&self) -> Result<Tensor> {
        unary(Unary::Sqrt, self)
    }

    /// `1 / √x`.
    ///
    /// # Errors
    /// As [`Tensor::neg`].
    pub fn rsqrt(&self) -> Result<Tensor> {
        unary(Unary::Rsqrt, self)
    }

    /// `1 / x`.
    ///
    /// # Errors
    /// As [`Tensor::neg`].
    pub fn recip(&self) -> Result<Tensor> {
        unary(Unary::Recip, self)
    }

    /// `x²`.
    ///
    /// # Errors
    /// As [`Tensor::neg`].
    pub fn sqr(&self) -> Result<Tensor> {
        unary(Unary::Sqr, self)
    }

    /// Absolute value; its gradient at 0 is 0.
    ///
    /// # Errors
    /// As [`Tensor::neg`].
    pub fn abs(&self) -> Result<Tensor> {
        unary(Unary::Abs, self)
    }

    /// Sine of radians.
    ///
    /// # Errors
    /// As [`Tensor::neg`].
    pub fn sin(&self) -> Result<Tensor> {
        unary(Unary::Sin, self)
    }

    /// Cosine of radians.
    ///
    /// # Errors
    /// As [`Tensor::neg`].
    pub fn cos(&self) -> Result<Tensor> {
        unary(Unary::Cos, self)
    }

    /// Hyperbolic tangent.
    ///
    /// # Errors
    /// As [`Tensor::neg`].
    pub fn tanh(&self) -> Result<Tensor> {
        unary(Unary::Tanh, self)
    }

    /// `1 / (1 + e⁻ˣ)`.
    ///
    /// # Errors
    /// As [`Tensor::neg`].
    pub fn sigmoid(&self) -> Result<Tensor> {
        unary(Unary::Sigmoid, self)
    }

    /// `x · sigmoid(x)`, also called swish (Elfwing et al. 2017).
    ///
    /// # Errors
    /// As [`Tensor::neg`].
    pub fn silu(&self) -> Result<Tensor> {
        unary(Unary::Silu, self)
    }

    /// GELU by its tanh approximation, `½x(1 + tanh(√(2/π)(x + 0.044715x³)))` (Hendrycks & Gimpel 2016).
    ///
    /// # Errors
    /// As [`Tensor::neg`].
    pub fn gelu(&self) -> Result<Tensor> {
        unary(Unary::Gelu, self)
    }

    /// GELU exactly, `½x(1 + erf(x/√2))` (Hendrycks & Gimpel 2016).
    ///
    /// # Errors
    /// As [`Tensor::neg`].
    pub fn gelu_erf(&self) -> Result<Tensor> {
        unary(Unary::GeluErf, self)
    }

    /// `max(x, 0)`; its gradient at 0 is 0.
    ///
    /// # Errors
    /// As [`Tensor::neg`].
    pub fn relu(&self) -> Result<Tensor> {
        unary(Unary::Relu, self)
    }

    /// `ln(1 + eˣ)`, without overflow.
    ///
    /// # Errors
    /// As [`Tensor::neg`].
    pub fn softplus(&self) -> Result<Tensor> {
        unary(Unary::Softplus, self)
    }
}
