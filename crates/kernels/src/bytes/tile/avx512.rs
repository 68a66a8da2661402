//! 32 rows by six tokens, with AVX-512-VNNI.

use std::arch::x86_64::*;

use super::{Tile, in_blocks};
use crate::bytes::many::{Column, Panel, ROWS};
use crate::bytes::read::Layout;

/// The tile for a format.
pub(super) fn of(layout: Layout) -> Tile {
    let multiply = match (layout.group, layout.zero) {
        (16, None) => multiply::<16, true>,
        (16, Some(_)) => multiply::<16, false>,
        (_, None) => multiply::<32, true>,
        (_, Some(_)) => multiply::<32, false>,
    };
    Tile { multiply, zero: layout.zero.unwrap_or(0) }
}

/// All tokens, six at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn multiply<const GROUP: usize, const MINIMA: bool>(panel: &Panel, x: &[Column], sums: &mut [[f32; ROWS]]) {
    in_blocks!(x, sums, 6, 5, 4, 3, 2, 1; |x, sums| tile::<_, GROUP, MINIMA>(panel, x, sums));
}

/// `M` tokens: one broadcast word of activations meets two vectors of weights.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile<const M: usize, const GROUP: usize, const MINIMA: bool>(
    panel: &Panel,
    x: &[Column; M],
    sums: &mut [[f32; ROWS]; M],
) {
    // SAFETY: each load and store lies in its row of 32 or is of one element.
    unsafe {
        let rows = |row: &[f32; ROWS], r: usize| _mm512_load_ps(row.as_ptr().add(16 * r));
        let mut acc = [[_mm512_setzero_ps(); 2]; M];
        for (acc, sums) in acc.iter_mut().zip(&*sums) {
            *acc = [rows(sums, 0), rows(sums, 1)];
        }
        for g in 0..256 / GROUP {
            let part = g * GROUP / 32;
            let mut dots = [[_mm512_setzero_si512(); 2]; M];
            for (dots, x) in dots.iter_mut().zip(x) {
                *dots = [_mm512_set1_epi32(x.start[g]); 2];
            }
            for word in 0..GROUP / 4 {
                let q = panel.q[g * GROUP / 4 + word].as_ptr();
                let q = [_mm512_load_si512(q.cast()), _mm512_load_si512(q.add(16).cast())];
                for (dots, x) in dots.iter_mut().zip(x) {
                    let x = _mm512_set1_epi32(x.q.as_flattened()[g * GROUP / 4 + word] as i32);
                    for r in 0..2 {
                        dots[r] = _mm512_dpbusd_epi32(dots[r], q[r], x);
                    }
                }
            }
            let scale = &panel.scale[g * GROUP / 16];
            let scale = [rows(scale, 0), rows(scale, 1)];
            let min = &panel.min[g * GROUP / 16];
            for ((acc, dots), x) in acc.iter_mut().zip(dots).zip(x) {
                let (by, base, sum) =
                    (_mm512_set1_ps(x.scale[part]), _mm512_set1_ps(x.base[part]), _mm512_set1_ps(x.sum[g]));
                for r in 0..2 {
                    let dots = _mm512_fmadd_ps(_mm512_castsi512_ps(dots[r]), by, base);
                    acc[r] = _mm512_fmadd_ps(dots, scale[r], acc[r]);
                    if MINIMA {
                        acc[r] = _mm512_fmadd_ps(rows(min, r), sum, acc[r]);
                    }
                }
            }
        }
        for (acc, sums) in acc.into_iter().zip(sums) {
            _mm512_store_ps(sums.as_mut_ptr(), acc[0]);
            _mm512_store_ps(sums.as_mut_ptr().add(16), acc[1]);
        }
    }
}

/// Adds the products of one panel or two, whose scales are coarse, with each column to the sums, those of the second panel after
/// those of the first. With two, half as many instructions load what is multiplied, and those bound this.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(in crate::bytes) fn coarse(panels: &[Panel], x: &[Column], sums: &mut [[f32; ROWS]]) {
    let (first, second) = sums.split_at_mut(x.len());
    match panels {
        [a, b] => {
            let mut done = 0;
            in_blocks!(x, first, 6, 5, 4, 3, 2, 1; |x, sums| {
                coarse_tile([a, b], x, [sums, &mut second[done..]]);
                done += x.len();
            });
            assert_eq!(done, x.len());
        }
        [a] => {
            in_blocks!(x, first, 6, 5, 4, 3, 2, 1; |x, sums| { coarse_tile([a], x, [sums]); });
        }
        _ => unreachable!("one panel or two"),
    }
}

/// `M` tokens and 32 or 64 rows with one scale each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn coarse_tile<const M: usize, const P: usize>(panels: [&Panel; P], x: &[Column; M], sums: [&mut [[f32; ROWS]]; P]) {
    // SAFETY: each load and store lies in its row of 32 or is of one element.
    unsafe {
        let mut dots = [[[_mm512_setzero_si512(); 2]; M]; P];
        for dots in &mut dots {
            for (dots, x) in dots.iter_mut().zip(x) {
                *dots = [_mm512_set1_epi32(x.start[0]); 2];
            }
        }
        for words in 0..32 {
            for word in [2 * words, 2 * words + 1] {
                let q = panels.map(|panel| {
                    let q = panel.q[word].as_ptr();
                    [_mm512_load_si512(q.cast()), _mm512_load_si512(q.add(16).cast())]
                });
                for (t, x) in x.iter().enumerate() {
                    let x = _mm512_set1_epi32(x.q.as_flattened()[word] as i32);
                    for (dots, q) in dots.iter_mut().zip(&q) {
                        for r in 0..2 {
                            dots[t][r] = _mm512_dpbusd_epi32(dots[t][r], q[r], x);
                        }
                    }
                }
            }
        }
        for ((panel, dots), sums) in panels.into_iter().zip(dots).zip(sums) {
            let scale = [0, 16].map(|r| _mm512_load_ps(panel.scale[0].as_ptr().add(r)));
            for ((dots, x), sums) in dots.into_iter().zip(x).zip(sums) {
                let (by, base) = (_mm512_set1_ps(x.scale[0]), _mm512_set1_ps(x.base[0]));
                for r in 0..2 {
                    let to = sums.as_mut_ptr().add(16 * r);
                    let dots = _mm512_fmadd_ps(_mm512_castsi512_ps(dots[r]), by, base);
                    _mm512_store_ps(to, _mm512_fmadd_ps(dots, scale[r], _mm512_load_ps(to)));
                }
            }
        }
    }
}
