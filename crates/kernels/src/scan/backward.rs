//! The gradients of the scan.
//!
//! With g_t = ∂L/∂h_t and a_t = e^(Δ_t·A): g_t = C_t·dy_t + a_{t+1}·g_{t+1}, and
//! dC_t = Σ_c dy_t·h_t, dB_t = Σ_c g_t·Δ_t·u_t, du_t = Δ_t·Σ_n g_t·B_t + D·dy_t,
//! dΔ_t = Σ_n g_t·(A·a_t·h_{t−1} + B_t·u_t), dA = Σ_t g_t·a_t·h_{t−1}·Δ_t, dD = Σ_t dy_t·u_t.

use super::{CHUNK_STEPS, ScanInputs, ScanShape, from_lanes, load_steps, to_lanes};
use crate::isa::simd_fn;
use crate::pool::SharedMut;
use crate::vecmath::{ld, math, st};

/// Where the tasks write. `u`, `delta`, `h0` as in the scan; the others hold a part for each batch row or group.
pub(super) struct Outputs<'a> {
    pub u: SharedMut<'a, f32>,
    pub delta: SharedMut<'a, f32>,
    /// [b, c, n]
    pub a: SharedMut<'a, f32>,
    /// [groups, b, t, n]
    pub b: SharedMut<'a, f32>,
    /// [groups, b, t, n]
    pub c: SharedMut<'a, f32>,
    /// [b, c]
    pub d: SharedMut<'a, f32>,
    pub h0: Option<SharedMut<'a, f32>>,
}

/// A task: channels `first..last` of one batch row.
#[derive(Clone, Copy)]
pub(super) struct Channels {
    pub batch: usize,
    pub first: usize,
    pub last: usize,
    pub group: usize,
}

const K: usize = CHUNK_STEPS;

/// Scratch of [`channels`].
pub(super) fn buffer_len(lanes: usize, n: usize, t: usize, blocks: usize) -> usize {
    let state = n * lanes;
    let shared = (4 * K + 1) * state + 3 * K * lanes;
    let block = (4 + t.div_ceil(K)) * state + lanes;
    shared + blocks * block
}

simd_fn! {
    pub(super) fn channels<S>(
        s: S, shape: ScanShape, x: &ScanInputs<'_>, dy: &[f32], dh_last: Option<&[f32]>, task: Channels,
        buf: &mut [f32], out: &Outputs<'_>
    ) {
        let ScanShape { b, t, c, n } = shape;
        let Channels { batch: bi, first, last, group } = task;
        let (l, state) = (S::LANES, n * S::LANES);
        let chunks = t.div_ceil(K);
        let (hs, rest) = buf.split_at_mut((K + 1) * state);
        let (decays, rest) = rest.split_at_mut(K * state);
        let (db, rest) = rest.split_at_mut(K * state);
        let (dc, rest) = rest.split_at_mut(K * state);
        let (dts, rest) = rest.split_at_mut(K * l);
        let (us, rest) = rest.split_at_mut(K * l);
        let (dys, rest) = rest.split_at_mut(K * l);
        let per_block = (4 + chunks) * state + l;

        // First forward, keeping the state at the start of every chunk.
        for (k, block) in rest.chunks_exact_mut(per_block.max(1)).enumerate() {
            let c0 = first + k * l;
            if c0 >= last {
                break;
            }
            let w = l.min(last - c0);
            let (a, block) = block.split_at_mut(state);
            let (a2, block) = block.split_at_mut(state);
            let (carry, block) = block.split_at_mut(state);
            let (da, block) = block.split_at_mut(state);
            let (dd, starts) = block.split_at_mut(l);
            da.fill(0.0);
            dd.fill(0.0);
            to_lanes(s, x.a, c0, w, n, a);
            for (a2, a) in a2.iter_mut().zip(&*a) {
                *a2 = a * std::f32::consts::LOG2_E;
            }
            match dh_last {
                Some(g) => to_lanes(s, g, bi * c + c0, w, n, carry),
                None => carry.fill(0.0),
            }
            if chunks == 0 {
                continue;
            }
            match x.h0 {
                Some(h0) => to_lanes(s, h0, bi * c + c0, w, n, &mut starts[..state]),
                None => starts[..state].fill(0.0),
            }
            for chunk in 0..chunks - 1 {
                let at = (bi * t + chunk * K) * c + c0;
                load_steps(s, &x.delta[at..], c, w, K, dts);
                load_steps(s, &x.u[at..], c, w, K, us);
                hs[..state].copy_from_slice(&starts[chunk * state..(chunk + 1) * state]);
                for i in 0..K {
                    let row = (bi * t + chunk * K + i) * n;
                    let bm = &x.b[row..row + n];
                    let dt = s.load(&dts[i * l..]);
                    let du = s.mul(dt, s.load(&us[i * l..]));
                    for ((a, h), &b) in a2.chunks_exact(l).zip(hs[..state].chunks_exact_mut(l)).zip(bm) {
                        let decay = math::exp2_fast(s, s.mul(dt, s.load(a)));
                        s.store(s.mul_add(decay, s.load(h), s.mul(du, s.splat(b))), h);
                    }
                }
                starts[(chunk + 1) * state..(chunk + 2) * state].copy_from_slice(&hs[..state]);
            }
        }

        // Then chunk by chunk backward.
        for chunk in (0..chunks).rev() {
            let t0 = chunk * K;
            let steps = K.min(t - t0);
            db[..steps * state].fill(0.0);
            dc[..steps * state].fill(0.0);
            for (k, block) in rest.chunks_exact_mut(per_block.max(1)).enumerate() {
                let c0 = first + k * l;
                if c0 >= last {
                    break;
                }
                let w = l.min(last - c0);
                let (a, block) = block.split_at_mut(state);
                let (a2, block) = block.split_at_mut(state);
                let (carry, block) = block.split_at_mut(state);
                let (da, block) = block.split_at_mut(state);
                let (dd, starts) = block.split_at_mut(l);
                let at = (bi * t + t0) * c + c0;
                load_steps(s, &x.delta[at..], c, w, steps, dts);
                load_steps(s, &x.u[at..], c, w, steps, us);
                load_steps(s, &dy[at..], c, w, steps, dys);

                hs[..state].copy_from_slice(&starts[chunk * state..(chunk + 1) * state]);
                for i in 0..steps {
                    let row = (bi * t + t0 + i) * n;
                    let bm = &x.b[row..row + n];
                    let dt = s.load(&dts[i * l..]);
                    let du = s.mul(dt, s.load(&us[i * l..]));
                    let (before, after) = hs[i * state..(i + 2) * state].split_at_mut(state);
                    let after = &mut after[..state];
                    let dec = &mut decays[i * state..(i + 1) * state];
                    let dc = &mut dc[i * state..(i + 1) * state];
                    let g = s.load(&dys[i * l..]);
                    // The sums for C are taken here, where arithmetic leaves room for memory; below it is the reverse.
                    for j in 0..n {
                        let r = j * l;
                        // SAFETY: r + LANES ≤ n·LANES = state, the length of each of these slices; j < n.
                        unsafe {
                            let decay = math::exp2_fast(s, s.mul(dt, s.load_ptr(a2.as_ptr().add(r))));
                            s.store_ptr(decay, dec.as_mut_ptr().add(r));
                            let input = s.mul(du, s.splat(*bm.get_unchecked(j)));
                            let h = s.mul_add(decay, s.load_ptr(before.as_ptr().add(r)), input);
                            s.store_ptr(h, after.as_mut_ptr().add(r));
                            let dcv = s.mul_add(g, h, s.load_ptr(dc.as_ptr().add(r)));
                            s.store_ptr(dcv, dc.as_mut_ptr().add(r));
                        }
                    }
                }

                let d = match x.d {
                    Some(d) => ld(s, &d[c0..c0 + w]),
                    None => s.zero(),
                };
                let mut dd_sum = s.load(dd);
                for i in (0..steps).rev() {
                    let row = (bi * t + t0 + i) * n;
                    let (bm, cm) = (&x.b[row..row + n], &x.c[row..row + n]);
                    let (dt, u, g) = (s.load(&dts[i * l..]), s.load(&us[i * l..]), s.load(&dys[i * l..]));
                    let du = s.mul(dt, u);
                    let (mut sum_b, mut sum_a) = (s.zero(), s.zero());
                    let before = &hs[i * state..(i + 1) * state];
                    let dec = &decays[i * state..(i + 1) * state];
                    let db = &mut db[i * state..(i + 1) * state];
                    for j in 0..n {
                        let r = j * l;
                        // SAFETY: r + LANES ≤ n·LANES = state, the length of each of these slices; j < n.
                        unsafe {
                            let gh = s.mul_add(g, s.splat(*cm.get_unchecked(j)), s.load_ptr(carry.as_ptr().add(r)));
                            let dbv = s.mul_add(gh, du, s.load_ptr(db.as_ptr().add(r)));
                            s.store_ptr(dbv, db.as_mut_ptr().add(r));
                            sum_b = s.mul_add(gh, s.splat(*bm.get_unchecked(j)), sum_b);
                            let back = s.mul(gh, s.load_ptr(dec.as_ptr().add(r)));
                            s.store_ptr(back, carry.as_mut_ptr().add(r));
                            let e = s.mul(back, s.load_ptr(before.as_ptr().add(r)));
                            sum_a = s.mul_add(e, s.load_ptr(a.as_ptr().add(r)), sum_a);
                            let dav = s.mul_add(e, dt, s.load_ptr(da.as_ptr().add(r)));
                            s.store_ptr(dav, da.as_mut_ptr().add(r));
                        }
                    }
                    let ddelta = s.mul_add(sum_b, u, sum_a);
                    let du = s.mul_add(sum_b, dt, s.mul(g, d));
                    dd_sum = s.mul_add(g, u, dd_sum);
                    // SAFETY: no other task has these channels of this batch row.
                    unsafe {
                        st(s, ddelta, out.delta.slice(at + i * c, w));
                        st(s, du, out.u.slice(at + i * c, w));
                    }
                }
                s.store(dd_sum, dd);
            }
            let part = ((group * b + bi) * t + t0) * n;
            // SAFETY: each task has its own part, by its group and batch row.
            let (pb, pc) = unsafe { (out.b.slice(part, steps * n), out.c.slice(part, steps * n)) };
            for (p, v) in pb.iter_mut().zip(db.chunks_exact(l)) {
                *p = s.sum(s.load(v));
            }
            for (p, v) in pc.iter_mut().zip(dc.chunks_exact(l)) {
                *p = s.sum(s.load(v));
            }
        }

        for (k, block) in rest.chunks_exact(per_block.max(1)).enumerate() {
            let c0 = first + k * l;
            if c0 >= last {
                break;
            }
            let w = l.min(last - c0);
            let at = (bi * c + c0) * n;
            // SAFETY: no other task has these channels of this batch row.
            unsafe {
                from_lanes(s, &block[3 * state..4 * state], n, out.a.slice(at, w * n));
                out.d.slice(bi * c + c0, w).copy_from_slice(&block[4 * state..4 * state + w]);
                if let Some(h0) = &out.h0 {
                    from_lanes(s, &block[2 * state..3 * state], n, h0.slice(at, w * n));
                }
            }
        }
    }
}
