//! The chunked form: within a chunk all steps at once by products of matrices, between chunks by the state.
//!
//! With `G[i, j]` the decay from after step j to step i, `e` that from before the chunk and `P = (q·kᵀ) ⊙ G` below and on
//! the diagonal,
//!
//! ```text
//! y = (e ⊙ q)·S + P·u        S' = e_last ⊙ S + (G[last] ⊙ k)ᵀ·u
//! ```
//!
//! where u = v, or by the delta rule (I + A)·u = β ⊙ (v − (e ⊙ k)·S) with A = β ⊙ (k·kᵀ) ⊙ G below the diagonal: the WY
//! form of Yang et al. 2024. Every decay is the exponential of a sum of logarithms over the very steps it spans, so that
//! nothing overflows and no large numbers cancel.

use std::ops::Range;

use super::{HeadOrder, Sizes, forward as values};
use crate::autograd::{Backward, InputGrads, record, with_grad};
use crate::{Result, Tensor};

impl Sizes {
    /// Steps of a chunk: what is least work with heads of about 128 elements. With a decay for each key element, the
    /// decays of a chunk are a number for each pair of steps and key element.
    fn chunk(&self) -> usize {
        match (self.per_key, self.delta) {
            (true, _) => 16,
            (false, true) => 32,
            (false, false) => 64,
        }
    }

    fn chunks(&self) -> impl DoubleEndedIterator<Item = Range<usize>> + ExactSizeIterator {
        let (t, size) = (self.t, self.chunk());
        (0..t.div_ceil(size)).map(move |i| i * size..t.min((i + 1) * size))
    }
}

/// The inputs of some of the steps; the state is left out.
fn part(inputs: &[&Tensor], sizes: Sizes, steps: &Range<usize>) -> Result<Vec<Tensor>> {
    let timed = &inputs[..4 + sizes.delta as usize];
    timed.iter().map(|x| x.narrow(1, steps.start, steps.len())).collect()
}

fn first_state(inputs: &[&Tensor], sizes: Sizes) -> Result<Tensor> {
    match inputs.last() {
        Some(state) if sizes.state => Ok((*state).clone()),
        _ => Tensor::zeros([sizes.b, sizes.h, sizes.k, sizes.v], inputs[0].dtype(), inputs[0].device()),
    }
}

/// Values and the last state, chunk by chunk.
pub(super) fn forward(inputs: &[&Tensor], sizes: Sizes) -> Result<(Tensor, Tensor)> {
    let mut state = first_state(inputs, sizes)?;
    let mut parts = Vec::new();
    for steps in sizes.chunks() {
        let (y, next) = chunk(&part(inputs, sizes, &steps)?, &state, sizes)?;
        parts.push(y);
        state = next;
    }
    let y = if parts.is_empty() { inputs[2].zeros_like()? } else { Tensor::cat(&parts, 1)? };
    Ok((y, state))
}

/// Gradients of all inputs: the states before all chunks, then the chunks again from the last to the first.
pub(super) fn backward(ctx: &Backward, sizes: Sizes) -> InputGrads {
    let inputs: Vec<Tensor> = ctx.inputs.iter().map(Tensor::detach).collect();
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let mut states = vec![first_state(&inputs, sizes)?];
    for steps in sizes.chunks() {
        let parts = part(&inputs, sizes, &steps)?;
        let before = states[states.len() - 1].clone();
        let all: Vec<&Tensor> = parts.iter().chain([&before]).collect();
        states.push(values(&all, Sizes { t: steps.len(), state: true, ..sizes })?.1);
    }
    states.pop();
    let mut of_state: Option<Tensor> = None;
    // By input and chunk, the last chunk first.
    let mut found: Vec<Vec<Tensor>> = vec![Vec::new(); 4 + sizes.delta as usize];
    for (steps, before) in sizes.chunks().zip(states).rev() {
        let leaves: Vec<Tensor> = part(&inputs, sizes, &steps)?.iter().map(Tensor::requires_grad).collect();
        let before = before.requires_grad();
        let dy = ctx.grad.narrow(1, steps.start, steps.len())?;
        let mut grads = with_grad(true, || {
            let (y, after) = chunk(&leaves, &before, sizes)?;
            let mut loss = y.mul(&dy)?.sum_all()?;
            if let Some(grad) = &of_state {
                loss = loss.add(&after.mul(grad)?.sum_all()?)?;
            }
            loss.backward()
        })?;
        for (leaf, found) in leaves.iter().zip(&mut found) {
            found.push(grads.remove(leaf).map_or_else(|| leaf.zeros_like(), Ok)?);
        }
        of_state = grads.remove(&before);
    }
    let mut all = Vec::new();
    for (found, input) in found.into_iter().zip(&inputs) {
        let parts: Vec<Tensor> = found.into_iter().rev().collect();
        all.push(Some(if parts.is_empty() { input.zeros_like()? } else { Tensor::cat(&parts, 1)? }));
    }
    if sizes.state {
        all.push(Some(of_state.map_or_else(|| inputs[inputs.len() - 1].zeros_like(), Ok)?));
    }
    Ok(all)
}

/// `[b, g, c, n]` → `[b, h, c, n]`: what a head of keys has, for each of its heads of values.
pub(super) fn repeat(x: &Tensor, sizes: Sizes) -> Result<Tensor> {
    let Sizes { b, g, h, .. } = sizes;
    let (rows, cols) = (x.dim(2)?, x.dim(3)?);
    if h == g {
        return Ok(x.clone());
    }
    let (at, shape) = match sizes.order {
        HeadOrder::Grouped => (2, [b, g, h / g, rows, cols]),
        HeadOrder::Tiled => (1, [b, h / g, g, rows, cols]),
    };
    x.unsqueeze(at)?.broadcast_as(shape)?.reshape([b, h, rows, cols])
}

/// 1 where `keep(row, column)`, else 0.
fn mask(like: &Tensor, size: usize, keep: impl Fn(usize, usize) -> bool) -> Result<Tensor> {
    let ones: Vec<f32> = (0..size * size).map(|i| keep(i / size, i % size) as u8 as f32).collect();
    Tensor::from_vec(ones, [size, size], like.device())?.to_dtype(like.dtype())
}

/// Running sums along dimension 2 of `[b, h, c, ..]`: of f64 where there is a kernel for them, else by a product with ones.
fn running(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        return x.cumsum(2);
    }
    let c = x.dim(2)?;
    let [b, h] = [x.dim(0)?, x.dim(1)?];
    let flat = x.reshape([b, h, c, x.elem_count() / (b * h * c).max(1)])?;
    mask(x, c, |i, j| j <= i)?.matmul(&flat)?.reshape(x.shape())
}

/// One chunk: the inputs of its steps, and the state before it → its values `[b, c, h, v]` and the state after it.
fn chunk(x: &[Tensor], state: &Tensor, sizes: Sizes) -> Result<(Tensor, Tensor)> {
    let c = x[0].dim(1)?;
    let heads = |x: &Tensor| x.transpose(1, 2)?.contiguous();
    let number = |x: &Tensor| heads(x)?.unsqueeze(3);
    let (q, k, v) = (heads(&x[0])?, heads(&x[1])?, heads(&x[2])?);
    let decay = if sizes.per_key { heads(&x[3])? } else { number(&x[3])? };
    let below = mask(&decay, c, |i, j| i > j)?;
    let upto = mask(&decay, c, |i, j| i >= j)?;
    // `between[.., i, j]`: the decay of the steps after j up to i; 1 where there are none.
    let (sums, between) = match sizes.per_key {
        false => (running(&decay)?, running(&decay.mul(&below)?)?),
        true => (running(&decay)?, running(&decay.unsqueeze(3)?.mul(&below.unsqueeze(2)?)?)?),
    };
    let to_last = between.narrow(2, c - 1, 1)?;
    let (to_last, upto) = match sizes.per_key {
        false => (to_last.transpose(2, 3)?, upto),
        true => (to_last.squeeze(2)?, upto.unsqueeze(2)?),
    };
    let (from_first, to_last) = (sums.exp()?, to_last.exp()?);
    let between = between.exp()?.mul(&upto)?;
    // `a · kᵀ ⊙ between` for every head of values.
    let (kh, qh) = (repeat(&k, sizes)?, repeat(&q, sizes)?);
    let scores = |a: &Tensor, ah: &Tensor| match sizes.per_key {
        false => repeat(&a.matmul(&k.t()?)?, sizes)?.mul(&between),
        true => ah.unsqueeze(3)?.mul(&kh.unsqueeze(2)?)?.mul(&between)?.sum(&[4], false),
    };
    let u = match x.get(4) {
        None => v,
        Some(beta) => {
            let beta = number(beta)?;
            let system = scores(&k, &kh)?.mul(&below)?.mul(&beta)?;
            let known = kh.mul(&from_first)?.matmul(state)?;
            inverse(&system)?.matmul(&v.sub(&known)?.mul(&beta)?)?
        }
    };
    let y = qh.mul(&from_first)?.matmul(state)?.add(&scores(&q, &qh)?.matmul(&u)?)?;
    let kept = from_first.narrow(2, c - 1, 1)?.transpose(2, 3)?.mul(state)?;
    let state = kept.add(&kh.mul(&to_last)?.t()?.matmul(&u)?)?;
    Ok((y.transpose(1, 2)?, state))
}

/// The inverse of `I + a` with `a` `[.., c, c]` zero on and above the diagonal. Inverses of blocks on the diagonal are joined
/// to those of blocks twice the size, which is substitution in products and as stable.
fn inverse(a: &Tensor) -> Result<Tensor> {
    let c = a.shape()[a.rank() - 1];
    let out = crate::no_grad(|| -> Result<Tensor> {
        let a = a.detach();
        let block = |size: usize| mask(&a, c, move |i, j| i / (2 * size) == j / (2 * size) && i / size > j / size);
        let mut out = mask(&a, c, |i, j| i == j)?.sub(&a.mul(&block(1)?)?)?;
        let mut size = 2;
        while size < c {
            out = out.sub(&out.matmul(&a.mul(&block(size)?)?)?.matmul(&out)?)?;
            size *= 2;
        }
        Ok(out)
    })?;
    let saved = out.clone();
    Ok(record(out, &[a], move |ctx| {
        let t = saved.t()?;
        Ok(vec![Some(t.matmul(ctx.grad)?.matmul(&t)?.neg()?)])
    }))
}
