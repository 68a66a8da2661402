//! Blocks of 32: a binary16 scale `d`, a binary16 offset `m`, then 16 bytes of two unsigned 4-bit numbers `q` placed as
//! in `q4_0`. An element is `d * q + m`; without an importance `m` is the least element and `m + 15 d` the greatest.

use super::search::{Scaled, block_of, finite, single_line};
use super::{max_magnitude, pack_halves};
use crate::FormatInfo;
use crate::half::{f16_to_f32, f32_to_f16};

const LEN: usize = 32;
const BYTES: usize = 4 + LEN / 2;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "q4_1",
    aliases: &[],
    ggml_type: Some(3),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "5 bits per element: blocks of 32 four-bit numbers with an f16 scale and an f16 offset",
    decode,
    encode,
};

const _: () = assert!(BYTES == 20);

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        let m = f16_to_f32(u16::from_le_bytes([block[2], block[3]]));
        let (low, high) = out.split_at_mut(LEN / 2);
        for ((l, h), &q) in low.iter_mut().zip(high).zip(&block[4..]) {
            *l = f32::from(q & 15) * d + m;
            *h = f32::from(q >> 4) * d + m;
        }
    }
}

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    for (i, (block, out)) in src.as_chunks::<LEN>().0.iter().zip(dst.as_chunks_mut::<BYTES>().0).enumerate() {
        let (d, m, q) = fit(block, block_of(importance, i), 15.0);
        out[..2].copy_from_slice(&d.to_le_bytes());
        out[2..4].copy_from_slice(&m.to_le_bytes());
        pack_halves(&q, &mut out[4..]);
    }
}

/// Scale, offset and levels `0..=top` of a block.
pub(super) fn fit(block: &[f32; LEN], importance: Option<&[f32; LEN]>, top: f32) -> (u16, u16, [u8; LEN]) {
    if importance.is_some() {
        return match Scaled::new(block, importance) {
            Ok(scaled) => single_line(&scaled, top),
            Err(d) => (f32_to_f16(d), 0, [0; LEN]),
        };
    }
    if !max_magnitude(block).is_finite() {
        return (f32_to_f16(f32::NAN), 0, [0; LEN]);
    }
    let (mut min, mut max) = (block[0], block[0]);
    for &x in block {
        min = if x < min { x } else { min };
        max = if x > max { x } else { max };
    }
    let (d, m) = (finite((max - min) / top), finite(min));
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    // A scale too small for its inverse makes 0 * inverse a NaN, which is cast to 0.
    let q = block.map(|x| (((x - m) * inverse + 0.5) as u8).min(top as u8));
    (f32_to_f16(d), f32_to_f16(m), q)
}
