//! Vectors of f32 behind a token: the trait that kernels are generic over, and the portable implementation.
//!
//! A token's existence proves that the CPU has the instructions, so the methods are safe; they are fast only inside a
//! function compiled for those instructions (see [`isa`](crate::isa)).

use crate::isa::Isa;

/// Operations on one vector of f32 lanes, or of as many i32 lanes. Elementwise unless stated otherwise.
///
/// Lane results follow IEEE 754 (round to nearest even). `min` and `max` return the second argument if one is NaN.
#[allow(missing_docs)] // one-word methods that say what they do
#[allow(dead_code)]
pub trait Simd: Copy + Send + Sync + 'static {
    /// The set this token stands for.
    const ISA: Isa;
    /// f32 lanes in a vector.
    const LANES: usize;
    /// A vector of f32.
    type F: Copy;
    /// A vector of i32.
    type I: Copy;
    /// A truth value per lane.
    type M: Copy;

    fn splat(self, x: f32) -> Self::F;
    #[inline(always)]
    fn zero(self) -> Self::F {
        self.splat(0.0)
    }
    /// The first `LANES` elements. Panics if there are fewer.
    #[inline(always)]
    fn load(self, src: &[f32]) -> Self::F {
        assert!(src.len() >= Self::LANES);
        // SAFETY: long enough, just checked.
        unsafe { self.load_ptr(src.as_ptr()) }
    }
    /// The first min(`LANES`, len) elements; 0 in the other lanes.
    fn load_partial(self, src: &[f32]) -> Self::F;
    /// Writes the first `LANES` elements of `dst`. Panics if there are fewer.
    #[inline(always)]
    fn store(self, x: Self::F, dst: &mut [f32]) {
        assert!(dst.len() >= Self::LANES);
        // SAFETY: long enough, just checked.
        unsafe { self.store_ptr(x, dst.as_mut_ptr()) }
    }
    /// Writes the first min(`LANES`, len) elements.
    fn store_partial(self, x: Self::F, dst: &mut [f32]);
    /// Needs no alignment.
    /// # Safety
    /// `src` must be readable for `LANES` elements.
    unsafe fn load_ptr(self, src: *const f32) -> Self::F;
    /// Needs no alignment.
    /// # Safety
    /// `dst` must be writable for `LANES` elements.
    unsafe fn store_ptr(self, x: Self::F, dst: *mut f32);

    /// `LANES` little-endian f16 values, widened.
    /// # Safety
    /// `src` must be readable for `2·LANES` bytes.
    unsafe fn load_f16(self, src: *const u8) -> Self::F;
    /// `LANES` little-endian bf16 values, widened.
    /// # Safety
    /// `src` must be readable for `2·LANES` bytes.
    unsafe fn load_bf16(self, src: *const u8) -> Self::F;
    /// `LANES` signed bytes, as f32.
    /// # Safety
    /// `src` must be readable for `LANES` bytes.
    unsafe fn load_i8(self, src: *const u8) -> Self::F;
    /// `LANES` unsigned bytes, as i32.
    /// # Safety
    /// `src` must be readable for `LANES` bytes.
    unsafe fn load_u8(self, src: *const u8) -> Self::I;

    /// Four columns of `LANES` rows: vector j holds element j of each row. `rows` beyond `LANES` are ignored.
    /// # Safety
    /// The first `LANES` pointers must be readable for 4 elements.
    unsafe fn transpose4(self, rows: [*const f32; 16]) -> [Self::F; 4];

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn sqrt(self, a: Self::F) -> Self::F;
    fn abs(self, a: Self::F) -> Self::F;
    fn neg(self, a: Self::F) -> Self::F;
    /// Nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// a·b + c, with one rounding where the set has FMA.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// c − a·b, with one rounding where the set has FMA.
    fn neg_mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// a·b + c of single numbers, with one rounding exactly where [`mul_add`](Self::mul_add) has one.
    fn fma(self, a: f32, b: f32, c: f32) -> f32;

    fn lt(self, a: Self::F, b: Self::F) -> Self::M;
    fn le(self, a: Self::F, b: Self::F) -> Self::M;
    fn eq(self, a: Self::F, b: Self::F) -> Self::M;
    /// Lanes of `a` where true, of `b` where false.
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F;

    fn splat_i(self, x: i32) -> Self::I;
    /// Nearest integer, ties to even; unspecified outside i32.
    fn to_i(self, a: Self::F) -> Self::I;
    fn to_f(self, a: Self::I) -> Self::F;
    fn bits(self, a: Self::F) -> Self::I;
    #[allow(clippy::wrong_self_convention)] // self is the token
    fn from_bits(self, a: Self::I) -> Self::F;
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn and_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn or_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn shl_i<const N: u32>(self, a: Self::I) -> Self::I;
    /// Arithmetic shift.
    fn shr_i<const N: u32>(self, a: Self::I) -> Self::I;
    /// Logical shift.
    fn shr_u<const N: u32>(self, a: Self::I) -> Self::I;

    /// p·2ⁿ for an integer-valued `n` with |n| ≤ 250: two exact steps, so that the result may overflow or be subnormal.
    #[inline(always)]
    fn ldexp(self, p: Self::F, n: Self::F) -> Self::F {
        const MAGIC: f32 = 12_582_912.0; // 1.5·2^23: the sum's low bits are the integer
        let i = self.sub_i(self.bits(self.add(n, self.splat(MAGIC))), self.splat_i(MAGIC.to_bits() as i32));
        let half = self.shr_i::<1>(i);
        let one = self.splat_i(127);
        let a = self.from_bits(self.shl_i::<23>(self.add_i(half, one)));
        let b = self.from_bits(self.shl_i::<23>(self.add_i(self.sub_i(i, half), one)));
        self.mul(self.mul(p, a), b)
    }

    /// The sum of all lanes, halving the vector until one is left.
    fn sum(self, a: Self::F) -> f32;
    /// The sums of all lanes of four vectors, each in the same order.
    #[inline(always)]
    fn sum4(self, a: [Self::F; 4]) -> [f32; 4] {
        [self.sum(a[0]), self.sum(a[1]), self.sum(a[2]), self.sum(a[3])]
    }
    /// The greatest lane (unspecified if one is NaN).
    fn max_lane(self, a: Self::F) -> f32;
}

/// The token of [`Isa::Scalar`].
#[derive(Clone, Copy)]
pub struct ScalarToken;

const N: usize = 8;

macro_rules! lanes {
    (|$i:ident| $e:expr) => {{
        let mut r = [Default::default(); N];
        let mut $i = 0;
        while $i < N {
            r[$i] = $e;
            $i += 1;
        }
        r
    }};
}

impl Simd for ScalarToken {
    const ISA: Isa = Isa::Scalar;
    const LANES: usize = N;
    type F = [f32; N];
    type I = [i32; N];
    type M = [bool; N];

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; N] {
        [x; N]
    }
    #[inline(always)]
    fn load_partial(self, src: &[f32]) -> [f32; N] {
        let n = src.len().min(N);
        let mut r = [0.0; N];
        r[..n].copy_from_slice(&src[..n]);
        r
    }
    #[inline(always)]
    fn store_partial(self, x: [f32; N], dst: &mut [f32]) {
        let n = dst.len().min(N);
        dst[..n].copy_from_slice(&x[..n]);
    }
    #[inline(always)]
    unsafe fn load_ptr(self, src: *const f32) -> [f32; N] {
        // SAFETY: readable by the caller's promise.
        unsafe { src.cast::<[f32; N]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, x: [f32; N], dst: *mut f32) {
        // SAFETY: writable by the caller's promise.
        unsafe { dst.cast::<[f32; N]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, src: *const u8) -> [f32; N] {
        // SAFETY: readable by the caller's promise; arrays of bytes need no alignment.
        let b = unsafe { src.cast::<[[u8; 2]; N]>().read() };
        lanes!(|i| f16_to_f32(u16::from_le_bytes(b[i])))
    }
    #[inline(always)]
    unsafe fn load_bf16(self, src: *const u8) -> [f32; N] {
        // SAFETY: as above.
        let b = unsafe { src.cast::<[[u8; 2]; N]>().read() };
        lanes!(|i| f32::from_bits(u32::from(u16::from_le_bytes(b[i])) << 16))
    }
    #[inline(always)]
    unsafe fn load_i8(self, src: *const u8) -> [f32; N] {
        // SAFETY: as above.
        let b = unsafe { src.cast::<[i8; N]>().read() };
        lanes!(|i| f32::from(b[i]))
    }
    #[inline(always)]
    unsafe fn load_u8(self, src: *const u8) -> [i32; N] {
        // SAFETY: as above.
        let b = unsafe { src.cast::<[u8; N]>().read() };
        lanes!(|i| i32::from(b[i]))
    }

    #[inline(always)]
    unsafe fn transpose4(self, rows: [*const f32; 16]) -> [[f32; N]; 4] {
        // SAFETY: readable by the caller's promise.
        let r: [[f32; 4]; N] = lanes!(|i| unsafe { rows[i].cast::<[f32; 4]>().read() });
        [lanes!(|i| r[i][0]), lanes!(|i| r[i][1]), lanes!(|i| r[i][2]), lanes!(|i| r[i][3])]
    }

    #[inline(always)]
    fn add(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        lanes!(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        lanes!(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        lanes!(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        lanes!(|i| a[i] / b[i])
    }
    // The comparisons are written as the x86 instructions define them, NaN included.
    #[inline(always)]
    fn min(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        lanes!(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn max(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        lanes!(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn sqrt(self, a: [f32; N]) -> [f32; N] {
        lanes!(|i| a[i].sqrt())
    }
    #[inline(always)]
    fn abs(self, a: [f32; N]) -> [f32; N] {
        lanes!(|i| f32::from_bits(a[i].to_bits() & 0x7fff_ffff))
    }
    #[inline(always)]
    fn neg(self, a: [f32; N]) -> [f32; N] {
        lanes!(|i| -a[i])
    }
    #[inline(always)]
    fn round(self, a: [f32; N]) -> [f32; N] {
        // Without SSE4.1 the intrinsic is a libm call; adding and taking away 1.5·2^23 rounds as the FPU does.
        const MAGIC: f32 = 12_582_912.0;
        lanes!(|i| {
            let r = (a[i] + MAGIC) - MAGIC;
            let small = f32::from_bits(a[i].to_bits() & 0x7fff_ffff) < 4_194_304.0;
            let signed = f32::from_bits(r.to_bits() | (a[i].to_bits() & 0x8000_0000));
            if small { signed } else { round_large(a[i]) }
        })
    }
    #[inline(always)]
    fn mul_add(self, a: [f32; N], b: [f32; N], c: [f32; N]) -> [f32; N] {
        lanes!(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn neg_mul_add(self, a: [f32; N], b: [f32; N], c: [f32; N]) -> [f32; N] {
        lanes!(|i| c[i] - a[i] * b[i])
    }
    #[inline(always)]
    fn fma(self, a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }

    #[inline(always)]
    fn lt(self, a: [f32; N], b: [f32; N]) -> [bool; N] {
        lanes!(|i| a[i] < b[i])
    }
    #[inline(always)]
    fn le(self, a: [f32; N], b: [f32; N]) -> [bool; N] {
        lanes!(|i| a[i] <= b[i])
    }
    #[inline(always)]
    fn eq(self, a: [f32; N], b: [f32; N]) -> [bool; N] {
        lanes!(|i| a[i] == b[i])
    }
    #[inline(always)]
    fn select(self, m: [bool; N], a: [f32; N], b: [f32; N]) -> [f32; N] {
        lanes!(|i| if m[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> [i32; N] {
        [x; N]
    }
    #[inline(always)]
    fn to_i(self, a: [f32; N]) -> [i32; N] {
        let r = self.round(a);
        lanes!(|i| r[i] as i32)
    }
    #[inline(always)]
    fn to_f(self, a: [i32; N]) -> [f32; N] {
        lanes!(|i| a[i] as f32)
    }
    #[inline(always)]
    fn bits(self, a: [f32; N]) -> [i32; N] {
        lanes!(|i| a[i].to_bits() as i32)
    }
    #[inline(always)]
    fn from_bits(self, a: [i32; N]) -> [f32; N] {
        lanes!(|i| f32::from_bits(a[i] as u32))
    }
    #[inline(always)]
    fn add_i(self, a: [i32; N], b: [i32; N]) -> [i32; N] {
        lanes!(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn sub_i(self, a: [i32; N], b: [i32; N]) -> [i32; N] {
        lanes!(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn and_i(self, a: [i32; N], b: [i32; N]) -> [i32; N] {
        lanes!(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn or_i(self, a: [i32; N], b: [i32; N]) -> [i32; N] {
        lanes!(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn shl_i<const K: u32>(self, a: [i32; N]) -> [i32; N] {
        lanes!(|i| a[i] << K)
    }
    #[inline(always)]
    fn shr_i<const K: u32>(self, a: [i32; N]) -> [i32; N] {
        lanes!(|i| a[i] >> K)
    }
    #[inline(always)]
    fn shr_u<const K: u32>(self, a: [i32; N]) -> [i32; N] {
        lanes!(|i| (a[i] as u32 >> K) as i32)
    }

    #[inline(always)]
    fn sum(self, a: [f32; N]) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(always)]
    fn max_lane(self, a: [f32; N]) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}

/// Rounding where the magic number does not work: from 2^22 on, where at most half a unit is to be lost, and for
/// infinities and NaN, which stay what they are.
#[cold]
#[inline(never)]
fn round_large(x: f32) -> f32 {
    x.round_ties_even()
}

/// Asks for the cache line at `p`, which need not be a valid address.
#[inline(always)]
pub(crate) fn prefetch(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64, and a prefetch of any address is harmless.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(p.cast())
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a hint reads nothing, whatever the address.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) p, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = p;
}

/// Widens the bits of an f16, exactly.
#[inline(always)]
pub(crate) fn f16_to_f32(h: u16) -> f32 {
    let sign = u32::from(h & 0x8000) << 16;
    let rest = u32::from(h & 0x7fff);
    // Shifted into f32's exponent field the number is too small by 2^112; the product also normalises subnormals.
    let finite = f32::from_bits(rest << 13) * f32::from_bits(0x7780_0000);
    let bits = if rest >= 0x7c00 { 0x7f80_0000 | (rest << 13) } else { finite.to_bits() };
    f32::from_bits(sign | bits)
}

#[cfg(test)]
mod tests {
    use crate::isa::{Isa, available, simd_fn};

    simd_fn! {
        /// Puts the results of many operations on the lanes of `x` and `y` behind each other.
        fn everything<S>(s: S, x: &[f32], y: &[f32], out: &mut Vec<f32>) {
            let mut push = |v: S::F, n: usize| {
                let mut t = [0.0; 16];
                s.store_partial(v, &mut t[..n]);
                out.extend(&t[..n]);
            };
            for (x, y) in x.chunks(S::LANES).zip(y.chunks(S::LANES)) {
                let n = x.len();
                let (a, b) = (s.load_partial(x), s.load_partial(y));
                push(s.add(a, b), n);
                push(s.sub(a, b), n);
                push(s.mul(a, b), n);
                push(s.div(a, b), n);
                push(s.min(a, b), n);
                push(s.max(a, b), n);
                push(s.sqrt(s.abs(a)), n);
                push(s.neg(a), n);
                push(s.round(a), n);
                push(s.to_f(s.to_i(a)), n);
                push(s.select(s.lt(a, b), a, b), n);
                push(s.select(s.le(a, b), b, a), n);
                push(s.select(s.eq(a, b), s.splat(1.0), s.splat(2.0)), n);
                let bits = s.bits(a);
                let k = s.splat_i(77);
                push(s.to_f(s.shr_i::<3>(s.add_i(bits, k))), n);
                push(s.to_f(s.shr_u::<9>(s.sub_i(bits, k))), n);
                push(s.from_bits(s.shl_i::<1>(s.and_i(bits, s.splat_i(0x3fff_ffff)))), n);
                push(s.from_bits(s.or_i(bits, s.splat_i(1))), n);
            }
        }
        /// Sum and maximum over whole vectors, then widened narrow types.
        fn across<S>(s: S, x: &[f32], bytes: &[u8], out: &mut Vec<f32>) {
            let mut sum = s.zero();
            let mut max = s.splat(f32::NEG_INFINITY);
            for x in x.chunks_exact(S::LANES) {
                sum = s.add(sum, s.load(x));
                max = s.max(max, s.load(x));
            }
            out.extend([s.sum(sum), s.max_lane(max), s.fma(3.0, 4.0, 5.0)]);
            let fused = s.neg_mul_add(s.splat(2.0), s.splat(3.0), s.mul_add(s.splat(2.0), s.splat(5.0), s.splat(1.0)));
            out.push(s.sum(fused) / S::LANES as f32);
            for b in bytes.chunks_exact(2 * S::LANES) {
                let mut t = [0.0; 64];
                let l = S::LANES;
                // SAFETY: the chunk has 2·LANES bytes.
                let v = unsafe { (s.load_f16(b.as_ptr()), s.load_bf16(b.as_ptr()), s.load_i8(b.as_ptr()), s.load_u8(b.as_ptr())) };
                s.store(v.0, &mut t);
                s.store(v.1, &mut t[l..]);
                s.store(v.2, &mut t[2 * l..]);
                s.store(s.to_f(v.3), &mut t[3 * l..]);
                // The lane count must not show in the order.
                for i in 0..l {
                    out.extend([t[i], t[l + i]]);
                }
                out.push(t[2 * l] + t[3 * l]);
            }
        }
    }

    #[test]
    fn every_instruction_set_computes_the_same_bits() {
        let specials = [0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 8388609.0, 4194304.5, -4194305.5, 1e-40, 3.3e6, -1e9];
        let mut x: Vec<f32> = specials.to_vec();
        let mut state = 1u32;
        while x.len() < 16 * 9 + 5 {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            x.push((state as f32 / 2f32.powi(31) - 1.0) * [1.0, 100.0, 1e6][x.len() % 3]);
        }
        let y: Vec<f32> = x.iter().rev().map(|v| v * 0.75 + 0.125).collect();
        // Chunk lengths differ between sets, so the operations are compared on one lane at a time.
        for (x, y) in x.iter().zip(&y) {
            let results: Vec<(Isa, Vec<u32>)> = available()
                .map(|isa| {
                    let mut out = Vec::new();
                    everything(isa, &[*x], &[*y], &mut out);
                    (isa, out.iter().map(|v| v.to_bits()).collect())
                })
                .collect();
            for (isa, r) in &results {
                assert_eq!(r, &results[0].1, "{isa}: {x} and {y}");
            }
        }
        for isa in available() {
            for n in 0..x.len() {
                let mut out = Vec::new();
                everything(isa, &x[..n], &y[..n], &mut out);
                assert_eq!(out.len(), 17 * n);
            }
        }
    }

    #[test]
    fn reductions_and_widening_loads() {
        let x: Vec<f32> = (0..64).map(|i| ((i * 37) % 64) as f32).collect();
        // All finite f16 exponents and the subnormals, as pairs of bytes.
        let bytes: Vec<u8> = (0..=u16::MAX)
            .filter(|h| h & 0x7c00 != 0x7c00 && h & 0x7f80 != 0x7f80)
            .flat_map(u16::to_le_bytes)
            .collect();
        for isa in available() {
            let mut out = Vec::new();
            across(isa, &x, &bytes, &mut out);
            assert_eq!(out[..4], [2016.0, 63.0, 17.0, 5.0], "{isa}");
        }
        for h in 0..=u16::MAX {
            let ours = super::f16_to_f32(h);
            let exponent = i32::from(h >> 10 & 31);
            let mantissa = f64::from(h & 0x3ff);
            let sign = if h >> 15 == 1 { -1.0 } else { 1.0 };
            let expected = match exponent {
                0 => sign * mantissa * 2f64.powi(-24),
                31 if mantissa == 0.0 => sign * f64::INFINITY,
                31 => f64::NAN,
                e => sign * (1.0 + mantissa / 1024.0) * 2f64.powi(e - 15),
            };
            assert!(f64::from(ours) == expected || ours.is_nan() && expected.is_nan(), "{h:04x}: {ours} {expected}");
        }
    }

    #[test]
    fn narrow_loads_agree_between_sets() {
        let bytes: Vec<u8> = (0..=u16::MAX)
            .filter(|h| h & 0x7c00 != 0x7c00 && h & 0x7f80 != 0x7f80)
            .flat_map(u16::to_le_bytes)
            .collect();
        let bytes = &bytes[..bytes.len() / 64 * 64];
        let f16_bf16 = |isa: Isa, lanes: usize| {
            let mut out = Vec::new();
            across(isa, &[], bytes, &mut out);
            let per_chunk = 2 * lanes + 1;
            out[4..].chunks(per_chunk).flat_map(|c| c[..2 * lanes].to_vec()).map(f32::to_bits).collect::<Vec<_>>()
        };
        let scalar = f16_bf16(Isa::Scalar, 8);
        for isa in available() {
            assert!(f16_bf16(isa, isa.lanes()) == scalar, "{isa}");
        }
    }
}
