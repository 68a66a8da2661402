//! Blocks of 256: 64 bytes of ternary digits placed as the numbers of `q2_k`, then a binary16 scale `d`. An element is
//! `d * (digit - 1)`; without an importance `d` is the largest magnitude, which is exact for weights that are ternary.

use super::search::{Scaled, block_of, finite, round_within, single};
use super::{max_magnitude, pack_quarters, unpack_quarters};
use crate::FormatInfo;
use crate::half::{f16_to_f32, f32_to_f16};

const LEN: usize = 256;
const BYTES: usize = LEN / 4 + 2;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "tq2_0",
    aliases: &[],
    ggml_type: Some(35),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "2.0625 bits per element: blocks of 256 ternary digits, four in a byte, with an f16 scale",
    decode,
    encode,
};

const _: () = assert!(BYTES == 66);

/// Levels that the search takes the largest element to.
const ANCHORS: [f32; 12] = [1.0, 0.75, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0, 3.5, 4.0, 5.0];

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[64], block[65]]));
        for (x, q) in out.iter_mut().zip(unpack_quarters(&block[..64])) {
            *x = d * f32::from(q as i8 - 1);
        }
    }
}

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    for (i, (block, out)) in src.as_chunks::<LEN>().0.iter().zip(dst.as_chunks_mut::<BYTES>().0).enumerate() {
        let (d, digits) = fit(block, block_of(importance, i));
        pack_quarters(&digits, &mut out[..64]);
        out[64..].copy_from_slice(&d.to_le_bytes());
    }
}

/// The scale and the digits of a block.
pub(super) fn fit(block: &[f32; LEN], importance: Option<&[f32; LEN]>) -> (u16, [u8; LEN]) {
    if importance.is_some() {
        return match Scaled::new(block, importance) {
            Ok(scaled) => {
                let (d, q) = single(&scaled, &ANCHORS, |v| round_within(v, -1.0, 1.0));
                (d, q.map(|q| (q + 1) as u8))
            }
            Err(d) => (f32_to_f16(d), [1; LEN]),
        };
    }
    let magnitude = max_magnitude(block);
    if !magnitude.is_finite() {
        return (f32_to_f16(f32::NAN), [1; LEN]);
    }
    let d = finite(magnitude);
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    // Half away from zero.
    (f32_to_f16(d), block.map(|x| 1 + u8::from(x * inverse >= 0.5) - u8::from(x * inverse <= -0.5)))
}
