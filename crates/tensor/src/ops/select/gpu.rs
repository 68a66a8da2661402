use cubecl::prelude::*;

use crate::gpu::{GpuStorage, Info, after, place, storage};
use crate::{Layout, Result, Tensor};

/// Chooses words, whatever type they are of.
#[cube(launch)]
fn select_kernel(cond: &[u32], a: &[u32], b: &[u32], info: &[u32], out: &mut [u32]) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let second = after(info, 0);
        let third = after(info, second);
        let c = cond[place(info, 0, i as u32) as usize];
        if c != 0 {
            out[i] = a[place(info, second, i as u32) as usize];
        } else {
            out[i] = b[place(info, third, i as u32) as usize];
        }
    }
}

/// Each operand comes with its layout, broadcast to the shape of the result.
pub(super) fn select(
    (cond, lc): (&Tensor, &Layout),
    (a, la): (&Tensor, &Layout),
    (b, lb): (&Tensor, &Layout),
) -> Result<Tensor> {
    let dtype = a.dtype();
    let (cond, a, b) = (storage("select", cond)?, storage("select", a)?, storage("select", b)?);
    let gpu = cond.device();
    let out = GpuStorage::scratch(gpu, "select", lc.count())?;
    let info = Info::new().layout(lc).layout(la).layout(lb).upload(gpu)?;
    gpu.run("select", lc.count(), |client, grid, dim| {
        select_kernel::launch(client, grid, dim, cond.arg(), a.arg(), b.arg(), info.arg(), out.arg())
    })?;
    Ok(Tensor::from_gpu(out, lc.dims(), dtype))
}
