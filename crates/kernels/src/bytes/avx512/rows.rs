//! Few tokens with AVX-512. What the number that stands for zero adds is already in what sums begin with.

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::read::{E2M1, IQ4};
use super::super::rows::{self, GROUP, HALVES, PAIRS, QUARTERS, Rows, TOGETHER};
use super::super::{Activations, Lanes, Order, PLAIN};
use super::columns::{self, Columns, add_columns};
use super::{Registers, pair, shift};

/// The products of a row with each of the tokens, whose chunks are `stride` apart.
#[target_feature(enable = "f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn row<R: Rows<BYTES>, const BYTES: usize>(row: &[u8], x: &[Activations], stride: usize, out: &mut [f32]) {
    // SAFETY: this function runs only where its features exist.
    unsafe { rows::row::<R, BYTES>(row, x, stride, out) }
}

/// The products of rows of `row_bytes` with one token.
#[target_feature(enable = "f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn one<R: Rows<BYTES>, const BYTES: usize>(
    rows: &[u8],
    row_bytes: usize,
    x: &[Activations],
    out: &mut [f32],
) {
    // SAFETY: this function runs only where its features exist.
    unsafe { rows::one::<R, BYTES>(rows, row_bytes, x, out) }
}

/// 256 weights whose scales are whole numbers in units of `unit`.
#[derive(Clone, Copy)]
pub(super) struct Whole {
    q: [__m512i; 4],
    /// What the sums of the first two vectors, packed in 16 bits, are multiplied with, and those of the last two.
    scale: [__m512i; 2],
    unit: __m512,
    /// What each 16 weights have subtracted, in units of `min_unit`.
    min: __m512,
    min_unit: __m512,
}

/// 256 weights, 32 of which share a scale and lie in 128 bits each of two vectors.
#[derive(Clone, Copy)]
pub(super) struct Halves {
    q: [__m512i; 4],
    /// The scales of the first two vectors, and of the last two.
    scale: [__m512; 2],
    /// What all scales are multiplied with.
    unit: __m512,
}

/// Where the sums of two vectors, packed in 16 bits, find their scales among 16 bytes: four sums have one, which becomes byte
/// `place` of 16 bits. As the upper one it keeps its sign; what it multiplies is at most 32·127·4 (q6_k), and four such products,
/// 2.13e9, still fit 32 bits.
const fn spread(runs: [u8; 16], vectors: usize, shift: u32, place: usize) -> [u8; 64] {
    let mut index = [0x80; 64];
    let mut i = 0;
    while i < 32 {
        let (quarter, second) = (i / 8, i / 4 % 2);
        index[2 * i + place] = runs[4 * (vectors + second) + quarter] >> shift;
        i += 1;
    }
    index
}

/// What undoes that [`spread`] makes scales the upper of two bytes.
const UPPER: f32 = 1.0 / 256.0;

vnni! {
    /// The products of four vectors of weights with activations. `ZERO`: sums begin with what the number for zero adds.
    fn dots<const ZERO: bool>(q: [__m512i; 4], x: &Activations) -> [__m512i; 4] {
        let mut dots = [_mm512_setzero_si512(); 4];
        for (i, (dots, q)) in dots.iter_mut().zip(q).enumerate() {
            // SAFETY: the loads lie in the chunk, which is aligned to 64 bytes.
            unsafe {
                if ZERO {
                    *dots = _mm512_load_si512(x.start.as_ptr().add(16 * i).cast());
                }
                *dots = _mm512_dpbusd_epi32(*dots, q, _mm512_load_si512(x.q.as_ptr().add(64 * i).cast()));
            }
        }
        dots
    }

    /// Adds the products of weights with whole scales. `ZERO`: a number stands for zero; else there are minima.
    fn add_whole<const ZERO: bool>(w: Whole, x: &Activations, acc: __m512) -> __m512 {
        let [a, b, c, d] = dots::<ZERO>(w.q, x);
        let sums = _mm512_madd_epi16(_mm512_packs_epi32(a, b), w.scale[0]);
        let sums = _mm512_cvtepi32_ps(_mm512_dpwssd_epi32(sums, _mm512_packs_epi32(c, d), w.scale[1]));
        // SAFETY: 16 floats, aligned.
        let (scale, sum) = unsafe { (_mm512_load_ps(x.scale.as_ptr()), _mm512_load_ps(x.sum.as_ptr())) };
        let acc = _mm512_fmadd_ps(_mm512_mul_ps(sums, scale), w.unit, acc);
        if ZERO { acc } else { _mm512_fnmadd_ps(_mm512_mul_ps(w.min, sum), w.min_unit, acc) }
    }

    /// Adds the products of weights in halves. `UNIT`: scales are in units of `unit`.
    fn add_halves<const UNIT: bool>(w: Halves, x: &Activations, acc: __m512) -> __m512 {
        // SAFETY: the loads lie in the chunk, which is aligned to 64 bytes.
        let dots = |i: usize| unsafe {
            let part = |v: usize| _mm512_load_si512(x.q.as_ptr().add(64 * v).cast());
            let dots = _mm512_load_si512(x.start.as_ptr().add(32 * i).cast());
            let dots = _mm512_dpbusd_epi32(dots, w.q[2 * i], part(2 * i));
            _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(dots, w.q[2 * i + 1], part(2 * i + 1)))
        };
        let sums = _mm512_fmadd_ps(dots(1), w.scale[1], _mm512_mul_ps(dots(0), w.scale[0]));
        // SAFETY: as above.
        let scale = unsafe { _mm512_load_ps(x.scale.as_ptr()) };
        if UNIT {
            _mm512_fmadd_ps(_mm512_mul_ps(sums, scale), w.unit, acc)
        } else {
            _mm512_fmadd_ps(sums, scale, acc)
        }
    }

    /// Adds the products of weights as they are read for panels.
    pub(super) fn add_registers<const ZERO: bool>(w: Registers, x: &Activations, acc: __m512) -> __m512 {
        let each = |i: i32| {
            let quarter = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
            _mm512_permutexvar_ps(_mm512_add_epi32(quarter, _mm512_set1_epi32(4 * i)), w.scale)
        };
        let [a, b, c, d] = dots::<ZERO>(w.q, x).map(|dots| _mm512_cvtepi32_ps(dots));
        let first = _mm512_fmadd_ps(b, each(1), _mm512_mul_ps(a, each(0)));
        let second = _mm512_fmadd_ps(d, each(3), _mm512_mul_ps(c, each(2)));
        // SAFETY: 16 floats, aligned.
        let (scale, sum) = unsafe { (_mm512_load_ps(x.scale.as_ptr()), _mm512_load_ps(x.sum.as_ptr())) };
        let acc = _mm512_fmadd_ps(_mm512_add_ps(first, second), scale, acc);
        if ZERO { acc } else { _mm512_fmadd_ps(w.min, sum, acc) }
    }

    /// Widens pairs of binary16 numbers, the first of which are the low halves of words, and multiplies them with two factors.
    fn widen(words: [u32; GROUP], factors: [f32; 2]) -> [f32; 2 * GROUP] {
        let mut wide = [0.0; 2 * GROUP];
        // SAFETY: the same bits; 16 numbers are written.
        unsafe {
            let words = _mm512_cvtph_ps(std::mem::transmute::<[u32; GROUP], __m256i>(words));
            let [a, b] = factors;
            let factors = _mm512_setr_ps(a, b, a, b, a, b, a, b, a, b, a, b, a, b, a, b);
            _mm512_storeu_ps(wide.as_mut_ptr(), _mm512_mul_ps(words, factors));
        }
        wide
    }

    /// A number in all lanes, from memory, which costs no unit that computes. The compiler would rather take it from a register
    /// that it remembers, in two or three steps.
    fn each(x: &f32) -> __m512 {
        let all;
        // SAFETY: reads four bytes.
        unsafe { asm!("vbroadcastss {}, dword ptr [{}]", out(zmm_reg) all, in(reg) x, options(pure, readonly, nostack, preserves_flags)) };
        all
    }

    /// Four times the same 16 bytes, from memory, for the same reason.
    fn four_times(block: &[u8], at: usize) -> __m512i {
        let bytes = &block[at..at + 16];
        let all;
        // SAFETY: reads as many bytes as were just taken.
        unsafe { asm!("vbroadcasti32x4 {}, xmmword ptr [{}]", out(zmm_reg) all, in(reg) bytes.as_ptr(), options(pure, readonly, nostack, preserves_flags)) };
        all
    }

    /// 64 bytes.
    pub(super) fn load(block: &[u8], at: usize) -> __m512i {
        let bytes = &block[at..at + 64];
        // SAFETY: as many were just taken.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    /// 16 bytes.
    pub(super) fn sixteen(block: &[u8], at: usize) -> __m128i {
        let bytes = &block[at..at + 16];
        // SAFETY: as many were just taken.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    /// The low and high halves of two vectors of bytes.
    fn halves_of(a: __m512i, b: __m512i) -> [__m512i; 4] {
        let four = |x: __m512i| _mm512_and_si512(x, _mm512_set1_epi8(15));
        [four(a), four(_mm512_srli_epi16::<4>(a)), four(b), four(_mm512_srli_epi16::<4>(b))]
    }

    /// Scales of eight bits, four times the same 16, as two vectors of sums want them.
    fn spread_scales(scales: __m512i, index: &[[u8; 64]; 2]) -> [__m512i; 2] {
        // SAFETY: 64 bytes each.
        let index = |i: usize| unsafe { _mm512_loadu_si512(index[i].as_ptr().cast()) };
        [_mm512_shuffle_epi8(scales, index(0)), _mm512_shuffle_epi8(scales, index(1))]
    }

    /// The sum of all lanes, in the order of [`totals`].
    pub(super) fn total(x: __m512) -> f32 {
        let x = _mm512_add_ps(x, _mm512_permute_ps::<0b01_00_11_10>(x));
        _mm_cvtss_f32(quarters(_mm512_add_ps(x, _mm512_permute_ps::<0b10_11_00_01>(x))))
    }

    /// The sums of all lanes of four vectors.
    pub(super) fn totals(x: [__m512; TOGETHER]) -> [f32; TOGETHER] {
        let [a, b, c, d] = x;
        let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
        let (low, high) = (_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd));
        let mut out = [0.0; TOGETHER];
        let sums = quarters(_mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high)));
        // SAFETY: four floats.
        unsafe { _mm_storeu_ps(out.as_mut_ptr(), sums) };
        out
    }

    /// The sum of four quarters of a vector.
    fn quarters(x: __m512) -> __m128 {
        let x = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
        _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x))
    }

    /// Eight scales, each in four lanes of two vectors.
    fn spread_floats(scales: __m256) -> [__m512; 2] {
        let scales = _mm512_castps256_ps512(scales);
        let low = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        let high = _mm512_setr_epi32(4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7);
        [_mm512_permutexvar_ps(low, scales), _mm512_permutexvar_ps(high, scales)]
    }

    /// `a`, and where a bit of the mask is set, `b` too.
    fn or_masked(a: __m512i, b: __m512i, mask: i8) -> __m512i {
        _mm512_ternarylogic_epi32::<0xf8>(a, b, _mm512_set1_epi8(mask))
    }

    /// The eight scales of a q4_k or q5_k block and its eight minima, in bytes.
    fn scales_k4(block: &[u8]) -> __m128i {
        let words = sixteen(block, 0);
        // The first four scales lie in six bits of a word, the others in four of the third word and two that are left.
        let low = _mm_srlv_epi32(_mm_shuffle_epi32::<0b11_10_11_01>(words), _mm_setr_epi32(0, 0, 0, 4));
        let low = _mm_and_si128(low, _mm_setr_epi32(0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f));
        let high = _mm_srli_epi32::<2>(_mm_shuffle_epi32::<0b10_10_01_01>(words));
        _mm_ternarylogic_epi32::<0xf8>(low, high, _mm_setr_epi32(0, 0x3030_3030, 0, 0x3030_3030))
    }

    /// The block of a q4_k or q5_k, given its numbers.
    fn whole_k4(block: &[u8], q: [__m512i; 4], units: &[f32; 16], i: usize) -> Whole {
        const INDEX: [[u8; 64]; 2] = [spread(PAIRS, 0, 1, 1), spread(PAIRS, 2, 1, 1)];
        let scales = scales_k4(block);
        let minima = _mm_shuffle_epi8(scales, _mm_setr_epi8(8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15));
        Whole {
            q,
            scale: spread_scales(_mm512_broadcast_i32x4(scales), &INDEX),
            unit: each(&units[2 * i]),
            min: _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(minima)),
            min_unit: each(&units[2 * i + 1]),
        }
    }
}

/// The units of blocks that have a binary16 scale at byte `at` and `AND`, perhaps, a minimum after it, times `factors`.
#[inline(always)]
unsafe fn units<const BYTES: usize>(
    blocks: &[[u8; BYTES]],
    at: usize,
    and: bool,
    factors: [f32; 2],
) -> [f32; 2 * GROUP] {
    // SAFETY: only called where AVX-512 exists.
    unsafe { widen(rows::words(blocks, at, and), factors) }
}

/// What is read of some q3_k blocks at once.
pub(super) struct Scaled {
    units: [f32; 2 * GROUP],
    scales: Scales,
}

/// 16 scales of each block.
type Scales = [[u8; 16]; GROUP];

/// The scales of q3_k blocks, those of the first two vectors times four.
#[inline(always)]
unsafe fn scales_q3k(blocks: &[[u8; 110]]) -> Scales {
    // SAFETY: only called where AVX-512 exists.
    unsafe {
        // The last 16 bytes of each block.
        let end = |i: usize| sixteen(&blocks[i], 94);
        let zero = _mm_setzero_si128();
        let ends = match blocks.len() {
            GROUP.. => [four(end(0), end(1), end(2), end(3)), four(end(4), end(5), end(6), end(7))],
            count => {
                let end = |i: usize| if i < count { end(i) } else { zero };
                [four(end(0), end(1), end(2), end(3)), four(end(4), end(5), end(6), zero)]
            }
        };
        let mut scales = [[0; 16]; GROUP];
        for (end, to) in ends.into_iter().zip(scales.as_chunks_mut::<4>().0) {
            let lanes = |x: __m128i| _mm512_broadcast_i32x4(x);
            // Six bits each: four in the halves of the first eight bytes, two in the last four.
            let low = _mm512_shuffle_epi8(end, lanes(_mm_setr_epi8(2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9)));
            let low = _mm512_rorv_epi32(low, lanes(_mm_setr_epi32(30, 0, 2, 4)));
            let two = _mm512_shuffle_epi8(end, lanes(_mm_set1_epi32(0x0d0c_0b0a)));
            let two = _mm512_rorv_epi32(two, lanes(_mm_setr_epi32(26, 30, 30, 2)));
            let two = _mm512_and_si512(two, lanes(_mm_set1_epi64x(0x3030_3030_c0c0_c0c0)));
            let all = _mm512_ternarylogic_epi32::<0xf8>(two, low, lanes(_mm_set1_epi64x(0x0f0f_0f0f_3c3c_3c3c)));
            let all = _mm512_sub_epi8(all, lanes(_mm_set1_epi64x(0x2020_2020_8080_8080_u64 as i64)));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), all);
        }
        scales
    }
}

/// Four times 16 bytes.
#[inline(always)]
unsafe fn four(a: __m128i, b: __m128i, c: __m128i, d: __m128i) -> __m512i {
    // SAFETY: only called where AVX-512 exists.
    unsafe {
        let x = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(a), b);
        _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(x, c), d)
    }
}

/// The 16 bits that each of eight runs of a block begins with, which lie `BYTES / 8` bytes apart; where that is odd, every
/// second run begins with their upper half.
#[inline(always)]
unsafe fn first_words<const BYTES: usize>(block: &[u8; BYTES]) -> __m128i {
    // SAFETY: only called where AVX-512 exists.
    unsafe {
        let place = |i: usize| (i * (BYTES / 8) / 2) as i16;
        let places = _mm_setr_epi16(place(0), place(1), place(2), place(3), place(4), place(5), place(6), place(7));
        let (low, high) = (load(block, 0), load(block, 64));
        _mm512_castsi512_si128(_mm512_permutex2var_epi16(low, _mm512_castsi128_si512(places), high))
    }
}

/// The binary16 scales of eight runs of a block, each in four lanes of two vectors.
#[inline(always)]
unsafe fn half_scales<const BYTES: usize>(block: &[u8; BYTES]) -> [__m512; 2] {
    // SAFETY: only called where AVX-512 exists.
    unsafe { spread_floats(_mm256_cvtph_ps(first_words(block))) }
}

/// The halves of the scales of eight runs of an mxfp4 block, each in four lanes of two vectors: in vectors what
/// `tables::mxfp4_half_scale` says of one, of which the two smallest are subnormal.
#[inline(always)]
unsafe fn e8m0_scales(block: &[u8; 136]) -> [__m512; 2] {
    // SAFETY: only called where AVX-512 exists.
    unsafe {
        let upper = _mm_setr_epi16(0, 8, 0, 8, 0, 8, 0, 8);
        let bytes = _mm_and_si128(_mm_srlv_epi16(first_words(block), upper), _mm_set1_epi16(255));
        let e = _mm256_cvtepu16_epi32(bytes);
        let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e, _mm256_set1_epi32(1)));
        let subnormal = _mm256_cmplt_epu32_mask(e, _mm256_set1_epi32(2));
        let bits = _mm256_mask_sllv_epi32(normal, subnormal, _mm256_set1_epi32(0x0020_0000), e);
        spread_floats(_mm256_castsi256_ps(bits))
    }
}

/// 16 bytes at `at` of each of eight runs as two vectors.
#[inline(always)]
unsafe fn runs<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> [__m512i; 2] {
    // SAFETY: only called where AVX-512 exists.
    unsafe {
        let run = |i: usize| sixteen(block, i * (BYTES / 8) + at);
        [four(run(0), run(1), run(2), run(3)), four(run(4), run(5), run(6), run(7))]
    }
}

/// Looks numbers of four bits up.
#[inline(always)]
unsafe fn look_up(q: [__m512i; 4], table: &[u8; 16]) -> [__m512i; 4] {
    // SAFETY: only called where AVX-512 exists.
    unsafe {
        let table = _mm512_broadcast_i32x4(sixteen(table, 0));
        q.map(|q| _mm512_shuffle_epi8(table, q))
    }
}

/// Makes [`Rows`] of formats.
macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident[$bytes:literal]: $order:expr, $weights:ty, $add:expr;
        |$blocks:ident| -> $units:ty $read:block
        |$block:ident, $of:ident, $i:ident| $body:block)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl Rows<$bytes> for $name {
            const ORDER: Order = $order;
            type Units = $units;
            type Weights = $weights;
            type Sums = __m512;

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
            unsafe fn add(w: $weights, x: &Activations, acc: __m512) -> __m512 {
                // SAFETY: by the caller's promise.
                unsafe { $add(w, x, acc) }
            }

            #[inline(always)]
            unsafe fn zero() -> __m512 {
                // SAFETY: by the caller's promise.
                unsafe { _mm512_setzero_ps() }
            }

            #[inline(always)]
            unsafe fn total(acc: __m512) -> f32 {
                // SAFETY: by the caller's promise.
                unsafe { total(acc) }
            }

            #[inline(always)]
            unsafe fn totals(acc: [__m512; TOGETHER]) -> [f32; TOGETHER] {
                // SAFETY: by the caller's promise.
                unsafe { totals(acc) }
            }
        }
    )*};
}

const fn whole(runs: [u8; 16]) -> Order {
    Order::new(runs, Lanes::Eights)
}

const HALVED: Order = Order::new(HALVES, Lanes::Halves);

const fn in_columns(within: [u8; 16]) -> Order {
    Order::new(PLAIN.runs, Lanes::Columns(within))
}

const QUARTER_SCALES: [[u8; 64]; 2] = [spread(QUARTERS, 0, 0, 1), spread(QUARTERS, 2, 0, 1)];

formats! {
    /// Rows of q2_k. Numbers stay where they lie in bytes as far as their sums fit 16 bits: those of three vectors are 4, 16 and
    /// 4 times as large, and scales make up for it.
    Q2K[84]: whole(QUARTERS), Whole, add_whole::<false>;
    |blocks| -> [f32; 16] { units(blocks, 80, true, [1.0 / 16.0; 2]) }
    |block, units, i| {
        const INDEX: [[u8; 64]; 2] = [spread(QUARTERS, 0, 0, 0), spread(QUARTERS, 2, 0, 0)];
        let (q, both) = (load(block, 16), sixteen(block, 0));
        let and = |q: __m512i, bits: i8| _mm512_and_si512(q, _mm512_set1_epi8(bits));
        // Two scales of the first vector, two of the second, and so on.
        let scales = and(four_times(block, 0), 15);
        let scales = _mm512_sllv_epi16(scales, _mm512_set1_epi64(0x0002_0000_0002_0004));
        Whole {
            q: [and(q, 3), and(q, 12), and(q, 48), and(_mm512_srli_epi16::<4>(q), 12)],
            scale: spread_scales(scales, &INDEX),
            unit: each(&units[2 * i]),
            min: _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_and_si128(both, _mm_set1_epi8(-16)))),
            min_unit: each(&units[2 * i + 1]),
        }
    }

    /// Rows of q3_k. Numbers of the last two vectors stay two bits higher than they should be, and scales make up for it.
    Q3K[110]: Order { steps: [1, 1, 4, 4], ..whole(QUARTERS) }, Whole, add_whole::<true>;
    |blocks| -> Scaled { Scaled { units: units(blocks, 108, false, [UPPER / 4.0; 2]), scales: scales_q3k(blocks) } }
    |block, of, i| {
        let (q, three, twelve) = (load(block, 32), _mm512_set1_epi8(3), _mm512_set1_epi8(12));
        let (two, four) = (_mm512_srli_epi16::<2>(q), _mm512_srli_epi16::<4>(q));
        // Four bits of the first 128 weights, those of the others above them: that of the second number becomes its third
        // bit here, and that of the last; below that of the first, and of the last but one.
        let turn = _mm512_inserti64x4::<1>(_mm512_set1_epi32(31), _mm256_set1_epi32(3));
        let odd = _mm512_rorv_epi32(pair(block, 0), turn);
        let even = _mm512_add_epi8(odd, odd);
        Whole {
            q: [
                or_masked(_mm512_and_si512(q, three), even, 4),
                or_masked(_mm512_and_si512(two, three), odd, 4),
                or_masked(_mm512_and_si512(two, twelve), even, 16),
                or_masked(_mm512_and_si512(four, twelve), odd, 16),
            ],
            scale: spread_scales(four_times(&of.scales[i], 0), &QUARTER_SCALES),
            unit: each(&of.units[2 * i]),
            min: _mm512_setzero_ps(),
            min_unit: _mm512_setzero_ps(),
        }
    }

    /// Rows of q4_k.
    Q4K[144]: whole(PAIRS), Whole, add_whole::<false>;
    |blocks| -> [f32; 16] { units(blocks, 0, true, [UPPER, 1.0]) }
    |block, units, i| { whole_k4(block, halves_of(load(block, 16), load(block, 80)), units, i) }

    /// Rows of q5_k.
    Q5K[176]: whole(PAIRS), Whole, add_whole::<false>;
    |blocks| -> [f32; 16] { units(blocks, 0, true, [UPPER, 1.0]) }
    |block, units, i| {
        let [a, b, c, d] = halves_of(load(block, 48), load(block, 112));
        // The fifth bits of the first two runs of 32 weights in each half; those of the next runs follow.
        let high = shift(pair(block, 16), 0, 2);
        let q = [
            or_masked(a, _mm512_slli_epi16::<4>(high), 16),
            or_masked(b, _mm512_slli_epi16::<3>(high), 16),
            or_masked(c, high, 16),
            or_masked(d, _mm512_srli_epi16::<1>(high), 16),
        ];
        whole_k4(block, q, units, i)
    }

    /// Rows of q6_k.
    Q6K[210]: whole(QUARTERS), Whole, add_whole::<true>;
    |blocks| -> [f32; 16] { units(blocks, 208, false, [UPPER; 2]) }
    |block, units, i| {
        let both = |at: usize| {
            let (low, high) = (&block[at..at + 32], &block[at + 64..at + 96]);
            let low = _mm512_castsi256_si512(_mm256_loadu_si256(low.as_ptr().cast()));
            _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(high.as_ptr().cast()))
        };
        let ([a, c, b, d], high) = (halves_of(both(0), both(32)), load(block, 128));
        Whole {
            q: [
                or_masked(a, _mm512_slli_epi16::<4>(high), 0x30),
                or_masked(b, _mm512_slli_epi16::<2>(high), 0x30),
                or_masked(c, high, 0x30),
                or_masked(d, _mm512_srli_epi16::<2>(high), 0x30),
            ],
            scale: spread_scales(four_times(block, 192), &QUARTER_SCALES),
            unit: each(&units[2 * i]),
            min: _mm512_setzero_ps(),
            min_unit: _mm512_setzero_ps(),
        }
    }

    /// Rows of q4_0.
    Q4_0[144]: HALVED, Halves, add_halves::<false>;
    |_blocks| -> () {}
    |block, _units, _i| {
        let [a, b] = runs(block, 2);
        Halves { q: halves_of(a, b), scale: half_scales(block), unit: _mm512_set1_ps(1.0) }
    }

    /// Rows of iq4_nl.
    Iq4Nl[144]: HALVED, Halves, add_halves::<false>;
    |_blocks| -> () {}
    |block, _units, _i| {
        let [a, b] = runs(block, 2);
        Halves { q: look_up(halves_of(a, b), &IQ4), scale: half_scales(block), unit: _mm512_set1_ps(1.0) }
    }

    /// Rows of mxfp4.
    Mxfp4[136]: HALVED, Halves, add_halves::<false>;
    |_blocks| -> () {}
    |block, _units, _i| {
        let [a, b] = runs(block, 1);
        Halves { q: look_up(halves_of(a, b), &E2M1), scale: e8m0_scales(block), unit: _mm512_set1_ps(1.0) }
    }

    /// Rows of iq4_xs.
    Iq4Xs[136]: HALVED, Halves, add_halves::<true>;
    |blocks| -> [f32; 16] { units(blocks, 0, false, [1.0; 2]) }
    |block, units, i| {
        let word = |at: usize| i32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        // Eight scales: four bits of the second word, two of the upper half of the first.
        let low = _mm256_srlv_epi32(_mm256_set1_epi32(word(4)), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
        let high = _mm256_rorv_epi32(_mm256_set1_epi32(word(0)), _mm256_setr_epi32(12, 14, 16, 18, 20, 22, 24, 26));
        let high = _mm256_and_si256(high, _mm256_set1_epi32(0x30));
        let scales = _mm256_ternarylogic_epi32::<0xf8>(high, low, _mm256_set1_epi32(15));
        let scales = _mm256_cvtepi32_ps(_mm256_sub_epi32(scales, _mm256_set1_epi32(32)));
        let q = look_up(halves_of(load(block, 8), load(block, 72)), &IQ4);
        Halves { q, scale: spread_floats(scales), unit: each(&units[2 * i]) }
    }

    /// Rows of iq2_xxs.
    Iq2Xxs[66]: in_columns(columns::EIGHTS), Columns, add_columns;
    |_blocks| -> () {}
    |block, _of, _i| { columns::iq2_xxs(block) }

    /// Rows of iq2_xs.
    Iq2Xs[74]: in_columns(columns::EIGHTS), Columns, add_columns;
    |_blocks| -> () {}
    |block, _of, _i| { columns::iq2_xs(block) }

    /// Rows of iq2_s.
    Iq2S[82]: in_columns(columns::EIGHTS), Columns, add_columns;
    |_blocks| -> () {}
    |block, _of, _i| { columns::iq2_s(block) }

    /// Rows of iq3_xxs.
    Iq3Xxs[98]: in_columns(columns::FOURS), Columns, add_columns;
    |_blocks| -> () {}
    |block, _of, _i| { columns::iq3_xxs(block) }

    /// Rows of iq3_s.
    Iq3S[110]: in_columns(columns::FOURS), Columns, add_columns;
    |_blocks| -> () {}
    |block, _of, _i| { columns::iq3_s(block) }
}
