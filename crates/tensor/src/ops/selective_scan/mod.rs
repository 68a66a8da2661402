//! The selective state-space recurrence of Mamba-1 (Gu and Dao 2023).

mod cpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::ops::binary::same_kind;
use crate::{DType, Error, Result, Tensor};

/// The inputs of [`Tensor::selective_scan`] besides `u`.
#[derive(Clone, Copy, Debug)]
pub struct ScanInputs<'a> {
    /// Step sizes after softplus, `[b, t, c]`.
    pub delta: &'a Tensor,
    /// Decay rates, negative, `[c, n]`.
    pub a: &'a Tensor,
    /// Input projections, `[b, t, n]`.
    pub b: &'a Tensor,
    /// Output projections, `[b, t, n]`.
    pub c: &'a Tensor,
    /// Direct connection, `[c]`.
    pub d: Option<&'a Tensor>,
    /// State before the first step, `[b, c, n]`; zeros if `None`.
    pub h0: Option<&'a Tensor>,
}

/// Sizes: batch, time, channels, state.
pub(crate) type Sizes = [usize; 4];

impl Tensor {
    /// `h_t = exp(Δ_t·A)·h_{t−1} + Δ_t·B_t·u_t`, `y_t = C_t·h_t + D·u_t` for every channel, with `u` = `self`
    /// `[b, t, c]`. Returns `y` `[b, t, c]` and the last state `[b, c, n]`, which carries no gradient.
    ///
    /// # Errors
    /// Shapes do not fit, or types or devices differ.
    pub fn selective_scan(&self, s: &ScanInputs) -> Result<(Tensor, Tensor)> {
        let (inputs, sizes) = self.check_scan(s)?;
        if !(self.device().is_cpu() && self.dtype() == DType::F32) {
            return self.selective_scan_reference(s);
        }
        let [y, h] = cpu::forward(self, s, sizes)?;
        let (with_d, with_h0) = (s.d.is_some(), s.h0.is_some());
        let y = record(y, &inputs, move |ctx| cpu::backward(ctx, with_d, with_h0, sizes));
        Ok((y, h))
    }

    fn check_scan<'a>(&'a self, s: &ScanInputs<'a>) -> Result<(Vec<&'a Tensor>, Sizes)> {
        let op = "selective_scan";
        let inputs: Vec<&Tensor> = [self, s.delta, s.a, s.b, s.c].into_iter().chain(s.d).chain(s.h0).collect();
        for other in &inputs[1..] {
            same_kind(op, self, other)?;
        }
        let [b, t, c] = self.dims_n(op)?;
        let [_, n] = s.a.dims_n(op)?;
        let expect = |x: &Tensor, shape: &[usize]| {
            if x.shape() == shape { Ok(()) } else { Err(Error::shapes(op, x.shape(), shape)) }
        };
        expect(s.delta, &[b, t, c])?;
        expect(s.a, &[c, n])?;
        expect(s.b, &[b, t, n])?;
        expect(s.c, &[b, t, n])?;
        s.d.map_or(Ok(()), |d| expect(d, &[c]))?;
        s.h0.map_or(Ok(()), |h| expect(h, &[b, c, n]))?;
        Ok((inputs, [b, t, c, n]))
    }

    /// The reference form of [`Tensor::selective_scan`], step by step, composed of primitives.
    ///
    /// # Errors
    /// As [`Tensor::selective_scan`].
    pub fn selective_scan_reference(&self, s: &ScanInputs) -> Result<(Tensor, Tensor)> {
        let (_, [b, t, c, n]) = self.check_scan(s)?;
        let mut h = match s.h0 {
            Some(h) => h.clone(),
            None => Tensor::zeros([b, c, n], self.dtype(), self.device())?,
        };
        let mut ys = Vec::with_capacity(t);
        for i in 0..t {
            let step = |x: &Tensor| x.narrow(1, i, 1)?.squeeze(1);
            let delta = step(s.delta)?.unsqueeze(2)?;
            let input = step(self)?.unsqueeze(2)?.mul(&delta)?.mul(&step(s.b)?.unsqueeze(1)?)?;
            h = h.mul(&delta.mul(s.a)?.exp()?)?.add(&input)?;
            ys.push(h.mul(&step(s.c)?.unsqueeze(1)?)?.sum(&[2], false)?);
        }
        let mut y = match ys.is_empty() {
            true => Tensor::zeros([b, t, c], self.dtype(), self.device())?,
            false => Tensor::stack(&ys.iter().collect::<Vec<_>>(), 1)?,
        };
        if let Some(d) = s.d {
            y = y.add(&self.mul(d)?)?;
        }
        Ok((y, h.detach()))
    }
}
