//! Linear attention whose state decays by channel and may be corrected by the delta rule: RWKV-6 (Peng et al. 2024, "Eagle
//! and Finch") with its bonus, RWKV-7 (Peng et al. 2025, "Goose") with its generalised delta rule. Gated DeltaNet and Kimi
//! Delta Attention are instances.

mod chunked;
mod cpu;
#[cfg(test)]
mod tests;

use crate::ops::binary::same_kind;
use crate::{DType, Error, Result, Tensor, is_grad_enabled};

/// The inputs of [`Tensor::wkv`] besides the receptance.
#[derive(Clone, Copy, Debug)]
pub struct WkvInputs<'a> {
    /// Logarithms of the decays, none above 0, `[b, t, h, k]`.
    pub log_decay: &'a Tensor,
    /// Keys, `[b, t, h, k]`.
    pub k: &'a Tensor,
    /// Values, `[b, t, h, v]`.
    pub v: &'a Tensor,
    /// What a step's own key counts when it is read, `[h, k]`: RWKV-6. Then a step reads the state before it.
    pub bonus: Option<&'a Tensor>,
    /// What is read from the state before a step and where it is written to, each `[b, t, h, k]`: RWKV-7.
    pub correction: Option<(&'a Tensor, &'a Tensor)>,
    /// State before the first step, `[b, h, k, v]`; zeros if `None`.
    pub s0: Option<&'a Tensor>,
}

/// Sizes: batch, time, heads, elements of a key, of a value.
pub(crate) type Sizes = [usize; 5];

impl Tensor {
    /// With receptance `r` = `self` `[b, t, h, k]`, decays `w = e^log_decay` and correction `(a, c)`, for every head:
    ///
    /// `S_t = diag(w_t)·S_{t−1} + k_t·v_tᵀ + c_t·(a_tᵀ·S_{t−1})`, `y_t = r_tᵀ·S_t`,
    ///
    /// or with a bonus `y_t = r_tᵀ·(S_{t−1} + diag(bonus)·k_t·v_tᵀ)`. Returns `y` `[b, t, h, v]` and the last state
    /// `[b, h, k, v]`, which carries no gradient.
    ///
    /// Where gradients are wanted, and on other devices, it is computed by chunks of matrix products; else by a kernel
    /// that goes from step to step. They differ in rounding.
    ///
    /// # Errors
    /// Shapes do not fit, or types or devices differ.
    pub fn wkv(&self, x: &WkvInputs) -> Result<(Tensor, Tensor)> {
        let (inputs, sizes) = self.check_wkv(x)?;
        let wants_grad = is_grad_enabled() && inputs.iter().any(|t| t.tracks_grad());
        match self.device().is_cpu() && self.dtype() == DType::F32 && !wants_grad {
            true => cpu::forward(self, x, sizes),
            false => chunked::forward(self, x, sizes),
        }
    }

    fn check_wkv<'a>(&'a self, x: &WkvInputs<'a>) -> Result<(Vec<&'a Tensor>, Sizes)> {
        let op = "wkv";
        let correction = x.correction.map(|(a, c)| [a, c]);
        let narrow = [self, x.log_decay, x.k].into_iter().chain(correction.into_iter().flatten());
        let narrow: Vec<&Tensor> = narrow.collect();
        let [b, t, h, k] = self.dims_n(op)?;
        let [_, _, _, v] = x.v.dims_n(op)?;
        let expected = |x: &Tensor, shape: &[usize]| {
            if x.shape() == shape { Ok(()) } else { Err(Error::shapes(op, x.shape(), shape)) }
        };
        narrow.iter().try_for_each(|x| expected(x, &[b, t, h, k]))?;
        expected(x.v, &[b, t, h, v])?;
        x.bonus.map_or(Ok(()), |u| expected(u, &[h, k]))?;
        x.s0.map_or(Ok(()), |s| expected(s, &[b, h, k, v]))?;
        let inputs: Vec<&Tensor> = narrow.into_iter().chain([x.v]).chain(x.bonus).chain(x.s0).collect();
        inputs[1..].iter().try_for_each(|other| same_kind(op, self, other))?;
        Ok((inputs, [b, t, h, k, v]))
    }

    /// The reference form of [`Tensor::wkv`], step by step, composed of primitives.
    ///
    /// # Errors
    /// As [`Tensor::wkv`].
    pub fn wkv_reference(&self, x: &WkvInputs) -> Result<(Tensor, Tensor)> {
        let (_, [b, t, h, k, v]) = self.check_wkv(x)?;
        let mut s = match x.s0 {
            Some(s) => s.clone(),
            None => Tensor::zeros([b, h, k, v], self.dtype(), self.device())?,
        };
        let mut ys = Vec::with_capacity(t);
        for i in 0..t {
            let row = |x: &Tensor| x.narrow(1, i, 1)?.squeeze(1)?.unsqueeze(2); // [b, h, 1, d]
            let column = |x: &Tensor| row(x)?.t();
            let written = column(x.k)?.mul(&row(x.v)?)?;
            let mut next = s.mul(&column(x.log_decay)?.exp()?)?.add(&written)?;
            if let Some((a, c)) = x.correction {
                next = next.add(&column(c)?.mul(&row(a)?.matmul(&s)?)?)?;
            }
            let read = match x.bonus {
                Some(u) => s.add(&written.mul(&u.unsqueeze(2)?)?)?,
                None => next.clone(),
            };
            ys.push(row(self)?.matmul(&read)?.squeeze(2)?);
            s = next;
        }
        let y = match ys.is_empty() {
            true => Tensor::zeros([b, t, h, v], self.dtype(), self.device())?,
            false => Tensor::stack(&ys, 1)?,
        };
        Ok((y, s.detach()))
    }
}
