#![allow(clippy::manual_div_ceil, reason = "a kernel has no div_ceil")]

use cubecl::prelude::*;

use crate::gpu::{GpuStorage, Info, after, float_storage, place};
use crate::{Layout, Result, Tensor};

/// Side of the tile of the result that a workgroup computes, one element per thread.
const TILE: u32 = 16;
const AREA: usize = (TILE * TILE) as usize;

/// `info`: `m n k`, row and column stride of `a` and of `b`, then the layouts of their batch dimensions.
/// The operands' tiles pass through shared memory, so that each word is read once per tile and not once per element.
#[cube(launch)]
fn matmul_kernel(a: &[f32], b: &[f32], info: &[u32], out: &mut [f32]) {
    let mut tile_a = Shared::<[f32]>::new_slice(AREA);
    let mut tile_b = Shared::<[f32]>::new_slice(AREA);
    let (m, n, k) = (info[0], info[1], info[2]);
    let tiles_n = (n + TILE - 1) / TILE;
    let tiles = (m + TILE - 1) / TILE * tiles_n;
    let group = CUBE_POS as u32;
    // Surplus workgroups compute some tile and write nothing; all of a group must reach every barrier.
    let batches = out.len() as u32 / (m * n);
    let batch = select(group / tiles < batches, group / tiles, 0);
    let tile = group % tiles;
    let at_b = after(info, 7);
    let base_a = place(info, 7, batch);
    let base_b = place(info, at_b, batch);
    let row = tile / tiles_n * TILE + UNIT_POS_Y;
    let col = tile % tiles_n * TILE + UNIT_POS_X;
    let here = (UNIT_POS_Y * TILE + UNIT_POS_X) as usize;
    let mut acc = 0.0f32;
    let mut start = 0u32;
    while start < k {
        let ka = start + UNIT_POS_X;
        let kb = start + UNIT_POS_Y;
        let mut va = 0.0f32;
        if row < m && ka < k {
            va = a[(base_a + row * info[3] + ka * info[4]) as usize];
        }
        let mut vb = 0.0f32;
        if col < n && kb < k {
            vb = b[(base_b + kb * info[5] + col * info[6]) as usize];
        }
        tile_a[here] = va;
        tile_b[here] = vb;
        sync_cube();
        let mut i = 0u32;
        while i < TILE {
            acc += tile_a[(UNIT_POS_Y * TILE + i) as usize] * tile_b[(i * TILE + UNIT_POS_X) as usize];
            i += 1u32;
        }
        sync_cube();
        start += TILE;
    }
    if row < m && col < n && group / tiles < batches {
        out[((batch * m + row) * n + col) as usize] = acc;
    }
}

/// `x[.., m, k] · y[.., k, n]`, dense; both have the same leading dimensions, of any strides.
pub(super) fn matmul(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let op = "matmul";
    let (a, b) = (float_storage(op, x)?, float_storage(op, y)?);
    let gpu = a.device();
    let lead = x.rank() - 2;
    let (m, k, n) = (x.shape()[lead], x.shape()[lead + 1], y.shape()[lead + 1]);
    let (shape, batches) = ([&x.shape()[..lead], &[m, n]].concat(), x.shape()[..lead].iter().product::<usize>());
    if batches * m * n == 0 || k == 0 {
        return Tensor::zeros(shape, x.dtype(), x.device());
    }
    let leading = |l: &Layout| -> Result<Layout> {
        Ok(l.narrow(op, lead, 0, 1)?.remove_dim(lead).narrow(op, lead, 0, 1)?.remove_dim(lead))
    };
    let out = GpuStorage::scratch(gpu, op, batches * m * n)?;
    let (sa, sb) = (&x.layout().strides()[lead..], &y.layout().strides()[lead..]);
    let mut info = Info::new();
    for number in [m, n, k, sa[0], sa[1], sb[0], sb[1]] {
        info = info.number(number);
    }
    let info = info.layout(&leading(x.layout())?).layout(&leading(y.layout())?).upload(gpu)?;
    let tile = TILE as usize;
    let groups = batches * m.div_ceil(tile) * n.div_ceil(tile);
    gpu.run_groups(op, groups, CubeDim::new_2d(TILE, TILE), |client, grid, dim| {
        matmul_kernel::launch(client, grid, dim, a.arg(), b.arg(), info.arg(), out.arg())
    })?;
    Ok(Tensor::from_gpu(out, shape, x.dtype()))
}
