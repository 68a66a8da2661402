//! Reading 256 weights of each block format with AVX-512.

use std::arch::x86_64::*;

use imaginal_numeric::{Format, tables};

use super::avx2::Avx2;
use super::read::{self, E2M1, IQ4};
use super::rows::{Rows, TOGETHER};
use super::{Activations, CHUNK, Kernel, Lanes, Order, PLAIN, Weights};

/// Defines functions compiled with AVX-512-VNNI.
macro_rules! vnni {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident $(<const $c:ident: $of:ty>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$doc])*
        #[inline]
        #[target_feature(enable = "f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        $vis fn $name $(<const $c: $of>)? ($($arg: $ty),*) $(-> $ret)? $body
    )*};
}

// After the macro, which they use.
mod activations;
mod columns;
mod grids;
mod rows;

pub(super) use self::activations::quantize;

/// 256 weights in registers.
#[derive(Clone, Copy)]
struct Registers {
    q: [__m512i; 4],
    scale: __m512,
    min: __m512,
}

/// Rounds the weights of a chunk's bytes and returns their scale. Unsafe to call without AVX-512-VNNI.
pub(super) type Round = unsafe fn(&[u8], &mut [i8; CHUNK]) -> f32;

/// Defines the kernel of each format from what reads 256 of its weights, `$bytes` long, and what multiplies rows.
macro_rules! kernels {
    ($(fn $name:ident / $format:ident($block:ident: [$bytes:literal]) $(by $rows:ident)? $body:block)*) => {
        /// The kernel of a format.
        pub(super) fn kernel(format: Format) -> Option<Kernel> {
            Some(match format {
                $(Format::$format => {
                    kernels!(@use $name $($rows)?);
                    Kernel {
                        read: $name::read,
                        row: rows::row::<Of, $bytes>,
                        one: Some(rows::one::<Of, $bytes>),
                        order: &<Of as Rows<$bytes>>::ORDER,
                    }
                })*
                _ => return None,
            })
        }

        /// What rounds 256 weights of a format to bytes.
        pub(super) fn rounding(format: Format) -> Option<Round> {
            Some(match format {
                $(Format::$format => $name::rounded,)*
                _ => return None,
            })
        }
        $(mod $name {
            use super::*;

            #[inline]
            #[target_feature(enable = "f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
            fn registers($block: &[u8; $bytes]) -> Registers $body

            #[target_feature(enable = "f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
            pub(super) fn read(block: &[u8], w: &mut Weights) {
                store(registers(read::block_of(block)), w);
            }

            #[target_feature(enable = "f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
            pub(super) fn rounded(block: &[u8], to: &mut [i8; CHUNK]) -> f32 {
                const LARGEST: u8 = match read::layout(Format::$format) {
                    Some(layout) => layout.largest,
                    None => 0,
                };
                // Scales of mxfp4 are powers of two: if its largest number, 12, is 96 steps, those of up to eight times
                // smaller scales are whole ones too.
                let steps = if matches!(Format::$format, Format::MXFP4) { 96.0 } else { 127.0 };
                round::<{ LARGEST as usize }>(registers(read::block_of(block)), steps, to)
            }

            kernels!(@rows $format [$bytes] $($rows)?);
        })*
    };
    (@use $name:ident $rows:ident) => { use rows::$rows as Of; };
    (@use $name:ident) => { use $name::AsRead as Of; };
    (@rows $format:ident [$bytes:literal] $rows:ident) => {};
    (@rows $format:ident [$bytes:literal]) => {
        /// Rows of weights as they are read for panels.
        pub(super) struct AsRead;

        impl AsRead {
            /// Whether a number stands for zero.
            const ZERO: bool = match read::layout(Format::$format) {
                Some(layout) => layout.zero.is_some(),
                None => false,
            };
        }

        impl Rows<$bytes> for AsRead {
            const ORDER: Order = Order::new(PLAIN.runs, Lanes::Fours);
            type Units = ();
            type Weights = Registers;
            type Sums = __m512;

            #[inline(always)]
            unsafe fn units(_: &[[u8; $bytes]]) {}

            #[inline(always)]
            unsafe fn weights(block: &[u8; $bytes], _: &(), _: usize) -> Registers {
                // SAFETY: by the caller's promise.
                unsafe { registers(block) }
            }

            #[inline(always)]
            unsafe fn add(w: Registers, x: &Activations, acc: __m512) -> __m512 {
                // SAFETY: by the caller's promise.
                unsafe { rows::add_registers::<{ Self::ZERO }>(w, x, acc) }
            }

            #[inline(always)]
            unsafe fn zero() -> __m512 {
                // SAFETY: by the caller's promise.
                unsafe { _mm512_setzero_ps() }
            }

            #[inline(always)]
            unsafe fn total(acc: __m512) -> f32 {
                // SAFETY: by the caller's promise.
                unsafe { rows::total(acc) }
            }

            #[inline(always)]
            unsafe fn totals(acc: [__m512; TOGETHER]) -> [f32; TOGETHER] {
                // SAFETY: by the caller's promise.
                unsafe { rows::totals(acc) }
            }
        }
    };
}

vnni! {
    /// The binary16 number at byte `at`.
    fn half(block: &[u8], at: usize) -> f32 {
        let bits = u16::from_le_bytes([block[at], block[at + 1]]);
        _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))))
    }

    /// Eight numbers, each twice.
    fn twice(x: __m256) -> __m512 {
        let each = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        _mm512_permutexvar_ps(each, _mm512_castps256_ps512(x))
    }

    /// The binary16 numbers at byte `AT` of eight blocks of `stride` bytes, each twice.
    fn halves(blocks: &[u8], stride: usize, at: usize) -> __m512 {
        let h = |i: usize| i16::from_le_bytes([blocks[i * stride + at], blocks[i * stride + at + 1]]);
        twice(_mm256_cvtph_ps(_mm_setr_epi16(h(0), h(1), h(2), h(3), h(4), h(5), h(6), h(7))))
    }

    /// Three times each byte, without what goes beyond eight bits.
    fn thrice(x: __m256i) -> __m256i {
        _mm256_add_epi8(_mm256_add_epi8(x, x), x)
    }

    /// The digit in front of each byte as a fraction to base 3.
    fn digits(x: __m512i) -> __m512i {
        let (one, some, all) = (_mm512_set1_epi8(1), _mm512_set1_epi8(85), _mm512_set1_epi8(170u8 as i8));
        let ones = _mm512_min_epu8(_mm512_subs_epu8(x, some), one);
        _mm512_add_epi8(ones, _mm512_min_epu8(_mm512_subs_epu8(x, all), one))
    }

    /// Digits to base 3, five to a byte.
    fn ternary(block: &[u8; 54]) -> Registers {
        // SAFETY: 32 bytes of 54.
        let a = unsafe { _mm256_loadu_si256(block.as_ptr().cast()) };
        let (b, both) = (thrice(a), |a, b| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b));
        let (c, d) = (thrice(b), thrice(thrice(b)));
        let e = thrice(d);
        // 16 bytes of five digits, and four of four.
        let f = rows::sixteen(block, 32);
        let g = _mm_cvtsi32_si128(i32::from_le_bytes([block[48], block[49], block[50], block[51]]));
        let fg = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(f), g);
        let fg3 = thrice(fg);
        let fg9 = thrice(fg3);
        let fg27 = thrice(fg9);
        let low = |x: __m256i| _mm256_castsi256_si128(x);
        let high = |x: __m256i| _mm256_extracti128_si256::<1>(x);
        let two = |a: __m128i, b: __m128i| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
        let last = _mm_unpacklo_epi64(
            _mm_unpacklo_epi32(high(fg), high(fg3)),
            _mm_unpacklo_epi32(high(fg9), high(fg27)),
        );
        let fives = two(low(fg9), low(fg27));
        let q = [both(a, b), both(c, d), both(e, two(low(fg), low(fg3))), both(fives, two(low(thrice(fg27)), last))];
        shifted(q.map(|x| digits(x)), _mm512_set1_ps(half(block, 52)), -1.0)
    }

    /// Two runs of 16 bytes as 64 numbers of four bits: the low halves of the first run, its high halves, then the second.
    fn nibbles(blocks: &[u8], first: usize, second: usize) -> __m512i {
        let (first, second) = (&blocks[first..first + 16], &blocks[second..second + 16]);
        // SAFETY: 16 bytes each.
        let (a, b) = unsafe {
            (_mm_loadu_si128(first.as_ptr().cast()), _mm_loadu_si128(second.as_ptr().cast()))
        };
        let both = _mm512_inserti64x4::<1>(
            _mm512_castsi256_si512(_mm256_broadcastsi128_si256(a)),
            _mm256_broadcastsi128_si256(b),
        );
        let shift = _mm512_inserti64x4::<1>(
            _mm512_castsi256_si512(_mm256_setr_epi64x(0, 0, 0x0004_0004_0004_0004, 0x0004_0004_0004_0004)),
            _mm256_setr_epi64x(0, 0, 0x0004_0004_0004_0004, 0x0004_0004_0004_0004),
        );
        _mm512_and_si512(_mm512_srlv_epi16(both, shift), _mm512_set1_epi8(15))
    }

    /// 32 bytes, twice.
    fn pair(block: &[u8], at: usize) -> __m512i {
        let bytes = &block[at..at + 32];
        // SAFETY: 32 bytes.
        _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) })
    }

    /// Two vectors of 32 bytes, all of one value each.
    fn split(low: i8, high: i8) -> __m512i {
        _mm512_inserti64x4::<1>(_mm512_set1_epi8(low), _mm256_set1_epi8(high))
    }

    /// Words shifted right: the lower half of the register by `low`, the upper by `high`.
    fn shift(x: __m512i, low: i16, high: i16) -> __m512i {
        _mm512_srlv_epi16(x, _mm512_inserti64x4::<1>(_mm512_set1_epi16(low), _mm256_set1_epi16(high)))
    }

    /// Four times 64 numbers of four bits from eight blocks of `stride` bytes, whose numbers begin at byte `at`.
    fn nibbles_of_eight(blocks: &[u8], stride: usize, at: usize) -> [__m512i; 4] {
        [
            nibbles(blocks, at, stride + at),
            nibbles(blocks, 2 * stride + at, 3 * stride + at),
            nibbles(blocks, 4 * stride + at, 5 * stride + at),
            nibbles(blocks, 6 * stride + at, 7 * stride + at),
        ]
    }

    /// Adds 16 where the bit of four bytes at `at` of each block is set.
    fn fifth_of_eight(q: [__m512i; 4], blocks: &[u8], stride: usize, at: usize) -> [__m512i; 4] {
        let bits = |i: usize| {
            let at = i * stride + at;
            u64::from(u32::from_le_bytes([blocks[at], blocks[at + 1], blocks[at + 2], blocks[at + 3]]))
        };
        let mut q = q;
        for (i, q) in q.iter_mut().enumerate() {
            let mask = bits(2 * i) | bits(2 * i + 1) << 32;
            *q = _mm512_mask_add_epi8(*q, mask, *q, _mm512_set1_epi8(16));
        }
        q
    }

    /// The weights whose scales are known and whose minima are a multiple of the scales.
    fn shifted(q: [__m512i; 4], scale: __m512, offset: f32) -> Registers {
        Registers { q, scale, min: _mm512_mul_ps(scale, _mm512_set1_ps(offset)) }
    }

    /// Looks numbers of four bits up.
    fn look_up(q: [__m512i; 4], table: &[u8; 16]) -> [__m512i; 4] {
        // SAFETY: 16 bytes.
        let table = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(table.as_ptr().cast()) });
        let mut q = q;
        for q in &mut q {
            *q = _mm512_shuffle_epi8(table, *q);
        }
        q
    }

    /// Stores what was read.
    fn store(from: Registers, w: &mut Weights) {
        // SAFETY: the fields have these sizes and are aligned to 64 bytes.
        unsafe {
            for (i, q) in from.q.into_iter().enumerate() {
                _mm512_store_si512(w.q.as_mut_ptr().add(64 * i).cast(), q);
            }
            _mm512_store_ps(w.scale.as_mut_ptr(), from.scale);
            _mm512_store_ps(w.min.as_mut_ptr(), from.min);
        }
    }

    /// Rounds 256 weights, whose numbers are `LARGEST` at most, to bytes, and returns their scale.
    ///
    /// The largest weight, which becomes `steps`, is taken to be what the scales allow, not what the numbers reach. Weights are computed in whole
    /// numbers of 16 bits, with as many bits behind the point as fit.
    fn round<const LARGEST: usize>(w: Registers, steps: f32, to: &mut [i8; CHUNK]) -> f32 {
        let most = _mm512_fmadd_ps(w.scale, _mm512_set1_ps(LARGEST as f32), w.min);
        // As integers, where a NaN is larger than everything; in all lanes in the end.
        let magnitude = |x: __m512| _mm512_castps_si512(_mm512_abs_ps(x));
        let mut largest = _mm512_max_epu32(magnitude(w.min), magnitude(most));
        largest = _mm512_max_epu32(largest, _mm512_shuffle_i64x2::<0b01_00_11_10>(largest, largest));
        largest = _mm512_max_epu32(largest, _mm512_shuffle_i64x2::<0b10_11_00_01>(largest, largest));
        largest = _mm512_max_epu32(largest, _mm512_shuffle_epi32::<0b01_00_11_10>(largest));
        largest = _mm512_max_epu32(largest, _mm512_shuffle_epi32::<0b10_11_00_01>(largest));
        let largest = _mm512_castsi512_ps(largest);
        // Fourteen bits: that the inverse is not quite that of the scale is nothing beside the rounding of the weights.
        let inverse = _mm512_mul_ps(_mm512_rcp14_ps(largest), _mm512_set1_ps(steps));
        // Bits behind the point of a weight, and of what its number is multiplied with.
        let (bits, unit) = match LARGEST {
            ..63 => (7, 7),    // the low half of number · unit
            63..128 => (6, 13), // that of 256 · number · unit from bit 15 on
            _ => (8, 15),       // the same with the number less 128, which is what stands for zero
        };
        let words = |x: __m512, bits: i32| {
            let factor = _mm512_mul_ps(inverse, _mm512_set1_ps((1 << bits) as f32));
            _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(x, factor)))
        };
        let half = 1 << (bits - 1);
        let min = if LARGEST < 128 { words(w.min, bits) } else { _mm256_setzero_si256() };
        let both = _mm512_inserti64x4::<1>(
            _mm512_castsi256_si512(words(w.scale, unit)),
            _mm256_add_epi16(min, _mm256_set1_epi16(half)),
        );
        let zero = _mm512_setzero_si512();
        let eight = _mm512_setr_epi64(0, 0, 0x0001_0001_0001_0001, 0x0001_0001_0001_0001, 0x0002_0002_0002_0002,
            0x0002_0002_0002_0002, 0x0003_0003_0003_0003, 0x0003_0003_0003_0003);
        for (i, q) in w.q.into_iter().enumerate() {
            // Each 16 bytes have a scale and a minimum.
            let at = _mm512_add_epi16(eight, _mm512_set1_epi16(4 * i as i16));
            let unit = _mm512_permutexvar_epi16(at, both);
            let min = _mm512_permutexvar_epi16(_mm512_add_epi16(at, _mm512_set1_epi16(16)), both);
            let times = |q: [__m512i; 2]| q.map(|q| {
                let product = if LARGEST < 63 { _mm512_mullo_epi16(q, unit) } else { _mm512_mulhrs_epi16(q, unit) };
                let sum = _mm512_add_epi16(product, min);
                match LARGEST {
                    ..63 => _mm512_srai_epi16::<7>(sum),
                    63..128 => _mm512_srai_epi16::<6>(sum),
                    _ => _mm512_srai_epi16::<8>(sum),
                }
            });
            let [low, high] = times(match LARGEST {
                ..63 => [_mm512_unpacklo_epi8(q, zero), _mm512_unpackhi_epi8(q, zero)],
                63..128 => [_mm512_unpacklo_epi8(zero, q), _mm512_unpackhi_epi8(zero, q)],
                _ => {
                    let q = _mm512_xor_si512(q, _mm512_set1_epi8(-128));
                    [_mm512_unpacklo_epi8(zero, q), _mm512_unpackhi_epi8(zero, q)]
                }
            });
            // SAFETY: 64 of 256 bytes.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().add(64 * i).cast(), _mm512_packs_epi16(low, high)) };
        }
        let scale = _mm512_cvtss_f32(largest) / steps;
        if scale.is_finite() { scale } else { f32::NAN }
    }

    /// Loads what was stored.
    fn load(w: &Weights) -> Registers {
        // SAFETY: as in `store`.
        unsafe {
            let q = |i: usize| _mm512_load_si512(w.q.as_ptr().add(64 * i).cast());
            let (scale, min) = (_mm512_load_ps(w.scale.as_ptr()), _mm512_load_ps(w.min.as_ptr()));
            Registers { q: [q(0), q(1), q(2), q(3)], scale, min }
        }
    }

    /// Scales and minima of a q4_k or q5_k block, eight each, each twice.
    fn scales_k4(block: &[u8]) -> (__m512, __m512) {
        let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        let (a, b, c) = (word(4), word(8), word(12));
        // Four scales or minima in the bytes of each word.
        let scales = u64::from(a & 0x3f3f_3f3f) | u64::from(c & 0x0f0f_0f0f | (a >> 6 & 0x0303_0303) << 4) << 32;
        let minima = u64::from(b & 0x3f3f_3f3f) | u64::from(c >> 4 & 0x0f0f_0f0f | (b >> 6 & 0x0303_0303) << 4) << 32;
        let floats = |x: u64| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(x as i64)));
        let scale = _mm256_mul_ps(floats(scales), _mm256_set1_ps(half(block, 0)));
        let min = _mm256_mul_ps(floats(minima), _mm256_set1_ps(-half(block, 2)));
        (twice(scale), twice(min))
    }
}

/// What portable code reads, in registers.
#[inline(always)]
fn portable(read: impl FnOnce(Avx2, &mut Weights)) -> Registers {
    let mut w = Weights::ZERO;
    // SAFETY: only called where AVX-512 exists, and AVX2 with it.
    unsafe {
        read(Avx2::new(), &mut w);
        load(&w)
    }
}

kernels! {
    fn q4_0 / Q4_0(blocks: [144]) by Q4_0 {
        shifted(nibbles_of_eight(blocks, 18, 2), halves(blocks, 18, 0), -8.0)
    }

    fn q4_1 / Q4_1(blocks: [160]) {
        Registers { q: nibbles_of_eight(blocks, 20, 4), scale: halves(blocks, 20, 0), min: halves(blocks, 20, 2) }
    }

    fn q5_0 / Q5_0(blocks: [176]) {
        shifted(fifth_of_eight(nibbles_of_eight(blocks, 22, 6), blocks, 22, 2), halves(blocks, 22, 0), -16.0)
    }

    fn q5_1 / Q5_1(blocks: [192]) {
        let q = fifth_of_eight(nibbles_of_eight(blocks, 24, 8), blocks, 24, 4);
        Registers { q, scale: halves(blocks, 24, 0), min: halves(blocks, 24, 2) }
    }

    fn q8_0 / Q8_0(blocks: [272]) {
        let mut q = [_mm512_setzero_si512(); 4];
        for (i, q) in q.iter_mut().enumerate() {
            let (a, b) = (&blocks[68 * i + 2..68 * i + 34], &blocks[68 * i + 36..68 * i + 68]);
            // SAFETY: 32 bytes each.
            let (a, b) = unsafe { (_mm256_loadu_si256(a.as_ptr().cast()), _mm256_loadu_si256(b.as_ptr().cast())) };
            let signed = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b);
            *q = _mm512_xor_si512(signed, _mm512_set1_epi8(-128));
        }
        shifted(q, halves(blocks, 34, 0), -128.0)
    }

    fn q2_k / Q2_K(block: [84]) by Q2K {
        // SAFETY: 16 bytes of the block.
        let both = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(block.as_ptr().cast()) });
        let low = _mm512_cvtepi32_ps(_mm512_and_si512(both, _mm512_set1_epi32(15)));
        let high = _mm512_cvtepi32_ps(_mm512_srli_epi32::<4>(both));
        let three = _mm512_set1_epi8(3);
        let (a, b) = (pair(block, 16), pair(block, 48));
        Registers {
            q: [
                _mm512_and_si512(shift(a, 0, 2), three),
                _mm512_and_si512(shift(a, 4, 6), three),
                _mm512_and_si512(shift(b, 0, 2), three),
                _mm512_and_si512(shift(b, 4, 6), three),
            ],
            scale: _mm512_mul_ps(low, _mm512_set1_ps(half(block, 80))),
            min: _mm512_mul_ps(high, _mm512_set1_ps(-half(block, 82))),
        }
    }

    fn q3_k / Q3_K(block: [110]) by Q3K {
        let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        let (a, b, c) = (word(96), word(100), word(104));
        // Sixteen scales of six bits: four in the bytes of each word.
        let (four, two) = (0x0f0f_0f0f, 0x0303_0303);
        let scales = _mm_setr_epi32(
            (a & four | (c & two) << 4) as i32,
            (b & four | (c >> 2 & two) << 4) as i32,
            (a >> 4 & four | (c >> 4 & two) << 4) as i32,
            (b >> 4 & four | (c >> 6 & two) << 4) as i32,
        );
        let scales = _mm512_sub_epi32(_mm512_cvtepu8_epi32(scales), _mm512_set1_epi32(32));
        let scale = _mm512_mul_ps(_mm512_cvtepi32_ps(scales), _mm512_set1_ps(half(block, 108)));
        let three = _mm512_set1_epi8(3);
        let (a, b, high) = (pair(block, 32), pair(block, 64), pair(block, 0));
        let third = |q: __m512i, bits: __m512i| {
            let q = _mm512_and_si512(q, three);
            _mm512_mask_add_epi8(q, _mm512_test_epi8_mask(high, bits), q, _mm512_set1_epi8(4))
        };
        let q = [
            third(shift(a, 0, 2), split(1, 2)),
            third(shift(a, 4, 6), split(4, 8)),
            third(shift(b, 0, 2), split(16, 32)),
            third(shift(b, 4, 6), split(64, -128)),
        ];
        shifted(q, scale, -4.0)
    }

    fn q4_k / Q4_K(block: [144]) by Q4K {
        let (scale, min) = scales_k4(block);
        let q = |g: usize| _mm512_and_si512(shift(pair(block, 16 + 32 * g), 0, 4), _mm512_set1_epi8(15));
        Registers { q: [q(0), q(1), q(2), q(3)], scale, min }
    }

    fn q5_k / Q5_K(block: [176]) by Q5K {
        let (scale, min) = scales_k4(block);
        let high = pair(block, 16);
        let q = |g: usize, bits: __m512i| {
            let q = _mm512_and_si512(shift(pair(block, 48 + 32 * g), 0, 4), _mm512_set1_epi8(15));
            _mm512_mask_add_epi8(q, _mm512_test_epi8_mask(high, bits), q, _mm512_set1_epi8(16))
        };
        let q = [q(0, split(1, 2)), q(1, split(4, 8)), q(2, split(16, 32)), q(3, split(64, -128))];
        Registers { q, scale, min }
    }

    fn q6_k / Q6_K(block: [210]) by Q6K {
        // SAFETY: 16 bytes of the block.
        let scales = _mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(block[192..208].as_ptr().cast()) });
        let scale = _mm512_mul_ps(_mm512_cvtepi32_ps(scales), _mm512_set1_ps(half(block, 208)));
        let (four, two) = (_mm512_set1_epi8(15), _mm512_set1_epi8(0x30));
        let mut q = [_mm512_setzero_si512(); 4];
        for n in 0..2 {
            let low = &block[64 * n..64 * n + 64];
            // SAFETY: 64 bytes.
            let low = unsafe { _mm512_loadu_si512(low.as_ptr().cast()) };
            let high = pair(block, 128 + 32 * n);
            let left = _mm512_inserti64x4::<1>(_mm512_set1_epi16(4), _mm256_set1_epi16(2));
            let first = _mm512_and_si512(_mm512_sllv_epi16(high, left), two);
            let second = _mm512_and_si512(shift(high, 0, 2), two);
            q[2 * n] = _mm512_or_si512(_mm512_and_si512(low, four), first);
            q[2 * n + 1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16::<4>(low), four), second);
        }
        shifted(q, scale, -32.0)
    }

    fn iq4_nl / IQ4_NL(blocks: [144]) by Iq4Nl {
        shifted(look_up(nibbles_of_eight(blocks, 18, 2), &IQ4), halves(blocks, 18, 0), -128.0)
    }

    fn iq4_xs / IQ4_XS(block: [136]) by Iq4Xs {
        let high = u16::from_le_bytes([block[2], block[3]]);
        let low = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
        // Eight scales: four bits of `low`, two of `high`.
        let counts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
        let low = _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(low as i32), counts), _mm256_set1_epi32(15));
        let counts = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
        let high = _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(i32::from(high)), counts), _mm256_set1_epi32(3));
        let scales = _mm256_sub_epi32(_mm256_or_si256(low, _mm256_slli_epi32::<4>(high)), _mm256_set1_epi32(32));
        let scale = _mm256_mul_ps(_mm256_cvtepi32_ps(scales), _mm256_set1_ps(half(block, 0)));
        shifted(look_up(nibbles_of_eight(block, 16, 8), &IQ4), twice(scale), -128.0)
    }

    fn mxfp4 / MXFP4(blocks: [136]) by Mxfp4 {
        let scale = |i: usize| tables::mxfp4_half_scale(blocks[17 * i]);
        let scales = _mm256_setr_ps(scale(0), scale(1), scale(2), scale(3), scale(4), scale(5), scale(6), scale(7));
        shifted(look_up(nibbles_of_eight(blocks, 17, 1), &E2M1), twice(scales), -12.0)
    }

    fn iq1_s / IQ1_S(block: [50]) {
        grids::iq1_s(block)
    }

    fn iq1_m / IQ1_M(block: [56]) {
        grids::iq1_m(block)
    }

    fn iq2_xxs / IQ2_XXS(block: [66]) by Iq2Xxs {
        columns::from_eights(columns::iq2_xxs(block), 43.0)
    }

    fn iq2_xs / IQ2_XS(block: [74]) by Iq2Xs {
        columns::from_eights(columns::iq2_xs(block), 43.0)
    }

    fn iq2_s / IQ2_S(block: [82]) by Iq2S {
        columns::from_eights(columns::iq2_s(block), 43.0)
    }

    fn iq3_xxs / IQ3_XXS(block: [98]) by Iq3Xxs {
        columns::from_fours(columns::iq3_xxs(block), 62.0)
    }

    fn iq3_s / IQ3_S(block: [110]) by Iq3S {
        columns::from_fours(columns::iq3_s(block), 15.0)
    }

    fn tq1_0 / TQ1_0(block: [54]) {
        ternary(block)
    }

    // Those below are read by portable code: they are rarer.

    fn nvfp4 / NVFP4(block: [144]) {
        portable(|steps, w| read::nvfp4(steps, block, w))
    }

    fn tq2_0 / TQ2_0(block: [66]) {
        portable(|steps, w| read::tq2_0(steps, block, w))
    }
}
