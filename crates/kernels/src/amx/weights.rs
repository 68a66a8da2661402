//! Products with packed weights: [`matmul`] and [`matmul_swiglu`].

use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch, _mm_sfence};

use imaginal_numeric::Format;

use super::{DEPTH, PANEL_STRIDE, ROWS, STEP, Tiles, copy_transposed, granted, multiply, pack_tokens};
use crate::gemm::MatRef;
use crate::isa::Isa;
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};
use crate::{unpack, vecmath};

/// Panels that pass over a part of the activations before the next part is taken, at most.
const GROUP: usize = 8;
/// Bytes of a result above which it is written past the caches, which it would only sweep.
const PAST: usize = 1 << 20;
/// Rows of activations handled at once; more come in turns, each of which unpacks the weights again.
const MAX_COLUMNS: usize = 1024;

/// Rows of weights as they lie in a file.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub format: Format,
    pub bytes: &'a [u8],
    pub row_bytes: usize,
}

/// out\[m, n\] = x\[m, k\] · Wᵀ as [`matmul_packed`](crate::matmul_packed) has it, with weights and activations rounded to
/// bf16 and sums in f32.
///
/// Lengths are the caller's duty: `w` is n rows, no dimension is 0.
///
/// # Panics
/// If the process may not use AMX.
pub(crate) fn matmul(threads: usize, w: Rows, n: usize, k: usize, x: &[f32], m: usize, out: &mut [f32]) {
    in_turns(threads, [w], n, k, x, m, out, |_| {});
}

/// out\[m, n\] = silu(x · Gᵀ) · (x · Uᵀ), each product as in [`matmul`].
pub(crate) fn matmul_swiglu(threads: usize, w: [Rows; 2], n: usize, k: usize, x: &[f32], m: usize, out: &mut [f32]) {
    in_turns(threads, w, n, k, x, m, out, |[gate, up]| vecmath::swiglu_in_place(Isa::Avx512, gate, up));
}

/// Hands at most [`MAX_COLUMNS`] rows of x at a time to [`block`].
#[allow(clippy::too_many_arguments)]
fn in_turns<const N: usize>(
    threads: usize,
    w: [Rows; N],
    n: usize,
    k: usize,
    x: &[f32],
    m: usize,
    out: &mut [f32],
    join: impl Fn([&mut [f32]; N]) + Sync,
) {
    assert!(granted(), "AMX is not available to this process");
    assert!(x.len() >= m * k && out.len() >= m * n && w.iter().all(|w| w.bytes.len() >= n * w.row_bytes));
    for (x, out) in x.chunks(MAX_COLUMNS * k).zip(out.chunks_mut(MAX_COLUMNS * n)) {
        block(threads, w, n, k, x, x.len() / k, out, &join);
    }
}

/// The products of x with each of `w`, of which `join` makes one, in the place of the first.
#[allow(clippy::too_many_arguments)]
fn block<const N: usize>(
    threads: usize,
    w: [Rows; N],
    n: usize,
    k: usize,
    x: &[f32],
    m: usize,
    out: &mut [f32],
    join: &(impl Fn([&mut [f32]; N]) + Sync),
) {
    // Tiles of 16 tokens and steps of 32 columns; what is missing is 0.
    let (columns, depth) = (m.next_multiple_of(16), k.next_multiple_of(STEP));
    let run = |count: usize, f: &(dyn Fn(usize) + Sync)| {
        if threads > 1 { pool::parallel(count, f) } else { (0..count).for_each(f) }
    };
    with_buffer(Slot::B, columns * depth / 2, |packed| {
        let shared = SharedMut::new(&mut *packed);
        run(columns / 16, &|t| {
            // SAFETY: AVX-512 is there with AMX. Each task has 16 tokens of its own; the slice covers where they go in
            // each part of the depth.
            unsafe {
                let x = MatRef::row_major(&x[t * 16 * k..], k);
                pack_tokens(x, k, (m - t * 16).min(16), t, columns, shared.as_ptr());
            }
        });
        let packed = packed.as_ptr().cast::<u8>() as usize;
        let out = SharedMut::new(out);
        // Panels of a group share each part of the activations while it is in the second-level cache.
        let group = (n.div_ceil(ROWS) / (4 * threads)).clamp(1, GROUP / N) * ROWS;
        run(n.div_ceil(group), &|t| {
            let start = t * group;
            let end = n.min(start + group);
            let stride = columns + 16;
            let panel_floats = ROWS * PANEL_STRIDE / 4;
            with_buffer(Slot::A, panel_floats + N * group * stride, |buffer| {
                let (panel, sums) = buffer.split_at_mut(panel_floats);
                panel.fill(0.0);
                let mut parts = sums.chunks_exact_mut(group * stride);
                let mut sums = [(); N].map(|()| parts.next().expect("as many parts as products"));
                // SAFETY: AMX is granted. Panel and sums have the sizes that `multiply` reads and writes; activations
                // were packed in the same layout; rows `start..end` lie in each of `w`.
                unsafe {
                    let tiles = Tiles::new();
                    for p in (0..k).step_by(DEPTH) {
                        let len = DEPTH.min(k - p);
                        let steps = len.div_ceil(STEP);
                        let activations = (packed + p * columns * 2) as *const u8;
                        for (w, sums) in w.iter().zip(&mut sums) {
                            let next = unpack::range(w.format, (p + DEPTH).min(k), DEPTH.min(k - (p + DEPTH).min(k)));
                            for first in (start..end).step_by(ROWS) {
                                for r in 0..ROWS.min(end - first) {
                                    let row = &w.bytes[(first + r) * w.row_bytes..][..w.row_bytes];
                                    let to = panel.as_mut_ptr().byte_add(r * PANEL_STRIDE).cast::<u16>();
                                    let to = std::slice::from_raw_parts_mut(to, steps * STEP);
                                    unpack::bf16(w.format, row, p, len, to);
                                    // Comes while the tiles are busy; the caches cannot guess steps this long.
                                    for line in row[next.clone()].iter().step_by(64) {
                                        _mm_prefetch::<_MM_HINT_T1>((&raw const *line).cast());
                                    }
                                }
                                let sums = sums[(first - start) * stride..].as_mut_ptr();
                                multiply(steps, panel.as_ptr().cast(), activations, columns, sums, stride, p > 0);
                            }
                        }
                    }
                    drop(tiles);
                }
                join(sums.each_mut().map(|sums| &mut **sums));
                let sums = &*sums[0];
                let past = m * n * size_of::<f32>() > PAST;
                for j in (0..columns).step_by(16) {
                    for i in (start..end).step_by(16) {
                        let from = sums[(i - start) * stride + j..].as_ptr();
                        let (tokens, count) = ((m - j).min(16), (end - i).min(16));
                        // SAFETY: AVX-512 is there; sums have 16 rows from there on, and the results lie in `out`.
                        unsafe { copy_transposed(from, stride, out.as_ptr().add(j * n + i), n, tokens, count, past) };
                    }
                }
                // Orders what went past the caches before whatever tells others that the task is done.
                // SAFETY: part of the instruction set.
                unsafe { _mm_sfence() };
            });
        });
    });
}
