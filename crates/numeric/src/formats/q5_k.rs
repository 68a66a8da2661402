//! Blocks of 256 in 8 groups of 32: binary16 steps `d` and `m` and 12 bytes of 6-bit scales and offsets as in `q4_k`,
//! then the unsigned 5-bit numbers `q`: 32 bytes of fifth bits (element `l` of group `j` in bit `j` of byte `l`), then
//! the lower four bits as in `q4_k`. An element is `d * scale * q - m * offset`.

use super::q4_k::{pack_scales, unpack_scales};
use super::search::{Scaled, affine, block_of};
use crate::FormatInfo;
use crate::half::{f16_to_f32, f32_to_f16};

const LEN: usize = 256;
const BYTES: usize = 2 + 2 + 12 + LEN / 8 + LEN / 2;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "q5_k",
    aliases: &[],
    ggml_type: Some(13),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "5.5 bits per element: blocks of 256 five-bit numbers, with a 6-bit scale and offset for every 32",
    decode,
    encode,
};

const _: () = assert!(BYTES == 176);

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        let m = f16_to_f32(u16::from_le_bytes([block[2], block[3]]));
        let (packed, rest) = block[4..].split_first_chunk::<12>().expect("the rest of the block is longer");
        let (scales, offsets) = unpack_scales(packed);
        let (fifth, q) = rest.split_at(32);
        for (j, (out, q)) in out.as_chunks_mut::<64>().0.iter_mut().zip(q.as_chunks::<32>().0).enumerate() {
            let (low, high) = out.split_at_mut(32);
            let (d0, m0) = (d * f32::from(scales[2 * j]), m * f32::from(offsets[2 * j]));
            let (d1, m1) = (d * f32::from(scales[2 * j + 1]), m * f32::from(offsets[2 * j + 1]));
            for (((l, h), &q), &fifth) in low.iter_mut().zip(high).zip(q).zip(fifth) {
                let fifth = fifth >> (2 * j);
                *l = d0 * f32::from(q & 15 | (fifth & 1) << 4) - m0;
                *h = d1 * f32::from(q >> 4 | (fifth & 2) << 3) - m1;
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
        let fit = affine::<32, 8>(&scaled, 31.0, 63.0, 16);
        out[..2].copy_from_slice(&fit.d.to_le_bytes());
        out[2..4].copy_from_slice(&fit.min.to_le_bytes());
        out[4..16].copy_from_slice(&pack_scales(&fit.scales, &fit.shifts));
        let (fifth, out) = out[16..].split_at_mut(32);
        for (j, group) in fit.levels.iter().enumerate() {
            for (fifth, q) in fifth.iter_mut().zip(group) {
                *fifth |= (q >> 4) << j;
            }
        }
        for (out, pair) in out.as_chunks_mut::<32>().0.iter_mut().zip(fit.levels.as_chunks::<2>().0) {
            for ((out, low), high) in out.iter_mut().zip(&pair[0]).zip(&pair[1]) {
                *out = low & 15 | high << 4;
            }
        }
    }
}
