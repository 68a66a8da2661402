use imaginal_kernels::conv::{self, ConvGrads, ConvInputs, ConvShape};

use crate::autograd::{Backward, InputGrads};
use crate::{Result, Tensor};

fn shape([b, t, c, k]: [usize; 4]) -> ConvShape {
    ConvShape { b, t, c, k }
}

fn slice(t: &Option<Tensor>) -> Result<Option<&[f32]>> {
    t.as_ref().map(Tensor::as_slice).transpose()
}

/// The result and the new tail.
pub(super) fn forward(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    tail: Option<&Tensor>,
    silu: bool,
    sizes: [usize; 4],
) -> Result<[Tensor; 2]> {
    let dense = |t: &Tensor| t.detach().contiguous();
    let (x, w, bias, tail) = (dense(x)?, dense(w)?, bias.map(dense).transpose()?, tail.map(dense).transpose()?);
    let inputs = ConvInputs { x: x.as_slice()?, w: w.as_slice()?, bias: slice(&bias)?, tail: slice(&tail)?, silu };
    let [b, _, c, k] = sizes;
    Tensor::build_n::<f32, 2>([x.shape(), &[b, k - 1, c]], |[y, new_tail]| {
        conv::causal_conv1d(shape(sizes), &inputs, y, Some(new_tail));
        Ok(())
    })
}

pub(super) fn backward(ctx: &Backward, with_bias: bool, with_tail: bool, silu: bool, sizes: [usize; 4]) -> InputGrads {
    let x = ctx.inputs.iter().map(|t| t.detach().contiguous()).collect::<Result<Vec<_>>>()?;
    let dy = ctx.grad.contiguous()?;
    let tail = with_tail.then(|| &x[2 + with_bias as usize]);
    let inputs = ConvInputs {
        x: x[0].as_slice()?,
        w: x[1].as_slice()?,
        bias: with_bias.then(|| x[2].as_slice()).transpose()?,
        tail: tail.map(|t| t.as_slice()).transpose()?,
        silu,
    };
    let [b, _, c, k] = sizes;
    let (channels, tail_shape) = ([c], [b, k - 1, c]);
    let [dx, dw, dbias, dtail] =
        Tensor::build_n::<f32, 4>([x[0].shape(), x[1].shape(), &channels, &tail_shape], |[dx, dw, bias, tail]| {
            let grads = ConvGrads { x: dx, w: dw, bias: with_bias.then_some(bias), tail: with_tail.then_some(tail) };
            conv::causal_conv1d_backward(shape(sizes), &inputs, dy.as_slice()?, None, grads);
            Ok(())
        })?;
    let optional = [with_bias.then_some(dbias), with_tail.then_some(dtail)];
    Ok([dx, dw].into_iter().chain(optional.into_iter().flatten()).map(Some).collect())
}
