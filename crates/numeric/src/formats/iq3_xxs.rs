//! Blocks of 256: a binary16 scale `d`; for each 4 elements the number of a point; then for each 32 elements a
//! little-endian u32 of four times 7 bits of signs (the eighth makes the number of minuses even) and 4 bits of `c`.
//! An element is `d / 4 * (2c + 1)` times its sign times its value, of the [grid](super::grid) of 256 points with the
//! values 4, 12, 20, 28, 36, 44, 52 and 62.

use super::grid::{Coder, Extra, Grid, LEN, encode_blocks, even_signs, write_signed};
use crate::FormatInfo;
use crate::half::f16_to_f32;

const BYTES: usize = 2 + LEN / 4 + LEN / 8;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "iq3_xxs",
    aliases: &[],
    ggml_type: Some(18),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "3.06 bits per element: signs and one of 256 points for each 4, 4-bit scales of 32",
    decode,
    encode,
};

const _: () = assert!(BYTES == 98);

/// The values of the eight levels.
const MAP: [i8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
pub(super) static GRID: Grid<4, 256> = Grid::new(&BITS, &MAP);
pub(super) static CODER: Coder<4, 8> = Coder::new(&GRID, &MAP, Extra::EvenSigns, 32, 15, 0.25);

/// Which of the 8^4 points the grid has.
#[rustfmt::skip]
const BITS: [u64; 64] = [
    0x2800000402058a15, 0x10010020522050a, 0x200082008a050215, 0x100000000200582, 0x2800801080000800, 0x40004000082,
    0x10000020000000, 0x2000800005100, 0x180150a050a, 0x50205, 0x40000000102050a, 0x40004002010005, 0x10000000022,
    0x200004000110000, 0x20, 0x100040000, 0x402450a05, 0x18800000102052a, 0x200180058205, 0x1100000000001102,
    0x80020000000, 0x1000000200800008, 0x0, 0x200000400a, 0x4200100000a0502, 0x5002010005, 0x40004000020010a, 0x8000200,
    0x400008001000000, 0x200000040041, 0x8000040001000, 0x1000008000000, 0x8800a0008010, 0x1000000000000000,
    0x41000180010000, 0x2000000080, 0x10020000000010, 0x100000800200000, 0x0, 0x1000520, 0x100000200000400,
    0x200000400041, 0x400000004001000, 0x80000000004, 0x400000000880100, 0x2000004, 0x10000000000, 0x400100000,
    0x10005000100000, 0x2000000020000, 0x10000000008000, 0x41000000, 0x1000000000, 0x40000000020, 0x8000000, 0x20008,
    0x400040001a8, 0x100400000, 0x42000000400, 0x1000008002001, 0x200020000, 0x100005, 0x1000000, 0x0,
];

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        let (points, rest) = block[2..].split_at(LEN / 4);
        for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let rest = u32::from_le_bytes(rest.as_chunks().0[i / 8]);
            let scale = d * (0.5 + (rest >> 28) as f32) * 0.5;
            let signs = even_signs(rest >> (i / 2 % 4 * 7)) >> (i % 2 * 4);
            write_signed(out, &GRID.values[usize::from(points[i])], signs, scale);
        }
    }
}

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    encode_blocks(&CODER, src, importance, dst, |coded, out: &mut [u8; BYTES]| {
        out[..2].copy_from_slice(&coded.d.to_le_bytes());
        let (points, rest) = out[2..].split_at_mut(LEN / 4);
        for (byte, point) in points.iter_mut().zip(coded.points) {
            *byte = point as u8;
        }
        for (i, rest) in rest.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let mut word = u32::from(coded.codes[i]) << 28;
            for j in 0..4 {
                word |= u32::from(coded.signs[4 * i + j] & 127) << (7 * j);
            }
            *rest = word.to_le_bytes();
        }
    });
}
