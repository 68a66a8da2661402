//! The gradients, with the probabilities computed again from the saved logarithms of their sums.
//!
//! With P the probabilities and dP = dout·vᵀ: dv = Pᵀ·dout, dS = P∘(dP − Σ dout∘out)·(1 − (S/cap)²), dq = scale·dS·k,
//! dk = scale·dSᵀ·q.

use super::tile::{self, Left};
use super::{
    AttentionOpts, AttentionResult, AttentionShape, COUNTING, Heads, KEYS, Mask, SharedHeads, block_vectors, row_dot,
    soft_cap, transpose, visible,
};
use crate::isa::{Isa, simd_fn};
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};
use crate::vecmath::math;

/// What went into the forward pass.
pub(super) struct Inputs<'a> {
    pub shape: AttentionShape,
    pub opts: AttentionOpts,
    pub q: Heads<'a>,
    pub k: Heads<'a>,
    pub v: Heads<'a>,
}

/// A task: the queries of some blocks, of all heads that share a key-value head.
#[derive(Clone, Copy)]
struct Share {
    b: usize,
    kv: usize,
    /// This share takes blocks `index`, `index + of`, …
    index: usize,
    of: usize,
    /// Queries of a block.
    block: usize,
}

pub(super) fn attention(
    isa: Isa,
    x: &Inputs,
    result: &AttentionResult,
    dq: &SharedHeads,
    dk: &SharedHeads,
    dv: &SharedHeads,
) {
    let s = x.shape;
    if s.b * s.hkv == 0 {
        return;
    }
    let lanes = isa.lanes();
    let block = lanes * block_vectors(lanes, s.tq);
    let blocks = s.tq.div_ceil(block);
    // At least 8 tasks where there are blocks enough; shares of one head add up their dk and dv afterwards.
    let of = 8usize.div_ceil(s.b * s.hkv).min(blocks.max(1));
    let part = s.tk * (s.d + s.dv);
    let mut partial = vec![0f32; if of > 1 { s.b * s.hkv * of * part } else { 0 }];
    let shared = SharedMut::new(&mut partial);
    let task = |i: usize| {
        let share = Share { b: i / of / s.hkv, kv: i / of % s.hkv, index: i % of, of, block };
        let scratch = 2 * block * (s.d + s.dv) + 2 * KEYS * block + 2 * block;
        let own = if of > 1 { 0 } else { part };
        with_buffer(Slot::Fused, scratch + own, |buf| {
            let (own, buf) = buf.split_at_mut(own);
            own.fill(0.0);
            if of > 1 {
                // SAFETY: each task has its own part.
                queries(isa, x, result, share, buf, unsafe { shared.slice(i * part, part) }, dq);
            } else {
                queries(isa, x, result, share, buf, own, dq);
                write(x, share.b, share.kv, own, 1, dk, dv);
            }
        });
    };
    if s.work() < 128 * 1024 {
        (0..s.b * s.hkv * of).for_each(task);
    } else {
        pool::parallel(s.b * s.hkv * of, &task);
    }
    if of > 1 {
        pool::parallel(s.b * s.hkv, &|i| {
            write(x, i / s.hkv, i % s.hkv, &partial[i * of * part..(i + 1) * of * part], of, dk, dv)
        });
    }
}

/// Writes the sum of `of` parts [tk, d] + [tk, dv] into dk and dv.
fn write(x: &Inputs, b: usize, kv: usize, parts: &[f32], of: usize, dk: &SharedHeads, dv: &SharedHeads) {
    let s = x.shape;
    let part = s.tk * (s.d + s.dv);
    for t in 0..s.tk {
        // SAFETY: one task writes the rows of one key-value head.
        let rows = unsafe { [(dk.row(b, t, kv, s.d), t * s.d), (dv.row(b, t, kv, s.dv), s.tk * s.d + t * s.dv)] };
        for (row, at) in rows {
            row.copy_from_slice(&parts[at..at + row.len()]);
            for i in 1..of {
                let at = i * part + at;
                row.iter_mut().zip(&parts[at..]).for_each(|(r, p)| *r += p);
            }
        }
    }
}

simd_fn! {
    fn queries<S>(
        s: S, x: &Inputs<'_>, result: &AttentionResult<'_>, share: Share, buf: &mut [f32], part: &mut [f32],
        dq: &SharedHeads<'_>
    ) {
        let shape = x.shape;
        let (l, d, dv, tk) = (S::LANES, shape.d, shape.dv, shape.tk);
        let Share { b, kv, block, .. } = share;
        let group = shape.hq / shape.hkv;
        let (dk_part, dv_part) = part.split_at_mut(tk * d);
        let (qt, buf) = buf.split_at_mut(d * block);
        let (gt, buf) = buf.split_at_mut(dv * block);
        let (acc, buf) = buf.split_at_mut(block * d);
        let (p, buf) = buf.split_at_mut(KEYS * block);
        let (dp, buf) = buf.split_at_mut(KEYS * block);
        let (lse, delta) = buf.split_at_mut(block);
        for h in kv * group..(kv + 1) * group {
            for q0 in (share.index * block..shape.tq).step_by(share.of * block) {
                let rows = block.min(shape.tq - q0);
                let (q, g, o) = (x.q.from(b, q0, h), result.dout.from(b, q0, h), result.out.from(b, q0, h));
                transpose(q, x.q.ts, rows, d, x.opts.scale, block, qt);
                transpose(g, result.dout.ts, rows, dv, 1.0, block, gt);
                acc[..block * d].fill(0.0);
                // Queries that do not exist, or see nothing, get probability 0 from a logarithm of +∞.
                lse[..block].fill(f32::INFINITY);
                delta[..block].fill(0.0);
                for i in 0..rows {
                    let v = result.lse[(b * shape.hq + h) * shape.tq + q0 + i];
                    if v != f32::NEG_INFINITY {
                        lse[i] = v;
                    }
                    let (g, o) = (&g[i * result.dout.ts..], &o[i * result.out.ts..]);
                    delta[i] = row_dot(s, &g[..dv], &o[..dv]);
                }
                let (p0, p1) = (x.opts.q_start + q0, x.opts.q_start + q0 + rows - 1);
                let (lo, hi) = (visible(&x.opts, p0, tk).0, visible(&x.opts, p1, tk).1);
                let mut j0 = lo / KEYS * KEYS;
                while j0 < hi {
                    let keys = KEYS.min(hi - j0);
                    let (k, v) = (x.k.from(b, j0, kv), x.v.from(b, j0, kv));
                    tile::multiply(S::ISA, keys, block, d, Left { data: k, rs: x.k.ts, cs: 1 }, qt, block, p, block, false);
                    tile::multiply(S::ISA, keys, block, dv, Left { data: v, rs: x.v.ts, cs: 1 }, gt, block, dp, block, false);
                    let mask = Mask::new(&x.opts, p0, p1, j0, keys);
                    let scale = s.splat(x.opts.scale);
                    for i in (0..block).step_by(l) {
                        let query = s.load(&COUNTING[i..]);
                        let (lse, delta) = (s.load(&lse[i..]), s.load(&delta[i..]));
                        for j in 0..keys {
                            let at = j * block + i;
                            let mut score = s.load(&p[at..]);
                            let mut slope = scale;
                            if let Some(cap) = x.opts.softcap {
                                score = soft_cap(s, score, cap);
                                let t = s.mul(score, s.splat(1.0 / cap));
                                slope = s.mul(slope, s.neg_mul_add(t, t, s.splat(1.0)));
                            }
                            if let Some(mask) = &mask {
                                score = mask.apply(s, score, j, query);
                            }
                            let prob = math::exp_fast(s, s.sub(score, lse));
                            let ds = s.mul(s.mul(prob, slope), s.sub(s.load(&dp[at..]), delta));
                            s.store(prob, &mut p[at..]);
                            s.store(ds, &mut dp[at..]);
                        }
                    }
                    let by_key = |data| Left { data, rs: block, cs: 1 };
                    let dv_rows = &mut dv_part[j0 * dv..];
                    tile::multiply(S::ISA, keys, dv, rows, by_key(p), g, result.dout.ts, dv_rows, dv, true);
                    let dk_rows = &mut dk_part[j0 * d..];
                    tile::multiply(S::ISA, keys, d, rows, by_key(dp), q, x.q.ts, dk_rows, d, true);
                    tile::multiply(S::ISA, rows, d, keys, Left { data: dp, rs: 1, cs: block }, k, x.k.ts, acc, d, true);
                    j0 += keys;
                }
                for i in 0..rows {
                    // SAFETY: no other task has these queries.
                    unsafe { dq.row(b, q0 + i, h, d) }.copy_from_slice(&acc[i * d..(i + 1) * d]);
                }
            }
        }
    }
}
