use imaginal_kernels::loss;

use crate::{DType, Device, Result, Tensor};

/// What the backward pass needs: the logarithm of each row's sum, and how many rows count.
pub(super) struct Saved {
    lse: Vec<f32>,
    count: usize,
}

pub(super) fn forward(logits: &Tensor, targets: &[u32], ignore: Option<u32>) -> Result<(Tensor, Saved)> {
    let [n, v] = logits.dims_n("cross_entropy")?;
    let mut lse = vec![0.0; n];
    let loss = loss::cross_entropy(logits.as_slice()?, n, v, targets, ignore, &mut lse);
    let mean = if loss.count == 0 { 0.0 } else { loss.mean };
    Ok((Tensor::full((), mean, DType::F32, &Device::Cpu)?, Saved { lse, count: loss.count }))
}

pub(super) fn backward(
    logits: &Tensor,
    targets: &[u32],
    ignore: Option<u32>,
    saved: &Saved,
    grad: &Tensor,
) -> Result<Tensor> {
    let [n, v] = logits.dims_n("cross_entropy")?;
    let scale = grad.to_scalar::<f32>()? / saved.count.max(1) as f32;
    Tensor::build::<f32>([n, v], |out| {
        loss::cross_entropy_backward(logits.as_slice()?, n, v, targets, ignore, &saved.lse, scale, out);
        Ok(())
    })
}
