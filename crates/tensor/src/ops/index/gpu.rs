use cubecl::prelude::*;

use crate::gpu::{GpuStorage, Info, after, float_storage, place, storage};
use crate::{Layout, Result, Tensor};

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

/// The layout with dimension `dim` replaced by `sizes`, along which nothing moves; and the stride it had.
fn still(layout: &Layout, dim: usize, sizes: &[usize]) -> Result<(Layout, usize)> {
    let shape = [&layout.dims()[..dim], sizes, &layout.dims()[dim + 1..]].concat();
    if layout.dims()[dim] == 0 {
        // Nothing will be read.
        return Ok((Layout::contiguous(shape), 0));
    }
    let mut one = layout.narrow("index", dim, 0, 1)?.remove_dim(dim);
    for _ in sizes {
        one = one.insert_dim(dim);
    }
    Ok((one.broadcast("index", &shape)?, layout.strides()[dim]))
}

/// The layout of the indices, as often as each is used: with `behind` more dimensions, broadcast to `shape`.
fn spread(ids: &Layout, behind: usize, shape: &[usize]) -> Result<Layout> {
    let mut layout = ids.clone();
    for _ in 0..behind {
        layout = layout.insert_dim(layout.dims().len());
    }
    layout.broadcast("index", shape)
}

/// [`Tensor::index_select`], its indices checked; `shape` is that of the result.
pub(super) fn index_select(x: &Tensor, dim: usize, ids: &Tensor, shape: Vec<usize>) -> Result<Tensor> {
    let around = still(x.layout(), dim, ids.shape())?;
    pick("index_select", x, around, ids, &spread(ids.layout(), x.rank() - dim - 1, &shape)?)
}

/// [`Tensor::gather`], its indices checked.
pub(super) fn gather(x: &Tensor, dim: usize, ids: &Tensor) -> Result<Tensor> {
    let region = region(x.layout(), dim, ids.shape())?;
    pick("gather", x, still(&region, dim, &[ids.shape()[dim]])?, ids, ids.layout())
}

fn pick(op: &'static str, x: &Tensor, around: (Layout, usize), ids: &Tensor, li: &Layout) -> Result<Tensor> {
    let (sx, si) = (storage(op, x)?, storage(op, ids)?);
    let gpu = sx.device();
    let out = GpuStorage::scratch(gpu, op, li.count())?;
    let info = Info::new().number(around.1).layout(&around.0).layout(li).upload(gpu)?;
    gpu.run(op, li.count(), |client, grid, dim| {
        gather_kernel::launch(client, grid, dim, sx.arg(), si.arg(), info.arg(), out.arg())
    })?;
    Ok(Tensor::from_gpu(out, li.dims(), x.dtype()))
}

/// The part of `x` whose sizes besides `dim` are those of `shape`.
fn region(x: &Layout, dim: usize, shape: &[usize]) -> Result<Layout> {
    let mut region = x.clone();
    for d in (0..shape.len()).filter(|&d| d != dim) {
        region = region.narrow("index", d, 0, shape[d])?;
    }
    Ok(region)
}

/// [`Tensor::index_add`], its indices checked.
pub(super) fn index_add(x: &Tensor, dim: usize, ids: &Tensor, src: &Tensor) -> Result<Tensor> {
    // The dimensions of the indices become one.
    let (n, flat) = (ids.elem_count(), ids.reshape(ids.elem_count())?);
    let mut shape = x.shape().to_vec();
    shape[dim] = n;
    let src = crate::no_grad(|| src.reshape(&shape))?;
    let li = spread(flat.layout(), x.rank() - dim - 1, &shape)?;
    Ok(Tensor::from_gpu(add("index_add", x, x.layout(), dim, (&flat, &li), &src)?, x.shape(), x.dtype()))
}

/// [`Tensor::scatter_add`], its indices checked.
pub(super) fn scatter_add(x: &Tensor, dim: usize, ids: &Tensor, src: &Tensor) -> Result<Tensor> {
    let op = "scatter_add";
    let touched = region(x.layout(), dim, ids.shape())?;
    let sums = add(op, x, &touched, dim, (ids, ids.layout()), src)?;
    if touched.dims() == x.shape() {
        return Ok(Tensor::from_gpu(sums, x.shape(), x.dtype()));
    }
    // Elements beyond the indices stay as they are.
    let out = x.deep_copy()?;
    let to = region(out.layout(), dim, ids.shape())?;
    crate::ops::view::gpu::copy(op, &sums, &Layout::contiguous(touched.dims()), storage(op, &out)?, &to)?;
    Ok(out)
}

/// The view `lx` of `x` with elements of `src` added, dense. Indices and `src` have the sizes of the view besides `dim`.
fn add(
    op: &'static str,
    x: &Tensor,
    lx: &Layout,
    dim: usize,
    (ids, li): (&Tensor, &Layout),
    src: &Tensor,
) -> Result<GpuStorage> {
    let (sx, si, ss) = (float_storage(op, x)?, storage(op, ids)?, float_storage(op, src)?);
    let gpu = sx.device();
    let out = GpuStorage::scratch(gpu, op, lx.count())?;
    let size = lx.dims()[dim];
    let inner: usize = lx.dims()[dim + 1..].iter().product();
    let (around_ids, stride_ids) = still(li, dim, &[size])?;
    let (around_src, stride_src) = still(src.layout(), dim, &[size])?;
    let mut info = Info::new();
    for n in [size, inner, li.dims()[dim], stride_ids, stride_src] {
        info = info.number(n);
    }
    let info = info.layout(&around_ids).layout(&around_src).layout(lx).upload(gpu)?;
    gpu.run(op, lx.count(), |client, grid, dim| {
        scatter_add_kernel::launch(client, grid, dim, sx.arg(), si.arg(), ss.arg(), info.arg(), out.arg())
    })?;
    Ok(out)
}
