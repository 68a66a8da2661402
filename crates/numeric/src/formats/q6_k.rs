//! Blocks of 256 in 16 groups of 16: the lower 4 bits of the 6-bit numbers `q` in 128 bytes, their upper 2 bits in 64,
//! 16 signed bytes of scales and a binary16 step `d`. An element is `d * scale * (q - 32)`.
//!
//! Each half of the block (128 elements) has 64 bytes of lower bits, element `l` in the low half of byte `l` and element
//! `64 + l` in its high half, and 32 bytes of upper bits, element `32 p + l` in bits `2 p` of byte `l`.

use super::search::{Scaled, block_of, round_within, symmetric};
use super::{pack_quarters, unpack_quarters};
use crate::FormatInfo;
use crate::half::{f16_to_f32, f32_to_f16};

const LEN: usize = 256;
const BYTES: usize = LEN / 2 + LEN / 4 + LEN / 16 + 2;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "q6_k",
    aliases: &[],
    ggml_type: Some(14),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "6.5625 bits per element: blocks of 256 six-bit numbers, with an 8-bit scale for every 16",
    decode,
    encode,
};

const _: () = assert!(BYTES == 210);

/// Levels that the search takes the largest element to.
const ANCHORS: [f32; 14] = [-32.0, -32.9, -32.6, -32.3, -31.7, -31.4, -31.1, -30.8, 31.0, 30.7, 31.3, 31.6, 31.9, 32.2];

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let (lower, rest) = block.split_at(128);
        let (upper, rest) = rest.split_at(64);
        let (scales, d) = rest.split_at(16);
        let d = f16_to_f32(u16::from_le_bytes([d[0], d[1]]));
        let upper = unpack_quarters(upper);
        for (j, (out, upper)) in out.as_chunks_mut::<16>().0.iter_mut().zip(upper.as_chunks::<16>().0).enumerate() {
            let d = d * f32::from(scales[j] as i8);
            let (half, group) = (j / 8, j % 8);
            let shift = 4 * (group / 4);
            let lower = &lower[64 * half + 16 * (group % 4)..];
            for ((x, &low), &high) in out.iter_mut().zip(lower).zip(upper) {
                *x = d * f32::from((low >> shift & 15 | high << 4) as i8 - 32);
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
                out[208..].copy_from_slice(&f32_to_f16(d).to_le_bytes());
                continue;
            }
        };
        let fit = symmetric::<16, 16>(&scaled, 128.0, &ANCHORS, |v| round_within(v, -32.0, 31.0));
        let levels = fit.levels.map(|group| group.map(|q| (q + 32) as u8));
        let levels = levels.as_flattened();
        for (out, half) in out.as_chunks_mut::<64>().0.iter_mut().zip(levels.as_chunks::<128>().0) {
            let (low, high) = half.split_at(64);
            for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
                *out = low & 15 | high << 4;
            }
        }
        let mut upper = [0; LEN];
        for (upper, q) in upper.iter_mut().zip(levels) {
            *upper = q >> 4;
        }
        pack_quarters(&upper, &mut out[128..192]);
        for (out, scale) in out[192..208].iter_mut().zip(&fit.scales) {
            *out = *scale as u8;
        }
        out[208..].copy_from_slice(&fit.d.to_le_bytes());
    }
}
