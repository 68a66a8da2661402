//! Few tokens: rows are multiplied as they are read.

use imaginal_numeric::Format;

use super::{Activations, CHUNK, Order, kernel, read, round};
use crate::gemm::FEW;
use crate::isa::{Isa, simd_fn};
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};

/// [`matmul`](super::matmul) for at most [`FEW`] tokens.
#[allow(clippy::too_many_arguments)]
pub(super) fn matmul(
    isa: Isa,
    threads: usize,
    format: Format,
    w: &[u8],
    row_bytes: usize,
    n: usize,
    k: usize,
    x: &[f32],
    m: usize,
    out: &mut [f32],
) {
    let run = |count: usize, f: &(dyn Fn(usize) + Sync)| {
        if threads > 1 && count > 1 { pool::parallel(count, f) } else { (0..count).for_each(f) }
    };
    let (Some(kernel), Some(layout)) = (kernel(isa, format), read::layout(format)) else { return };
    let zero = layout.zero.unwrap_or(0);
    let chunks = k.div_ceil(CHUNK);
    let floats = size_of::<Activations>() / size_of::<f32>();
    with_buffer(Slot::B, m * chunks * floats, |buffer| {
        let shared = SharedMut::new(&mut *buffer);
        run(m, &|t| {
            // SAFETY: each token's chunks are its own, and buffers are aligned to 64 bytes; any bits are a valid value.
            let chunks = unsafe {
                std::slice::from_raw_parts_mut(shared.as_ptr().cast::<Activations>().add(t * chunks), chunks)
            };
            quantize(isa, &x[t * k..][..k], kernel.order, zero, chunks);
        });
        // SAFETY: as many were just written.
        let activations = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<Activations>(), m * chunks) };
        let shared = SharedMut::new(out);
        // Enough bytes that handing out a task does not show, and enough tasks that threads end together.
        let rows = (64 * 1024 / row_bytes.max(1)).clamp(1, n.div_ceil(8 * threads).max(1));
        run(n.div_ceil(rows), &|t| {
            let mut sums = [0.0; FEW];
            for j in t * rows..n.min((t + 1) * rows) {
                // SAFETY: the kernel is one of the instruction set.
                unsafe { (kernel.row)(&w[j * row_bytes..][..row_bytes], activations, chunks, &mut sums[..m]) };
                for (i, sum) in sums[..m].iter().enumerate() {
                    // SAFETY: each row has results of its own, which lie in `out`.
                    unsafe { *shared.as_ptr().add(i * n + j) = *sum };
                }
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

/// [`quantize`] where `PIECE` activations that follow each other share a scale with others elsewhere.
#[inline(always)]
fn in_pieces<const PIECE: usize>(x: &[f32], order: &Order, zero: u8, chunks: &mut [Activations]) {
    for (x, chunk) in x.chunks(CHUNK).zip(chunks) {
        let mut padded = [0.0; CHUNK];
        let x: &[f32; CHUNK] = match x.first_chunk() {
            Some(x) => x,
            None => {
                padded[..x.len()].copy_from_slice(x);
                &padded
            }
        };
        chunk.sum = [0.0; 16];
        chunk.start = [0; CHUNK / 4];
        for g in 0..16 {
            let (mut values, mut q) = ([0.0; 16], [0; 16]);
            for (p, values) in values.as_chunks_mut::<PIECE>().0.iter_mut().enumerate() {
                values.copy_from_slice(&x[order.piece(PIECE, g, p).1..][..PIECE]);
            }
            let (scale, _) = round(&values, &mut q);
            chunk.scale[g] = scale;
            for (p, q) in q.as_chunks::<PIECE>().0.iter().enumerate() {
                let (to, from) = order.piece(PIECE, g, p);
                chunk.q[to..to + PIECE].copy_from_slice(q);
                let mut all = 0;
                for (i, four) in q.as_chunks::<4>().0.iter().enumerate() {
                    let sum: i32 = four.iter().map(|q| i32::from(*q)).sum();
                    chunk.start[order.lanes.start(to / 4 + i)] -= i32::from(zero) * sum;
                    all += sum;
                }
                chunk.sum[from / 16] += scale * all as f32;
            }
        }
    }
}
