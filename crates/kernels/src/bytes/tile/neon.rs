//! 16 rows by four tokens, with NEON.

use std::arch::aarch64::*;

use super::{Tile, in_blocks};
use crate::bytes::many::{Column, Panel, ROWS};
use crate::bytes::neon::{Dot, Pairs, Sdot, signed};
use crate::bytes::read::Layout;

/// Defines the tile for a format from a token of [`Dot`].
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
    unsafe { Sdot::new() }
}
tiles! {
    /// The tile for a format without them.
    without: => Pairs
}

/// `M` tokens and the 16 rows from `first` on: words of activations meet four vectors of weights.
#[inline(always)]
fn tile<D: Dot, const M: usize, const GROUP: usize, const MINIMA: bool, const LARGE: bool>(
    d: D,
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
            for word in (g * GROUP / 4..(g + 1) * GROUP / 4).step_by(4) {
                let mut four = [vdupq_n_s8(0); M];
                for (four, x) in four.iter_mut().zip(x) {
                    *four = vld1q_s8(x.q.as_flattened()[word..word + 4].as_ptr().cast());
                }
                macro_rules! lane {
                    ($lane:literal) => {
                        let q = panel.q[word + $lane].as_ptr().add(first);
                        let q = [0, 4, 8, 12].map(|r| signed::<LARGE>(q.add(r).cast()));
                        for (dots, four) in dots.iter_mut().zip(four) {
                            for (dots, q) in dots.iter_mut().zip(q) {
                                *dots = d.dot_lane::<$lane>(*dots, q, four);
                            }
                        }
                    };
                }
                lane!(0);
                lane!(1);
                lane!(2);
                lane!(3);
            }
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
