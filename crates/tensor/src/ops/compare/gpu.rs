use cubecl::prelude::*;

use super::Compare;
use crate::gpu::{GpuStorage, Info, after, place};
use crate::{DType, Error, Layout, Result};

#[cube]
fn holds<N: Numeric>(#[comptime] kind: Compare, a: N, b: N) -> bool {
    match kind {
        Compare::Eq => a == b,
        Compare::Ne => a != b,
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

pub(super) fn compare(
    kind: Compare,
    dtype: DType,
    (a, la): (&GpuStorage, &Layout),
    (b, lb): (&GpuStorage, &Layout),
) -> Result<GpuStorage> {
    let (gpu, op) = (a.device(), kind.name());
    let out = GpuStorage::scratch(gpu, op, la.count())?;
    let info = Info::new().layout(la).layout(lb).upload(gpu)?;
    let launch: fn(&Client, CubeCount, CubeDim, [BufferArg; 4], Compare) = match dtype {
        DType::F32 => |c, g, d, [a, b, i, o], k| compare_kernel::launch::<f32>(c, g, d, a, b, i, o, k),
        DType::I32 => |c, g, d, [a, b, i, o], k| compare_kernel::launch::<i32>(c, g, d, a, b, i, o, k),
        DType::U32 | DType::U8 | DType::Bool => {
            |c, g, d, [a, b, i, o], k| compare_kernel::launch::<u32>(c, g, d, a, b, i, o, k)
        }
        _ => return Err(Error::Unsupported { op, dtype, device: "gpu".into() }),
    };
    gpu.run(op, la.count(), |client, grid, dim| {
        launch(client, grid, dim, [a.arg(), b.arg(), info.arg(), out.arg()], kind)
    })?;
    Ok(out)
}
