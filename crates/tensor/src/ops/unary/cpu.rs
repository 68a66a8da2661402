use imaginal_kernels::vecmath;

use super::Unary;
use crate::Layout;
use crate::ops::common::{Float, Real, map, map_runs, map_runs_wide};

/// `√(2/π)`, of the tanh form of GELU.
pub(super) const GELU_SCALE: f64 = 0.797_884_560_802_865_4;
/// The cubic coefficient of the tanh form of GELU.
pub(super) const GELU_CUBIC: f64 = 0.044715;

#[inline(always)]
pub(super) fn sigmoid<R: Real>(x: R) -> R {
    R::ONE / (R::ONE + (-x).exp())
}

/// The standard normal distribution function.
#[inline(always)]
pub(super) fn normal_cdf<R: Real>(x: R) -> R {
    R::of(0.5) * (R::ONE + (x * R::of(std::f64::consts::FRAC_1_SQRT_2)).erf())
}

#[inline(always)]
fn relu<R: Real>(x: R) -> R {
    // Written so that NaN stays NaN.
    if x < R::ZERO { R::ZERO } else { x }
}

/// The vectorised form of a function, where there is one.
pub(super) fn vectorised(kind: Unary) -> Option<vecmath::Unary> {
    Some(match kind {
        Unary::Neg => vecmath::Unary::Neg,
        Unary::Exp => vecmath::Unary::Exp,
        Unary::Log => vecmath::Unary::Log,
        Unary::Sqrt => vecmath::Unary::Sqrt,
        Unary::Rsqrt => vecmath::Unary::Rsqrt,
        Unary::Recip => vecmath::Unary::Recip,
        Unary::Sqr => vecmath::Unary::Sqr,
        Unary::Abs => vecmath::Unary::Abs,
        Unary::Tanh => vecmath::Unary::Tanh,
        Unary::Sigmoid => vecmath::Unary::Sigmoid,
        Unary::Silu => vecmath::Unary::Silu,
        Unary::Gelu => vecmath::Unary::GeluTanh,
        Unary::GeluErf => vecmath::Unary::GeluErf,
        Unary::Relu => vecmath::Unary::Relu,
        Unary::Softplus => vecmath::Unary::Softplus,
        Unary::Sin | Unary::Cos => return None,
    })
}

/// `f32`: with the vector kernels, but for sine and cosine.
pub(super) fn values_f32(kind: Unary, source: &[f32], layout: &Layout, out: &mut [f32]) {
    match vectorised(kind) {
        Some(op) => map_runs(source, layout, out, &|src, dst| vecmath::unary(op, src, dst)),
        None => values(kind, source, layout, out),
    }
}

/// The halves, through `f32`.
pub(super) fn values_half<T: Float<Wide = f32>>(kind: Unary, source: &[T], layout: &Layout, out: &mut [T]) {
    map_runs_wide(source, layout, out, &|src, dst| values_f32(kind, src, &Layout::contiguous(src.len()), dst));
}

/// Any function in the type's own arithmetic.
pub(super) fn values<R: Real>(kind: Unary, source: &[R], layout: &Layout, out: &mut [R]) {
    macro_rules! each {
        ($x:ident => $y:expr) => {
            map(source, layout, out, |$x: R| $y)
        };
    }
    match kind {
        Unary::Neg => each!(x => -x),
        Unary::Exp => each!(x => x.exp()),
        Unary::Log => each!(x => x.ln()),
        Unary::Sqrt => each!(x => x.sqrt()),
        Unary::Rsqrt => each!(x => R::ONE / x.sqrt()),
        Unary::Recip => each!(x => R::ONE / x),
        Unary::Sqr => each!(x => x * x),
        Unary::Abs => each!(x => x.abs()),
        Unary::Sin => each!(x => x.sin()),
        Unary::Cos => each!(x => x.cos()),
        Unary::Tanh => each!(x => x.tanh()),
        Unary::Sigmoid => each!(x => sigmoid(x)),
        Unary::Silu => each!(x => x * sigmoid(x)),
        Unary::Gelu => each!(x => {
            let inner = R::of(GELU_SCALE) * (x + R::of(GELU_CUBIC) * x * x * x);
            R::of(0.5) * x * (R::ONE + inner.tanh())
        }),
        Unary::GeluErf => each!(x => x * normal_cdf(x)),
        Unary::Relu => each!(x => relu(x)),
        Unary::Softplus => each!(x => relu(x) + (-x.abs()).exp().ln_1p()),
    }
}
