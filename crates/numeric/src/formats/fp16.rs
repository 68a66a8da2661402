//! IEEE 754 binary16, little-endian. Encoding rounds to nearest even.

use super::{decode_each, encode_each};
use crate::FormatInfo;
use crate::half::{f16_to_f32, f32_to_f16};

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "f16",
    aliases: &["fp16", "float16", "half"],
    ggml_type: Some(1),
    block_len: 1,
    block_bytes: 2,
    doc: "16-bit float: 5 bits of exponent, 10 of fraction",
    decode,
    encode,
};

const _: () = assert!(INFO.block_bytes == size_of::<u16>());

fn decode(src: &[u8], dst: &mut [f32]) {
    decode_each(src, dst, |b| f16_to_f32(u16::from_le_bytes(b)));
}

fn encode(src: &[f32], _importance: Option<&[f32]>, dst: &mut [u8]) {
    encode_each(src, dst, |x| f32_to_f16(x).to_le_bytes());
}
