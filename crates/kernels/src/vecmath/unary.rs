//! Functions of one variable, and their derivatives.

use super::{chunked, math, same_len};
use crate::isa::{Isa, Simd, isa, simd_fn};
use crate::pool::SharedMut;

/// An elementwise function. The bounds hold for results that are normal numbers; NaN stays NaN.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unary {
    /// eˣ; 1.5 ulp (2 without FMA).
    Exp,
    /// ln x; 2 ulp. −∞ at 0, NaN below.
    Log,
    /// √x; correctly rounded.
    Sqrt,
    /// 1/√x; 1.5 ulp.
    Rsqrt,
    /// 1/x; correctly rounded.
    Recip,
    /// −x; exact.
    Neg,
    /// |x|; exact. Its derivative at 0 is taken as 0.
    Abs,
    /// x²; correctly rounded.
    Sqr,
    /// max(x, 0); exact. Its derivative at 0 is taken as 0.
    Relu,
    /// 1/(1 + e⁻ˣ); 3 ulp.
    Sigmoid,
    /// x·sigmoid(x); 4 ulp above −87, absolute error at most 1e-43 below.
    Silu,
    /// tanh x; 3 ulp.
    Tanh,
    /// x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))/2, PyTorch's `gelu(approximate="tanh")`; absolute error at most 1e-6·max(1, |x|).
    GeluTanh,
    /// x·Φ(x), PyTorch's `gelu` (Hendrycks and Gimpel 2016); relative error at most 5e-7·(1 + x²).
    GeluErf,
    /// ln(1 + eˣ), x above 20; 3 ulp.
    Softplus,
}

impl Unary {
    /// Every member.
    pub const ALL: [Unary; 15] = [
        Unary::Exp,
        Unary::Log,
        Unary::Sqrt,
        Unary::Rsqrt,
        Unary::Recip,
        Unary::Neg,
        Unary::Abs,
        Unary::Sqr,
        Unary::Relu,
        Unary::Sigmoid,
        Unary::Silu,
        Unary::Tanh,
        Unary::GeluTanh,
        Unary::GeluErf,
        Unary::Softplus,
    ];
}

const GELU_A: f32 = 0.797_884_6; // √(2/π)
const GELU_B: f32 = 0.044_715;

#[inline(always)]
fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    s.mul(x, math::sigmoid(s, x))
}

/// d silu = σ·(1 + x·(1 − σ)).
#[inline(always)]
pub(crate) fn silu_derivative<S: Simd>(s: S, x: S::F) -> S::F {
    let sig = math::sigmoid(s, x);
    s.mul(sig, s.mul_add(x, s.sub(s.splat(1.0), sig), s.splat(1.0)))
}

/// (1 + tanh(u))/2 = sigmoid(2u), without cancellation for negative u.
#[inline(always)]
fn gelu_gate<S: Simd>(s: S, x: S::F) -> S::F {
    let x2 = s.mul(x, x);
    let inner = s.mul(x, s.mul_add(s.splat(2.0 * GELU_A * GELU_B), x2, s.splat(2.0 * GELU_A)));
    math::sigmoid(s, inner)
}

#[inline(always)]
fn gelu_tanh_derivative<S: Simd>(s: S, x: S::F) -> S::F {
    let g = gelu_gate(s, x);
    let x2 = s.mul(x, x);
    let du = s.mul_add(s.splat(6.0 * GELU_A * GELU_B), x2, s.splat(2.0 * GELU_A));
    // g + x·g·(1 − g)·u'
    s.mul_add(s.mul(x, du), s.mul(g, s.sub(s.splat(1.0), g)), g)
}

#[inline(always)]
fn gelu_erf_derivative<S: Simd>(s: S, x: S::F) -> S::F {
    s.mul_add(x, math::normal_pdf(s, x), math::normal_cdf(s, x))
}

/// Expands `$each!(|v| function of v)` for the member `$op`, so that the choice is made outside the loop.
macro_rules! choose {
    ($s:ident, $op:ident, $v:ident, $each:ident) => {
        match $op {
            Unary::Exp => $each!(|$v| math::exp($s, $v)),
            Unary::Log => $each!(|$v| math::log($s, $v)),
            Unary::Sqrt => $each!(|$v| $s.sqrt($v)),
            Unary::Rsqrt => $each!(|$v| $s.div($s.splat(1.0), $s.sqrt($v))),
            Unary::Recip => $each!(|$v| $s.div($s.splat(1.0), $v)),
            Unary::Neg => $each!(|$v| $s.neg($v)),
            Unary::Abs => $each!(|$v| $s.abs($v)),
            Unary::Sqr => $each!(|$v| $s.mul($v, $v)),
            Unary::Relu => $each!(|$v| $s.max($s.zero(), $v)),
            Unary::Sigmoid => $each!(|$v| math::sigmoid($s, $v)),
            Unary::Silu => $each!(|$v| silu($s, $v)),
            Unary::Tanh => $each!(|$v| math::tanh($s, $v)),
            Unary::GeluTanh => $each!(|$v| $s.mul($v, gelu_gate($s, $v))),
            Unary::GeluErf => $each!(|$v| $s.mul($v, math::normal_cdf($s, $v))),
            Unary::Softplus => $each!(|$v| math::softplus($s, $v)),
        }
    };
}

simd_fn! {
    fn apply<S>(s: S, op: Unary, x: &[f32], out: &mut [f32]) {
        macro_rules! each {
            (|$v:ident| $f:expr) => {{
                let (mut xs, mut os) = (x.chunks_exact(S::LANES), out.chunks_exact_mut(S::LANES));
                for (x, o) in (&mut xs).zip(&mut os) {
                    let $v = s.load(x);
                    s.store($f, o);
                }
                let $v = s.load_partial(xs.remainder());
                s.store_partial($f, os.into_remainder());
            }};
        }
        choose!(s, op, v, each)
    }

    fn apply_inplace<S>(s: S, op: Unary, x: &mut [f32]) {
        macro_rules! each {
            (|$v:ident| $f:expr) => {{
                let mut xs = x.chunks_exact_mut(S::LANES);
                for x in &mut xs {
                    let $v = s.load(x);
                    s.store($f, x);
                }
                let rest = xs.into_remainder();
                let $v = s.load_partial(rest);
                s.store_partial($f, rest);
            }};
        }
        choose!(s, op, v, each)
    }

    fn apply_backward<S>(s: S, op: Unary, x: &[f32], y: &[f32], dy: &[f32], dx: &mut [f32]) {
        macro_rules! each {
            (|$x:ident, $y:ident, $d:ident| $f:expr) => {{
                let mut i = 0;
                while i < dx.len() {
                    let n = S::LANES.min(dx.len() - i);
                    let ($x, $y, $d) = if n == S::LANES {
                        (s.load(&x[i..]), s.load(&y[i..]), s.load(&dy[i..]))
                    } else {
                        (s.load_partial(&x[i..]), s.load_partial(&y[i..]), s.load_partial(&dy[i..]))
                    };
                    let r = $f;
                    if n == S::LANES { s.store(r, &mut dx[i..]) } else { s.store_partial(r, &mut dx[i..]) }
                    i += n;
                }
            }};
        }
        match op {
            Unary::Exp => each!(|_x, y, d| s.mul(d, y)),
            Unary::Log => each!(|x, _y, d| s.div(d, x)),
            Unary::Sqrt => each!(|_x, y, d| s.div(s.mul(d, s.splat(0.5)), y)),
            Unary::Rsqrt => each!(|_x, y, d| s.mul(s.mul(d, s.splat(-0.5)), s.mul(y, s.mul(y, y)))),
            Unary::Recip => each!(|_x, y, d| s.neg(s.mul(d, s.mul(y, y)))),
            Unary::Neg => each!(|_x, _y, d| s.neg(d)),
            Unary::Abs => each!(|x, _y, d| {
                let p = s.select(s.lt(s.zero(), x), d, s.zero());
                s.select(s.lt(x, s.zero()), s.neg(d), p)
            }),
            Unary::Sqr => each!(|x, _y, d| s.mul(d, s.add(x, x))),
            Unary::Relu => each!(|x, _y, d| s.select(s.lt(s.zero(), x), d, s.zero())),
            Unary::Sigmoid => each!(|_x, y, d| s.mul(d, s.mul(y, s.sub(s.splat(1.0), y)))),
            Unary::Silu => each!(|x, _y, d| s.mul(d, silu_derivative(s, x))),
            Unary::Tanh => each!(|_x, y, d| s.mul(d, s.neg_mul_add(y, y, s.splat(1.0)))),
            Unary::GeluTanh => each!(|x, _y, d| s.mul(d, gelu_tanh_derivative(s, x))),
            Unary::GeluErf => each!(|x, _y, d| s.mul(d, gelu_erf_derivative(s, x))),
            Unary::Softplus => each!(|x, _y, d| s.mul(d, math::sigmoid(s, x))),
        }
    }
}

/// `out[i]` = op(`x[i]`).
///
/// # Panics
/// If the lengths differ.
pub fn unary(op: Unary, x: &[f32], out: &mut [f32]) {
    unary_isa(isa(), op, x, out)
}

pub(crate) fn unary_isa(isa: Isa, op: Unary, x: &[f32], out: &mut [f32]) {
    same_len("unary", x.len(), out.len());
    let shared = SharedMut::new(out);
    chunked(x.len(), &|start, n| {
        // SAFETY: the pieces do not overlap.
        apply(isa, op, &x[start..start + n], unsafe { shared.slice(start, n) })
    });
}

/// `x[i]` = op(`x[i]`).
pub fn unary_inplace(op: Unary, x: &mut [f32]) {
    let (isa, len) = (isa(), x.len());
    let shared = SharedMut::new(x);
    chunked(len, &|start, n| {
        // SAFETY: the pieces do not overlap.
        apply_inplace(isa, op, unsafe { shared.slice(start, n) })
    });
}

/// `dx[i]` = `dy[i]`·op′(`x[i]`), where y = op(x) as [`unary`] gave it. A few ulp of the derivative's largest term.
///
/// Members whose derivative needs only one of x and y ignore the other, which must nevertheless have the length.
///
/// # Panics
/// If the lengths differ.
pub fn unary_backward(op: Unary, x: &[f32], y: &[f32], dy: &[f32], dx: &mut [f32]) {
    unary_backward_isa(isa(), op, x, y, dy, dx)
}

pub(crate) fn unary_backward_isa(isa: Isa, op: Unary, x: &[f32], y: &[f32], dy: &[f32], dx: &mut [f32]) {
    same_len("unary_backward", x.len(), dx.len());
    same_len("unary_backward", y.len(), dx.len());
    same_len("unary_backward", dy.len(), dx.len());
    let shared = SharedMut::new(dx);
    chunked(x.len(), &|start, n| {
        let r = start..start + n;
        // SAFETY: the pieces do not overlap.
        apply_backward(isa, op, &x[r.clone()], &y[r.clone()], &dy[r], unsafe { shared.slice(start, n) })
    });
}
