//! Reductions of whole slices, and of the rows and columns of a matrix.
//!
//! Sums run in four vectors of lanes over at most [`CHUNK`] elements and then in f64 over the pieces, so that the error of
//! a sum of n numbers is at most about (CHUNK/64 + 8)·2⁻²⁴ times the sum of their magnitudes, whatever n is, and
//! typically far below.

use super::{CHUNK, same_len};
use crate::isa::{Isa, isa, simd_fn};
use crate::pool::{self, SharedMut};

simd_fn! {
    fn sum_piece<S>(s: S, x: &[f32]) -> f32 {
        let mut acc = [s.zero(); 4];
        let mut blocks = x.chunks_exact(4 * S::LANES);
        for b in &mut blocks {
            for (i, a) in acc.iter_mut().enumerate() {
                *a = s.add(*a, s.load(&b[i * S::LANES..]));
            }
        }
        for (i, c) in blocks.remainder().chunks(S::LANES).enumerate() {
            acc[i] = s.add(acc[i], s.load_partial(c));
        }
        s.sum(s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3])))
    }

    fn dot_piece<S>(s: S, x: &[f32], y: &[f32]) -> f32 {
        let mut acc = [s.zero(); 4];
        let (mut xb, mut yb) = (x.chunks_exact(4 * S::LANES), y.chunks_exact(4 * S::LANES));
        for (x, y) in (&mut xb).zip(&mut yb) {
            for (i, a) in acc.iter_mut().enumerate() {
                *a = s.mul_add(s.load(&x[i * S::LANES..]), s.load(&y[i * S::LANES..]), *a);
            }
        }
        for (i, (x, y)) in xb.remainder().chunks(S::LANES).zip(yb.remainder().chunks(S::LANES)).enumerate() {
            acc[i] = s.mul_add(s.load_partial(x), s.load_partial(y), acc[i]);
        }
        s.sum(s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3])))
    }

    fn max_piece<S>(s: S, x: &[f32]) -> f32 {
        let mut m = s.splat(f32::NEG_INFINITY);
        let mut nan = s.zero();
        let mut xs = x.chunks_exact(S::LANES);
        for x in &mut xs {
            let v = s.load(x);
            m = s.max(v, m);
            nan = s.select(s.eq(v, v), nan, v);
        }
        let mut r = s.max_lane(m);
        for &v in xs.remainder() {
            r = if v > r { v } else { r };
            if v.is_nan() {
                r = v;
            }
        }
        // A NaN lane makes the sum NaN; it is 0 otherwise.
        if r.is_nan() || s.sum(nan).is_nan() { f32::NAN } else { r }
    }

    fn add_rows<S>(s: S, x: &[f32], stride: usize, rows: usize, out: &mut [f32]) {
        let mut j = 0;
        while j < out.len() {
            let n = S::LANES.min(out.len() - j);
            if n == S::LANES {
                let mut acc = s.zero();
                for r in 0..rows {
                    acc = s.add(acc, s.load(&x[r * stride + j..]));
                }
                s.store(acc, &mut out[j..]);
            } else {
                let mut acc = s.zero();
                for r in 0..rows {
                    acc = s.add(acc, s.load_partial(&x[r * stride + j..r * stride + j + n]));
                }
                s.store_partial(acc, &mut out[j..]);
            }
            j += n;
        }
    }
}

/// Σ f(piece) in f64 over pieces of [`CHUNK`] elements, in their order.
fn pieces(len: usize, f: &(dyn Fn(usize, usize) -> f32 + Sync)) -> f64 {
    if len < 2 * CHUNK {
        return f64::from(f(0, len));
    }
    let mut partial = vec![0f32; len.div_ceil(CHUNK)];
    pool::parallel_chunks(&mut partial, 1, &|i, p| p[0] = f(i * CHUNK, CHUNK.min(len - i * CHUNK)));
    partial.into_iter().map(f64::from).sum()
}

/// Σ `x[i]`.
pub fn sum(x: &[f32]) -> f64 {
    sum_isa(isa(), x)
}

pub(crate) fn sum_isa(isa: Isa, x: &[f32]) -> f64 {
    pieces(x.len(), &|start, n| sum_piece(isa, &x[start..start + n]))
}

/// Σ `x[i]²`.
pub fn sum_squares(x: &[f32]) -> f64 {
    dot(x, x)
}

/// Σ `x[i]`·`y[i]`.
///
/// # Panics
/// If the lengths differ.
pub fn dot(x: &[f32], y: &[f32]) -> f64 {
    dot_isa(isa(), x, y)
}

pub(crate) fn dot_isa(isa: Isa, x: &[f32], y: &[f32]) -> f64 {
    same_len("dot", x.len(), y.len());
    pieces(x.len(), &|start, n| dot_piece(isa, &x[start..start + n], &y[start..start + n]))
}

/// The greatest `x[i]`; NaN if there is one, −∞ for an empty slice.
pub fn max(x: &[f32]) -> f32 {
    max_isa(isa(), x)
}

pub(crate) fn max_isa(isa: Isa, x: &[f32]) -> f32 {
    let mut r = f32::NEG_INFINITY;
    let mut partial = vec![r; x.len().div_ceil(CHUNK).max(1)];
    if x.len() < 2 * CHUNK {
        return max_piece(isa, x);
    }
    pool::parallel_chunks(&mut partial, 1, &|i, p| p[0] = max_piece(isa, &x[i * CHUNK..x.len().min((i + 1) * CHUNK)]));
    for v in partial {
        r = if v > r || v.is_nan() { v } else { r };
    }
    r
}

/// `out[r]` = Σⱼ x[r, j] of x[rows, d].
///
/// # Panics
/// If a length does not match.
pub fn row_sum(x: &[f32], rows: usize, d: usize, out: &mut [f32]) {
    same_len("row_sum", x.len(), rows * d);
    same_len("row_sum", out.len(), rows);
    let isa = isa();
    let per = (CHUNK / d.max(1)).max(1);
    let body = |i: usize, out: &mut [f32]| {
        for (k, o) in out.iter_mut().enumerate() {
            let r = i * per + k;
            *o = pieces(d, &|start, n| sum_piece(isa, &x[r * d + start..r * d + start + n])) as f32;
        }
    };
    if rows > 0 {
        pool::parallel_chunks(out, per, &body);
    }
}

/// `out[j]` = Σᵣ x[r, j] of x[rows, d], or `out[j]` += that if `accumulate`: the gradient of a bias.
///
/// Rows are summed in f32 in groups of 64, the groups in f64, so the error is at most about 64·2⁻²⁴ of the magnitudes.
///
/// # Panics
/// If a length does not match.
pub fn col_sum(x: &[f32], rows: usize, d: usize, out: &mut [f32], accumulate: bool) {
    col_sum_isa(isa(), x, rows, d, out, accumulate)
}

pub(crate) fn col_sum_isa(isa: Isa, x: &[f32], rows: usize, d: usize, out: &mut [f32], accumulate: bool) {
    same_len("col_sum", x.len(), rows * d);
    same_len("col_sum", out.len(), d);
    const GROUP: usize = 64;
    const WIDTH: usize = 256; // columns of one task: 64 rows of it fit in L1
    let shared = SharedMut::new(out);
    let task = |i: usize| {
        let start = i * WIDTH;
        let n = WIDTH.min(d - start);
        let mut total = [0f64; WIDTH];
        let mut part = [0f32; WIDTH];
        for r in (0..rows).step_by(GROUP) {
            add_rows(isa, &x[r * d + start..], d, GROUP.min(rows - r), &mut part[..n]);
            total.iter_mut().zip(&part[..n]).for_each(|(t, p)| *t += f64::from(*p));
        }
        // SAFETY: the tasks' columns do not overlap.
        let out = unsafe { shared.slice(start, n) };
        for (o, t) in out.iter_mut().zip(total) {
            *o = if accumulate { (f64::from(*o) + t) as f32 } else { t as f32 };
        }
    };
    if rows * d < 2 * CHUNK {
        (0..d.div_ceil(WIDTH)).for_each(task);
    } else {
        pool::parallel(d.div_ceil(WIDTH), &task);
    }
}
