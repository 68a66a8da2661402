//! The recurrence as a kernel; what lies around it is composed of primitives, because their gradients come for free and
//! a kernel of everything would need more buffers than some adapters can bind.

use cubecl::prelude::*;

use super::ScanInputs;
use crate::autograd::record;
use crate::gpu::{GpuStorage, Info};
use crate::storage::Storage;
use crate::{Error, Result, Tensor};

/// `h_t = decay_t·h_{t−1} + input_t` along time, all `[b, t, w]` with `w` channels times states; `info`: `t w`. One
/// thread per sequence. Backwards, the decay that meets `h_{t+1}` is that of the later step: the recurrence of the
/// gradient.
#[cube(launch)]
fn scan_kernel(
    decay: &[f32],
    input: &[f32],
    first: &[f32],
    info: &[u32],
    out: &mut [f32],
    #[comptime] backwards: bool,
) {
    let i = ABSOLUTE_POS;
    let (steps, width) = (info[0], info[1]);
    if i < first.len() {
        let base = i as u32 / width * (steps * width) + i as u32 % width;
        let mut h = first[i];
        let mut t = 0u32;
        while t < steps {
            if comptime!(backwards) {
                let at = base + (steps - 1 - t) * width;
                if t > 0 {
                    h *= decay[(at + width) as usize];
                }
                h += input[at as usize];
                out[at as usize] = h;
            } else {
                let at = base + t * width;
                h = h * decay[at as usize] + input[at as usize];
                out[at as usize] = h;
            }
            t += 1u32;
        }
    }
}

/// Runs the kernel over dense tensors `[b, t, c, n]` and `first` `[b, c, n]`.
fn scan(decay: &Tensor, input: &Tensor, first: &Tensor, backwards: bool) -> Result<Tensor> {
    let op = "selective_scan";
    let (decay, input, first) = (decay.contiguous()?, input.contiguous()?, first.contiguous()?);
    let [_, t, c, n] = input.dims_n(op)?;
    // Views that start later in their storage would need an offset each; a copy is rare and simple.
    let dense = |x: &Tensor| if x.layout().offset() == 0 { Ok(x.clone()) } else { x.deep_copy() };
    let (decay, input, first) = (dense(&decay)?, dense(&input)?, dense(&first)?);
    let (Storage::Gpu(d), Storage::Gpu(x), Storage::Gpu(h)) = (decay.storage(), input.storage(), first.storage())
    else {
        return Err(Error::argument(op, "an operand left the gpu"));
    };
    let gpu = x.device();
    let out = GpuStorage::scratch(gpu, op, input.elem_count())?;
    let info = Info::new().number(t).number(c * n).upload(gpu)?;
    gpu.run(op, first.elem_count(), |client, grid, dim| {
        scan_kernel::launch(client, grid, dim, d.arg(), x.arg(), h.arg(), info.arg(), out.arg(), backwards)
    })?;
    Ok(Tensor::from_gpu(out, input.shape(), input.dtype()))
}

/// All states `[b, t, c, n]` of the recurrence from `first`.
fn recurrence(decay: &Tensor, input: &Tensor, first: &Tensor) -> Result<Tensor> {
    let states = crate::no_grad(|| scan(decay, input, first, false))?;
    let saved = states.clone();
    Ok(record(states, &[decay, input, first], move |b| {
        let (decay, first) = (&b.inputs[0], &b.inputs[2]);
        let t = saved.dim(1)?;
        let g = scan(decay, b.grad, &first.zeros_like()?, true)?;
        let before = Tensor::cat(&[&first.unsqueeze(1)?, &saved.narrow(1, 0, t - 1)?], 1)?;
        let d_first = g.narrow(1, 0, 1)?.mul(&decay.narrow(1, 0, 1)?)?.squeeze(1)?;
        Ok(vec![Some(g.mul(&before)?), Some(g), Some(d_first)])
    }))
}

/// [`Tensor::selective_scan`] on a device.
pub(super) fn selective_scan(u: &Tensor, s: &ScanInputs, [b, t, c, n]: super::Sizes) -> Result<(Tensor, Tensor)> {
    let first = match s.h0 {
        Some(h) => h.clone(),
        None => Tensor::zeros([b, c, n], u.dtype(), u.device())?,
    };
    if t == 0 {
        return Ok((u.zeros_like()?, first.detach()));
    }
    let decay = s.delta.unsqueeze(3)?.mul(s.a)?.exp()?;
    let input = s.delta.mul(u)?.unsqueeze(3)?.mul(&s.b.unsqueeze(2)?)?;
    let states = recurrence(&decay, &input, &first)?;
    let mut y = states.mul(&s.c.unsqueeze(2)?)?.sum(&[3], false)?;
    if let Some(d) = s.d {
        y = y.add(&u.mul(d)?)?;
    }
    Ok((y, states.detach().narrow(1, t - 1, 1)?.squeeze(1)?.contiguous()?))
}
