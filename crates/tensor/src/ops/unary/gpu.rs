use cubecl::prelude::*;

use super::Unary;
use crate::gpu::{GpuStorage, Info, after, float_storage, place};
use crate::{Result, Tensor};

/// `√(2/π)`, of the tanh form of GELU.
const GELU_SCALE: f32 = 0.797_884_6;
/// The cubic coefficient of the tanh form of GELU.
const GELU_CUBIC: f32 = 0.044715;
const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// `1/√(2π)`, the height of the normal density.
const DENSITY: f32 = 0.398_942_3;

#[cube]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + f32::exp(-x))
}

/// `tanh` of any argument: a device may compute it from exponentials that overflow.
#[cube]
fn tanh(x: f32) -> f32 {
    f32::tanh(clamp(x, -20.0, 20.0))
}

/// `ln(1 + x)` for `0 <= x <= 1`: by its series where the sum would round `x` away.
#[cube]
fn log_1p(x: f32) -> f32 {
    select(x < 1.0e-3, x * (1.0 - x * (0.5 - x * 0.333_333_34)), f32::ln(1.0 + x))
}

#[cube]
fn value(#[comptime] kind: Unary, x: f32) -> f32 {
    match kind {
        Unary::Neg => -x,
        Unary::Exp => f32::exp(x),
        Unary::Log => f32::ln(x),
        Unary::Sqrt => f32::sqrt(x),
        Unary::Rsqrt => 1.0 / f32::sqrt(x),
        Unary::Recip => 1.0 / x,
        Unary::Sqr => x * x,
        Unary::Abs => f32::abs(x),
        Unary::Sin => f32::sin(x),
        Unary::Cos => f32::cos(x),
        Unary::Tanh => tanh(x),
        Unary::Sigmoid => sigmoid(x),
        Unary::Silu => x * sigmoid(x),
        Unary::Gelu => 0.5 * x * (1.0 + tanh(GELU_SCALE * (x + GELU_CUBIC * x * x * x))),
        Unary::GeluErf => 0.5 * x * (1.0 + Erf::erf(x * SQRT_HALF)),
        Unary::Relu => select(x < 0.0, 0.0, x),
        Unary::Softplus => select(x < 0.0, 0.0, x) + log_1p(f32::exp(-f32::abs(x))),
    }
}

/// The gradient `g` times the slope at `v`, which is the argument or the result as [`Unary::slope_uses_result`] says.
#[cube]
fn slope(#[comptime] kind: Unary, v: f32, g: f32) -> f32 {
    match kind {
        Unary::Neg => -g,
        Unary::Exp => v * g,
        Unary::Log => g / v,
        Unary::Sqrt => 0.5 * g / v,
        Unary::Rsqrt => -(0.5 * v * v * v * g),
        Unary::Recip => -(v * v * g),
        Unary::Sqr => (v + v) * g,
        Unary::Abs => select(v > 0.0, g, select(v < 0.0, -g, 0.0f32)),
        Unary::Sin => f32::cos(v) * g,
        Unary::Cos => -(f32::sin(v) * g),
        Unary::Tanh => (1.0 - v * v) * g,
        Unary::Sigmoid => v * (1.0 - v) * g,
        Unary::Silu => {
            let s = sigmoid(v);
            s * (1.0 + v * (1.0 - s)) * g
        }
        Unary::Gelu => {
            let t = tanh(GELU_SCALE * (v + GELU_CUBIC * v * v * v));
            let inner = GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * v * v);
            0.5 * (1.0 + t + v * (1.0 - t * t) * inner) * g
        }
        Unary::GeluErf => {
            let density = DENSITY * f32::exp(-(0.5 * v * v));
            (0.5 * (1.0 + Erf::erf(v * SQRT_HALF)) + v * density) * g
        }
        Unary::Relu => select(v > 0.0, g, 0.0f32),
        Unary::Softplus => sigmoid(v) * g,
    }
}

#[cube(launch)]
fn value_kernel(x: &[f32], info: &[u32], out: &mut [f32], #[comptime] kind: Unary) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        out[i] = value(kind, x[place(info, 0, i as u32) as usize]);
    }
}

#[cube(launch)]
fn slope_kernel(v: &[f32], g: &[f32], info: &[u32], out: &mut [f32], #[comptime] kind: Unary) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let at_v = place(info, 0, i as u32);
        let at_g = place(info, after(info, 0), i as u32);
        out[i] = slope(kind, v[at_v as usize], g[at_g as usize]);
    }
}

pub(super) fn values(kind: Unary, x: &Tensor) -> Result<Tensor> {
    let (op, n) = (kind.name(), x.elem_count());
    let s = float_storage(op, x)?;
    let gpu = s.device();
    let out = GpuStorage::scratch(gpu, op, n)?;
    let info = Info::new().layout(x.layout()).upload(gpu)?;
    gpu.run(op, n, |client, grid, dim| value_kernel::launch(client, grid, dim, s.arg(), info.arg(), out.arg(), kind))?;
    Ok(Tensor::from_gpu(out, x.shape(), x.dtype()))
}

/// `g` times the slopes at `v`, of the same shape.
pub(super) fn slopes(kind: Unary, v: &Tensor, g: &Tensor) -> Result<Tensor> {
    let (op, n) = (kind.name(), v.elem_count());
    let (sv, sg) = (float_storage(op, v)?, float_storage(op, g)?);
    let gpu = sv.device();
    let out = GpuStorage::scratch(gpu, op, n)?;
    let info = Info::new().layout(v.layout()).layout(g.layout()).upload(gpu)?;
    gpu.run(op, n, |client, grid, dim| {
        slope_kernel::launch(client, grid, dim, sv.arg(), sg.arg(), info.arg(), out.arg(), kind)
    })?;
    Ok(Tensor::from_gpu(out, v.shape(), v.dtype()))
}
