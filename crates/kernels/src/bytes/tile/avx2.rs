//! 16 rows by four tokens, with AVX2, and where the CPU has them with its dot products of bytes (AVX-VNNI). Without, there is a
//! tile for integer scales and one, of six tokens, for numbers of 16 bits.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{Multiply, Tile, in_blocks};
use crate::bytes::integer::Words;
use crate::bytes::many::{Column, Panel, ROWS};
use crate::bytes::read::Layout;

/// The tile for a format with AVX-VNNI.
pub(super) fn with_dot_products(layout: Layout) -> Tile {
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

/// For how many words pairs of products can be summed in 16 bits: as many as the largest weight allows.
fn words(layout: Layout) -> u32 {
    32767 / (2 * 127 * u32::from(layout.largest))
}

/// One of the functions for tokens that add products in pairs.
macro_rules! in_pairs {
    ($multiply:ident, $layout:expr) => {
        match ($layout.group, $layout.zero.is_none(), words($layout)) {
            (16, true, _) => $multiply::<16, true, 4>,
            (16, false, 4..) => $multiply::<16, false, 4>,
            (16, false, 2..) => $multiply::<16, false, 2>,
            (16, false, _) => $multiply::<16, false, 1>,
            (_, true, 8..) => $multiply::<32, true, 8>,
            (_, true, _) => $multiply::<32, true, 4>,
            (_, false, 8..) => $multiply::<32, false, 8>,
            (_, false, 4..) => $multiply::<32, false, 4>,
            (_, false, 1..) => $multiply::<32, false, 1>,
            _ => panic!("pairs of products with numbers up to {}", $layout.largest),
        }
    };
}

/// The tile for a format without it.
///
/// # Panics
/// If products of its numbers overflow in pairs.
pub(super) fn in_pairs(layout: Layout) -> Tile {
    Tile { multiply: in_pairs!(multiply, layout), zero: layout.zero.unwrap_or(0) }
}

/// The tile for a format with integer scales.
///
/// # Panics
/// If products of its numbers overflow in pairs.
pub(in crate::bytes) fn integers(layout: Layout) -> Multiply {
    in_pairs!(multiply_integers, layout)
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

/// The same for a panel with [`Words`].
#[target_feature(enable = "avx2,fma")]
fn multiply_integers<const GROUP: usize, const MINIMA: bool, const WORDS: usize>(
    panel: &Panel,
    x: &[Column],
    sums: &mut [[f32; ROWS]],
) {
    in_blocks!(x, sums, 4, 3, 2, 1; |x, sums| {
        integer_tile::<_, GROUP, MINIMA, WORDS>(panel, x, sums, 0);
        integer_tile::<_, GROUP, MINIMA, WORDS>(panel, x, sums, 16);
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
            for run in words.step_by(WORDS) {
                let pairs = pairs::<M, WORDS>(panel, x, run, first);
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

/// The sums of two products each of the `WORDS` words from `run` on.
///
/// # Safety
/// There must be AVX2, and the rows and words must exist.
#[inline(always)]
unsafe fn pairs<const M: usize, const WORDS: usize>(
    panel: &Panel,
    x: &[Column; M],
    run: usize,
    first: usize,
) -> [[__m256i; 2]; M] {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut pairs = [[_mm256_setzero_si256(); 2]; M];
        for word in run..run + WORDS {
            let q = panel.q[word].as_ptr().add(first);
            let q = [_mm256_load_si256(q.cast()), _mm256_load_si256(q.add(8).cast())];
            for (pairs, x) in pairs.iter_mut().zip(x) {
                let x = _mm256_set1_epi32(x.q.as_flattened()[word] as i32);
                for r in 0..2 {
                    pairs[r] = _mm256_add_epi16(pairs[r], _mm256_maddubs_epi16(q[r], x));
                }
            }
        }
        pairs
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

/// `M` tokens and the 16 rows from `first` on, with integer scales.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn integer_tile<const M: usize, const GROUP: usize, const MINIMA: bool, const WORDS: usize>(
    panel: &Panel,
    x: &[Column; M],
    sums: &mut [[f32; ROWS]; M],
    first: usize,
) {
    assert!(first + 16 <= ROWS);
    let words = Words::of(GROUP);
    // SAFETY: each load and store lies in its row of 32 or is of one element.
    unsafe {
        let row = |word: usize| if word < 16 { &panel.scale[word] } else { &panel.min[word - 16] }.as_ptr().add(first);
        let integers = |word: usize| [0, 8].map(|r| _mm256_load_si256(row(word).add(r).cast()));
        let floats = |word: usize| [0, 8].map(|r| _mm256_load_ps(row(word).add(r)));
        // What minima, two at a time, make of the sums of activations.
        let mut minima = [[_mm256_setzero_si256(); 2]; M];
        for g in 0..128 / GROUP {
            let min = integers(words.minima + g);
            for (minima, x) in minima.iter_mut().zip(x) {
                let sums = _mm256_set1_epi32(x.start[g]);
                for r in 0..2 {
                    minima[r] = _mm256_add_epi32(minima[r], _mm256_madd_epi16(min[r], sums));
                }
            }
        }
        let mut dots = if MINIMA { [[_mm256_setzero_si256(); 2]; M] } else { minima };
        for g in 0..256 / GROUP {
            let scale = integers(g);
            for run in (g * GROUP / 4..(g + 1) * GROUP / 4).step_by(WORDS) {
                let pairs = pairs::<M, WORDS>(panel, x, run, first);
                for (dots, pairs) in dots.iter_mut().zip(pairs) {
                    for r in 0..2 {
                        dots[r] = _mm256_add_epi32(dots[r], _mm256_madd_epi16(pairs[r], scale[r]));
                    }
                }
            }
        }
        let (unit, min_unit) = (floats(words.unit), floats(words.min_unit));
        for (((sums, dots), minima), x) in sums.iter_mut().zip(dots).zip(minima).zip(x) {
            let by = _mm256_set1_ps(x.scale[0]);
            for r in 0..2 {
                let to = sums.as_mut_ptr().add(first + 8 * r);
                let mut acc = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[r]), unit[r]);
                if MINIMA {
                    acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(minima[r]), min_unit[r], acc);
                }
                _mm256_store_ps(to, _mm256_fmadd_ps(acc, by, _mm256_load_ps(to)));
            }
        }
    }
}

/// Adds the products of a panel of numbers of 16 bits, of whose scales the first `SCALES` are those of as many parts of it, with
/// each column to the sums.
#[target_feature(enable = "avx2,fma")]
pub(in crate::bytes) fn wide<const SCALES: usize>(panel: &Panel, x: &[Column], sums: &mut [[f32; ROWS]]) {
    in_blocks!(x, sums, 6, 5, 4, 3, 2, 1; |x, sums| {
        wide_tile::<_, SCALES>(panel, x, sums, 0);
        wide_tile::<_, SCALES>(panel, x, sums, 16);
    });
}

/// `M` tokens and the 16 rows from `first` on, with numbers of 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn wide_tile<const M: usize, const SCALES: usize>(
    panel: &Panel,
    x: &[Column; M],
    sums: &mut [[f32; ROWS]; M],
    first: usize,
) {
    assert!(first + 16 <= ROWS);
    let words = panel.q.len() / SCALES;
    // SAFETY: each load and store lies in its row of 32 or is of one element.
    unsafe {
        for (part, scale) in panel.scale[..SCALES].iter().enumerate() {
            let mut dots = [[_mm256_setzero_si256(); 2]; M];
            for word in part * words..(part + 1) * words {
                let q = [0, 8].map(|r| _mm256_load_si256(panel.q[word].as_ptr().add(first + r).cast()));
                for (dots, x) in dots.iter_mut().zip(x) {
                    let x = _mm256_set1_epi32(x.q.as_flattened()[word] as i32);
                    for r in 0..2 {
                        dots[r] = _mm256_add_epi32(dots[r], _mm256_madd_epi16(q[r], x));
                    }
                }
            }
            for ((sums, dots), x) in sums.iter_mut().zip(dots).zip(x) {
                let by = _mm256_set1_ps(x.scale[0]);
                for r in 0..2 {
                    let to = sums.as_mut_ptr().add(first + 8 * r);
                    let scale = _mm256_load_ps(scale.as_ptr().add(first + 8 * r));
                    let dots = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[r]), scale);
                    _mm256_store_ps(to, _mm256_fmadd_ps(dots, by, _mm256_load_ps(to)));
                }
            }
        }
    }
}
