//! The path for few queries: one pass over keys and values for all queries that share them.

use super::{Inputs, KEYS, SPLIT, SharedHeads, row_dot, scaled_row, soft_cap, visible};
use crate::isa::{Isa, simd_fn};
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};
use crate::softmax::finite_max;
use crate::vecmath::{ld, math, st};

/// Rows whose scores and sums are worked on together.
const ROWS: usize = 4;

pub(super) fn attention(isa: Isa, x: &Inputs, out: &SharedHeads, lse: &SharedMut<f32>) {
    let s = x.shape;
    let rows = s.tq * (s.hq / s.hkv);
    // Runs of keys begin at multiples of SPLIT, so that the order of a query's sums is its own.
    let splits = s.tk.div_ceil(SPLIT).max(1);
    let part = rows * (s.dv + 2);
    let mut partial = vec![0f32; s.b * s.hkv * splits * part];
    let shared = SharedMut::new(&mut partial);
    let task = |i: usize| {
        // SAFETY: each task has its own part.
        let part = unsafe { shared.slice(i * part, part) };
        let (b, kv, split) = (i / splits / s.hkv, i / splits % s.hkv, i % splits);
        with_buffer(Slot::Fused, rows * KEYS, |buf| run(isa, x, b, kv, split, buf, part));
    };
    let tasks = s.b * s.hkv * splits;
    if x.work() < 256 * 1024 {
        (0..tasks).for_each(task);
    } else {
        pool::parallel(tasks, &task);
    }
    for i in 0..s.b * s.hkv {
        join(isa, x, i / s.hkv, i % s.hkv, &mut partial[i * splits * part..(i + 1) * splits * part], out, lse);
    }
}

/// Row r of a key-value head's queries as (step, head).
#[inline(always)]
fn query_of(x: &Inputs, kv: usize, r: usize) -> (usize, usize) {
    let group = x.shape.hq / x.shape.hkv;
    (r / group, kv * group + r % group)
}

simd_fn! {
    /// One run of keys for all rows of one key-value head. `part` receives, for each row, the unnormalised output, the
    /// maximum and the sum.
    fn run<S>(s: S, x: &Inputs<'_>, b: usize, kv: usize, split: usize, scores: &mut [f32], part: &mut [f32]) {
        let shape = x.shape;
        let (d, dv) = (shape.d, shape.dv);
        let rows = shape.tq * (shape.hq / shape.hkv);
        let (acc, ends) = part.split_at_mut(rows * dv);
        let (max, sum) = ends.split_at_mut(rows);
        acc.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        let (start, end) = (split * SPLIT, shape.tk.min((split + 1) * SPLIT));
        let first = visible(&x.opts, x.opts.q_start, shape.tk).0.max(start);
        let last = visible(&x.opts, x.opts.q_start + shape.tq - 1, shape.tk).1.min(end);
        let mut j0 = first / KEYS * KEYS;
        while j0 < last {
            let keys = KEYS.min(last - j0);
            let (k, v) = (x.k.from(b, j0, kv), x.v.from(b, j0, kv));
            for r in 0..rows {
                let (t, h) = query_of(x, kv, r);
                let q = &x.q.from(b, t, h)[..d];
                let scores = &mut scores[r * KEYS..(r + 1) * KEYS];
                let (lo, hi) = visible(&x.opts, x.opts.q_start + t, shape.tk);
                scores.fill(f32::NEG_INFINITY);
                for j in lo.max(j0)..hi.min(j0 + keys) {
                    let at = (j - j0) * x.k.ts;
                    scores[j - j0] = x.opts.scale * row_dot(s, q, &k[at..at + d]);
                }
                if let Some(cap) = x.opts.softcap {
                    for c in scores.chunks_exact_mut(S::LANES) {
                        let raw = s.load(c);
                        let capped = soft_cap(s, raw, cap);
                        // The mask's −∞ is not to be capped.
                        s.store(s.select(s.eq(raw, s.splat(f32::NEG_INFINITY)), raw, capped), c);
                    }
                }
                let mut m = s.splat(f32::NEG_INFINITY);
                for c in scores.chunks_exact(S::LANES) {
                    m = s.max(s.load(c), m);
                }
                let new = s.max_lane(m).max(max[r]);
                let used = finite_max(new);
                let mut factor = [0.0f32; 16];
                st(s, math::exp_fast(s, s.splat(max[r] - used)), &mut factor[..S::LANES]);
                let mut total = s.zero();
                for c in scores.chunks_exact_mut(S::LANES) {
                    let p = math::exp_fast(s, s.sub(s.load(c), s.splat(used)));
                    s.store(p, c);
                    total = s.add(total, p);
                }
                sum[r] = s.fma(sum[r], factor[0], s.sum(total));
                max[r] = new;
                if factor[0] != 1.0 {
                    for v in &mut acc[r * dv..(r + 1) * dv] {
                        *v *= factor[0];
                    }
                }
            }
            // acc += scores·v, the values' vectors shared by up to ROWS rows.
            for r0 in (0..rows).step_by(ROWS) {
                let n = ROWS.min(rows - r0);
                let mut e = 0;
                while e < dv {
                    let w = S::LANES.min(dv - e);
                    let mut sums = [s.zero(); ROWS];
                    for (i, x) in sums[..n].iter_mut().enumerate() {
                        *x = ld(s, &acc[(r0 + i) * dv + e..(r0 + i) * dv + e + w]);
                    }
                    if n == ROWS {
                        for j in 0..keys {
                            let vv = ld(s, &v[j * x.v.ts + e..j * x.v.ts + e + w]);
                            for (i, x) in sums.iter_mut().enumerate() {
                                *x = s.mul_add(s.splat(scores[(r0 + i) * KEYS + j]), vv, *x);
                            }
                        }
                    } else {
                        for j in 0..keys {
                            let vv = ld(s, &v[j * x.v.ts + e..j * x.v.ts + e + w]);
                            for (i, x) in sums[..n].iter_mut().enumerate() {
                                *x = s.mul_add(s.splat(scores[(r0 + i) * KEYS + j]), vv, *x);
                            }
                        }
                    }
                    for (i, x) in sums[..n].iter().enumerate() {
                        st(s, *x, &mut acc[(r0 + i) * dv + e..(r0 + i) * dv + e + w]);
                    }
                    e += w;
                }
            }
            j0 += keys;
        }
    }

    /// Joins the runs of one key-value head, in their order.
    fn join<S>(s: S, x: &Inputs<'_>, b: usize, kv: usize, parts: &mut [f32], out: &SharedHeads<'_>, lse: &SharedMut<'_, f32>) {
        let shape = x.shape;
        let dv = shape.dv;
        let rows = shape.tq * (shape.hq / shape.hkv);
        let part = rows * (dv + 2);
        for r in 0..rows {
            let (t, h) = query_of(x, kv, r);
            let m = parts.chunks_exact(part).map(|p| p[rows * dv + r]).fold(f32::NEG_INFINITY, f32::max);
            let used = finite_max(m);
            let (first, others) = parts.split_at_mut(part);
            let weight = |p: &[f32]| (p[rows * dv + r] - used).exp();
            let w = weight(first);
            let mut sum = first[rows * dv + rows + r] * w;
            let acc = &mut first[r * dv..(r + 1) * dv];
            if w != 1.0 {
                acc.iter_mut().for_each(|v| *v *= w);
            }
            for p in others.chunks_exact(part) {
                let w = weight(p);
                sum += p[rows * dv + rows + r] * w;
                acc.iter_mut().zip(&p[r * dv..(r + 1) * dv]).for_each(|(a, v)| *a += w * v);
            }
            let factor = if sum > 0.0 { 1.0 / sum } else { 0.0 };
            // SAFETY: this runs on one thread only.
            unsafe {
                scaled_row(s, acc, factor, out.row(b, t, h, dv));
                let at = (b * shape.hq + h) * shape.tq + t;
                lse.slice(at, 1)[0] = if sum > 0.0 { m + sum.ln() } else { f32::NEG_INFINITY };
            }
        }
    }
}
