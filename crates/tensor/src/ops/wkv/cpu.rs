use imaginal_kernels::wkv::{self, WkvShape};

use super::{Sizes, WkvInputs};
use crate::{Result, Tensor, no_grad};

/// The outputs and the last state.
pub(super) fn forward(r: &Tensor, x: &WkvInputs, [b, t, h, k, v]: Sizes) -> Result<(Tensor, Tensor)> {
    let dense = |x: &Tensor| no_grad(|| x.contiguous());
    let (r, log_decay, key, value) = (dense(r)?, dense(x.log_decay)?, dense(x.k)?, dense(x.v)?);
    let (bonus, s0) = (x.bonus.map(dense).transpose()?, x.s0.map(dense).transpose()?);
    let correction = x.correction.map(|(a, c)| Ok((dense(a)?, dense(c)?))).transpose()?;
    let inputs = wkv::WkvInputs {
        r: r.as_slice()?,
        log_decay: log_decay.as_slice()?,
        k: key.as_slice()?,
        v: value.as_slice()?,
        bonus: bonus.as_ref().map(Tensor::as_slice).transpose()?,
        correction: correction.as_ref().map(|(a, c)| Ok((a.as_slice()?, c.as_slice()?))).transpose()?,
        s0: s0.as_ref().map(Tensor::as_slice).transpose()?,
    };
    let [y, last] = Tensor::build_n::<f32, 2>([&[b, t, h, v][..], &[b, h, k, v][..]], |[y, last]| {
        wkv::wkv(WkvShape { b, t, h, k, v }, &inputs, y, last);
        Ok(())
    })?;
    Ok((y, last))
}
