//! The [`Simd`] token of aarch64: two NEON registers as one vector of eight lanes.
//!
//! Eight lanes keep the shapes of tiles and panels those of AVX2, and 32 registers hold as many such vectors as AVX2 has.
//! NEON is part of the architecture as the compiler knows it, so that the token needs no proof.

use std::arch::aarch64::*;

use crate::isa::Isa;
use crate::simd::Simd;

const _: () = assert!(cfg!(target_feature = "neon"), "an aarch64 target without NEON");

/// The token of [`Isa::Neon`].
#[derive(Clone, Copy)]
pub struct NeonToken;

type F = [float32x4_t; 2];
type I = [int32x4_t; 2];
type M = [uint32x4_t; 2];

/// Safe methods that apply a function of registers to both halves of their arguments, then those that see the halves.
macro_rules! methods {
    ($( fn $name:ident $(<const $k:ident: u32>)? ($($arg:ident: $ty:ty),*) -> $ret:ty { $e:expr } )*) => {$(
        #[inline(always)]
        fn $name $(<const $k: u32>)? (self $(, $arg: $ty)*) -> $ret {
            macro_rules! half {
                ($i:literal) => {{
                    $(let $arg = $arg[$i];)*
                    // SAFETY: NEON is there (asserted above); no memory is touched.
                    unsafe { $e }
                }};
            }
            [half!(0), half!(1)]
        }
    )*};
}

impl Simd for NeonToken {
    const ISA: Isa = Isa::Neon;
    const LANES: usize = 8;
    type F = F;
    type I = I;
    type M = M;

    methods! {
        fn add(a: F, b: F) -> F { vaddq_f32(a, b) }
        fn sub(a: F, b: F) -> F { vsubq_f32(a, b) }
        fn mul(a: F, b: F) -> F { vmulq_f32(a, b) }
        fn div(a: F, b: F) -> F { vdivq_f32(a, b) }
        // Not `fmin` and `fmax`, which know another answer where one is NaN.
        fn min(a: F, b: F) -> F { vbslq_f32(vcltq_f32(a, b), a, b) }
        fn max(a: F, b: F) -> F { vbslq_f32(vcgtq_f32(a, b), a, b) }
        fn sqrt(a: F) -> F { vsqrtq_f32(a) }
        fn abs(a: F) -> F { vabsq_f32(a) }
        fn neg(a: F) -> F { vnegq_f32(a) }
        fn round(a: F) -> F { vrndnq_f32(a) }
        fn mul_add(a: F, b: F, c: F) -> F { vfmaq_f32(c, a, b) }
        fn neg_mul_add(a: F, b: F, c: F) -> F { vfmsq_f32(c, a, b) }
        fn lt(a: F, b: F) -> M { vcltq_f32(a, b) }
        fn le(a: F, b: F) -> M { vcleq_f32(a, b) }
        fn eq(a: F, b: F) -> M { vceqq_f32(a, b) }
        fn select(m: M, a: F, b: F) -> F { vbslq_f32(m, a, b) }
        fn to_i(a: F) -> I { vcvtnq_s32_f32(a) }
        fn to_f(a: I) -> F { vcvtq_f32_s32(a) }
        fn bits(a: F) -> I { vreinterpretq_s32_f32(a) }
        fn from_bits(a: I) -> F { vreinterpretq_f32_s32(a) }
        fn add_i(a: I, b: I) -> I { vaddq_s32(a, b) }
        fn sub_i(a: I, b: I) -> I { vsubq_s32(a, b) }
        fn and_i(a: I, b: I) -> I { vandq_s32(a, b) }
        fn or_i(a: I, b: I) -> I { vorrq_s32(a, b) }
        // The count is a constant, so these become the immediate forms; to the right means by less than nothing.
        fn shl_i<const K: u32>(a: I) -> I { vshlq_s32(a, vdupq_n_s32(K as i32)) }
        fn shr_i<const K: u32>(a: I) -> I { vshlq_s32(a, vdupq_n_s32(-(K as i32))) }
        fn shr_u<const K: u32>(a: I) -> I {
            vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-(K as i32))))
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        // SAFETY: NEON is there.
        unsafe { [vdupq_n_f32(x); 2] }
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> I {
        // SAFETY: NEON is there.
        unsafe { [vdupq_n_s32(x); 2] }
    }
    #[inline(always)]
    fn fma(self, a: f32, b: f32, c: f32) -> f32 {
        // One instruction of the base set.
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn sum(self, a: F) -> f32 {
        // SAFETY: NEON is there.
        unsafe {
            let x = vaddq_f32(a[0], a[1]);
            let x = vadd_f32(vget_low_f32(x), vget_high_f32(x));
            vget_lane_f32::<0>(vpadd_f32(x, x))
        }
    }
    #[inline(always)]
    fn sum4(self, a: [F; 4]) -> [f32; 4] {
        // SAFETY: NEON is there; the result has room for a register.
        unsafe {
            let [a, b, c, d] = a.map(|a| vaddq_f32(a[0], a[1]));
            let mut r = [0.0; 4];
            vst1q_f32(r.as_mut_ptr(), vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)));
            r
        }
    }
    #[inline(always)]
    fn max_lane(self, a: F) -> f32 {
        // SAFETY: NEON is there.
        unsafe { vmaxvq_f32(vmaxq_f32(a[0], a[1])) }
    }

    #[inline(always)]
    fn load_partial(self, src: &[f32]) -> F {
        if let Some(whole) = src.first_chunk::<8>() {
            return self.load(whole);
        }
        let mut padded = [0.0; 8];
        padded[..src.len()].copy_from_slice(src);
        self.load(&padded)
    }
    #[inline(always)]
    fn store_partial(self, x: F, dst: &mut [f32]) {
        if let Some(whole) = dst.first_chunk_mut::<8>() {
            return self.store(x, whole);
        }
        let mut padded = [0.0; 8];
        self.store(x, &mut padded);
        dst.copy_from_slice(&padded[..dst.len()]);
    }
    #[inline(always)]
    unsafe fn load_ptr(self, src: *const f32) -> F {
        // SAFETY: readable by the caller's promise.
        unsafe { [vld1q_f32(src), vld1q_f32(src.add(4))] }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, x: F, dst: *mut f32) {
        // SAFETY: writable by the caller's promise.
        unsafe {
            vst1q_f32(dst, x[0]);
            vst1q_f32(dst.add(4), x[1]);
        }
    }
    #[inline(always)]
    unsafe fn load_f16(self, src: *const u8) -> F {
        // SAFETY: readable by the caller's promise.
        unsafe {
            let x = vreinterpretq_f16_u8(vld1q_u8(src));
            [vcvt_f32_f16(vget_low_f16(x)), vcvt_high_f32_f16(x)]
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, src: *const u8) -> F {
        // SAFETY: readable by the caller's promise.
        unsafe {
            let x = vreinterpretq_u16_u8(vld1q_u8(src));
            let wide = [vshll_n_u16::<16>(vget_low_u16(x)), vshll_high_n_u16::<16>(x)];
            [vreinterpretq_f32_u32(wide[0]), vreinterpretq_f32_u32(wide[1])]
        }
    }
    #[inline(always)]
    unsafe fn load_i8(self, src: *const u8) -> F {
        // SAFETY: readable by the caller's promise.
        unsafe {
            let x = vmovl_s8(vreinterpret_s8_u8(vld1_u8(src)));
            self.to_f([vmovl_s16(vget_low_s16(x)), vmovl_high_s16(x)])
        }
    }
    #[inline(always)]
    unsafe fn load_u8(self, src: *const u8) -> I {
        // SAFETY: readable by the caller's promise.
        unsafe {
            let x = vmovl_u8(vld1_u8(src));
            [vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(x))), vreinterpretq_s32_u32(vmovl_high_u16(x))]
        }
    }

    #[inline(always)]
    unsafe fn transpose4(self, r: [*const f32; 16]) -> [F; 4] {
        // SAFETY: readable by the caller's promise; four words are as good as four numbers.
        let four = |i: usize| unsafe {
            let rows = [
                vld1q_u32(r[i].cast()),
                vld1q_u32(r[i + 1].cast()),
                vld1q_u32(r[i + 2].cast()),
                vld1q_u32(r[i + 3].cast()),
            ];
            transpose4(rows).map(|x| vreinterpretq_f32_u32(x))
        };
        let (a, b) = (four(0), four(4));
        [[a[0], b[0]], [a[1], b[1]], [a[2], b[2]], [a[3], b[3]]]
    }
}

/// The transpose of four rows of four words of 32 bits.
#[inline(always)]
pub(crate) fn transpose4(r: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
    // SAFETY: NEON is there; no memory is touched.
    unsafe {
        // Pairs of words of rows 0 and 1, and of 2 and 3; columns 0 and 2, then 1 and 3.
        let (a, b) = (vtrn1q_u32(r[0], r[1]), vtrn2q_u32(r[0], r[1]));
        let (c, d) = (vtrn1q_u32(r[2], r[3]), vtrn2q_u32(r[2], r[3]));
        let [a, b, c, d] = [a, b, c, d].map(|x| vreinterpretq_u64_u32(x));
        [vtrn1q_u64(a, c), vtrn1q_u64(b, d), vtrn2q_u64(a, c), vtrn2q_u64(b, d)].map(|x| vreinterpretq_u32_u64(x))
    }
}
