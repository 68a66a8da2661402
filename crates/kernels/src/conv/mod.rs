//! Causal depthwise convolution over time, as in Mamba (Gu and Dao 2023), with the SiLU after it fused in.
//!
//! z[b, t, c] = bias[c] + Σ_j w[c, j]·x[b, t − (k − 1) + j, c], where steps before 0 come from the tail of k − 1 steps that
//! the last call left (zeros if there is none), and y = z or silu(z).

#[cfg(test)]
mod tests;

use crate::isa::{Isa, Simd, isa, simd_fn};
use crate::pool::{self, SharedMut};
use crate::vecmath::{CHUNK, ld, math, same_len, st};

/// The sizes of a convolution.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConvShape {
    /// Batch.
    pub b: usize,
    /// Time steps.
    pub t: usize,
    /// Channels.
    pub c: usize,
    /// Taps, at least 1.
    pub k: usize,
}

/// What a convolution reads.
#[derive(Clone, Copy, Debug)]
pub struct ConvInputs<'a> {
    /// The signal, [b, t, c].
    pub x: &'a [f32],
    /// Weights, [c, k]; the last tap belongs to the present step.
    pub w: &'a [f32],
    /// Bias, [c].
    pub bias: Option<&'a [f32]>,
    /// The k − 1 steps before the first, [b, k − 1, c].
    pub tail: Option<&'a [f32]>,
    /// Whether y = silu(z).
    pub silu: bool,
}

/// Where the gradients of [`ConvInputs`] go, of the same shapes; overwritten.
#[derive(Debug)]
pub struct ConvGrads<'a> {
    /// Of `x`.
    pub x: &'a mut [f32],
    /// Of `w`.
    pub w: &'a mut [f32],
    /// Of `bias`, if wanted.
    pub bias: Option<&'a mut [f32]>,
    /// Of `tail`, if wanted.
    pub tail: Option<&'a mut [f32]>,
}

/// Channels of a task of the backward pass.
const WIDTH: usize = 64;

fn check(shape: ConvShape, i: &ConvInputs) {
    let ConvShape { b, t, c, k } = shape;
    assert!(k > 0, "causal_conv1d: no taps");
    same_len("causal_conv1d x", i.x.len(), b * t * c);
    same_len("causal_conv1d w", i.w.len(), c * k);
    if let Some(bias) = i.bias {
        same_len("causal_conv1d bias", bias.len(), c);
    }
    if let Some(tail) = i.tail {
        same_len("causal_conv1d tail", tail.len(), b * (k - 1) * c);
    }
}

/// wt[j, c] = w[c, j], so that a tap's weights lie next to each other.
fn by_tap(w: &[f32], c: usize, k: usize) -> Vec<f32> {
    let mut wt = vec![0f32; c * k];
    for (ch, row) in w.chunks_exact(k).enumerate() {
        for (j, v) in row.iter().enumerate() {
            wt[j * c + ch] = *v;
        }
    }
    wt
}

/// The row of step `t` (negative: of the tail) of a batch row; None for zeros.
#[inline(always)]
fn row<'a>(shape: ConvShape, i: &ConvInputs<'a>, bi: usize, t: isize) -> Option<&'a [f32]> {
    let ConvShape { t: steps, c, k, .. } = shape;
    if t >= 0 {
        let at = (bi * steps + t as usize) * c;
        return Some(&i.x[at..at + c]);
    }
    i.tail.map(|tail| {
        let at = (bi * (k - 1) + (k as isize - 1 + t) as usize) * c;
        &tail[at..at + c]
    })
}

#[inline(always)]
fn activate<S: Simd>(s: S, z: S::F, silu: bool) -> S::F {
    if silu { s.mul(z, math::sigmoid(s, z)) } else { z }
}

simd_fn! {
    /// y of steps t0.. of one batch row; `y` holds them, all channels.
    fn forward<S>(s: S, shape: ConvShape, i: &ConvInputs<'_>, wt: &[f32], bi: usize, t0: usize, y: &mut [f32]) {
        let ConvShape { c, k, .. } = shape;
        for (n, y) in y.chunks_exact_mut(c).enumerate() {
            let t = (t0 + n) as isize;
            match i.bias {
                Some(bias) => y.copy_from_slice(bias),
                None => y.fill(0.0),
            }
            // The four taps of Mamba go in one pass over the row.
            let rows = [3, 2, 1, 0].map(|back| if k == 4 { row(shape, i, bi, t - back) } else { None });
            if let [Some(x0), Some(x1), Some(x2), Some(x3)] = rows {
                let w = [&wt[..c], &wt[c..2 * c], &wt[2 * c..3 * c], &wt[3 * c..4 * c]];
                let mut at = 0;
                while at < c {
                    let r = at..c.min(at + S::LANES);
                    let mut z = ld(s, &y[r.clone()]);
                    z = s.mul_add(ld(s, &w[0][r.clone()]), ld(s, &x0[r.clone()]), z);
                    z = s.mul_add(ld(s, &w[1][r.clone()]), ld(s, &x1[r.clone()]), z);
                    z = s.mul_add(ld(s, &w[2][r.clone()]), ld(s, &x2[r.clone()]), z);
                    z = s.mul_add(ld(s, &w[3][r.clone()]), ld(s, &x3[r.clone()]), z);
                    st(s, activate(s, z, i.silu), &mut y[r]);
                    at += S::LANES;
                }
                continue;
            }
            for j in 0..k {
                let Some(x) = row(shape, i, bi, t - (k - 1 - j) as isize) else { continue };
                let w = &wt[j * c..(j + 1) * c];
                for ((y, x), w) in y.chunks_mut(S::LANES).zip(x.chunks(S::LANES)).zip(w.chunks(S::LANES)) {
                    st(s, s.mul_add(ld(s, w), ld(s, x), ld(s, y)), y);
                }
            }
            if i.silu {
                for y in y.chunks_mut(S::LANES) {
                    st(s, activate(s, ld(s, y), true), y);
                }
            }
        }
    }

    /// All steps of channels c0..c0 + width of one batch row. `dz` holds [t, width], the parts of dw and of the bias's
    /// gradient [k, width] and [width].
    fn backward<S>(
        s: S, shape: ConvShape, i: &ConvInputs<'_>, wt: &[f32], dy: &[f32], bi: usize, c0: usize, dz: &mut [f32],
        dw: &mut [f32], dbias: &mut [f32], out: &Outputs<'_>
    ) {
        let ConvShape { t, c, k, .. } = shape;
        let width = dbias.len();
        let cols = c0..c0 + width;
        // dz = dy·silu′(z), with z computed again.
        for (ti, dz) in dz.chunks_exact_mut(width).enumerate() {
            let at = (bi * t + ti) * c;
            let dy = &dy[at + c0..at + c0 + width];
            if !i.silu {
                dz.copy_from_slice(dy);
                continue;
            }
            match i.bias {
                Some(bias) => dz.copy_from_slice(&bias[cols.clone()]),
                None => dz.fill(0.0),
            }
            for j in 0..k {
                let Some(x) = row(shape, i, bi, ti as isize - (k - 1 - j) as isize) else { continue };
                let (x, w) = (&x[cols.clone()], &wt[j * c..][cols.clone()]);
                for ((z, x), w) in dz.chunks_mut(S::LANES).zip(x.chunks(S::LANES)).zip(w.chunks(S::LANES)) {
                    st(s, s.mul_add(ld(s, w), ld(s, x), ld(s, z)), z);
                }
            }
            for (z, dy) in dz.chunks_mut(S::LANES).zip(dy.chunks(S::LANES)) {
                let v = ld(s, z);
                let sig = math::sigmoid(s, v);
                let slope = s.mul(sig, s.mul_add(v, s.sub(s.splat(1.0), sig), s.splat(1.0)));
                st(s, s.mul(ld(s, dy), slope), z);
            }
        }
        dw.fill(0.0);
        dbias.fill(0.0);
        for (ti, dz) in dz.chunks_exact(width).enumerate() {
            for (b, z) in dbias.chunks_mut(S::LANES).zip(dz.chunks(S::LANES)) {
                st(s, s.add(ld(s, b), ld(s, z)), b);
            }
            for j in 0..k {
                let Some(x) = row(shape, i, bi, ti as isize - (k - 1 - j) as isize) else { continue };
                let dw = &mut dw[j * width..(j + 1) * width];
                for ((w, x), z) in dw.chunks_mut(S::LANES).zip(x[cols.clone()].chunks(S::LANES)).zip(dz.chunks(S::LANES)) {
                    st(s, s.mul_add(ld(s, x), ld(s, z), ld(s, w)), w);
                }
            }
        }
        // Step p, of the tail if negative, was used by the steps p..p + k.
        for p in 1 - k as isize..t as isize {
            // SAFETY: no other task has these channels of this batch row.
            let dx = unsafe {
                if p >= 0 {
                    out.x.slice((bi * t + p as usize) * c + c0, width)
                } else if let Some(tail) = &out.tail {
                    tail.slice((bi * (k - 1) + (k as isize - 1 + p) as usize) * c + c0, width)
                } else {
                    continue;
                }
            };
            match out.new_tail {
                // The last k − 1 steps are the tail that was left.
                Some(g) if p >= t as isize - (k as isize - 1) => {
                    let at = (bi * (k - 1) + (p - (t as isize - (k as isize - 1))) as usize) * c;
                    dx.copy_from_slice(&g[at + c0..at + c0 + width]);
                }
                _ => dx.fill(0.0),
            }
            for j in 0..k {
                let ti = p + (k - 1 - j) as isize;
                if ti < 0 || ti >= t as isize {
                    continue;
                }
                let dz = &dz[ti as usize * width..(ti as usize + 1) * width];
                let w = &wt[j * c..][cols.clone()];
                for ((d, z), w) in dx.chunks_mut(S::LANES).zip(dz.chunks(S::LANES)).zip(w.chunks(S::LANES)) {
                    st(s, s.mul_add(ld(s, w), ld(s, z), ld(s, d)), d);
                }
            }
        }
    }
}

/// Computes y[b, t, c] and, if given, the tail for the next call, new_tail[b, k − 1, c]: the last k − 1 steps of the old
/// tail followed by x. About (k + 1)·2⁻²⁴ of the products' magnitudes, and SiLU's 4 ulp.
///
/// # Panics
/// If a length does not match the shape.
pub fn causal_conv1d(shape: ConvShape, i: &ConvInputs, y: &mut [f32], new_tail: Option<&mut [f32]>) {
    causal_conv1d_isa(isa(), shape, i, y, new_tail)
}

pub(crate) fn causal_conv1d_isa(
    isa: Isa,
    shape: ConvShape,
    i: &ConvInputs,
    y: &mut [f32],
    new_tail: Option<&mut [f32]>,
) {
    check(shape, i);
    let ConvShape { b, t, c, k } = shape;
    same_len("causal_conv1d y", y.len(), b * t * c);
    if let Some(new) = new_tail {
        same_len("causal_conv1d new_tail", new.len(), b * (k - 1) * c);
        for (n, new) in new.chunks_exact_mut(c.max(1)).enumerate() {
            match row(shape, i, n / (k - 1), (t + n % (k - 1)) as isize - (k as isize - 1)) {
                Some(x) => new.copy_from_slice(x),
                None => new.fill(0.0),
            }
        }
    }
    if y.is_empty() {
        return;
    }
    let wt = by_tap(i.w, c, k);
    let per = (CHUNK / c).clamp(1, t);
    let pieces = t.div_ceil(per);
    let len = y.len();
    let y = SharedMut::new(y);
    let task = |n: usize| {
        let (bi, t0) = (n / pieces, n % pieces * per);
        // SAFETY: the tasks' steps do not overlap.
        let y = unsafe { y.slice((bi * t + t0) * c, per.min(t - t0) * c) };
        forward(isa, shape, i, &wt, bi, t0, y)
    };
    if len < 2 * CHUNK {
        (0..b * pieces).for_each(task);
    } else {
        pool::parallel(b * pieces, &task);
    }
}

/// Where the tasks of the backward pass write, and the gradient of the tail that was left.
struct Outputs<'a> {
    x: SharedMut<'a, f32>,
    tail: Option<SharedMut<'a, f32>>,
    new_tail: Option<&'a [f32]>,
}

/// The gradients for dy[b, t, c] and, if the new tail was used, its gradient dnew_tail[b, k − 1, c].
///
/// Sums over time run in f32 in order within a batch row, the batch rows are then summed in order; neither depends on the
/// number of threads.
///
/// # Panics
/// If a length does not match the shape.
pub fn causal_conv1d_backward(
    shape: ConvShape,
    i: &ConvInputs,
    dy: &[f32],
    dnew_tail: Option<&[f32]>,
    grads: ConvGrads,
) {
    causal_conv1d_backward_isa(isa(), shape, i, dy, dnew_tail, grads)
}

pub(crate) fn causal_conv1d_backward_isa(
    isa: Isa,
    shape: ConvShape,
    i: &ConvInputs,
    dy: &[f32],
    dnew_tail: Option<&[f32]>,
    grads: ConvGrads,
) {
    check(shape, i);
    let ConvShape { b, t, c, k } = shape;
    let tail_len = b * (k - 1) * c;
    for (name, len, expected) in [
        ("dy", dy.len(), b * t * c),
        ("dx", grads.x.len(), b * t * c),
        ("dw", grads.w.len(), c * k),
        ("dbias", grads.bias.as_ref().map_or(c, |d| d.len()), c),
        ("dtail", grads.tail.as_ref().map_or(tail_len, |d| d.len()), tail_len),
        ("dnew_tail", dnew_tail.map_or(tail_len, |d| d.len()), tail_len),
    ] {
        assert!(len == expected, "causal_conv1d_backward {name}: {len} elements instead of {expected}");
    }
    let wt = by_tap(i.w, c, k);
    let blocks = c.div_ceil(WIDTH);
    // For each task [k, WIDTH] of dw, then [WIDTH] of the bias's gradient.
    let part = (k + 1) * WIDTH;
    let mut partial = vec![0f32; b * blocks * part];
    {
        let parts = SharedMut::new(&mut partial);
        let out =
            Outputs { x: SharedMut::new(grads.x), tail: grads.tail.map(SharedMut::new), new_tail: dnew_tail };
        let task = |n: usize| {
            let (bi, c0) = (n / blocks, n % blocks * WIDTH);
            let width = WIDTH.min(c - c0);
            // SAFETY: each task has its own part.
            let part = unsafe { parts.slice(n * part, part) };
            let (dw, dbias) = part.split_at_mut(k * WIDTH);
            crate::scratch::with_buffer(crate::scratch::Slot::Fused, t * width, |dz| {
                backward(isa, shape, i, &wt, dy, bi, c0, dz, &mut dw[..k * width], &mut dbias[..width], &out)
            });
        };
        if b * t * c < 2 * CHUNK {
            (0..b * blocks).for_each(task);
        } else {
            pool::parallel(b * blocks, &task);
        }
    }
    grads.w.fill(0.0);
    let mut dbias = grads.bias;
    if let Some(d) = &mut dbias {
        d.fill(0.0);
    }
    for (n, part) in partial.chunks_exact(part).enumerate() {
        let c0 = n % blocks * WIDTH;
        let width = WIDTH.min(c - c0);
        for l in 0..width {
            for j in 0..k {
                grads.w[(c0 + l) * k + j] += part[j * width + l];
            }
            if let Some(d) = &mut dbias {
                d[c0 + l] += part[k * WIDTH + l];
            }
        }
    }
}
