//! Blocks of 256: a binary16 scale `d`; for each 4 elements the low byte of the number of a point, then for each 4 its
//! high bit, eight to a byte from its low end; for each 8 elements a byte of signs; for each 32 elements 4 bits of `c`,
//! the low half of a byte first. An element is `d * (2c + 1)` times its sign times its value, of the
//! [grid](super::grid) of 512 points with the values 1, 3, 5, 7, 9, 11, 13 and 15.

use super::grid::{Coder, Extra, Grid, LEN, encode_blocks, write_signed};
use crate::FormatInfo;
use crate::half::f16_to_f32;

const BYTES: usize = 2 + LEN / 4 + LEN / 32 + LEN / 8 + LEN / 64;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "iq3_s",
    aliases: &[],
    ggml_type: Some(21),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "3.44 bits per element: signs and one of 512 points for each 4, 4-bit scales of 32",
    decode,
    encode,
};

const _: () = assert!(BYTES == 110);

/// The values of the eight levels.
const MAP: [i8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];
pub(super) static GRID: Grid<4, 512> = Grid::new(&BITS, &MAP);
pub(super) static CODER: Coder<4, 8> = Coder::new(&GRID, &MAP, Extra::Signs, 32, 15, 1.0);

/// Which of the 8^4 points the grid has.
#[rustfmt::skip]
const BITS: [u64; 64] = [
    0x92050aa5082357a7, 0x422001022892317, 0x9000aa4112249a3, 0x228005104a052208, 0x100020904128801, 0x84000a208450014,
    0x200040002000a40, 0x110008450015, 0x40250005205ab17, 0x410005020902114b, 0x40120090411a401, 0x104000211820992,
    0x11440a001428, 0x20005020902, 0x5000910000, 0x10400022002050a, 0x2980052a058a55ab, 0x20412248905,
    0x12008802810a0092, 0x4001040a140225, 0x2400000224090082, 0x100080180040210, 0x2200000020085, 0x10801400220,
    0x20802942a04aa04, 0x44010001000a102a, 0x10014010401, 0x800208a018a1102, 0x11040002044208, 0x800401004200502,
    0x200004000, 0x2005000a, 0x100010204910411, 0x220821040a84, 0x10480010802210a, 0x22050a10, 0x200000180100005,
    0x40000000200a0, 0x1000010000800, 0x20801002100, 0x1040049100041104, 0x40000000402042a, 0x80041080201,
    0x820021000800184, 0x4004010012, 0xa0000400400, 0x400000000, 0x40014, 0x100000a002a00, 0x10000000810001,
    0x104200410000400, 0x100021001, 0x4000800200000, 0x1000010000009, 0x100000020, 0xa00, 0x4100140050091, 0x2800100204,
    0x20001024112, 0x80024000004, 0x10000010822, 0x400040000, 0x2000004, 0x1,
];

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        let (low, rest) = block[2..].split_at(LEN / 4);
        let (high, rest) = rest.split_at(LEN / 32);
        let (signs, codes) = rest.split_at(LEN / 8);
        for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let point = usize::from(low[i]) | usize::from(high[i / 8] >> (i % 8) & 1) << 8;
            let code = codes[i / 16] >> (i / 8 % 2 * 4) & 15;
            let scale = d * f32::from(1 + 2 * code);
            write_signed(out, &GRID.values[point], signs[i / 2] >> (i % 2 * 4), scale);
        }
    }
}

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    encode_blocks(&CODER, src, importance, dst, |coded, out: &mut [u8; BYTES]| {
        out[..2].copy_from_slice(&coded.d.to_le_bytes());
        let (low, rest) = out[2..].split_at_mut(LEN / 4);
        let (high, rest) = rest.split_at_mut(LEN / 32);
        let (signs, codes) = rest.split_at_mut(LEN / 8);
        signs.copy_from_slice(&coded.signs);
        high.fill(0);
        for (i, (low, point)) in low.iter_mut().zip(coded.points).enumerate() {
            *low = point as u8;
            high[i / 8] |= ((point >> 8) as u8) << (i % 8);
        }
        for (byte, pair) in codes.iter_mut().zip(coded.codes.as_chunks::<2>().0) {
            *byte = pair[0] | pair[1] << 4;
        }
    });
}
