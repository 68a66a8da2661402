use cubecl::prelude::*;

use super::AdamW;
use crate::gpu::{GpuStorage, Info, float_storage};
use crate::{Layout, Result, Tensor};

/// `info`: gradient factor, decay, `1 − β₁`, `β₂`, `1 − β₂`, step size, correction of the root, ε, as bits of floats.
#[cube(launch)]
fn adamw_kernel(p: &mut [f32], g: &[f32], first: &mut [f32], second: &mut [f32], info: &[u32]) {
    let i = ABSOLUTE_POS;
    if i < p.len() {
        let grad = g[i] * f32::reinterpret(info[0]);
        let mean = first[i] + (grad - first[i]) * f32::reinterpret(info[2]);
        let square = grad * grad * f32::reinterpret(info[4]) + second[i] * f32::reinterpret(info[3]);
        let below = f32::sqrt(square) / f32::reinterpret(info[6]) + f32::reinterpret(info[7]);
        p[i] = p[i] * f32::reinterpret(info[1]) - f32::reinterpret(info[5]) * (mean / below);
        first[i] = mean;
        second[i] = square;
    }
}

/// Makes `t` a dense tensor whose storage nobody else holds.
fn own(t: &mut Tensor) -> Result<()> {
    if t.layout() != &Layout::contiguous(t.shape()) || !t.claim_gpu_storage() {
        *t = t.deep_copy()?;
    }
    Ok(())
}

/// [`Tensor::adamw_step`], its arguments checked.
pub(super) fn step(
    param: &mut Tensor,
    grad: &Tensor,
    first: &mut Tensor,
    second: &mut Tensor,
    settings: &AdamW,
) -> Result<()> {
    let op = "adamw_step";
    for t in [&mut *param, &mut *first, &mut *second] {
        own(t)?;
    }
    let grad = if grad.layout() == &Layout::contiguous(grad.shape()) { grad.clone() } else { grad.deep_copy()? };
    let s = settings;
    let steps = s.step.min(i32::MAX as u64) as i32;
    // The factors as PyTorch rounds them: computed in f64, used in f32.
    let (correction1, correction2) = (1.0 - s.beta1.powi(steps), 1.0 - s.beta2.powi(steps));
    let factors = [
        s.grad_scale,
        (1.0 - s.lr * s.weight_decay) as f32,
        (1.0 - s.beta1) as f32,
        s.beta2 as f32,
        (1.0 - s.beta2) as f32,
        (s.lr / correction1) as f32,
        correction2.sqrt() as f32,
        s.eps as f32,
    ];
    let args: [&GpuStorage; 4] =
        [float_storage(op, param)?, float_storage(op, &grad)?, float_storage(op, first)?, float_storage(op, second)?];
    let gpu = args[0].device();
    let info = factors.iter().fold(Info::new(), |info, &f| info.float(f)).upload(gpu)?;
    let [p, g, m, v] = args;
    gpu.run(op, param.elem_count(), |client, grid, dim| {
        adamw_kernel::launch(client, grid, dim, p.arg(), g.arg(), m.arg(), v.arg(), info.arg())
    })
}
