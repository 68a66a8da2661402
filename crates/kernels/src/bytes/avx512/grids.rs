//! The formats whose numbers are points of the largest grid, iq1_s and iq1_m, whose places are found in vectors.

use std::arch::x86_64::*;

use imaginal_numeric::tables;

use super::rows::sixteen;
use super::{Registers, half, shifted, twice};

/// The bytes at `at`.
#[inline(always)]
pub(super) fn bytes<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    match block[at..].first_chunk() {
        Some(bytes) => *bytes,
        None => panic!("{N} bytes at {at} of {}", block.len()),
    }
}

#[inline(always)]
pub(super) fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(block, at))
}

#[inline(always)]
pub(super) fn eight(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(block, at))
}

vnni! {
    /// 32 bytes as words.
    pub(super) fn words_at(block: &[u8], at: usize) -> __m512i {
        let bytes: [u8; 32] = bytes(block, at);
        // SAFETY: 32 bytes.
        _mm512_cvtepu8_epi16(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) })
    }

    /// `d · (plus + codes) · unit`.
    pub(super) fn scales(d: f32, codes: __m512i, plus: f32, unit: f32) -> __m512 {
        let codes = _mm512_add_ps(_mm512_cvtepi32_ps(codes), _mm512_set1_ps(plus));
        _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(d), codes), _mm512_set1_ps(unit))
    }

    /// Eight times the levels of points at 32 places, two more where `up` has a bit.
    fn levels(places: __m512i, up: u32) -> [__m512i; 4] {
        let mut at = [0u16; 32];
        // SAFETY: 64 bytes. Volatile, because what is read from there one by one is read in half of the time that the compiler would
        // take to get it out of the register.
        unsafe { std::ptr::from_mut(&mut at).cast::<__m512i>().write_unaligned(places) };
        let point = |i: usize| {
            // SAFETY: one of the places.
            let at = unsafe { std::ptr::from_ref(&at[i]).read_volatile() };
            i64::from_le_bytes(tables::IQ1[usize::from(at & 2047)])
        };
        macro_rules! eight {
            ($v:literal) => {{
                let (a, b, c, d) = (point(8 * $v), point(8 * $v + 1), point(8 * $v + 2), point(8 * $v + 3));
                let (e, f, g, h) = (point(8 * $v + 4), point(8 * $v + 5), point(8 * $v + 6), point(8 * $v + 7));
                // Levels are at most 2: nothing goes from one to the next.
                let q = _mm512_slli_epi64::<3>(_mm512_setr_epi64(a, b, c, d, e, f, g, h));
                _mm512_mask_add_epi64(q, (up >> (8 * $v)) as u8, q, _mm512_set1_epi8(2))
            }};
        }
        [eight!(0), eight!(1), eight!(2), eight!(3)]
    }

    /// What begins at bit 8 of each word when four bits of eight words, or three, are handed out to four words each.
    fn handed_out(words: __m512i) -> __m512i {
        let each = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 8, 9, 8, 9, 8, 9, 8, 9));
        _mm512_shuffle_epi8(words, each)
    }

    pub(super) fn iq1_s(block: &[u8]) -> Registers {
        let words = sixteen(block, 34);
        let all = handed_out(_mm512_cvtepu16_epi64(words));
        // Three bits for each of four points; those of the last have to go down.
        let high = _mm512_sllv_epi16(all, _mm512_set1_epi64(0x0000_0002_0005_0008));
        let high = _mm512_mask_srli_epi16::<1>(high, 0x8888_8888, all);
        let places = _mm512_or_si512(_mm512_and_si512(high, _mm512_set1_epi16(0x700)), words_at(block, 2));
        let up = !_mm512_movepi16_mask(all);
        let q = levels(places, up);
        let rest = _mm256_cvtepu16_epi32(sixteen(block, 34));
        let codes = _mm256_and_si256(_mm256_srli_epi32::<11>(rest), _mm256_set1_epi32(14));
        let codes = _mm256_cvtepi32_ps(_mm256_add_epi32(codes, _mm256_set1_epi32(1)));
        let scale = _mm256_mul_ps(_mm256_set1_ps(half(block, 0) / 8.0), codes);
        shifted(q, twice(scale), -9.0)
    }

    pub(super) fn iq1_m(block: &[u8]) -> Registers {
        // Four bits for each of four points, of which three belong to its place.
        let all = handed_out(_mm512_cvtepu16_epi64(sixteen(block, 32)));
        let high = _mm512_sllv_epi16(all, _mm512_set1_epi64(0x0000_0000_0004_0008));
        let high = _mm512_mask_srli_epi16::<4>(high, 0x8888_8888, all);
        let places = _mm512_or_si512(_mm512_and_si512(high, _mm512_set1_epi16(0x700)), words_at(block, 0));
        let q = levels(places, _mm512_testn_epi16_mask(high, _mm512_set1_epi16(0x800)));
        let words = eight(block, 48);
        // Four words, each of which keeps four codes of three bits and four bits of the scale of all.
        let d = (words >> 12 & 15 | words >> 24 & 0xf0 | words >> 36 & 0xf00 | words >> 48 & 0xf000) as u16;
        let (low, high) = (_mm512_set1_epi32(words as i32), _mm256_set1_epi32((words >> 32) as i32));
        let places = _mm512_broadcast_i64x4(_mm256_setr_epi32(0, 3, 6, 9, 16, 19, 22, 25));
        let codes = _mm512_srlv_epi32(_mm512_inserti64x4::<1>(low, high), places);
        let codes = _mm512_slli_epi32::<1>(_mm512_and_si512(codes, _mm512_set1_epi32(7)));
        let scale = scales(half(&d.to_le_bytes(), 0) / 8.0, codes, 1.0, 1.0);
        shifted(q, scale, -9.0)
    }
}
