//! Few tokens: rows are multiplied as they are read.

use std::ops::Range;

use imaginal_numeric::Format;

use super::{Activations, CHUNK, Order, group, kernel, magnitude, nearest, read, scale};
use crate::gemm::FEW;
use crate::isa::{Isa, simd_fn};
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};

/// Chunks of a token that are rounded in one task.
const TASK: usize = 16;

/// Tokens, which follow those of the group before, and the rows that they are multiplied with: those of `N` matrices of one shape.
pub(crate) struct Group<'a, const N: usize> {
    /// The bytes of the matrices.
    pub w: [&'a [u8]; N],
    /// Which tokens; at most [`FEW`].
    pub tokens: Range<usize>,
}

/// out\[m, n\] of `m` tokens of length `k` in groups, each multiplied with the `n` rows of its matrices. Of the products of a token
/// with some rows of each matrix `join` makes one, in the place of the first.
///
/// All activations are rounded once, and all rows of all groups are one list that threads divide among them.
#[allow(clippy::too_many_arguments)]
pub(super) fn matmul<const N: usize>(
    isa: Isa,
    threads: usize,
    format: Format,
    groups: &[Group<N>],
    row_bytes: usize,
    n: usize,
    k: usize,
    x: &[f32],
    m: usize,
    out: &mut [f32],
    join: impl Fn([&mut [f32]; N]) + Sync,
) {
    let run = |count: usize, f: &(dyn Fn(usize) + Sync)| {
        if threads > 1 && count > 1 { pool::parallel(count, f) } else { (0..count).for_each(f) }
    };
    let (Some(kernel), Some(layout)) = (kernel(isa, format), read::layout(format)) else { return };
    assert!(groups.iter().all(|group| group.tokens.len() <= FEW && group.tokens.end <= m));
    assert!(groups.is_sorted_by(|a, b| a.tokens.end <= b.tokens.start), "groups have tokens of their own");
    assert!(x.len() >= m * k && out.len() >= m * n);
    let zero = layout.zero.unwrap_or(0);
    let chunks = k.div_ceil(CHUNK);
    let floats = size_of::<Activations>() / size_of::<f32>();
    with_buffer(Slot::B, m * chunks * floats, |buffer| {
        let shared = SharedMut::new(&mut *buffer);
        // A long token is more than one task.
        let tasks = chunks.div_ceil(TASK);
        run(m * tasks, &|t| {
            let (token, first) = (t / tasks, t % tasks * TASK);
            let count = TASK.min(chunks - first);
            // SAFETY: each task's chunks are its own, and buffers are aligned to 64 bytes; any bits are a valid value.
            let chunks = unsafe {
                let all = shared.as_ptr().cast::<Activations>();
                std::slice::from_raw_parts_mut(all.add(token * chunks + first), count)
            };
            let x = &x[token * k..][..k];
            quantize(isa, &x[first * CHUNK..k.min((first + count) * CHUNK)], kernel.order, zero, chunks);
        });
        // SAFETY: as many were just written.
        let activations = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<Activations>(), m * chunks) };
        let out = SharedMut::new(out);
        // At the end so few bytes that nobody waits long.
        let tasks = pool::shares(groups.len() * n, 16 * 1024 / (N * row_bytes).max(1));
        run(tasks.len() - 1, &|t| {
            let (mut at, end) = (tasks[t], tasks[t + 1]);
            while at < end {
                let (Group { w, tokens }, first) = (&groups[at / n], at % n);
                let (count, of) = ((n - first).min(end - at), tokens.len());
                at += count;
                let rows = w.map(|w| &w[first * row_bytes..][..count * row_bytes]);
                let activations = &activations[tokens.start * chunks..tokens.end * chunks];
                if let (Some(one), 1) = (kernel.one, of) {
                    with_buffer(Slot::A, (N - 1) * count, |others| {
                        let mut others = others.chunks_exact_mut(count);
                        // SAFETY: each task has results of its own.
                        let mut first = Some(unsafe { out.slice(tokens.start * n + first, count) });
                        let results = rows.map(|rows| {
                            let results = first.take().or_else(|| others.next()).expect("as many as matrices");
                            // SAFETY: the kernel is one of the instruction set.
                            unsafe { one(rows, row_bytes, activations, &mut *results) };
                            results
                        });
                        join(results);
                    });
                    continue;
                }
                with_buffer(Slot::A, N * of * count, |buffer| {
                    let mut sums = [0.0; FEW];
                    for (rows, results) in rows.iter().zip(buffer.chunks_exact_mut(of * count)) {
                        for (j, row) in rows.chunks_exact(row_bytes).enumerate() {
                            // SAFETY: the kernel is one of the instruction set.
                            unsafe { (kernel.row)(row, activations, chunks, &mut sums[..of]) };
                            sums[..of].iter().enumerate().for_each(|(t, sum)| results[t * count + j] = *sum);
                        }
                    }
                    let mut all = buffer.chunks_exact_mut(of * count);
                    join([(); N].map(|()| all.next().expect("as many results as matrices")));
                    for (token, results) in tokens.clone().zip(buffer.chunks_exact(count)) {
                        // SAFETY: as above.
                        unsafe { out.slice(token * n + first, count) }.copy_from_slice(results);
                    }
                });
            }
        });
    });
}

simd_fn! {
    /// Rounds a token's activations and puts them in order; what is missing of the last chunk becomes 0. `zero` is the number
    /// of the weights that stands for zero, 0 if none does.
    fn quantize<S>(_s: S, x: &[f32], order: &Order, zero: u8, chunks: &mut [Activations]) {
        match order.lanes.piece() {
            4 => in_pieces::<4>(x, order, zero, chunks),
            8 => in_pieces::<8>(x, order, zero, chunks),
            _ => in_pieces::<16>(x, order, zero, chunks),
        }
    }
}

/// [`quantize`] where `PIECE` activations that follow each other share a scale with others elsewhere. Each step is a loop
/// over a whole chunk, which becomes vectors.
#[inline(always)]
fn in_pieces<const PIECE: usize>(x: &[f32], order: &Order, zero: u8, chunks: &mut [Activations]) {
    const FOURS: usize = CHUNK / 4;
    for (x, chunk) in x.chunks(CHUNK).zip(chunks) {
        let mut padded = [0.0; CHUNK];
        let x: &[f32; CHUNK] = match x.first_chunk() {
            Some(x) => x,
            None => {
                padded[..x.len()].copy_from_slice(x);
                &padded
            }
        };
        let mut ordered = [0.0; CHUNK];
        for (run, to) in order.runs.iter().zip(ordered.as_chunks_mut::<16>().0) {
            to.copy_from_slice(&x[16 * usize::from(*run)..][..16]);
        }
        let mut fours = [0; FOURS];
        for (most, x) in fours.iter_mut().zip(ordered.as_chunks::<4>().0) {
            *most = x.map(magnitude).into_iter().fold(0, u32::max);
        }
        let mut largest = [0u32; 16];
        for (i, most) in fours.iter().enumerate() {
            let largest = &mut largest[group(PIECE, i)];
            *largest = (*largest).max(*most);
        }
        let mut inverses = [0.0; 16];
        for ((unit, inverse), largest) in chunk.scale.iter_mut().zip(&mut inverses).zip(&largest) {
            (*unit, *inverse) = scale(*largest, 127.0);
        }
        let mut factors = [0.0; CHUNK];
        for (i, factors) in factors.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *factors = [inverses[group(PIECE, i)]; 4];
        }
        for ((q, x), factor) in chunk.q.iter_mut().zip(&ordered).zip(&factors) {
            *q = nearest(x * factor) as i8;
        }
        let mut sums = [0; FOURS];
        for (sum, four) in sums.iter_mut().zip(chunk.q.as_chunks::<4>().0) {
            *sum = four.iter().map(|q| i32::from(*q)).sum();
        }
        chunk.start = std::array::from_fn(|i| -i32::from(zero) * i32::from(order.steps[i / 16]) * sums[i]);
        order.lanes.join(&mut chunk.start);
        let terms: [f32; FOURS] = std::array::from_fn(|i| chunk.scale[group(PIECE, i)] * sums[i] as f32);
        for (run, four) in order.runs.iter().zip(terms.as_chunks::<4>().0) {
            chunk.sum[usize::from(*run)] = four.iter().sum();
        }
    }
}
