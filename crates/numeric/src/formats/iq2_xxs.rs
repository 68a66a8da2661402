//! Blocks of 256: a binary16 scale `d`, then 8 bytes for each 32 elements: four numbers of points, then, as one
//! little-endian u32, four times 7 bits of signs (the eighth makes the number of minuses even) and 4 bits of `c`.
//! An element is `d / 8 * (2c + 1)` times its sign times its value, of the [grid](super::grid) of 256 points with the
//! values 8, 25 and 43.

use super::grid::{Coder, Extra, Grid, LEN, encode_blocks, even_signs, write_signed};
use crate::FormatInfo;
use crate::half::f16_to_f32;

const BYTES: usize = 2 + LEN / 4;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "iq2_xxs",
    aliases: &[],
    ggml_type: Some(16),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "2.06 bits per element: signs and one of 256 points for each 8, 4-bit scales of 32; wants an importance",
    decode,
    encode,
};

const _: () = assert!(BYTES == 66);

/// The values of the three levels.
const MAP: [i8; 3] = [8, 25, 43];
pub(super) static GRID: Grid<8, 256> = Grid::new(&BITS, &MAP);
pub(super) static CODER: Coder<8, 3> = Coder::new(&GRID, &MAP, Extra::EvenSigns, 32, 15, 0.125);

/// Which of the 3^8 points the grid has.
#[rustfmt::skip]
const BITS: [u64; 103] = [
    0x4141441055141555, 0x100044140400, 0x40001400400400, 0x1050000004000000, 0x4004140100114140, 0x500001000400450,
    0x1000050000010, 0x4004144100004000, 0x400000400001414, 0x40000, 0x100400, 0x10100414000000, 0x1001040011040040,
    0x100404000, 0x4010000, 0x400440041000, 0x100000000004, 0x1000400000001000, 0x0, 0x40000004000105, 0x110000,
    0x1000000, 0x414000000000040, 0x50100010000, 0x1010000000, 0x500000, 0x414000000000, 0x40000000004001, 0x4000040000,
    0x0, 0x40040000040, 0x4000000, 0x0, 0x1000000, 0x110104144105000, 0x400010000414, 0x40400000440400,
    0x4000000100404000, 0x10000000010010, 0x1004000010, 0x100000000, 0x414000000000000, 0x11000, 0x401100000000004,
    0x4000000000000, 0x50441000040000, 0x100000104000000, 0x40000, 0x1, 0x40, 0x1000001400000, 0x400000000000000,
    0x100000000, 0x400000004100400, 0x40000000000000, 0x4000000000000, 0x0, 0x1000001000041, 0x40000000004000,
    0x400000000000, 0x11000000001000, 0x0, 0x400000000001400, 0x0, 0x0, 0x1, 0x0, 0x0, 0x4000041400000,
    0x40040000004000, 0x4, 0x4, 0x40001000441400, 0x400000004000000, 0x4000010000000, 0x4000000001000040, 0x0, 0x10000,
    0x10000000000, 0x104000000000000, 0x100000000000410, 0x40000000004000, 0x1000000000000, 0x40000400000000, 0x1,
    0x1000000, 0x0, 0x0, 0x100000000001000, 0x0, 0x0, 0x100000000400, 0x100000004, 0x40000000000, 0x0, 0x400, 0x0, 0x0,
    0x0, 0x40000, 0x4, 0x0, 0x0,
];

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        for (part, out) in block[2..].as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<32>().0) {
            let [points @ .., a, b, c, e] = *part;
            let rest = u32::from_le_bytes([a, b, c, e]);
            let scale = d * (0.5 + (rest >> 28) as f32) * 0.25;
            for (i, (out, point)) in out.as_chunks_mut::<8>().0.iter_mut().zip(points).enumerate() {
                write_signed(out, &GRID.values[usize::from(point)], even_signs(rest >> (7 * i)), scale);
            }
        }
    }
}

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    encode_blocks(&CODER, src, importance, dst, |coded, out: &mut [u8; BYTES]| {
        out[..2].copy_from_slice(&coded.d.to_le_bytes());
        for (i, out) in out[2..].as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let mut rest = u32::from(coded.codes[i]) << 28;
            for (j, point) in out[..4].iter_mut().enumerate() {
                *point = coded.points[4 * i + j] as u8;
                rest |= u32::from(coded.signs[4 * i + j] & 127) << (7 * j);
            }
            out[4..].copy_from_slice(&rest.to_le_bytes());
        }
    });
}
