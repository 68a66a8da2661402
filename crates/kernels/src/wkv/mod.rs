//! Linear attention with decay by channel and an optional correction, step by step (see [`wkv`]).
//!
//! Elements of values lie in the lanes of vectors, because columns of the state never meet; a task owns some columns of a head
//! and keeps them in a buffer for all of its steps. Sums run over keys, in order, whatever the instruction set: its kinds
//! differ by fused rounding only.

#[cfg(test)]
mod tests;

use crate::isa::{Isa, Simd, isa, simd_fn};
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};
use crate::vecmath::{ld, math, same_len, st};

/// The sizes of [`wkv`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WkvShape {
    /// Batch.
    pub b: usize,
    /// Time steps.
    pub t: usize,
    /// Heads.
    pub h: usize,
    /// Elements of a key.
    pub k: usize,
    /// Elements of a value.
    pub v: usize,
}

/// What [`wkv`] reads.
#[derive(Clone, Copy, Debug)]
pub struct WkvInputs<'a> {
    /// Receptance (query), [b, t, h, k].
    pub r: &'a [f32],
    /// Logarithms of the decays, [b, t, h, k].
    pub log_decay: &'a [f32],
    /// Keys, [b, t, h, k].
    pub k: &'a [f32],
    /// Values, [b, t, h, v].
    pub v: &'a [f32],
    /// What a step's own key counts, [h, k]; with it a step reads the state before it.
    pub bonus: Option<&'a [f32]>,
    /// What is read from the state before a step and where that is written, each [b, t, h, k].
    pub correction: Option<(&'a [f32], &'a [f32])>,
    /// The state before the first step, [b, h, k, v]; zero if absent.
    pub s0: Option<&'a [f32]>,
}

impl<'a> WkvInputs<'a> {
    /// The inputs of one head at one step, whose elements of keys begin at `at`.
    #[inline(always)]
    fn row(&self, at: usize, k: usize) -> [&'a [f32]; 3] {
        [&self.r[at..at + k], &self.log_decay[at..at + k], &self.k[at..at + k]]
    }
}

/// Computes y[b, t, h, v] and the last state s_last[b, h, k, v] of
///
/// S_t = diag(e^log_decay_t)·S_{t−1} + k_t·v_tᵀ + c_t·(a_tᵀ·S_{t−1}),  y_t = r_tᵀ·S_t
///
/// with the correction (a, c), or, with a bonus, y_t = r_tᵀ·(S_{t−1} + diag(bonus)·k_t·v_tᵀ).
///
/// # Panics
/// If a length does not match the shape.
pub fn wkv(shape: WkvShape, x: &WkvInputs, y: &mut [f32], s_last: &mut [f32]) {
    wkv_isa(isa(), shape, x, y, s_last)
}

pub(crate) fn wkv_isa(isa: Isa, shape: WkvShape, x: &WkvInputs, y: &mut [f32], s_last: &mut [f32]) {
    let WkvShape { b, t, h, k, v } = shape;
    let keys = b * t * h * k;
    same_len("wkv r", x.r.len(), keys);
    same_len("wkv log_decay", x.log_decay.len(), keys);
    same_len("wkv k", x.k.len(), keys);
    same_len("wkv v", x.v.len(), b * t * h * v);
    if let Some(u) = x.bonus {
        same_len("wkv bonus", u.len(), h * k);
    }
    if let Some((a, c)) = x.correction {
        same_len("wkv correction", a.len(), keys);
        same_len("wkv correction", c.len(), keys);
    }
    if let Some(s) = x.s0 {
        same_len("wkv s0", s.len(), b * h * k * v);
    }
    same_len("wkv y", y.len(), b * t * h * v);
    same_len("wkv s_last", s_last.len(), b * h * k * v);
    if b * h * k * v == 0 {
        y.fill(0.0);
        return;
    }
    let lanes = isa.lanes();
    // As many vectors as a task holds in registers, thrice.
    let width = 4 * lanes;
    let blocks = v.div_ceil(width);
    let (y, s_last) = (SharedMut::new(y), SharedMut::new(s_last));
    let task = |i: usize| {
        let (head, v0) = (i / blocks, i % blocks * width);
        with_buffer(Slot::Fused, k.next_multiple_of(16) + k * width, |buf| match (v - v0).div_ceil(lanes) {
            1 => columns1(isa, shape, x, head, v0, buf, &y, &s_last),
            2 => columns2(isa, shape, x, head, v0, buf, &y, &s_last),
            _ => columns4(isa, shape, x, head, v0, buf, &y, &s_last),
        });
    };
    if b * t * h * k * v < 64 * 1024 {
        (0..b * h * blocks).for_each(task);
    } else {
        pool::parallel(b * h * blocks, &task);
    }
}

simd_fn! {
    fn columns1<S>(s: S, n: WkvShape, x: &WkvInputs<'_>, head: usize, v0: usize, buf: &mut [f32], y: &SharedMut<'_, f32>, last: &SharedMut<'_, f32>) {
        columns::<S, 1>(s, n, x, head, v0, buf, y, last)
    }
    fn columns2<S>(s: S, n: WkvShape, x: &WkvInputs<'_>, head: usize, v0: usize, buf: &mut [f32], y: &SharedMut<'_, f32>, last: &SharedMut<'_, f32>) {
        columns::<S, 2>(s, n, x, head, v0, buf, y, last)
    }
    fn columns4<S>(s: S, n: WkvShape, x: &WkvInputs<'_>, head: usize, v0: usize, buf: &mut [f32], y: &SharedMut<'_, f32>, last: &SharedMut<'_, f32>) {
        columns::<S, 4>(s, n, x, head, v0, buf, y, last)
    }
}

/// All steps of `N` vectors of columns from `v0` on, of head `head` counted through the batch.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // one place calls it
fn columns<S: Simd, const N: usize>(
    s: S,
    shape: WkvShape,
    x: &WkvInputs,
    head: usize,
    v0: usize,
    buf: &mut [f32],
    y: &SharedMut<'_, f32>,
    last: &SharedMut<'_, f32>,
) {
    let WkvShape { t, h, k, v, .. } = shape;
    let (bi, hi) = (head / h, head % h);
    let w = (v - v0).min(N * S::LANES);
    let (decays, state) = buf.split_at_mut(k.next_multiple_of(16));
    let state = &mut state[..k * N * S::LANES];
    for (i, row) in state.chunks_exact_mut(N * S::LANES).enumerate() {
        match x.s0 {
            Some(s0) => {
                let at = (head * k + i) * v + v0;
                row[..w].copy_from_slice(&s0[at..at + w]);
                row[w..].fill(0.0);
            }
            None => row.fill(0.0),
        }
    }
    for ti in 0..t {
        let token = (bi * t + ti) * h + hi;
        let [r, log_decay, key] = x.row(token * k, k);
        for (d, l) in decays.chunks_mut(S::LANES).zip(log_decay.chunks(S::LANES)) {
            st(s, math::exp(s, ld(s, l)), d);
        }
        let value = vectors::<S, N>(s, &x.v[token * v + v0..token * v + v0 + w]);
        let mut out = [s.zero(); N];
        if let Some(u) = x.bonus {
            let mut own = s.zero();
            let u = &u[hi * k..(hi + 1) * k];
            for ((r, key), u) in r.chunks(S::LANES).zip(key.chunks(S::LANES)).zip(u.chunks(S::LANES)) {
                own = s.mul_add(s.mul(ld(s, r), ld(s, key)), ld(s, u), own);
            }
            let own = s.splat(s.sum(own));
            for j in 0..N {
                out[j] = s.mul(own, value[j]);
            }
        }
        let before = x.bonus.is_some();
        match x.correction {
            None => {
                for (i, row) in state.chunks_exact_mut(N * S::LANES).enumerate() {
                    let (r, d, key) = (s.splat(r[i]), s.splat(decays[i]), s.splat(key[i]));
                    for j in 0..N {
                        let old = s.load(&row[j * S::LANES..]);
                        let new = s.mul_add(d, old, s.mul(key, value[j]));
                        out[j] = s.mul_add(r, if before { old } else { new }, out[j]);
                        s.store(new, &mut row[j * S::LANES..]);
                    }
                }
            }
            Some((a, c)) => {
                let (a, c) = (&a[token * k..(token + 1) * k], &c[token * k..(token + 1) * k]);
                let mut read = [s.zero(); N];
                for (row, &a) in state.chunks_exact(N * S::LANES).zip(a) {
                    let a = s.splat(a);
                    for j in 0..N {
                        read[j] = s.mul_add(a, s.load(&row[j * S::LANES..]), read[j]);
                    }
                }
                for (i, row) in state.chunks_exact_mut(N * S::LANES).enumerate() {
                    let (r, d, key, c) = (s.splat(r[i]), s.splat(decays[i]), s.splat(key[i]), s.splat(c[i]));
                    for j in 0..N {
                        let old = s.load(&row[j * S::LANES..]);
                        let new = s.mul_add(d, old, s.mul_add(c, read[j], s.mul(key, value[j])));
                        out[j] = s.mul_add(r, if before { old } else { new }, out[j]);
                        s.store(new, &mut row[j * S::LANES..]);
                    }
                }
            }
        }
        // SAFETY: no other task has these columns of this head.
        let y = unsafe { y.slice(token * v + v0, w) };
        for (y, &o) in y.chunks_mut(S::LANES).zip(&out) {
            st(s, o, y);
        }
    }
    for (i, row) in state.chunks_exact(N * S::LANES).enumerate() {
        // SAFETY: as above.
        unsafe { last.slice((head * k + i) * v + v0, w) }.copy_from_slice(&row[..w]);
    }
}

/// `x` in `N` vectors, zeros beyond its end.
#[inline(always)]
fn vectors<S: Simd, const N: usize>(s: S, x: &[f32]) -> [S::F; N] {
    let mut all = [s.zero(); N];
    for (v, x) in all.iter_mut().zip(x.chunks(S::LANES)) {
        *v = ld(s, x);
    }
    all
}
