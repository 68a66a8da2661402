//! Blocks of 64 in 4 groups of 16: a byte for each group with its scale, an unsigned float of 4 bits of exponent (bias
//! 7) and 3 of fraction (0x7f is 0), then 8 bytes for each group of two 4-bit floats as in `mxfp4`: element `i` in the
//! low half of byte `i`, element `i + 8` in the high half. An element is the scale times the float, so that a block
//! reaches from 2^-10 to 2688: files scale a tensor of smaller numbers as a whole.

use super::mxfp4::{VALUES, error, nearest};
use super::search::block_of;
use super::{max_magnitude, pack_halves};
use crate::FormatInfo;

const LEN: usize = 64;
const GROUP: usize = 16;
const BYTES: usize = LEN / GROUP + LEN / 2;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "nvfp4",
    aliases: &[],
    ggml_type: Some(40),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "4.5 bits per element: blocks of 64 four-bit floats (e2m1) with an 8-bit float as scale for every 16",
    decode,
    encode,
};

const _: () = assert!(BYTES == 36);

/// The largest scale, 448.
const LARGEST: u8 = 0x7e;

/// Half of a scale, what the doubled values are multiplied with.
#[inline(always)]
pub(super) fn half_scale(bits: u8) -> f32 {
    let (exponent, fraction) = (u32::from(bits >> 3 & 15), u32::from(bits & 7));
    if bits == 0x7f {
        0.0
    } else if exponent == 0 {
        fraction as f32 / 1024.0
    } else {
        f32::from_bits((exponent + 119) << 23 | fraction << 20)
    }
}

/// The nearest scale below the top, by the order of the bits being that of the numbers.
fn scale_bits(scale: f32) -> u8 {
    let mut bits = 0;
    for step in [64, 32, 16, 8, 4, 2, 1] {
        if bits + step <= LARGEST && half_scale(bits + step) * 2.0 <= scale {
            bits += step;
        }
    }
    let up = bits < LARGEST && half_scale(bits) + half_scale(bits + 1) <= scale;
    bits + u8::from(up)
}

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let (scales, q) = block.split_at(LEN / GROUP);
        let groups = out.as_chunks_mut::<GROUP>().0.iter_mut().zip(q.as_chunks::<{ GROUP / 2 }>().0);
        for ((out, q), &scale) in groups.zip(scales) {
            let d = half_scale(scale);
            let (low, high) = out.split_at_mut(GROUP / 2);
            for ((l, h), &q) in low.iter_mut().zip(high).zip(q) {
                *l = f32::from(VALUES[usize::from(q & 15)]) * d;
                *h = f32::from(VALUES[usize::from(q >> 4)]) * d;
            }
        }
    }
}

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    for (i, (block, out)) in src.as_chunks::<LEN>().0.iter().zip(dst.as_chunks_mut::<BYTES>().0).enumerate() {
        let weights = block_of::<LEN>(importance, i);
        let (scales, q) = out.split_at_mut(LEN / GROUP);
        let groups = block.as_chunks::<GROUP>().0.iter().zip(q.as_chunks_mut::<{ GROUP / 2 }>().0);
        for (j, ((group, q), out)) in groups.zip(scales).enumerate() {
            // There is no NaN: one counts as zero, an infinity as the largest number.
            let group = group.map(|x| if x.is_nan() { 0.0 } else { x.clamp(f32::MIN, f32::MAX) });
            let weights = weights.map(|w| &w.as_chunks::<GROUP>().0[j]);
            // The scale that takes the largest element to the largest float, or a neighbour that fits better.
            let start = scale_bits(max_magnitude(&group) / 6.0);
            let (mut best, mut least) = (start, error(&group, weights, half_scale(start)));
            for bits in start.saturating_sub(2)..=(start + 5).min(LARGEST) {
                let error = error(&group, weights, half_scale(bits));
                if error < least {
                    (best, least) = (bits, error);
                }
            }
            *out = best;
            pack_halves(&nearest(&group, half_scale(best)), q);
        }
    }
}
