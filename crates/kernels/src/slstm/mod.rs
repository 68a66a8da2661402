//! The scalar memory of xLSTM (Beck et al. 2024, §2.2), step by step, and its gradients.
//!
//! A task owns a head of a batch row for all steps. Cells lie in the lanes of vectors; mixing multiplies a row of outputs with the
//! head's matrix, whose rows are read in order. The backward pass computes the states again and keeps them all.

#[cfg(test)]
mod tests;

use crate::isa::{Isa, Simd, isa, simd_fn};
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};
use crate::vecmath::{ld, math, same_len, st};

/// The sizes of [`slstm`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlstmShape {
    /// Batch.
    pub b: usize,
    /// Time steps.
    pub t: usize,
    /// Heads.
    pub h: usize,
    /// Cells of a head.
    pub d: usize,
}

/// What [`slstm`] reads.
#[derive(Clone, Copy, Debug)]
pub struct SlstmInputs<'a> {
    /// Inputs of the gates i, f, z, o, [b, t, h, 4, d].
    pub x: &'a [f32],
    /// What mixes outputs into the gates of the next step, [h, d, 4, d].
    pub r: &'a [f32],
    /// y, c, n, m before the first step, [b, 4, h, d]; zero if absent.
    pub s0: Option<&'a [f32]>,
}

/// Floats of a traced step: the gates' inputs, and c, n, m after it.
const TRACE: usize = 7;

/// Computes the outputs y[b, t, h, d] and the last state [b, 4, h, d] of
///
/// (i, f, z, o)_t = x_t + y_{t−1}·r,  m_t = max(ln σ(f) + m_{t−1}, i) (i while n is 0),
/// c_t = f′·c_{t−1} + i′·tanh z,  n_t = f′·n_{t−1} + i′,  y_t = σ(o)·c_t / n_t
///
/// with f′ = e^(ln σ(f) + m_{t−1} − m_t) and i′ = e^(i − m_t).
///
/// # Panics
/// If a length does not match the shape.
pub fn slstm(shape: SlstmShape, x: &SlstmInputs, y: &mut [f32], last: &mut [f32]) {
    slstm_isa(isa(), shape, x, y, last)
}

fn check(shape: SlstmShape, x: &SlstmInputs) {
    let SlstmShape { b, t, h, d } = shape;
    same_len("slstm x", x.x.len(), b * t * h * 4 * d);
    same_len("slstm r", x.r.len(), h * d * 4 * d);
    if let Some(s) = x.s0 {
        same_len("slstm s0", s.len(), b * 4 * h * d);
    }
}

/// Runs `f(head counted through the batch)`, on the pool where it is worth it.
fn heads(SlstmShape { b, t, h, d }: SlstmShape, f: &(dyn Fn(usize) + Sync)) {
    if b * t * h * d * d < 16 * 1024 { (0..b * h).for_each(f) } else { pool::parallel(b * h, f) }
}

/// Copies between a task's state, [4, d], and the whole, [b, 4, h, d].
fn start(SlstmShape { h, d, .. }: SlstmShape, x: &SlstmInputs, head: usize, state: &mut [f32]) {
    for (i, part) in state.chunks_exact_mut(d).enumerate() {
        match x.s0 {
            Some(s) => part.copy_from_slice(&s[((head / h * 4 + i) * h + head % h) * d..][..d]),
            None => part.fill(0.0),
        }
    }
}

pub(crate) fn slstm_isa(isa: Isa, shape: SlstmShape, x: &SlstmInputs, y: &mut [f32], last: &mut [f32]) {
    check(shape, x);
    let SlstmShape { b, t, h, d } = shape;
    same_len("slstm y", y.len(), b * t * h * d);
    same_len("slstm last", last.len(), b * 4 * h * d);
    if d == 0 {
        return;
    }
    let (y, last) = (SharedMut::new(y), SharedMut::new(last));
    heads(shape, &|head| {
        with_buffer(Slot::Fused, 8 * d, |buf| {
            let (state, gates) = buf.split_at_mut(4 * d);
            start(shape, x, head, state);
            for ti in 0..t {
                let at = ((head / h * t + ti) * h + head % h) * d;
                step(isa, d, &x.x[4 * at..4 * (at + d)], &x.r[head % h * 4 * d * d..][..4 * d * d], state, gates);
                // SAFETY: no other task has this head of this batch row.
                unsafe { y.slice(at, d) }.copy_from_slice(&state[..d]);
            }
            for (i, part) in state.chunks_exact(d).enumerate() {
                // SAFETY: as above.
                unsafe { last.slice(((head / h * 4 + i) * h + head % h) * d, d) }.copy_from_slice(part);
            }
        });
    });
}

/// The gradients for dy[b, t, h, d]: of `x` and, if wanted, of y, c and n of the state before the first step (m counts as a
/// constant: its part is zero). That of `r` is the sum over steps of the products of the output before and `dx`.
///
/// # Panics
/// If a length does not match the shape.
pub fn slstm_backward(shape: SlstmShape, x: &SlstmInputs, dy: &[f32], dx: &mut [f32], ds0: Option<&mut [f32]>) {
    slstm_backward_isa(isa(), shape, x, dy, dx, ds0)
}

pub(crate) fn slstm_backward_isa(
    isa: Isa,
    shape: SlstmShape,
    x: &SlstmInputs,
    dy: &[f32],
    dx: &mut [f32],
    ds0: Option<&mut [f32]>,
) {
    check(shape, x);
    let SlstmShape { b, t, h, d } = shape;
    same_len("slstm dy", dy.len(), b * t * h * d);
    same_len("slstm dx", dx.len(), x.x.len());
    if let Some(ds) = &ds0 {
        same_len("slstm ds0", ds.len(), b * 4 * h * d);
    }
    if d == 0 {
        return;
    }
    let (dx, ds0) = (SharedMut::new(dx), ds0.map(SharedMut::new));
    heads(shape, &|head| {
        with_buffer(Slot::Fused, 8 * d + t * TRACE * d, |buf| {
            let (state, rest) = buf.split_at_mut(4 * d);
            let (grads, trace) = rest.split_at_mut(4 * d);
            let r = &x.r[head % h * 4 * d * d..][..4 * d * d];
            let at = |ti: usize| ((head / h * t + ti) * h + head % h) * d;
            start(shape, x, head, state);
            for (ti, trace) in trace.chunks_exact_mut(TRACE * d).enumerate() {
                let (gates, after) = trace.split_at_mut(4 * d);
                step(isa, d, &x.x[4 * at(ti)..4 * (at(ti) + d)], r, state, gates);
                after.copy_from_slice(&state[d..]);
            }
            start(shape, x, head, state);
            grads.fill(0.0);
            for ti in (0..t).rev() {
                let (earlier, now) = trace.split_at(ti * TRACE * d);
                let before = if ti == 0 { &state[d..] } else { &earlier[(ti - 1) * TRACE * d + 4 * d..] };
                // SAFETY: no other task has this head of this batch row.
                let dx = unsafe { dx.slice(4 * at(ti), 4 * d) };
                step_backward(isa, d, &now[..TRACE * d], before, r, &dy[at(ti)..at(ti) + d], grads, dx);
            }
            if let Some(ds) = &ds0 {
                for (i, part) in grads.chunks_exact(d).enumerate() {
                    // SAFETY: as above.
                    unsafe { ds.slice(((head / h * 4 + i) * h + head % h) * d, d) }.copy_from_slice(part);
                }
            }
        });
    });
}

simd_fn! {
    /// One step of a head: `state` is y, c, n, m; `gates` is left as the inputs of the gates with what was mixed in.
    fn step<S>(s: S, d: usize, x: &[f32], r: &[f32], state: &mut [f32], gates: &mut [f32]) {
        let (y, rest) = state.split_at_mut(d);
        let wide = 4 * S::LANES;
        for (block, (out, x)) in gates.chunks_mut(wide).zip(x.chunks(wide)).enumerate() {
            let mut sums = [s.zero(); 4];
            for (sum, x) in sums.iter_mut().zip(x.chunks(S::LANES)) {
                *sum = ld(s, x);
            }
            for (&y, row) in y.iter().zip(r.chunks_exact(4 * d)) {
                let (y, row) = (s.splat(y), &row[block * wide..]);
                for (sum, r) in sums.iter_mut().zip(row.chunks(S::LANES)) {
                    *sum = s.mul_add(y, ld(s, r), *sum);
                }
            }
            for (&sum, out) in sums.iter().zip(out.chunks_mut(S::LANES)) {
                st(s, sum, out);
            }
        }
        let (c, rest) = rest.split_at_mut(d);
        let (n, m) = rest.split_at_mut(d);
        for at in (0..d).step_by(S::LANES) {
            let to = d.min(at + S::LANES);
            let gate = |i: usize| ld(s, &gates[i * d + at..i * d + to]);
            let (log_i, log_f) = (gate(0), s.neg(math::softplus(s, s.neg(gate(1)))));
            let (c0, n0, m0) = (ld(s, &c[at..to]), ld(s, &n[at..to]), ld(s, &m[at..to]));
            let [f, i, m1] = decay(s, log_i, log_f, n0, m0);
            let c1 = s.mul_add(f, c0, s.mul(i, math::tanh(s, gate(2))));
            let n1 = s.mul_add(f, n0, i);
            st(s, s.div(s.mul(math::sigmoid(s, gate(3)), c1), n1), &mut y[at..to]);
            st(s, c1, &mut c[at..to]);
            st(s, n1, &mut n[at..to]);
            st(s, m1, &mut m[at..to]);
        }
    }

    /// The step backward: `now` is its trace, `before` are c, n, m before it; `grads` are those of y, c and n after the step from
    /// later steps, and become those before it.
    fn step_backward<S>(s: S, d: usize, now: &[f32], before: &[f32], r: &[f32], dy: &[f32], grads: &mut [f32], dx: &mut [f32]) {
        let one = s.splat(1.0);
        for at in (0..d).step_by(S::LANES) {
            let to = d.min(at + S::LANES);
            let of = |x: &[f32], i: usize| ld(s, &x[i * d + at..i * d + to]);
            let (c0, n0, m0) = (of(before, 0), of(before, 1), of(before, 2));
            let (c1, n1) = (of(now, 4), of(now, 5));
            let log_f = s.neg(math::softplus(s, s.neg(of(now, 1))));
            let [f, i, _] = decay(s, of(now, 0), log_f, n0, m0);
            let (z, o) = (math::tanh(s, of(now, 2)), math::sigmoid(s, of(now, 3)));
            let dy = s.add(of(dy, 0), of(grads, 0));
            let ratio = s.div(c1, n1);
            let through = s.div(s.mul(dy, o), n1);
            let dc = s.add(of(grads, 1), through);
            let dn = s.neg_mul_add(through, ratio, of(grads, 2));
            let di = s.mul(i, s.mul_add(dc, z, dn));
            let df = s.mul(f, s.mul_add(dc, c0, s.mul(dn, n0)));
            let df = s.mul(df, s.sub(one, math::sigmoid(s, of(now, 1))));
            let dz = s.mul(s.mul(dc, i), s.neg_mul_add(z, z, one));
            let gate = s.mul(o, s.sub(one, o));
            for (k, g) in [di, df, dz, s.mul(s.mul(dy, ratio), gate)].into_iter().enumerate() {
                st(s, g, &mut dx[k * d + at..k * d + to]);
            }
            st(s, s.mul(dc, f), &mut grads[d + at..d + to]);
            st(s, s.mul(dn, f), &mut grads[2 * d + at..2 * d + to]);
        }
        for (g, row) in grads[..d].iter_mut().zip(r.chunks_exact(4 * d)) {
            let mut sum = s.zero();
            for (dx, r) in dx.chunks(S::LANES).zip(row.chunks(S::LANES)) {
                sum = s.mul_add(ld(s, dx), ld(s, r), sum);
            }
            *g = s.sum(sum);
        }
    }
}

/// f′, i′ and m.
#[inline(always)]
fn decay<S: Simd>(s: S, log_i: S::F, log_f: S::F, n: S::F, m: S::F) -> [S::F; 3] {
    let kept = s.add(log_f, m);
    let empty = s.eq(n, s.zero());
    let next = s.select(empty, log_i, s.max(kept, log_i));
    // Where nothing is remembered the forget gate does not matter, and its logarithm may be far above m.
    let f = math::exp(s, s.select(empty, s.zero(), s.sub(kept, next)));
    [f, math::exp(s, s.sub(log_i, next)), next]
}
