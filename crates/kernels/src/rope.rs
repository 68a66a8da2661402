//! Rotary position embedding (Su et al. 2021): pairs of a head's first `r` elements are rotated by an angle that grows with
//! the position.

use crate::isa::{Isa, isa, simd_fn};
use crate::pool;
use crate::vecmath::{CHUNK, ld, same_len, st};

/// Which two elements of a head form pair `i` of r/2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RopeStyle {
    /// Elements i and i + r/2 (GPT-NeoX, Hugging Face).
    Half,
    /// Elements 2i and 2i + 1 (the paper; llama's GGUF).
    Interleaved,
}

/// The shapes of one call: x[b, t, h, d], cos and sin [t, r/2], or [b, t, r/2] if `per_batch`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RopeShape {
    /// Batch.
    pub b: usize,
    /// Time steps.
    pub t: usize,
    /// Heads.
    pub h: usize,
    /// Elements of a head.
    pub d: usize,
    /// How many of them are rotated; even, at most `d`.
    pub r: usize,
    /// Whether each batch row has its own cos and sin.
    pub per_batch: bool,
}

simd_fn! {
    /// Rotates the heads of consecutive time steps; `sign` is 1, or −1 for the inverse.
    fn rotate<S>(s: S, x: &mut [f32], cos: &[f32], sin: &[f32], h: usize, d: usize, style: RopeStyle, sign: f32) {
        let half = cos.len() / (x.len() / (h * d));
        let sg = s.splat(sign);
        for ((x, cos), sin) in x.chunks_exact_mut(h * d).zip(cos.chunks_exact(half)).zip(sin.chunks_exact(half)) {
            for x in x.chunks_exact_mut(d) {
                match style {
                    RopeStyle::Half => {
                        let (lo, hi) = x[..2 * half].split_at_mut(half);
                        let mut i = 0;
                        while i < half {
                            let n = S::LANES.min(half - i);
                            let (lo, hi) = (&mut lo[i..i + n], &mut hi[i..i + n]);
                            let (c, sn) = (ld(s, &cos[i..i + n]), s.mul(ld(s, &sin[i..i + n]), sg));
                            let (a, b) = (ld(s, lo), ld(s, hi));
                            st(s, s.neg_mul_add(b, sn, s.mul(a, c)), lo);
                            st(s, s.mul_add(a, sn, s.mul(b, c)), hi);
                            i += n;
                        }
                    }
                    RopeStyle::Interleaved => {
                        // Left to the compiler, which finds the shuffles.
                        for ((p, &c), &sn) in x[..2 * half].chunks_exact_mut(2).zip(cos).zip(sin) {
                            let (a, b, sn) = (p[0], p[1], sn * sign);
                            p[0] = s.fma(-b, sn, a * c);
                            p[1] = s.fma(a, sn, b * c);
                        }
                    }
                }
            }
        }
    }
}

/// Rotates x[b, t, h, d] in place: pair (a, b) of step t becomes (a·cos − b·sin, a·sin + b·cos); elements from `r` on stay.
/// With `inverse`, by the negative angle, which is also the gradient. Error at most 2·2⁻²⁴·(|a| + |b|).
///
/// # Panics
/// If a length does not match, or `r` is odd or more than `d`.
pub fn rope_inplace(shape: RopeShape, style: RopeStyle, inverse: bool, cos: &[f32], sin: &[f32], x: &mut [f32]) {
    rope_inplace_isa(isa(), shape, style, inverse, cos, sin, x)
}

pub(crate) fn rope_inplace_isa(
    isa: Isa,
    shape: RopeShape,
    style: RopeStyle,
    inverse: bool,
    cos: &[f32],
    sin: &[f32],
    x: &mut [f32],
) {
    let RopeShape { b, t, h, d, r, per_batch } = shape;
    assert!(r % 2 == 0 && r <= d, "rope: {r} rotated elements of {d}");
    same_len("rope", x.len(), b * t * h * d);
    let table = if per_batch { b * t } else { t } * r / 2;
    same_len("rope cos", cos.len(), table);
    same_len("rope sin", sin.len(), table);
    if x.is_empty() || r == 0 {
        return;
    }
    let (row, half, sign) = (h * d, r / 2, if inverse { -1.0 } else { 1.0 });
    // Consecutive steps of one batch row make a task.
    let per = (CHUNK / row).clamp(1, t);
    let pieces = t.div_ceil(per);
    let len = x.len();
    let shared = pool::SharedMut::new(x);
    let task = |i: usize| {
        let (bi, start) = (i / pieces, i % pieces * per);
        let n = per.min(t - start);
        let at = if per_batch { bi * t + start } else { start } * half;
        // SAFETY: the tasks' steps do not overlap.
        let x = unsafe { shared.slice((bi * t + start) * row, n * row) };
        rotate(isa, x, &cos[at..at + n * half], &sin[at..at + n * half], h, d, style, sign)
    };
    if len < 2 * CHUNK {
        (0..b * pieces).for_each(task);
    } else {
        pool::parallel(b * pieces, &task);
    }
}

/// [`rope_inplace`] from `x` into `out`.
///
/// # Panics
/// As [`rope_inplace`].
pub fn rope(shape: RopeShape, style: RopeStyle, inverse: bool, cos: &[f32], sin: &[f32], x: &[f32], out: &mut [f32]) {
    same_len("rope", x.len(), out.len());
    out.copy_from_slice(x);
    rope_inplace(shape, style, inverse, cos, sin, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::available;
    use crate::testing::{Random, assert_close, wide};

    #[test]
    fn pairs_are_rotated_and_rotated_back() {
        let mut rand = Random::new(1);
        for (b, t, h, d, r) in
            [(1, 1, 1, 2, 2), (2, 3, 2, 10, 6), (1, 5, 3, 64, 64), (2, 70, 4, 80, 34), (1, 4, 1, 8, 0)]
        {
            for per_batch in [false, true] {
                let shape = RopeShape { b, t, h, d, r, per_batch };
                let angles = rand.vec(if per_batch { b * t } else { t } * r / 2, -3.0, 3.0);
                let cos: Vec<f32> = angles.iter().map(|a| a.cos()).collect();
                let sin: Vec<f32> = angles.iter().map(|a| a.sin()).collect();
                let x = rand.vec(b * t * h * d, -2.0, 2.0);
                for style in [RopeStyle::Half, RopeStyle::Interleaved] {
                    let mut exact = wide(&x);
                    for n in 0..b * t * h {
                        let (bi, ti) = (n / h / t, n / h % t);
                        for i in 0..r / 2 {
                            let a = (if per_batch { bi * t + ti } else { ti }) * r / 2 + i;
                            let (c, s) = (f64::from(cos[a]), f64::from(sin[a]));
                            let (i, j) = match style {
                                RopeStyle::Half => (n * d + i, n * d + i + r / 2),
                                RopeStyle::Interleaved => (n * d + 2 * i, n * d + 2 * i + 1),
                            };
                            (exact[i], exact[j]) = (exact[i] * c - exact[j] * s, exact[i] * s + exact[j] * c);
                        }
                    }
                    for isa in available() {
                        let mut y = x.clone();
                        rope_inplace_isa(isa, shape, style, false, &cos, &sin, &mut y);
                        assert_close(&format!("{isa} {shape:?} {style:?}"), &y, &exact, 2.4e-7, 1.0);
                        rope_inplace_isa(isa, shape, style, true, &cos, &sin, &mut y);
                        assert_close(&format!("{isa} {shape:?} {style:?} back"), &y, &wide(&x), 6e-7, 1.0);
                    }
                    let mut y = vec![0.0; x.len()];
                    rope(shape, style, false, &cos, &sin, &x, &mut y);
                    assert_close("rope", &y, &exact, 2.4e-7, 1.0);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "3 rotated elements of 4")]
    fn an_odd_number_of_rotated_elements_is_refused() {
        let shape = RopeShape { b: 1, t: 1, h: 1, d: 4, r: 3, per_batch: false };
        rope_inplace(shape, RopeStyle::Half, false, &[1.0], &[0.0], &mut [0.0; 4]);
    }
}
