//! The [`Simd`] tokens of x86-64: AVX2 with FMA and F16C, and AVX-512.
//!
//! Every method calls intrinsics of the token's instruction set, which is sound because a token exists only where the CPU
//! has it; each is always inlined, so that the intrinsics end up in a function compiled for the set.

use std::arch::x86_64::*;

use crate::isa::Isa;
use crate::simd::Simd;

macro_rules! methods {
    // Safe one-line methods over intrinsics.
    ($( fn $name:ident $(<const $k:ident: u32>)? ($($arg:ident: $ty:ty),*) -> $ret:ty { $e:expr } )*) => {$(
        #[inline(always)]
        fn $name $(<const $k: u32>)? (self $(, $arg: $ty)*) -> $ret {
            // SAFETY: the token proves that the CPU has the instructions; no memory is touched but locals.
            unsafe { $e }
        }
    )*};
}

/// The token of [`Isa::Avx2`].
#[derive(Clone, Copy)]
pub struct Avx2Token(());

impl Avx2Token {
    /// # Safety
    /// The CPU must have AVX2, FMA and F16C.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        Self(())
    }

    /// All ones in the first `n` lanes.
    #[inline(always)]
    fn mask(self, n: usize) -> __m256i {
        const ONES: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        // SAFETY: the token proves the instructions; 8 - n..16 - n lies in the table.
        unsafe { _mm256_loadu_si256(ONES.as_ptr().add(8 - n.min(8)).cast()) }
    }
}

impl Simd for Avx2Token {
    const ISA: Isa = Isa::Avx2;
    const LANES: usize = 8;
    type F = __m256;
    type I = __m256i;
    type M = __m256;

    methods! {
        fn splat(x: f32) -> __m256 { _mm256_set1_ps(x) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        fn min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn sqrt(a: __m256) -> __m256 { _mm256_sqrt_ps(a) }
        fn abs(a: __m256) -> __m256 { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
        fn neg(a: __m256) -> __m256 { _mm256_xor_ps(_mm256_set1_ps(-0.0), a) }
        fn round(a: __m256) -> __m256 { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn neg_mul_add(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fnmadd_ps(a, b, c) }
        fn fma(a: f32, b: f32, c: f32) -> f32 { _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c))) }
        fn lt(a: __m256, b: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_LT_OQ>(a, b) }
        fn le(a: __m256, b: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_LE_OQ>(a, b) }
        fn eq(a: __m256, b: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b) }
        fn select(m: __m256, a: __m256, b: __m256) -> __m256 { _mm256_blendv_ps(b, a, m) }
        fn splat_i(x: i32) -> __m256i { _mm256_set1_epi32(x) }
        fn to_i(a: __m256) -> __m256i { _mm256_cvtps_epi32(a) }
        fn to_f(a: __m256i) -> __m256 { _mm256_cvtepi32_ps(a) }
        fn bits(a: __m256) -> __m256i { _mm256_castps_si256(a) }
        fn from_bits(a: __m256i) -> __m256 { _mm256_castsi256_ps(a) }
        fn add_i(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
        fn sub_i(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi32(a, b) }
        fn and_i(a: __m256i, b: __m256i) -> __m256i { _mm256_and_si256(a, b) }
        fn or_i(a: __m256i, b: __m256i) -> __m256i { _mm256_or_si256(a, b) }
        // The count is a constant, so these become the immediate forms.
        fn shl_i<const K: u32>(a: __m256i) -> __m256i { _mm256_sll_epi32(a, _mm_cvtsi32_si128(K as i32)) }
        fn shr_i<const K: u32>(a: __m256i) -> __m256i { _mm256_sra_epi32(a, _mm_cvtsi32_si128(K as i32)) }
        fn shr_u<const K: u32>(a: __m256i) -> __m256i { _mm256_srl_epi32(a, _mm_cvtsi32_si128(K as i32)) }
        fn sum(a: __m256) -> f32 {{
            let x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        }}
        fn sum4(a: [__m256; 4]) -> [f32; 4] {{
            // Sums of four neighbours of each vector side by side, then the halves.
            let ab = _mm256_hadd_ps(a[0], a[1]);
            let cd = _mm256_hadd_ps(a[2], a[3]);
            let x = _mm256_hadd_ps(ab, cd);
            let mut r = [0.0; 4];
            _mm_storeu_ps(r.as_mut_ptr(), _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x)));
            r
        }}
        fn max_lane(a: __m256) -> f32 {{
            let x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        }}
    }

    #[inline(always)]
    fn load_partial(self, src: &[f32]) -> __m256 {
        // SAFETY: masked lanes are not read.
        unsafe { _mm256_maskload_ps(src.as_ptr(), self.mask(src.len())) }
    }
    #[inline(always)]
    fn store_partial(self, x: __m256, dst: &mut [f32]) {
        // SAFETY: masked lanes are not written.
        unsafe { _mm256_maskstore_ps(dst.as_mut_ptr(), self.mask(dst.len()), x) }
    }
    #[inline(always)]
    unsafe fn load_ptr(self, src: *const f32) -> __m256 {
        // SAFETY: readable by the caller's promise.
        unsafe { _mm256_loadu_ps(src) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, x: __m256, dst: *mut f32) {
        // SAFETY: writable by the caller's promise.
        unsafe { _mm256_storeu_ps(dst, x) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, src: *const u8) -> __m256 {
        // SAFETY: readable by the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(src.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, src: *const u8) -> __m256 {
        // SAFETY: readable by the caller's promise.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(src.cast())))) }
    }
    #[inline(always)]
    unsafe fn load_i8(self, src: *const u8) -> __m256 {
        // SAFETY: readable by the caller's promise.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(src.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_u8(self, src: *const u8) -> __m256i {
        // SAFETY: readable by the caller's promise.
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(src.cast())) }
    }

    #[inline(always)]
    unsafe fn transpose4(self, r: [*const f32; 16]) -> [__m256; 4] {
        // Row j below row j + 4, then 4×4 transpositions within the halves.
        macro_rules! pair {
            ($j:literal) => {
                _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(_mm_loadu_ps(r[$j])), _mm_loadu_ps(r[$j + 4]))
            };
        }
        // SAFETY: readable by the caller's promise.
        unsafe {
            let z = [pair!(0), pair!(1), pair!(2), pair!(3)];
            let (a, b) = (_mm256_unpacklo_ps(z[0], z[1]), _mm256_unpackhi_ps(z[0], z[1]));
            let (c, d) = (_mm256_unpacklo_ps(z[2], z[3]), _mm256_unpackhi_ps(z[2], z[3]));
            [
                _mm256_shuffle_ps::<0x44>(a, c),
                _mm256_shuffle_ps::<0xee>(a, c),
                _mm256_shuffle_ps::<0x44>(b, d),
                _mm256_shuffle_ps::<0xee>(b, d),
            ]
        }
    }
}

/// The token of [`Isa::Avx512`].
#[derive(Clone, Copy)]
pub struct Avx512Token(());

impl Avx512Token {
    /// # Safety
    /// The CPU must have AVX-512 F, BW, DQ and VL, AVX2, FMA and F16C.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        Self(())
    }

    /// The first `n` lanes.
    #[inline(always)]
    fn mask(self, n: usize) -> __mmask16 {
        if n >= 16 { !0 } else { (1u16 << n) - 1 }
    }
}

impl Simd for Avx512Token {
    const ISA: Isa = Isa::Avx512;
    const LANES: usize = 16;
    type F = __m512;
    type I = __m512i;
    type M = __mmask16;

    methods! {
        fn splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn sqrt(a: __m512) -> __m512 { _mm512_sqrt_ps(a) }
        fn abs(a: __m512) -> __m512 { _mm512_abs_ps(a) }
        fn neg(a: __m512) -> __m512 { _mm512_xor_ps(_mm512_set1_ps(-0.0), a) }
        fn round(a: __m512) -> __m512 { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn neg_mul_add(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fnmadd_ps(a, b, c) }
        fn fma(a: f32, b: f32, c: f32) -> f32 { _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c))) }
        fn lt(a: __m512, b: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
        fn le(a: __m512, b: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b) }
        fn eq(a: __m512, b: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b) }
        fn select(m: __mmask16, a: __m512, b: __m512) -> __m512 { _mm512_mask_blend_ps(m, b, a) }
        fn splat_i(x: i32) -> __m512i { _mm512_set1_epi32(x) }
        fn to_i(a: __m512) -> __m512i { _mm512_cvtps_epi32(a) }
        fn to_f(a: __m512i) -> __m512 { _mm512_cvtepi32_ps(a) }
        fn bits(a: __m512) -> __m512i { _mm512_castps_si512(a) }
        fn from_bits(a: __m512i) -> __m512 { _mm512_castsi512_ps(a) }
        fn add_i(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        fn sub_i(a: __m512i, b: __m512i) -> __m512i { _mm512_sub_epi32(a, b) }
        fn and_i(a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        fn or_i(a: __m512i, b: __m512i) -> __m512i { _mm512_or_si512(a, b) }
        fn shl_i<const K: u32>(a: __m512i) -> __m512i { _mm512_slli_epi32::<K>(a) }
        fn shr_i<const K: u32>(a: __m512i) -> __m512i { _mm512_srai_epi32::<K>(a) }
        fn shr_u<const K: u32>(a: __m512i) -> __m512i { _mm512_srli_epi32::<K>(a) }
        fn sum(a: __m512) -> f32 {{
            let x = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        }}
        fn sum4(a: [__m512; 4]) -> [f32; 4] {{
            // Sums of four neighbours of each vector side by side, then the quarters.
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(a[0], a[1]), _mm512_unpackhi_ps(a[0], a[1]));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(a[2], a[3]), _mm512_unpackhi_ps(a[2], a[3]));
            let x = _mm512_add_ps(_mm512_shuffle_ps::<0x44>(ab, cd), _mm512_shuffle_ps::<0xee>(ab, cd));
            let x = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
            let mut r = [0.0; 4];
            _mm_storeu_ps(r.as_mut_ptr(), _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x)));
            r
        }}
        fn max_lane(a: __m512) -> f32 { _mm512_reduce_max_ps(a) }
        fn ldexp(p: __m512, n: __m512) -> __m512 { _mm512_scalef_ps(p, n) }
    }

    #[inline(always)]
    fn load_partial(self, src: &[f32]) -> __m512 {
        // SAFETY: masked lanes are not read.
        unsafe { _mm512_maskz_loadu_ps(self.mask(src.len()), src.as_ptr()) }
    }
    #[inline(always)]
    fn store_partial(self, x: __m512, dst: &mut [f32]) {
        // SAFETY: masked lanes are not written.
        unsafe { _mm512_mask_storeu_ps(dst.as_mut_ptr(), self.mask(dst.len()), x) }
    }
    #[inline(always)]
    unsafe fn load_ptr(self, src: *const f32) -> __m512 {
        // SAFETY: readable by the caller's promise.
        unsafe { _mm512_loadu_ps(src) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, x: __m512, dst: *mut f32) {
        // SAFETY: writable by the caller's promise.
        unsafe { _mm512_storeu_ps(dst, x) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, src: *const u8) -> __m512 {
        // SAFETY: readable by the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(src.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, src: *const u8) -> __m512 {
        // SAFETY: readable by the caller's promise.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(src.cast())))) }
    }
    #[inline(always)]
    unsafe fn load_i8(self, src: *const u8) -> __m512 {
        // SAFETY: readable by the caller's promise.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(src.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_u8(self, src: *const u8) -> __m512i {
        // SAFETY: readable by the caller's promise.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(src.cast())) }
    }

    #[inline(always)]
    unsafe fn transpose4(self, r: [*const f32; 16]) -> [__m512; 4] {
        // Rows j, j + 4, j + 8, j + 12 in the quarters, then 4×4 transpositions within the quarters.
        macro_rules! four {
            ($j:literal) => {{
                let x = _mm512_castps128_ps512(_mm_loadu_ps(r[$j]));
                let x = _mm512_mask_broadcast_f32x4(x, 0x00f0, _mm_loadu_ps(r[$j + 4]));
                let x = _mm512_mask_broadcast_f32x4(x, 0x0f00, _mm_loadu_ps(r[$j + 8]));
                _mm512_mask_broadcast_f32x4(x, 0xf000, _mm_loadu_ps(r[$j + 12]))
            }};
        }
        // SAFETY: readable by the caller's promise.
        unsafe {
            let z = [four!(0), four!(1), four!(2), four!(3)];
            let (a, b) = (_mm512_unpacklo_ps(z[0], z[1]), _mm512_unpackhi_ps(z[0], z[1]));
            let (c, d) = (_mm512_unpacklo_ps(z[2], z[3]), _mm512_unpackhi_ps(z[2], z[3]));
            [
                _mm512_shuffle_ps::<0x44>(a, c),
                _mm512_shuffle_ps::<0xee>(a, c),
                _mm512_shuffle_ps::<0x44>(b, d),
                _mm512_shuffle_ps::<0xee>(b, d),
            ]
        }
    }
}

/// The transpose of 16 rows of 16 words of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose16(r: [__m512i; 16]) -> [__m512i; 16] {
    let mut a = r;
    // Pairs of words, then quads, within 128-bit lanes.
    for i in 0..8 {
        a[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    let mut b = a;
    for i in 0..4 {
        b[4 * i] = _mm512_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 1] = _mm512_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 2] = _mm512_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = _mm512_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
    }
    // b[4q + c] holds in its lane l column 4l + c of rows 4q..4q + 4. Then lanes are exchanged.
    let mut out = b;
    for c in 0..4 {
        let low01 = _mm512_shuffle_i32x4::<0b10_00_10_00>(b[c], b[4 + c]); // lanes 0, 2 of both
        let high01 = _mm512_shuffle_i32x4::<0b11_01_11_01>(b[c], b[4 + c]); // lanes 1, 3
        let low23 = _mm512_shuffle_i32x4::<0b10_00_10_00>(b[8 + c], b[12 + c]);
        let high23 = _mm512_shuffle_i32x4::<0b11_01_11_01>(b[8 + c], b[12 + c]);
        out[c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low01, low23);
        out[8 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low01, low23);
        out[4 + c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(high01, high23);
        out[12 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(high01, high23);
    }
    out
}
