//! Blocks of 32: a binary16 scale `d`, then 16 bytes of two unsigned 4-bit numbers `q`: element `i` in the low half of
//! byte `i`, element `i + 16` in the high half. An element is `d * (q - 8)`; `d` is the element of largest magnitude,
//! with its sign, over -8, so that it is hit exactly.

use super::max_magnitude;
use crate::FormatInfo;
use crate::half::{f16_to_f32, f32_to_f16};

const LEN: usize = 32;
const BYTES: usize = 2 + LEN / 2;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "q4_0",
    aliases: &[],
    ggml_type: Some(2),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "4.5 bits per element: blocks of 32 four-bit numbers with an f16 scale",
    decode,
    encode,
};

const _: () = assert!(BYTES == 18);

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        let (low, high) = out.split_at_mut(LEN / 2);
        for ((l, h), &q) in low.iter_mut().zip(high).zip(&block[2..]) {
            *l = f32::from((q & 15) as i8 - 8) * d;
            *h = f32::from((q >> 4) as i8 - 8) * d;
        }
    }
}

fn encode(src: &[f32], _importance: Option<&[f32]>, dst: &mut [u8]) {
    for (block, out) in src.as_chunks::<LEN>().0.iter().zip(dst.as_chunks_mut::<BYTES>().0) {
        let magnitude = max_magnitude(block);
        // The first of the largest decides the sign, as in the reference.
        let largest = block.iter().find(|x| x.abs() == magnitude).map_or(magnitude, |x| *x);
        let d = largest / -8.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        out[..2].copy_from_slice(&f32_to_f16(d).to_le_bytes());
        // A scale too small for its inverse, or not finite, leaves nothing to keep: 0, as the reference has it.
        let quantize = |x: f32| {
            let shifted = x * inverse + 8.5;
            (if shifted < 17.0 { shifted as i32 } else { 0 }).clamp(0, 15) as u8
        };
        let (low, high) = block.split_at(LEN / 2);
        for ((q, &l), &h) in out[2..].iter_mut().zip(low).zip(high) {
            *q = quantize(l) | quantize(h) << 4;
        }
    }
}
