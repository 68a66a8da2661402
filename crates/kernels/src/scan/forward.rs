//! The forward scan.

use super::{CHUNK_STEPS, ScanInputs, ScanShape, from_lanes, load_steps, to_lanes};
use crate::isa::{Isa, simd_fn};
use crate::pool::{self, SharedMut};
use crate::vecmath::{ld, math, st};

/// Scratch of [`channels`].
pub(super) fn buffer_len(lanes: usize, n: usize) -> usize {
    lanes * (2 * n + 2 * CHUNK_STEPS)
}

simd_fn! {
    /// Runs one vector of channels of one batch row through all steps; `h` is its last state, [w, n].
    pub(super) fn channels<S>(
        s: S, shape: ScanShape, x: &ScanInputs<'_>, bi: usize, c0: usize, buf: &mut [f32], y: &SharedMut<'_, f32>,
        h: &mut [f32]
    ) {
        let ScanShape { t, c, n, .. } = shape;
        let (l, w) = (S::LANES, S::LANES.min(c - c0));
        let (a, rest) = buf.split_at_mut(n * l);
        let (state, rest) = rest.split_at_mut(n * l);
        let (dt, rest) = rest.split_at_mut(CHUNK_STEPS * l);
        let u = &mut rest[..CHUNK_STEPS * l];
        to_lanes(s, x.a, c0, w, n, a);
        a.iter_mut().for_each(|v| *v *= std::f32::consts::LOG2_E);
        match x.h0 {
            Some(h0) => to_lanes(s, h0, bi * c + c0, w, n, state),
            None => state.fill(0.0),
        }
        let d = match x.d {
            Some(d) => ld(s, &d[c0..c0 + w]),
            None => s.zero(),
        };
        for t0 in (0..t).step_by(CHUNK_STEPS) {
            let steps = CHUNK_STEPS.min(t - t0);
            let at = (bi * t + t0) * c + c0;
            load_steps(s, &x.delta[at..], c, w, steps, dt);
            load_steps(s, &x.u[at..], c, w, steps, u);
            for i in 0..steps {
                let row = (bi * t + t0 + i) * n;
                let (bm, cm) = (&x.b[row..row + n], &x.c[row..row + n]);
                let (dt, u) = (s.load(&dt[i * l..]), s.load(&u[i * l..]));
                let du = s.mul(dt, u);
                let mut out = s.mul(d, u);
                for (((a, h), &b), &c) in a.chunks_exact(l).zip(state.chunks_exact_mut(l)).zip(bm).zip(cm) {
                    let decay = math::exp2_fast(s, s.mul(dt, s.load(a)));
                    let v = s.mul_add(decay, s.load(h), s.mul(du, s.splat(b)));
                    s.store(v, h);
                    out = s.mul_add(s.splat(c), v, out);
                }
                // SAFETY: no other task has these channels of this batch row.
                st(s, out, unsafe { y.slice(at + i * c, w) });
            }
        }
        from_lanes(s, state, n, h);
    }

    /// One step of the channels from `c0` on, as many as `y` has, with states in the lanes.
    fn step<S>(s: S, shape: ScanShape, x: &ScanInputs<'_>, bi: usize, c0: usize, y: &mut [f32], h: &mut [f32]) {
        let ScanShape { c, n, .. } = shape;
        let (bm, cm) = (&x.b[bi * n..(bi + 1) * n], &x.c[bi * n..(bi + 1) * n]);
        for (k, y) in y.iter_mut().enumerate() {
            let ch = c0 + k;
            let at = bi * c + ch;
            let (dt, u) = (x.delta[at], x.u[at]);
            let (scale, du) = (s.splat(dt * std::f32::consts::LOG2_E), s.splat(dt * u));
            let a = &x.a[ch * n..(ch + 1) * n];
            let h = &mut h[k * n..(k + 1) * n];
            if let Some(h0) = x.h0 {
                h.copy_from_slice(&h0[at * n..(at + 1) * n]);
            } else {
                h.fill(0.0);
            }
            let mut out = s.zero();
            for (((a, h), b), c) in a.chunks(S::LANES).zip(h.chunks_mut(S::LANES)).zip(bm.chunks(S::LANES)).zip(cm.chunks(S::LANES)) {
                let decay = math::exp2_fast(s, s.mul(scale, ld(s, a)));
                let v = s.mul_add(decay, ld(s, h), s.mul(du, ld(s, b)));
                st(s, v, h);
                out = s.mul_add(ld(s, c), v, out);
            }
            let skip = x.d.map_or(0.0, |d| d[ch] * u);
            *y = s.sum(out) + skip;
        }
    }
}

/// A scan of one step: y[b, c], h_last[b, c, n].
pub(super) fn single_step(isa: Isa, shape: ScanShape, x: &ScanInputs, y: &mut [f32], h_last: &mut [f32]) {
    let ScanShape { b, c, n, .. } = shape;
    const PER: usize = 256;
    let pieces = c.div_ceil(PER);
    let (y, h) = (SharedMut::new(y), SharedMut::new(h_last));
    let task = |i: usize| {
        let (bi, c0) = (i / pieces, i % pieces * PER);
        let w = PER.min(c - c0);
        // SAFETY: the tasks' channels do not overlap.
        let (y, h) = unsafe { (y.slice(bi * c + c0, w), h.slice((bi * c + c0) * n, w * n)) };
        step(isa, shape, x, bi, c0, y, h)
    };
    if b * c * n < 64 * 1024 {
        (0..b * pieces).for_each(task);
    } else {
        pool::parallel(b * pieces, &task);
    }
}
