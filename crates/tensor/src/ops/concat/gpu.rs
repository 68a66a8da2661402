use crate::gpu::{GpuStorage, storage};
use crate::ops::view::gpu::copy;
use crate::{Layout, Result, Tensor};

/// The parts, checked and at least one, one after another along `dim`; `shape` is that of the result.
pub(super) fn cat(parts: &[&Tensor], dim: usize, shape: Vec<usize>) -> Result<Tensor> {
    let op = "cat";
    let whole = Layout::contiguous(shape);
    let out = GpuStorage::scratch(storage(op, parts[0])?.device(), op, whole.count())?;
    let mut start = 0;
    for part in parts {
        let n = part.shape()[dim];
        copy(op, storage(op, part)?, part.layout(), &out, &whole.narrow(op, dim, start, n)?)?;
        start += n;
    }
    Ok(Tensor::from_gpu(out, whole.dims(), parts[0].dtype()))
}
