//! Blocks of 256: a binary16 scale `d`; for each 8 elements the low byte of the number of a point; then for each 32
//! elements a little-endian u16 of four times 3 high bits of those numbers, 3 bits of `c` and one bit for the shift.
//! An element is `d * (2c + 1)` times its value, of the [grid](super::grid) of 2048 points with the values -1, 0 and 1,
//! plus 1/8 or, where the bit for the shift is set, minus 1/8.

use super::grid::{Coder, Extra, Grid, LEN, encode_blocks, write_shifted};
use crate::FormatInfo;
use crate::half::f16_to_f32;

const BYTES: usize = 2 + LEN / 8 + LEN / 16;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "iq1_s",
    aliases: &[],
    ggml_type: Some(19),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "1.56 bits per element: one of 2048 points for each 8, 3-bit scales of 32; wants an importance",
    decode,
    encode,
};

const _: () = assert!(BYTES == 50);

/// The values of the three levels.
pub(super) const MAP: [i8; 3] = [-1, 0, 1];
pub(super) static GRID: Grid<8, 2048> = Grid::new(&BITS, &MAP);
pub(super) static CODER: Coder<8, 3> = Coder::new(&GRID, &MAP, Extra::ShiftOfPart, 32, 7, 1.0);

/// Which of the 3^8 points the grid has.
#[rustfmt::skip]
const BITS: [u64; 103] = [
    0x514202a085142555, 0xa28a2086a8314508, 0x14508514202a081a, 0xa005152545442082, 0x8208001888208202,
    0xaaabb88a02a03a0, 0xaa0a0022000baa90, 0x4508514008a0828c, 0x851421450808821, 0x2a8008a09808308a,
    0x4248208514214508, 0x20a0c22c01450855, 0xa2aaa8242a00268a, 0x28280808afe208, 0xa82028aa284202a0,
    0xa8bab9089b0a2080, 0x3aaaaea289aeca20, 0xb80e82bbbaeaeb7c, 0x2202920ed3caba22, 0x820aba8aa8202200,
    0x3ba2e04a2a000802, 0x81408100a22b2022, 0x8514012208288aaa, 0x5421450920821550, 0x203aa8230208a085,
    0xa208514254208284, 0x82a021450950820, 0x200248a08082a8b8, 0xab2802a268a28208, 0x83082082085082a,
    0xa085142145004045, 0x8229014500514200, 0x1430a1082a828a00, 0x2145082882145005, 0x2aaa200202208514,
    0xa828ae8ab1122000, 0xa820070a8aaa1ba, 0x8200840222280208, 0xaa2ab0eaa0804800, 0xa7daea22ba8b20c2,
    0xaa2ab092a86e8b8b, 0x48202a0c448a8b72, 0x20aa082a8a284084, 0xa09aafa222a2ccc8, 0xa82a00020002a8e8,
    0xa2a28ba080200088, 0xba0a328280a0ba28, 0x2ba0a2ebfebab8be, 0xa2ea280a8a08a2, 0xdeeaa4fa0c0232a1,
    0xeb7ebe8d2ea82bef, 0xdeba7de6bf7ff7fa, 0x12fa26bfff27fb69, 0xebeaa10228ae1e9, 0xae820ba8b208aa84,
    0x62048083e924baff, 0x2ba40aa8f2682c, 0x12aae208082a02, 0x82c920a60a2a8202, 0x8c00a20028829089, 0x6c00080882001380,
    0x8abea602bbaaaa8a, 0xd02e976b8002caa0, 0xdeaa2e108210e9b2, 0x820a0004a5d11528, 0x20a1010820828a00,
    0xa0843222ba39aa82, 0x262a28a00188009, 0xac21450051441481, 0x20aa085142145082, 0x45082a120a87aa28,
    0x8514208a0051421, 0x22a240a002200145, 0x8a6a08a208008800, 0xa200080aaaab86e, 0x5044082122c8e282,
    0x8515208a09514214, 0x2a2aaa080a861450, 0x21450851420a0080, 0xe2085142145000a8, 0x82a82180a828820,
    0xa028bb08aaaa2aa, 0xaaa80822820aa2a, 0x220288a900280828, 0xba8a08b8280bbea0, 0xaef8a4baffaeb24b,
    0x30a0b668285220aa, 0x6a220828020a80e6, 0x2baaaa020a208062, 0x808a2a0a9a2eaaa, 0xe8200228aa02010,
    0x400aa08514214500, 0x4a0006a921450851, 0x440d1000a50802aa, 0x514214508288214, 0x20f2ac82820800, 0x20ba0a280aaa0000,
    0x280948820002a2ea, 0x51454b110014e9, 0x5142145002a80145, 0x400a288808248808, 0x2a0051401450008, 0x145085140,
];

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        let (low, rest) = block[2..].split_at(LEN / 8);
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let rest = u16::from_le_bytes(rest.as_chunks().0[i / 4]);
            let point = usize::from(low[i]) | usize::from(rest >> (i % 4 * 3) & 7) << 8;
            let scale = d * f32::from(2 * (rest >> 12 & 7) + 1);
            write_shifted(out, &GRID.values[point], rest & 0x8000 != 0, scale);
        }
    }
}

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    encode_blocks(&CODER, src, importance, dst, |coded, out: &mut [u8; BYTES]| {
        out[..2].copy_from_slice(&coded.d.to_le_bytes());
        let (low, rest) = out[2..].split_at_mut(LEN / 8);
        for (byte, point) in low.iter_mut().zip(coded.points) {
            *byte = point as u8;
        }
        for (i, rest) in rest.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let mut word = u16::from(coded.codes[i]) << 12 | u16::from(coded.signs[4 * i]) << 15;
            for j in 0..4 {
                word |= coded.points[4 * i + j] >> 8 << (3 * j);
            }
            *rest = word.to_le_bytes();
        }
    });
}
