#![allow(
    clippy::eq_op,
    clippy::nonminimal_bool,
    reason = "`!(x == x)` is the test for NaN that every device gets right"
)]

use cubecl::prelude::*;

use crate::gpu::{GpuStorage, Info, place};
use crate::{DType, Error, Layout, Result};

/// `v` moved into `low ..= high`; NaN becomes 0.
#[cube]
fn bounded(v: f32, low: f32, high: f32) -> f32 {
    let inside = select(v < low, low, select(v > high, high, v));
    select(v == v, inside, 0.0f32)
}

/// `info`: bounds of the target type as floats that it can hold, layout.
#[cube(launch)]
fn from_float_kernel<B: Numeric>(x: &[f32], info: &[u32], out: &mut [B]) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let v = x[place(info, 2, i as u32) as usize];
        out[i] = B::cast_from(bounded(v, f32::reinterpret(info[0]), f32::reinterpret(info[1])));
    }
}

#[cube(launch)]
fn to_float_kernel<A: Numeric>(x: &[A], info: &[u32], out: &mut [f32]) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        out[i] = f32::cast_from(x[place(info, 0, i as u32) as usize]);
    }
}

/// Whether an element is not 0.
#[cube(launch)]
fn truth_kernel<A: Numeric>(x: &[A], info: &[u32], out: &mut [u32]) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        // NaN is not 0, though `!=` is false of it on some devices.
        let zero = x[place(info, 0, i as u32) as usize] == A::from_int(0);
        out[i] = u32::cast_from(!zero);
    }
}

pub(super) fn cast(x: &GpuStorage, layout: &Layout, from: DType, to: DType) -> Result<GpuStorage> {
    let (gpu, op) = (x.device(), "to_dtype");
    let missing = |dtype| Error::Unsupported { op, dtype, device: "gpu".into() };
    type Launch = fn(&Client, CubeCount, CubeDim, [BufferArg; 3]);
    // The largest floats below 2^32 and 2^31 are those that the integers can hold.
    let mut bounds = None;
    let launch: Launch = match (from, to) {
        (DType::F32, DType::U32 | DType::U8) => {
            bounds = Some((0.0, if to == DType::U8 { 255.0 } else { 4_294_967_040.0 }));
            |c, g, d, [x, i, o]| from_float_kernel::launch::<u32>(c, g, d, x, i, o)
        }
        (DType::F32, DType::I32) => {
            bounds = Some((-2_147_483_648.0, 2_147_483_520.0));
            |c, g, d, [x, i, o]| from_float_kernel::launch::<i32>(c, g, d, x, i, o)
        }
        (DType::U32 | DType::U8 | DType::Bool, DType::F32) => {
            |c, g, d, [x, i, o]| to_float_kernel::launch::<u32>(c, g, d, x, i, o)
        }
        (DType::I32, DType::F32) => |c, g, d, [x, i, o]| to_float_kernel::launch::<i32>(c, g, d, x, i, o),
        (DType::F32, DType::Bool) => |c, g, d, [x, i, o]| truth_kernel::launch::<f32>(c, g, d, x, i, o),
        (DType::U32 | DType::U8 | DType::I32, DType::Bool) => {
            |c, g, d, [x, i, o]| truth_kernel::launch::<u32>(c, g, d, x, i, o)
        }
        // A narrow unsigned number is the same word as a wide one.
        (DType::U8 | DType::Bool, DType::U32 | DType::I32 | DType::U8) => {
            return crate::ops::view::gpu::dense(op, x, layout);
        }
        (DType::F32 | DType::U32 | DType::U8 | DType::I32 | DType::Bool, _) => return Err(missing(to)),
        _ => return Err(missing(from)),
    };
    let out = GpuStorage::scratch(gpu, op, layout.count())?;
    let mut info = Info::new();
    if let Some((low, high)) = bounds {
        info = info.float(low).float(high);
    }
    let info = info.layout(layout).upload(gpu)?;
    gpu.run(op, layout.count(), |client, grid, dim| launch(client, grid, dim, [x.arg(), info.arg(), out.arg()]))?;
    Ok(out)
}
