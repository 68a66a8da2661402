//! One function per block format: whole blocks to bf16. The layouts are described in `numeric`'s file of each format.

use std::arch::x86_64::*;

use imaginal_numeric::Format;

use crate::amx::to_bf16;

/// Unpacks whole blocks. Unsafe to call without the instructions named at [`kernel`].
pub(crate) type Kernel = unsafe fn(&[u8], &mut [u16]);

/// The function of a format, `None` where it has none; its instructions are AVX-512 F, BW, DQ, VL and BF16.
pub(crate) fn kernel(format: Format) -> Option<Kernel> {
    Some(match format {
        Format::Q4_0 => q4_0,
        Format::Q4_1 => q4_1,
        Format::Q5_0 => q5_0,
        Format::Q5_1 => q5_1,
        Format::Q8_0 => q8_0,
        Format::Q2_K => q2_k,
        Format::Q3_K => q3_k,
        Format::Q4_K => q4_k,
        Format::Q5_K => q5_k,
        Format::Q6_K => q6_k,
        Format::IQ4_NL => iq4_nl,
        Format::IQ4_XS => iq4_xs,
        Format::MXFP4 => mxfp4,
        _ => return None,
    })
}

/// Defines kernels: a name, bytes and elements of a block, and what turns one block into its elements.
macro_rules! kernels {
    ($($(#[$doc:meta])* fn $name:ident($block:ident: [$bytes:literal], $out:ident: [$len:literal]) $body:block)*) => {$(
        $(#[$doc])*
        #[target_feature(enable = "f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
        fn $name(src: &[u8], dst: &mut [u16]) {
            for ($block, $out) in src.as_chunks::<$bytes>().0.iter().zip(dst.as_chunks_mut::<$len>().0) $body
        }
    )*};
}

/// Defines helpers that the kernels inline.
macro_rules! helpers {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block)*) => {$(
        $(#[$doc])*
        #[inline]
        #[target_feature(enable = "f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
        fn $name($($arg: $ty),*) -> $ret $body
    )*};
}

helpers! {
    /// The binary16 number at byte `at`, in all lanes: spread before it is converted, since to put it into one lane would
    /// wait for what the register held.
    fn half(block: &[u8], at: usize) -> __m512 {
        _mm512_cvtph_ps(_mm256_set1_epi16(i16::from_le_bytes([block[at], block[at + 1]])))
    }

    /// Lane `i` in all lanes.
    fn spread(x: __m512, i: usize) -> __m512 {
        _mm512_permutexvar_ps(_mm512_set1_epi32(i as i32), x)
    }

    /// 16 whole numbers as f32.
    fn floats(x: __m512i) -> __m512 {
        _mm512_cvtepi32_ps(x)
    }

    /// The scales of a q4_k or q5_k block in the lower eight lanes, its minima, negated, in the others.
    fn scales_and_minima(block: &[u8]) -> __m512 {
        // SAFETY: 16 bytes are written by value.
        let both = unsafe { std::mem::transmute::<[u32; 4], __m128i>(scales_k4(&block[4..16])) };
        let units = _mm512_mask_blend_ps(0xff00, half(block, 0), _mm512_sub_ps(_mm512_setzero_ps(), half(block, 2)));
        _mm512_mul_ps(floats(_mm512_cvtepu8_epi32(both)), units)
    }

    /// 32 bytes as 32 words.
    fn words(bytes: &[u8; 32]) -> __m512i {
        // SAFETY: 32 bytes are read.
        _mm512_cvtepu8_epi16(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) })
    }

    /// 16 bytes as 32 words: the low halves of all, then the high halves, with other bits above the lowest four.
    fn nibbles(bytes: &[u8; 16]) -> __m512i {
        // SAFETY: 16 bytes are read.
        let w = _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) });
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(w), _mm256_srli_epi16::<4>(w))
    }

    /// 16 values as a table for indices of which the lowest four bits count.
    fn table16(values: __m512) -> __m512i {
        to_bf16(values, values)
    }

    /// Looks 32 indices up and stores the elements at `dst`.
    fn look_up(indices: __m512i, table: __m512i, dst: &mut [u16]) -> () {
        let dst: &mut [u16; 32] = (&mut dst[..32]).try_into().expect("32 elements");
        // SAFETY: 32 elements are written.
        unsafe { _mm512_storeu_si512(dst.as_mut_ptr().cast(), _mm512_permutexvar_epi16(indices, table)) }
    }

    /// The same with a table of 64.
    fn look_up_64(indices: __m512i, low: __m512i, high: __m512i, dst: &mut [u16]) -> () {
        let dst: &mut [u16; 32] = (&mut dst[..32]).try_into().expect("32 elements");
        // SAFETY: 32 elements are written.
        unsafe { _mm512_storeu_si512(dst.as_mut_ptr().cast(), _mm512_permutex2var_epi16(low, indices, high)) }
    }

    /// 32 signed bytes times two scales, one for each 16.
    fn scaled(bytes: __m256i, scales: [__m512; 2], dst: &mut [u16]) -> () {
        let dst: &mut [u16; 32] = (&mut dst[..32]).try_into().expect("32 elements");
        let low = floats(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(bytes)));
        let high = floats(_mm512_cvtepi8_epi32(_mm256_extracti128_si256::<1>(bytes)));
        let (low, high) = (_mm512_mul_ps(low, scales[0]), _mm512_mul_ps(high, scales[1]));
        // SAFETY: 32 elements are written.
        unsafe { _mm512_storeu_si512(dst.as_mut_ptr().cast(), to_bf16(low, high)) }
    }

    /// 0 to 15.
    fn count() -> __m512 {
        _mm512_setr_ps(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0)
    }

    /// The values of iq4_nl and iq4_xs.
    fn nonlinear() -> __m512 {
        _mm512_setr_ps(
            -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0)
    }

    /// Twice the values of a 4-bit float (E2M1).
    fn e2m1() -> __m512 {
        _mm512_setr_ps(0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, -0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0)
    }

    /// 32 bytes at `at`.
    fn at32(block: &[u8], at: usize) -> &[u8; 32] {
        block[at..at + 32].try_into().expect("32 bytes")
    }

    /// 16 bytes at `at`.
    fn at16(block: &[u8], at: usize) -> &[u8; 16] {
        block[at..at + 16].try_into().expect("16 bytes")
    }

    /// Table for 32 values `i·d + m`, in order.
    fn table32(d: __m512, m: __m512) -> __m512i {
        let high = _mm512_add_ps(count(), _mm512_set1_ps(16.0));
        to_bf16(_mm512_fmadd_ps(count(), d, m), _mm512_fmadd_ps(high, d, m))
    }

    /// Table for 16 values `i·d + m`.
    fn linear16(d: __m512, m: __m512) -> __m512i {
        table16(_mm512_fmadd_ps(count(), d, m))
    }

    /// Sets bit 4 of the nibbles whose bit in `high` is set.
    fn fifth(nibbles: __m512i, high: u32) -> __m512i {
        let low = _mm512_and_si512(nibbles, _mm512_set1_epi16(15));
        _mm512_mask_add_epi16(low, high, low, _mm512_set1_epi16(16))
    }
}

/// The scales and minima of a q4_k or q5_k block: eight bytes each, of six bits each in twelve bytes. Four at a time.
fn scales_k4(s: &[u8]) -> [u32; 4] {
    let four = |at: usize| u32::from_le_bytes([s[at], s[at + 1], s[at + 2], s[at + 3]]);
    let (scales, minima, rest) = (four(0), four(4), four(8));
    let (six, low) = (0x3f3f_3f3f, 0x0f0f_0f0f);
    let top = |x: u32| x >> 2 & 0x3030_3030;
    [scales & six, rest & low | top(scales), minima & six, rest >> 4 & low | top(minima)]
}

/// The scales of a q3_k block: sixteen of six bits, in twelve bytes, 32 too large.
fn scales_k3(s: &[u8]) -> [i8; 16] {
    std::array::from_fn(|i| {
        let low = if i < 8 { s[i] & 15 } else { s[i - 8] >> 4 };
        let high = s[8 + i % 4] >> (2 * (i / 4)) & 3;
        (low | high << 4) as i8 - 32
    })
}

kernels! {
    fn q4_0(block: [18], out: [32]) {
        let d = half(block, 0);
        look_up(nibbles(at16(block, 2)), linear16(d, _mm512_mul_ps(d, _mm512_set1_ps(-8.0))), out);
    }

    fn q4_1(block: [20], out: [32]) {
        look_up(nibbles(at16(block, 4)), linear16(half(block, 0), half(block, 2)), out);
    }

    fn q5_0(block: [22], out: [32]) {
        let d = half(block, 0);
        let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        look_up(fifth(nibbles(at16(block, 6)), high), table32(d, _mm512_mul_ps(d, _mm512_set1_ps(-16.0))), out);
    }

    fn q5_1(block: [24], out: [32]) {
        let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
        look_up(fifth(nibbles(at16(block, 8)), high), table32(half(block, 0), half(block, 2)), out);
    }

    fn q8_0(block: [34], out: [32]) {
        let d = half(block, 0);
        // SAFETY: 32 bytes are read.
        scaled(unsafe { _mm256_loadu_si256(at32(block, 2).as_ptr().cast()) }, [d, d], out);
    }

    fn q2_k(block: [84], out: [256]) {
        let (d, dmin) = (half(block, 80), half(block, 82));
        // SAFETY: 16 bytes are read.
        let both = unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
        let low = _mm512_and_si512(_mm512_cvtepu8_epi32(both), _mm512_set1_epi32(15));
        let high = _mm512_srli_epi32::<4>(_mm512_cvtepu8_epi32(both));
        let scales = _mm512_mul_ps(floats(low), d);
        let minima = _mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(floats(high), dmin));
        // Entry 4s + q is the value q in sub-block s.
        let level = _mm512_setr_ps(0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0);
        let mut part = [_mm512_setzero_ps(); 4];
        for (i, part) in part.iter_mut().enumerate() {
            let sub = _mm512_add_epi32(
                _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), _mm512_set1_epi32(4 * i as i32));
            *part = _mm512_fmadd_ps(level, _mm512_permutexvar_ps(sub, scales), _mm512_permutexvar_ps(sub, minima));
        }
        let table = [to_bf16(part[0], part[1]), to_bf16(part[2], part[3])];
        for n in 0..2 {
            let mut q = words(at32(block, 16 + 32 * n));
            for j in 0..4 {
                let sub = (4 * (8 * n + 2 * j)) as i16;
                let offset = _mm512_inserti64x4::<1>(_mm512_set1_epi16(sub), _mm256_set1_epi16(sub + 4));
                let index = _mm512_or_si512(_mm512_and_si512(q, _mm512_set1_epi16(3)), offset);
                look_up_64(index, table[0], table[1], &mut out[128 * n + 32 * j..]);
                q = _mm512_srli_epi16::<2>(q);
            }
        }
    }

    fn q3_k(block: [110], out: [256]) {
        let d = half(block, 108);
        let scales = scales_k3(&block[96..108]);
        // SAFETY: 16 bytes are read.
        let scales = _mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(scales.as_ptr().cast()) });
        let scales = _mm512_mul_ps(floats(scales), d);
        let level =
            _mm512_setr_ps(-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0);
        // The third bits, of which a set one adds 4: bit 4n + j of byte l belongs to element 128n + 32j + l.
        let mut high = words(at32(block, 0));
        for n in 0..2 {
            // Entry 8s + q is the value q in sub-block s of this half.
            let mut part = [_mm512_setzero_ps(); 4];
            for (i, part) in part.iter_mut().enumerate() {
                let sub = _mm512_add_epi32(
                    _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
                    _mm512_set1_epi32((8 * n + 2 * i) as i32));
                *part = _mm512_mul_ps(level, _mm512_permutexvar_ps(sub, scales));
            }
            let table = [to_bf16(part[0], part[1]), to_bf16(part[2], part[3])];
            let mut q = words(at32(block, 32 + 32 * n));
            for j in 0..4 {
                let sub = 16 * j as i16;
                let offset = _mm512_inserti64x4::<1>(_mm512_set1_epi16(sub), _mm256_set1_epi16(sub + 8));
                let index = _mm512_or_si512(_mm512_and_si512(q, _mm512_set1_epi16(3)), offset);
                let third = _mm512_slli_epi16::<2>(_mm512_and_si512(high, _mm512_set1_epi16(1)));
                look_up_64(_mm512_or_si512(index, third), table[0], table[1], &mut out[128 * n + 32 * j..]);
                q = _mm512_srli_epi16::<2>(q);
                high = _mm512_srli_epi16::<1>(high);
            }
        }
    }

    fn q4_k(block: [144], out: [256]) {
        let both = scales_and_minima(block);
        for g in 0..4 {
            let q = words(at32(block, 16 + 32 * g));
            for (j, q) in [(2 * g, q), (2 * g + 1, _mm512_srli_epi16::<4>(q))] {
                look_up(q, linear16(spread(both, j), spread(both, 8 + j)), &mut out[32 * j..]);
            }
        }
    }

    fn q5_k(block: [176], out: [256]) {
        let both = scales_and_minima(block);
        let mut high = words(at32(block, 16));
        for g in 0..4 {
            let q = words(at32(block, 48 + 32 * g));
            for (j, q) in [(2 * g, q), (2 * g + 1, _mm512_srli_epi16::<4>(q))] {
                let fifth = _mm512_slli_epi16::<4>(_mm512_and_si512(high, _mm512_set1_epi16(1)));
                let index = _mm512_or_si512(_mm512_and_si512(q, _mm512_set1_epi16(15)), fifth);
                look_up(index, table32(spread(both, j), spread(both, 8 + j)), &mut out[32 * j..]);
                high = _mm512_srli_epi16::<1>(high);
            }
        }
    }

    fn q6_k(block: [210], out: [256]) {
        // SAFETY: 16 bytes are read.
        let scales = unsafe { _mm_loadu_si128(at16(block, 192).as_ptr().cast()) };
        let scales = _mm512_mul_ps(floats(_mm512_cvtepi8_epi32(scales)), half(block, 208));
        for n in 0..2 {
            // SAFETY: each reads 32 bytes.
            let (first, second, high) = unsafe {
                (
                    _mm256_loadu_si256(at32(block, 64 * n).as_ptr().cast()),
                    _mm256_loadu_si256(at32(block, 64 * n + 32).as_ptr().cast()),
                    _mm256_loadu_si256(at32(block, 128 + 32 * n).as_ptr().cast()),
                )
            };
            let (four, two) = (_mm256_set1_epi8(15), _mm256_set1_epi8(0x30));
            let low = [
                _mm256_and_si256(first, four),
                _mm256_and_si256(second, four),
                _mm256_and_si256(_mm256_srli_epi16::<4>(first), four),
                _mm256_and_si256(_mm256_srli_epi16::<4>(second), four),
            ];
            let high = [
                _mm256_and_si256(_mm256_slli_epi16::<4>(high), two),
                _mm256_and_si256(_mm256_slli_epi16::<2>(high), two),
                _mm256_and_si256(high, two),
                _mm256_and_si256(_mm256_srli_epi16::<2>(high), two),
            ];
            for j in 0..4 {
                let q = _mm256_sub_epi8(_mm256_or_si256(low[j], high[j]), _mm256_set1_epi8(32));
                let s = 8 * n + 2 * j;
                scaled(q, [spread(scales, s), spread(scales, s + 1)], &mut out[128 * n + 32 * j..]);
            }
        }
    }

    fn iq4_nl(block: [18], out: [32]) {
        look_up(nibbles(at16(block, 2)), table16(_mm512_mul_ps(nonlinear(), half(block, 0))), out);
    }

    fn iq4_xs(block: [136], out: [256]) {
        // Eight scales of six bits, 32 too large: the low four bits of all, then the high two.
        let four = _mm512_set1_epi32(i32::from_le_bytes([block[4], block[5], block[6], block[7]]));
        let two = _mm512_set1_epi32(i32::from(u16::from_le_bytes([block[2], block[3]])));
        let at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7);
        let low = _mm512_and_si512(_mm512_srlv_epi32(four, _mm512_slli_epi32::<2>(at)), _mm512_set1_epi32(15));
        let high = _mm512_and_si512(_mm512_srlv_epi32(two, _mm512_slli_epi32::<1>(at)), _mm512_set1_epi32(3));
        let whole = _mm512_sub_epi32(_mm512_or_si512(low, _mm512_slli_epi32::<4>(high)), _mm512_set1_epi32(32));
        let scales = _mm512_mul_ps(floats(whole), half(block, 0));
        for j in 0..8 {
            let table = table16(_mm512_mul_ps(nonlinear(), spread(scales, j)));
            look_up(nibbles(at16(block, 8 + 16 * j)), table, &mut out[32 * j..]);
        }
    }

    fn mxfp4(block: [17], out: [32]) {
        // Half of 2^(e - 127); the two smallest are subnormal.
        let e = u32::from(block[0]);
        let d = f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e - 1) << 23 });
        look_up(nibbles(at16(block, 1)), table16(_mm512_mul_ps(e2m1(), _mm512_set1_ps(d))), out);
    }
}
