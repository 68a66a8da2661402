//! Blocks of 256 in 16 groups of 16: the upper bits of the 3-bit numbers `q` in 32 bytes (element `32 p + l` in bit `p` of
//! byte `l`), their lower two bits in 64 bytes as in `q2_k`, 12 bytes of 6-bit scales and a binary16 step `d`. An
//! element is `d * (scale - 32) * (q - 4)`.
//!
//! The 12 bytes: the lower 4 bits of the scales of groups 0 to 7 in the low halves of bytes 0 to 7, of groups 8 to 15 in
//! their high halves; the upper 2 bits of group `j` in bits `2 (j / 4)` of byte `8 + j % 4`.

use super::search::{Scaled, block_of, round_within, symmetric};
use super::{pack_quarters, unpack_quarters};
use crate::FormatInfo;
use crate::half::{f16_to_f32, f32_to_f16};

const LEN: usize = 256;
const BYTES: usize = LEN / 8 + LEN / 4 + 12 + 2;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "q3_k",
    aliases: &[],
    ggml_type: Some(11),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "3.4375 bits per element: blocks of 256 three-bit numbers, with a 6-bit scale for every 16",
    decode,
    encode,
};

const _: () = assert!(BYTES == 110);

/// Levels that the search takes the largest element to.
const ANCHORS: [f32; 16] = [-4.0, -4.6, -4.4, -4.2, -3.8, -3.6, -3.4, -3.2, 3.0, 2.6, 2.8, 3.2, 3.4, 3.6, 3.8, 4.0];

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let (upper, rest) = block.split_at(32);
        let (lower, rest) = rest.split_at(64);
        let (scales, d) = rest.split_at(12);
        let d = f16_to_f32(u16::from_le_bytes([d[0], d[1]]));
        let levels = unpack_quarters(lower);
        for (j, (out, q)) in out.as_chunks_mut::<16>().0.iter_mut().zip(levels.as_chunks::<16>().0).enumerate() {
            let low = scales[j % 8] >> (4 * (j / 8)) & 15;
            let high = scales[8 + j % 4] >> (2 * (j / 4)) & 3;
            let d = d * f32::from((low | high << 4) as i8 - 32);
            for ((x, &q), &upper) in out.iter_mut().zip(q).zip(&upper[16 * (j % 2)..]) {
                *x = d * f32::from((q | (upper >> (j / 2) & 1) << 2) as i8 - 4);
            }
        }
    }
}

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    for (i, (block, out)) in src.as_chunks::<LEN>().0.iter().zip(dst.as_chunks_mut::<BYTES>().0).enumerate() {
        out.fill(0);
        let scaled = match Scaled::new(block, block_of(importance, i)) {
            Ok(scaled) => scaled,
            Err(d) => {
                out[108..].copy_from_slice(&f32_to_f16(d).to_le_bytes());
                continue;
            }
        };
        let fit = symmetric::<16, 16>(&scaled, 32.0, &ANCHORS, |v| round_within(v, -4.0, 3.0));
        let levels = fit.levels.map(|group| group.map(|q| (q + 4) as u8));
        let levels = levels.as_flattened();
        for (p, group) in levels.as_chunks::<32>().0.iter().enumerate() {
            for (upper, q) in out.iter_mut().zip(group) {
                *upper |= (q >> 2) << p;
            }
        }
        let mut lower = [0; LEN];
        for (lower, q) in lower.iter_mut().zip(levels) {
            *lower = q & 3;
        }
        pack_quarters(&lower, &mut out[32..96]);
        for (j, scale) in fit.scales.iter().enumerate() {
            let scale = (scale + 32) as u8;
            out[96 + j % 8] |= (scale & 15) << (4 * (j / 8));
            out[104 + j % 4] |= (scale >> 4) << (2 * (j / 4));
        }
        out[108..].copy_from_slice(&fit.d.to_le_bytes());
    }
}
