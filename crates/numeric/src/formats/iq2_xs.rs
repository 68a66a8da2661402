//! Blocks of 256: a binary16 scale `d`; for each 8 elements a little-endian u16 of 9 bits for the number of a point and
//! 7 bits of signs (the eighth makes the number of minuses even); for each 16 elements 4 bits of `c`, the low half of a
//! byte first. An element is `d / 8 * (2c + 1)` times its sign times its value, of the [grid](super::grid) of 512 points
//! with the values 8, 25 and 43.

use super::grid::{Coder, Extra, Grid, LEN, encode_blocks, even_signs, write_signed};
use crate::FormatInfo;
use crate::half::f16_to_f32;

const BYTES: usize = 2 + LEN / 4 + LEN / 32;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "iq2_xs",
    aliases: &[],
    ggml_type: Some(17),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "2.31 bits per element: signs and one of 512 points for each 8, 4-bit scales of 16; wants an importance",
    decode,
    encode,
};

const _: () = assert!(BYTES == 74);

/// The values of the three levels.
const MAP: [i8; 3] = [8, 25, 43];
pub(super) static GRID: Grid<8, 512> = Grid::new(&BITS, &MAP);
pub(super) static CODER: Coder<8, 3> = Coder::new(&GRID, &MAP, Extra::EvenSigns, 16, 15, 0.125);

/// Which of the 3^8 points the grid has.
#[rustfmt::skip]
const BITS: [u64; 103] = [
    0x1541455551555555, 0x4145505555540145, 0x4010515400010510, 0x5550000101000441, 0x4140115154145, 0x404010500414550,
    0x5100041400000, 0x1105554000004000, 0x540400010010414, 0x10400000040001, 0x104000100, 0x4550515554011000,
    0x1051540001054041, 0x5000500100004140, 0x10000400011, 0x1001450041455000, 0x100004140000004, 0x400400000000000,
    0x10000, 0x400004004000505, 0x110000, 0x4, 0x5555000000000040, 0x400010000414010, 0x10001040001050, 0x10000100000,
    0x4000414400000400, 0x40000000000001, 0x1000000010040000, 0x1000100, 0x40141100000, 0x400100001, 0x10010000000,
    0x144000000001001, 0x1105554145555000, 0x500414550000414, 0x141404000440001, 0x4000000000000140, 0x10000414014515,
    0x41001050001, 0x4000010100400000, 0x414000000000010, 0x101011000, 0x40004100001004, 0x400000, 0x1041455000000000,
    0x4140000004000105, 0x50004, 0x1000000040, 0x4040105400000, 0x410100004010, 0x1040000000, 0x100000001000,
    0x404000400404, 0x140100000010000, 0x0, 0x4000004000000000, 0x100101001000041, 0x5000, 0x10000000000000,
    0x4001000100000004, 0x0, 0x110000400, 0x1000, 0x1000000000, 0x1000000, 0x400, 0x10100000000400, 0x415010515400000,
    0x1155000005000, 0x100000000041004, 0x1400000000400, 0x40001000541441, 0x100000004000040, 0x400004000000000,
    0x1000000100000000, 0x14010000040004, 0x40400, 0x4000000000000, 0x105100404100000, 0x10001000400, 0x1000000100001,
    0x400000000000000, 0x4400004000, 0x1041, 0x14000000001000, 0x100000000, 0x400000000000000, 0x400000000, 0x100,
    0x1000000010, 0x404014500, 0x4000000000010000, 0x1144000000010, 0x4000100000010, 0x4000000000400000, 0x0, 0x0,
    0x40000400004000, 0x1040000000000045, 0x500000000000004, 0x50000000000, 0x100010000,
];

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        let (groups, codes) = block[2..].split_at(LEN / 4);
        for (i, (out, group)) in out.as_chunks_mut::<8>().0.iter_mut().zip(groups.as_chunks::<2>().0).enumerate() {
            let group = u16::from_le_bytes(*group);
            let code = codes[i / 4] >> (i / 2 % 2 * 4) & 15;
            let scale = d * (0.5 + f32::from(code)) * 0.25;
            write_signed(out, &GRID.values[usize::from(group & 511)], even_signs(u32::from(group >> 9)), scale);
        }
    }
}

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    encode_blocks(&CODER, src, importance, dst, |coded, out: &mut [u8; BYTES]| {
        out[..2].copy_from_slice(&coded.d.to_le_bytes());
        let (groups, codes) = out[2..].split_at_mut(LEN / 4);
        for (i, group) in groups.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *group = (coded.points[i] | u16::from(coded.signs[i] & 127) << 9).to_le_bytes();
        }
        for (byte, pair) in codes.iter_mut().zip(coded.codes.as_chunks::<2>().0) {
            *byte = pair[0] | pair[1] << 4;
        }
    });
}
