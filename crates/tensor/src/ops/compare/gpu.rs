#![allow(
    clippy::eq_op,
    clippy::nonminimal_bool,
    reason = "`!(x == x)` is the test for NaN that every device gets right"
)]

use cubecl::prelude::*;

use super::Compare;
use crate::gpu::{GpuStorage, Info, after, missing, place, storage};
use crate::{DType, Layout, Result, Tensor};

#[cube]
fn holds<N: Numeric>(#[comptime] kind: Compare, a: N, b: N) -> bool {
    match kind {
        Compare::Eq => a == b,
        // `a != b` is false of NaN on some devices.
        Compare::Ne => !(a == b),
        Compare::Lt => a < b,
        Compare::Le => a <= b,
        Compare::Gt => a > b,
        Compare::Ge => a >= b,
    }
}

#[cube(launch)]
fn compare_kernel<N: Numeric>(a: &[N], b: &[N], info: &[u32], out: &mut [u32], #[comptime] kind: Compare) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let at_a = place(info, 0, i as u32);
        let at_b = place(info, after(info, 0), i as u32);
        let yes = holds::<N>(kind, a[at_a as usize], b[at_b as usize]);
        out[i] = u32::cast_from(yes);
    }
}

/// `la` and `lb` are the operands' layouts, broadcast to the shape of the result.
pub(super) fn compare(kind: Compare, x: &Tensor, la: &Layout, y: &Tensor, lb: &Layout) -> Result<Tensor> {
    let op = kind.name();
    let (a, b) = (storage(op, x)?, storage(op, y)?);
    let gpu = a.device();
    let out = GpuStorage::scratch(gpu, op, la.count())?;
    let info = Info::new().layout(la).layout(lb).upload(gpu)?;
    let launch: fn(&Client, CubeCount, CubeDim, [BufferArg; 4], Compare) = match x.dtype() {
        DType::F32 => |c, g, d, [a, b, i, o], k| compare_kernel::launch::<f32>(c, g, d, a, b, i, o, k),
        DType::I32 => |c, g, d, [a, b, i, o], k| compare_kernel::launch::<i32>(c, g, d, a, b, i, o, k),
        DType::U32 | DType::U8 | DType::Bool => {
            |c, g, d, [a, b, i, o], k| compare_kernel::launch::<u32>(c, g, d, a, b, i, o, k)
        }
        dtype => return Err(missing(op, dtype)),
    };
    gpu.run(op, la.count(), |client, grid, dim| {
        launch(client, grid, dim, [a.arg(), b.arg(), info.arg(), out.arg()], kind)
    })?;
    Ok(Tensor::from_gpu(out, la.dims(), DType::Bool))
}
