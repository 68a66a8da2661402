//! 16 rows by four tokens, with AVX2, and where the CPU has them with its dot products of bytes (AVX-VNNI).

use std::arch::x86_64::*;
use std::ops::Range;

use super::{Tile, in_blocks};
use crate::bytes::many::{Column, Panel, ROWS};
use crate::bytes::read::Layout;

/// The tile for a format.
pub(super) fn of(layout: Layout) -> Tile {
    if is_x86_feature_detected!("avxvnni") { with_dot_products(layout) } else { without(layout) }
}

/// The tile for a format with AVX-VNNI.
fn with_dot_products(layout: Layout) -> Tile {
    #[target_feature(enable = "avx2,fma,avxvnni")]
    fn multiply<const GROUP: usize, const MINIMA: bool>(panel: &Panel, x: &[Column], sums: &mut [[f32; ROWS]]) {
        // SAFETY: this function runs only where its features exist.
        let products = unsafe { Vnni::new() };
        in_blocks!(x, sums, 4, 3, 2, 1; |x, sums| {
            tile::<_, _, GROUP, MINIMA>(products, panel, x, sums, 0);
            tile::<_, _, GROUP, MINIMA>(products, panel, x, sums, 16);
        });
    }
    let multiply = match (layout.group, layout.zero) {
        (16, None) => multiply::<16, true>,
        (16, Some(_)) => multiply::<16, false>,
        (_, None) => multiply::<32, true>,
        (_, Some(_)) => multiply::<32, false>,
    };
    Tile { multiply, zero: layout.zero.unwrap_or(0) }
}

/// The tile for a format without it. Pairs of products are summed in 16 bits for as many words as the largest weight
/// allows: 8, 4, 2 or 1; 0 stands for weights that are multiplied as magnitudes with activations that have taken their
/// signs.
pub(super) fn without(layout: Layout) -> Tile {
    let words = 32767 / (2 * 127 * u32::from(layout.largest));
    let multiply = match (layout.group, layout.zero.is_none(), words) {
        (16, true, _) => multiply::<16, true, 4>,
        (16, false, 4..) => multiply::<16, false, 4>,
        (16, false, 2..) => multiply::<16, false, 2>,
        (16, false, _) => multiply::<16, false, 1>,
        (_, true, 8..) => multiply::<32, true, 8>,
        (_, true, _) => multiply::<32, true, 4>,
        (_, false, 8..) => multiply::<32, false, 8>,
        (_, false, 4..) => multiply::<32, false, 4>,
        (_, false, 1..) => multiply::<32, false, 1>,
        (_, false, 0) => return Tile { multiply: multiply::<32, false, 0>, zero: 0 },
    };
    Tile { multiply, zero: layout.zero.unwrap_or(0) }
}

/// All tokens, four at a time.
#[target_feature(enable = "avx2,fma")]
fn multiply<const GROUP: usize, const MINIMA: bool, const WORDS: usize>(
    panel: &Panel,
    x: &[Column],
    sums: &mut [[f32; ROWS]],
) {
    let products = Pairs::<WORDS>;
    in_blocks!(x, sums, 4, 3, 2, 1; |x, sums| {
        tile::<_, _, GROUP, MINIMA>(products, panel, x, sums, 0);
        tile::<_, _, GROUP, MINIMA>(products, panel, x, sums, 16);
    });
}

/// Products of bytes of 16 rows and some tokens.
trait Products: Copy {
    /// The sums of products of the `words`, from the rows `first` on, for each token two vectors of rows.
    ///
    /// # Safety
    /// The rows and words must exist.
    unsafe fn sum<const M: usize>(
        self,
        panel: &Panel,
        x: &[Column; M],
        words: Range<usize>,
        first: usize,
    ) -> [[__m256i; 2]; M];
}

/// Sums of four products at once.
#[derive(Clone, Copy)]
struct Vnni(());

impl Vnni {
    /// # Safety
    /// The CPU must have AVX-VNNI.
    #[inline(always)]
    unsafe fn new() -> Self {
        Vnni(())
    }
}

impl Products for Vnni {
    #[inline(always)]
    unsafe fn sum<const M: usize>(
        self,
        panel: &Panel,
        x: &[Column; M],
        words: Range<usize>,
        first: usize,
    ) -> [[__m256i; 2]; M] {
        // SAFETY: only made where the CPU has the instructions; the rest is the caller's promise.
        unsafe {
            let mut dots = [[_mm256_setzero_si256(); 2]; M];
            for word in words {
                let q = panel.q[word].as_ptr().add(first);
                let q = [_mm256_load_si256(q.cast()), _mm256_load_si256(q.add(8).cast())];
                for (dots, x) in dots.iter_mut().zip(x) {
                    let x = _mm256_set1_epi32(x.q.as_flattened()[word] as i32);
                    for r in 0..2 {
                        dots[r] = _mm256_dpbusd_avx_epi32(dots[r], q[r], x);
                    }
                }
            }
            dots
        }
    }
}

/// Sums of two products in 16 bits, added up for `WORDS` words before they are widened.
#[derive(Clone, Copy)]
struct Pairs<const WORDS: usize>;

impl<const WORDS: usize> Products for Pairs<WORDS> {
    #[inline(always)]
    unsafe fn sum<const M: usize>(
        self,
        panel: &Panel,
        x: &[Column; M],
        words: Range<usize>,
        first: usize,
    ) -> [[__m256i; 2]; M] {
        // SAFETY: only called where there is AVX2; the rest is the caller's promise.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let mut dots = [[_mm256_setzero_si256(); 2]; M];
            for run in words.step_by(WORDS.max(1)) {
                let mut pairs = [[_mm256_setzero_si256(); 2]; M];
                for word in run..run + WORDS.max(1) {
                    let q = panel.q[word].as_ptr().add(first);
                    let mut q = [_mm256_load_si256(q.cast()), _mm256_load_si256(q.add(8).cast())];
                    let mut magnitude = q;
                    if WORDS == 0 {
                        q = q.map(|q| _mm256_xor_si256(q, _mm256_set1_epi8(-128)));
                        magnitude = q.map(|q| _mm256_abs_epi8(q));
                    }
                    for (pairs, x) in pairs.iter_mut().zip(x) {
                        let x = _mm256_set1_epi32(x.q.as_flattened()[word] as i32);
                        for r in 0..2 {
                            let x = if WORDS == 0 { _mm256_sign_epi8(x, q[r]) } else { x };
                            pairs[r] = _mm256_add_epi16(pairs[r], _mm256_maddubs_epi16(magnitude[r], x));
                        }
                    }
                }
                for (dots, pairs) in dots.iter_mut().zip(pairs) {
                    for r in 0..2 {
                        dots[r] = _mm256_add_epi32(dots[r], _mm256_madd_epi16(pairs[r], ones));
                    }
                }
            }
            dots
        }
    }
}

/// `M` tokens and the 16 rows from `first` on: one broadcast word of activations meets two vectors of weights.
#[inline(always)]
fn tile<P: Products, const M: usize, const GROUP: usize, const MINIMA: bool>(
    products: P,
    panel: &Panel,
    x: &[Column; M],
    sums: &mut [[f32; ROWS]; M],
    first: usize,
) {
    assert!(first + 16 <= ROWS);
    // SAFETY: only called where there are AVX2 and FMA; each load and store lies in its row of 32 or is of one element.
    unsafe {
        let rows = |row: &[f32; ROWS], r: usize| _mm256_load_ps(row.as_ptr().add(first + 8 * r));
        for g in 0..256 / GROUP {
            let part = g * GROUP / 32;
            let dots = products.sum(panel, x, g * GROUP / 4..(g + 1) * GROUP / 4, first);
            let scale = &panel.scale[g * GROUP / 16];
            let min = &panel.min[g * GROUP / 16];
            for ((sums, dots), x) in sums.iter_mut().zip(dots).zip(x) {
                let start = _mm256_set1_epi32(x.start[g]);
                let (by, base, sum) =
                    (_mm256_set1_ps(x.scale[part]), _mm256_set1_ps(x.base[part]), _mm256_set1_ps(x.sum[g]));
                for r in 0..2 {
                    let dots = _mm256_castsi256_ps(_mm256_add_epi32(dots[r], start));
                    let mut acc = _mm256_fmadd_ps(_mm256_fmadd_ps(dots, by, base), rows(scale, r), rows(sums, r));
                    if MINIMA {
                        acc = _mm256_fmadd_ps(rows(min, r), sum, acc);
                    }
                    _mm256_store_ps(sums.as_mut_ptr().add(first + 8 * r), acc);
                }
            }
        }
    }
}
