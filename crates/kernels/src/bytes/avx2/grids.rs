//! The formats whose numbers are points of a grid with signs (iq2_xxs to iq3_s), with AVX2: magnitudes are multiplied with activations that have
//! taken their signs, and scales are whole numbers.

use std::arch::x86_64::*;

use imaginal_numeric::tables;

use super::super::Activations;
use super::rows::{activations, eight, load};

/// 256 weights. Their points are looked up when they are multiplied, because so many vectors do not fit the registers.
#[derive(Clone, Copy)]
pub(super) struct Grid<const BYTES: usize> {
    block: *const [u8; BYTES],
    /// A bit for each weight that is set where it is minus, 32 to a word.
    signs: Words,
    /// What the sums of two products are multiplied with, in units of `unit`: two numbers for each 32 weights.
    scales: Words,
    unit: f32,
}

/// Parts of a vector in memory, from where each comes into all words of another without a unit that computes.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Words([u32; 8]);

#[inline(always)]
fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// An array of so many. Closures of functions that are compiled for instructions are not compiled into others, such as an array's
/// `map`.
macro_rules! each {
    ($n:literal of $first:expr, |$i:ident| $body:expr) => {{
        let mut all = [$first; $n];
        for ($i, one) in all.iter_mut().enumerate() {
            *one = $body;
        }
        all
    }};
}

avx2! {
    /// The binary16 number that a block begins with.
    fn scale(block: &[u8]) -> f32 {
        let bits = u16::from_le_bytes([block[0], block[1]]);
        _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))))
    }

    /// 32 weights: four points along eight axes.
    fn points8<const N: usize>(grid: &[[i8; 8]; N], at: [usize; 4]) -> __m256i {
        const { assert!(N.is_power_of_two()) };
        // SAFETY: the same bytes.
        let points = unsafe { &*std::ptr::from_ref(grid).cast::<[[u8; 8]; N]>() };
        let point = |i: usize| i64::from_le_bytes(points[at[i] & (N - 1)]);
        _mm256_setr_epi64x(point(0), point(1), point(2), point(3))
    }

    /// 32 weights: eight points along four axes.
    fn points4<const N: usize>(grid: &[[i8; 4]; N], at: [usize; 8]) -> __m256i {
        const { assert!(N.is_power_of_two()) };
        // SAFETY: the same bytes.
        let points = unsafe { &*std::ptr::from_ref(grid).cast::<[[u8; 4]; N]>() };
        let point = |i: usize| i32::from_le_bytes(points[at[i] & (N - 1)]);
        _mm256_setr_epi32(point(0), point(1), point(2), point(3), point(4), point(5), point(6), point(7))
    }

    /// In memory.
    fn stored(x: __m256i) -> Words {
        let mut words = Words([0; 8]);
        // SAFETY: 32 bytes, aligned.
        unsafe { _mm256_store_si256(words.0.as_mut_ptr().cast(), x) };
        words
    }

    /// Each number of 32 with the sign that its bit tells: set for minus.
    fn with_signs(x: __m256i, bits: u32) -> __m256i {
        let each = _mm256_set1_epi64x(0x8040_2010_0804_0201u64 as i64);
        let byte = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
        let bits = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits as i32), byte), each);
        _mm256_sign_epi8(x, _mm256_or_si256(_mm256_cmpeq_epi8(bits, each), _mm256_set1_epi8(1)))
    }

    /// A bit for each of 256 weights from the low 28 of eight words: four times seven, to which comes the one that makes the number of
    /// minuses among eight even.
    fn even(words: __m256i) -> __m256i {
        let seven = |x: __m256i, byte: u32| _mm256_and_si256(x, _mm256_set1_epi32(0x7f << (8 * byte)));
        let first = _mm256_or_si256(seven(words, 0), seven(_mm256_slli_epi32::<1>(words), 1));
        let last = _mm256_or_si256(seven(_mm256_slli_epi32::<2>(words), 2), seven(_mm256_slli_epi32::<3>(words), 3));
        even_bytes(_mm256_or_si256(first, last))
    }

    /// [`even`] of bytes.
    fn even_bytes(signs: __m256i) -> __m256i {
        let odd = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0));
        let low = _mm256_set1_epi8(15);
        let pairs = _mm256_xor_si256(signs, _mm256_srli_epi16::<4>(signs));
        _mm256_or_si256(signs, _mm256_shuffle_epi8(odd, _mm256_and_si256(pairs, low)))
    }

    /// `2·code + 1`, where codes of each 32 weights are the highest four bits of eight words.
    fn scales_of_words(words: __m256i) -> Words {
        let codes = _mm256_add_epi32(_mm256_slli_epi32::<1>(_mm256_srli_epi32::<28>(words)), _mm256_set1_epi32(1));
        stored(_mm256_or_si256(codes, _mm256_slli_epi32::<16>(codes)))
    }

    /// `2·code + 1`, where codes of each 16 weights have four bits, the low half of a byte first.
    fn scales16(block: &[u8], at: usize) -> Words {
        let codes = _mm_cvtsi64_si128(i64::from_le_bytes(each!(8 of 0, |i| block[at + i])));
        let four = _mm_set1_epi8(15);
        let codes = _mm_unpacklo_epi8(_mm_and_si128(codes, four), _mm_and_si128(_mm_srli_epi16::<4>(codes), four));
        stored(odd(_mm256_cvtepu8_epi16(codes)))
    }

    /// `2·x + 1`.
    fn odd(x: __m256i) -> __m256i {
        _mm256_add_epi16(_mm256_slli_epi16::<1>(x), _mm256_set1_epi16(1))
    }

    /// Adds the products of a block's weights with activations, given what reads 32 of its magnitudes.
    fn add_points<const BYTES: usize>(
        w: Grid<BYTES>,
        x: &Activations,
        acc: [__m256; 2],
        points: impl Fn(&[u8; BYTES], usize) -> __m256i,
    ) -> [__m256; 2] {
        let halves = _mm256_setr_m128i(_mm_set1_epi16(0x0100), _mm_set1_epi16(0x0302));
        let mut acc = acc;
        for (h, acc) in acc.iter_mut().enumerate() {
            let mut sums = _mm256_setzero_si256();
            for i in 0..4 {
                let v = 2 * i + h;
                // SAFETY: the block from which the weights were made, which is still being read.
                let q = points(unsafe { &*w.block }, v);
                let products = _mm256_maddubs_epi16(q, with_signs(activations(x, v), w.signs.0[v]));
                let scale = _mm256_shuffle_epi8(_mm256_set1_epi32(w.scales.0[v] as i32), halves);
                sums = _mm256_add_epi32(sums, _mm256_madd_epi16(products, scale));
            }
            let sums = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), eight(&x.scale, h));
            *acc = _mm256_fmadd_ps(sums, _mm256_set1_ps(w.unit), *acc);
        }
        acc
    }

    pub(super) fn iq2_xxs(block: &[u8; 66]) -> Grid<66> {
        // Every second word.
        let (a, b) = (_mm256_castsi256_ps(load(block, 2)), _mm256_castsi256_ps(load(block, 34)));
        let words = _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(a, b));
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
        Grid { block, signs: stored(even(words)), scales: scales_of_words(words), unit: scale(block) / 8.0 }
    }

    pub(super) fn add_iq2_xxs(w: Grid<66>, x: &Activations, acc: [__m256; 2]) -> [__m256; 2] {
        add_points(w, x, acc, |block, v| {
            points8(tables::IQ2_XXS, each!(4 of 0, |i| usize::from(block[2 + 8 * v + i])))
        })
    }

    pub(super) fn iq2_xs(block: &[u8; 74]) -> Grid<74> {
        // The upper seven bits of words, as bytes.
        let seven = |at: usize| _mm256_srli_epi16::<9>(load(block, at));
        let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(seven(2), seven(34)));
        Grid { block, signs: stored(even_bytes(bytes)), scales: scales16(block, 66), unit: scale(block) / 8.0 }
    }

    pub(super) fn add_iq2_xs(w: Grid<74>, x: &Activations, acc: [__m256; 2]) -> [__m256; 2] {
        add_points(w, x, acc, |block, v| {
            let group = |i: usize| usize::from(u16::from_le_bytes([block[2 + 8 * v + 2 * i], block[3 + 8 * v + 2 * i]]));
            points8(tables::IQ2_XS, each!(4 of 0, |i| group(i)))
        })
    }

    pub(super) fn iq2_s(block: &[u8; 82]) -> Grid<82> {
        Grid { block, signs: stored(load(block, 34)), scales: scales16(block, 74), unit: scale(block) / 8.0 }
    }

    pub(super) fn add_iq2_s(w: Grid<82>, x: &Activations, acc: [__m256; 2]) -> [__m256; 2] {
        add_points(w, x, acc, |block, v| {
            let high = usize::from(block[66 + v]);
            points8(tables::IQ2_S, each!(4 of 0, |i| usize::from(block[2 + 4 * v + i]) | (high >> (2 * i) & 3) << 8))
        })
    }

    pub(super) fn iq3_xxs(block: &[u8; 98]) -> Grid<98> {
        let words = load(block, 66);
        Grid { block, signs: stored(even(words)), scales: scales_of_words(words), unit: scale(block) / 4.0 }
    }

    pub(super) fn add_iq3_xxs(w: Grid<98>, x: &Activations, acc: [__m256; 2]) -> [__m256; 2] {
        add_points(w, x, acc, |block, v| {
            points4(tables::IQ3_XXS, each!(8 of 0, |i| usize::from(block[2 + 8 * v + i])))
        })
    }

    pub(super) fn iq3_s(block: &[u8; 110]) -> Grid<110> {
        // Codes of four bits move up to where those of words are.
        let codes = _mm256_sllv_epi32(
            _mm256_set1_epi32(word(block, 106) as i32),
            _mm256_setr_epi32(28, 24, 20, 16, 12, 8, 4, 0),
        );
        Grid { block, signs: stored(load(block, 74)), scales: scales_of_words(codes), unit: scale(block) }
    }

    pub(super) fn add_iq3_s(w: Grid<110>, x: &Activations, acc: [__m256; 2]) -> [__m256; 2] {
        add_points(w, x, acc, |block, v| {
            let high = usize::from(block[66 + v]) << 8;
            points4(tables::IQ3_S, each!(8 of 0, |i| usize::from(block[2 + 8 * v + i]) | (high >> i & 256)))
        })
    }
}
