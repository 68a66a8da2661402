//! 16 rows by four tokens, with NEON.

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use super::{Tile, in_blocks};
use crate::bytes::many::{Column, Panel, ROWS};
use crate::bytes::neon::{Dot, Pairs, Sdot, signed};
use crate::bytes::read::Layout;

/// Defines the tile for a format from [`Products`].
macro_rules! tiles {
    ($(#[$doc:meta])* $of:ident: $(#[$feature:meta])? => $token:expr) => {
        $(#[$doc])*
        pub(super) fn $of(layout: Layout) -> Tile {
            $(#[$feature])?
            fn multiply<const GROUP: usize, const MINIMA: bool, const LARGE: bool>(
                panel: &Panel,
                x: &[Column],
                sums: &mut [[f32; ROWS]],
            ) {
                let token = $token;
                in_blocks!(x, sums, 4, 3, 2, 1; |x, sums| {
                    tile::<_, _, GROUP, MINIMA, LARGE>(token, panel, x, sums, 0);
                    tile::<_, _, GROUP, MINIMA, LARGE>(token, panel, x, sums, 16);
                });
            }
            let multiply = match (layout.group, layout.zero, layout.largest) {
                (16, None, ..128) => multiply::<16, true, false>,
                (16, Some(_), ..128) => multiply::<16, false, false>,
                (32, None, ..128) => multiply::<32, true, false>,
                (32, Some(_), ..128) => multiply::<32, false, false>,
                (32, Some(128), _) => return Tile { multiply: multiply::<32, false, true>, zero: 0 },
                _ => unreachable!("no format is like {layout:?}"),
            };
            Tile { multiply, zero: layout.zero.unwrap_or(0) }
        }
    };
}

tiles! {
    /// The tile for a format with dot products.
    with_dot_products: #[target_feature(enable = "dotprod")] =>
    // SAFETY: this function runs only where its features exist.
    Lanes(unsafe { Sdot::new() })
}
tiles! {
    /// The tile for a format with products of matrices.
    with_matrices: #[target_feature(enable = "dotprod,i8mm")] =>
    // SAFETY: this function runs only where its features exist.
    unsafe { Matrices::new() }
}
tiles! {
    /// The tile for a format without them.
    without: => Lanes(Pairs)
}

/// Products of bytes of 16 rows and some tokens.
trait Products: Copy {
    /// Adds to the sums, for each token four vectors of rows, the products of the `words` from the rows `first` on.
    ///
    /// # Safety
    /// The rows and words must exist; the words are whole fours.
    unsafe fn add<const M: usize, const LARGE: bool>(
        self,
        panel: &Panel,
        x: &[Column; M],
        words: Range<usize>,
        first: usize,
        sums: &mut [[int32x4_t; 4]; M],
    );
}

/// Words of activations, each a lane of a vector, meet four vectors of weights.
#[derive(Clone, Copy)]
struct Lanes<D>(D);

impl<D: Dot> Products for Lanes<D> {
    #[inline(always)]
    unsafe fn add<const M: usize, const LARGE: bool>(
        self,
        panel: &Panel,
        x: &[Column; M],
        words: Range<usize>,
        first: usize,
        sums: &mut [[int32x4_t; 4]; M],
    ) {
        // SAFETY: NEON is part of aarch64; the rest is the caller's promise.
        unsafe {
            for word in words.step_by(4) {
                let mut four = [vdupq_n_s8(0); M];
                for (four, x) in four.iter_mut().zip(x) {
                    *four = vld1q_s8(x.q.as_flattened()[word..word + 4].as_ptr().cast());
                }
                macro_rules! lane {
                    ($lane:literal) => {
                        let q = panel.q[word + $lane].as_ptr().add(first);
                        let q = [0, 4, 8, 12].map(|r| signed::<LARGE>(q.add(r).cast()));
                        for (sums, four) in sums.iter_mut().zip(four) {
                            for (sums, q) in sums.iter_mut().zip(q) {
                                *sums = self.0.dot_lane::<$lane>(*sums, q, four);
                            }
                        }
                    };
                }
                lane!(0);
                lane!(1);
                lane!(2);
                lane!(3);
            }
        }
    }
}

/// Matrices of two rows by eight bytes meet those of two tokens. As assembly, because the function for it is not stable
/// yet.
#[derive(Clone, Copy)]
struct Matrices(());

impl Matrices {
    /// # Safety
    /// The CPU must have products of matrices.
    #[inline(always)]
    unsafe fn new() -> Self {
        Matrices(())
    }

    /// Adds the products of rows and tokens: row 0 with both tokens, then row 1.
    #[inline(always)]
    fn multiply(self, mut sums: int32x4_t, rows: int8x16_t, tokens: int8x16_t) -> int32x4_t {
        // SAFETY: only made where the CPU has the instruction, which works on registers only.
        unsafe {
            asm!("smmla {:v}.4s, {:v}.16b, {:v}.16b", inout(vreg) sums, in(vreg) rows, in(vreg) tokens,
                options(pure, nomem, nostack, preserves_flags));
        }
        sums
    }
}

impl Products for Matrices {
    #[inline(always)]
    unsafe fn add<const M: usize, const LARGE: bool>(
        self,
        panel: &Panel,
        x: &[Column; M],
        words: Range<usize>,
        first: usize,
        sums: &mut [[int32x4_t; 4]; M],
    ) {
        // SAFETY: NEON is part of aarch64; the rest is the caller's promise.
        unsafe {
            // Two rows by two tokens each; of an odd number of tokens the last is paired with itself.
            let mut blocks = [[vdupq_n_s32(0); 8]; M];
            let pairs = M.div_ceil(2);
            for word in words.step_by(2) {
                let eight = |m: usize| vld1_s8(x[m.min(M - 1)].q.as_flattened()[word..word + 2].as_ptr().cast());
                let mut tokens = [vdupq_n_s8(0); M];
                for (p, tokens) in tokens.iter_mut().enumerate().take(pairs) {
                    *tokens = vcombine_s8(eight(2 * p), eight(2 * p + 1));
                }
                for r in 0..4 {
                    let [low, high] = [word, word + 1].map(|word| {
                        vreinterpretq_s32_s8(signed::<LARGE>(panel.q[word].as_ptr().add(first + 4 * r).cast()))
                    });
                    let rows = [vzip1q_s32(low, high), vzip2q_s32(low, high)].map(|rows| vreinterpretq_s8_s32(rows));
                    for (blocks, tokens) in blocks.iter_mut().zip(tokens).take(pairs) {
                        blocks[2 * r] = self.multiply(blocks[2 * r], rows[0], tokens);
                        blocks[2 * r + 1] = self.multiply(blocks[2 * r + 1], rows[1], tokens);
                    }
                }
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let blocks = &blocks[m / 2];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let (a, b) = (blocks[2 * r], blocks[2 * r + 1]);
                    *sums = vaddq_s32(*sums, if m % 2 == 0 { vuzp1q_s32(a, b) } else { vuzp2q_s32(a, b) });
                }
            }
        }
    }
}

/// `M` tokens and the 16 rows from `first` on.
#[inline(always)]
fn tile<P: Products, const M: usize, const GROUP: usize, const MINIMA: bool, const LARGE: bool>(
    products: P,
    panel: &Panel,
    x: &[Column; M],
    sums: &mut [[f32; ROWS]; M],
    first: usize,
) {
    assert!(first + 16 <= ROWS);
    // SAFETY: NEON is part of aarch64; each load and store lies in its row of 32 or in the words of a column.
    unsafe {
        let rows = |row: &[f32; ROWS], r: usize| vld1q_f32(row.as_ptr().add(first + 4 * r));
        for g in 0..256 / GROUP {
            let part = g * GROUP / 32;
            let mut dots = [[vdupq_n_s32(0); 4]; M];
            for (dots, x) in dots.iter_mut().zip(x) {
                *dots = [vdupq_n_s32(x.start[g]); 4];
            }
            products.add::<M, LARGE>(panel, x, g * GROUP / 4..(g + 1) * GROUP / 4, first, &mut dots);
            let scale = &panel.scale[g * GROUP / 16];
            let min = &panel.min[g * GROUP / 16];
            for ((sums, dots), x) in sums.iter_mut().zip(dots).zip(x) {
                let base = vdupq_n_f32(x.base[part]);
                for (r, dots) in dots.into_iter().enumerate() {
                    let dots = vfmaq_n_f32(base, vreinterpretq_f32_s32(dots), x.scale[part]);
                    let mut acc = vfmaq_f32(rows(sums, r), dots, rows(scale, r));
                    if MINIMA {
                        acc = vfmaq_n_f32(acc, rows(min, r), x.sum[g]);
                    }
                    vst1q_f32(sums.as_mut_ptr().add(first + 4 * r), acc);
                }
            }
        }
    }
}
