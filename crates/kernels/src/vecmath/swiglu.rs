//! SwiGLU (Shazeer 2020): silu(gate)·up in one pass.

use super::{chunked, math, same_len};
use crate::isa::{Isa, Simd, isa, simd_fn};
use crate::pool::SharedMut;

simd_fn! {
    fn forward<S>(s: S, gate: &[f32], up: &[f32], out: &mut [f32]) {
        let (mut gs, mut us) = (gate.chunks_exact(S::LANES), up.chunks_exact(S::LANES));
        let mut os = out.chunks_exact_mut(S::LANES);
        for ((g, u), o) in (&mut gs).zip(&mut us).zip(&mut os) {
            s.store(product(s, s.load(g), s.load(u)), o);
        }
        let (g, u) = (s.load_partial(gs.remainder()), s.load_partial(us.remainder()));
        s.store_partial(product(s, g, u), os.into_remainder());
    }

    fn in_place<S>(s: S, gate: &mut [f32], up: &[f32]) {
        let (mut gs, mut us) = (gate.chunks_exact_mut(S::LANES), up.chunks_exact(S::LANES));
        for (g, u) in (&mut gs).zip(&mut us) {
            s.store(product(s, s.load(g), s.load(u)), g);
        }
        let g = gs.into_remainder();
        s.store_partial(product(s, s.load_partial(g), s.load_partial(us.remainder())), g);
    }

    fn backward<S>(s: S, gate: &[f32], up: &[f32], dout: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        let (mut gs, mut us, mut ds) =
            (gate.chunks_exact(S::LANES), up.chunks_exact(S::LANES), dout.chunks_exact(S::LANES));
        let (mut dgs, mut dus) = (dgate.chunks_exact_mut(S::LANES), dup.chunks_exact_mut(S::LANES));
        for ((((g, u), d), dg), du) in (&mut gs).zip(&mut us).zip(&mut ds).zip(&mut dgs).zip(&mut dus) {
            let (a, b) = gradients(s, s.load(g), s.load(u), s.load(d));
            s.store(a, dg);
            s.store(b, du);
        }
        let (g, u) = (s.load_partial(gs.remainder()), s.load_partial(us.remainder()));
        let (a, b) = gradients(s, g, u, s.load_partial(ds.remainder()));
        s.store_partial(a, dgs.into_remainder());
        s.store_partial(b, dus.into_remainder());
    }
}

#[inline(always)]
fn product<S: Simd>(s: S, g: S::F, u: S::F) -> S::F {
    s.mul(s.mul(g, math::sigmoid(s, g)), u)
}

/// (d·u·silu′(g), d·silu(g)).
#[inline(always)]
fn gradients<S: Simd>(s: S, g: S::F, u: S::F, d: S::F) -> (S::F, S::F) {
    let sig = math::sigmoid(s, g);
    let derivative = s.mul(sig, s.mul_add(g, s.sub(s.splat(1.0), sig), s.splat(1.0)));
    (s.mul(s.mul(d, u), derivative), s.mul(d, s.mul(g, sig)))
}

/// `out[i]` = silu(`gate[i]`)·`up[i]`; 5 ulp.
///
/// # Panics
/// If the lengths differ.
pub fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    swiglu_isa(isa(), gate, up, out)
}

pub(crate) fn swiglu_isa(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    same_len("swiglu", gate.len(), out.len());
    same_len("swiglu", up.len(), out.len());
    let shared = SharedMut::new(out);
    chunked(gate.len(), &|start, n| {
        let r = start..start + n;
        // SAFETY: the pieces do not overlap.
        forward(isa, &gate[r.clone()], &up[r], unsafe { shared.slice(start, n) })
    });
}

/// `gate[i]` = silu(`gate[i]`)·`up[i]` on the caller's thread, the same bits as [`swiglu`]'s.
pub(crate) fn swiglu_in_place(isa: Isa, gate: &mut [f32], up: &[f32]) {
    same_len("swiglu", gate.len(), up.len());
    in_place(isa, gate, up);
}

/// The gradients of [`swiglu`]: `dgate[i]` = `dout[i]`·`up[i]`·silu′(`gate[i]`), `dup[i]` = `dout[i]`·silu(`gate[i]`).
///
/// # Panics
/// If the lengths differ.
pub fn swiglu_backward(gate: &[f32], up: &[f32], dout: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    swiglu_backward_isa(isa(), gate, up, dout, dgate, dup)
}

pub(crate) fn swiglu_backward_isa(
    isa: Isa,
    gate: &[f32],
    up: &[f32],
    dout: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    for len in [up.len(), dout.len(), dgate.len(), dup.len()] {
        same_len("swiglu_backward", gate.len(), len);
    }
    let (a, b) = (SharedMut::new(dgate), SharedMut::new(dup));
    chunked(gate.len(), &|start, n| {
        let r = start..start + n;
        // SAFETY: the pieces do not overlap.
        let (dg, du) = unsafe { (a.slice(start, n), b.slice(start, n)) };
        backward(isa, &gate[r.clone()], &up[r.clone()], &dout[r], dg, du)
    });
}
