//! Functions of two slices, and of a slice and numbers.

use super::{chunked, same_len};
use crate::isa::{Isa, Simd, isa, simd_fn};
use crate::pool::SharedMut;

/// An elementwise function of two variables; correctly rounded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Binary {
    /// a + b
    Add,
    /// a − b
    Sub,
    /// a·b
    Mul,
    /// a/b
    Div,
    /// The greater; NaN if either is NaN.
    Max,
    /// The lesser; NaN if either is NaN.
    Min,
}

impl Binary {
    /// Every member.
    pub const ALL: [Binary; 6] = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Max, Binary::Min];
}

// The plain instructions hand on NaN from the second argument only.
#[inline(always)]
fn max_nan<S: Simd>(s: S, a: S::F, b: S::F) -> S::F {
    s.select(s.eq(a, a), s.max(a, b), a)
}

#[inline(always)]
fn min_nan<S: Simd>(s: S, a: S::F, b: S::F) -> S::F {
    s.select(s.eq(a, a), s.min(a, b), a)
}

macro_rules! choose {
    ($s:ident, $op:ident, $each:ident) => {
        match $op {
            Binary::Add => $each!(|a, b| $s.add(a, b)),
            Binary::Sub => $each!(|a, b| $s.sub(a, b)),
            Binary::Mul => $each!(|a, b| $s.mul(a, b)),
            Binary::Div => $each!(|a, b| $s.div(a, b)),
            Binary::Max => $each!(|a, b| max_nan($s, a, b)),
            Binary::Min => $each!(|a, b| min_nan($s, a, b)),
        }
    };
}

simd_fn! {
    fn apply<S>(s: S, op: Binary, x: &[f32], y: &[f32], out: &mut [f32]) {
        macro_rules! each {
            (|$a:ident, $b:ident| $f:expr) => {{
                let (mut xs, mut ys) = (x.chunks_exact(S::LANES), y.chunks_exact(S::LANES));
                let mut os = out.chunks_exact_mut(S::LANES);
                for ((x, y), o) in (&mut xs).zip(&mut ys).zip(&mut os) {
                    let ($a, $b) = (s.load(x), s.load(y));
                    s.store($f, o);
                }
                let ($a, $b) = (s.load_partial(xs.remainder()), s.load_partial(ys.remainder()));
                s.store_partial($f, os.into_remainder());
            }};
        }
        choose!(s, op, each)
    }

    fn apply_inplace<S>(s: S, op: Binary, x: &mut [f32], y: &[f32]) {
        macro_rules! each {
            (|$a:ident, $b:ident| $f:expr) => {{
                let (mut xs, mut ys) = (x.chunks_exact_mut(S::LANES), y.chunks_exact(S::LANES));
                for (x, y) in (&mut xs).zip(&mut ys) {
                    let ($a, $b) = (s.load(x), s.load(y));
                    s.store($f, x);
                }
                let rest = xs.into_remainder();
                let ($a, $b) = (s.load_partial(rest), s.load_partial(ys.remainder()));
                s.store_partial($f, rest);
            }};
        }
        choose!(s, op, each)
    }

    fn affine_body<S>(s: S, x: &[f32], mul: f32, add: f32, out: &mut [f32]) {
        let (m, a) = (s.splat(mul), s.splat(add));
        let (mut xs, mut os) = (x.chunks_exact(S::LANES), out.chunks_exact_mut(S::LANES));
        for (x, o) in (&mut xs).zip(&mut os) {
            s.store(s.mul_add(s.load(x), m, a), o);
        }
        s.store_partial(s.mul_add(s.load_partial(xs.remainder()), m, a), os.into_remainder());
    }

    fn scale_body<S>(s: S, x: &mut [f32], factor: f32) {
        let m = s.splat(factor);
        let mut xs = x.chunks_exact_mut(S::LANES);
        for x in &mut xs {
            s.store(s.mul(s.load(x), m), x);
        }
        let rest = xs.into_remainder();
        s.store_partial(s.mul(s.load_partial(rest), m), rest);
    }

    fn add_scaled_body<S>(s: S, a: f32, x: &[f32], y: &mut [f32]) {
        let m = s.splat(a);
        let (mut xs, mut ys) = (x.chunks_exact(S::LANES), y.chunks_exact_mut(S::LANES));
        for (x, y) in (&mut xs).zip(&mut ys) {
            s.store(s.mul_add(m, s.load(x), s.load(y)), y);
        }
        let rest = ys.into_remainder();
        s.store_partial(s.mul_add(m, s.load_partial(xs.remainder()), s.load_partial(rest)), rest);
    }

    fn mul_add_body<S>(s: S, x: &[f32], y: &[f32], z: &[f32], out: &mut [f32]) {
        let (mut xs, mut ys, mut zs) = (x.chunks_exact(S::LANES), y.chunks_exact(S::LANES), z.chunks_exact(S::LANES));
        let mut os = out.chunks_exact_mut(S::LANES);
        for (((x, y), z), o) in (&mut xs).zip(&mut ys).zip(&mut zs).zip(&mut os) {
            s.store(s.mul_add(s.load(x), s.load(y), s.load(z)), o);
        }
        let (x, y) = (s.load_partial(xs.remainder()), s.load_partial(ys.remainder()));
        s.store_partial(s.mul_add(x, y, s.load_partial(zs.remainder())), os.into_remainder());
    }
}

/// `out[i]` = `a[i]` ∘ `b[i]`.
///
/// # Panics
/// If the lengths differ.
pub fn binary(op: Binary, a: &[f32], b: &[f32], out: &mut [f32]) {
    binary_isa(isa(), op, a, b, out)
}

pub(crate) fn binary_isa(isa: Isa, op: Binary, a: &[f32], b: &[f32], out: &mut [f32]) {
    same_len("binary", a.len(), out.len());
    same_len("binary", b.len(), out.len());
    let shared = SharedMut::new(out);
    chunked(a.len(), &|start, n| {
        let r = start..start + n;
        // SAFETY: the pieces do not overlap.
        apply(isa, op, &a[r.clone()], &b[r], unsafe { shared.slice(start, n) })
    });
}

/// `a[i]` = `a[i]` ∘ `b[i]`.
///
/// # Panics
/// If the lengths differ.
pub fn binary_inplace(op: Binary, a: &mut [f32], b: &[f32]) {
    same_len("binary_inplace", a.len(), b.len());
    let isa = isa();
    let shared = SharedMut::new(a);
    chunked(b.len(), &|start, n| {
        // SAFETY: the pieces do not overlap.
        apply_inplace(isa, op, unsafe { shared.slice(start, n) }, &b[start..start + n])
    });
}

/// `out[i]` = mul·`x[i]` + add: one rounding where the set has FMA, two elsewhere.
///
/// # Panics
/// If the lengths differ.
pub fn affine(x: &[f32], mul: f32, add: f32, out: &mut [f32]) {
    same_len("affine", x.len(), out.len());
    let isa = isa();
    let shared = SharedMut::new(out);
    chunked(x.len(), &|start, n| {
        // SAFETY: the pieces do not overlap.
        affine_body(isa, &x[start..start + n], mul, add, unsafe { shared.slice(start, n) })
    });
}

/// `x[i]` = factor·`x[i]`.
pub fn scale(x: &mut [f32], factor: f32) {
    let (isa, len) = (isa(), x.len());
    let shared = SharedMut::new(x);
    chunked(len, &|start, n| {
        // SAFETY: the pieces do not overlap.
        scale_body(isa, unsafe { shared.slice(start, n) }, factor)
    });
}

/// `y[i]` = a·`x[i]` + `y[i]` (BLAS axpy).
///
/// # Panics
/// If the lengths differ.
pub fn add_scaled(a: f32, x: &[f32], y: &mut [f32]) {
    same_len("add_scaled", x.len(), y.len());
    let isa = isa();
    let shared = SharedMut::new(y);
    chunked(x.len(), &|start, n| {
        // SAFETY: the pieces do not overlap.
        add_scaled_body(isa, a, &x[start..start + n], unsafe { shared.slice(start, n) })
    });
}

/// `out[i]` = `x[i]`·`y[i]` + `z[i]`.
///
/// # Panics
/// If the lengths differ.
pub fn mul_add(x: &[f32], y: &[f32], z: &[f32], out: &mut [f32]) {
    for len in [x.len(), y.len(), z.len()] {
        same_len("mul_add", len, out.len());
    }
    let isa = isa();
    let shared = SharedMut::new(out);
    chunked(x.len(), &|start, n| {
        let r = start..start + n;
        // SAFETY: the pieces do not overlap.
        mul_add_body(isa, &x[r.clone()], &y[r.clone()], &z[r], unsafe { shared.slice(start, n) })
    });
}
