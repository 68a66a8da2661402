//! Linear attention with decay and, as a choice, the delta rule: the state-space duality of Mamba-2 (Dao and Gu 2024),
//! lightning attention (Qin et al. 2024), gated DeltaNet (Yang, Kautz and Hatamizadeh 2024) and Kimi delta attention
//! (Kimi Team 2025) are cases of it.
//!
//! Values on the CPU come from a kernel that goes step by step, for one token as for a prompt. Gradients come from the
//! chunked form ([`chunk`]), whose chunks are computed again one after another, so that training keeps no more than
//! the inputs. Devices and types without the kernel compute values in the chunked form too.

mod chunk;
mod cpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::ops::binary::same_kind;
use crate::{DType, Error, Result, Tensor};

/// Which query and key head a value head uses where there are `r` times as many value heads.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub enum HeadOrder {
    /// `r` value heads in a row share one: head `i / r`.
    #[default]
    Grouped,
    /// They take turns: head `i mod g` of `g`.
    Tiled,
}

/// The inputs of [`Tensor::linear_attention`] besides the queries.
#[derive(Clone, Copy, Debug)]
pub struct LinearAttentionInputs<'a> {
    /// Keys, `[b, t, g, k]` as the queries.
    pub k: &'a Tensor,
    /// Values, `[b, t, h, v]` with `h` a multiple of `g`.
    pub v: &'a Tensor,
    /// Logarithms of the decay, not above 0: `[b, t, h]`, or `[b, t, h, k]` for one of each key element.
    pub decay: &'a Tensor,
    /// Step sizes β of the delta rule, `[b, t, h]`; `None` for no delta rule.
    pub beta: Option<&'a Tensor>,
    /// State before the first step, `[b, h, k, v]`; zeros if `None`.
    pub state: Option<&'a Tensor>,
    /// Which key head belongs to a value head.
    pub order: HeadOrder,
}

/// What is known of the inputs once they are checked.
#[derive(Copy, Clone, Debug)]
struct Sizes {
    b: usize,
    t: usize,
    g: usize,
    h: usize,
    k: usize,
    v: usize,
    /// The decay is `[b, t, h, k]`.
    per_key: bool,
    delta: bool,
    state: bool,
    order: HeadOrder,
}

impl Tensor {
    /// For every head, with a state `S` `[k, v]`: `S ← diag(e^decay)·S`, then `u = v`, or by the delta rule
    /// `u = β·(v − Sᵀk)`, then `S ← S + k·uᵀ` and `y = Sᵀq`. The queries `q` are `self`, `[b, t, g, k]`. Returns `y`
    /// `[b, t, h, v]` and the last state `[b, h, k, v]`, which carries no gradient.
    ///
    /// # Errors
    /// Shapes do not fit, or types or devices differ or are no floats.
    pub fn linear_attention(&self, s: &LinearAttentionInputs) -> Result<(Tensor, Tensor)> {
        let (inputs, sizes) = self.check_linear_attention(s)?;
        let (y, last) = crate::no_grad(|| forward(&inputs, sizes))?;
        Ok((record(y, &inputs, move |ctx| chunk::backward(ctx, sizes)), last))
    }

    fn check_linear_attention<'a>(&'a self, s: &LinearAttentionInputs<'a>) -> Result<(Vec<&'a Tensor>, Sizes)> {
        let op = "linear_attention";
        let inputs: Vec<&Tensor> = [self, s.k, s.v, s.decay].into_iter().chain(s.beta).chain(s.state).collect();
        for other in &inputs[1..] {
            same_kind(op, self, other)?;
        }
        if !self.dtype().is_float() {
            return Err(crate::ops::common::not_a_float(op, self.dtype()));
        }
        let [b, t, g, k] = self.dims_n(op)?;
        let [_, _, h, v] = s.v.dims_n(op)?;
        let expect = |x: &Tensor, shape: &[usize]| {
            if x.shape() == shape { Ok(()) } else { Err(Error::shapes(op, x.shape(), shape)) }
        };
        if g == 0 || !h.is_multiple_of(g) {
            return Err(Error::argument(op, format!("{h} heads of values are no multiple of {g} of keys")));
        }
        expect(s.k, &[b, t, g, k])?;
        expect(s.v, &[b, t, h, v])?;
        let per_key = s.decay.rank() == 4;
        expect(s.decay, &[b, t, h, k][..if per_key { 4 } else { 3 }])?;
        s.beta.map_or(Ok(()), |x| expect(x, &[b, t, h]))?;
        s.state.map_or(Ok(()), |x| expect(x, &[b, h, k, v]))?;
        let (delta, state) = (s.beta.is_some(), s.state.is_some());
        Ok((inputs, Sizes { b, t, g, h, k, v, per_key, delta, state, order: s.order }))
    }

    /// The reference form of [`Tensor::linear_attention`], step by step, composed of primitives.
    ///
    /// # Errors
    /// As [`Tensor::linear_attention`].
    pub fn linear_attention_reference(&self, s: &LinearAttentionInputs) -> Result<(Tensor, Tensor)> {
        let (_, sizes) = self.check_linear_attention(s)?;
        let Sizes { b, t, h, k, v, .. } = sizes;
        let mut state = match s.state {
            Some(state) => state.clone(),
            None => Tensor::zeros([b, h, k, v], self.dtype(), self.device())?,
        };
        let mut ys = Vec::with_capacity(t);
        for i in 0..t {
            let step = |x: &Tensor| x.narrow(1, i, 1)?.squeeze(1);
            let column = |x: &Tensor| chunk::repeat(&step(x)?.unsqueeze(2)?, sizes)?.transpose(2, 3);
            let decay = step(s.decay)?.exp()?;
            state =
                state.mul(&if sizes.per_key { decay.unsqueeze(3)? } else { decay.unsqueeze(2)?.unsqueeze(3)? })?;
            let (q, k) = (column(self)?, column(s.k)?);
            let mut u = step(s.v)?.unsqueeze(2)?;
            if let Some(beta) = s.beta {
                let known = state.mul(&k)?.sum(&[2], true)?;
                u = u.sub(&known)?.mul(&step(beta)?.unsqueeze(2)?.unsqueeze(3)?)?;
            }
            state = state.add(&k.mul(&u)?)?;
            ys.push(state.mul(&q)?.sum(&[2], false)?);
        }
        let y = match ys.is_empty() {
            true => s.v.zeros_like()?,
            false => Tensor::stack(&ys, 1)?,
        };
        Ok((y, state.detach()))
    }
}

/// Values and the last state. The inputs are those of `check_linear_attention`, in its order.
fn forward(inputs: &[&Tensor], sizes: Sizes) -> Result<(Tensor, Tensor)> {
    if inputs[0].device().is_cpu() && inputs[0].dtype() == DType::F32 {
        return cpu::forward(inputs, sizes);
    }
    chunk::forward(inputs, sizes)
}
