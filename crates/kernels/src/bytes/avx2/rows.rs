//! Few tokens with AVX2, for the formats whose scales or order make more of it than portable reading does.

use std::arch::x86_64::*;

use imaginal_numeric::{Format, tables};

use super::super::read::E2M1;
use super::super::rows::{self, GROUP, HALVES, Rows, TOGETHER};
use super::super::{Activations, Lanes, One, Order, PLAIN};
use super::grids::{self, Grid};
use super::{Row, halves_added, sum};

/// What multiplies rows of a format, with some tokens and with one, and the order it wants, where there is anything here.
pub(super) fn kernel(format: Format) -> Option<(Row, One, &'static Order)> {
    fn of<R: Rows<BYTES>, const BYTES: usize>() -> Option<(Row, One, &'static Order)> {
        Some((row::<R, BYTES>, one::<R, BYTES>, &R::ORDER))
    }
    match format {
        Format::Q2_K => of::<Q2K, 84>(),
        Format::Q3_K => of::<Q3K, 110>(),
        Format::Q4_K => of::<Q4K, 144>(),
        Format::Q5_K => of::<Q5K, 176>(),
        Format::Q6_K => of::<Q6K, 210>(),
        Format::Q4_0 => of::<Q4_0, 144>(),
        Format::IQ4_NL => of::<Iq4Nl, 144>(),
        Format::IQ4_XS => of::<Iq4Xs, 136>(),
        Format::MXFP4 => of::<Mxfp4, 136>(),
        Format::IQ2_XXS => of::<Iq2Xxs, 66>(),
        Format::IQ2_XS => of::<Iq2Xs, 74>(),
        Format::IQ2_S => of::<Iq2S, 82>(),
        Format::IQ3_XXS => of::<Iq3Xxs, 98>(),
        Format::IQ3_S => of::<Iq3S, 110>(),
        _ => None,
    }
}

/// The products of a row with each of the tokens, whose chunks are `stride` apart.
#[target_feature(enable = "avx2,fma,f16c")]
fn row<R: Rows<BYTES>, const BYTES: usize>(row: &[u8], x: &[Activations], stride: usize, out: &mut [f32]) {
    // SAFETY: this function runs only where its features exist.
    unsafe { rows::row::<R, BYTES>(row, x, stride, out) }
}

/// The products of rows of `row_bytes` with one token.
#[target_feature(enable = "avx2,fma,f16c")]
fn one<R: Rows<BYTES>, const BYTES: usize>(rows: &[u8], row_bytes: usize, x: &[Activations], out: &mut [f32]) {
    // SAFETY: this function runs only where its features exist.
    unsafe { rows::one::<R, BYTES>(rows, row_bytes, x, out) }
}

/// 256 weights whose scales are whole numbers in units of `unit`.
#[derive(Clone, Copy)]
struct Whole {
    q: [__m256i; 8],
    /// What the sums of two products are multiplied with.
    scale: [__m256i; 8],
    unit: f32,
    /// What each 16 weights have subtracted, in units of `min_unit`.
    min: [__m256; 2],
    min_unit: f32,
}

/// 256 weights, 32 of which share a scale and lie in 128 bits each of two vectors that are two apart.
#[derive(Clone, Copy)]
struct Halves {
    q: [__m256i; 8],
    scale: [__m256; 4],
    /// What all scales are multiplied with.
    unit: f32,
}

avx2! {
    /// 32 bytes of activations.
    pub(super) fn activations(x: &Activations, vector: usize) -> __m256i {
        let x = &x.q[32 * vector..32 * vector + 32];
        // SAFETY: as many were just taken.
        unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
    }

    /// Eight of 16 floats.
    pub(super) fn eight(x: &[f32; 16], half: usize) -> __m256 {
        let x = &x[8 * half..8 * half + 8];
        // SAFETY: as many were just taken.
        unsafe { _mm256_loadu_ps(x.as_ptr()) }
    }

    /// Adds the products of weights with whole scales.
    fn add_whole(w: Whole, x: &Activations, acc: [__m256; 2]) -> [__m256; 2] {
        let mut acc = acc;
        for (h, acc) in acc.iter_mut().enumerate() {
            let part = |i: usize| {
                let v = 2 * i + h;
                _mm256_madd_epi16(_mm256_maddubs_epi16(w.q[v], activations(x, v)), w.scale[v])
            };
            let sums = _mm256_add_epi32(_mm256_add_epi32(part(0), part(1)), _mm256_add_epi32(part(2), part(3)));
            let sums = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), eight(&x.scale, h));
            *acc = _mm256_fmadd_ps(sums, _mm256_set1_ps(w.unit), *acc);
            *acc = _mm256_fnmadd_ps(_mm256_mul_ps(w.min[h], eight(&x.sum, h)), _mm256_set1_ps(w.min_unit), *acc);
        }
        acc
    }

    /// Adds the products of weights in halves. `SIGNED`: numbers are signed; else they are small, and sums begin with what
    /// the number that stands for zero adds.
    fn add_halves<const SIGNED: bool>(w: Halves, x: &Activations, acc: [__m256; 2]) -> [__m256; 2] {
        let dots = |i: usize| {
            let products = |v: usize| match SIGNED {
                true => _mm256_maddubs_epi16(_mm256_abs_epi8(w.q[v]), _mm256_sign_epi8(activations(x, v), w.q[v])),
                false => _mm256_maddubs_epi16(w.q[v], activations(x, v)),
            };
            let (a, b, ones) = (products(first_half(i)), products(first_half(i) + 2), _mm256_set1_epi16(1));
            let sums = if SIGNED {
                _mm256_add_epi32(_mm256_madd_epi16(a, ones), _mm256_madd_epi16(b, ones))
            } else {
                let start = &x.start[i / 2 * 32 + i % 2 * 8..][..8];
                // SAFETY: as many were just taken.
                let start = unsafe { _mm256_loadu_si256(start.as_ptr().cast()) };
                _mm256_add_epi32(_mm256_madd_epi16(_mm256_add_epi16(a, b), ones), start)
            };
            _mm256_cvtepi32_ps(sums)
        };
        let mut acc = acc;
        for (h, acc) in acc.iter_mut().enumerate() {
            let sums = _mm256_fmadd_ps(dots(h + 2), w.scale[h + 2], _mm256_mul_ps(dots(h), w.scale[h]));
            *acc = _mm256_fmadd_ps(_mm256_mul_ps(sums, eight(&x.scale, h)), _mm256_set1_ps(w.unit), *acc);
        }
        acc
    }

    /// Widens pairs of binary16 numbers, the first of which are the low halves of words.
    fn widen(words: [u32; GROUP]) -> [f32; 2 * GROUP] {
        let mut wide = [0.0; 2 * GROUP];
        // SAFETY: the same bits; eight numbers are written at a time.
        unsafe {
            let words = std::mem::transmute::<[u32; GROUP], [__m128i; 2]>(words);
            for (wide, words) in wide.as_chunks_mut::<8>().0.iter_mut().zip(words) {
                _mm256_storeu_ps(wide.as_mut_ptr(), _mm256_cvtph_ps(words));
            }
        }
        wide
    }

    /// 32 bytes.
    pub(super) fn load(block: &[u8], at: usize) -> __m256i {
        let bytes = &block[at..at + 32];
        // SAFETY: as many were just taken.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    /// 16 bytes.
    fn sixteen(block: &[u8], at: usize) -> __m128i {
        let bytes = &block[at..at + 16];
        // SAFETY: as many were just taken.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    /// The bits of a mask after words are shifted right, or left by a negative number. Constants become instructions.
    fn bits(x: __m256i, right: i32, mask: i8) -> __m256i {
        let by = _mm_cvtsi32_si128(right.abs());
        let x = if right < 0 { _mm256_sll_epi16(x, by) } else { _mm256_srl_epi16(x, by) };
        _mm256_and_si256(x, _mm256_set1_epi8(mask))
    }

    /// 16 scales of 16 bits as eight vectors of sums of two products want them.
    fn spread(scales: __m256i) -> [__m256i; 8] {
        let both = [_mm256_permute2x128_si256::<0x00>(scales, scales), _mm256_permute2x128_si256::<0x11>(scales, scales)];
        let mut spread = [scales; 8];
        for (v, spread) in spread.iter_mut().enumerate() {
            let word = |i: usize| ((4 * (v % 4) + 2 * i) as i16) | ((4 * (v % 4) + 2 * i + 1) as i16) << 8;
            let index = _mm256_setr_m128i(_mm_set1_epi16(word(0)), _mm_set1_epi16(word(1)));
            *spread = _mm256_shuffle_epi8(both[v / 4], index);
        }
        spread
    }

    /// 16 bytes as floats.
    fn floats(bytes: __m128i) -> [__m256; 2] {
        let eight = |x: __m128i| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(x));
        [eight(bytes), eight(_mm_unpackhi_epi64(bytes, bytes))]
    }

    /// 16 signed bytes as floats.
    fn signed_floats(bytes: __m128i) -> [__m256; 2] {
        let eight = |x: __m128i| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x));
        [eight(bytes), eight(_mm_unpackhi_epi64(bytes, bytes))]
    }

    /// The block of a q4_k or q5_k, given its numbers.
    fn whole_k4(block: &[u8], q: [__m256i; 8], units: &[f32; 16], i: usize) -> Whole {
        let words = sixteen(block, 0);
        // The first four scales lie in six bits of a word, the others in four of the third word and two that are left.
        let low = _mm_srlv_epi32(_mm_shuffle_epi32::<0b11_10_11_01>(words), _mm_setr_epi32(0, 0, 0, 4));
        let low = _mm_and_si128(low, _mm_setr_epi32(0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f));
        let high = _mm_srli_epi32::<2>(_mm_shuffle_epi32::<0b10_10_01_01>(words));
        let scales = _mm_or_si128(low, _mm_and_si128(high, _mm_setr_epi32(0, 0x3030_3030, 0, 0x3030_3030)));
        let both = _mm256_broadcastsi128_si256(scales);
        let mut scale = [both; 8];
        for (v, scale) in scale.iter_mut().enumerate() {
            *scale = _mm256_shuffle_epi8(both, _mm256_set1_epi16(v as i16 | -0x8000));
        }
        let minima = _mm_unpackhi_epi8(scales, scales);
        Whole { q, scale, unit: units[2 * i], min: floats(minima), min_unit: units[2 * i + 1] }
    }

    /// Eight scales, each in four lanes of four vectors.
    fn spread_floats(scales: __m256) -> [__m256; 4] {
        let each = |i: i32| {
            let pair = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
            _mm256_permutevar8x32_ps(scales, _mm256_add_epi32(pair, _mm256_set1_epi32(2 * i)))
        };
        [each(0), each(1), each(2), each(3)]
    }

    /// The low and high halves of the 16 bytes at `at` of eight runs that are `stride` apart.
    fn halves(block: &[u8], stride: usize, at: usize) -> [__m256i; 8] {
        let mut q = [_mm256_setzero_si256(); 8];
        for i in 0..4 {
            let run = |j: usize| sixteen(block, (2 * i + j) * stride + at);
            let both = _mm256_setr_m128i(run(0), run(1));
            q[first_half(i)] = bits(both, 0, 15);
            q[first_half(i) + 2] = bits(both, 4, 15);
        }
        q
    }

    /// Looks numbers of four bits up.
    fn look_up(q: [__m256i; 8], table: [u8; 16]) -> [__m256i; 8] {
        let table = _mm256_broadcastsi128_si256(sixteen(&table, 0));
        let mut q = q;
        for q in &mut q {
            *q = _mm256_shuffle_epi8(table, *q);
        }
        q
    }
}

/// The vector with the first halves of the `i`th two runs of 32 weights; that with the second is two further.
const fn first_half(i: usize) -> usize {
    i / 2 * 4 + i % 2
}

/// The units of blocks that have a binary16 scale at byte `at` and `AND`, perhaps, a minimum after it.
#[inline(always)]
unsafe fn units<const BYTES: usize>(blocks: &[[u8; BYTES]], at: usize, and: bool) -> [f32; 2 * GROUP] {
    // SAFETY: only called where AVX2 exists.
    unsafe { widen(rows::words(blocks, at, and)) }
}

/// The binary16 scales of eight runs of 32 weights, which lie `BYTES / 8` bytes apart.
#[inline(always)]
unsafe fn half_scales<const BYTES: usize>(block: &[u8; BYTES]) -> [__m256; 4] {
    let half = |i: usize| u64::from(u16::from_le_bytes([block[i * (BYTES / 8)], block[i * (BYTES / 8) + 1]]));
    let four = |i: usize| (half(i) | half(i + 1) << 16 | half(i + 2) << 32 | half(i + 3) << 48) as i64;
    // SAFETY: only called where F16C exists.
    unsafe { spread_floats(_mm256_cvtph_ps(_mm_set_epi64x(four(4), four(0)))) }
}

/// The halves of the scales of eight runs of an mxfp4 block.
#[inline(always)]
unsafe fn e8m0_scales(block: &[u8; 136]) -> [__m256; 4] {
    let scale = |i: usize| tables::mxfp4_half_scale(block[17 * i]);
    // SAFETY: only called where AVX2 exists.
    unsafe {
        spread_floats(_mm256_setr_ps(scale(0), scale(1), scale(2), scale(3), scale(4), scale(5), scale(6), scale(7)))
    }
}

/// Makes [`Rows`] of formats.
macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident[$bytes:literal]: $order:expr, $weights:ty, $add:expr;
        |$blocks:ident| -> $units:ty $read:block
        |$block:ident, $of:ident, $i:ident| $body:block)*) => {$(
        $(#[$doc])*
        struct $name;

        impl Rows<$bytes> for $name {
            const ORDER: Order = $order;
            type Units = $units;
            type Weights = $weights;
            type Sums = [__m256; 2];

            #[inline(always)]
            #[allow(unused_unsafe)] // some are read without instructions
            unsafe fn units($blocks: &[[u8; $bytes]]) -> $units {
                // SAFETY: by the caller's promise.
                unsafe { $read }
            }

            #[inline(always)]
            unsafe fn weights($block: &[u8; $bytes], $of: &$units, $i: usize) -> $weights {
                // SAFETY: by the caller's promise.
                unsafe { $body }
            }

            #[inline(always)]
            unsafe fn zero() -> [__m256; 2] {
                // SAFETY: by the caller's promise.
                unsafe { [_mm256_setzero_ps(); 2] }
            }

            #[inline(always)]
            unsafe fn add(w: $weights, x: &Activations, acc: [__m256; 2]) -> [__m256; 2] {
                // SAFETY: by the caller's promise.
                unsafe { $add(w, x, acc) }
            }

            #[inline(always)]
            unsafe fn total([a, b]: [__m256; 2]) -> f32 {
                // SAFETY: by the caller's promise.
                unsafe { sum(_mm256_add_ps(a, b)) }
            }

            #[inline(always)]
            unsafe fn totals(sums: [[__m256; 2]; TOGETHER]) -> [f32; TOGETHER] {
                // SAFETY: by the caller's promise; four floats are written.
                unsafe {
                    let [a, b, c, d] = sums.map(|[a, b]| _mm256_add_ps(a, b));
                    let mut out = [0.0; TOGETHER];
                    let all = halves_added(_mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d)));
                    _mm_storeu_ps(out.as_mut_ptr(), all);
                    out
                }
            }
        }
    )*};
}

const WHOLE: Order = Order::new(PLAIN.runs, Lanes::Fours);
const HALVED: Order = Order::new(HALVES, Lanes::Halves);

formats! {
    /// Rows of q2_k.
    Q2K[84]: WHOLE, Whole, add_whole;
    |blocks| -> [f32; 16] { units(blocks, 80, true) }
    |block, of, i| {
        let (a, b, both) = (load(block, 16), load(block, 48), sixteen(block, 0));
        let four = _mm_set1_epi8(15);
        Whole {
            q: [
                bits(a, 0, 3), bits(a, 2, 3), bits(a, 4, 3), bits(a, 6, 3),
                bits(b, 0, 3), bits(b, 2, 3), bits(b, 4, 3), bits(b, 6, 3),
            ],
            scale: spread(_mm256_cvtepu8_epi16(_mm_and_si128(both, four))),
            unit: of[2 * i],
            min: floats(_mm_and_si128(_mm_srli_epi16::<4>(both), four)),
            min_unit: of[2 * i + 1],
        }
    }

    /// Rows of q3_k.
    Q3K[110]: WHOLE, Whole, add_whole;
    |blocks| -> [f32; 16] { units(blocks, 108, false) }
    |block, of, i| {
        let (a, b, high) = (load(block, 32), load(block, 64), load(block, 0));
        let word = |at: usize| i32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        // Scales of six bits: four in the bytes of two words, two in a third word.
        let low = _mm_set1_epi64x(i64::from(word(96) as u32) | i64::from(word(100)) << 32);
        let low = _mm_and_si128(_mm_srlv_epi32(low, _mm_setr_epi32(0, 0, 4, 4)), _mm_set1_epi8(15));
        let two = _mm_srlv_epi32(_mm_set1_epi32(word(104)), _mm_setr_epi32(0, 2, 4, 6));
        let two = _mm_slli_epi32::<4>(_mm_and_si128(two, _mm_set1_epi8(3)));
        let scales = _mm_sub_epi8(_mm_or_si128(low, two), _mm_set1_epi8(32));
        Whole {
            q: [
                _mm256_or_si256(bits(a, 0, 3), bits(high, -2, 4)),
                _mm256_or_si256(bits(a, 2, 3), bits(high, -1, 4)),
                _mm256_or_si256(bits(a, 4, 3), bits(high, 0, 4)),
                _mm256_or_si256(bits(a, 6, 3), bits(high, 1, 4)),
                _mm256_or_si256(bits(b, 0, 3), bits(high, 2, 4)),
                _mm256_or_si256(bits(b, 2, 3), bits(high, 3, 4)),
                _mm256_or_si256(bits(b, 4, 3), bits(high, 4, 4)),
                _mm256_or_si256(bits(b, 6, 3), bits(high, 5, 4)),
            ],
            scale: spread(_mm256_cvtepi8_epi16(scales)),
            unit: of[2 * i],
            min: signed_floats(scales),
            min_unit: 4.0 * of[2 * i],
        }
    }

    /// Rows of q4_k.
    Q4K[144]: WHOLE, Whole, add_whole;
    |blocks| -> [f32; 16] { units(blocks, 0, true) }
    |block, of, i| {
        let four = [load(block, 16), load(block, 48), load(block, 80), load(block, 112)];
        let q = std::array::from_fn(|v| bits(four[v / 2], v as i32 % 2 * 4, 15));
        whole_k4(block, q, of, i)
    }

    /// Rows of q5_k.
    Q5K[176]: WHOLE, Whole, add_whole;
    |blocks| -> [f32; 16] { units(blocks, 0, true) }
    |block, of, i| {
        let four = [load(block, 48), load(block, 80), load(block, 112), load(block, 144)];
        let high = load(block, 16);
        let q = std::array::from_fn(|v| {
            _mm256_or_si256(bits(four[v / 2], v as i32 % 2 * 4, 15), bits(high, v as i32 - 4, 16))
        });
        whole_k4(block, q, of, i)
    }

    /// Rows of q6_k.
    Q6K[210]: WHOLE, Whole, add_whole;
    |blocks| -> [f32; 16] { units(blocks, 208, false) }
    |block, of, i| {
        let scales = sixteen(block, 192);
        let q = std::array::from_fn(|v| {
            let (low, high) = (load(block, 64 * (v / 4) + 32 * (v % 2)), load(block, 128 + 32 * (v / 4)));
            _mm256_or_si256(bits(low, v as i32 % 4 / 2 * 4, 15), bits(high, 2 * (v as i32 % 4) - 4, 0x30))
        });
        Whole {
            q,
            scale: spread(_mm256_cvtepi8_epi16(scales)),
            unit: of[2 * i],
            min: signed_floats(scales),
            min_unit: 32.0 * of[2 * i],
        }
    }

    /// Rows of q4_0.
    Q4_0[144]: HALVED, Halves, add_halves::<false>;
    |_blocks| -> () {}
    |block, _of, _i| {
        Halves { q: halves(block, 18, 2), scale: half_scales(block), unit: 1.0 }
    }

    /// Rows of iq4_nl.
    Iq4Nl[144]: HALVED, Halves, add_halves::<true>;
    |_blocks| -> () {}
    |block, _of, _i| {
        let q = look_up(halves(block, 18, 2), tables::IQ4.map(|v| v as u8));
        Halves { q, scale: half_scales(block), unit: 1.0 }
    }

    /// Rows of mxfp4.
    Mxfp4[136]: HALVED, Halves, add_halves::<false>;
    |_blocks| -> () {}
    |block, _of, _i| {
        let q = look_up(halves(block, 17, 1), E2M1);
        Halves { q, scale: e8m0_scales(block), unit: 1.0 }
    }

    /// Rows of iq4_xs.
    Iq4Xs[136]: HALVED, Halves, add_halves::<true>;
    |blocks| -> [f32; 16] { units(blocks, 0, false) }
    |block, of, i| {
        let word = |at: usize| i32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        // Eight scales: four bits of the second word, two of the upper half of the first.
        let low = _mm256_srlv_epi32(_mm256_set1_epi32(word(4)), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
        let low = _mm256_and_si256(low, _mm256_set1_epi32(15));
        let high = _mm256_srlv_epi32(_mm256_set1_epi32(word(0)), _mm256_setr_epi32(16, 18, 20, 22, 24, 26, 28, 30));
        let high = _mm256_slli_epi32::<4>(_mm256_and_si256(high, _mm256_set1_epi32(3)));
        let scales = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32)));
        let q = look_up(halves(block, 16, 8), tables::IQ4.map(|v| v as u8));
        Halves { q, scale: spread_floats(scales), unit: of[2 * i] }
    }

    /// Rows of iq2_xxs.
    Iq2Xxs[66]: WHOLE, Grid<66>, grids::add_iq2_xxs;
    |_blocks| -> () {}
    |block, _of, _i| { grids::iq2_xxs(block) }

    /// Rows of iq2_xs.
    Iq2Xs[74]: WHOLE, Grid<74>, grids::add_iq2_xs;
    |_blocks| -> () {}
    |block, _of, _i| { grids::iq2_xs(block) }

    /// Rows of iq2_s.
    Iq2S[82]: WHOLE, Grid<82>, grids::add_iq2_s;
    |_blocks| -> () {}
    |block, _of, _i| { grids::iq2_s(block) }

    /// Rows of iq3_xxs.
    Iq3Xxs[98]: WHOLE, Grid<98>, grids::add_iq3_xxs;
    |_blocks| -> () {}
    |block, _of, _i| { grids::iq3_xxs(block) }

    /// Rows of iq3_s.
    Iq3S[110]: WHOLE, Grid<110>, grids::add_iq3_s;
    |_blocks| -> () {}
    |block, _of, _i| { grids::iq3_s(block) }
}
