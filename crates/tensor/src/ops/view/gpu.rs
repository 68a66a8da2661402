use cubecl::prelude::*;

use crate::gpu::{GpuDevice, GpuStorage, Info, after, place, storage};
use crate::{Layout, Result, Tensor};

/// Copies words, whatever type they are of, from one strided view to another.
#[cube(launch)]
fn copy_kernel(x: &[u32], info: &[u32], out: &mut [u32]) {
    let i = ABSOLUTE_POS as u32;
    if i < info[0] {
        let to = place(info, after(info, 1), i);
        out[to as usize] = x[place(info, 1, i) as usize];
    }
}

#[cube(launch)]
fn fill_kernel(out: &mut [u32], word: u32) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        out[i] = word;
    }
}

/// Copies the elements of the view `from` of `x` over those of the view `to` of `out`, of the same sizes. The caller
/// has made sure that nobody else sees `out`.
pub(crate) fn copy(op: &'static str, x: &GpuStorage, from: &Layout, out: &GpuStorage, to: &Layout) -> Result<()> {
    let gpu = x.device();
    let info = Info::new().number(from.count()).layout(from).layout(to).upload(gpu)?;
    gpu.run(op, from.count(), |client, grid, dim| {
        copy_kernel::launch(client, grid, dim, x.arg(), info.arg(), out.arg())
    })
}

/// The elements of a view, row-major, in storage of their own.
pub(crate) fn dense(op: &'static str, x: &GpuStorage, layout: &Layout) -> Result<GpuStorage> {
    let out = GpuStorage::scratch(x.device(), op, layout.count())?;
    copy(op, x, layout, &out, &Layout::contiguous(layout.dims()))?;
    Ok(out)
}

/// `n` times the word `word`.
pub(crate) fn fill(gpu: &GpuDevice, n: usize, word: u32) -> Result<GpuStorage> {
    let out = GpuStorage::scratch(gpu, "full", n)?;
    gpu.run("full", n, |client, grid, dim| fill_kernel::launch(client, grid, dim, out.arg(), word))?;
    Ok(out)
}

/// [`Tensor::copy_into`], its arguments checked.
pub(super) fn copy_into(x: &mut Tensor, dim: usize, start: usize, src: &Tensor) -> Result<()> {
    let op = "copy_into";
    if !x.claim_gpu_storage() {
        *x = x.deep_copy()?;
    }
    let target = x.layout().narrow(op, dim, start, src.dim(dim)?)?;
    copy(op, storage(op, src)?, src.layout(), storage(op, x)?, &target)
}
