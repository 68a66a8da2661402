//! Products with packed weights: [`matmul`] and [`matmul_swiglu`]. Operands are rounded to bf16 or to bytes ([`Operand`]).

use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch, _mm_sfence};

use imaginal_numeric::Format;

use super::int8::Int8;
use super::{DEPTH, PANEL_STRIDE, ROWS, STEP, Tiles, copy_transposed, granted, multiply, pack_tokens};
use crate::bytes::coarse;
use crate::gemm::MatRef;
use crate::isa::Isa;
use crate::packed::Rounding;
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

/// What the operands of a product are rounded to.
pub(super) trait Operand {
    /// Bytes of an element.
    const BYTES: usize;
    /// Whether each token has a scale for each part of the depth.
    const SCALED: bool;
    /// Size of a panel of [`ROWS`] rows and of what belongs to it, in units of 4 bytes.
    const PANEL: usize;

    /// Packs 16 tokens, of which `x` holds as many as there are, `k` elements each: block `t` of every part of the depth,
    /// part p (from column p on) beginning at byte `p·columns·BYTES`. The scale of token c in part p is
    /// `scales[p / DEPTH·columns + c]`.
    ///
    /// # Safety
    /// AMX is granted; `to` and `scales` have room for all parts of `columns` tokens.
    unsafe fn pack(x: &[f32], k: usize, t: usize, columns: usize, to: *mut f32, scales: *mut f32);

    /// What unpacks a format.
    type Reader: Copy + Sync;

    /// # Panics
    /// If the format cannot be unpacked.
    fn reader(format: Format) -> Self::Reader;

    /// Unpacks the bytes of `len` columns of a row of weights into row `r` of a panel.
    ///
    /// # Safety
    /// AMX is granted; `panel` has [`Operand::PANEL`] elements, aligned to 64 bytes, and `r` is below [`ROWS`].
    unsafe fn unpack(reader: Self::Reader, src: &[u8], len: usize, panel: *mut f32, r: usize);

    /// A panel times all tokens: sums (+)= panel · activations.
    ///
    /// # Safety
    /// Tiles are configured; the panel is as [`Operand::unpack`] left it; `columns` is a multiple of 16, and the part holds
    /// as many tokens; `sums` has [`ROWS`] rows of `stride` ≥ `columns` elements.
    unsafe fn multiply(panel: *mut f32, part: Part, columns: usize, sums: *mut f32, stride: usize);
}

/// A part of the depth of packed activations.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// Its tiles.
    pub activations: *const u8,
    /// The scale of each token, if there are any.
    pub scales: *const f32,
    /// Its columns, [`DEPTH`] at most.
    pub len: usize,
    /// Whether products are added to what is there.
    pub add: bool,
}

/// Operands in bf16.
struct Bf16;

impl Operand for Bf16 {
    const BYTES: usize = 2;
    const SCALED: bool = false;
    const PANEL: usize = ROWS * PANEL_STRIDE / 4;

    unsafe fn pack(x: &[f32], k: usize, t: usize, columns: usize, to: *mut f32, _: *mut f32) {
        // SAFETY: AVX-512 is there with AMX; the rest by the caller's promise.
        unsafe { pack_tokens(MatRef::row_major(x, k), k, x.len() / k, t, columns, to) }
    }

    type Reader = Format;

    fn reader(format: Format) -> Format {
        format
    }

    unsafe fn unpack(format: Format, src: &[u8], len: usize, panel: *mut f32, r: usize) {
        // SAFETY: row r of the panel.
        unsafe {
            let to = panel.byte_add(r * PANEL_STRIDE).cast::<u16>();
            unpack::bf16(format, src, len, std::slice::from_raw_parts_mut(to, len.next_multiple_of(STEP)));
        }
    }

    unsafe fn multiply(panel: *mut f32, part: Part, columns: usize, sums: *mut f32, stride: usize) {
        let steps = part.len.div_ceil(STEP);
        // SAFETY: by the caller's promise.
        unsafe { multiply(steps, panel.cast(), part.activations, columns, sums, stride, part.add) }
    }
}

/// out\[m, n\] = x\[m, k\] · Wᵀ as [`matmul_packed`](crate::matmul_packed) has it, with weights and activations rounded to
/// bf16 or to bytes and sums in f32.
///
/// Lengths are the caller's duty: `w` is n rows, no dimension is 0.
///
/// # Panics
/// If the process may not use AMX.
#[allow(clippy::too_many_arguments)]
pub(crate) fn matmul(
    threads: usize,
    rounding: Rounding,
    w: Rows,
    n: usize,
    k: usize,
    x: &[f32],
    m: usize,
    out: &mut [f32],
) {
    in_turns(threads, rounding, [w], n, k, x, m, out, |_| {});
}

/// out\[m, n\] = silu(x · Gᵀ) · (x · Uᵀ), each product as in [`matmul`].
#[allow(clippy::too_many_arguments)]
pub(crate) fn matmul_swiglu(
    threads: usize,
    rounding: Rounding,
    w: [Rows; 2],
    n: usize,
    k: usize,
    x: &[f32],
    m: usize,
    out: &mut [f32],
) {
    let join = |[gate, up]: [&mut [f32]; 2]| vecmath::swiglu_in_place(Isa::Avx512, gate, up);
    in_turns(threads, rounding, w, n, k, x, m, out, join);
}

/// Hands at most [`MAX_COLUMNS`] rows of x at a time to [`block`].
#[allow(clippy::too_many_arguments)]
fn in_turns<const N: usize>(
    threads: usize,
    rounding: Rounding,
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
        let m = x.len() / k;
        match rounding {
            Rounding::Int8 if w.iter().all(|w| w.format.block_len() == DEPTH) || coarse::even(x, k) => {
                block::<Int8, N>(threads, w, n, k, x, m, out, &join)
            }
            _ => block::<Bf16, N>(threads, w, n, k, x, m, out, &join),
        }
    }
}

/// The products of x with each of `w`, of which `join` makes one, in the place of the first.
#[allow(clippy::too_many_arguments)]
fn block<T: Operand, const N: usize>(
    threads: usize,
    w: [Rows; N],
    n: usize,
    k: usize,
    x: &[f32],
    m: usize,
    out: &mut [f32],
    join: &(impl Fn([&mut [f32]; N]) + Sync),
) {
    let readers = w.map(|w| T::reader(w.format));
    // Tiles of 16 tokens and steps of 64 bytes; what is missing is 0.
    let (columns, depth) = (m.next_multiple_of(16), k.next_multiple_of(64 / T::BYTES));
    let run = |count: usize, f: &(dyn Fn(usize) + Sync)| {
        if threads > 1 { pool::parallel(count, f) } else { (0..count).for_each(f) }
    };
    let tiles = columns * depth * T::BYTES / 4;
    let scales = if T::SCALED { columns * k.div_ceil(DEPTH) } else { 0 };
    with_buffer(Slot::B, tiles + scales, |packed| {
        let shared = SharedMut::new(&mut *packed);
        run(columns / 16, &|t| {
            // SAFETY: AMX is granted. Each task has 16 tokens of its own, with places of their own in each part.
            unsafe {
                let x = &x[t * 16 * k..m.min(t * 16 + 16) * k];
                T::pack(x, k, t, columns, shared.as_ptr(), shared.as_ptr().add(tiles));
            }
        });
        let packed = packed.as_ptr() as usize;
        let out = SharedMut::new(out);
        // Panels of a group share each part of the activations while it is in the second-level cache.
        let group = (n.div_ceil(ROWS) / (4 * threads)).clamp(1, GROUP / N) * ROWS;
        run(n.div_ceil(group), &|t| {
            let start = t * group;
            let end = n.min(start + group);
            let stride = columns + 16;
            with_buffer(Slot::A, T::PANEL + N * group * stride, |buffer| {
                let (panel, sums) = buffer.split_at_mut(T::PANEL);
                panel.fill(0.0);
                let mut parts = sums.chunks_exact_mut(group * stride);
                let mut sums = [(); N].map(|()| parts.next().expect("as many parts as products"));
                // SAFETY: AMX is granted. Panel and sums have the sizes that `multiply` reads and writes; activations
                // were packed in the same layout; rows `start..end` lie in each of `w`.
                unsafe {
                    let tiles_in_use = Tiles::new();
                    for p in (0..k).step_by(DEPTH) {
                        let len = DEPTH.min(k - p);
                        let part = Part {
                            activations: (packed as *const u8).add(p * columns * T::BYTES),
                            scales: (packed as *const f32).add(tiles + if T::SCALED { p / DEPTH * columns } else { 0 }),
                            len,
                            add: p > 0,
                        };
                        for ((w, reader), sums) in w.iter().zip(readers).zip(&mut sums) {
                            let now = unpack::range(w.format, p, len);
                            let next = unpack::range(w.format, (p + DEPTH).min(k), DEPTH.min(k - (p + DEPTH).min(k)));
                            for first in (start..end).step_by(ROWS) {
                                for r in 0..ROWS.min(end - first) {
                                    let row = &w.bytes[(first + r) * w.row_bytes..][..w.row_bytes];
                                    T::unpack(reader, &row[now.clone()], len, panel.as_mut_ptr(), r);
                                    // Comes while the tiles are busy; the caches cannot guess steps this long.
                                    let (from, lines) =
                                        (row.as_ptr().wrapping_add(next.start), next.len().div_ceil(64));
                                    for line in 0..=lines {
                                        _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(64 * line).cast());
                                    }
                                }
                                let sums = sums[(first - start) * stride..].as_mut_ptr();
                                T::multiply(panel.as_mut_ptr(), part, columns, sums, stride);
                            }
                        }
                    }
                    drop(tiles_in_use);
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
