//! Blocks of 256 in 8 groups of 32: a binary16 scale `d`, the upper 2 bits of the groups' 6-bit scales in 2 bytes
//! (group `j` at bit `2 j`, little-endian), their lower 4 bits in 4 bytes (even groups low), then 16 bytes of indices
//! for each group, placed as in `q4_0`. An element is `d * (scale - 32) * v` with `v` from the table of `iq4_nl`.

use super::iq4_nl::{ANCHORS, VALUES, index, nearest};
use super::pack_halves;
use super::search::{Scaled, block_of, symmetric};
use crate::FormatInfo;
use crate::half::{f16_to_f32, f32_to_f16};

const LEN: usize = 256;
const BYTES: usize = 2 + 2 + LEN / 64 + LEN / 2;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "iq4_xs",
    aliases: &[],
    ggml_type: Some(23),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "4.25 bits per element: blocks of 256 indices into the table of iq4_nl, with a 6-bit scale for every 32",
    decode,
    encode,
};

const _: () = assert!(BYTES == 136);

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        let high = u16::from_le_bytes([block[2], block[3]]);
        let groups = block[8..].as_chunks::<16>().0;
        for (j, (out, q)) in out.as_chunks_mut::<32>().0.iter_mut().zip(groups).enumerate() {
            let low = block[4 + j / 2] >> (4 * (j % 2)) & 15;
            let scale = (low | ((high >> (2 * j) & 3) as u8) << 4) as i8 - 32;
            let d = d * f32::from(scale);
            let (l, h) = out.split_at_mut(16);
            for ((l, h), &q) in l.iter_mut().zip(h).zip(q) {
                *l = d * f32::from(VALUES[usize::from(q & 15)]);
                *h = d * f32::from(VALUES[usize::from(q >> 4)]);
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
                out[..2].copy_from_slice(&f32_to_f16(d).to_le_bytes());
                continue;
            }
        };
        let fit = symmetric::<32, 8>(&scaled, 32.0, &ANCHORS, nearest);
        out[..2].copy_from_slice(&fit.d.to_le_bytes());
        let mut high = 0;
        for (j, (scale, q)) in fit.scales.iter().zip(&fit.levels).enumerate() {
            let scale = (scale + 32) as u8;
            high |= u16::from(scale >> 4) << (2 * j);
            out[4 + j / 2] |= (scale & 15) << (4 * (j % 2));
            pack_halves(&q.map(index), &mut out[8 + 16 * j..][..16]);
        }
        out[2..4].copy_from_slice(&high.to_le_bytes());
    }
}
