use imaginal_kernels::slstm::{self, SlstmInputs, SlstmShape};

use super::Sizes;
use crate::autograd::{Backward, InputGrads};
use crate::{Result, Tensor};

/// The outputs and the last state.
pub(super) fn forward(x: &Tensor, r: &Tensor, state: Option<&Tensor>, [b, t, h, d]: Sizes) -> Result<[Tensor; 2]> {
    let dense = |x: &Tensor| x.detach().contiguous();
    let (x, r, state) = (dense(x)?, dense(r)?, state.map(dense).transpose()?);
    let s0 = state.as_ref().map(Tensor::as_slice).transpose()?;
    let inputs = SlstmInputs { x: x.as_slice()?, r: r.as_slice()?, s0 };
    Tensor::build_n::<f32, 2>([&[b, t, h, d][..], &[b, 4, h, d][..]], |[y, last]| {
        slstm::slstm(SlstmShape { b, t, h, d }, &inputs, y, last);
        Ok(())
    })
}

pub(super) fn backward(ctx: &Backward, with_state: bool, sizes: Sizes) -> InputGrads {
    let [b, t, h, d] = sizes;
    let dense = |x: &Tensor| x.detach().contiguous();
    let (x, r) = (dense(&ctx.inputs[0])?, dense(&ctx.inputs[1])?);
    let state = if with_state { Some(dense(&ctx.inputs[2])?) } else { None };
    let s0 = state.as_ref().map(Tensor::as_slice).transpose()?;
    let inputs = SlstmInputs { x: x.as_slice()?, r: r.as_slice()?, s0 };
    let dy = ctx.grad.contiguous()?;
    let dy = dy.as_slice()?;
    let [dx, ds] = Tensor::build_n::<f32, 2>([&[b, t, h, 4, d][..], &[b, 4, h, d][..]], |[dx, ds]| {
        slstm::slstm_backward(SlstmShape { b, t, h, d }, &inputs, dy, dx, Some(ds));
        Ok(())
    })?;
    let dr = if ctx.needs(1) && t > 0 {
        let first = match &state {
            Some(s) => s.narrow(1, 0, 1)?,
            None => Tensor::zeros([b, 1, h, d], x.dtype(), x.device())?,
        };
        let y = forward(&x, &r, state.as_ref(), sizes)?[0].narrow(1, 0, t - 1)?;
        let before = Tensor::cat(&[first, y], 1)?.permute(&[2, 3, 0, 1])?.reshape([h, d, b * t])?;
        let dx = dx.permute(&[2, 0, 1, 3, 4])?.reshape([h, b * t, 4 * d])?;
        Some(before.matmul(&dx)?.reshape([h, d, 4, d])?)
    } else {
        ctx.needs(1).then(|| r.zeros_like()).transpose()?
    };
    Ok([Some(dx), dr].into_iter().chain(with_state.then_some(Some(ds))).collect())
}
