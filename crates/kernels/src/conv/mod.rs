//! Causal depthwise convolution over time, as in Mamba (Gu and Dao 2023), with the SiLU after it fused in.
//!
//! z[b, t, c] = `bias[c]` + Σ_j w[c, j]·x[b, t − (k − 1) + j, c], where steps before 0 come from the tail of k − 1 steps that
//! the last call left (zeros if there is none), and y = z or silu(z).

#[cfg(test)]
mod tests;

use crate::isa::{Isa, Simd, isa, simd_fn};
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};
use crate::vecmath::{CHUNK, ld, math, same_len, silu_derivative, st};

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
    /// Bias, `[c]`.
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

    /// Steps t0..t1 of one batch row. `dz` is scratch for the gradients of z of these steps and the k − 1 after them,
    /// `part` receives the piece's share of the gradients of w by tap, [k, c], and of the bias, `[c]`.
    fn backward<S>(
        s: S, shape: ConvShape, i: &ConvInputs<'_>, wt: &[f32], dy: &[f32], piece: Piece, dz: &mut [f32],
        part: &mut [f32], out: &Outputs<'_>
    ) {
        // The number of taps as a constant unrolls the loops over them.
        match shape.k {
            4 => backward_taps::<S, 4>(s, shape, i, wt, dy, piece, dz, part, out),
            _ => backward_taps::<S, 0>(s, shape, i, wt, dy, piece, dz, part, out),
        }
    }
}

/// Steps t0..t1 of a batch row.
#[derive(Clone, Copy)]
struct Piece {
    bi: usize,
    t0: usize,
    t1: usize,
}

/// [`backward`] for K taps; K = 0 stands for any number of them.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn backward_taps<S: Simd, const K: usize>(
    s: S,
    shape: ConvShape,
    i: &ConvInputs,
    wt: &[f32],
    dy: &[f32],
    piece: Piece,
    dz: &mut [f32],
    part: &mut [f32],
    out: &Outputs,
) {
    let ConvShape { t, c, .. } = shape;
    let k = if K > 0 { K } else { shape.k };
    let Piece { bi, t0, t1 } = piece;
    let (dw, dbias) = part.split_at_mut(k * c);
    dw.fill(0.0);
    dbias.fill(0.0);
    let zeros = vec![0f32; c];
    let bias = i.bias.unwrap_or(&zeros);
    let mut rows: Vec<&[f32]> = Vec::with_capacity(k);
    for (ti, dz) in (t0..t.min(t1 + k - 1)).zip(dz.chunks_exact_mut(c)) {
        rows.clear();
        rows.extend((0..k).map(|j| row(shape, i, bi, (ti + j) as isize - (k as isize - 1)).unwrap_or(&zeros)));
        let rows = &rows[..k];
        let dy = &dy[(bi * t + ti) * c..(bi * t + ti + 1) * c];
        let own = ti < t1;
        let mut at = 0;
        while at < c {
            let r = at..c.min(at + S::LANES);
            let mut g = ld(s, &dy[r.clone()]);
            if i.silu {
                let mut z = ld(s, &bias[r.clone()]);
                for (j, x) in rows.iter().enumerate() {
                    z = s.mul_add(ld(s, &wt[j * c..][r.clone()]), ld(s, &x[r.clone()]), z);
                }
                g = s.mul(g, silu_derivative(s, z));
            }
            st(s, g, &mut dz[r.clone()]);
            if own {
                let sum = &mut dbias[r.clone()];
                st(s, s.add(ld(s, sum), g), sum);
                for (j, x) in rows.iter().enumerate() {
                    let sum = &mut dw[j * c..][r.clone()];
                    st(s, s.mul_add(ld(s, &x[r.clone()]), g, ld(s, sum)), sum);
                }
            }
            at += S::LANES;
        }
    }

    // Step p, of the tail if negative, was used by the steps p..p + k. The first piece also has the tail's.
    let border = t as isize - (k as isize - 1);
    let first = if t0 == 0 { 1 - k as isize } else { t0 as isize };
    for p in first..t1 as isize {
        // SAFETY: no other task has these steps of this batch row.
        let dx = unsafe {
            if p >= 0 {
                out.x.slice((bi * t + p as usize) * c, c)
            } else if let Some(tail) = &out.tail {
                tail.slice((bi * (k - 1) + (k as isize - 1 + p) as usize) * c, c)
            } else {
                continue;
            }
        };
        match out.new_tail {
            // The last k − 1 steps are the tail that was left.
            Some(g) if p >= border => {
                let at = (bi * (k - 1) + (p - border) as usize) * c;
                dx.copy_from_slice(&g[at..at + c]);
            }
            _ => dx.fill(0.0),
        }
        // Tap j = p + k − 1 − t of step t.
        let (from, to) = (p.max(t0 as isize) as usize, (p + k as isize).min(t as isize) as usize);
        let top = (p + k as isize - 1) as usize;
        let mut at = 0;
        while at < c {
            let r = at..c.min(at + S::LANES);
            let mut sum = ld(s, &dx[r.clone()]);
            if K > 0 && to - from == K {
                for n in 0..K {
                    let (w, z) = (&wt[(K - 1 - n) * c..], &dz[(from - t0 + n) * c..]);
                    sum = s.mul_add(ld(s, &w[r.clone()]), ld(s, &z[r.clone()]), sum);
                }
            } else {
                for ti in from..to {
                    let (w, z) = (&wt[(top - ti) * c..], &dz[(ti - t0) * c..]);
                    sum = s.mul_add(ld(s, &w[r.clone()]), ld(s, &z[r.clone()]), sum);
                }
            }
            st(s, sum, &mut dx[r.clone()]);
            at += S::LANES;
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
/// Sums over time run in f32 in order within pieces of a batch row, the pieces are then summed in order; neither depends on
/// the number of threads.
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
    // At most 32 pieces and a few more, cut by the shape alone.
    let per = (b * t).div_ceil(32).clamp(8, t.max(8));
    let pieces = t.div_ceil(per).max(1); // a piece without steps still has the tail
    let part = (k + 1) * c;
    let mut partial = vec![0f32; b * pieces * part];
    {
        let parts = SharedMut::new(&mut partial);
        let out = Outputs { x: SharedMut::new(grads.x), tail: grads.tail.map(SharedMut::new), new_tail: dnew_tail };
        let task = |n: usize| {
            let (bi, t0) = (n / pieces, n % pieces * per);
            let piece = Piece { bi, t0, t1: t.min(t0 + per) };
            // SAFETY: each task has its own part.
            let part = unsafe { parts.slice(n * part, part) };
            with_buffer(Slot::Fused, (per + k - 1) * c, |dz| backward(isa, shape, i, &wt, dy, piece, dz, part, &out));
        };
        if c == 0 {
            return;
        }
        if b * t * c < 2 * CHUNK {
            (0..b * pieces).for_each(task);
        } else {
            pool::parallel(b * pieces, &task);
        }
    }
    let mut sum = vec![0f32; part];
    for part in partial.chunks_exact(part) {
        sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
    }
    for (ch, w) in grads.w.chunks_exact_mut(k).enumerate() {
        for (j, w) in w.iter_mut().enumerate() {
            *w = sum[j * c + ch];
        }
    }
    if let Some(d) = grads.bias {
        d.copy_from_slice(&sum[k * c..]);
    }
}
