//! Blocks of 32: a binary16 scale `d`, then 32 signed bytes `q`; an element is `d * q` with `d = max|x| / 127`.

use super::max_magnitude;
use super::search::finite;
use crate::FormatInfo;
use crate::half::{f16_to_f32, f32_to_f16};

const LEN: usize = 32;
const BYTES: usize = 2 + LEN;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "q8_0",
    aliases: &["q8"],
    ggml_type: Some(8),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "8.5 bits per element: blocks of 32 signed bytes with an f16 scale",
    decode,
    encode,
};

const _: () = assert!(BYTES == 34);

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        for (x, &q) in out.iter_mut().zip(&block[2..]) {
            *x = f32::from(q as i8) * d;
        }
    }
}

fn encode(src: &[f32], _importance: Option<&[f32]>, dst: &mut [u8]) {
    for (block, out) in src.as_chunks::<LEN>().0.iter().zip(dst.as_chunks_mut::<BYTES>().0) {
        let magnitude = max_magnitude(block);
        let d = if magnitude.is_finite() { finite(magnitude / 127.0) } else { f32::NAN };
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        out[..2].copy_from_slice(&f32_to_f16(d).to_le_bytes());
        for (q, &x) in out[2..].iter_mut().zip(block) {
            let scaled = x * inverse;
            // Half away from zero. Beyond 127 only where the scale is at an end of its range.
            let magnitude = scaled.abs().min(127.0);
            let whole = magnitude as i32;
            let rounded = whole + i32::from(magnitude - whole as f32 >= 0.5);
            *q = (if scaled < 0.0 { -rounded } else { rounded }) as u8;
        }
    }
}
