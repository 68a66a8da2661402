//! The chunked form. An input is known for good one step late: at every later step it counts `now + before` of the step after
//! it, at its own only `now`. So the scan is that of a plain decay with other weights on the diagonal.

use super::{Sizes, TrapezoidInputs};
use crate::ops::chunks;
use crate::{Result, Tensor};

/// Rows in a chunk: steps times rank.
const ROWS: usize = 64;
/// The logarithm of nothing.
const NOTHING: f64 = -1e30;

pub(super) fn forward(q: &Tensor, x: &TrapezoidInputs, sizes: Sizes) -> Result<(Tensor, [Tensor; 3])> {
    let [b, t, h, r, n, p] = sizes;
    let [s0, k0, v0] = q.trapezoid_state(x, sizes)?;
    if b * h * r * n * p == 0 {
        return q.trapezoid_scan_reference(x);
    }
    let len = chunks::length(t, (ROWS / r.next_power_of_two()).max(8));
    let c = t.div_ceil(len);
    let g = b * h * c;
    let flat = |x: &Tensor| {
        let d = x.dim(4)?;
        chunks::cut(&x.reshape([b, t, h, r * d])?, len)?.reshape([g, len * r, d])
    };
    let gate = |x: &Tensor| chunks::cut(&x.unsqueeze(3)?, len)?.reshape([g, len, 1]);
    let (qs, ks, vs) = (flat(q)?, flat(x.k)?, flat(x.v)?);
    let none = Tensor::zeros([b, 1, h], q.dtype(), q.device())?;
    let pending = Tensor::cat(&[&x.before.narrow(1, 1, t - 1)?, &none], 1)?;
    let (now, settled) = (gate(x.now)?, gate(&x.now.add(&pending)?)?);
    let falls = chunks::running(&gate(x.log_decay)?)?;
    let end = chunks::last(&falls)?;

    let nothing = Tensor::full((), NOTHING, q.dtype(), q.device())?;
    let strict = chunks::lower(len, true, q.device())?;
    let whole = chunks::lower(len, false, q.device())?;
    let eye = chunks::keep(&whole, &whole.t()?.to_dtype(q.dtype())?)?;
    let weights = strict.select(&falls.sub(&falls.t()?)?, &nothing)?.exp()?.mul(&settled.t()?)?;
    let weights = weights.add(&eye.mul(&now)?)?.reshape([g, len, 1, len, 1])?;
    let scores = qs.matmul(&ks.t()?)?.reshape([g, len, r, len, r])?.mul(&weights)?.reshape([g, len * r, len * r])?;
    // Each step's number for the rows of its step.
    let rows =
        |x: &Tensor, by: &Tensor, d: usize| x.reshape([g, len, r, d])?.mul(&by.unsqueeze(3)?)?.reshape([g, len * r, d]);
    let to_border = end.sub(&falls)?.exp()?.mul(&settled)?;
    let z = rows(&ks, &to_border, n)?.t()?.matmul(&vs)?.reshape([b * h, c, n, p])?;
    let first = x.before.narrow(1, 0, 1)?.reshape([b, h, 1, 1])?;
    let s0 = s0.add(&k0.t()?.matmul(&v0)?.mul(&first)?)?.reshape([b * h, n, p])?;
    let (states, last) = chunks::chain(&end.exp()?.reshape([b * h, c, 1, 1])?, &z, &s0)?;
    let y = rows(&qs, &falls.exp()?, n)?.matmul(&states.reshape([g, n, p])?)?.add(&scores.matmul(&vs)?)?;
    let y = chunks::join(&y.reshape([b * h, c, len, r * p])?, b, t)?.reshape([b, t, h, r, p])?;
    let final_row = |x: &Tensor| x.narrow(1, t - 1, 1)?.squeeze(1)?.detach().contiguous();
    Ok((y, [last.reshape([b, h, n, p])?, final_row(x.k)?, final_row(x.v)?]))
}
