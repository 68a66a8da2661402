//! The selective scan of Mamba (Gu and Dao 2023), a diagonal recurrence whose coefficients depend on the input:
//!
//! h_t = e^(Δ_t·A)·h_{t−1} + Δ_t·B_t·u_t,  y_t = Σ_n C_t·h_t + D·u_t
//!
//! with Δ, u, D per channel, B, C per state, A and h per channel and state. Channels lie in the lanes of vectors, so that
//! neither y nor the gradients of u and Δ need sums across lanes; a task owns a batch row and some vectors of channels.
//! The backward pass keeps the states at the borders of chunks of [`CHUNK_STEPS`] steps and computes those between again.
//!
//! A single step (decoding) puts states in the lanes instead, which is how they lie in memory. The two paths differ in
//! rounding only: a few 2⁻²⁴ of the sums' magnitudes.
//!
//! e^(Δ·A) is computed as 2^(Δ·(A·log₂ e)); Δ·A should not be positive and must not exceed 87.

mod backward;
mod forward;
#[cfg(test)]
mod tests;

use crate::isa::{Isa, Simd, isa};
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};
use crate::vecmath::same_len;

/// Steps between two states that the backward pass keeps. With 16 states and 16 lanes a chunk's states, decays and sums over
/// channels take 33 KiB, so that they stay in L1; 16 steps, which do not, take half as long again.
pub const CHUNK_STEPS: usize = 8;

/// The sizes of a scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScanShape {
    /// Batch.
    pub b: usize,
    /// Time steps.
    pub t: usize,
    /// Channels.
    pub c: usize,
    /// States of a channel.
    pub n: usize,
}

/// What a scan reads.
#[derive(Clone, Copy, Debug)]
pub struct ScanInputs<'a> {
    /// The signal, [b, t, c].
    pub u: &'a [f32],
    /// Step sizes Δ, after softplus, [b, t, c].
    pub delta: &'a [f32],
    /// Decay rates A, negative, [c, n].
    pub a: &'a [f32],
    /// Input weights B, [b, t, n].
    pub b: &'a [f32],
    /// Output weights C, [b, t, n].
    pub c: &'a [f32],
    /// The skip connection D, `[c]`.
    pub d: Option<&'a [f32]>,
    /// The state before the first step, [b, c, n]; zero if absent.
    pub h0: Option<&'a [f32]>,
}

/// Where the gradients of [`ScanInputs`] go, of the same shapes; overwritten.
#[derive(Debug)]
pub struct ScanGrads<'a> {
    /// Of `u`.
    pub u: &'a mut [f32],
    /// Of `delta`.
    pub delta: &'a mut [f32],
    /// Of `a`.
    pub a: &'a mut [f32],
    /// Of `b`.
    pub b: &'a mut [f32],
    /// Of `c`.
    pub c: &'a mut [f32],
    /// Of `d`, if wanted.
    pub d: Option<&'a mut [f32]>,
    /// Of `h0`, if wanted.
    pub h0: Option<&'a mut [f32]>,
}

fn check(shape: ScanShape, x: &ScanInputs) {
    let ScanShape { b, t, c, n } = shape;
    same_len("selective_scan u", x.u.len(), b * t * c);
    same_len("selective_scan delta", x.delta.len(), b * t * c);
    same_len("selective_scan a", x.a.len(), c * n);
    same_len("selective_scan b", x.b.len(), b * t * n);
    same_len("selective_scan c", x.c.len(), b * t * n);
    if let Some(d) = x.d {
        same_len("selective_scan d", d.len(), c);
    }
    if let Some(h) = x.h0 {
        same_len("selective_scan h0", h.len(), b * c * n);
    }
}

/// Computes y[b, t, c] and the last state h_last[b, c, n].
///
/// # Panics
/// If a length does not match the shape.
pub fn selective_scan(shape: ScanShape, x: &ScanInputs, y: &mut [f32], h_last: &mut [f32]) {
    selective_scan_isa(isa(), shape, x, y, h_last)
}

pub(crate) fn selective_scan_isa(isa: Isa, shape: ScanShape, x: &ScanInputs, y: &mut [f32], h_last: &mut [f32]) {
    check(shape, x);
    let ScanShape { b, t, c, n } = shape;
    same_len("selective_scan y", y.len(), b * t * c);
    same_len("selective_scan h_last", h_last.len(), b * c * n);
    if b * c == 0 {
        return;
    }
    if t == 1 {
        return forward::single_step(isa, shape, x, y, h_last);
    }
    let width = isa.lanes();
    let blocks = c.div_ceil(width);
    let (y, h) = (SharedMut::new(y), SharedMut::new(h_last));
    let task = |i: usize| {
        let (bi, c0) = (i / blocks, i % blocks * width);
        let w = width.min(c - c0);
        // SAFETY: the tasks' channels do not overlap.
        let h = unsafe { h.slice((bi * c + c0) * n, w * n) };
        with_buffer(Slot::Fused, forward::buffer_len(width, n), |buf| {
            forward::channels(isa, shape, x, bi, c0, buf, &y, h)
        });
    };
    if b * t * c * n < 64 * 1024 {
        (0..b * blocks).for_each(task);
    } else {
        pool::parallel(b * blocks, &task);
    }
}

/// The gradients for dy[b, t, c] and, if the last state was used, dh_last[b, c, n].
///
/// Sums over channels (for B, C) and over the batch (for A, D) are taken in a fixed order of f32 partial sums, which
/// depends on the shape and the instruction set, not on the number of threads.
///
/// # Panics
/// If a length does not match the shape.
pub fn selective_scan_backward(
    shape: ScanShape,
    x: &ScanInputs,
    dy: &[f32],
    dh_last: Option<&[f32]>,
    grads: ScanGrads,
) {
    selective_scan_backward_isa(isa(), shape, x, dy, dh_last, grads)
}

pub(crate) fn selective_scan_backward_isa(
    isa: Isa,
    shape: ScanShape,
    x: &ScanInputs,
    dy: &[f32],
    dh_last: Option<&[f32]>,
    grads: ScanGrads,
) {
    check(shape, x);
    let ScanShape { b, t, c, n } = shape;
    for (name, len, expected) in [
        ("dy", dy.len(), b * t * c),
        ("du", grads.u.len(), b * t * c),
        ("ddelta", grads.delta.len(), b * t * c),
        ("da", grads.a.len(), c * n),
        ("db", grads.b.len(), b * t * n),
        ("dc", grads.c.len(), b * t * n),
        ("dd", grads.d.as_ref().map_or(c, |d| d.len()), c),
        ("dh0", grads.h0.as_ref().map_or(b * c * n, |h| h.len()), b * c * n),
        ("dh_last", dh_last.map_or(b * c * n, |h| h.len()), b * c * n),
    ] {
        assert!(len == expected, "selective_scan_backward {name}: {len} elements instead of {expected}");
    }
    let width = isa.lanes();
    let blocks = c.div_ceil(width);
    // At least 16 tasks where there are enough channels; each writes its own part of the sums over channels.
    let groups = if b == 0 { 0 } else { 16usize.div_ceil(b).min(blocks) };
    let per = blocks.div_ceil(groups.max(1)).max(1);
    let groups = if b == 0 { 0 } else { blocks.div_ceil(per) };
    let (btn, bcn) = (b * t * n, b * c * n);
    let (mut db, mut dc) = (vec![0f32; groups * btn], vec![0f32; groups * btn]);
    let (mut da, mut dd) = (vec![0f32; bcn], vec![0f32; b * c]);
    let mut no_h0 = Vec::new();
    let want_h0 = grads.h0.is_some();
    let dh0 = grads.h0.unwrap_or(&mut no_h0);
    {
        let out = backward::Outputs {
            u: SharedMut::new(grads.u),
            delta: SharedMut::new(grads.delta),
            a: SharedMut::new(&mut da),
            b: SharedMut::new(&mut db),
            c: SharedMut::new(&mut dc),
            d: SharedMut::new(&mut dd),
            h0: want_h0.then(|| SharedMut::new(dh0)),
        };
        pool::parallel(b * groups, &|i| {
            let (bi, g) = (i / groups, i % groups);
            let (first, last) = (g * per * width, c.min((g + 1) * per * width));
            let channels = backward::Channels { batch: bi, first, last, group: g };
            with_buffer(Slot::Fused, backward::buffer_len(width, n, t, per), |buf| {
                backward::channels(isa, shape, x, dy, dh_last, channels, buf, &out)
            });
        });
    }
    sum_parts(&db, grads.b);
    sum_parts(&dc, grads.c);
    sum_parts(&da, grads.a);
    if let Some(d) = grads.d {
        sum_parts(&dd, d);
    }
}

/// out = Σ of the consecutive parts, in their order.
fn sum_parts(parts: &[f32], out: &mut [f32]) {
    if out.is_empty() {
        return;
    }
    let mut chunks = parts.chunks_exact(out.len());
    match chunks.next() {
        Some(first) => out.copy_from_slice(first),
        None => out.fill(0.0),
    }
    for part in chunks {
        out.iter_mut().zip(part).for_each(|(o, p)| *o += p);
    }
}

/// dst[j·LANES + l] = src[(first + l)·n + j]: channels from rows into lanes, 0 beyond the `w`-th.
#[inline(always)]
fn to_lanes<S: Simd>(_: S, src: &[f32], first: usize, w: usize, n: usize, dst: &mut [f32]) {
    dst.fill(0.0);
    for (l, row) in src[first * n..(first + w) * n].chunks_exact(n.max(1)).enumerate() {
        for (j, v) in row.iter().enumerate() {
            dst[j * S::LANES + l] = *v;
        }
    }
}

/// The inverse of [`to_lanes`] for the rows of `dst`, [w, n].
#[inline(always)]
fn from_lanes<S: Simd>(_: S, src: &[f32], n: usize, dst: &mut [f32]) {
    for (l, row) in dst.chunks_exact_mut(n.max(1)).enumerate() {
        for (j, v) in row.iter_mut().enumerate() {
            *v = src[j * S::LANES + l];
        }
    }
}

/// Copies `steps` rows of `w` channels, the rows `stride` apart, into rows of `LANES` filled up with 0.
#[inline(always)]
fn load_steps<S: Simd>(s: S, src: &[f32], stride: usize, w: usize, steps: usize, dst: &mut [f32]) {
    for (t, d) in dst[..steps * S::LANES].chunks_exact_mut(S::LANES).enumerate() {
        s.store(crate::vecmath::ld(s, &src[t * stride..t * stride + w]), d);
    }
}
