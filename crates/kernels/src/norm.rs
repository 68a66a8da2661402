//! RMS normalisation (Zhang and Sennrich 2019): y = x/√(mean(x²) + eps)·w, row by row.

use crate::isa::{Isa, Simd, isa, simd_fn};
use crate::pool::{self, SharedMut};
use crate::vecmath::{CHUNK, ld, same_len, st};

/// Σ x² of one row, in four vectors of lanes.
#[inline(always)]
fn sum_squares<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut acc = [s.zero(); 4];
    let mut blocks = x.chunks_exact(4 * S::LANES);
    for b in &mut blocks {
        for (i, a) in acc.iter_mut().enumerate() {
            let v = s.load(&b[i * S::LANES..]);
            *a = s.mul_add(v, v, *a);
        }
    }
    for (i, c) in blocks.remainder().chunks(S::LANES).enumerate() {
        let v = s.load_partial(c);
        acc[i] = s.mul_add(v, v, acc[i]);
    }
    s.sum(s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3])))
}

#[inline(always)]
fn inverse_rms<S: Simd>(s: S, x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_squares(s, x) / x.len() as f32 + eps).sqrt()
}

simd_fn! {
    fn forward<S>(s: S, x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
        let d = w.len();
        for (x, out) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
            let inv = s.splat(inverse_rms(s, x, eps));
            let (mut xs, mut ws) = (x.chunks_exact(S::LANES), w.chunks_exact(S::LANES));
            let mut os = out.chunks_exact_mut(S::LANES);
            for ((x, w), o) in (&mut xs).zip(&mut ws).zip(&mut os) {
                s.store(s.mul(s.mul(s.load(x), inv), s.load(w)), o);
            }
            let (x, w) = (s.load_partial(xs.remainder()), s.load_partial(ws.remainder()));
            s.store_partial(s.mul(s.mul(x, inv), w), os.into_remainder());
        }
    }

    /// With r = 1/rms: dx = r·(w∘dy − x·r²·Σ(w∘dy∘x)/d), dw += dy∘x·r.
    fn backward<S>(s: S, x: &[f32], w: &[f32], eps: f32, dy: &[f32], dx: &mut [f32], dw: &mut [f32]) {
        let d = w.len();
        for ((x, dy), dx) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
            let r = inverse_rms(s, x, eps);
            let inv = s.splat(r);
            let mut acc = s.zero();
            for (((x, w), dy), dw) in
                x.chunks(S::LANES).zip(w.chunks(S::LANES)).zip(dy.chunks(S::LANES)).zip(dw.chunks_mut(S::LANES))
            {
                let t = s.mul(ld(s, dy), ld(s, x));
                acc = s.mul_add(t, ld(s, w), acc);
                st(s, s.mul_add(t, inv, ld(s, dw)), dw);
            }
            let k = s.splat(s.sum(acc) * r * r * r / d as f32);
            for (((x, w), dy), dx) in
                x.chunks(S::LANES).zip(w.chunks(S::LANES)).zip(dy.chunks(S::LANES)).zip(dx.chunks_mut(S::LANES))
            {
                let g = s.mul(s.mul(ld(s, w), ld(s, dy)), inv);
                st(s, s.neg_mul_add(ld(s, x), k, g), dx);
            }
        }
    }
}

/// out[r, j] = x[r, j]/√(meanⱼ x[r, j]² + eps)·`w[j]` for x[rows, d], `w[d]`. About (d/64 + 4)·2⁻²⁴ relative at most.
///
/// A row's result does not depend on the other rows.
///
/// # Panics
/// If a length does not match.
pub fn rms_norm(x: &[f32], w: &[f32], eps: f32, rows: usize, d: usize, out: &mut [f32]) {
    rms_norm_isa(isa(), x, w, eps, rows, d, out)
}

pub(crate) fn rms_norm_isa(isa: Isa, x: &[f32], w: &[f32], eps: f32, rows: usize, d: usize, out: &mut [f32]) {
    same_len("rms_norm", x.len(), rows * d);
    same_len("rms_norm", out.len(), rows * d);
    same_len("rms_norm", w.len(), d);
    if rows * d == 0 {
        return;
    }
    if rows * d < 2 * CHUNK {
        return forward(isa, x, w, eps, out);
    }
    let per = (CHUNK / d).max(1) * d;
    pool::parallel_chunks(out, per, &|i, out| forward(isa, &x[i * per..i * per + out.len()], w, eps, out));
}

/// The gradients of [`rms_norm`] for dout[rows, d]: dx[rows, d] and `dw[d]`, both overwritten.
///
/// The rows are cut into at most 32 groups, whatever the number of threads; each sums its part of dw in row order, and
/// the parts are summed in f64.
///
/// # Panics
/// If a length does not match.
#[allow(clippy::too_many_arguments)]
pub fn rms_norm_backward(
    x: &[f32],
    w: &[f32],
    eps: f32,
    rows: usize,
    d: usize,
    dout: &[f32],
    dx: &mut [f32],
    dw: &mut [f32],
) {
    rms_norm_backward_isa(isa(), x, w, eps, rows, d, dout, dx, dw)
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn rms_norm_backward_isa(
    isa: Isa,
    x: &[f32],
    w: &[f32],
    eps: f32,
    rows: usize,
    d: usize,
    dout: &[f32],
    dx: &mut [f32],
    dw: &mut [f32],
) {
    for len in [x.len(), dout.len(), dx.len()] {
        same_len("rms_norm_backward", len, rows * d);
    }
    same_len("rms_norm_backward", w.len(), d);
    same_len("rms_norm_backward", dw.len(), d);
    if rows * d == 0 {
        return dw.fill(0.0);
    }
    let per = rows.div_ceil(32).max(CHUNK.div_ceil(2 * d));
    let groups = rows.div_ceil(per);
    let mut partial = vec![0f32; groups * d];
    let (parts, dxs) = (SharedMut::new(&mut partial), SharedMut::new(dx));
    pool::parallel(groups, &|g| {
        let start = g * per * d;
        let n = (per * d).min(rows * d - start);
        // SAFETY: the groups' rows and their parts do not overlap.
        let (part, dx) = unsafe { (parts.slice(g * d, d), dxs.slice(start, n)) };
        backward(isa, &x[start..start + n], w, eps, &dout[start..start + n], dx, part)
    });
    sum_parts(&partial, groups, dw);
}

/// `out[j]` = Σ of part[g, j] over the groups, in f64 and in their order.
pub(crate) fn sum_parts(part: &[f32], groups: usize, out: &mut [f32]) {
    let d = out.len();
    for (j, o) in out.iter_mut().enumerate() {
        *o = (0..groups).map(|g| f64::from(part[g * d + j])).sum::<f64>() as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::available;
    use crate::testing::{Random, assert_close, wide};

    fn exact(x: &[f64], w: &[f64], eps: f64) -> Vec<f64> {
        let d = w.len();
        x.chunks(d)
            .flat_map(|row| {
                let r = 1.0 / (row.iter().map(|v| v * v).sum::<f64>() / d as f64 + eps).sqrt();
                row.iter().zip(w).map(|(x, w)| x * r * w).collect::<Vec<_>>()
            })
            .collect()
    }

    /// dx, dw in f64.
    fn exact_backward(x: &[f64], w: &[f64], eps: f64, g: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let d = w.len();
        let (mut dx, mut dw) = (Vec::new(), vec![0.0; d]);
        for (x, g) in x.chunks(d).zip(g.chunks(d)) {
            let r = 1.0 / (x.iter().map(|v| v * v).sum::<f64>() / d as f64 + eps).sqrt();
            let dot: f64 = (0..d).map(|j| x[j] * w[j] * g[j]).sum();
            dx.extend((0..d).map(|j| r * w[j] * g[j] - x[j] * r.powi(3) * dot / d as f64));
            dw.iter_mut().enumerate().for_each(|(j, s)| *s += g[j] * x[j] * r);
        }
        (dx, dw)
    }

    #[test]
    fn the_oracle_agrees_with_differences() {
        let mut r = Random::new(1);
        let (x, w, g) = (wide(&r.vec(10, -1.0, 1.0)), wide(&r.vec(5, 0.5, 1.5)), wide(&r.vec(10, -1.0, 1.0)));
        let objective = |x: &[f64], w: &[f64]| exact(x, w, 0.1).iter().zip(&g).map(|(a, b)| a * b).sum::<f64>();
        let (dx, dw) = exact_backward(&x, &w, 0.1, &g);
        for (i, e) in dx.iter().chain(&dw).enumerate() {
            let moved = |h: f64| {
                let (mut x, mut w) = (x.clone(), w.clone());
                if i < 10 {
                    x[i] += h
                } else {
                    w[i - 10] += h
                }
                objective(&x, &w)
            };
            assert!(((moved(1e-6) - moved(-1e-6)) / 2e-6 - e).abs() < 1e-8);
        }
    }

    #[test]
    fn rows_of_many_lengths_on_every_instruction_set() {
        let mut r = Random::new(2);
        for (rows, d) in [(1, 1), (3, 7), (2, 16), (5, 65), (70, 320), (300, 129), (4, 5000)] {
            let (x, w, g) = (r.vec(rows * d, -2.0, 2.0), r.vec(d, 0.5, 1.5), r.vec(rows * d, -1.0, 1.0));
            let e = exact(&wide(&x), &wide(&w), 1e-5);
            let (edx, edw) = exact_backward(&wide(&x), &wide(&w), f64::from(1e-5f32), &wide(&g));
            for isa in available() {
                let (mut y, mut dx, mut dw) = (vec![7.0; x.len()], vec![7.0; x.len()], vec![7.0; d]);
                rms_norm_isa(isa, &x, &w, 1e-5, rows, d, &mut y);
                assert_close(&format!("{isa} y {rows}x{d}"), &y, &e, 1e-6, 1.0);
                rms_norm_backward_isa(isa, &x, &w, 1e-5, rows, d, &g, &mut dx, &mut dw);
                assert_close(&format!("{isa} dx {rows}x{d}"), &dx, &edx, 2e-6, 1.0);
                assert_close(&format!("{isa} dw {rows}x{d}"), &dw, &edw, 2e-6, 1.0);
                // A row alone gives the same bits.
                let mut one = vec![0.0; d];
                rms_norm_isa(isa, &x[(rows - 1) * d..], &w, 1e-5, 1, d, &mut one);
                assert!(one == y[(rows - 1) * d..]);
            }
        }
    }
}
