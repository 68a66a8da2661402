//! The formats whose numbers are points of a grid, but for those of the largest (iq2_xxs to iq3_s).
//!
//! A grid has few levels, so that a point is a word of 16 bits, two or four of them for each weight, and all points of a grid fit
//! some registers: an instruction looks 32 of them up among 64, and loads nothing. What belongs to one weight of a word comes to
//! lie in one vector, so that 16 weights that follow each other, which is what has a scale, are one lane of four vectors, and the
//! activations come in that order.

use std::arch::x86_64::*;

use imaginal_numeric::tables;

use super::super::Activations;
use super::grids::{bytes, eight, scales, word, words_at};
use super::rows::{load, sixteen};
use super::{Registers, half, shifted};

/// 256 weights: byte `r` of lane `i` of vector `v` is the number of the weight `16·i + order[4·v + r]`.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    q: [__m512i; 4],
    /// The scale of each 16.
    scale: __m512,
}

/// The order where words hold eight weights, two bits each.
pub(super) const EIGHTS: [u8; 16] = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15];
/// The order where words hold four weights, four bits each.
pub(super) const FOURS: [u8; 16] = [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15];

/// The index of a value among levels.
const fn code<const N: usize>(value: i8, levels: &[i8; N]) -> u16 {
    let mut i = 0;
    while levels[i] != value {
        i += 1;
    }
    i as u16
}

/// The words of a grid: each weight's code in the bits that the order puts into its vector.
const fn words<const PER: usize, const POINTS: usize, const REGISTERS: usize, const N: usize>(
    grid: &[[i8; PER]; POINTS],
    levels: &[i8; N],
) -> [[u16; 32]; REGISTERS] {
    assert!(32 * REGISTERS == POINTS);
    let (mut all, mut point) = ([[0; 32]; REGISTERS], 0);
    while point < POINTS {
        let mut at = 0;
        while at < PER {
            // Bytes hold half of the weights each.
            let half = PER / 2;
            let code = code(grid[point][at], levels);
            all[point / 32][point % 32] |= code << (at / half * 8 + at % half * (16 / PER));
            at += 1;
        }
        point += 1;
    }
    all
}

const IQ2_LEVELS: [i8; 3] = [8, 25, 43];
static IQ2_XXS: [[u16; 32]; 8] = words(tables::IQ2_XXS, &IQ2_LEVELS);
static IQ2_XS: [[u16; 32]; 16] = words(tables::IQ2_XS, &IQ2_LEVELS);
static IQ2_S: [[u16; 32]; 32] = words(tables::IQ2_S, &IQ2_LEVELS);
const IQ3_XXS_LEVELS: [i8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
static IQ3_XXS: [[u16; 32]; 8] = words(tables::IQ3_XXS, &IQ3_XXS_LEVELS);
const IQ3_S_LEVELS: [i8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];
static IQ3_S: [[u16; 32]; 16] = words(tables::IQ3_S, &IQ3_S_LEVELS);

/// The numbers of levels around `zero`: above it, and at `minus` those below it.
const fn around<const N: usize>(levels: &[i8; N], zero: i8, minus: usize) -> [u8; 16] {
    let (mut all, mut i) = ([0; 16], 0);
    while i < N {
        all[i] = (zero + levels[i]) as u8;
        all[minus + i] = (zero - levels[i]) as u8;
        i += 1;
    }
    all
}

vnni! {
    /// Four times 16 bytes.
    fn four_times(bytes: &[u8; 16]) -> __m512i {
        _mm512_broadcast_i32x4(sixteen(bytes, 0))
    }

    /// Moves bytes within each 16; 128 is a zero.
    fn moved(x: __m512i, from: [u8; 16]) -> __m512i {
        _mm512_shuffle_epi8(x, four_times(&from))
    }

    /// The words at 32 places, of which the bits that the table is long for count.
    fn look_up<const REGISTERS: usize>(table: &[[u16; 32]; REGISTERS], at: __m512i) -> __m512i {
        const { assert!(REGISTERS == 8 || REGISTERS == 16 || REGISTERS == 32) };
        let among = |i: usize| {
            // SAFETY: 64 bytes each.
            let part = |i: usize| unsafe { _mm512_loadu_si512(table[i].as_ptr().cast()) };
            _mm512_permutex2var_epi16(part(2 * i), at, part(2 * i + 1))
        };
        let bit = |i: u32| _mm512_test_epi16_mask(at, _mm512_set1_epi16(1 << i));
        let two = |i: usize| _mm512_mask_mov_epi16(among(2 * i), bit(6), among(2 * i + 1));
        let four = |i: usize| _mm512_mask_mov_epi16(two(2 * i), bit(7), two(2 * i + 1));
        let eight = |i: usize| _mm512_mask_mov_epi16(four(2 * i), bit(8), four(2 * i + 1));
        match REGISTERS {
            8 => four(0),
            16 => eight(0),
            _ => _mm512_mask_mov_epi16(eight(0), bit(9), eight(1)),
        }
    }

    /// Words of seven signs, and the eighth that makes the number of minuses even.
    fn even(signs: __m512i) -> __m512i {
        const ODD: [u8; 16] = [0, 128, 128, 0, 128, 0, 0, 128, 128, 0, 0, 128, 0, 128, 128, 0];
        let pairs = _mm512_xor_si512(signs, _mm512_srli_epi16::<4>(signs));
        // Bits above the fourth do not matter to it, the eighth is not set.
        _mm512_or_si512(signs, _mm512_shuffle_epi8(four_times(&ODD), pairs))
    }

    /// The signs of 32 times eight weights from the low 28 bits of eight words, each of which stands in both halves of 64 bits.
    fn even_of_words(words: __m512i) -> __m512i {
        let halves = _mm512_srlv_epi32(words, _mm512_setr_epi32(0, 14, 0, 14, 0, 14, 0, 14, 0, 14, 0, 14, 0, 14, 0, 14));
        let upper = _mm512_slli_epi32::<9>(halves);
        // The first seven bits of one, the next seven, where the upper word begins, of the other.
        let both = _mm512_ternarylogic_epi32::<0b1100_1010>(_mm512_set1_epi32(0x7f), halves, upper);
        even(_mm512_and_si512(both, _mm512_set1_epi32(0x007f_007f)))
    }

    /// Numbers of the weights of 32 points, whose signs are words.
    fn eights(points: __m512i, signs: __m512i, levels: &[u8; 16]) -> [__m512i; 4] {
        let signs = _mm512_mullo_epi16(signs, _mm512_set1_epi16(0x0101));
        let numbers = four_times(levels);
        let vector = |shifted: __m512i, v: u32| {
            let minus = _mm512_test_epi8_mask(signs, _mm512_set1_epi16(0x1001 << v));
            let codes = _mm512_and_si512(shifted, _mm512_set1_epi8(3));
            _mm512_shuffle_epi8(numbers, _mm512_mask_add_epi8(codes, minus, codes, _mm512_set1_epi8(4)))
        };
        [
            vector(points, 0),
            vector(_mm512_srli_epi16::<2>(points), 1),
            vector(_mm512_srli_epi16::<4>(points), 2),
            vector(_mm512_srli_epi16::<6>(points), 3),
        ]
    }

    /// Numbers of the weights of twice 32 points, of which each 32 bits of the first have the first two of four, and those of the second
    /// the others. Signs of eight weights are words.
    fn fours(points: [__m512i; 2], signs: __m512i, levels: &[u8; 16]) -> [__m512i; 4] {
        let numbers = four_times(levels);
        let first = moved(signs, [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12]);
        let second = moved(signs, [2, 2, 2, 2, 6, 6, 6, 6, 10, 10, 10, 10, 14, 14, 14, 14]);
        let vector = |shifted: __m512i, signs: __m512i, bits: i32| {
            let minus = _mm512_test_epi8_mask(signs, _mm512_set1_epi32(bits));
            let codes = _mm512_and_si512(shifted, _mm512_set1_epi8(7));
            _mm512_shuffle_epi8(numbers, _mm512_mask_add_epi8(codes, minus, codes, _mm512_set1_epi8(8)))
        };
        let pair = |points: __m512i, signs: __m512i| {
            let odd = _mm512_srli_epi16::<4>(points);
            [vector(points, signs, 0x4010_0401), vector(odd, signs, 0x8020_0802u32 as i32)]
        };
        let ([a, b], [c, d]) = (pair(points[0], first), pair(points[1], second));
        [a, b, c, d]
    }

    /// The scales of each 16 weights from 16 codes of four bits, the low half of a byte first.
    fn codes16(codes: u64, d: f32) -> __m512 {
        let codes = _mm512_cvtepu8_epi64(_mm_cvtsi64_si128(codes as i64));
        // A word of 64 bits gets the low half in its low 32 bits, and the high one in the others.
        let both = _mm512_or_si512(codes, _mm512_slli_epi64::<28>(codes));
        scales(d, _mm512_and_si512(both, _mm512_set1_epi32(15)), 0.5, 0.25)
    }

    /// The scales of each 32 weights, twice, whose codes are the highest four bits of eight words that stand twice.
    fn codes_of_words(words: __m512i, d: f32, unit: f32) -> __m512 {
        scales(d, _mm512_srli_epi32::<28>(words), 0.5, unit)
    }

    pub(super) fn iq2_xxs(block: &[u8]) -> Columns {
        let all = load(block, 2);
        let at = moved(all, [0, 128, 1, 128, 2, 128, 3, 128, 8, 128, 9, 128, 10, 128, 11, 128]);
        let words = _mm512_shuffle_epi32::<0b11_11_01_01>(all);
        const LEVELS: [u8; 16] = around(&IQ2_LEVELS, 43, 4);
        let q = eights(look_up(&IQ2_XXS, at), even_of_words(words), &LEVELS);
        Columns { q, scale: codes_of_words(words, half(block, 0), 0.25) }
    }

    pub(super) fn iq2_xs(block: &[u8]) -> Columns {
        let groups = load(block, 2);
        const LEVELS: [u8; 16] = around(&IQ2_LEVELS, 43, 4);
        let q = eights(look_up(&IQ2_XS, groups), even(_mm512_srli_epi16::<9>(groups)), &LEVELS);
        Columns { q, scale: codes16(eight(block, 66), half(block, 0)) }
    }

    pub(super) fn iq2_s(block: &[u8]) -> Columns {
        // Two bits for each word, from the ninth on.
        let high = _mm512_cvtepu8_epi64(_mm_cvtsi64_si128(eight(block, 66) as i64));
        let high = moved(high, [0, 128, 0, 128, 0, 128, 0, 128, 8, 128, 8, 128, 8, 128, 8, 128]);
        let high = _mm512_sllv_epi16(high, _mm512_set1_epi64(0x0002_0004_0006_0008));
        let at = _mm512_or_si512(_mm512_and_si512(high, _mm512_set1_epi16(0x300)), words_at(block, 2));
        const LEVELS: [u8; 16] = around(&IQ2_LEVELS, 43, 4);
        Columns {
            q: eights(look_up(&IQ2_S, at), words_at(block, 34), &LEVELS),
            scale: codes16(eight(block, 74), half(block, 0)),
        }
    }

    pub(super) fn iq3_xxs(block: &[u8]) -> Columns {
        let all = load(block, 2);
        let first = moved(all, [0, 128, 1, 128, 4, 128, 5, 128, 8, 128, 9, 128, 12, 128, 13, 128]);
        let second = moved(all, [2, 128, 3, 128, 6, 128, 7, 128, 10, 128, 11, 128, 14, 128, 15, 128]);
        let words: [u8; 32] = bytes(block, 66);
        // SAFETY: 32 bytes.
        let words = unsafe { _mm512_cvtepu32_epi64(_mm256_loadu_si256(words.as_ptr().cast())) };
        let words = _mm512_shuffle_epi32::<0b10_10_00_00>(words);
        const LEVELS: [u8; 16] = around(&IQ3_XXS_LEVELS, 62, 8);
        let points = [look_up(&IQ3_XXS, first), look_up(&IQ3_XXS, second)];
        let q = fours(points, even_of_words(words), &LEVELS);
        Columns { q, scale: codes_of_words(words, half(block, 0), 0.5) }
    }

    pub(super) fn iq3_s(block: &[u8]) -> Columns {
        let (all, high) = (load(block, 2), _mm512_maskz_set1_epi8(eight(block, 66), 1));
        let first = _mm512_or_si512(
            moved(all, [0, 128, 1, 128, 4, 128, 5, 128, 8, 128, 9, 128, 12, 128, 13, 128]),
            moved(high, [128, 0, 128, 1, 128, 4, 128, 5, 128, 8, 128, 9, 128, 12, 128, 13]),
        );
        let second = _mm512_or_si512(
            moved(all, [2, 128, 3, 128, 6, 128, 7, 128, 10, 128, 11, 128, 14, 128, 15, 128]),
            moved(high, [128, 2, 128, 3, 128, 6, 128, 7, 128, 10, 128, 11, 128, 14, 128, 15]),
        );
        const LEVELS: [u8; 16] = around(&IQ3_S_LEVELS, 15, 8);
        let points = [look_up(&IQ3_S, first), look_up(&IQ3_S, second)];
        let codes = _mm512_srlv_epi32(
            _mm512_set1_epi32(word(block, 106) as i32),
            _mm512_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28),
        );
        let codes = _mm512_slli_epi32::<1>(_mm512_and_si512(codes, _mm512_set1_epi32(15)));
        Columns { q: fours(points, words_at(block, 74), &LEVELS), scale: scales(half(block, 0), codes, 1.0, 1.0) }
    }

    /// Adds the products with activations in the same order.
    pub(super) fn add_columns(w: Columns, x: &Activations, acc: __m512) -> __m512 {
        // SAFETY: the loads lie in the chunk, which is aligned to 64 bytes.
        let (dots, scale) = unsafe {
            let part = |v: usize| _mm512_load_si512(x.q.as_ptr().add(64 * v).cast());
            let mut dots = _mm512_load_si512(x.start.as_ptr().cast());
            for (v, q) in w.q.into_iter().enumerate() {
                dots = _mm512_dpbusd_epi32(dots, q, part(v));
            }
            (dots, _mm512_load_ps(x.scale.as_ptr()))
        };
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), _mm512_mul_ps(w.scale, scale), acc)
    }

    /// Four vectors, each of which has a run of 16 in each 128 bits, as the runs follow each other.
    fn in_order(q: [__m512i; 4]) -> [__m512i; 4] {
        let [a, b, c, d] = q;
        let (low, low_end) = (_mm512_shuffle_i32x4::<0b01_00_01_00>(a, b), _mm512_shuffle_i32x4::<0b01_00_01_00>(c, d));
        let (high, high_end) = (_mm512_shuffle_i32x4::<0b11_10_11_10>(a, b), _mm512_shuffle_i32x4::<0b11_10_11_10>(c, d));
        [
            _mm512_shuffle_i32x4::<0b10_00_10_00>(low, low_end),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(low, low_end),
            _mm512_shuffle_i32x4::<0b10_00_10_00>(high, high_end),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(high, high_end),
        ]
    }

    /// The bytes of the first two vectors by turns, and of the last two: the lower halves of each 128 bits, then the upper ones.
    fn interleaved(q: [__m512i; 4]) -> [__m512i; 4] {
        let [a, b, c, d] = q;
        let (low, low_end) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
        [low, low_end, _mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d)]
    }

    /// Weights around `zero` in the order of [`EIGHTS`], as they follow each other.
    pub(super) fn from_eights(w: Columns, zero: f32) -> Registers {
        let [low, low_end, high, high_end] = interleaved(w.q);
        let q = in_order([
            _mm512_unpacklo_epi16(low, low_end),
            _mm512_unpackhi_epi16(low, low_end),
            _mm512_unpacklo_epi16(high, high_end),
            _mm512_unpackhi_epi16(high, high_end),
        ]);
        shifted(q, w.scale, -zero)
    }

    /// Weights around `zero` in the order of [`FOURS`], as they follow each other.
    pub(super) fn from_fours(w: Columns, zero: f32) -> Registers {
        let [low, low_end, high, high_end] = interleaved(w.q);
        let q = in_order([
            _mm512_unpacklo_epi64(low, low_end),
            _mm512_unpackhi_epi64(low, low_end),
            _mm512_unpacklo_epi64(high, high_end),
            _mm512_unpackhi_epi64(high, high_end),
        ]);
        shifted(q, w.scale, -zero)
    }
}
