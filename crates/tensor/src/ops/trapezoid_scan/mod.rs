//! The recurrence of Mamba-3 (Lahoti et al. 2026, "Mamba-3: Improved Sequence Modeling using State Space Principles"): a
//! state that decays by head and takes in, by the trapezoidal rule, the step's input and the one before; several inputs
//! and outputs share a state (MIMO).

mod chunked;
#[cfg(test)]
mod tests;

use crate::ops::binary::same_kind;
use crate::{Error, Result, Tensor};

/// The inputs of [`Tensor::trapezoid_scan`] besides the queries.
#[derive(Clone, Copy, Debug)]
pub struct TrapezoidInputs<'a> {
    /// Keys (B), `[b, t, h, r, n]` as the queries.
    pub k: &'a Tensor,
    /// Values (x), `[b, t, h, r, p]`.
    pub v: &'a Tensor,
    /// Logarithms of the decays (Δ·A), none above 0, `[b, t, h]`.
    pub log_decay: &'a Tensor,
    /// What a step's own input counts (Δ·λ), `[b, t, h]`.
    pub now: &'a Tensor,
    /// What the input before counts, ahead of the decay (Δ·(1 − λ)), `[b, t, h]`.
    pub before: &'a Tensor,
    /// The state before the first step: memory `[b, h, n, p]`, and the keys `[b, h, r, n]` and values `[b, h, r, p]` of
    /// the last step; zeros if `None`.
    pub state: Option<[&'a Tensor; 3]>,
}

/// Sizes: batch, time, heads, rank, elements of a key, of a value.
pub(crate) type Sizes = [usize; 6];

impl Tensor {
    /// With queries (C) `q` = `self` `[b, t, h, r, n]`, for every head:
    ///
    /// `S_t = e^log_decay_t·(S_{t−1} + before_t·k_{t−1}ᵀ·v_{t−1}) + now_t·k_tᵀ·v_t`, `y_t = q_t·S_t`,
    ///
    /// where `k`, `v` and `q` of a step are matrices of `r` rows. Returns `y` `[b, t, h, r, p]` and the state after the last
    /// step, which carries no gradient. Several steps are computed by chunks of matrix products, one step by itself.
    ///
    /// # Errors
    /// Shapes do not fit, or types or devices differ.
    pub fn trapezoid_scan(&self, x: &TrapezoidInputs) -> Result<(Tensor, [Tensor; 3])> {
        let sizes = self.check_trapezoid(x)?;
        if sizes[1] <= 1 { self.trapezoid_scan_reference(x) } else { chunked::forward(self, x, sizes) }
    }

    fn check_trapezoid(&self, x: &TrapezoidInputs) -> Result<Sizes> {
        let op = "trapezoid_scan";
        let [b, t, h, r, n] = self.dims_n(op)?;
        let [_, _, _, _, p] = x.v.dims_n(op)?;
        let mut inputs = vec![(x.k, vec![b, t, h, r, n]), (x.v, vec![b, t, h, r, p])];
        inputs.extend([x.log_decay, x.now, x.before].map(|x| (x, vec![b, t, h])));
        if let Some([s, k, v]) = x.state {
            inputs.extend([(s, vec![b, h, n, p]), (k, vec![b, h, r, n]), (v, vec![b, h, r, p])]);
        }
        for (x, shape) in inputs {
            same_kind(op, self, x)?;
            if x.shape() != shape {
                return Err(Error::shapes(op, x.shape(), &shape));
            }
        }
        Ok([b, t, h, r, n, p])
    }

    /// The state before the first step.
    fn trapezoid_state(&self, x: &TrapezoidInputs, [b, _, h, r, n, p]: Sizes) -> Result<[Tensor; 3]> {
        let zeros = |shape: [usize; 4]| Tensor::zeros(shape, self.dtype(), self.device());
        match x.state {
            Some(state) => Ok(state.map(Tensor::clone)),
            None => Ok([zeros([b, h, n, p])?, zeros([b, h, r, n])?, zeros([b, h, r, p])?]),
        }
    }

    /// The reference form of [`Tensor::trapezoid_scan`], step by step, composed of primitives.
    ///
    /// # Errors
    /// As [`Tensor::trapezoid_scan`].
    pub fn trapezoid_scan_reference(&self, x: &TrapezoidInputs) -> Result<(Tensor, [Tensor; 3])> {
        let sizes @ [b, t, h, r, _, p] = self.check_trapezoid(x)?;
        let [mut s, mut k, mut v] = self.trapezoid_state(x, sizes)?;
        let mut ys = Vec::with_capacity(t);
        for i in 0..t {
            let step = |x: &Tensor| x.narrow(1, i, 1)?.squeeze(1);
            let number = |x: &Tensor| step(x)?.reshape([b, h, 1, 1]);
            let pending = k.t()?.matmul(&v)?.mul(&number(x.before)?)?;
            (k, v) = (step(x.k)?, step(x.v)?);
            let own = k.t()?.matmul(&v)?.mul(&number(x.now)?)?;
            s = s.add(&pending)?.mul(&number(x.log_decay)?.exp()?)?.add(&own)?;
            ys.push(step(self)?.matmul(&s)?);
        }
        let y = match ys.is_empty() {
            true => Tensor::zeros([b, t, h, r, p], self.dtype(), self.device())?,
            false => Tensor::stack(&ys, 1)?,
        };
        Ok((y, [s.detach(), k.detach().contiguous()?, v.detach().contiguous()?]))
    }
}
