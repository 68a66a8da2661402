//! Blocks of 32: a binary16 scale `d`, a binary16 offset `m`, then the 5-bit numbers `q` as in `q5_0`: 4 bytes of
//! fifth bits and 16 bytes of lower halves. An element is `d * q + m`.

use super::search::block_of;
use super::{pack_fifth, pack_halves, q4_1, unpack_fifth};
use crate::FormatInfo;
use crate::half::f16_to_f32;

const LEN: usize = 32;
const BYTES: usize = 8 + LEN / 2;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "q5_1",
    aliases: &[],
    ggml_type: Some(7),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "6 bits per element: blocks of 32 five-bit numbers with an f16 scale and an f16 offset",
    decode,
    encode,
};

const _: () = assert!(BYTES == 24);

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        let m = f16_to_f32(u16::from_le_bytes([block[2], block[3]]));
        for (x, q) in out.iter_mut().zip(unpack_fifth(&block[4..])) {
            *x = f32::from(q) * d + m;
        }
    }
}

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    for (i, (block, out)) in src.as_chunks::<LEN>().0.iter().zip(dst.as_chunks_mut::<BYTES>().0).enumerate() {
        let (d, m, q) = q4_1::fit(block, block_of(importance, i), 31.0);
        out[..2].copy_from_slice(&d.to_le_bytes());
        out[2..4].copy_from_slice(&m.to_le_bytes());
        pack_fifth(&q, &mut out[4..8]);
        pack_halves(&q.map(|q| q & 15), &mut out[8..]);
    }
}
