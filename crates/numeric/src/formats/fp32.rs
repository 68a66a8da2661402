//! IEEE 754 binary32, little-endian.

use super::{decode_each, encode_each};
use crate::FormatInfo;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "f32",
    aliases: &["fp32", "float32", "float"],
    ggml_type: Some(0),
    block_len: 1,
    block_bytes: 4,
    doc: "32-bit float, the exact form",
    decode,
    encode,
};

const _: () = assert!(INFO.block_bytes == size_of::<f32>());

fn decode(src: &[u8], dst: &mut [f32]) {
    decode_each(src, dst, f32::from_le_bytes);
}

fn encode(src: &[f32], _importance: Option<&[f32]>, dst: &mut [u8]) {
    encode_each(src, dst, f32::to_le_bytes);
}
