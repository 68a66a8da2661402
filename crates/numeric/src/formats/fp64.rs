//! IEEE 754 binary64, little-endian. Decoding rounds to nearest even.

use super::{decode_each, encode_each};
use crate::FormatInfo;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "f64",
    aliases: &["fp64", "float64", "double"],
    ggml_type: Some(28),
    block_len: 1,
    block_bytes: 8,
    doc: "64-bit float",
    decode,
    encode,
};

const _: () = assert!(INFO.block_bytes == size_of::<f64>());

fn decode(src: &[u8], dst: &mut [f32]) {
    decode_each(src, dst, |b| f64::from_le_bytes(b) as f32);
}

fn encode(src: &[f32], _importance: Option<&[f32]>, dst: &mut [u8]) {
    encode_each(src, dst, |x| f64::from(x).to_le_bytes());
}
