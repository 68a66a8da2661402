//! Few tokens on aarch64, and products of bytes with NEON, with or without instructions for them.
//!
//! Such an instruction takes two signed operands. Weights up to 127 are signed as they are; larger ones, all of which stand
//! for numbers around 128, are moved down by that and have no minima then.

use std::arch::aarch64::*;
use std::arch::asm;

use imaginal_numeric::Format;

use super::read::{self, block_of, with_formats};
use super::steps::Steps;
use super::{Activations, CHUNK, Kernel, PLAIN, Read, Weights, whole};
use crate::simd::prefetch;

/// Steps of reading with NEON; the compiler finds the others.
#[derive(Clone, Copy)]
struct Neon;

impl Steps for Neon {
    #[inline(always)]
    fn look_up(self, table: &[u8; 16], q: &mut [u8; CHUNK]) {
        // SAFETY: NEON is part of aarch64; whole arrays are read and written.
        unsafe {
            let table = vld1q_u8(table.as_ptr());
            for q in q.as_chunks_mut::<16>().0 {
                vst1q_u8(q.as_mut_ptr(), vqtbl1q_u8(table, vld1q_u8(q.as_ptr())));
            }
        }
    }

    #[inline(always)]
    fn widen<const N: usize>(self, bits: [u16; N]) -> [f32; N] {
        assert!(N <= 8);
        let (mut eight, mut wide) = ([0; 8], [0.0; 8]);
        eight[..N].copy_from_slice(&bits);
        // SAFETY: NEON is part of aarch64; whole arrays are read and written.
        unsafe {
            let x = vreinterpretq_f16_u16(vld1q_u16(eight.as_ptr()));
            vst1q_f32(wide.as_mut_ptr(), vcvt_f32_f16(vget_low_f16(x)));
            vst1q_f32(wide.as_mut_ptr().add(4), vcvt_high_f32_f16(x));
        }
        std::array::from_fn(|i| wide[i])
    }
}

/// Products of signed bytes.
pub(super) trait Dot: Copy {
    /// Adds to each lane its four products.
    fn dot(self, sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t;

    /// Adds to each lane its products with the four bytes of one lane of `b`.
    #[inline(always)]
    fn dot_lane<const LANE: i32>(self, sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: NEON is part of aarch64; no memory is touched.
        self.dot(sums, a, unsafe { vreinterpretq_s8_s32(vdupq_laneq_s32::<LANE>(vreinterpretq_s32_s8(b))) })
    }
}

/// Without instructions for sums of products. One factor must not be below -127, so that two products fit into 16 bits.
#[derive(Clone, Copy)]
pub(super) struct Pairs;

impl Dot for Pairs {
    #[inline(always)]
    fn dot(self, sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: NEON is part of aarch64; no memory is touched.
        unsafe {
            let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
            vpadalq_s16(sums, vpaddq_s16(low, vmull_high_s8(a, b)))
        }
    }
}

/// With them. As assembly, because the functions for them are not stable yet.
#[derive(Clone, Copy)]
pub(super) struct Sdot(());

impl Sdot {
    /// # Safety
    /// The CPU must have dot products.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Sdot(())
    }
}

impl Dot for Sdot {
    #[inline(always)]
    fn dot(self, mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: only made where the CPU has the instruction, which works on registers only.
        unsafe {
            asm!("sdot {:v}.4s, {:v}.16b, {:v}.16b", inout(vreg) sums, in(vreg) a, in(vreg) b,
                options(pure, nomem, nostack, preserves_flags));
        }
        sums
    }

    #[inline(always)]
    fn dot_lane<const LANE: i32>(self, mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: as above.
        unsafe {
            asm!("sdot {:v}.4s, {:v}.16b, {:v}.4b[{}]", inout(vreg) sums, in(vreg) a, in(vreg) b, const LANE,
                options(pure, nomem, nostack, preserves_flags));
        }
        sums
    }
}

/// 16 weights as signed bytes, those of `LARGE` formats moved down by 128.
///
/// # Safety
/// They must be readable.
#[inline(always)]
pub(super) unsafe fn signed<const LARGE: bool>(q: *const u8) -> int8x16_t {
    // SAFETY: readable by the caller's promise; NEON is part of aarch64.
    unsafe {
        let q = vld1q_u8(q);
        vreinterpretq_s8_u8(if LARGE { veorq_u8(q, vdupq_n_u8(128)) } else { q })
    }
}

/// Makes kernels of each format from what reads it.
macro_rules! kernels {
    ($($format:ident $name:ident: $bytes:literal, $group:literal, $zero:expr, $largest:literal;)*) => {
        $(mod $name {
            use super::*;

            pub(super) fn read(block: &[u8], w: &mut Weights) {
                read::$name(Neon, block_of(block), w);
            }

            #[target_feature(enable = "dotprod")]
            pub(super) fn sdot(bytes: &[u8], x: &[Activations], stride: usize, out: &mut [f32]) {
                row_sdot::<{ $largest > 127 }>(read, $bytes, bytes, x, stride, out);
            }

            pub(super) fn pairs(bytes: &[u8], x: &[Activations], stride: usize, out: &mut [f32]) {
                row_pairs::<{ $largest > 127 }>(read, $bytes, bytes, x, stride, out);
            }
        })*

        /// What reads and multiplies a format with dot products.
        pub(super) fn with_dot_products(format: Format) -> Option<Kernel> {
            Some(match format {
                $(Format::$format => Kernel { read: $name::read, row: $name::sdot, one: None, order: &PLAIN },)*
                _ => return None,
            })
        }

        /// What reads and multiplies a format without them.
        pub(super) fn without(format: Format) -> Option<Kernel> {
            Some(match format {
                $(Format::$format => Kernel { read: $name::read, row: $name::pairs, one: None, order: &PLAIN },)*
                _ => return None,
            })
        }
    };
}
with_formats!(kernels);

/// [`row`] with dot products.
#[target_feature(enable = "dotprod")]
fn row_sdot<const LARGE: bool>(
    read: Read,
    chunk: usize,
    bytes: &[u8],
    x: &[Activations],
    stride: usize,
    out: &mut [f32],
) {
    // SAFETY: this function runs only where its features exist.
    row::<_, LARGE>(unsafe { Sdot::new() }, read, chunk, bytes, x, stride, out);
}

/// [`row`] without them.
fn row_pairs<const LARGE: bool>(
    read: Read,
    chunk: usize,
    bytes: &[u8],
    x: &[Activations],
    stride: usize,
    out: &mut [f32],
) {
    row::<_, LARGE>(Pairs, read, chunk, bytes, x, stride, out);
}

/// The products of a row with each of the tokens, whose chunks are `stride` apart.
#[inline(always)]
fn row<D: Dot, const LARGE: bool>(
    d: D,
    read: Read,
    chunk: usize,
    bytes: &[u8],
    x: &[Activations],
    stride: usize,
    out: &mut [f32],
) {
    for (x, out) in x.chunks(4 * stride).zip(out.chunks_mut(4)) {
        match out.len() {
            1 => tokens::<D, LARGE, 1>(d, read, chunk, bytes, x, stride, out),
            2 => tokens::<D, LARGE, 2>(d, read, chunk, bytes, x, stride, out),
            3 => tokens::<D, LARGE, 3>(d, read, chunk, bytes, x, stride, out),
            _ => tokens::<D, LARGE, 4>(d, read, chunk, bytes, x, stride, out),
        }
    }
}

/// The products of a row with `M` tokens.
#[inline(always)]
fn tokens<D: Dot, const LARGE: bool, const M: usize>(
    d: D,
    read: Read,
    chunk: usize,
    bytes: &[u8],
    x: &[Activations],
    stride: usize,
    out: &mut [f32],
) {
    // SAFETY: NEON is part of aarch64, and what is called has nothing else.
    unsafe {
        let mut acc = [[vdupq_n_f32(0.0); 2]; M];
        let mut w = Weights::ZERO;
        for (i, block) in bytes.chunks(chunk).enumerate() {
            // Rows follow each other: what comes in a while is on its way when it is asked for.
            for line in 0..chunk.div_ceil(64) {
                prefetch(block.as_ptr().wrapping_add(2048 + 64 * line).cast());
            }
            whole(block, chunk, |block| read(block, &mut w));
            for (t, acc) in acc.iter_mut().enumerate() {
                add::<D, LARGE>(d, &w, &x[t * stride + i], acc);
            }
        }
        for (out, [a, b]) in out.iter_mut().zip(acc) {
            *out = vaddvq_f32(vaddq_f32(a, b));
        }
    }
}

/// Adds the products of 256 weights with as many activations, and of minima with sums.
#[inline(always)]
fn add<D: Dot, const LARGE: bool>(d: D, w: &Weights, x: &Activations, acc: &mut [float32x4_t; 2]) {
    for i in 0..4 {
        // SAFETY: NEON is part of aarch64; the loads lie in the fields.
        unsafe {
            let mut dots = [vdupq_n_s32(0); 4];
            for (j, dots) in dots.iter_mut().enumerate() {
                let at = 64 * i + 16 * j;
                *dots = d.dot(*dots, signed::<LARGE>(w.q.as_ptr().add(at)), vld1q_s8(x.q.as_ptr().add(at)));
            }
            // One sum of 16 products in each lane.
            let [a, b, c, d] = dots;
            let dots = vcvtq_f32_s32(vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)));
            let four = |of: &[f32; 16]| vld1q_f32(of.as_ptr().add(4 * i));
            acc[0] = vfmaq_f32(acc[0], dots, vmulq_f32(four(&w.scale), four(&x.scale)));
            if !LARGE {
                acc[1] = vfmaq_f32(acc[1], four(&w.min), four(&x.sum));
            }
        }
    }
}
