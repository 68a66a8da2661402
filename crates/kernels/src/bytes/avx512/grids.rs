//! The formats whose numbers are points of a grid (iq1_s to iq3_s): their places are found in vectors, and a bit for each weight,
//! which is what signs are kept as, is a mask.

use std::arch::x86_64::*;

use imaginal_numeric::tables;

use super::rows::{load, sixteen};
use super::{Registers, half, shifted, twice};

/// The bytes at `at`.
#[inline(always)]
fn bytes<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    match block[at..].first_chunk() {
        Some(bytes) => *bytes,
        None => panic!("{N} bytes at {at} of {}", block.len()),
    }
}

#[inline(always)]
fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(block, at))
}

#[inline(always)]
fn eight(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(block, at))
}

/// Seven signs in each byte, and the eighth that makes the number of minuses even.
#[inline(always)]
fn even(signs: u64) -> u64 {
    let mut odd = signs ^ signs >> 4;
    odd ^= odd >> 2;
    odd ^= odd >> 1;
    signs | (odd & 0x0101_0101_0101_0101) << 7
}

/// The signs of 64 weights from four times seven bits of two words.
#[inline(always)]
fn even_of_words(first: u32, second: u32) -> u64 {
    let both = u64::from(first) | u64::from(second) << 32;
    let seven = |i: u32| (both & 0x0000_007f_0000_007f << (7 * i)) << i;
    even(seven(0) | seven(1) | seven(2) | seven(3))
}

vnni! {
    /// Eight words of 64 bits, looked up by their places. An instruction that gathers takes 1.5 times as long (Cascade Lake).
    fn eight_of(places: __m512i, word: impl Fn(usize) -> u64) -> __m512i {
        let mut at = [0u64; 8];
        // SAFETY: 64 bytes.
        unsafe { _mm512_storeu_si512(at.as_mut_ptr().cast(), places) };
        let word = |i: usize| word(at[i] as usize) as i64;
        _mm512_setr_epi64(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7))
    }

    /// Eight points along eight axes.
    fn points8<const N: usize>(grid: &[[i8; 8]; N], at: __m512i) -> __m512i {
        const { assert!(N.is_power_of_two()) };
        eight_of(at, |at| u64::from_le_bytes(grid[at & (N - 1)].map(|v| v as u8)))
    }

    /// 16 points along four axes.
    fn points4<const N: usize>(grid: &[[i8; 4]; N], at: __m512i) -> __m512i {
        const { assert!(N.is_power_of_two()) };
        let at = _mm512_and_si512(at, _mm512_set1_epi32(N as i32 - 1));
        // SAFETY: a place below N is one of the grid's.
        unsafe { _mm512_i32gather_epi32::<4>(at, grid.as_ptr().cast()) }
    }

    /// Values around `zero`, those with a sign below it.
    fn signed(values: __m512i, signs: u64, zero: i8) -> __m512i {
        let zero = _mm512_set1_epi8(zero);
        _mm512_mask_sub_epi8(_mm512_add_epi8(zero, values), signs, zero, values)
    }

    /// Eight bytes as words of 64 bits.
    fn wide8(bytes: u64) -> __m512i {
        _mm512_cvtepu8_epi64(_mm_cvtsi64_si128(bytes as i64))
    }

    /// 16 bytes at `at` as words of 32 bits.
    fn wide16(block: &[u8], at: usize) -> __m512i {
        _mm512_cvtepu8_epi32(sixteen(block, at))
    }

    /// `d · (plus + codes) · unit`.
    fn scales(d: f32, codes: __m512i, plus: f32, unit: f32) -> __m512 {
        let codes = _mm512_add_ps(_mm512_cvtepi32_ps(codes), _mm512_set1_ps(plus));
        _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(d), codes), _mm512_set1_ps(unit))
    }

    /// Scales of each 16 weights from 16 codes of four bits, the low half of a byte first.
    fn codes16(codes: u64, d: f32) -> __m512 {
        let codes = wide8(codes);
        // A word of 64 bits gets the low half in its low 32 bits, and the high one in the others.
        let both = _mm512_or_si512(codes, _mm512_slli_epi64::<28>(codes));
        scales(d, _mm512_and_si512(both, _mm512_set1_epi32(15)), 0.5, 0.25)
    }

    /// The scales of each 32 weights, whose codes are the highest four bits of every second word.
    fn codes_of_words(words: __m512i, d: f32, unit: f32) -> __m512 {
        _mm512_movehdup_ps(scales(d, _mm512_srli_epi32::<28>(words), 0.5, unit))
    }

    /// Eight times levels, two more where `up`.
    fn levels(at: __m512i, up: u8) -> __m512i {
        let q = eight_of(at, |at| u64::from_le_bytes(tables::IQ1[at & 2047]));
        // Levels are at most 2: nothing goes from one to the next.
        let q = _mm512_slli_epi64::<3>(q);
        _mm512_mask_add_epi64(q, up, q, _mm512_set1_epi8(2))
    }

    pub(super) fn iq1_s(block: &[u8]) -> Registers {
        let places = _mm512_setr_epi64(0, 3, 6, 9, 16, 19, 22, 25);
        let q = |v: usize| {
            let rest = word(block, 34 + 4 * v);
            let high = _mm512_srlv_epi64(_mm512_set1_epi64(i64::from(rest)), places);
            let high = _mm512_and_si512(high, _mm512_set1_epi64(7));
            let down = (if rest & 0x8000 != 0 { 15 } else { 0 }) | (if rest >> 31 != 0 { 240 } else { 0 });
            levels(_mm512_or_si512(wide8(eight(block, 2 + 8 * v)), _mm512_slli_epi64::<8>(high)), !down)
        };
        let rest = _mm256_cvtepu16_epi32(sixteen(block, 34));
        let codes = _mm256_and_si256(_mm256_srli_epi32::<11>(rest), _mm256_set1_epi32(14));
        let codes = _mm256_cvtepi32_ps(_mm256_add_epi32(codes, _mm256_set1_epi32(1)));
        let scale = _mm256_mul_ps(_mm256_set1_ps(half(block, 0) / 8.0), codes);
        shifted([q(0), q(1), q(2), q(3)], twice(scale), -9.0)
    }

    pub(super) fn iq1_m(block: &[u8]) -> Registers {
        let places = _mm512_setr_epi64(0, 4, 8, 12, 16, 20, 24, 28);
        let q = |v: usize| {
            let high = _mm512_srlv_epi64(_mm512_set1_epi64(i64::from(word(block, 32 + 4 * v))), places);
            let up = _mm512_testn_epi64_mask(high, _mm512_set1_epi64(8));
            let high = _mm512_slli_epi64::<8>(_mm512_and_si512(high, _mm512_set1_epi64(7)));
            levels(_mm512_or_si512(wide8(eight(block, 8 * v)), high), up)
        };
        let words = eight(block, 48);
        // Four words, each of which keeps four codes of three bits and four bits of the scale of all.
        let d = (words >> 12 & 15 | words >> 24 & 0xf0 | words >> 36 & 0xf00 | words >> 48 & 0xf000) as u16;
        let (low, high) = (_mm512_set1_epi32(words as i32), _mm256_set1_epi32((words >> 32) as i32));
        let places = _mm512_broadcast_i64x4(_mm256_setr_epi32(0, 3, 6, 9, 16, 19, 22, 25));
        let codes = _mm512_srlv_epi32(_mm512_inserti64x4::<1>(low, high), places);
        let codes = _mm512_slli_epi32::<1>(_mm512_and_si512(codes, _mm512_set1_epi32(7)));
        let scale = scales(half(&d.to_le_bytes(), 0) / 8.0, codes, 1.0, 1.0);
        shifted([q(0), q(1), q(2), q(3)], scale, -9.0)
    }

    pub(super) fn iq2_xxs(block: &[u8]) -> Registers {
        let q = |v: usize| {
            let word = |i: usize| word(block, 2 + 16 * v + 4 * i);
            let at = wide8(u64::from(word(0)) | u64::from(word(2)) << 32);
            signed(points8(tables::IQ2_XXS, at), even_of_words(word(1), word(3)), 43)
        };
        shifted([q(0), q(1), q(2), q(3)], codes_of_words(load(block, 2), half(block, 0), 0.25), -43.0)
    }

    pub(super) fn iq2_xs(block: &[u8]) -> Registers {
        let q = |v: usize| {
            let groups = sixteen(block, 2 + 16 * v);
            let signs = _mm_cvtepi16_epi8(_mm_srli_epi16::<9>(groups));
            let at = _mm512_cvtepu16_epi64(groups);
            signed(points8(tables::IQ2_XS, at), even(_mm_cvtsi128_si64(signs) as u64), 43)
        };
        shifted([q(0), q(1), q(2), q(3)], codes16(eight(block, 66), half(block, 0)), -43.0)
    }

    pub(super) fn iq2_s(block: &[u8]) -> Registers {
        let places = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
        let q = |v: usize| {
            let high = i64::from(u16::from_le_bytes(bytes(block, 66 + 2 * v)));
            let high = _mm512_and_si512(_mm512_srlv_epi64(_mm512_set1_epi64(high), places), _mm512_set1_epi64(3));
            let at = _mm512_or_si512(wide8(eight(block, 2 + 8 * v)), _mm512_slli_epi64::<8>(high));
            signed(points8(tables::IQ2_S, at), eight(block, 34 + 8 * v), 43)
        };
        shifted([q(0), q(1), q(2), q(3)], codes16(eight(block, 74), half(block, 0)), -43.0)
    }

    pub(super) fn iq3_xxs(block: &[u8]) -> Registers {
        let q = |v: usize| {
            let word = |i: usize| word(block, 66 + 8 * v + 4 * i);
            signed(points4(tables::IQ3_XXS, wide16(block, 2 + 16 * v)), even_of_words(word(0), word(1)), 62)
        };
        let words: [u8; 32] = bytes(block, 66);
        // SAFETY: 32 bytes. Each word takes the place of two.
        let words = unsafe { _mm512_cvtepu32_epi64(_mm256_loadu_si256(words.as_ptr().cast())) };
        let words = _mm512_slli_epi64::<32>(words);
        shifted([q(0), q(1), q(2), q(3)], codes_of_words(words, half(block, 0), 0.5), -62.0)
    }

    pub(super) fn iq3_s(block: &[u8]) -> Registers {
        let q = |v: usize| {
            let (at, high) = (wide16(block, 2 + 16 * v), u16::from_le_bytes(bytes(block, 66 + 2 * v)));
            let at = _mm512_mask_add_epi32(at, high, at, _mm512_set1_epi32(256));
            signed(points4(tables::IQ3_S, at), eight(block, 74 + 8 * v), 15)
        };
        let codes = _mm256_set1_epi32(word(block, 106) as i32);
        let codes = _mm256_srlv_epi32(codes, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
        let codes = _mm256_slli_epi32::<1>(_mm256_and_si256(codes, _mm256_set1_epi32(15)));
        let codes = _mm256_cvtepi32_ps(_mm256_add_epi32(codes, _mm256_set1_epi32(1)));
        shifted([q(0), q(1), q(2), q(3)], twice(_mm256_mul_ps(_mm256_set1_ps(half(block, 0)), codes)), -15.0)
    }
}
