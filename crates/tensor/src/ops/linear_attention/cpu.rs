use imaginal_kernels::linear_attention::{self as kernel, LinearInputs, LinearShape};

use super::{HeadOrder, Sizes};
use crate::{Result, Tensor};

/// The outputs and the last state.
pub(super) fn forward(inputs: &[&Tensor], sizes: Sizes) -> Result<(Tensor, Tensor)> {
    let Sizes { b, t, g, h, k, v, .. } = sizes;
    let dense = inputs.iter().map(|x| x.detach().contiguous()).collect::<Result<Vec<_>>>()?;
    let slices = dense.iter().map(Tensor::as_slice).collect::<Result<Vec<&[f32]>>>()?;
    let x = LinearInputs {
        q: slices[0],
        k: slices[1],
        v: slices[2],
        decay: slices[3],
        beta: sizes.delta.then(|| slices[4]),
        state: sizes.state.then(|| slices[slices.len() - 1]),
        tiled: sizes.order == HeadOrder::Tiled,
    };
    let [y, last] = Tensor::build_n::<f32, 2>([&[b, t, h, v], &[b, h, k, v]], |[y, last]| {
        kernel::linear_attention(LinearShape { b, t, g, h, k, v }, &x, y, last);
        Ok(())
    })?;
    Ok((y, last))
}
