use cubecl::prelude::*;

use super::Scalar;
use crate::gpu::{GpuStorage, Info, float_storage, place};
use crate::ops::binary::gpu::power;
use crate::{Result, Tensor};

/// [`Scalar`] without its numbers, of which a kernel must not be compiled anew.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
enum Kind {
    Add,
    Mul,
    Clamp,
    Square,
    Powf,
}

#[cube]
fn apply(#[comptime] kind: Kind, x: f32, a: f32, b: f32) -> f32 {
    match kind {
        Kind::Add => x + a,
        Kind::Mul => x * a,
        // Written so that NaN stays.
        Kind::Clamp => select(x < a, a, select(x > b, b, x)),
        Kind::Square => x * x,
        Kind::Powf => power(x, a),
    }
}

/// The two numbers come as bits in `info`: a device's constants may be neither infinite nor NaN.
#[cube(launch)]
fn scalar_kernel(x: &[f32], info: &[u32], out: &mut [f32], #[comptime] kind: Kind) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let (a, b) = (f32::reinterpret(info[0]), f32::reinterpret(info[1]));
        out[i] = apply(kind, x[place(info, 2, i as u32) as usize], a, b);
    }
}

pub(super) fn run(kind: Scalar, x: &Tensor) -> Result<Tensor> {
    let (op, n) = (kind.name(), x.elem_count());
    let s = float_storage(op, x)?;
    let gpu = s.device();
    let (kind, a, b) = match kind {
        Scalar::Add(c) => (Kind::Add, c, 0.0),
        Scalar::Mul(c) => (Kind::Mul, c, 0.0),
        Scalar::Clamp(low, high) => (Kind::Clamp, low, high),
        Scalar::Powf(2.0) => (Kind::Square, 2.0, 0.0),
        Scalar::Powf(e) => (Kind::Powf, e, 0.0),
    };
    let out = GpuStorage::scratch(gpu, op, n)?;
    let info = Info::new().float(a as f32).float(b as f32).layout(x.layout()).upload(gpu)?;
    gpu.run(op, n, |client, grid, dim| scalar_kernel::launch(client, grid, dim, s.arg(), info.arg(), out.arg(), kind))?;
    Ok(Tensor::from_gpu(out, x.shape(), x.dtype()))
}
