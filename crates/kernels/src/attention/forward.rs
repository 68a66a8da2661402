//! The forward pass over blocks of queries and keys, with the softmax's maximum and sum carried along.

use super::tile::{self, Left};
use super::{COUNTING, Inputs, KEYS, Mask, SharedHeads, block_vectors, scaled_row, soft_cap, transpose, visible};
use crate::isa::{Isa, simd_fn};
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};
use crate::vecmath::math;

pub(super) fn attention(isa: Isa, x: &Inputs, out: &SharedHeads, lse: &SharedMut<f32>) {
    let s = x.shape;
    let lanes = isa.lanes();
    let block = lanes * block_vectors(lanes, s.tq);
    let blocks = s.tq.div_ceil(block);
    // The last blocks of a causal attention are the longest: they go first.
    let task = |i: usize| {
        let q0 = (blocks - 1 - i % blocks) * block;
        let (b, h) = (i / blocks / s.hq, i / blocks % s.hq);
        let len = s.d * block + KEYS * block + block * s.dv + 3 * block + KEYS * (s.d + s.dv);
        with_buffer(Slot::Fused, len, |buf| queries(isa, x, b, h, q0, block, buf, out, lse));
    };
    if s.work() < 256 * 1024 {
        (0..s.b * s.hq * blocks).for_each(task);
    } else {
        pool::parallel(s.b * s.hq * blocks, &task);
    }
}

simd_fn! {
    /// Queries q0.. of one head, at most `block` of them.
    fn queries<S>(
        s: S, x: &Inputs<'_>, b: usize, h: usize, q0: usize, block: usize, buf: &mut [f32], out: &SharedHeads<'_>,
        lse: &SharedMut<'_, f32>
    ) {
        let shape = x.shape;
        let (l, d, dv) = (S::LANES, shape.d, shape.dv);
        let rows = block.min(shape.tq - q0);
        let kv = h / (shape.hq / shape.hkv);
        let (qt, buf) = buf.split_at_mut(d * block);
        let (scores, buf) = buf.split_at_mut(KEYS * block);
        let (acc, buf) = buf.split_at_mut(block * dv);
        let (max, buf) = buf.split_at_mut(block);
        let (sum, buf) = buf.split_at_mut(block);
        let (fix, buf) = buf.split_at_mut(block);
        let (k_buf, v_buf) = buf.split_at_mut(KEYS * d);
        transpose(x.q.from(b, q0, h), x.q.ts, rows, d, x.opts.scale, block, qt);
        acc.fill(0.0);
        // A sink is a key that comes first and has the value 0.
        let sink = x.sink(h);
        max.fill(sink);
        sum.fill(if sink == f32::NEG_INFINITY { 0.0 } else { 1.0 });

        let (p0, p1) = (x.opts.q_start + q0, x.opts.q_start + q0 + rows - 1);
        let (lo, hi) = (visible(&x.opts, p0, shape.tk).0, visible(&x.opts, p1, shape.tk).1);
        // Blocks begin at multiples of their length, so that the order of a query's sums is its own.
        let mut j0 = lo / KEYS * KEYS;
        while j0 < hi {
            let keys = KEYS.min(hi - j0);
            let (k, k_stride) = x.k.floats(S::ISA, [b, j0, kv], keys, d, k_buf);
            let (v, v_stride) = x.v.floats(S::ISA, [b, j0, kv], keys, dv, v_buf);
            tile::multiply(S::ISA, keys, block, d, Left { data: k, rs: k_stride, cs: 1 }, qt, block, scores, block, false);
            let mask = Mask::new(&x.opts, p0, p1, j0, keys);
            for i in (0..block).step_by(l) {
                let query = s.load(&COUNTING[i..]);
                let before = s.load(&max[i..]);
                let mut m = before;
                for j in 0..keys {
                    let at = j * block + i;
                    let mut v = s.load(&scores[at..]);
                    if let Some(cap) = x.opts.softcap {
                        v = soft_cap(s, v, cap);
                    }
                    if let Some(mask) = &mask {
                        v = mask.apply(s, v, j, query);
                    }
                    s.store(v, &mut scores[at..]);
                    m = s.max(v, m);
                }
                // A query that has seen no key yet keeps −∞; 0 stands in for it below, where e^−∞ = 0 is wanted.
                s.store(m, &mut max[i..]);
                let m = s.select(s.eq(m, s.splat(f32::NEG_INFINITY)), s.zero(), m);
                let factor = math::exp_fast(s, s.sub(before, m));
                let mut total = s.mul(s.load(&sum[i..]), factor);
                s.store(factor, &mut fix[i..]);
                for j in 0..keys {
                    let at = j * block + i;
                    let p = math::exp_fast(s, s.sub(s.load(&scores[at..]), m));
                    s.store(p, &mut scores[at..]);
                    total = s.add(total, p);
                }
                s.store(total, &mut sum[i..]);
            }
            for (row, &factor) in acc.chunks_exact_mut(dv.max(1)).zip(&fix[..rows]) {
                if factor != 1.0 {
                    for v in row {
                        *v *= factor;
                    }
                }
            }
            tile::multiply(S::ISA, rows, dv, keys, Left { data: scores, rs: 1, cs: block }, v, v_stride, acc, dv, true);
            j0 += keys;
        }

        // SAFETY: no other task has these queries of this head.
        let lse = unsafe { lse.slice((b * shape.hq + h) * shape.tq + q0, rows) };
        for i in 0..rows {
            lse[i] = if sum[i] > 0.0 { max[i] + sum[i].ln() } else { f32::NEG_INFINITY };
            let factor = if sum[i] > 0.0 { 1.0 / sum[i] } else { 0.0 };
            // SAFETY: as above.
            scaled_row(s, &acc[i * dv..(i + 1) * dv], factor, unsafe { out.row(b, q0 + i, h, dv) });
        }
    }
}
