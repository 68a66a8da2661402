//! Blocks of 256: for each 8 elements the low byte of the number of a point; then for each 8 four bits, the low half of
//! a byte first: 3 high bits of that number and one for the shift; then four little-endian u16 of four times 3 bits of
//! `c`, for each 16 elements, and 4 bits of a binary16 scale `d`, its low end first. An element is `d * (2c + 1)` times
//! its value, of the [grid](super::grid) of `iq1_s`, plus 1/8 or, where the bit for the shift is set, minus 1/8.

use super::grid::{Coder, Extra, LEN, encode_blocks, write_shifted};
use super::iq1_s::{GRID, MAP};
use crate::FormatInfo;
use crate::half::f16_to_f32;

const BYTES: usize = LEN / 8 + LEN / 16 + LEN / 32;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "iq1_m",
    aliases: &[],
    ggml_type: Some(29),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "1.75 bits per element: one of 2048 points for each 8, 3-bit scales of 16",
    decode,
    encode,
};

const _: () = assert!(BYTES == 56);

static CODER: Coder<8, 3> = Coder::new(&GRID, &MAP, Extra::ShiftOfGroup, 16, 7, 1.0);

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let (low, rest) = block.split_at(LEN / 8);
        let (high, words) = rest.split_at(LEN / 16);
        let words = words.as_chunks().0;
        let mut d = 0;
        for (i, word) in words.iter().enumerate() {
            d |= u16::from_le_bytes(*word) >> 12 << (4 * i);
        }
        let d = f16_to_f32(d);
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let high = high[i / 2] >> (i % 2 * 4);
            let point = usize::from(low[i]) | usize::from(high & 7) << 8;
            let code = u16::from_le_bytes(words[i / 8]) >> (i / 2 % 4 * 3) & 7;
            write_shifted(out, &GRID.values[point], high & 8 != 0, d * f32::from(2 * code + 1));
        }
    }
}

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    encode_blocks(&CODER, src, importance, dst, |coded, out: &mut [u8; BYTES]| {
        let (low, rest) = out.split_at_mut(LEN / 8);
        let (high, words) = rest.split_at_mut(LEN / 16);
        high.fill(0);
        for (i, (low, point)) in low.iter_mut().zip(coded.points).enumerate() {
            *low = point as u8;
            high[i / 2] |= ((point >> 8) as u8 | coded.signs[i] << 3) << (i % 2 * 4);
        }
        for (i, word) in words.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let mut bits = coded.d >> (4 * i) << 12;
            for j in 0..4 {
                bits |= u16::from(coded.codes[4 * i + j]) << (3 * j);
            }
            *word = bits.to_le_bytes();
        }
    });
}
