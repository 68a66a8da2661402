//! OCP microscaling, blocks of 32: a byte `e` with the exponent of the scale, then 16 bytes of two 4-bit floats (sign, 2
//! bits of exponent, 1 of fraction: 0, 0.5, 1, 1.5, 2, 3, 4, 6) placed as the numbers of `q4_0`. An element is the float
//! times `2^(e - 127)`. Without an importance the largest element decides `e`: it lies between 4 and 8 of its steps.

use super::search::block_of;
use super::{max_magnitude, pack_halves};
use crate::FormatInfo;

const LEN: usize = 32;
const BYTES: usize = 1 + LEN / 2;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "mxfp4",
    aliases: &[],
    ggml_type: Some(39),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "4.25 bits per element: blocks of 32 four-bit floats (e2m1) with a power of two as their scale",
    decode,
    encode,
};

const _: () = assert!(BYTES == 17);

/// Twice the value of every 4-bit float.
pub(super) const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
/// Where the nearest magnitude changes to the next one.
const BORDERS: [f32; 7] = [0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0];

/// Half of `2^(e - 127)`, what the doubled [`VALUES`] are multiplied with.
#[inline(always)]
pub(super) fn half_scale(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { u32::from(e - 1) << 23 })
}

/// The nearest 4-bit floats times `d`, towards zero in the middle.
#[inline(always)]
pub(super) fn nearest<const N: usize>(x: &[f32; N], d: f32) -> [u8; N] {
    let borders = BORDERS.map(|b| b * d);
    x.map(|x| {
        let mut code = 0;
        for border in borders {
            code += u8::from(x.abs() > border);
        }
        if x < 0.0 && code > 0 { code | 8 } else { code }
    })
}

/// The weighted squared error of [`nearest`].
#[inline(always)]
pub(super) fn error<const N: usize>(x: &[f32; N], w: Option<&[f32; N]>, d: f32) -> f64 {
    let mut sum = 0.0;
    for (i, (&x, code)) in x.iter().zip(nearest(x, d)).enumerate() {
        let difference = f64::from(x) - f64::from(VALUES[usize::from(code)]) * f64::from(d);
        let weight = w.map_or(1.0, |w| w[i]);
        sum += f64::from(if weight > 0.0 && weight.is_finite() { weight } else { 0.0 }) * difference * difference;
    }
    sum
}

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = half_scale(block[0]);
        let (low, high) = out.split_at_mut(LEN / 2);
        for ((l, h), &q) in low.iter_mut().zip(high).zip(&block[1..]) {
            *l = f32::from(VALUES[usize::from(q & 15)]) * d;
            *h = f32::from(VALUES[usize::from(q >> 4)]) * d;
        }
    }
}

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    for (i, (block, out)) in src.as_chunks::<LEN>().0.iter().zip(dst.as_chunks_mut::<BYTES>().0).enumerate() {
        // There is no NaN: one counts as zero, an infinity as the largest number.
        let block = block.map(|x| if x.is_nan() { 0.0 } else { x.clamp(f32::MIN, f32::MAX) });
        let exponent = (max_magnitude(&block).to_bits() >> 23) as u8;
        let mut e = exponent.saturating_sub(2);
        if let Some(weights) = block_of(importance, i) {
            let mut least = error(&block, Some(weights), half_scale(e));
            for other in [e.saturating_sub(1), (e + 1).min(252)] {
                let error = error(&block, Some(weights), half_scale(other));
                if error < least {
                    (e, least) = (other, error);
                }
            }
        }
        out[0] = e;
        pack_halves(&nearest(&block, half_scale(e)), &mut out[1..]);
    }
}
