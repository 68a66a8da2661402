#![allow(
    clippy::eq_op,
    clippy::nonminimal_bool,
    reason = "`!(x == x)` is the test for NaN that every device gets right"
)]

use cubecl::prelude::*;

use super::Binary;
use crate::gpu::{GpuStorage, Info, after, missing, place, storage};
use crate::{DType, Layout, Result, Tensor};

#[cube]
fn combine<N: Numeric>(#[comptime] kind: Binary, a: N, b: N) -> N {
    match kind {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        // Written so that NaN wins; `b != b` is false of it on some devices.
        Binary::Maximum => select(b > a || !(b == b), b, a),
        Binary::Minimum => select(b < a || !(b == b), b, a),
        // Has a kernel of its own; never launched with this one.
        Binary::Pow => a,
    }
}

/// `a` to the power `b`. The device's own function is undefined for negative `a`.
#[cube]
pub(crate) fn power(a: f32, b: f32) -> f32 {
    let size = f32::powf(f32::abs(a), b);
    let whole = f32::floor(b) == b;
    let odd = f32::floor(b * 0.5) * 2.0 != b;
    // The square root of a negative number is the NaN of a fractional power.
    let negative = select(whole, select(odd, -size, size), f32::sqrt(a));
    select(b == 0.0, 1.0, select(a < 0.0, negative, size))
}

#[cube(launch)]
fn binary_kernel<N: Numeric>(a: &[N], b: &[N], info: &[u32], out: &mut [N], #[comptime] kind: Binary) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let at_a = place(info, 0, i as u32);
        let at_b = place(info, after(info, 0), i as u32);
        out[i] = combine::<N>(kind, a[at_a as usize], b[at_b as usize]);
    }
}

#[cube(launch)]
fn power_kernel(a: &[f32], b: &[f32], info: &[u32], out: &mut [f32]) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let at_a = place(info, 0, i as u32);
        let at_b = place(info, after(info, 0), i as u32);
        out[i] = power(a[at_a as usize], b[at_b as usize]);
    }
}

/// `la` and `lb` are the operands' layouts, broadcast to the shape of the result.
pub(super) fn run(kind: Binary, x: &Tensor, la: &Layout, y: &Tensor, lb: &Layout) -> Result<Tensor> {
    let (op, dtype) = (kind.name(), x.dtype());
    let (a, b) = (storage(op, x)?, storage(op, y)?);
    let gpu = a.device();
    let out = GpuStorage::scratch(gpu, op, la.count())?;
    let info = Info::new().layout(la).layout(lb).upload(gpu)?;
    // Integer division by zero is an error on the CPU, which a kernel cannot report.
    let whole = !matches!(kind, Binary::Div | Binary::Pow);
    let launch: fn(&Client, CubeCount, CubeDim, [BufferArg; 4], Binary) = match dtype {
        DType::F32 if kind == Binary::Pow => |c, g, d, [a, b, i, o], _| power_kernel::launch(c, g, d, a, b, i, o),
        DType::F32 => |c, g, d, [a, b, i, o], k| binary_kernel::launch::<f32>(c, g, d, a, b, i, o, k),
        DType::I32 if whole => |c, g, d, [a, b, i, o], k| binary_kernel::launch::<i32>(c, g, d, a, b, i, o, k),
        DType::U32 if whole => |c, g, d, [a, b, i, o], k| binary_kernel::launch::<u32>(c, g, d, a, b, i, o, k),
        _ => return Err(missing(op, dtype)),
    };
    gpu.run(op, la.count(), |client, grid, dim| {
        launch(client, grid, dim, [a.arg(), b.arg(), info.arg(), out.arg()], kind)
    })?;
    Ok(Tensor::from_gpu(out, la.dims(), dtype))
}
