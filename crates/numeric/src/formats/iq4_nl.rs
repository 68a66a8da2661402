//! Blocks of 32: a binary16 scale `d`, then 16 bytes of two 4-bit indices placed as in `q4_0`. An element is `d * v` with
//! `v` the indexed value of a fixed table that is denser around 0, where most weights are.

use super::pack_halves;
use super::search::{Scaled, block_of, single};
use crate::FormatInfo;
use crate::half::{f16_to_f32, f32_to_f16};

const LEN: usize = 32;
const BYTES: usize = 2 + LEN / 2;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "iq4_nl",
    aliases: &[],
    ggml_type: Some(20),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "4.5 bits per element: blocks of 32 indices into a table of 16 uneven values, with an f16 scale",
    decode,
    encode,
};

const _: () = assert!(BYTES == 18);

/// The values of the 16 indices, in 1/127 of the largest.
pub(super) const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Levels that the search takes the largest element to.
pub(super) const ANCHORS: [f32; 15] =
    [-127.0, -134.0, -131.0, -129.0, -125.0, -123.0, -120.0, 113.0, 107.0, 109.0, 111.0, 115.0, 117.0, 119.0, 122.0];

/// The nearest value to the numbers between `i / 2 - 128` and the next half integer, for all `i`: the borders between
/// two values' realms are half integers.
const NEAREST: [i8; 512] = {
    let mut table = [0; 512];
    let (mut i, mut index) = (0, 0);
    while i < 512 {
        // Four times the middle of the range, and of the two values.
        let middle = 2 * (i as i32 - 256) + 1;
        while index < 15 && middle > 2 * (VALUES[index] as i32 + VALUES[index + 1] as i32) {
            index += 1;
        }
        table[i] = VALUES[index];
        i += 1;
    }
    table
};

/// The table's nearest value.
#[inline(always)]
pub(super) fn nearest(v: f32) -> f32 {
    let v = if v > -127.0 { v } else { -127.0 };
    let v = if v < 113.0 { v } else { 113.0 };
    // Twice the number, rounded down, plus 256: in the lower bits of a float of which the last bit is 1.
    let bits = ((v * 2.0 - 0.5) + (12_582_912.0 + 256.0)).to_bits();
    f32::from(NEAREST[(bits & 511) as usize])
}

/// The index of a value of the table.
#[inline(always)]
pub(super) fn index(value: i8) -> u8 {
    VALUES.iter().map(|&v| u8::from(v < value)).sum()
}

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        let (low, high) = out.split_at_mut(LEN / 2);
        for ((l, h), &q) in low.iter_mut().zip(high).zip(&block[2..]) {
            *l = f32::from(VALUES[usize::from(q & 15)]) * d;
            *h = f32::from(VALUES[usize::from(q >> 4)]) * d;
        }
    }
}

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    for (i, (block, out)) in src.as_chunks::<LEN>().0.iter().zip(dst.as_chunks_mut::<BYTES>().0).enumerate() {
        let (d, q) = match Scaled::new(block, block_of(importance, i)) {
            Ok(scaled) => single(&scaled, &ANCHORS, nearest),
            Err(d) => (f32_to_f16(d), [1; LEN]),
        };
        out[..2].copy_from_slice(&d.to_le_bytes());
        pack_halves(&q.map(index), &mut out[2..]);
    }
}
