//! Blocks of 256 in 16 groups of 16: a byte for each group with a 4-bit scale (low) and a 4-bit offset (high), 64 bytes
//! of unsigned 2-bit numbers `q`, then binary16 steps `d` of the scales and `m` of the offsets. An element is
//! `d * scale * q - m * offset`. Each 32 bytes of numbers hold 128 elements: element `32 p + l` in bits `2 p` of byte
//! `l`.

use super::search::{Scaled, affine, block_of};
use super::{pack_quarters, unpack_quarters};
use crate::FormatInfo;
use crate::half::{f16_to_f32, f32_to_f16};

const LEN: usize = 256;
const BYTES: usize = LEN / 16 + LEN / 4 + 2 + 2;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "q2_k",
    aliases: &[],
    ggml_type: Some(10),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "2.625 bits per element: blocks of 256 two-bit numbers, with a 4-bit scale and offset for every 16",
    decode,
    encode,
};

const _: () = assert!(BYTES == 84);

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let (scales, rest) = block.split_at(16);
        let (q, steps) = rest.split_at(64);
        let d = f16_to_f32(u16::from_le_bytes([steps[0], steps[1]]));
        let m = f16_to_f32(u16::from_le_bytes([steps[2], steps[3]]));
        let levels = unpack_quarters(q);
        for ((out, q), &scale) in out.as_chunks_mut::<16>().0.iter_mut().zip(levels.as_chunks::<16>().0).zip(scales) {
            let (d, m) = (d * f32::from(scale & 15), m * f32::from(scale >> 4));
            for (x, &q) in out.iter_mut().zip(q) {
                *x = d * f32::from(q) - m;
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
                out[80..82].copy_from_slice(&f32_to_f16(d).to_le_bytes());
                continue;
            }
        };
        let fit = affine::<16, 16>(&scaled, 3.0, 15.0, 16);
        for ((out, scale), shift) in out.iter_mut().zip(&fit.scales).zip(&fit.shifts) {
            *out = scale | shift << 4;
        }
        pack_quarters(fit.levels.as_flattened(), &mut out[16..80]);
        out[80..82].copy_from_slice(&fit.d.to_le_bytes());
        out[82..].copy_from_slice(&fit.min.to_le_bytes());
    }
}
