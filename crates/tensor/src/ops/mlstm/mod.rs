//! The matrix memory of xLSTM (Beck et al. 2024, §2.3), with exponential gates and their stabiliser.

mod chunked;
mod cpu;
#[cfg(test)]
mod tests;

use crate::ops::binary::same_kind;
use crate::{DType, Error, Result, Tensor, is_grad_enabled};

/// The inputs of [`Tensor::mlstm`] besides the queries.
#[derive(Clone, Copy, Debug)]
pub struct MlstmInputs<'a> {
    /// Keys, `[b, t, h, k]`.
    pub k: &'a Tensor,
    /// Values, `[b, t, h, v]`.
    pub v: &'a Tensor,
    /// Logarithms of the input gates, `[b, t, h]`.
    pub i: &'a Tensor,
    /// Forget gates before their sigmoid, `[b, t, h]`.
    pub f: &'a Tensor,
    /// The state before the first step: memory `[b, h, k, v + 1]` and stabiliser `[b, h]`; zeros if `None`.
    pub state: Option<(&'a Tensor, &'a Tensor)>,
    /// Added to the normaliser.
    pub eps: f64,
}

/// Sizes: batch, time, heads, elements of a key, of a value.
pub(crate) type Sizes = [usize; 5];

impl Tensor {
    /// With queries `q` = `self` `[b, t, h, k]`, for every head:
    ///
    /// `m_t = max(ln σ(f_t) + m_{t−1}, i_t)`, `f′ = e^(ln σ(f_t) + m_{t−1} − m_t)`, `i′ = e^(i_t − m_t)`,
    /// `C_t = f′·C_{t−1} + i′·k_t·v_tᵀ`, `n_t = f′·n_{t−1} + i′·k_t`,
    /// `y_t = C_tᵀq / (max(|n_tᵀq|, e^(−m_t)) + eps)` with `q` divided by `√k`.
    ///
    /// Returns `y` `[b, t, h, v]` and the last state: the memory `[b, h, k, v + 1]`, which is `C` with `n` as its last
    /// column, and `m` `[b, h]`; they carry no gradient. The stabiliser cancels but for `eps` and counts as a constant.
    ///
    /// Where gradients are wanted, and on other devices, it is computed by chunks of matrix products; else from step to
    /// step. They differ in rounding.
    ///
    /// # Errors
    /// Shapes do not fit, or types or devices differ.
    pub fn mlstm(&self, x: &MlstmInputs) -> Result<(Tensor, [Tensor; 2])> {
        let (inputs, sizes) = self.check_mlstm(x)?;
        let wants_grad = is_grad_enabled() && inputs.iter().any(|t| t.tracks_grad());
        match self.device().is_cpu() && self.dtype() == DType::F32 && !wants_grad {
            true => cpu::forward(self, x, sizes),
            false => chunked::forward(self, x, sizes),
        }
    }

    fn check_mlstm<'a>(&'a self, x: &MlstmInputs<'a>) -> Result<(Vec<&'a Tensor>, Sizes)> {
        let op = "mlstm";
        let [b, t, h, k] = self.dims_n(op)?;
        let [_, _, _, v] = x.v.dims_n(op)?;
        let mut inputs = vec![(self, vec![b, t, h, k]), (x.k, vec![b, t, h, k]), (x.v, vec![b, t, h, v])];
        inputs.extend([(x.i, vec![b, t, h]), (x.f, vec![b, t, h])]);
        if let Some((memory, m)) = x.state {
            inputs.extend([(memory, vec![b, h, k, v + 1]), (m, vec![b, h])]);
        }
        for (x, shape) in &inputs {
            same_kind(op, self, x)?;
            if x.shape() != shape {
                return Err(Error::shapes(op, x.shape(), shape));
            }
        }
        Ok((inputs.into_iter().map(|(x, _)| x).collect(), [b, t, h, k, v]))
    }

    /// The state before the first step.
    fn mlstm_state(&self, x: &MlstmInputs, [b, _, h, k, v]: Sizes) -> Result<(Tensor, Tensor)> {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, self.dtype(), self.device());
        match x.state {
            Some((memory, m)) => Ok((memory.clone(), m.clone())),
            None => Ok((zeros(&[b, h, k, v + 1])?, zeros(&[b, h])?)),
        }
    }

    /// The reference form of [`Tensor::mlstm`], step by step, composed of primitives, with gradients through the
    /// stabiliser.
    ///
    /// # Errors
    /// As [`Tensor::mlstm`].
    pub fn mlstm_reference(&self, x: &MlstmInputs) -> Result<(Tensor, [Tensor; 2])> {
        let (_, sizes @ [b, t, h, k, v]) = self.check_mlstm(x)?;
        let (memory, m) = self.mlstm_state(x, sizes)?;
        let (mut c, mut n) = (memory.narrow(3, 0, v)?, memory.narrow(3, v, 1)?);
        let mut m = m.reshape([b, h, 1, 1])?;
        let mut ys = Vec::with_capacity(t);
        for i in 0..t {
            let gate = |x: &Tensor| x.narrow(1, i, 1)?.reshape([b, h, 1, 1]);
            let row = |x: &Tensor| x.narrow(1, i, 1)?.squeeze(1)?.unsqueeze(2);
            let (log_f, log_i) = (gate(x.f)?.neg()?.softplus()?.neg()?.add(&m)?, gate(x.i)?);
            let next = log_f.maximum(&log_i)?;
            let (f, i) = (log_f.sub(&next)?.exp()?, log_i.sub(&next)?.exp()?);
            let key = row(x.k)?.t()?.mul(&i)?;
            c = c.mul(&f)?.add(&key.mul(&row(x.v)?)?)?;
            n = n.mul(&f)?.add(&key)?;
            let q = row(self)?.mul_scalar((k as f64).powf(-0.5))?;
            let floor = next.neg()?.exp()?;
            ys.push(q.matmul(&c)?.div(&q.matmul(&n)?.abs()?.maximum(&floor)?.add_scalar(x.eps)?)?.squeeze(2)?);
            m = next;
        }
        let y = match ys.is_empty() {
            true => Tensor::zeros([b, t, h, v], self.dtype(), self.device())?,
            false => Tensor::stack(&ys, 1)?,
        };
        Ok((y, [Tensor::cat(&[c, n], 3)?.detach(), m.reshape([b, h])?.detach()]))
    }
}

/// `C·q / (max(|n·q|, floor) + eps)` from `[.., v + 1]`, whose last column is `n·q`.
fn normalise(read: &Tensor, floor: &Tensor, eps: f64) -> Result<Tensor> {
    let last = read.rank() - 1;
    let v = read.dim(last)? - 1;
    let n = read.narrow(last, v, 1)?.abs()?.maximum(floor)?.add_scalar(eps)?;
    read.narrow(last, 0, v)?.div(&n)
}

/// `[.., v]` → `[.., v + 1]` with ones at the end, by which the memory learns its normaliser.
fn with_ones(v: &Tensor) -> Result<Tensor> {
    let last = v.rank() - 1;
    let ones = Tensor::ones((), v.dtype(), v.device())?;
    let shape: Vec<usize> = v.shape()[..last].iter().copied().chain([1]).collect();
    Tensor::cat(&[v, &ones.broadcast_as(shape)?], last)
}
