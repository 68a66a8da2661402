//! Causal depthwise convolution along time, the short filter of Mamba and its relatives (Gu and Dao 2023).

mod cpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::ops::binary::same_kind;
use crate::{DType, Error, Result, Tensor};

impl Tensor {
    /// `y[b, t, c] = act(bias[c] + Σ_j w[c, j] · x[b, t − (k − 1) + j, c])` with `x` `[b, t, c]`, `w` `[c, k]`. `tail`
    /// `[b, k − 1, c]` are the inputs before the first (zeros if `None`); `silu` chooses the activation, else none.
    ///
    /// Returns `y` and the tail for the next call; the tail carries no gradient (truncated backpropagation).
    ///
    /// # Errors
    /// Shapes do not fit, or types or devices differ.
    pub fn causal_conv1d(
        &self,
        w: &Tensor,
        bias: Option<&Tensor>,
        tail: Option<&Tensor>,
        silu: bool,
    ) -> Result<(Tensor, Tensor)> {
        let (inputs, [b, t, c], k) = self.check_conv(w, bias, tail)?;
        if !(self.device().is_cpu() && self.dtype() == DType::F32) {
            return self.causal_conv1d_reference(w, bias, tail, silu);
        }
        let [y, new_tail] = cpu::forward(self, w, bias, tail, silu, [b, t, c, k])?;
        let (with_bias, with_tail) = (bias.is_some(), tail.is_some());
        let y = record(y, &inputs, move |ctx| cpu::backward(ctx, with_bias, with_tail, silu, [b, t, c, k]));
        Ok((y, new_tail))
    }

    fn check_conv<'a>(
        &'a self,
        w: &'a Tensor,
        bias: Option<&'a Tensor>,
        tail: Option<&'a Tensor>,
    ) -> Result<(Vec<&'a Tensor>, [usize; 3], usize)> {
        let op = "causal_conv1d";
        let inputs: Vec<&Tensor> = [self, w].into_iter().chain(bias).chain(tail).collect();
        for other in &inputs[1..] {
            same_kind(op, self, other)?;
        }
        let [b, t, c] = self.dims_n(op)?;
        let [wc, k] = w.dims_n(op)?;
        if wc != c || k == 0 {
            return Err(Error::shapes(op, self.shape(), w.shape()));
        }
        if let Some(bias) = bias.filter(|x| x.shape() != [c]) {
            return Err(Error::shapes(op, w.shape(), bias.shape()));
        }
        if let Some(tail) = tail.filter(|x| x.shape() != [b, k - 1, c]) {
            return Err(Error::shapes(op, self.shape(), tail.shape()));
        }
        Ok((inputs, [b, t, c], k))
    }

    /// The reference form of [`Tensor::causal_conv1d`], composed of primitives.
    ///
    /// # Errors
    /// As [`Tensor::causal_conv1d`].
    pub fn causal_conv1d_reference(
        &self,
        w: &Tensor,
        bias: Option<&Tensor>,
        tail: Option<&Tensor>,
        silu: bool,
    ) -> Result<(Tensor, Tensor)> {
        let (_, [b, t, c], k) = self.check_conv(w, bias, tail)?;
        let tail = match tail {
            Some(tail) => tail.clone(),
            None => Tensor::zeros([b, k - 1, c], self.dtype(), self.device())?,
        };
        let all = Tensor::cat(&[&tail, self], 1)?;
        let mut y: Option<Tensor> = None;
        for j in 0..k {
            let term = all.narrow(1, j, t)?.mul(&w.narrow(1, j, 1)?.squeeze(1)?)?;
            y = Some(match y {
                Some(sum) => sum.add(&term)?,
                None => term,
            });
        }
        let mut y = y.ok_or_else(|| Error::argument("causal_conv1d", "the filter is empty"))?;
        if let Some(bias) = bias {
            y = y.add(bias)?;
        }
        if silu {
            y = y.silu()?;
        }
        Ok((y, all.detach().narrow(1, t, k - 1)?.contiguous()?))
    }
}
