//! Optimizer steps over flat parameters.

use crate::isa::{Isa, isa, simd_fn};
use crate::pool::SharedMut;
use crate::vecmath::{chunked, ld, same_len, st};

/// The settings of one AdamW step (Loshchilov and Hutter 2019), with PyTorch's meaning.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root, outside it.
    pub eps: f64,
    /// Decoupled decay: parameters are multiplied by 1 − lr·weight_decay first.
    pub weight_decay: f64,
    /// The number of this step, from 1.
    pub step: u64,
    /// Factor of the gradients, for clipping and averaging.
    pub grad_scale: f32,
}

/// [`AdamW`] as the kernel needs it, computed in f64 as PyTorch does.
#[derive(Clone, Copy)]
struct Factors {
    grad_scale: f32,
    decay: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    step_size: f32,
    root_correction: f32,
    eps: f32,
}

simd_fn! {
    fn adamw_piece<S>(s: S, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], f: Factors) {
        let (scale, decay) = (s.splat(f.grad_scale), s.splat(f.decay));
        let (w1, b2, w2) = (s.splat(f.one_minus_beta1), s.splat(f.beta2), s.splat(f.one_minus_beta2));
        let (size, root, eps) = (s.splat(-f.step_size), s.splat(f.root_correction), s.splat(f.eps));
        for (((p, g), m), v) in
            p.chunks_mut(S::LANES).zip(g.chunks(S::LANES)).zip(m.chunks_mut(S::LANES)).zip(v.chunks_mut(S::LANES))
        {
            let grad = s.mul(ld(s, g), scale);
            let mean = ld(s, m);
            let mean = s.mul_add(s.sub(grad, mean), w1, mean);
            let square = s.mul_add(s.mul(grad, grad), w2, s.mul(ld(s, v), b2));
            let denominator = s.add(s.div(s.sqrt(square), root), eps);
            let moved = s.mul_add(size, s.div(mean, denominator), s.mul(ld(s, p), decay));
            st(s, moved, p);
            st(s, mean, m);
            st(s, square, v);
        }
    }
}

/// One AdamW step, as PyTorch's `torch.optim.AdamW` takes it: with g scaled by `grad_scale`,
/// p ← p·(1 − lr·wd); m ← m + (1 − β₁)(g − m); v ← β₂·v + (1 − β₂)·g²;
/// p ← p − lr/(1 − β₁ᵗ)·m/(√v/√(1 − β₂ᵗ) + eps).
///
/// Every operation is f32 with factors from f64; results differ from PyTorch's by a few 2⁻²⁴ of the terms.
///
/// # Panics
/// If the lengths differ or `step` is 0.
pub fn adamw(settings: &AdamW, params: &mut [f32], grads: &[f32], m: &mut [f32], v: &mut [f32]) {
    adamw_isa(isa(), settings, params, grads, m, v)
}

pub(crate) fn adamw_isa(isa: Isa, settings: &AdamW, params: &mut [f32], grads: &[f32], m: &mut [f32], v: &mut [f32]) {
    assert!(settings.step > 0, "adamw: steps count from 1");
    for len in [grads.len(), m.len(), v.len()] {
        same_len("adamw", params.len(), len);
    }
    let AdamW { lr, beta1, beta2, eps, weight_decay, step, grad_scale } = *settings;
    let power = |x: f64| if step <= i32::MAX as u64 { x.powi(step as i32) } else { 0.0 };
    let f = Factors {
        grad_scale,
        decay: (1.0 - lr * weight_decay) as f32,
        one_minus_beta1: (1.0 - beta1) as f32,
        beta2: beta2 as f32,
        one_minus_beta2: (1.0 - beta2) as f32,
        step_size: (lr / (1.0 - power(beta1))) as f32,
        root_correction: (1.0 - power(beta2)).sqrt() as f32,
        eps: eps as f32,
    };
    let len = params.len();
    let (p, m, v) = (SharedMut::new(params), SharedMut::new(m), SharedMut::new(v));
    chunked(len, &|start, n| {
        // SAFETY: the pieces do not overlap.
        let (p, m, v) = unsafe { (p.slice(start, n), m.slice(start, n), v.slice(start, n)) };
        adamw_piece(isa, p, &grads[start..start + n], m, v, f)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::available;
    use crate::testing::{Random, assert_close, wide};
    use crate::vecmath::CHUNK;

    #[test]
    fn ten_steps_follow_the_formula() {
        let mut r = Random::new(1);
        for n in [1, 15, 33, 2 * CHUNK + 7] {
            let start = r.vec(n, -1.0, 1.0);
            let gradients: Vec<Vec<f32>> = (0..10).map(|_| r.vec(n, -2.0, 2.0)).collect();
            for isa in available() {
                let mut p = start.clone();
                let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
                let (mut ep, mut em, mut ev) = (wide(&p), vec![0.0f64; n], vec![0.0f64; n]);
                for (t, g) in gradients.iter().enumerate() {
                    let s = AdamW {
                        lr: 1e-2 / (t + 1) as f64,
                        beta1: 0.9,
                        beta2: 0.95,
                        eps: 1e-8,
                        weight_decay: 0.1,
                        step: t as u64 + 1,
                        grad_scale: 0.5,
                    };
                    adamw_isa(isa, &s, &mut p, g, &mut m, &mut v);
                    let (c1, c2) = (1.0 - 0.9f64.powi(t as i32 + 1), 1.0 - 0.95f64.powi(t as i32 + 1));
                    for i in 0..n {
                        let g = 0.5 * f64::from(g[i]);
                        ep[i] *= 1.0 - s.lr * 0.1;
                        em[i] = 0.9 * em[i] + 0.1 * g;
                        ev[i] = 0.95 * ev[i] + 0.05 * g * g;
                        ep[i] -= s.lr * (em[i] / c1) / ((ev[i] / c2).sqrt() + 1e-8);
                    }
                }
                assert_close(&format!("{isa} p"), &p, &ep, 1e-6, 1.0);
                assert_close(&format!("{isa} m"), &m, &em, 1e-6, 1.0);
                assert_close(&format!("{isa} v"), &v, &ev, 1e-6, 1.0);
            }
        }
    }

    #[test]
    #[should_panic(expected = "steps count from 1")]
    fn step_zero_is_refused() {
        let s = AdamW { lr: 1.0, beta1: 0.9, beta2: 0.9, eps: 1e-8, weight_decay: 0.0, step: 0, grad_scale: 1.0 };
        adamw(&s, &mut [], &[], &mut [], &mut []);
    }
}
