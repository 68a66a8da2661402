//! Blocks of 256 in 8 groups of 32: binary16 steps `d` of the scales and `m` of the offsets, 12 bytes with a 6-bit scale
//! and a 6-bit offset for each group, then the unsigned 4-bit numbers `q`: 32 bytes for two groups, the first in the
//! low halves. An element is `d * scale * q - m * offset`.
//!
//! The 12 bytes: the scales of groups 0 to 3 in the lower 6 bits of bytes 0 to 3, their offsets in those of bytes 4 to
//! 7; of groups 4 to 7 the lower 4 bits in bytes 8 to 11 (scale low, offset high), the upper 2 in the upper bits of
//! bytes 0 to 3 (scales) and 4 to 7 (offsets).

use super::search::{Scaled, affine, block_of};
use crate::FormatInfo;
use crate::half::{f16_to_f32, f32_to_f16};

const LEN: usize = 256;
const BYTES: usize = 2 + 2 + 12 + LEN / 2;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "q4_k",
    aliases: &[],
    ggml_type: Some(12),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "4.5 bits per element: blocks of 256 four-bit numbers, with a 6-bit scale and offset for every 32",
    decode,
    encode,
};

const _: () = assert!(BYTES == 144);

/// The 6-bit scales and offsets of 8 groups.
#[inline(always)]
pub(super) fn unpack_scales(bytes: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut offsets) = ([0; 8], [0; 8]);
    for j in 0..4 {
        let (s, o, both) = (bytes[j], bytes[j + 4], bytes[j + 8]);
        scales[j] = s & 63;
        offsets[j] = o & 63;
        scales[j + 4] = both & 15 | (s >> 6) << 4;
        offsets[j + 4] = both >> 4 | (o >> 6) << 4;
    }
    (scales, offsets)
}

/// The inverse of [`unpack_scales`].
pub(super) fn pack_scales(scales: &[u8; 8], offsets: &[u8; 8]) -> [u8; 12] {
    let mut bytes = [0; 12];
    for j in 0..4 {
        bytes[j] = scales[j] | (scales[j + 4] >> 4) << 6;
        bytes[j + 4] = offsets[j] | (offsets[j + 4] >> 4) << 6;
        bytes[j + 8] = scales[j + 4] & 15 | (offsets[j + 4] & 15) << 4;
    }
    bytes
}

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        let m = f16_to_f32(u16::from_le_bytes([block[2], block[3]]));
        let (packed, q) = block[4..].split_first_chunk::<12>().expect("the rest of the block is longer");
        let (scales, offsets) = unpack_scales(packed);
        for (j, (out, q)) in out.as_chunks_mut::<64>().0.iter_mut().zip(q.as_chunks::<32>().0).enumerate() {
            let (low, high) = out.split_at_mut(32);
            let (d0, m0) = (d * f32::from(scales[2 * j]), m * f32::from(offsets[2 * j]));
            let (d1, m1) = (d * f32::from(scales[2 * j + 1]), m * f32::from(offsets[2 * j + 1]));
            for ((l, h), &q) in low.iter_mut().zip(high).zip(q) {
                *l = d0 * f32::from(q & 15) - m0;
                *h = d1 * f32::from(q >> 4) - m1;
            }
        }
    }
}

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    for (i, (block, out)) in src.as_chunks::<LEN>().0.iter().zip(dst.as_chunks_mut::<BYTES>().0).enumerate() {
        let scaled = match Scaled::new(block, block_of(importance, i)) {
            Ok(scaled) => scaled,
            Err(d) => {
                out.fill(0);
                out[..2].copy_from_slice(&f32_to_f16(d).to_le_bytes());
                continue;
            }
        };
        let fit = affine::<32, 8>(&scaled, 15.0, 63.0, 16);
        out[..2].copy_from_slice(&fit.d.to_le_bytes());
        out[2..4].copy_from_slice(&fit.min.to_le_bytes());
        out[4..16].copy_from_slice(&pack_scales(&fit.scales, &fit.shifts));
        for (out, pair) in out[16..].as_chunks_mut::<32>().0.iter_mut().zip(fit.levels.as_chunks::<2>().0) {
            for ((out, low), high) in out.iter_mut().zip(&pair[0]).zip(&pair[1]) {
                *out = low | high << 4;
            }
        }
    }
}
