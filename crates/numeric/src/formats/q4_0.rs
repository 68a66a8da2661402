//! Blocks of 32: a binary16 scale `d`, then 16 bytes of two unsigned 4-bit numbers `q`: element `i` in the low half of
//! byte `i`, element `i + 16` in the high half. An element is `d * (q - 8)`; without an importance `d` is the element
//! of largest magnitude, with its sign, over -8, so that it is hit exactly.

use super::search::{Scaled, block_of, finite, round_within, single};
use super::{max_magnitude, pack_halves};
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

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    for (i, (block, out)) in src.as_chunks::<LEN>().0.iter().zip(dst.as_chunks_mut::<BYTES>().0).enumerate() {
        let (d, q) = fit(block, block_of(importance, i), 8.0);
        out[..2].copy_from_slice(&d.to_le_bytes());
        pack_halves(&q, &mut out[2..]);
    }
}

/// The scale of a block and its numbers, `0..2 * half`.
pub(super) fn fit(block: &[f32; LEN], importance: Option<&[f32; LEN]>, half: f32) -> (u16, [u8; LEN]) {
    if importance.is_some() {
        return match Scaled::new(block, importance) {
            Ok(scaled) => {
                // The largest element near either end.
                let anchors: [f32; 19] = std::array::from_fn(|i| {
                    if i < 10 { -half - 0.2 * (i as f32 - 4.0) } else { half + 0.2 * (i as f32 - 16.0) }
                });
                let (d, q) = single(&scaled, &anchors, |v| round_within(v, -half, half - 1.0));
                (d, q.map(|q| (q + half as i8) as u8))
            }
            Err(d) => (f32_to_f16(d), [0; LEN]),
        };
    }
    let magnitude = max_magnitude(block);
    if !magnitude.is_finite() {
        return (f32_to_f16(f32::NAN), [0; LEN]);
    }
    // The first of the largest decides the sign, as in the reference.
    let largest = block.iter().find(|x| x.abs() == magnitude).map_or(magnitude, |x| *x);
    let d = finite(largest / -half);
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    // A scale too small for its inverse makes 0 * inverse a NaN, which is cast to 0.
    (f32_to_f16(d), block.map(|x| ((x * inverse + half + 0.5) as u8).min(2 * half as u8 - 1)))
}
