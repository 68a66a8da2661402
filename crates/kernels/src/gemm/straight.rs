//! Some rows against an operand whose depth is contiguous: packing that operand would cost as much as the product, so its
//! elements are broadcast from where they lie, and the rows, packed once, are the vectors.

use std::ops::Range;

use super::MatRef;
use super::few::Out;
use super::pack::{Source, pack};
use crate::isa::{Isa, Simd, simd_fn};
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};
use crate::simd::prefetch;

/// Rows up to which this beats packing both operands.
pub(super) const MOST_ROWS: usize = 48;
/// Elements of packed rows that this is used for: they pass by each tile of columns and must stay in the L2 cache.
pub(super) const MOST_ELEMENTS: usize = 256 << 10;
/// Packed rows side by side: two vectors of the widest set, four of others.
const PANEL: usize = 32;
/// Columns of a tile: with two vectors each their sums fill most of 32 or 16 registers.
const WIDE: usize = 12;
const NARROW: usize = 6;
/// Steps of the depth at a time: a cache line of each column.
const STEPS: usize = 16;

/// c (+)= a·b, where a is m×k and `b` is k×n with contiguous depth (`b.rs` = 1).
#[allow(clippy::too_many_arguments)]
pub(super) fn run(isa: Isa, threads: usize, m: usize, n: usize, k: usize, a: MatRef<'_>, b: MatRef<'_>, out: &Out<'_>) {
    let tasks = |count: usize, f: &(dyn Fn(usize) + Sync)| {
        if threads > 1 { pool::parallel(count, f) } else { (0..count).for_each(f) }
    };
    let source = Source { data: a.data, ls: a.rs, ps: a.cs };
    with_buffer(Slot::A, m.next_multiple_of(PANEL) * k, |packed| {
        let shared = SharedMut::new(&mut *packed);
        let depth = k.div_ceil(threads).next_multiple_of(16);
        let parts = k.div_ceil(depth);
        tasks(m.div_ceil(PANEL) * parts, &|t| {
            let (first, p) = (t / parts * PANEL, t % parts * depth);
            let depth = depth.min(k - p);
            // SAFETY: panels and their parts do not overlap, each task has one.
            let dst = unsafe { shared.slice(first * k + p * PANEL, depth * PANEL) };
            pack(isa, source, first, PANEL.min(m - first), p, depth, PANEL, dst);
        });
        let packed = &*packed;
        let columns = (n.div_ceil(8 * threads)).next_multiple_of(WIDE);
        tasks(n.div_ceil(columns), &|t| {
            let columns = t * columns..n.min((t + 1) * columns);
            tiles(isa, columns, b, packed, m, k, out);
        });
    });
}

simd_fn! {
    /// The columns `columns` of the product of all packed rows.
    fn tiles<S>(s: S, columns: Range<usize>, b: MatRef<'_>, rows: &[f32], m: usize, k: usize, out: &Out<'_>) {
        let mut column = columns.start;
        while column < columns.end {
            let left = columns.end - column;
            let w = &b.data[column * b.cs..];
            let job = Job { w, stride: b.cs, rows, m, k, column, out };
            column += match left {
                WIDE.. if S::LANES == 16 => job.panels::<S, WIDE>(s),
                NARROW.. => job.panels::<S, NARROW>(s),
                3.. => job.panels::<S, 3>(s),
                _ => job.panels::<S, 1>(s),
            };
        }
    }
}

/// Some columns against all packed rows.
struct Job<'a> {
    /// The columns, `stride` elements apart, `k` long.
    w: &'a [f32],
    stride: usize,
    rows: &'a [f32],
    m: usize,
    k: usize,
    /// Where the first column stands in the product.
    column: usize,
    out: &'a Out<'a>,
}

impl Job<'_> {
    /// The product of `N` columns. Returns `N`.
    #[inline(always)]
    fn panels<S: Simd, const N: usize>(&self, s: S) -> usize {
        for first in (0..self.m).step_by(2 * S::LANES) {
            let rows = (self.m - first).min(2 * S::LANES);
            if rows > S::LANES {
                self.tile::<S, N, 2>(s, first, rows);
            } else {
                self.tile::<S, N, 1>(s, first, rows);
            }
        }
        N
    }

    /// The product of `N` columns and the `rows` rows from `first` on, `V` vectors of them.
    #[inline(always)]
    fn tile<S: Simd, const N: usize, const V: usize>(&self, s: S, first: usize, rows: usize) {
        let k = self.k;
        assert!(rows <= V * S::LANES && first % PANEL + V * S::LANES <= PANEL);
        assert!((N - 1) * self.stride + k <= self.w.len());
        let x = &self.rows[first / PANEL * PANEL * k..][..PANEL * k];
        let mut sums = [[s.zero(); V]; N];
        let x = x[first % PANEL..].as_ptr();
        for p in (0..k).step_by(STEPS) {
            // SAFETY: the columns lie in their slice, as asserted.
            let columns: [*const f32; N] = std::array::from_fn(|n| unsafe { self.w.as_ptr().add(n * self.stride + p) });
            // SAFETY: the same; so do a panel's `k` steps.
            unsafe {
                let x = x.add(p * PANEL);
                if p + STEPS <= k {
                    steps::<S, N, V, STEPS>(s, columns, x, &mut sums);
                    // The next tile's columns, a cache line of each.
                    for column in columns {
                        prefetch(column.wrapping_add(N * self.stride));
                    }
                } else {
                    for i in 0..k - p {
                        steps::<S, N, V, 1>(s, columns.map(|c| c.add(i)), x.add(i * PANEL), &mut sums);
                    }
                }
            }
        }
        // Vectors are of rows, and the product's rows lie apart: turn them.
        let mut turned = [[0f32; PANEL]; N];
        for (turned, sums) in turned.iter_mut().zip(&sums) {
            for (v, sum) in sums.iter().enumerate() {
                // SAFETY: V vectors are at most a panel.
                unsafe { s.store_ptr(*sum, turned.as_mut_ptr().add(v * S::LANES)) };
            }
        }
        for four in (0..rows).step_by(4) {
            for part in (0..N).step_by(S::LANES) {
                let count = (N - part).min(S::LANES);
                let from: [*const f32; 16] =
                    std::array::from_fn(|l| turned[part + l.min(count - 1)][four..four + 4].as_ptr());
                // SAFETY: four elements of rows of `turned`.
                let vectors = unsafe { s.transpose4(from) };
                for (row, vector) in (first + four..first + rows).zip(vectors) {
                    // SAFETY: the part of c that this task computes, whose extent `gemm` has checked.
                    let c = unsafe { self.out.data.slice(row * self.out.row + self.column + part, count) };
                    let sum = if self.out.add { s.add(s.load_partial(c), vector) } else { vector };
                    s.store_partial(sum, c);
                }
            }
        }
    }
}

/// `T` steps of a tile: `columns` point to as many elements, `x` to as many steps of a panel.
///
/// # Safety
/// They must be readable.
#[inline(always)]
unsafe fn steps<S: Simd, const N: usize, const V: usize, const T: usize>(
    s: S,
    columns: [*const f32; N],
    x: *const f32,
    sums: &mut [[S::F; V]; N],
) {
    for t in 0..T {
        let mut xs = [s.zero(); V];
        for (v, xs) in xs.iter_mut().enumerate() {
            // SAFETY: readable by the caller's promise; the prefetch reaches beyond.
            *xs = unsafe { s.load_ptr(x.add(t * PANEL + v * S::LANES)) };
            prefetch(x.wrapping_add((t + 8) * PANEL + v * S::LANES));
        }
        for (column, sums) in columns.iter().zip(sums.iter_mut()) {
            // SAFETY: by the caller's promise.
            let w = s.splat(unsafe { *column.add(t) });
            for (sum, x) in sums.iter_mut().zip(xs) {
                *sum = s.mul_add(w, x, *sum);
            }
        }
    }
}
