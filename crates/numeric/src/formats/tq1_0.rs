//! Blocks of 256 ternary digits and a binary16 scale `d` behind them; an element is `d * (digit - 1)`.
//!
//! A byte holds five digits as the fraction of a number in base 3: multiplying by a power of 3 (and keeping 8 bits)
//! brings a digit to the front, multiplying by 3 once more carries it over 256. 32 bytes hold elements 0 to 159 (element
//! `32 n + l` is digit `n` of byte `l`), 16 bytes elements 160 to 239 (in steps of 16), and 4 bytes the last 16
//! (four digits each, in steps of 4).

use super::search::block_of;
use super::tq2_0;
use crate::FormatInfo;
use crate::half::f16_to_f32;

const LEN: usize = 256;
const BYTES: usize = 48 + LEN / 64 + 2;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "tq1_0",
    aliases: &[],
    ggml_type: Some(34),
    block_len: LEN,
    block_bytes: BYTES,
    doc: "1.6875 bits per element: blocks of 256 ternary digits, five in a byte, with an f16 scale",
    decode,
    encode,
};

const _: () = assert!(BYTES == 54);

/// First element, first byte, bytes and digits in a byte of the three parts.
const PARTS: [(usize, usize, usize, usize); 3] = [(0, 0, 32, 5), (160, 32, 16, 5), (240, 48, 4, 4)];
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

fn decode(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.as_chunks::<BYTES>().0.iter().zip(dst.as_chunks_mut::<LEN>().0) {
        let d = f16_to_f32(u16::from_le_bytes([block[52], block[53]]));
        for (first, byte, bytes, digits) in PARTS {
            let out = out[first..][..bytes * digits].chunks_exact_mut(bytes);
            for (out, power) in out.zip(POWERS) {
                for (x, packed) in out.iter_mut().zip(&block[byte..]) {
                    let front = packed.wrapping_mul(power);
                    *x = d * f32::from(((u16::from(front) * 3) >> 8) as i8 - 1);
                }
            }
        }
    }
}

fn encode(src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) {
    for (i, (block, out)) in src.as_chunks::<LEN>().0.iter().zip(dst.as_chunks_mut::<BYTES>().0).enumerate() {
        let (d, digits) = tq2_0::fit(block, block_of(importance, i));
        for (first, byte, bytes, count) in PARTS {
            for (l, out) in out[byte..][..bytes].iter_mut().enumerate() {
                let mut number = 0;
                for n in 0..5 {
                    number = 3 * number + if n < count { u16::from(digits[first + bytes * n + l]) } else { 0 };
                }
                // Rounded up, so that truncating brings the digits back.
                *out = (number * 256).div_ceil(243) as u8;
            }
        }
        out[52..].copy_from_slice(&d.to_le_bytes());
    }
}
