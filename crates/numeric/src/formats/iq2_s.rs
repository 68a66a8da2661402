//! Blocks of 256: a binary16 scale `d`; for each 8 elements the low byte of the number of a point, then for each 8 a byte
//! of signs, then for each 8 two high bits of the number, four to a byte from its low end; for each 16 elements 4 bits
//! of `c`, the low half of a byte first. An element is `d / 8 * (2c + 1)` times its sign times its value, of the
//! [grid](super::grid) of 1024 points with the values 8, 25 and 43.

use super::grid::{Coder, Extra, Grid, LEN, encode_blocks, write_signed};
use crate::FormatInfo;
use crate::half::f16_to_f32;

const BYTES: usize = 2 + LEN / 4 + LEN / 32 + LEN / 32;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "iq2_s",
    aliases: &[],
    ggml_type: Some(22),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "2.56 bits per element: signs and one of 1024 points for each 8, 4-bit scales of 16",
    decode,
    encode,
};

const _: () = assert!(BYTES == 82);

/// The values of the three levels.
const MAP: [i8; 3] = [8, 25, 43];
pub(super) static GRID: Grid<8, 1024> = Grid::new(&BITS, &MAP);
static CODER: Coder<8, 3> = Coder::new(&GRID, &MAP, Extra::Signs, 16, 15, 0.125);

/// Which of the 3^8 points the grid has.
#[rustfmt::skip]
const BITS: [u64; 103] = [
    0x1555455551555555, 0x5545505155551105, 0x5010515414150514, 0x5550101111000455, 0x5145541555555545,
    0x5414555514555550, 0x1451000455401051, 0x1155154000105004, 0x540010110515555, 0x40401051440455, 0x100510140100,
    0x4551515554004000, 0x5555541451151555, 0x5000145505155545, 0x414000504414114, 0x1455551455455000,
    0x5505155540105154, 0x514400010500414, 0x4000001000041401, 0x140105154045155, 0x10500414550000, 0x1000041004000010,
    0x5154000000000400, 0x11010405415115, 0x1401050540415054, 0x104510010100004, 0x514554400050000, 0x1440001050041455,
    0x110004140105, 0x4000400010500, 0x1050001411000000, 0x4150000400000, 0x100000000000, 0x140040000004004,
    0x1555554555555000, 0x5505554550514414, 0x1541401051541455, 0x4000005004145104, 0x4550515554555555,
    0x1051541455550041, 0x5004145500004150, 0x5514100000400010, 0x1040041455051, 0x100004140105154, 0x400010500040,
    0x1555455000000000, 0x5540005154145555, 0x10500414550515, 0x1400041401051440, 0x5154145555000000, 0x414550000414010,
    0x1400000040001050, 0x110004, 0x40414010515400, 0x40001050000001, 0x1000100000000000, 0x4400004000000000,
    0x1040041451051545, 0x4140105154000, 0x400010400100010, 0x1451010000000100, 0x4000105004, 0x10001010000414, 0x40004,
    0x105000100000, 0x10010000100000, 0x4000, 0x400000000, 0x5414114515404000, 0x1455450001411011, 0x1140004140005154,
    0x10500015, 0x41455011555400, 0x4140105154000105, 0x10500001010000, 0x1000000000000050, 0x105000141,
    0x4000010000014040, 0x4000000000000, 0x5545010000400500, 0x414010515410, 0x101050001411, 0x100004140000,
    0x4010515440000000, 0x1050004001000041, 0x1100000000004000, 0x10001000000010, 0x1100041400000, 0x5000000000, 0x1100,
    0x40000000000000, 0x105410111100, 0x10000001040000, 0x4004100000000400, 0x5100014400000014, 0x100000000400010,
    0x10001040, 0x0, 0x40000000000004, 0x100000000000040, 0x400004000000000, 0x11401400000, 0x100001000,
];

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        let (low, rest) = block[2..].split_at(LEN / 8);
        let (signs, rest) = rest.split_at(LEN / 8);
        let (high, codes) = rest.split_at(LEN / 32);
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let point = usize::from(low[i]) | usize::from(high[i / 4] >> (i % 4 * 2) & 3) << 8;
            let code = codes[i / 4] >> (i / 2 % 2 * 4) & 15;
            write_signed(out, &GRID.values[point], signs[i], d * (0.5 + f32::from(code)) * 0.25);
        }
    }
}

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    encode_blocks(&CODER, src, importance, dst, |coded, out: &mut [u8; BYTES]| {
        out[..2].copy_from_slice(&coded.d.to_le_bytes());
        let (low, rest) = out[2..].split_at_mut(LEN / 8);
        let (signs, rest) = rest.split_at_mut(LEN / 8);
        let (high, codes) = rest.split_at_mut(LEN / 32);
        signs.copy_from_slice(&coded.signs);
        high.fill(0);
        for (i, (low, point)) in low.iter_mut().zip(coded.points).enumerate() {
            *low = point as u8;
            high[i / 4] |= ((point >> 8) as u8) << (i % 4 * 2);
        }
        for (byte, pair) in codes.iter_mut().zip(coded.codes.as_chunks::<2>().0) {
            *byte = pair[0] | pair[1] << 4;
        }
    });
}
