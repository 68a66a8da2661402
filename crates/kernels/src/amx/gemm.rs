//! Products of floats that are rounded to bf16 on the way to the tiles: what training with `--precision bf16` runs on.

use super::{DEPTH, Form, PANEL_STRIDE, ROWS, STEP, Tiles, granted, multiply, pack_tokens, read};
use crate::gemm::MatRef;
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};

/// Columns of the right side handled at once; more come in turns, each of which rounds the left side again.
const MAX_COLUMNS: usize = 1024;
/// Rows of the left side per task, at most.
const MOST_ROWS: usize = 4 * ROWS;

/// c = a·b, or c += a·b, as [`gemm`](fn@crate::gemm) has it, with operands rounded to bf16 and sums in f32.
///
/// Lengths are the caller's duty, no dimension is 0.
///
/// # Panics
/// If the process may not use AMX.
#[allow(clippy::too_many_arguments)]
pub(crate) fn gemm(
    threads: usize,
    m: usize,
    n: usize,
    k: usize,
    a: MatRef,
    b: MatRef,
    c: &mut [f32],
    c_rs: usize,
    accumulate: bool,
) {
    assert!(granted(), "AMX is not available to this process");
    for first in (0..n).step_by(MAX_COLUMNS) {
        let columns = MAX_COLUMNS.min(n - first);
        let right = MatRef { data: &b.data[first * b.cs..], ..b }.t();
        block(threads, m, columns, k, a, right, &mut c[first..], c_rs, accumulate);
    }
}

/// [`gemm`] for at most [`MAX_COLUMNS`] columns, which are the rows of `right`.
#[allow(clippy::too_many_arguments)]
fn block(
    threads: usize,
    m: usize,
    n: usize,
    k: usize,
    left: MatRef,
    right: MatRef,
    c: &mut [f32],
    c_rs: usize,
    accumulate: bool,
) {
    let (columns, depth) = (n.next_multiple_of(16), k.next_multiple_of(STEP));
    let run = |count: usize, f: &(dyn Fn(usize) + Sync)| {
        if threads > 1 && count > 1 { pool::parallel(count, f) } else { (0..count).for_each(f) }
    };
    with_buffer(Slot::B, columns * depth / 2, |packed| {
        let shared = SharedMut::new(&mut *packed);
        run(columns / 16, &|t| {
            let right = MatRef { data: &right.data[t * 16 * right.rs..], ..right };
            // SAFETY: AVX-512 is there with AMX. Each task has 16 columns of its own; the slice covers where they go in
            // each part of the depth.
            unsafe { pack_tokens(right, k, (n - t * 16).min(16), t, columns, shared.as_ptr()) }
        });
        let packed = packed.as_ptr().cast::<u8>() as usize;
        let c = SharedMut::new(c);
        let group = m.div_ceil(4 * threads).next_multiple_of(ROWS).min(MOST_ROWS);
        run(m.div_ceil(group), &|t| {
            let (start, end) = (t * group, m.min((t + 1) * group));
            let stride = columns + 16;
            let panel_floats = ROWS * PANEL_STRIDE / 4;
            with_buffer(Slot::A, panel_floats + group * stride, |buffer| {
                let (panel, sums) = buffer.split_at_mut(panel_floats);
                // SAFETY: AMX is granted. Panel and sums have the sizes that `fill` writes and `multiply` uses; the right
                // side was packed in the same layout; rows `start..end` lie in the left side.
                unsafe {
                    let tiles = Tiles::new();
                    for p in (0..k).step_by(DEPTH) {
                        let len = DEPTH.min(k - p);
                        let right = (packed + p * columns * 2) as *const u8;
                        for first in (start..end).step_by(ROWS) {
                            let rows = MatRef { data: &left.data[first * left.rs..], ..left };
                            fill(rows, ROWS.min(end - first), p, len, panel.as_mut_ptr().cast());
                            let sums = sums[(first - start) * stride..].as_mut_ptr();
                            multiply(len.div_ceil(STEP), panel.as_ptr().cast(), right, columns, sums, stride, p > 0);
                        }
                    }
                    drop(tiles);
                }
                for (i, sums) in (start..end).zip(sums.chunks_exact(stride)) {
                    // SAFETY: each task has rows of its own, which lie in c and do not overlap.
                    let c = unsafe { c.slice(i * c_rs, n) };
                    if accumulate {
                        c.iter_mut().zip(sums).for_each(|(c, sum)| *c += sum);
                    } else {
                        c.copy_from_slice(&sums[..n]);
                    }
                }
            });
        });
    });
}

/// Writes columns `at..at + len` of the first `rows` rows of x as a panel; rows that are missing become 0.
///
/// # Safety
/// The CPU has AVX-512 with BF16; x holds those elements; the panel has [`ROWS`] rows of [`PANEL_STRIDE`] bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn fill(x: MatRef, rows: usize, at: usize, len: usize, panel: *mut u8) {
    use std::arch::x86_64::_mm512_storeu_si512;
    for half in (0..ROWS).step_by(16) {
        let count = rows.saturating_sub(half).min(16);
        let x = MatRef { data: if count > 0 { &x.data[half * x.rs..] } else { &[] }, ..x };
        for step in (0..len).step_by(STEP) {
            // SAFETY: by the caller's promise.
            let tile = unsafe { read(x, count, at + step, STEP.min(len - step), Form::Rows) };
            for (i, row) in tile.into_iter().enumerate() {
                // SAFETY: as above.
                unsafe { _mm512_storeu_si512(panel.add((half + i) * PANEL_STRIDE + step * 2).cast(), row) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole numbers that bf16 holds, in a matrix of these strides; NaN between them.
    fn matrix(
        rows: usize,
        cols: usize,
        (rs, cs): (usize, usize),
        seed: usize,
    ) -> (Vec<f32>, impl Fn(usize, usize) -> f32) {
        let value = move |i: usize, j: usize| ((i * 31 + j * 17 + seed * 7 + i * j) % 23) as f32 - 11.0;
        let mut data = vec![f32::NAN; (rows - 1) * rs + (cols - 1) * cs + 1];
        (0..rows).for_each(|i| (0..cols).for_each(|j| data[i * rs + j * cs] = value(i, j)));
        (data, value)
    }

    #[test]
    fn whole_numbers_in_every_layout_are_multiplied_exactly() {
        if !granted() {
            return;
        }
        for (m, n, k) in [(1, 1, 1), (9, 16, 32), (33, 17, 31), (70, 49, 257), (16, 1030, 40), (200, 64, 600)] {
            for a_strides in [(k, 1), (1, m), (2 * k + 3, 2), (k + 5, 1), (1, m + 7)] {
                for b_strides in [(n, 1), (1, k), (n + 3, 1), (1, k + 2), (3, 3 * k + 1)] {
                    let ((a, av), (b, bv)) = (matrix(m, k, a_strides, 1), matrix(k, n, b_strides, 2));
                    let a = MatRef { data: &a, rs: a_strides.0, cs: a_strides.1 };
                    let b = MatRef { data: &b, rs: b_strides.0, cs: b_strides.1 };
                    let c_rs = n + 2;
                    for accumulate in [false, true] {
                        let mut c = vec![0.5; m * c_rs];
                        gemm(2, m, n, k, a, b, &mut c, c_rs, accumulate);
                        for (i, row) in c.chunks(c_rs).enumerate() {
                            let start = if accumulate { 0.5 } else { 0.0 };
                            let sum = |j: usize| start + (0..k).map(|p| av(i, p) * bv(p, j)).sum::<f32>();
                            assert!(
                                (0..n).all(|j| row[j] == sum(j)),
                                "{m}×{n}×{k} {a_strides:?} {b_strides:?} row {i}"
                            );
                            assert_eq!(row[n..], [0.5, 0.5]);
                        }
                    }
                }
            }
        }
    }
}
