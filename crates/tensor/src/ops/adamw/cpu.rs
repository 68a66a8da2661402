use imaginal_kernels::optim::{AdamW, adamw};

use crate::{Error, Result, Tensor};

pub(super) fn step(
    param: &mut Tensor,
    grad: &Tensor,
    first: &mut Tensor,
    second: &mut Tensor,
    settings: &AdamW,
) -> Result<()> {
    let grad = grad.contiguous()?;
    let (param, first, second) = (own(param)?, own(first)?, own(second)?);
    adamw(settings, param, grad.as_slice()?, first, second);
    Ok(())
}

/// The elements for writing; a copy's where the tensor shares its storage or is a strided view.
fn own(t: &mut Tensor) -> Result<&mut [f32]> {
    if t.unique_slice_mut::<f32>().is_none() {
        let dense = t.detach().contiguous()?;
        *t = Tensor::from_slice(dense.as_slice::<f32>()?, dense.shape(), &crate::Device::Cpu)?;
    }
    t.unique_slice_mut().ok_or_else(|| Error::argument("adamw_step", "a fresh copy is not writable"))
}
