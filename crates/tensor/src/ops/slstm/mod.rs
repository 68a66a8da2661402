//! The scalar memory of xLSTM (Beck et al. 2024, §2.2): exponential gates, their stabiliser, and memory mixing, by which the
//! gates of a step read all of a head's outputs of the step before. Steps follow one another; there is no parallel form.

mod cpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::ops::binary::same_kind;
use crate::{DType, Error, Result, Tensor};

/// Sizes: batch, time, heads, cells of a head.
pub(crate) type Sizes = [usize; 4];

impl Tensor {
    /// `self` `[b, t, h, 4, d]` are the inputs of the gates i, f, z and o; `r` `[h, d, 4, d]` mixes the outputs of the
    /// step before into them: `(i, f, z, o)_t = x_t + y_{t−1}·r`. With `f̄ = ln σ(f)` every cell computes
    ///
    /// `m_t = max(f̄ + m_{t−1}, i)` (`i` while `n` is 0), `f′ = e^(f̄ + m_{t−1} − m_t)`, `i′ = e^(i − m_t)`,
    /// `c_t = f′·c_{t−1} + i′·tanh z`, `n_t = f′·n_{t−1} + i′`, `y_t = σ(o)·c_t / n_t`.
    ///
    /// `state` `[b, 4, h, d]` holds y, c, n and m before the first step (zeros if `None`). Returns `y` `[b, t, h, d]` and
    /// the state after the last, which carries no gradient. The stabiliser cancels and counts as a constant.
    ///
    /// # Errors
    /// Shapes do not fit, or types or devices differ.
    pub fn slstm(&self, r: &Tensor, state: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let sizes = self.check_slstm(r, state)?;
        if !(self.device().is_cpu() && self.dtype() == DType::F32) {
            return self.slstm_reference(r, state);
        }
        let [y, last] = cpu::forward(self, r, state, sizes)?;
        let with_state = state.is_some();
        let inputs: Vec<&Tensor> = [self, r].into_iter().chain(state).collect();
        Ok((record(y, &inputs, move |ctx| cpu::backward(ctx, with_state, sizes)), last))
    }

    fn check_slstm(&self, r: &Tensor, state: Option<&Tensor>) -> Result<Sizes> {
        let op = "slstm";
        let [b, t, h, gates, d] = self.dims_n(op)?;
        if gates != 4 {
            return Err(Error::argument(op, format!("gates of shape {:?} are not [b, t, h, 4, d]", self.shape())));
        }
        same_kind(op, self, r)?;
        if r.shape() != [h, d, 4, d] {
            return Err(Error::shapes(op, r.shape(), &[h, d, 4, d]));
        }
        if let Some(s) = state {
            same_kind(op, self, s)?;
            if s.shape() != [b, 4, h, d] {
                return Err(Error::shapes(op, s.shape(), &[b, 4, h, d]));
            }
        }
        Ok([b, t, h, d])
    }

    /// The reference form of [`Tensor::slstm`], composed of primitives.
    ///
    /// # Errors
    /// As [`Tensor::slstm`].
    pub fn slstm_reference(&self, r: &Tensor, state: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let [b, t, h, d] = self.check_slstm(r, state)?;
        let state = match state {
            Some(s) => s.clone(),
            None => Tensor::zeros([b, 4, h, d], self.dtype(), self.device())?,
        };
        let part = |i: usize| state.narrow(1, i, 1)?.squeeze(1);
        let (mut y, mut c, mut n, mut m) = (part(0)?, part(1)?, part(2)?, part(3)?.detach());
        let r = r.reshape([h, d, 4 * d])?;
        let mut ys = Vec::with_capacity(t);
        for i in 0..t {
            let mixed = y.unsqueeze(2)?.matmul(&r)?.reshape([b, h, 4, d])?;
            let gates = self.narrow(1, i, 1)?.squeeze(1)?.add(&mixed)?;
            let gate = |i: usize| gates.narrow(2, i, 1)?.squeeze(2);
            let (log_i, log_f) = (gate(0)?, gate(1)?.neg()?.softplus()?.neg()?.add(&m)?);
            let empty = n.eq(&n.zeros_like()?)?;
            m = empty.select(&log_i, &log_f.maximum(&log_i)?)?.detach();
            // Where nothing is remembered the forget gate does not matter, and its logarithm may be far above m.
            let f = empty.select(&log_f.zeros_like()?, &log_f.sub(&m)?)?.exp()?;
            let i = log_i.sub(&m)?.exp()?;
            c = f.mul(&c)?.add(&i.mul(&gate(2)?.tanh()?)?)?;
            n = f.mul(&n)?.add(&i)?;
            y = gate(3)?.sigmoid()?.mul(&c.div(&n)?)?;
            ys.push(y.clone());
        }
        let out = match ys.is_empty() {
            true => Tensor::zeros([b, t, h, d], self.dtype(), self.device())?,
            false => Tensor::stack(&ys, 1)?,
        };
        Ok((out, Tensor::stack(&[y, c, n, m], 1)?.detach()))
    }
}
