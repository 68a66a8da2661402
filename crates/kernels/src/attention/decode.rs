//! The path for few queries: one pass over keys and values, in the format they have, for all queries that share them.

use super::rows::{BLOCK, Element, Run, with_element};
use super::{Inputs, KEYS, SPLIT, SharedHeads, scaled_row, soft_cap, visible};
use crate::isa::{Isa, Simd, simd_fn};
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};
use crate::simd::prefetch;
use crate::softmax::finite_max;
use crate::vecmath::{math, st};

/// How far ahead of the row in hand memory is asked for: enough for the latency, little enough for L1.
const AHEAD: usize = 4096;

/// One run of keys of one key-value head.
#[derive(Clone, Copy)]
struct Task {
    b: usize,
    kv: usize,
    /// Keys `start..end`, of which the queries together see `first..last`.
    first: usize,
    last: usize,
}

/// Sizes of the rows in whole vectors.
#[derive(Clone, Copy)]
struct Widths {
    /// Queries that share a key-value head.
    rows: usize,
    /// Elements of a key.
    k: usize,
    /// Elements of a value.
    v: usize,
}

impl Widths {
    /// Floats that a task leaves: for each row the unnormalised output, the maximum and the sum.
    fn part(&self) -> usize {
        self.rows * (self.v + 2)
    }

    /// Floats that a task works with: queries, scores and weights, scales, and blocks of keys and values of odd lengths.
    fn scratch(&self) -> usize {
        self.rows * (self.k + 2 * KEYS) + KEYS * (self.k + self.v) + 2 * KEYS * (self.k.max(self.v).div_ceil(BLOCK))
    }
}

pub(super) fn attention(isa: Isa, x: &Inputs, out: &SharedHeads, lse: &SharedMut<f32>) {
    let s = x.shape;
    let lanes = isa.lanes();
    let widths =
        Widths { rows: s.tq * (s.hq / s.hkv), k: s.d.next_multiple_of(lanes), v: s.dv.next_multiple_of(lanes) };
    let first = visible(&x.opts, x.opts.q_start, s.tk).0;
    let last = visible(&x.opts, x.opts.q_start + s.tq.max(1) - 1, s.tk).1.max(first);
    // Runs of keys begin at multiples of SPLIT, so that the order of a query's sums is its own.
    let (split0, splits) = (first / SPLIT, last.div_ceil(SPLIT).saturating_sub(first / SPLIT).max(1));
    let part = widths.part();
    with_buffer(Slot::Rows, s.b * s.hkv * splits * part, |partial| {
        let shared = SharedMut::new(&mut *partial);
        let task = |i: usize| {
            // SAFETY: each task has its own part.
            let part = unsafe { shared.slice(i * part, part) };
            let start = (split0 + i % splits) * SPLIT;
            let task = Task {
                b: i / splits / s.hkv,
                kv: i / splits % s.hkv,
                first: first.max(start),
                last: last.min(start + SPLIT),
            };
            with_buffer(Slot::Fused, widths.scratch(), |buf| run(isa, x, task, widths, isa, buf, part));
        };
        let tasks = s.b * s.hkv * splits;
        if s.work() < 256 * 1024 {
            (0..tasks).for_each(task);
        } else {
            pool::parallel(tasks, &task);
        }
        for i in 0..s.b * s.hkv {
            let parts = &mut partial[i * splits * part..(i + 1) * splits * part];
            join(isa, x, i / s.hkv, i % s.hkv, widths, parts, out, lse);
        }
    });
}

/// Row r of a key-value head's queries as (step, head).
#[inline(always)]
fn query_of(x: &Inputs, kv: usize, r: usize) -> (usize, usize) {
    let group = x.shape.hq / x.shape.hkv;
    (r / group, kv * group + r % group)
}

simd_fn! {
    /// One run of keys for all rows of one key-value head. `part` receives, for each row, the unnormalised output, the
    /// maximum and the sum. `usable` is the set that was asked for, which may have more than the token tells.
    fn run<S>(s: S, x: &Inputs<'_>, task: Task, w: Widths, usable: Isa, buf: &mut [f32], part: &mut [f32]) {
        let shape = x.shape;
        let (d, dv) = (shape.d, shape.dv);
        let Task { b, kv, first, last } = task;
        let (acc, ends) = part.split_at_mut(w.rows * w.v);
        let (max, sum) = ends.split_at_mut(w.rows);
        acc.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        let (q, buf) = buf.split_at_mut(w.rows * w.k);
        let (scores, buf) = buf.split_at_mut(w.rows * KEYS);
        let (weights, buf) = buf.split_at_mut(w.rows * KEYS);
        let (k_buf, buf) = buf.split_at_mut(KEYS * w.k);
        let (v_buf, buf) = buf.split_at_mut(KEYS * w.v);
        let (k_scales, v_scales) = buf.split_at_mut(buf.len() / 2);
        for (r, row) in q.chunks_exact_mut(w.k.max(1)).enumerate() {
            let (t, h) = query_of(x, kv, r);
            row[..d].copy_from_slice(&x.q.from(b, t, h)[..d]);
            row[d..].fill(0.0);
        }
        #[cfg(target_arch = "x86_64")]
        let bytes = super::bytes::Queries::new(usable, x.k.kind(), q, w.k);
        #[cfg(not(target_arch = "x86_64"))]
        let _ = usable;
        let mut j0 = first / KEYS * KEYS;
        while j0 < last {
            let keys = KEYS.min(last - j0);
            let at = [b, j0, kv];
            let k = if w.k == d { x.k.run(at, keys, d) } else { x.k.padded(at, keys, d, w.k, k_buf) };
            let v = if w.v == dv { x.v.run(at, keys, dv) } else { x.v.padded(at, keys, dv, w.v, v_buf) };
            k.scales(s, k_scales, KEYS);
            v.scales(s, v_scales, KEYS);
            #[cfg(target_arch = "x86_64")]
            match &bytes {
                Some(bytes) => bytes.scores(&k, k_scales, scores),
                None => all_scores(s, &k, q, k_scales, scores),
            }
            #[cfg(not(target_arch = "x86_64"))]
            all_scores(s, &k, q, k_scales, scores);
            for r in 0..w.rows {
                let (t, _) = query_of(x, kv, r);
                let (lo, hi) = visible(&x.opts, x.opts.q_start + t, shape.tk);
                let (lo, hi) = (lo.clamp(j0, j0 + keys) - j0, hi.clamp(j0, j0 + keys) - j0);
                let row = &mut scores[r * KEYS..(r + 1) * KEYS];
                let factor = softmax(s, x, row, lo, hi, &mut max[r], &mut sum[r]);
                if factor != 1.0 {
                    for v in &mut acc[r * w.v..(r + 1) * w.v] {
                        *v *= factor;
                    }
                }
            }
            with_element!(v.kind, E => all_values::<S, E>(s, &v, scores, v_scales, weights, acc));
            j0 += keys;
        }
    }

    /// Joins the runs of one key-value head, in their order.
    fn join<S>(
        s: S, x: &Inputs<'_>, b: usize, kv: usize, w: Widths, parts: &mut [f32], out: &SharedHeads<'_>,
        lse: &SharedMut<'_, f32>
    ) {
        let shape = x.shape;
        let Widths { rows, v: dv, .. } = w;
        for r in 0..rows {
            let (t, h) = query_of(x, kv, r);
            let sink = x.sink(h);
            let m = parts.chunks_exact(w.part()).map(|p| p[rows * dv + r]).fold(sink, f32::max);
            let used = finite_max(m);
            let (first, others) = parts.split_at_mut(w.part());
            let weight = |p: &[f32]| (p[rows * dv + r] - used).exp();
            let factor = weight(first);
            let mut sum = first[rows * dv + rows + r] * factor;
            let acc = &mut first[r * dv..(r + 1) * dv];
            if factor != 1.0 {
                acc.iter_mut().for_each(|v| *v *= factor);
            }
            for p in others.chunks_exact(w.part()) {
                let factor = weight(p);
                sum += p[rows * dv + rows + r] * factor;
                acc.iter_mut().zip(&p[r * dv..(r + 1) * dv]).for_each(|(a, v)| *a += factor * v);
            }
            if sink != f32::NEG_INFINITY {
                sum += (sink - used).exp();
            }
            let factor = if sum > 0.0 { 1.0 / sum } else { 0.0 };
            // SAFETY: this runs on one thread only.
            unsafe {
                scaled_row(s, &acc[..shape.dv], factor, out.row(b, t, h, shape.dv));
                let at = (b * shape.hq + h) * shape.tq + t;
                lse.slice(at, 1)[0] = if sum > 0.0 { m + sum.ln() } else { f32::NEG_INFINITY };
            }
        }
    }
}

/// Turns the products of one query with a block of keys, of which it sees `lo..hi`, into unnormalised probabilities
/// against the maximum so far. Returns the factor for what was summed before.
#[inline(always)]
fn softmax<S: Simd>(s: S, x: &Inputs, scores: &mut [f32], lo: usize, hi: usize, max: &mut f32, sum: &mut f32) -> f32 {
    let scale = s.splat(x.opts.scale);
    for c in scores.chunks_exact_mut(S::LANES) {
        let mut v = s.mul(scale, s.load(c));
        if let Some(cap) = x.opts.softcap {
            v = soft_cap(s, v, cap);
        }
        s.store(v, c);
    }
    scores[..lo].fill(f32::NEG_INFINITY);
    scores[hi.max(lo)..].fill(f32::NEG_INFINITY);
    let mut m = s.splat(f32::NEG_INFINITY);
    for c in scores.chunks_exact(S::LANES) {
        m = s.max(s.load(c), m);
    }
    let new = s.max_lane(m).max(*max);
    let used = finite_max(new);
    let mut factor = [0.0f32; 16];
    st(s, math::exp_fast(s, s.splat(*max - used)), &mut factor[..S::LANES]);
    let mut total = s.zero();
    for c in scores.chunks_exact_mut(S::LANES) {
        let p = math::exp_fast(s, s.sub(s.load(c), s.splat(used)));
        s.store(p, c);
        total = s.add(total, p);
    }
    *sum = s.fma(*sum, factor[0], s.sum(total));
    *max = new;
    factor[0]
}

/// Calls `$f::<…, ROWS…>(…, r, …)` for all rows in groups as large as the registers allow.
macro_rules! by_rows {
    ($S:ident, $rows:expr, $r:ident => |$n:ident| $call:expr) => {
        let mut $r = 0;
        while $r < $rows {
            let left = $rows - $r;
            if left >= 4 && $S::LANES == 16 {
                const $n: usize = 4;
                $call;
                $r += $n;
            } else if left >= 2 {
                const $n: usize = 2;
                $call;
                $r += $n;
            } else {
                const $n: usize = 1;
                $call;
                $r += $n;
            }
        }
    };
}

/// The products of all queries with a block of keys: that of query r and key j goes to `scores[r·KEYS + j]`. What lies
/// beyond the last key has no meaning.
#[inline(always)]
fn all_scores<S: Simd>(s: S, k: &Run, q: &[f32], scales: &[f32], scores: &mut [f32]) {
    let rows = scores.len() / KEYS;
    assert!(q.len() == rows * k.dim && k.dim.is_multiple_of(S::LANES) && k.rows <= KEYS);
    with_element!(k.kind, E => {
        assert!(!E::SCALED || scales.len() >= k.dim / BLOCK * KEYS);
        for j in (0..k.rows).step_by(4) {
            ahead(k, j, 4);
            by_rows!(S, rows, r => |N| dots::<S, E, N>(s, k, &q[r * k.dim..], scales, j, &mut scores[r * KEYS + j..]));
        }
    });
}

/// Asks for the memory some way behind `n` rows from `j` on.
#[inline(always)]
pub(super) fn ahead(run: &Run, j: usize, n: usize) {
    let bytes = (n * run.stride).min(1024);
    for at in (0..bytes).step_by(64) {
        prefetch(run.row(j).wrapping_add(AHEAD + at).cast());
    }
}

/// The products of N queries with the four keys from `j` on. Each is a sum of vectors over the depth, then of the lanes.
#[inline(always)]
fn dots<S: Simd, E: Element, const N: usize>(s: S, k: &Run, q: &[f32], scales: &[f32], j: usize, scores: &mut [f32]) {
    let keys = [k.row(j), k.row(j + 1), k.row(j + 2), k.row(j + 3)];
    let mut acc = [[s.zero(); 4]; N];
    assert!(q.len() >= N * k.dim && scores.len() >= (N - 1) * KEYS + 4 && j + 4 <= KEYS);
    for e in (0..k.dim).step_by(S::LANES) {
        let mut x = [s.zero(); 4];
        for i in 0..4 {
            // SAFETY: whole vectors of rows that are there; the scales of a block are KEYS long (checked by the caller).
            unsafe {
                x[i] = E::load(s, keys[i], e);
                if E::SCALED {
                    x[i] = s.mul(x[i], s.splat(*scales.get_unchecked(e / BLOCK * KEYS + j + i)));
                }
            }
        }
        for (r, acc) in acc.iter_mut().enumerate() {
            // SAFETY: a whole vector of query r, which is there.
            let q = unsafe { s.load_ptr(q.as_ptr().add(r * k.dim + e)) };
            for i in 0..4 {
                acc[i] = s.mul_add(q, x[i], acc[i]);
            }
        }
    }
    for (r, acc) in acc.into_iter().enumerate() {
        scores[r * KEYS..r * KEYS + 4].copy_from_slice(&s.sum4(acc));
    }
}

/// acc[rows, dim] += scores·values. The scales of a block of values become part of the scores, in `weights`.
#[inline(always)]
fn all_values<S: Simd, E: Element>(
    s: S,
    v: &Run,
    scores: &[f32],
    scales: &[f32],
    weights: &mut [f32],
    acc: &mut [f32],
) {
    let rows = scores.len() / KEYS;
    assert!(acc.len() == rows * v.dim && v.dim.is_multiple_of(S::LANES) && v.rows <= KEYS);
    if E::SCALED {
        for e in (0..v.dim).step_by(BLOCK) {
            let scales = &scales[e / BLOCK * KEYS..][..KEYS];
            for (from, to) in scores.chunks_exact(KEYS).zip(weights.chunks_exact_mut(KEYS)) {
                for j in (0..KEYS).step_by(S::LANES) {
                    s.store(s.mul(s.load(&from[j..]), s.load(&scales[j..])), &mut to[j..]);
                }
            }
            if S::LANES == 16 {
                by_rows!(S, rows, r => |N| values::<S, E, N, 2>(s, v, &weights[r * KEYS..], e, &mut acc[r * v.dim..]));
            } else {
                by_rows!(S, rows, r => |N| values::<S, E, N, 4>(s, v, &weights[r * KEYS..], e, &mut acc[r * v.dim..]));
            }
        }
        return;
    }
    let mut e = 0;
    while e < v.dim {
        if v.dim - e >= 4 * S::LANES {
            by_rows!(S, rows, r => |N| values::<S, E, N, 4>(s, v, &scores[r * KEYS..], e, &mut acc[r * v.dim..]));
            e += 4 * S::LANES;
        } else {
            by_rows!(S, rows, r => |N| values::<S, E, N, 1>(s, v, &scores[r * KEYS..], e, &mut acc[r * v.dim..]));
            e += S::LANES;
        }
    }
}

/// M vectors from element `e` on of N rows of [`all_values`]; sums run in the order of the values.
#[inline(always)]
fn values<S: Simd, E: Element, const N: usize, const M: usize>(
    s: S,
    v: &Run,
    scores: &[f32],
    e: usize,
    acc: &mut [f32],
) {
    assert!(scores.len() >= N * KEYS && e + M * S::LANES <= v.dim && acc.len() >= N * v.dim);
    let mut sums = [[s.zero(); M]; N];
    for (r, sums) in sums.iter_mut().enumerate() {
        for (m, x) in sums.iter_mut().enumerate() {
            *x = s.load(&acc[r * v.dim + e + m * S::LANES..]);
        }
    }
    for j in 0..v.rows {
        let row = v.row(j);
        if j % 4 == 0 && e == 0 {
            ahead(v, j, 4);
        }
        for m in 0..M {
            let at = e + m * S::LANES;
            // SAFETY: whole vectors of rows that are there; the lengths are asserted, there are at most KEYS rows.
            unsafe {
                let x = E::load(s, row, at);
                for (r, sums) in sums.iter_mut().enumerate() {
                    sums[m] = s.mul_add(s.splat(*scores.get_unchecked(r * KEYS + j)), x, sums[m]);
                }
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (m, x) in sums.iter().enumerate() {
            s.store(*x, &mut acc[r * v.dim + e + m * S::LANES..]);
        }
    }
}
