//! The chunked form: what happens within a chunk is products of matrices for all chunks at once, and only the states at the
//! borders follow one another (Yang et al. 2024, "Parallelizing linear transformers with the delta rule").

use super::{Sizes, WkvInputs};
use crate::ops::chunks::{self, Query};
use crate::{Result, Tensor};

/// Steps in a chunk. A corrected state costs a product of `[k, k]` with `[k, v]` per chunk.
const CHUNK: usize = 32;

pub(super) fn forward(r: &Tensor, x: &WkvInputs, [b, t, h, k, v]: Sizes) -> Result<(Tensor, Tensor)> {
    let s0 = match x.s0 {
        Some(s) => s.reshape([b * h, k, v])?,
        None => Tensor::zeros([b * h, k, v], r.dtype(), r.device())?,
    };
    if t == 0 || b * h * k * v == 0 {
        return Ok((Tensor::zeros([b, t, h, v], r.dtype(), r.device())?, s0.detach().reshape([b, h, k, v])?));
    }
    let len = chunks::length(t, CHUNK);
    let n = t.div_ceil(len);
    let g = b * h * n;
    let flat = |x: &Tensor| {
        let d = x.dim(3)?;
        chunks::cut(x, len)?.reshape([g, len, d])
    };
    let (w, rs, ks, vs) = (flat(x.log_decay)?, flat(r)?, flat(x.k)?, flat(x.v)?);
    let c = chunks::running(&w)?;
    let before = c.sub(&w)?;
    let end = chunks::last(&c)?;
    let read = Query { x: &rs, before: x.bonus.is_some() };
    let from_border = rs.mul(&if read.before { before.exp()? } else { c.exp()? })?;
    let to_border = end.sub(&c)?.exp()?;
    let keys = ks.mul(&to_border)?.t()?;

    // `y = inner + outer·S` and `S ← m·S + z`, with S the state before the chunk.
    let (inner, outer, m, z);
    if let Some((a, cs)) = x.correction {
        let (a, cs) = (flat(a)?, flat(cs)?);
        let scores = chunks::decayed_scores(&[read, Query { x: &a, before: true }], &[&ks, &cs], &w)?;
        let part = |q: usize, k: usize| scores.narrow(1, q, 1)?.narrow(3, k, 1)?.reshape([g, len, len]);
        // What the corrections read, u = Tᵤ·S + u₀, follows from u_t = a_t·(decayed S) + Σ_{s<t} (a_t·k_s)·v_s + (a_t·c_s)·u_s.
        let solve = chunks::inverse(&part(1, 1)?)?;
        let u_outer = solve.matmul(&a.mul(&before.exp()?)?)?;
        let u_inner = solve.matmul(&part(1, 0)?.matmul(&vs)?)?;
        let corrections = part(0, 1)?;
        let written = cs.mul(&to_border)?.t()?;
        let eye = chunks::lower(k, false, r.device())?;
        let eye = chunks::keep(&eye, &eye.t()?.to_dtype(r.dtype())?)?;
        let own = part(0, 0)?.matmul(&vs)?;
        let own = match x.bonus {
            Some(u) => own.add(&bonus(&rs, &ks, u, b, h, n)?.mul(&vs)?)?,
            None => own,
        };
        inner = own.add(&corrections.matmul(&u_inner)?)?;
        outer = from_border.add(&corrections.matmul(&u_outer)?)?;
        m = eye.mul(&end.exp()?)?.add(&written.matmul(&u_outer)?)?.reshape([b * h, n, k, k])?;
        z = keys.matmul(&vs)?.add(&written.matmul(&u_inner)?)?;
    } else {
        let own = chunks::decayed_scores(&[read], &[&ks], &w)?.reshape([g, len, len])?.matmul(&vs)?;
        inner = match x.bonus {
            Some(u) => own.add(&bonus(&rs, &ks, u, b, h, n)?.mul(&vs)?)?,
            None => own,
        };
        outer = from_border;
        m = end.exp()?.reshape([b * h, n, k, 1])?;
        z = keys.matmul(&vs)?;
    }
    let (states, last) = chunks::chain(&m, &z.reshape([b * h, n, k, v])?, &s0)?;
    let y = inner.add(&outer.matmul(&states.reshape([g, k, v])?)?)?;
    Ok((chunks::join(&y.reshape([b * h, n, len, v])?, b, t)?, last.reshape([b, h, k, v])?))
}

/// `Σ_k r·u·k`, `[g, len, 1]`.
fn bonus(r: &Tensor, k: &Tensor, u: &Tensor, b: usize, h: usize, n: usize) -> Result<Tensor> {
    let &[g, len, d] = k.shape() else { unreachable!("chunks have three dimensions") };
    let rk = r.mul(k)?.reshape([b, h, n * len, d])?;
    rk.matmul(&u.unsqueeze(2)?)?.reshape([g, len, 1])
}
