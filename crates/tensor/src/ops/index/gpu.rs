use cubecl::prelude::*;

use crate::gpu::{GpuStorage, Info, after, place};
use crate::{Layout, Result};

/// `info`: stride of the indexed dimension, layout of `x` without it (its size that of the result, its stride 0), layout
/// of the indices. Moves words, whatever type they are of.
#[cube(launch)]
fn gather_kernel(x: &[u32], ids: &[u32], info: &[u32], out: &mut [u32]) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let id = ids[place(info, after(info, 1), i as u32) as usize];
        out[i] = x[(place(info, 1, i as u32) + id * info[0]) as usize];
    }
}

/// `info`: size of the indexed dimension and of those after it, number of indices, their stride and that of `src`, then
/// the layouts of indices, `src` and `x`. Every result looks for the indices that name it: without atomics the sum has
/// one order and the same bits every time.
#[cube(launch)]
fn scatter_add_kernel(x: &[f32], ids: &[u32], src: &[f32], info: &[u32], out: &mut [f32]) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let mine = i as u32 / info[1] % info[0];
        let second = after(info, 5);
        let third = after(info, second);
        let at_ids = place(info, 5, i as u32);
        let at_src = place(info, second, i as u32);
        let mut sum = x[place(info, third, i as u32) as usize];
        let mut j = 0u32;
        while j < info[2] {
            if ids[(at_ids + j * info[3]) as usize] == mine {
                sum += src[(at_src + j * info[4]) as usize];
            }
            j += 1u32;
        }
        out[i] = sum;
    }
}

/// The layout with dimension `dim` of another size, in which nothing moves along it; and its stride.
fn still(layout: &Layout, dim: usize, size: usize) -> Result<(Layout, usize)> {
    let one = layout.narrow("index", dim, 0, layout.dims()[dim].min(1))?;
    let mut shape = one.dims().to_vec();
    shape[dim] = size;
    if layout.dims()[dim] == 0 {
        // Nothing will be read.
        return Ok((Layout::contiguous(shape), 0));
    }
    Ok((one.broadcast("index", &shape)?, layout.strides()[dim]))
}

/// `out[.., i, ..] = x[.., ids[.., i, ..], ..]`; the indices have the shape of the result (a broadcast view will do) and
/// have been checked.
pub(super) fn gather(
    op: &'static str,
    dim: usize,
    (x, lx): (&GpuStorage, &Layout),
    (ids, li): (&GpuStorage, &Layout),
) -> Result<GpuStorage> {
    let gpu = x.device();
    let out = GpuStorage::scratch(gpu, op, li.count())?;
    let (around, stride) = still(lx, dim, li.dims()[dim])?;
    let info = Info::new().number(stride).layout(&around).layout(li).upload(gpu)?;
    gpu.run(op, li.count(), |client, grid, dim| {
        gather_kernel::launch(client, grid, dim, x.arg(), ids.arg(), info.arg(), out.arg())
    })?;
    Ok(out)
}

/// `x` with `src[.., i, ..]` added at `[.., ids[.., i, ..], ..]`, dense; indices and `src` have one shape, that of `x`
/// besides `dim`, and the indices have been checked.
pub(super) fn scatter_add(
    op: &'static str,
    dim: usize,
    (x, lx): (&GpuStorage, &Layout),
    (ids, li): (&GpuStorage, &Layout),
    (src, ls): (&GpuStorage, &Layout),
) -> Result<GpuStorage> {
    let gpu = x.device();
    let out = GpuStorage::scratch(gpu, op, lx.count())?;
    let size = lx.dims()[dim];
    let inner: usize = lx.dims()[dim + 1..].iter().product();
    let ((around_ids, stride_ids), (around_src, stride_src)) = (still(li, dim, size)?, still(ls, dim, size)?);
    let mut info = Info::new();
    for n in [size, inner, li.dims()[dim], stride_ids, stride_src] {
        info = info.number(n);
    }
    let info = info.layout(&around_ids).layout(&around_src).layout(lx).upload(gpu)?;
    gpu.run(op, lx.count(), |client, grid, dim| {
        scatter_add_kernel::launch(client, grid, dim, x.arg(), ids.arg(), src.arg(), info.arg(), out.arg())
    })?;
    Ok(out)
}
