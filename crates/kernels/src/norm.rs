//! RMS normalisation (Zhang and Sennrich 2019): y = x/√(mean(x²) + eps)·w, and layer normalisation (Ba et al. 2016):
//! y = (x − mean)/√(variance + eps)·w + b, row by row.

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

/// Mean and one over the standard deviation of one row, in two passes.
#[inline(always)]
fn moments<S: Simd>(s: S, x: &[f32], eps: f32) -> (f32, f32) {
    let d = x.len() as f32;
    let mut acc = [s.zero(); 4];
    for b in x.chunks(4 * S::LANES) {
        for (a, c) in acc.iter_mut().zip(b.chunks(S::LANES)) {
            *a = s.add(*a, ld(s, c));
        }
    }
    let mean = s.sum(s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3]))) / d;
    let center = s.splat(mean);
    let mut acc = [s.zero(); 4];
    let mut blocks = x.chunks_exact(4 * S::LANES);
    for b in &mut blocks {
        for (i, a) in acc.iter_mut().enumerate() {
            let v = s.sub(s.load(&b[i * S::LANES..]), center);
            *a = s.mul_add(v, v, *a);
        }
    }
    let mut squares = s.sum(s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3])));
    // Lanes beyond the end must not count as elements of 0.
    squares += blocks.remainder().iter().map(|x| (x - mean) * (x - mean)).sum::<f32>();
    (mean, 1.0 / (squares / d + eps).sqrt())
}

simd_fn! {
    fn layer_forward<S>(s: S, x: &[f32], w: &[f32], b: &[f32], eps: f32, out: &mut [f32]) {
        let d = w.len();
        for (x, out) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
            let (mean, inv) = moments(s, x, eps);
            let (mean, inv) = (s.splat(mean), s.splat(inv));
            for (i, (x, o)) in x.chunks(S::LANES).zip(out.chunks_mut(S::LANES)).enumerate() {
                let at = i * S::LANES..i * S::LANES + x.len();
                let y = s.mul(s.sub(ld(s, x), mean), inv);
                let y = match b.is_empty() {
                    true => s.mul(y, ld(s, &w[at])),
                    false => s.mul_add(y, ld(s, &w[at.clone()]), ld(s, &b[at])),
                };
                st(s, y, o);
            }
        }
    }

    /// With n = (x − mean)·r and g = w∘dy: dx = r·(g − Σg/d − n·Σ(g∘n)/d), dw += dy∘n, db += dy.
    #[allow(clippy::too_many_arguments)]
    fn layer_backward<S>(s: S, x: &[f32], w: &[f32], eps: f32, dy: &[f32], dx: &mut [f32], dw: &mut [f32], db: &mut [f32]) {
        let d = w.len();
        for ((x, dy), dx) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
            let (mean, r) = moments(s, x, eps);
            let (center, inv) = (s.splat(mean), s.splat(r));
            let (mut sum, mut dot) = (s.zero(), s.zero());
            for (((x, dy), dw), (w, db)) in (x.chunks(S::LANES).zip(dy.chunks(S::LANES)).zip(dw.chunks_mut(S::LANES)))
                .zip(w.chunks(S::LANES).zip(db.chunks_mut(S::LANES)))
            {
                let n = s.mul(s.sub(ld(s, x), center), inv);
                let dy = ld(s, dy);
                // Both are 0 in lanes beyond the end, for dy is.
                let g = s.mul(dy, ld(s, w));
                sum = s.add(sum, g);
                dot = s.mul_add(g, n, dot);
                st(s, s.mul_add(dy, n, ld(s, dw)), dw);
                st(s, s.add(dy, ld(s, db)), db);
            }
            let (sum, dot) = (s.splat(s.sum(sum) / d as f32), s.splat(s.sum(dot) / d as f32));
            for (((x, w), dy), dx) in
                x.chunks(S::LANES).zip(w.chunks(S::LANES)).zip(dy.chunks(S::LANES)).zip(dx.chunks_mut(S::LANES))
            {
                let n = s.mul(s.sub(ld(s, x), center), inv);
                let g = s.sub(s.mul(ld(s, w), ld(s, dy)), sum);
                st(s, s.mul(s.neg_mul_add(n, dot, g), inv), dx);
            }
        }
    }

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

/// out[r, j] = (x[r, j] − mean)/√(variance + eps)·`w[j]` + `b[j]` for x[rows, d], `w[d]` and `b[d]`, or an empty `b`. About
/// (d/64 + 8)·2⁻²⁴ of the row's largest distance from its mean at most.
///
/// A row's result does not depend on the other rows.
///
/// # Panics
/// If a length does not match.
pub fn layer_norm(x: &[f32], w: &[f32], b: &[f32], eps: f32, rows: usize, out: &mut [f32]) {
    layer_norm_isa(isa(), x, w, b, eps, rows, out)
}

pub(crate) fn layer_norm_isa(isa: Isa, x: &[f32], w: &[f32], b: &[f32], eps: f32, rows: usize, out: &mut [f32]) {
    let d = w.len();
    same_len("layer_norm", x.len(), rows * d);
    same_len("layer_norm", out.len(), rows * d);
    same_len("layer_norm", b.len(), if b.is_empty() { 0 } else { d });
    if rows * d == 0 {
        return;
    }
    if rows * d < 2 * CHUNK {
        return layer_forward(isa, x, w, b, eps, out);
    }
    let per = (CHUNK / d).max(1) * d;
    pool::parallel_chunks(out, per, &|i, out| layer_forward(isa, &x[i * per..i * per + out.len()], w, b, eps, out));
}

/// The gradients of [`layer_norm`] for dout[rows, d]: dx[rows, d], `dw[d]` and `db[d]`, all overwritten. Summed as those of
/// [`rms_norm_backward`].
///
/// # Panics
/// If a length does not match.
pub fn layer_norm_backward(
    x: &[f32],
    w: &[f32],
    eps: f32,
    dout: &[f32],
    dx: &mut [f32],
    dw: &mut [f32],
    db: &mut [f32],
) {
    layer_norm_backward_isa(isa(), x, w, eps, dout, dx, dw, db)
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn layer_norm_backward_isa(
    isa: Isa,
    x: &[f32],
    w: &[f32],
    eps: f32,
    dout: &[f32],
    dx: &mut [f32],
    dw: &mut [f32],
    db: &mut [f32],
) {
    let d = w.len();
    for len in [dout.len(), dx.len()] {
        same_len("layer_norm_backward", len, x.len());
    }
    same_len("layer_norm_backward", dw.len(), d);
    same_len("layer_norm_backward", db.len(), d);
    if x.is_empty() || d == 0 {
        dw.fill(0.0);
        return db.fill(0.0);
    }
    let rows = x.len() / d;
    same_len("layer_norm_backward", x.len(), rows * d);
    let per = rows.div_ceil(32).max(CHUNK.div_ceil(2 * d));
    let groups = rows.div_ceil(per);
    let (mut dws, mut dbs) = (vec![0f32; groups * d], vec![0f32; groups * d]);
    let (w_parts, b_parts, dxs) = (SharedMut::new(&mut dws), SharedMut::new(&mut dbs), SharedMut::new(dx));
    pool::parallel(groups, &|g| {
        let start = g * per * d;
        let n = (per * d).min(rows * d - start);
        // SAFETY: the groups' rows and their parts do not overlap.
        let (dw, db, dx) = unsafe { (w_parts.slice(g * d, d), b_parts.slice(g * d, d), dxs.slice(start, n)) };
        layer_backward(isa, &x[start..start + n], w, eps, &dout[start..start + n], dx, dw, db)
    });
    sum_parts(&dws, groups, dw);
    sum_parts(&dbs, groups, db);
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

    /// y, dx, dw and db of layer normalisation in f64.
    fn exact_layer(x: &[f64], w: &[f64], b: &[f64], eps: f64, g: &[f64]) -> [Vec<f64>; 4] {
        let d = w.len();
        let n = d as f64;
        let (mut y, mut dx, mut dw, mut db) = (Vec::new(), Vec::new(), vec![0.0; d], vec![0.0; d]);
        for (x, g) in x.chunks(d).zip(g.chunks(d)) {
            let mean = x.iter().sum::<f64>() / n;
            let r = 1.0 / (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n + eps).sqrt();
            let normed: Vec<f64> = x.iter().map(|v| (v - mean) * r).collect();
            let sum: f64 = (0..d).map(|j| g[j] * w[j]).sum::<f64>() / n;
            let dot: f64 = (0..d).map(|j| g[j] * w[j] * normed[j]).sum::<f64>() / n;
            for j in 0..d {
                y.push(normed[j] * w[j] + b.get(j).copied().unwrap_or(0.0));
                dx.push(r * (g[j] * w[j] - sum - normed[j] * dot));
                dw[j] += g[j] * normed[j];
                db[j] += g[j];
            }
        }
        [y, dx, dw, db]
    }

    #[test]
    fn layer_norm_of_many_lengths_on_every_instruction_set() {
        let mut r = Random::new(3);
        for (rows, d) in [(1, 2), (3, 7), (2, 16), (5, 65), (70, 384), (300, 129), (4, 5000)] {
            let (x, w, g) = (r.vec(rows * d, -1.0, 3.0), r.vec(d, 0.5, 1.5), r.vec(rows * d, -1.0, 1.0));
            for b in [r.vec(d, -1.0, 1.0), Vec::new()] {
                let eps = 1e-3f32;
                let [ey, edx, edw, edb] = exact_layer(&wide(&x), &wide(&w), &wide(&b), f64::from(eps), &wide(&g));
                for isa in available() {
                    let (mut y, mut dx) = (vec![7.0; x.len()], vec![7.0; x.len()]);
                    let (mut dw, mut db) = (vec![7.0; d], vec![7.0; d]);
                    layer_norm_isa(isa, &x, &w, &b, eps, rows, &mut y);
                    assert_close(&format!("{isa} y {rows}x{d}"), &y, &ey, 2e-6, 1.0);
                    layer_norm_backward_isa(isa, &x, &w, eps, &g, &mut dx, &mut dw, &mut db);
                    assert_close(&format!("{isa} dx {rows}x{d}"), &dx, &edx, 1e-5, 1.0);
                    assert_close(&format!("{isa} dw {rows}x{d}"), &dw, &edw, 5e-6, 1.0);
                    assert_close(&format!("{isa} db {rows}x{d}"), &db, &edb, 5e-6, 1.0);
                    let mut one = vec![0.0; d];
                    layer_norm_isa(isa, &x[(rows - 1) * d..], &w, &b, eps, 1, &mut one);
                    assert!(one == y[(rows - 1) * d..]);
                }
            }
        }
    }
}
