//! Elementwise mathematics and whole-slice reductions.
//!
//! Functions of one variable are members of [`Unary`], of two of [`Binary`]; each has its bound in units in the last place
//! (ulp) against the exact result, checked in the tests for every instruction set. Long slices are cut into pieces of
//! [`CHUNK`] elements for the [`pool`]; the cut does not depend on the number of threads, so neither does any result.

mod binary;
pub(crate) mod math;
mod reduce;
mod swiglu;
mod unary;

#[cfg(test)]
mod tests;

pub use binary::{Binary, add_scaled, affine, binary, binary_inplace, mul_add, scale};
pub use reduce::{col_sum, dot, max, row_sum, sum, sum_squares};
pub(crate) use swiglu::swiglu_in_place;
pub use swiglu::{swiglu, swiglu_backward};
pub(crate) use unary::silu_derivative;
pub use unary::{Unary, unary, unary_backward, unary_inplace};

use crate::isa::Simd;
use crate::pool;

/// Elements that one task works on (64 KiB of f32).
pub const CHUNK: usize = 16 * 1024;

/// Runs `f(start, len)` over `0..len` in pieces of [`CHUNK`], on the pool from two pieces on.
pub(crate) fn chunked(len: usize, f: &(dyn Fn(usize, usize) + Sync)) {
    if len < 2 * CHUNK {
        return f(0, len);
    }
    pool::parallel(len.div_ceil(CHUNK), &|i| {
        let start = i * CHUNK;
        f(start, CHUNK.min(len - start));
    });
}

/// The lanes of a chunk of at most `LANES` elements, 0 beyond its end; whole chunks take the plain load.
#[inline(always)]
pub(crate) fn ld<S: Simd>(s: S, x: &[f32]) -> S::F {
    if x.len() >= S::LANES { s.load(x) } else { s.load_partial(x) }
}

/// Stores to a chunk of at most `LANES` elements; whole chunks take the plain store.
#[inline(always)]
pub(crate) fn st<S: Simd>(s: S, v: S::F, out: &mut [f32]) {
    if out.len() >= S::LANES { s.store(v, out) } else { s.store_partial(v, out) }
}

/// Panics unless the lengths are equal.
#[track_caller]
pub(crate) fn same_len(op: &str, a: usize, b: usize) {
    assert!(a == b, "{op}: slices of {a} and {b} elements");
}
