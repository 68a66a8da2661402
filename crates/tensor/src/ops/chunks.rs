//! What recurrences share that are computed chunk by chunk: cutting time into chunks, running sums on every device,
//! products of keys and queries under decay, the chain of states from chunk to chunk. All of it is composed of
//! primitives and has gradients.

use crate::autograd::record;
use crate::{DType, Device, Result, Tensor, no_grad};

/// Steps between two reference points of [`decayed_scores`].
const SUB: usize = 8;
/// Within [`SUB`] steps a decay below `e^-16`, a rounding error of f32, counts as `e^-16`: then no power of `e` leaves
/// ±64, and products of two of them lose nothing.
const LEAST_LOG: f64 = -16.0;

/// A chunk's length for `t` steps: a power of two from [`SUB`] to `most`.
pub(crate) fn length(t: usize, most: usize) -> usize {
    t.next_power_of_two().clamp(SUB, most)
}

/// `x[b, t, h, d]` → `[b·h, chunks, len, d]`; steps beyond `t` are zeros.
pub(crate) fn cut(x: &Tensor, len: usize) -> Result<Tensor> {
    let [b, t, h, d] = x.dims_n("chunks")?;
    let n = t.div_ceil(len);
    let x = x.permute(&[0, 2, 1, 3])?;
    let x = match n * len - t {
        0 => x,
        short => Tensor::cat(&[&x, &Tensor::zeros([b, h, short, d], x.dtype(), x.device())?], 2)?,
    };
    x.reshape([b * h, n, len, d])
}

/// The reverse of [`cut`].
pub(crate) fn join(x: &Tensor, b: usize, t: usize) -> Result<Tensor> {
    let [bh, n, len, d] = x.dims_n("chunks")?;
    x.reshape([b, bh / b.max(1), n * len, d])?.narrow(2, 0, t)?.permute(&[0, 2, 1, 3])
}

/// `[n, n]`, true where the column is not (`strict`: and is not the row) after the row.
pub(crate) fn lower(n: usize, strict: bool, device: &Device) -> Result<Tensor> {
    let at = Tensor::arange(0.0, n as f64, 1.0, DType::F32, device)?;
    let (row, column) = (at.unsqueeze(1)?, at.unsqueeze(0)?);
    if strict { column.lt(&row) } else { column.le(&row) }
}

/// `x` where `mask` is true, else zero, whatever `x` is there.
pub(crate) fn keep(mask: &Tensor, x: &Tensor) -> Result<Tensor> {
    mask.select(x, &Tensor::zeros((), x.dtype(), x.device())?)
}

/// Running sums over the dimension before the last.
pub(crate) fn running(x: &Tensor) -> Result<Tensor> {
    x.cumsum(x.rank() - 2)
}

/// The last of `x[.., n, d]`, as `[.., 1, d]`.
pub(crate) fn last(x: &Tensor) -> Result<Tensor> {
    x.narrow(x.rank() - 2, x.shape()[x.rank() - 2] - 1, 1)
}

/// One side of [`decayed_scores`].
pub(crate) struct Query<'a> {
    pub x: &'a Tensor,
    /// Whether it reads the state before its own step.
    pub before: bool,
}

/// `Σ_d q_t·k_s·e^(c_t − c_s)` for every query and key, with `c` the running sum of `w` over the chunk, and `c_t − w_t` in
/// the place of `c_t` for queries that read before their step; zero where `s` comes too late. `w` and what stands in
/// `queries` and `keys` is `[g, len, d]`; the result `[g, queries, len, keys, len]`.
///
/// Powers of `e` are taken of differences from a reference point only: between parts of [`SUB`] steps that is the
/// border before the query (both powers are then at most 1), within one its middle.
pub(crate) fn decayed_scores(queries: &[Query], keys: &[&Tensor], w: &Tensor) -> Result<Tensor> {
    let [g, len, d] = w.dims_n("decayed scores")?;
    let (nq, nk, m) = (queries.len(), keys.len(), len / SUB);
    let parts = |x: &Tensor| x.reshape([g, m, SUB, d]);
    let clamped = parts(&w.clamp(LEAST_LOG, 0.0)?)?;
    let local = running(&clamped)?;
    let before = local.sub(&clamped)?;
    let middle = local.narrow(2, SUB / 2 - 1, 1)?;
    let q = queries.iter().map(|q| {
        let c = if q.before { &before } else { &local };
        parts(q.x)?.mul(&c.sub(&middle)?.exp()?)
    });
    let q = Tensor::cat(&q.collect::<Result<Vec<_>>>()?, 2)?;
    let rise = middle.sub(&local)?.exp()?;
    let k = keys.iter().map(|k| parts(k)?.mul(&rise)).collect::<Result<Vec<_>>>()?;
    let inner = q.matmul(&Tensor::cat(&k, 2)?.t()?)?.reshape([g, m, nq, SUB, nk, SUB])?;
    let masks = queries.iter().map(|q| lower(SUB, q.before, w.device())?.unsqueeze(1));
    let inner = keep(&Tensor::stack(&masks.collect::<Result<Vec<_>>>()?, 0)?, &inner)?;
    if m == 1 {
        return inner.squeeze(1);
    }

    let c = running(w)?;
    let before = c.sub(w)?;
    let q = queries.iter().map(|q| Ok((q.x, if q.before { before.clone() } else { c.clone() })));
    let q = q.collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::with_capacity(m);
    for i in 0..m {
        let at = i * SUB;
        let mut row = Vec::new();
        if i > 0 {
            let border = before.narrow(1, at, 1)?;
            let fall = border.sub(&c.narrow(1, 0, at)?)?.exp()?;
            let k = keys.iter().map(|k| k.narrow(1, 0, at)?.mul(&fall)).collect::<Result<Vec<_>>>()?;
            let q = q.iter().map(|(x, c)| {
                let c = c.narrow(1, at, SUB)?.sub(&border)?;
                x.narrow(1, at, SUB)?.mul(&c.exp()?)
            });
            let q = Tensor::cat(&q.collect::<Result<Vec<_>>>()?, 1)?;
            row.push(q.matmul(&Tensor::cat(&k, 1)?.t()?)?.reshape([g, nq, SUB, nk, at])?);
        }
        row.push(inner.narrow(1, i, 1)?.squeeze(1)?);
        if i + 1 < m {
            row.push(Tensor::zeros([g, nq, SUB, nk, len - at - SUB], w.dtype(), w.device())?);
        }
        rows.push(Tensor::cat(&row, 4)?);
    }
    Tensor::cat(&rows, 2)
}

/// `(1 − n)⁻¹` for strictly lower triangular `n[g, len, len]`, `len` a power of two: halves are inverted first and the
/// corner is `T₂₂·n₂₁·T₁₁`. Powers of `n`, which a product formula would need, may be larger than the result by far.
pub(crate) fn inverse(n: &Tensor) -> Result<Tensor> {
    fn halves(n: &Tensor) -> Result<Tensor> {
        let [g, len, _] = n.dims_n("triangular inverse")?;
        if len == 1 {
            return n.ones_like();
        }
        let h = len / 2;
        let block = |i: usize, j: usize| n.narrow(1, i * h, h)?.narrow(2, j * h, h);
        let both = halves(&Tensor::cat(&[block(0, 0)?, block(1, 1)?], 0)?)?;
        let (first, second) = (both.narrow(0, 0, g)?, both.narrow(0, g, g)?);
        let corner = second.matmul(&block(1, 0)?)?.matmul(&first)?;
        let top = Tensor::cat(&[&first, &first.zeros_like()?], 2)?;
        Tensor::cat(&[top, Tensor::cat(&[corner, second], 2)?], 1)
    }
    let t = no_grad(|| halves(n))?;
    let saved = t.detach();
    Ok(record(t, &[n], move |b| {
        let back = saved.t()?;
        Ok(vec![Some(back.matmul(b.grad)?.matmul(&back)?)])
    }))
}

/// The states of `S ← m·S + z` from `s0[g, k, v]` on, before each chunk, `[g, n, k, v]`, and the last, which carries no
/// gradient. `z` is `[g, n, k, v]`, `m` a matrix `[g, n, k, k]` or factors `[g, n, k or 1, 1]`.
pub(crate) fn chain(m: &Tensor, z: &Tensor, s0: &Tensor) -> Result<(Tensor, Tensor)> {
    let n = z.dim(1)?;
    let times = |m: &Tensor, s: &Tensor| if m.dim(2)? == m.dim(3)? && m.dim(2)? > 1 { m.matmul(s) } else { m.mul(s) };
    let (states, end) = no_grad(|| {
        let mut s = s0.detach().unsqueeze(1)?;
        let mut states = Vec::with_capacity(n);
        for i in 0..n {
            let next = times(&m.narrow(1, i, 1)?, &s)?.add(&z.narrow(1, i, 1)?)?;
            states.push(std::mem::replace(&mut s, next));
        }
        Ok((Tensor::cat(&states, 1)?, s.squeeze(1)?))
    })?;
    let saved = states.detach();
    let states = record(states, &[m, z, s0], move |b| {
        let m = &b.inputs[0];
        let turned = if m.dim(2)? == m.dim(3)? { m.t()? } else { m.clone() };
        // `after` is the gradient of the state after chunk i, all of it.
        let mut after = b.grad.narrow(1, 0, 1)?.zeros_like()?;
        let mut all = Vec::with_capacity(n);
        for i in (0..n).rev() {
            let before = times(&turned.narrow(1, i, 1)?, &after)?.add(&b.grad.narrow(1, i, 1)?)?;
            all.push(std::mem::replace(&mut after, before));
        }
        all.reverse();
        let all = Tensor::cat(&all, 1)?;
        let dm = if m.dim(2)? == m.dim(3)? && m.dim(2)? > 1 {
            all.matmul(&saved.t()?)?
        } else {
            all.mul(&saved)?.sum_to(m.shape())?
        };
        Ok(vec![Some(dm), Some(all), Some(after.squeeze(1)?)])
    });
    Ok((states, end.detach()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_grads, difference, noise, sample};

    #[test]
    fn inverses_stay_exact_where_powers_explode() {
        // With −1 everywhere below the diagonal powers have entries of 10¹⁸, the inverse has only 0, 1 and −1.
        let n = keep(
            &lower(64, true, &Device::Cpu).unwrap(),
            &Tensor::full([1, 64, 64], -1.0, DType::F32, &Device::Cpu).unwrap(),
        );
        let t = inverse(&n.unwrap()).unwrap().to_vec::<f32>().unwrap();
        for (i, &x) in t.iter().enumerate() {
            let expected = if i / 64 == i % 64 {
                1.0
            } else if i / 64 == i % 64 + 1 {
                -1.0
            } else {
                0.0
            };
            assert_eq!(x, expected, "{i}");
        }
        let mask = lower(8, true, &Device::Cpu).unwrap();
        check_grads(&[sample(&[2, 8, 8]).mul_scalar(0.3).unwrap()], |x| inverse(&keep(&mask, &x[0])?));
    }

    #[test]
    fn gradients_go_along_the_chain() {
        let (z, s0) = (sample(&[2, 3, 2, 3]), sample(&[2, 2, 3]).mul_scalar(0.7).unwrap());
        for m in [sample(&[2, 3, 2, 2]), sample(&[2, 3, 2, 1]), sample(&[2, 3, 1, 1])] {
            check_grads(&[m, z.clone(), s0.clone()], |x| Ok(chain(&x[0], &x[1], &x[2])?.0));
        }
    }

    #[test]
    fn cutting_and_joining_give_back() {
        let x = noise(&[2, 13, 3, 5], 1);
        assert_eq!(cut(&x, 8).unwrap().shape(), [6, 2, 8, 5]);
        assert_eq!(difference(&join(&cut(&x, 8).unwrap(), 2, 13).unwrap(), &x), 0.0);
    }
}
