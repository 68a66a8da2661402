//! Dot products of some f32 rows with f32 rows of weights, both straight from where they lie: for as many rows as do not
//! pay for turning the weights into panels.

use std::ops::Range;

use super::few::{Few, Out};
use crate::isa::{Isa, Simd, simd_fn};
use crate::pool;
use crate::simd::prefetch;

/// Rows up to which this beats turning the weights into panels.
pub(crate) const MOST: usize = 16;
/// Weight rows of a tile.
const R: usize = 4;
/// Rows that go through a tile together: their sums fill 24 registers of 32.
const WIDE: usize = 6;

/// The dot products of `n` weight rows, `stride` elements apart, with all `few` rows at depth `k`, on `threads` threads.
///
/// One product is one accumulator of a vector's width over the depth, then the sum across it: its order depends on the
/// instruction set only.
///
/// # Panics
/// If weights or rows are too short.
#[allow(clippy::too_many_arguments)]
pub(crate) fn run(isa: Isa, threads: usize, w: &[f32], stride: usize, n: usize, k: usize, few: Few<'_>, out: &Out<'_>) {
    if n == 0 || few.rows == 0 {
        return;
    }
    assert!((few.rows - 1) * few.stride + k <= few.data.len(), "few rows too short");
    assert!((n - 1) * stride + k <= w.len(), "weights too short");
    // Whole tiles, and enough of them that handing out a task does not show.
    let rows = (16 * 1024 / k.max(1)).max(n.div_ceil(8 * threads)).next_multiple_of(R).min(n);
    let task = |t: usize| products(isa, w, stride, t * rows..n.min((t + 1) * rows), k, few, out);
    if threads > 1 { pool::parallel(n.div_ceil(rows), &task) } else { (0..n.div_ceil(rows)).for_each(task) }
}

simd_fn! {
    /// [`run`] of the weight rows `columns`. Bounds are the caller's duty.
    fn products<S>(s: S, w: &[f32], stride: usize, columns: Range<usize>, k: usize, few: Few<'_>, out: &Out<'_>) {
        for column in columns.clone().step_by(R) {
            let (left, out) = (columns.end - column, out.from(column));
            let tile = Tile { w: &w[column * stride..], stride, k, columns: R.min(left), few, out: &out };
            let groups = few.rows.div_ceil(WIDE);
            let mut first = 0;
            for group in 0..groups {
                // Even groups: of 7 rows 4 and 3, not 6 and 1.
                let rows = (few.rows - first).div_ceil(groups - group);
                let group = Group { first, number: group, of: groups };
                // SAFETY: `run` has checked the bounds.
                unsafe {
                    match rows {
                        WIDE.. => tile.multiply::<S, WIDE>(s, group),
                        5 => tile.multiply::<S, 5>(s, group),
                        4 => tile.multiply::<S, 4>(s, group),
                        3 => tile.multiply::<S, 3>(s, group),
                        2 => tile.multiply::<S, 2>(s, group),
                        _ => tile.multiply::<S, 1>(s, group),
                    }
                }
                first += rows;
            }
        }
    }
}

/// Some rows that go through a tile together.
#[derive(Clone, Copy)]
struct Group {
    /// The first row.
    first: usize,
    /// Which of the groups it is.
    number: usize,
    /// How many there are.
    of: usize,
}

/// Up to [`R`] weight rows.
struct Tile<'a> {
    w: &'a [f32],
    stride: usize,
    k: usize,
    columns: usize,
    few: Few<'a>,
    out: &'a Out<'a>,
}

impl Tile<'_> {
    /// The products with `M` rows.
    ///
    /// # Safety
    /// The rows must lie in their slices.
    #[inline(always)]
    unsafe fn multiply<S: Simd, const M: usize>(&self, s: S, group: Group) {
        let Tile { w, stride, k, columns, few, out } = *self;
        // Where fewer weight rows are left, the last one is computed again.
        // SAFETY: they lie in their slices by the caller's promise.
        let ws: [*const f32; R] = std::array::from_fn(|r| unsafe { w.as_ptr().add(r.min(columns - 1) * stride) });
        // SAFETY: the same.
        let xs: [*const f32; M] =
            std::array::from_fn(|m| unsafe { few.data.as_ptr().add((group.first + m) * few.stride) });
        let mut sums = [[s.zero(); R]; M];
        let whole = k / S::LANES * S::LANES;
        let mut p = 0;
        while p < whole {
            // SAFETY: a whole vector of each row.
            let w = ws.map(|w| unsafe { s.load_ptr(w.add(p)) });
            // Each group fetches a part of the next tile's rows, so that memory is read all the time.
            let mut next = group.number;
            while next < R {
                prefetch(ws[0].wrapping_add((R + next) * stride + p));
                next += group.of;
            }
            for (x, sums) in xs.iter().zip(&mut sums) {
                // SAFETY: the same.
                add(s, &w, unsafe { s.load_ptr(x.add(p)) }, sums);
            }
            p += S::LANES;
        }
        if whole < k {
            // SAFETY: what is left of each row.
            let rest = |p: &*const f32| s.load_partial(unsafe { std::slice::from_raw_parts(p.add(whole), k - whole) });
            let w = ws.map(|w| rest(&w));
            for (x, sums) in xs.iter().zip(&mut sums) {
                add(s, &w, rest(x), sums);
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            let sums = s.sum4(*sums);
            let at = (group.first + m) * out.row;
            if out.col == 1 && columns == R {
                // SAFETY: different tasks have different weight rows, hence different results.
                let to = unsafe { out.data.slice(at, R) };
                for (to, sum) in to.iter_mut().zip(sums) {
                    *to = if out.add { *to + sum } else { sum };
                }
            } else {
                for (r, sum) in sums.into_iter().enumerate().take(columns) {
                    // SAFETY: the same.
                    let to = unsafe { &mut out.data.slice(at + r * out.col, 1)[0] };
                    *to = if out.add { *to + sum } else { sum };
                }
            }
        }
    }
}

/// Adds a vector's products with those of the weight rows.
#[inline(always)]
fn add<S: Simd>(s: S, w: &[S::F; R], x: S::F, sums: &mut [S::F; R]) {
    for (sum, w) in sums.iter_mut().zip(w) {
        *sum = s.mul_add(*w, x, *sum);
    }
}
