use imaginal_kernels::scan::{self, ScanGrads, ScanShape};

use super::{ScanInputs, Sizes};
use crate::autograd::{Backward, InputGrads};
use crate::{Result, Tensor};

fn shape([b, t, c, n]: Sizes) -> ScanShape {
    ScanShape { b, t, c, n }
}

fn dense(t: &Tensor) -> Result<Tensor> {
    t.detach().contiguous()
}

fn slice(t: &Option<Tensor>) -> Result<Option<&[f32]>> {
    t.as_ref().map(Tensor::as_slice).transpose()
}

/// The outputs and the last state.
pub(super) fn forward(u: &Tensor, s: &ScanInputs, sizes: Sizes) -> Result<[Tensor; 2]> {
    let [u, delta, a, b, c] = [dense(u)?, dense(s.delta)?, dense(s.a)?, dense(s.b)?, dense(s.c)?];
    let (d, h0) = (s.d.map(dense).transpose()?, s.h0.map(dense).transpose()?);
    let inputs = scan::ScanInputs {
        u: u.as_slice()?,
        delta: delta.as_slice()?,
        a: a.as_slice()?,
        b: b.as_slice()?,
        c: c.as_slice()?,
        d: slice(&d)?,
        h0: slice(&h0)?,
    };
    let state = [sizes[0], sizes[2], sizes[3]];
    Tensor::build_n::<f32, 2>([u.shape(), &state], |[y, h]| {
        scan::selective_scan(shape(sizes), &inputs, y, h);
        Ok(())
    })
}

pub(super) fn backward(ctx: &Backward, with_d: bool, with_h0: bool, sizes: Sizes) -> InputGrads {
    let x = ctx.inputs.iter().map(dense).collect::<Result<Vec<_>>>()?;
    let dy = ctx.grad.contiguous()?;
    let h0 = with_h0.then(|| &x[5 + with_d as usize]);
    let inputs = scan::ScanInputs {
        u: x[0].as_slice()?,
        delta: x[1].as_slice()?,
        a: x[2].as_slice()?,
        b: x[3].as_slice()?,
        c: x[4].as_slice()?,
        d: with_d.then(|| x[5].as_slice()).transpose()?,
        h0: h0.map(|h| h.as_slice()).transpose()?,
    };
    let (channels, state) = ([sizes[2]], [sizes[0], sizes[2], sizes[3]]);
    let shapes = [x[0].shape(), x[1].shape(), x[2].shape(), x[3].shape(), x[4].shape(), &channels, &state];
    let dy = dy.as_slice()?;
    let [du, ddelta, da, db, dc, dd, dh0] = Tensor::build_n::<f32, 7>(shapes, |[u, delta, a, b, c, d, h0]| {
        let (d, h0) = (with_d.then_some(d), with_h0.then_some(h0));
        scan::selective_scan_backward(shape(sizes), &inputs, dy, None, ScanGrads { u, delta, a, b, c, d, h0 });
        Ok(())
    })?;
    let optional = [with_d.then_some(dd), with_h0.then_some(dh0)];
    Ok([du, ddelta, da, db, dc].into_iter().chain(optional.into_iter().flatten()).map(Some).collect())
}
