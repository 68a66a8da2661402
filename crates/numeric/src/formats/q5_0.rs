//! Blocks of 32: a binary16 scale `d`, then the unsigned 5-bit numbers `q`: 4 bytes with the fifth bit of element `i` in
//! bit `i`, little-endian, and 16 bytes with the lower four bits placed as in `q4_0`. An element is `d * (q - 16)`;
//! without an importance `d` is the element of largest magnitude, with its sign, over -16.

use super::search::block_of;
use super::{pack_fifth, pack_halves, q4_0, unpack_fifth};
use crate::FormatInfo;
use crate::half::f16_to_f32;

const LEN: usize = 32;
const BYTES: usize = 6 + LEN / 2;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "q5_0",
    aliases: &[],
    ggml_type: Some(6),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "5.5 bits per element: blocks of 32 five-bit numbers with an f16 scale",
    decode,
    encode,
};

const _: () = assert!(BYTES == 22);

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        for (x, q) in out.iter_mut().zip(unpack_fifth(&block[2..])) {
            *x = f32::from(q as i8 - 16) * d;
        }
    }
}

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    for (i, (block, out)) in src.as_chunks::<LEN>().0.iter().zip(dst.as_chunks_mut::<BYTES>().0).enumerate() {
        let (d, q) = q4_0::fit(block, block_of(importance, i), 16.0);
        out[..2].copy_from_slice(&d.to_le_bytes());
        pack_fifth(&q, &mut out[2..6]);
        pack_halves(&q.map(|q| q & 15), &mut out[6..]);
    }
}
