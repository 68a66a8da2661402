//! Softmax and log-softmax over the rows of a matrix, with the maximum taken off first.

use crate::isa::{Isa, Simd, isa, simd_fn};
use crate::pool::{self, SharedMut};
use crate::vecmath::{CHUNK, ld, math, same_len, st};

#[inline(always)]
pub(crate) fn row_max<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut m = [s.splat(f32::NEG_INFINITY); 4];
    let mut blocks = x.chunks_exact(4 * S::LANES);
    for b in &mut blocks {
        for (i, m) in m.iter_mut().enumerate() {
            *m = s.max(s.load(&b[i * S::LANES..]), *m);
        }
    }
    let mut r = s.max_lane(s.max(s.max(m[0], m[1]), s.max(m[2], m[3])));
    for &v in blocks.remainder() {
        r = if v > r { v } else { r };
    }
    r
}

/// Σ e^(x − m) over a row in f32 lanes; a NaN in the row makes it NaN. `m` must be the row's maximum.
#[inline(always)]
pub(crate) fn row_sum_exp<S: Simd>(s: S, x: &[f32], m: f32) -> f32 {
    let mut acc = [s.zero(); 4];
    let mv = s.splat(m);
    let mut blocks = x.chunks_exact(4 * S::LANES);
    for b in &mut blocks {
        for (i, a) in acc.iter_mut().enumerate() {
            *a = s.add(*a, math::exp_fast(s, s.sub(s.load(&b[i * S::LANES..]), mv)));
        }
    }
    for (i, c) in blocks.remainder().chunks(S::LANES).enumerate() {
        let mut t = [f32::NEG_INFINITY; 16];
        t[..c.len()].copy_from_slice(c);
        acc[i] = s.add(acc[i], math::exp_fast(s, s.sub(s.load(&t), mv)));
    }
    s.sum(s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3])))
}

/// The largest finite stand-in for a row whose maximum is −∞, so that nothing becomes ∞ − ∞.
#[inline(always)]
pub(crate) fn finite_max(m: f32) -> f32 {
    if m == f32::NEG_INFINITY { 0.0 } else { m }
}

simd_fn! {
    fn softmax_rows<S>(s: S, d: usize, x: &[f32], out: &mut [f32]) {
        for (x, out) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
            let mv = s.splat(finite_max(row_max(s, x)));
            let mut acc = s.zero();
            let (mut xs, mut os) = (x.chunks_exact(S::LANES), out.chunks_exact_mut(S::LANES));
            for (x, o) in (&mut xs).zip(&mut os) {
                let e = math::exp_fast(s, s.sub(s.load(x), mv));
                acc = s.add(acc, e);
                s.store(e, o);
            }
            let (rest, tail) = (xs.remainder(), os.into_remainder());
            let e = math::exp_fast(s, s.sub(s.load_partial(rest), mv));
            s.store_partial(e, tail);
            acc = s.add(acc, s.load_partial(tail));
            let inv = s.splat(1.0 / s.sum(acc));
            let mut os = out.chunks_exact_mut(S::LANES);
            for o in &mut os {
                s.store(s.mul(s.load(o), inv), o);
            }
            let tail = os.into_remainder();
            s.store_partial(s.mul(s.load_partial(tail), inv), tail);
        }
    }

    /// dx = y·(dy − Σ y·dy).
    fn softmax_rows_backward<S>(s: S, d: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((y, dy), dx) in y.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
            let mut acc = s.zero();
            for (y, g) in y.chunks(S::LANES).zip(dy.chunks(S::LANES)) {
                acc = s.mul_add(ld(s, y), ld(s, g), acc);
            }
            let t = s.splat(s.sum(acc));
            for ((y, g), o) in y.chunks(S::LANES).zip(dy.chunks(S::LANES)).zip(dx.chunks_mut(S::LANES)) {
                st(s, s.mul(ld(s, y), s.sub(ld(s, g), t)), o);
            }
        }
    }

    fn log_softmax_rows<S>(s: S, d: usize, x: &[f32], out: &mut [f32]) {
        for (x, out) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
            let m = finite_max(row_max(s, x));
            let (mv, log) = (s.splat(m), s.splat(row_sum_exp(s, x, m).ln()));
            for (x, o) in x.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
                st(s, s.sub(s.sub(ld(s, x), mv), log), o);
            }
        }
    }

    /// dx = dy − e^y·Σ dy.
    fn log_softmax_rows_backward<S>(s: S, d: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((y, dy), dx) in y.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
            let mut acc = s.zero();
            for g in dy.chunks(S::LANES) {
                acc = s.add(acc, ld(s, g));
            }
            let t = s.splat(s.sum(acc));
            for ((y, g), o) in y.chunks(S::LANES).zip(dy.chunks(S::LANES)).zip(dx.chunks_mut(S::LANES)) {
                st(s, s.neg_mul_add(math::exp(s, ld(s, y)), t, ld(s, g)), o);
            }
        }
    }
}

/// Runs `f(first element, out)` over groups of whole rows.
fn by_rows(op: &str, rows: usize, d: usize, inputs: &[usize], out: &mut [f32], f: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    for &len in inputs {
        same_len(op, len, rows * d);
    }
    same_len(op, out.len(), rows * d);
    if out.is_empty() {
        return;
    }
    if out.len() < 2 * CHUNK {
        return f(0, out);
    }
    let per = (CHUNK / d).max(1) * d;
    let len = out.len();
    let shared = SharedMut::new(out);
    pool::parallel(len.div_ceil(per), &|i| {
        let n = per.min(len - i * per);
        // SAFETY: the groups do not overlap.
        f(i * per, unsafe { shared.slice(i * per, n) })
    });
}

/// out[r, j] = e^x[r, j]/Σⱼ e^x[r, j] for x[rows, d]; relative error at most (d/32 + 8)·2⁻²⁴ plus what rounding
/// x − max costs, 2⁻²⁴·|x − max|. A row of −∞ gives NaN, as in PyTorch.
///
/// # Panics
/// If a length does not match.
pub fn softmax(x: &[f32], rows: usize, d: usize, out: &mut [f32]) {
    softmax_isa(isa(), x, rows, d, out)
}

pub(crate) fn softmax_isa(isa: Isa, x: &[f32], rows: usize, d: usize, out: &mut [f32]) {
    by_rows("softmax", rows, d, &[x.len()], out, &|i, o| softmax_rows(isa, d, &x[i..i + o.len()], o))
}

/// The gradient of [`softmax`] from its result y: dx = y∘(dy − Σ y∘dy), all [rows, d].
///
/// # Panics
/// If a length does not match.
pub fn softmax_backward(y: &[f32], dy: &[f32], rows: usize, d: usize, dx: &mut [f32]) {
    softmax_backward_isa(isa(), y, dy, rows, d, dx)
}

pub(crate) fn softmax_backward_isa(isa: Isa, y: &[f32], dy: &[f32], rows: usize, d: usize, dx: &mut [f32]) {
    by_rows("softmax_backward", rows, d, &[y.len(), dy.len()], dx, &|i, o| {
        softmax_rows_backward(isa, d, &y[i..i + o.len()], &dy[i..i + o.len()], o)
    })
}

/// out[r, j] = x[r, j] − ln Σⱼ e^x[r, j] for x[rows, d]; absolute error at most (d/64 + 8 + |out|)·2⁻²⁴.
///
/// # Panics
/// If a length does not match.
pub fn log_softmax(x: &[f32], rows: usize, d: usize, out: &mut [f32]) {
    log_softmax_isa(isa(), x, rows, d, out)
}

pub(crate) fn log_softmax_isa(isa: Isa, x: &[f32], rows: usize, d: usize, out: &mut [f32]) {
    by_rows("log_softmax", rows, d, &[x.len()], out, &|i, o| log_softmax_rows(isa, d, &x[i..i + o.len()], o))
}

/// The gradient of [`log_softmax`] from its result y: dx = dy − e^y·Σ dy, all [rows, d].
///
/// # Panics
/// If a length does not match.
pub fn log_softmax_backward(y: &[f32], dy: &[f32], rows: usize, d: usize, dx: &mut [f32]) {
    log_softmax_backward_isa(isa(), y, dy, rows, d, dx)
}

pub(crate) fn log_softmax_backward_isa(isa: Isa, y: &[f32], dy: &[f32], rows: usize, d: usize, dx: &mut [f32]) {
    by_rows("log_softmax_backward", rows, d, &[y.len(), dy.len()], dx, &|i, o| {
        log_softmax_rows_backward(isa, d, &y[i..i + o.len()], &dy[i..i + o.len()], o)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::available;
    use crate::testing::{Random, assert_close, wide};

    fn exact(x: &[f64]) -> Vec<f64> {
        let m = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = x.iter().map(|v| (v - m).exp()).sum();
        x.iter().map(|v| (v - m).exp() / sum).collect()
    }

    #[test]
    fn values_and_gradients_on_every_instruction_set() {
        let mut r = Random::new(1);
        for (rows, d) in [(1, 1), (3, 5), (2, 16), (7, 63), (5, 64), (3, 1001), (300, 130), (9, 4096)] {
            for range in [1.0, 30.0] {
                let (x, g) = (r.vec(rows * d, -range, range), r.vec(rows * d, -1.0, 1.0));
                let e: Vec<f64> = x.chunks(d).flat_map(|row| exact(&wide(row))).collect();
                let (mut dx, mut dl) = (Vec::new(), Vec::new());
                for (p, g) in e.chunks(d).zip(g.chunks(d)) {
                    let dot: f64 = p.iter().zip(g).map(|(p, g)| p * f64::from(*g)).sum();
                    let sum: f64 = g.iter().map(|g| f64::from(*g)).sum();
                    dx.extend(p.iter().zip(g).map(|(p, g)| p * (f64::from(*g) - dot)));
                    dl.extend(p.iter().zip(g).map(|(p, g)| f64::from(*g) - p * sum));
                }
                for isa in available() {
                    let what = |name: &str| format!("{isa} {rows}x{d} ±{range}: {name}");
                    let (mut y, mut l, mut back) = (vec![7.0; x.len()], vec![7.0; x.len()], vec![7.0; x.len()]);
                    softmax_isa(isa, &x, rows, d, &mut y);
                    for (y, e) in y.iter().zip(&e) {
                        assert!((f64::from(*y) - e).abs() <= 6e-6 * e + 1e-44, "{}: {y} {e}", what("softmax"));
                    }
                    softmax_backward_isa(isa, &y, &g, rows, d, &mut back);
                    // dy − Σ y∘dy cancels where one probability is nearly 1.
                    let largest = e.iter().copied().fold(0.0, f64::max);
                    assert_close(&what("softmax backward"), &back, &dx, 6e-6, largest);
                    log_softmax_isa(isa, &x, rows, d, &mut l);
                    let logs: Vec<f64> = e.iter().map(|p| p.ln()).collect();
                    assert_close(&what("log_softmax"), &l, &logs, 1e-6, 1.0);
                    log_softmax_backward_isa(isa, &l, &g, rows, d, &mut back);
                    assert_close(&what("log_softmax backward"), &back, &dl, 6e-6, 1.0);
                    // A row alone gives the same bits.
                    let (at, mut one) = ((rows - 1) * d, vec![0.0; d]);
                    softmax_isa(isa, &x[at..], 1, d, &mut one);
                    assert!(one == y[at..], "{}", what("one row"));
                }
            }
        }
    }

    #[test]
    fn masked_and_huge_scores() {
        let inf = f32::INFINITY;
        for isa in available() {
            let mut y = [0.0; 3];
            softmax_isa(isa, &[-inf, 3e38, -3e38], 1, 3, &mut y);
            assert_eq!(y, [0.0, 1.0, 0.0], "{isa}");
            softmax_isa(isa, &[-inf, -inf, -inf], 1, 3, &mut y);
            assert!(y.iter().all(|v| v.is_nan()), "{isa} {y:?}");
            softmax_isa(isa, &[0.0, f32::NAN, 1.0], 1, 3, &mut y);
            assert!(y.iter().all(|v| v.is_nan()), "{isa} {y:?}");
            log_softmax_isa(isa, &[-inf, 0.0, 0.0], 1, 3, &mut y);
            assert_eq!(y[0], -inf, "{isa}");
            assert!((y[1] + 2f32.ln()).abs() < 1e-6, "{isa}");
        }
    }
}
