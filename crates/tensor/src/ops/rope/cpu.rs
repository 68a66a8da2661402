use imaginal_kernels::rope::{RopeShape, rope};

use super::RopeStyle;
use crate::{Result, Tensor};

/// Rotates by the angles, or back.
pub(super) fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor, style: RopeStyle, inverse: bool) -> Result<Tensor> {
    let [b, t, h, d] = x.dims_n("rope")?;
    let (x, cos, sin) = (x.detach().contiguous()?, cos.contiguous()?, sin.contiguous()?);
    let shape = RopeShape { b, t, h, d, r: 2 * cos.shape()[1], per_batch: false };
    Tensor::build::<f32>(x.shape(), |out| {
        rope(shape, style, inverse, cos.as_slice()?, sin.as_slice()?, x.as_slice()?, out);
        Ok(())
    })
}
