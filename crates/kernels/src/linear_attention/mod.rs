//! Linear attention with decay, and with the delta rule: the recurrences of Mamba-2 (Dao and Gu 2024), lightning attention
//! (Qin et al. 2024), gated DeltaNet (Yang et al. 2024) and Kimi delta attention (Kimi Team 2025). With a state S of keys
//! by values for every head,
//!
//! S ← diag(e^g)·S,  u = v or, by the delta rule, β·(v − Sᵀk),  S ← S + k·uᵀ,  y = Sᵀq
//!
//! where the logarithm g of the decay is one number for a head and step, or one for each key element.
//!
//! A task owns a head. Value elements lie in the lanes of vectors, so that no sum crosses lanes, and the columns of the
//! state are independent of one another: four vectors of them go through all steps before the next four, because their
//! part of the state then stays in L1. For one step this costs what reading and writing the state costs; for many it is
//! about as fast as the products of the chunked form and needs no memory for them. One step at a time gives the same bits as
//! all at once.

mod forward;
#[cfg(test)]
mod tests;

use crate::isa::{Isa, isa};
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};
use crate::vecmath::same_len;

/// The sizes of a linear attention.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinearShape {
    /// Batch.
    pub b: usize,
    /// Time steps.
    pub t: usize,
    /// Heads of queries and keys.
    pub g: usize,
    /// Heads of values, a multiple of `g`.
    pub h: usize,
    /// Elements of a query and a key.
    pub k: usize,
    /// Elements of a value.
    pub v: usize,
}

/// What a linear attention reads.
#[derive(Clone, Copy, Debug)]
pub struct LinearInputs<'a> {
    /// Queries, [b, t, g, k].
    pub q: &'a [f32],
    /// Keys, [b, t, g, k].
    pub k: &'a [f32],
    /// Values, [b, t, h, v].
    pub v: &'a [f32],
    /// Logarithms of the decay, at most 87: [b, t, h] or [b, t, h, k].
    pub decay: &'a [f32],
    /// The step sizes β of the delta rule, [b, t, h]; without them there is no delta rule.
    pub beta: Option<&'a [f32]>,
    /// The state before the first step, [b, h, k, v]; zeros if absent.
    pub state: Option<&'a [f32]>,
    /// Whether head i of the values has keys i mod g, and not i / (h / g).
    pub tiled: bool,
}

/// Computes y[b, t, h, v] and the last state [b, h, k, v].
///
/// # Panics
/// If a length does not match the shape, or `h` is no multiple of `g`.
pub fn linear_attention(shape: LinearShape, x: &LinearInputs, y: &mut [f32], last: &mut [f32]) {
    linear_attention_isa(isa(), shape, x, y, last)
}

pub(crate) fn linear_attention_isa(isa: Isa, shape: LinearShape, x: &LinearInputs, y: &mut [f32], last: &mut [f32]) {
    let LinearShape { b, t, g, h, k, v } = shape;
    assert!(g > 0 && h.is_multiple_of(g), "linear_attention: {h} heads of values for {g} of keys");
    let op = "linear_attention";
    same_len(op, x.q.len(), b * t * g * k);
    same_len(op, x.k.len(), b * t * g * k);
    same_len(op, x.v.len(), b * t * h * v);
    assert!(
        x.decay.len() == b * t * h || x.decay.len() == b * t * h * k,
        "{op}: {} decays for {b}·{t}·{h} heads",
        x.decay.len()
    );
    x.beta.inspect(|beta| same_len(op, beta.len(), b * t * h));
    x.state.inspect(|state| same_len(op, state.len(), b * h * k * v));
    same_len(op, y.len(), b * t * h * v);
    same_len(op, last.len(), b * h * k * v);
    let (y, last) = (SharedMut::new(y), SharedMut::new(last));
    let task = |i: usize| {
        let head = forward::Head { batch: i / h, head: i % h };
        // SAFETY: every task has a state of its own.
        let last = unsafe { last.slice(i * k * v, k * v) };
        match x.state {
            Some(state) => last.copy_from_slice(&state[i * k * v..(i + 1) * k * v]),
            None => last.fill(0.0),
        }
        with_buffer(Slot::Fused, forward::buffer_len(isa.lanes(), k), |buf| {
            forward::run(isa, shape, x, head, buf, &y, last)
        });
    };
    if b * t * h * k * v < 64 * 1024 {
        (0..b * h).for_each(task);
    } else {
        pool::parallel(b * h, &task);
    }
}
