//! bfloat16, little-endian: the upper half of an f32. Encoding rounds to nearest even.

use super::{decode_each, encode_each};
use crate::FormatInfo;
use crate::half::{bf16_to_f32, f32_to_bf16};

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "bf16",
    aliases: &["bfloat16"],
    ggml_type: Some(30),
    block_len: 1,
    block_bytes: 2,
    doc: "16-bit float with the exponent range of f32: 8 bits of exponent, 7 of fraction",
    decode,
    encode,
};

const _: () = assert!(INFO.block_bytes == size_of::<u16>());

fn decode(src: &[u8], dst: &mut [f32]) {
    decode_each(src, dst, |b| bf16_to_f32(u16::from_le_bytes(b)));
}

fn encode(src: &[f32], _importance: Option<&[f32]>, dst: &mut [u8]) {
    encode_each(src, dst, |x| f32_to_bf16(x).to_le_bytes());
}
