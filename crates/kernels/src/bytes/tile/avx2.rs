//! 16 rows by four tokens, with AVX2.

use std::arch::x86_64::*;

use super::{Tile, in_blocks};
use crate::bytes::many::{Column, Panel, ROWS};
use crate::bytes::read::Layout;

/// The tile for a format.
///
/// Pairs of products are summed in 16 bits for as many words as the largest weight allows: 8, 4, 2 or 1; 0 stands for
/// weights that are multiplied as magnitudes with activations that have taken their signs.
pub(super) fn of(layout: Layout) -> Tile {
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
    in_blocks!(x, sums, 4, 3, 2, 1; |x, sums| {
        tile::<_, GROUP, MINIMA, WORDS>(panel, x, sums, 0);
        tile::<_, GROUP, MINIMA, WORDS>(panel, x, sums, 16);
    });
}

/// `M` tokens and the 16 rows from `first` on: one broadcast word of activations meets two vectors of weights.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn tile<const M: usize, const GROUP: usize, const MINIMA: bool, const WORDS: usize>(
    panel: &Panel,
    x: &[Column; M],
    sums: &mut [[f32; ROWS]; M],
    first: usize,
) {
    assert!(first + 16 <= ROWS);
    let ones = _mm256_set1_epi16(1);
    // SAFETY: each load and store lies in its row of 32 or is of one element.
    unsafe {
        let rows = |row: &[f32; ROWS], r: usize| _mm256_load_ps(row.as_ptr().add(first + 8 * r));
        for g in 0..256 / GROUP {
            let part = g * GROUP / 32;
            let mut dots = [[_mm256_setzero_si256(); 2]; M];
            for run in (0..GROUP / 4).step_by(WORDS.max(1)) {
                let mut pairs = [[_mm256_setzero_si256(); 2]; M];
                for word in run..run + WORDS.max(1) {
                    let q = panel.q[g * GROUP / 4 + word].as_ptr().add(first);
                    let mut q = [_mm256_load_si256(q.cast()), _mm256_load_si256(q.add(8).cast())];
                    let mut magnitude = q;
                    if WORDS == 0 {
                        q = q.map(|q| _mm256_xor_si256(q, _mm256_set1_epi8(-128)));
                        magnitude = q.map(|q| _mm256_abs_epi8(q));
                    }
                    for (pairs, x) in pairs.iter_mut().zip(x) {
                        let x = _mm256_set1_epi32(x.q.as_flattened()[g * GROUP / 4 + word] as i32);
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
