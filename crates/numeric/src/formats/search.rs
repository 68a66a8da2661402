//! What the block formats share when they encode: what an error weighs, and searches for the scales of a block.
//!
//! A group of numbers is given as `x` and weights `w` of the same length. Its levels are integers (or a codebook's
//! values), its scale a number of which the format keeps a rounded version. The searches try a row of scales, solve
//! for the best one given the levels each leads to (weighted least squares), and keep the best. The formats of 256
//! elements then round the scales of their groups to integers times a common step, try the neighbours of each against
//! the true error, and solve for the step again.

use super::max_magnitude;
use crate::half::{f16_to_f32, f32_to_f16};

/// Largest finite binary16.
const F16_MAX: f32 = 65504.0;
/// 1.5 * 2^23: a number below 2^22 that gains and loses it is rounded to the nearest integer, in two additions.
const ROUNDER: f32 = 12_582_912.0;
/// Partial sums kept side by side, so that the loops can be vectorised.
const LANES: usize = 8;
/// Blocks whose largest magnitude is below this are zeros: no format here can hold it.
const LEAST: f32 = 1e-9;
/// What an element without any importance weighs, next to the most important one of its block.
const FLOOR: f32 = 1e-6;

/// The nearest integer (ties to even) within bounds that are integers; NaN becomes the lower one.
#[inline(always)]
pub(super) fn round_within(x: f32, low: f32, high: f32) -> f32 {
    let x = if x > low { x } else { low };
    let x = if x < high { x } else { high };
    (x + ROUNDER) - ROUNDER
}

/// The binary16 of a scale that is kept finite: what is too large becomes the largest, NaN stays.
#[inline(always)]
pub(super) fn finite(scale: f32) -> f32 {
    scale.clamp(-F16_MAX, F16_MAX)
}

/// The block of an importance that belongs to block `i` of `N` elements.
#[inline(always)]
pub(super) fn block_of<const N: usize>(importance: Option<&[f32]>, i: usize) -> Option<&[f32; N]> {
    importance.and_then(|w| w.as_chunks::<N>().0.get(i))
}

/// A block ready for a search: its numbers over a power of two that brings the largest to between 1 and 2 (so that
/// no sum overflows), and what their errors weigh.
pub(super) struct Scaled<const N: usize> {
    pub x: [f32; N],
    pub w: [f32; N],
    pub unit: f32,
}

impl<const N: usize> Scaled<N> {
    /// `Err` for a block that needs no search: the scale to write, 0 or NaN, with zeros everywhere else.
    pub(super) fn new(block: &[f32; N], importance: Option<&[f32; N]>) -> Result<Scaled<N>, f32> {
        let magnitude = max_magnitude(block);
        if !magnitude.is_finite() {
            return Err(f32::NAN);
        }
        if magnitude < LEAST {
            return Err(0.0);
        }
        let unit = f32::from_bits(magnitude.to_bits() & 0x7f80_0000);
        let inverse = 1.0 / unit;
        let mut x = *block;
        let mut squares = 0.0;
        for x in &mut x {
            *x *= inverse;
            squares += *x * *x;
        }
        // Large weights count more, as they meet large activations more often; and by their importance where known.
        let mean = squares / N as f32;
        let mut w = x.map(|x| (mean + x * x).sqrt());
        if let Some(importance) = importance {
            let valid = |v: f32| if v > 0.0 && v < f32::INFINITY { v } else { 0.0 };
            let largest = importance.iter().fold(0.0f32, |m, &v| m.max(valid(v)));
            if largest > 0.0 {
                for (w, &v) in w.iter_mut().zip(importance) {
                    *w *= valid(v) / largest + FLOOR;
                }
            }
        }
        Ok(Scaled { x, w, unit })
    }
}

/// Sums of `S` quantities over a group.
#[inline(always)]
fn sums<const S: usize, const N: usize>(x: &[f32; N], w: &[f32; N], each: impl Fn(f32, f32) -> [f32; S]) -> [f32; S] {
    let mut lanes = [[0.0; LANES]; S];
    for (x, w) in x.as_chunks::<LANES>().0.iter().zip(w.as_chunks::<LANES>().0) {
        for i in 0..LANES {
            let terms = each(x[i], w[i]);
            for (sum, term) in lanes.iter_mut().zip(terms) {
                sum[i] += term;
            }
        }
    }
    lanes.map(|l| ((l[0] + l[4]) + (l[1] + l[5])) + ((l[2] + l[6]) + (l[3] + l[7])))
}

/// The scale `s` that makes `x` nearest to `s` times levels. `level` is the nearest level of a number; the scales tried
/// take the element of largest magnitude to each of `anchors`.
#[inline(always)]
pub(super) fn scale<const N: usize>(
    x: &[f32; N],
    w: &[f32; N],
    anchors: &[f32],
    level: impl Fn(f32) -> f32 + Copy,
) -> f32 {
    let magnitude = max_magnitude(x);
    let Some(&largest) = x.iter().find(|x| x.abs() == magnitude).filter(|x| **x != 0.0) else { return 0.0 };
    let (mut best, mut found) = (0.0, largest / anchors[0]);
    let mut attempt = |inverse: f32| {
        let [cross, square] = sums(x, w, |x, w| {
            let l = level(x * inverse);
            let wl = w * l;
            [wl * x, wl * l]
        });
        if square > 0.0 && cross * cross > best * square {
            best = cross * cross / square;
            found = cross / square;
        }
        found
    };
    let mut at = 0.0;
    for anchor in anchors {
        at = attempt(anchor / largest);
    }
    for _ in 0..2 {
        at = attempt(1.0 / at);
    }
    at
}

/// The line `(s, o)` that makes `x` nearest to `s * level + o` with levels `0..=top`; `o` is at most 0 unless `free`.
#[inline(always)]
pub(super) fn line<const N: usize>(x: &[f32; N], w: &[f32; N], top: f32, free: bool, tries: usize) -> (f32, f32) {
    let (mut min, mut max) = (x[0], x[0]);
    for &x in x {
        min = if x < min { x } else { min };
        max = if x > max { x } else { max };
    }
    if !free && min > 0.0 {
        min = 0.0;
    }
    let range = max - min;
    if range <= 0.0 || !(1.0 / range).is_finite() {
        return (0.0, min);
    }
    let [weight, sum] = sums(x, w, |x, w| [w, w * x]);
    let (mut best, mut found) = (f32::INFINITY, (range / top, min));
    let mut attempt = |inverse: f32, origin: f32| {
        let [l1, l2, lx] = sums(x, w, |x, w| {
            let l = round_within((x - origin) * inverse, 0.0, top);
            let wl = w * l;
            [wl, wl * l, wl * x]
        });
        let determinant = weight * l2 - l1 * l1;
        if l2 <= 0.0 {
            return found;
        }
        let (mut s, mut o) = if determinant > 1e-5 * weight * l2 {
            ((weight * lx - sum * l1) / determinant, (l2 * sum - l1 * lx) / determinant)
        } else {
            // One level only: the origin stays.
            ((lx - origin * l1) / l2, origin)
        };
        if !free && o > 0.0 {
            (s, o) = (lx / l2, 0.0);
        }
        // The weighted error, less the part no choice changes.
        let error = s * (s * l2 + 2.0 * (o * l1 - lx)) + o * (o * weight - 2.0 * sum);
        if error < best {
            best = error;
            found = (s, o);
        }
        found
    };
    let mut at = (0.0, 0.0);
    for i in 0..tries {
        at = attempt((top - 0.9 + 1.8 * i as f32 / (tries - 1) as f32) / range, min);
    }
    for _ in 0..2 {
        if at.0 > 0.0 {
            at = attempt(1.0 / at.0, at.1);
        }
    }
    at
}

/// A scale as binary16 bits and as the number they stand for, in units of `unit`. Where binary16 is coarse (below its
/// normal range) rounded away from zero, so that what is counted in it is not cut off.
fn half(scale: f32, unit: f32, up: bool) -> (u16, f32) {
    let wanted = finite(scale * unit);
    let mut bits = f32_to_f16(wanted);
    if up && bits & 0x7fff < 0x400 && f16_to_f32(bits).abs() < wanted.abs() {
        bits += 1;
    }
    (bits, f16_to_f32(bits) / unit)
}

/// A super-block of `K` groups of `G` elements, `x = d * scale * level - min * shift`.
pub(super) struct Affine<const G: usize, const K: usize> {
    pub d: u16,
    pub min: u16,
    pub scales: [u8; K],
    pub shifts: [u8; K],
    pub levels: [[u8; G]; K],
}

/// The error of a group at scale `s` and offset `-o`.
#[inline(always)]
fn line_error<const G: usize>(x: &[f32; G], w: &[f32; G], s: f32, o: f32, top: f32) -> f32 {
    let inverse = if s > 0.0 { 1.0 / s } else { 0.0 };
    let [error] = sums(x, w, |x, w| {
        let difference = round_within((x + o) * inverse, 0.0, top) * s - o - x;
        [w * difference * difference]
    });
    error
}

/// Fits a super-block with levels `0..=top`, and scales and shifts `0..=steps`.
#[inline(always)]
pub(super) fn affine<const G: usize, const K: usize>(
    block: &Scaled<256>,
    top: f32,
    steps: f32,
    tries: usize,
) -> Affine<G, K> {
    const { assert!(G * K == 256) };
    let (x, w) = (block.x.as_chunks::<G>().0, block.w.as_chunks::<G>().0);
    let (mut scales, mut offsets, mut weights) = ([0.0; K], [0.0; K], [0.0; K]);
    for j in 0..K {
        let (s, o) = line(&x[j], &w[j], top, false, tries);
        (scales[j], offsets[j]) = (if s > 0.0 { s } else { 0.0 }, -o);
        weights[j] = w[j].iter().sum();
    }
    let anchors: [f32; 13] = std::array::from_fn(|i| steps + (i as f32 - 6.0) * 0.1);
    let step = |values: &[f32; K]| scale(values, &weights, &anchors, |v| round_within(v, 0.0, steps));
    // For given steps: the best integers of every group, and the error.
    let assign = |d: f32, m: f32| {
        let (mut s, mut o, mut total) = ([0u8; K], [0u8; K], 0.0);
        for j in 0..K {
            let near = |v: f32, step: f32| if step > 0.0 { round_within(v / step, 0.0, steps) } else { 0.0 };
            let (s0, o0) = (near(scales[j], d), near(offsets[j], m));
            let mut best = f32::INFINITY;
            for ds in [0.0, -1.0, 1.0] {
                for dm in [0.0, -1.0, 1.0] {
                    let (a, b) = (s0 + ds, o0 + dm);
                    if (0.0..=steps).contains(&a) && (0.0..=steps).contains(&b) {
                        let error = line_error(&x[j], &w[j], d * a, m * b, top);
                        if error < best {
                            best = error;
                            (s[j], o[j]) = (a as u8, b as u8);
                        }
                    }
                }
            }
            total += best;
        }
        (s, o, total)
    };
    let (mut dh, mut d) = half(step(&scales), block.unit, true);
    let (mut mh, mut m) = half(step(&offsets), block.unit, true);
    let (mut s, mut o, mut error) = assign(d, m);
    for _ in 0..2 {
        // The best steps for these integers and the levels they lead to.
        let mut total = [0.0f32; 5];
        for j in 0..K {
            let (a, b) = (f32::from(s[j]), f32::from(o[j]));
            let (sd, om) = (d * a, m * b);
            let inverse = if sd > 0.0 { 1.0 / sd } else { 0.0 };
            let [ll, lx, l, wx, ww] = sums(&x[j], &w[j], |x, w| {
                let l = round_within((x + om) * inverse, 0.0, top);
                let wl = w * l;
                [wl * l, wl * x, wl, w * x, w]
            });
            for (t, v) in total.iter_mut().zip([a * a * ll, a * lx, a * b * l, b * wx, b * b * ww]) {
                *t += v;
            }
        }
        let [aa, ax, ab, bx, bb] = total;
        let determinant = aa * bb - ab * ab;
        let (nd, nm) = if determinant > 1e-6 * aa * bb {
            ((ax * bb - bx * ab) / determinant, (ax * ab - bx * aa) / determinant)
        } else if aa > 0.0 {
            ((ax + m * ab) / aa, m)
        } else {
            break;
        };
        if !(nd > 0.0 && nm >= 0.0) {
            break;
        }
        let ((ndh, nd), (nmh, nm)) = (half(nd, block.unit, false), half(nm, block.unit, false));
        if (ndh, nmh) == (dh, mh) {
            break;
        }
        let (ns, no, nerror) = assign(nd, nm);
        if nerror >= error {
            break;
        }
        (dh, d, mh, m, s, o, error) = (ndh, nd, nmh, nm, ns, no, nerror);
    }
    let mut levels = [[0; G]; K];
    for j in 0..K {
        let (s, o) = (d * f32::from(s[j]), m * f32::from(o[j]));
        let inverse = if s > 0.0 { 1.0 / s } else { 0.0 };
        levels[j] = x[j].map(|x| round_within((x + o) * inverse, 0.0, top) as u8);
    }
    Affine { d: dh, min: mh, scales: s, shifts: o, levels }
}

/// A super-block of `K` groups of `G` elements, `x = d * scale * level`.
pub(super) struct Symmetric<const G: usize, const K: usize> {
    pub d: u16,
    pub scales: [i8; K],
    pub levels: [[i8; G]; K],
}

/// Fits a super-block with the levels of [`scale`], and scales `-steps..steps`.
#[inline(always)]
pub(super) fn symmetric<const G: usize, const K: usize>(
    block: &Scaled<256>,
    steps: f32,
    anchors: &[f32],
    level: impl Fn(f32) -> f32 + Copy,
) -> Symmetric<G, K> {
    const { assert!(G * K == 256) };
    let (x, w) = (block.x.as_chunks::<G>().0, block.w.as_chunks::<G>().0);
    let (mut scales, mut weights) = ([0.0; K], [0.0; K]);
    for j in 0..K {
        scales[j] = scale(&x[j], &w[j], anchors, level);
        weights[j] = w[j].iter().sum();
    }
    let inverse = |v: f32| if v != 0.0 { 1.0 / v } else { 0.0 };
    let assign = |d: f32| {
        let (mut s, mut total) = ([0i8; K], 0.0);
        for j in 0..K {
            let near = round_within(scales[j] * inverse(d), -steps, steps - 1.0);
            let mut best = f32::INFINITY;
            for ds in [0.0, -1.0, 1.0] {
                let a = near + ds;
                if (-steps..=steps - 1.0).contains(&a) {
                    let (v, i) = (d * a, inverse(d * a));
                    let [error] = sums(&x[j], &w[j], |x, w| {
                        let difference = level(x * i) * v - x;
                        [w * difference * difference]
                    });
                    if error < best {
                        best = error;
                        s[j] = a as i8;
                    }
                }
            }
            total += best;
        }
        (s, total)
    };
    let step_anchors: [f32; 13] = std::array::from_fn(|i| -steps - (i as f32 - 6.0) * 0.1);
    let first = scale(&scales, &weights, &step_anchors, |v| round_within(v, -steps, steps - 1.0));
    let (mut dh, mut d) = half(first, block.unit, true);
    let (mut s, mut error) = assign(d);
    for _ in 0..2 {
        let (mut cross, mut square) = (0.0, 0.0);
        for j in 0..K {
            let a = f32::from(s[j]);
            let i = inverse(d * a);
            let [lx, ll] = sums(&x[j], &w[j], |x, w| {
                let l = level(x * i);
                [w * l * x, w * l * l]
            });
            cross += a * lx;
            square += a * a * ll;
        }
        if square <= 0.0 {
            break;
        }
        let (ndh, nd) = half(cross / square, block.unit, false);
        if ndh == dh {
            break;
        }
        let (ns, nerror) = assign(nd);
        if nerror >= error {
            break;
        }
        (dh, d, s, error) = (ndh, nd, ns, nerror);
    }
    let mut levels = [[0; G]; K];
    for j in 0..K {
        let i = inverse(d * f32::from(s[j]));
        levels[j] = x[j].map(|x| level(x * i) as i8);
    }
    Symmetric { d: dh, scales: s, levels }
}

/// Fits one block with the levels of [`scale`]: the bits of its scale and the levels.
#[inline(always)]
pub(super) fn single<const N: usize>(
    block: &Scaled<N>,
    anchors: &[f32],
    level: impl Fn(f32) -> f32 + Copy,
) -> (u16, [i8; N]) {
    let (bits, d) = half(scale(&block.x, &block.w, anchors, level), block.unit, false);
    let inverse = if d != 0.0 { 1.0 / d } else { 0.0 };
    (bits, block.x.map(|x| level(x * inverse) as i8))
}

/// Fits one block `x = scale * level + offset` with levels `0..=top`: the bits of scale and offset, and the levels.
#[inline(always)]
pub(super) fn single_line<const N: usize>(block: &Scaled<N>, top: f32) -> (u16, u16, [u8; N]) {
    let (s, o) = line(&block.x, &block.w, top, true, 19);
    let ((sh, s), (oh, o)) = (half(s, block.unit, false), half(o, block.unit, false));
    let inverse = if s > 0.0 { 1.0 / s } else { 0.0 };
    (sh, oh, block.x.map(|x| round_within((x - o) * inverse, 0.0, top) as u8))
}
