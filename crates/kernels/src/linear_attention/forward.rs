//! The steps of one head.

use super::{LinearInputs, LinearShape};
use crate::isa::{Simd, simd_fn};
use crate::pool::SharedMut;
use crate::vecmath::{ld, math, st};

/// Vectors of columns that go through all steps together.
const WIDE: usize = 4;

/// Which head of which row of the batch.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub batch: usize,
    pub head: usize,
}

/// Scratch of [`run`].
pub(super) fn buffer_len(lanes: usize, k: usize) -> usize {
    k * (WIDE * lanes + 2)
}

/// The decays of a step, and its key times them.
#[inline(always)]
fn decays<S: Simd>(s: S, log: &[f32], k: &[f32], decay: &mut [f32], decayed: &mut [f32]) {
    if let [one] = *log {
        let e = s.max_lane(math::exp_fast(s, s.splat(one)));
        decay.fill(e);
    } else {
        for (log, decay) in log.chunks(S::LANES).zip(decay.chunks_mut(S::LANES)) {
            st(s, math::exp_fast(s, ld(s, log)), decay);
        }
    }
    for ((k, e), out) in k.chunks(S::LANES).zip(decay.chunks(S::LANES)).zip(decayed.chunks_mut(S::LANES)) {
        st(s, s.mul(ld(s, k), ld(s, e)), out);
    }
}

/// What all columns of a step share.
struct Step<'a> {
    q: &'a [f32],
    k: &'a [f32],
    decay: &'a [f32],
    decayed: &'a [f32],
    beta: Option<f32>,
}

/// A step of `N` vectors of columns whose state are the rows of `state`, `stride` apart. `v` and `y` are as long as the
/// vectors, or shorter for a single one.
#[inline(always)]
fn step<S: Simd, const N: usize>(s: S, x: &Step<'_>, v: &[f32], y: &mut [f32], state: &mut [f32], stride: usize) {
    let l = S::LANES;
    let w = v.len();
    let at = |n: usize| n * l..w.min((n + 1) * l);
    let mut u = [s.zero(); N];
    for (n, u) in u.iter_mut().enumerate() {
        *u = ld(s, &v[at(n)]);
    }
    if let Some(beta) = x.beta {
        let mut known = [s.zero(); N];
        for (row, &k) in state.chunks(stride).zip(x.decayed) {
            let k = s.splat(k);
            for (n, known) in known.iter_mut().enumerate() {
                *known = s.mul_add(k, ld(s, &row[at(n)]), *known);
            }
        }
        for (u, known) in u.iter_mut().zip(known) {
            *u = s.mul(s.splat(beta), s.sub(*u, known));
        }
    }
    let mut out = [s.zero(); N];
    for (((row, &e), &k), &q) in state.chunks_mut(stride).zip(x.decay).zip(x.k).zip(x.q) {
        let (e, k, q) = (s.splat(e), s.splat(k), s.splat(q));
        for (n, (u, out)) in u.iter().zip(&mut out).enumerate() {
            let row = &mut row[at(n)];
            let h = s.mul_add(k, *u, s.mul(e, ld(s, row)));
            st(s, h, row);
            *out = s.mul_add(q, h, *out);
        }
    }
    for (n, out) in out.into_iter().enumerate() {
        st(s, out, &mut y[at(n)]);
    }
}

simd_fn! {
    /// All steps of a head. `last` `[k, v]` is the state before them and becomes the one after them.
    pub(super) fn run<S>(
        s: S, shape: LinearShape, x: &LinearInputs<'_>, at: Head, buf: &mut [f32], y: &SharedMut<'_, f32>, last: &mut [f32]
    ) {
        let LinearShape { b, t, g, h, k: keys, v: values } = shape;
        let wide = WIDE * S::LANES;
        let shared = if x.tiled { at.head % g } else { at.head / (h / g) };
        let per_head = x.decay.len() / (b * t * h).max(1);
        let (decay, rest) = buf.split_at_mut(keys);
        let (decayed, part) = rest.split_at_mut(keys);
        let mut c0 = 0;
        while c0 < values {
            let w = if values - c0 >= wide { wide } else { S::LANES.min(values - c0) };
            let stride = w;
            if t > 1 {
                for (part, row) in part.chunks_exact_mut(stride).zip(last.chunks_exact(values)) {
                    part.copy_from_slice(&row[c0..c0 + w]);
                }
            }
            for i in 0..t {
                let row = at.batch * t + i;
                let head = row * h + at.head;
                let qk = (row * g + shared) * keys..(row * g + shared + 1) * keys;
                decays(s, &x.decay[head * per_head..(head + 1) * per_head], &x.k[qk.clone()], decay, decayed);
                let step_inputs = Step {
                    q: &x.q[qk.clone()], k: &x.k[qk], decay, decayed, beta: x.beta.map(|beta| beta[head])
                };
                let from = head * values + c0;
                let v = &x.v[from..from + w];
                // SAFETY: no other task has this head of this batch row.
                let y = unsafe { y.slice(from, w) };
                // A single step works where the state lies: copying its columns would cost as much as the step.
                let (state, stride) = if t > 1 { (&mut part[..keys * w], stride) } else { (&mut last[c0..], values) };
                if w == wide {
                    step::<S, WIDE>(s, &step_inputs, v, y, state, stride);
                } else {
                    step::<S, 1>(s, &step_inputs, v, y, state, stride);
                }
            }
            if t > 1 {
                for (part, row) in part.chunks_exact(stride).zip(last.chunks_exact_mut(values)) {
                    row[c0..c0 + w].copy_from_slice(part);
                }
            }
            c0 += w;
        }
    }
}
