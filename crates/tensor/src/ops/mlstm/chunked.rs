//! The chunked form (Beck et al. 2025, "xLSTM 7B", appendix): attention within a chunk, the memory between chunks.

use super::{MlstmInputs, Sizes, normalise, with_ones};
use crate::ops::chunks;
use crate::{Result, Tensor, no_grad};

const CHUNK: usize = 64;
/// The logarithm of nothing: its power of `e` is 0, and sums with it stay finite.
const NOTHING: f64 = -1e30;

pub(super) fn forward(q: &Tensor, x: &MlstmInputs, sizes: Sizes) -> Result<(Tensor, [Tensor; 2])> {
    let [b, t, h, k, v] = sizes;
    let (memory, m0) = q.mlstm_state(x, sizes)?;
    if t == 0 || b * h * k * v == 0 {
        return Ok((Tensor::zeros([b, t, h, v], q.dtype(), q.device())?, [memory.detach(), m0.detach()]));
    }
    let len = chunks::length(t, CHUNK);
    let n = t.div_ceil(len);
    let g = b * h * n;
    let flat = |x: &Tensor| {
        let d = x.dim(3)?;
        chunks::cut(x, len)?.reshape([g, len, d])
    };
    let log_f = flat(&x.f.neg()?.softplus()?.neg()?.unsqueeze(3)?)?;
    let nothing = Tensor::full([b, n * len - t, h], NOTHING, q.dtype(), q.device())?;
    let log_i = chunks::cut(&Tensor::cat(&[x.i, &nothing], 1)?.unsqueeze(3)?, len)?.reshape([g, len, 1])?;
    let (qs, ks) = (flat(&q.mul_scalar((k as f64).powf(-0.5))?)?, flat(x.k)?);
    let vs = flat(&with_ones(x.v)?)?;

    let c = chunks::running(&log_f)?; // [g, len, 1]
    let end = chunks::last(&c)?; // [g, 1, 1]
    let mask = chunks::lower(len, false, q.device())?;
    // What the input of step s still counts at step t, and at the end of the chunk.
    let within = mask.select(&c.sub(&c.sub(&log_i)?.t()?)?, &Tensor::full((), NOTHING, q.dtype(), q.device())?)?;
    let to_end = end.sub(&c)?.add(&log_i)?;
    // The stabilisers: at every step, and at the borders of chunks.
    let (m, m_start, m_end, last) = no_grad(|| {
        let highest = to_end.max(1, true)?.reshape([b * h, n, 1])?;
        let falls = end.reshape([b * h, n, 1])?;
        let mut m = m0.reshape([b * h, 1, 1])?;
        let mut borders = Vec::with_capacity(n);
        for i in 0..n {
            let next = m.add(&falls.narrow(1, i, 1)?)?.maximum(&highest.narrow(1, i, 1)?)?;
            borders.push(std::mem::replace(&mut m, next));
        }
        let last = m.reshape([b, h])?;
        let start = Tensor::cat(&borders, 1)?;
        borders.remove(0);
        borders.push(m);
        let end = Tensor::cat(&borders, 1)?.reshape([g, 1, 1])?;
        let start = start.reshape([g, 1, 1])?;
        let m = within.max(2, true)?.maximum(&c.add(&start)?)?;
        Ok((m.detach(), start.detach(), end.detach(), last.detach()))
    })?;

    let scores = qs.matmul(&ks.t()?)?.mul(&within.sub(&m)?.exp()?)?;
    let from_border = qs.mul(&c.add(&m_start)?.sub(&m)?.exp()?)?;
    let fall = end.add(&m_start)?.sub(&m_end)?.exp()?.reshape([b * h, n, 1, 1])?;
    let written = ks.mul(&to_end.sub(&m_end)?.exp()?)?.t()?.matmul(&vs)?.reshape([b * h, n, k, v + 1])?;
    let (states, memory) = chunks::chain(&fall, &written, &memory.reshape([b * h, k, v + 1])?)?;
    let read = scores.matmul(&vs)?.add(&from_border.matmul(&states.reshape([g, k, v + 1])?)?)?;
    let y = normalise(&read, &m.neg()?.exp()?, x.eps)?.reshape([b * h, n, len, v])?;
    Ok((chunks::join(&y, b, t)?, [memory.reshape([b, h, k, v + 1])?, last]))
}
