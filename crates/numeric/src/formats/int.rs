//! Plain signed integers, little-endian. Decoding converts the value; encoding rounds to nearest even, saturates, and
//! makes NaN zero.

use super::{decode_each, encode_each};
use crate::FormatInfo;

macro_rules! integer {
    ($const:ident, $type:ty, $ggml:literal, $name:literal, $alias:literal, $doc:literal) => {
        pub(super) const $const: FormatInfo = FormatInfo {
            name: $name,
            aliases: &[$alias],
            ggml_type: Some($ggml),
            block_len: 1,
            block_bytes: size_of::<$type>(),
            doc: $doc,
            decode: |src, dst| decode_each(src, dst, |b| <$type>::from_le_bytes(b) as f32),
            encode: |src, _, dst| encode_each(src, dst, |x| (x.round_ties_even() as $type).to_le_bytes()),
        };
    };
}

integer!(I8, i8, 24, "i8", "int8", "8-bit signed integer");
integer!(I16, i16, 25, "i16", "int16", "16-bit signed integer");
integer!(I32, i32, 26, "i32", "int32", "32-bit signed integer");
integer!(I64, i64, 27, "i64", "int64", "64-bit signed integer");

const _: () = assert!(I8.block_bytes == 1 && I16.block_bytes == 2 && I32.block_bytes == 4 && I64.block_bytes == 8);
