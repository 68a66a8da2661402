//! Few tokens: rows are multiplied as they are read.

use imaginal_numeric::Format;

use super::{Activations, CHUNK, kernel, round};
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
    let Some(kernel) = kernel(isa, format) else { return };
    let chunks = k.div_ceil(CHUNK);
    let floats = size_of::<Activations>() / size_of::<f32>();
    with_buffer(Slot::B, m * chunks * floats, |buffer| {
        let shared = SharedMut::new(&mut *buffer);
        run(m, &|t| {
            // SAFETY: each token's chunks are its own, and buffers are aligned to 64 bytes; any bits are a valid value.
            let chunks = unsafe {
                std::slice::from_raw_parts_mut(shared.as_ptr().cast::<Activations>().add(t * chunks), chunks)
            };
            quantize(isa, &x[t * k..][..k], chunks);
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
    /// Rounds a token's activations; what is missing of the last chunk becomes 0.
    fn quantize<S>(_s: S, x: &[f32], chunks: &mut [Activations]) {
        for (x, chunk) in x.chunks(CHUNK).zip(chunks) {
            for (g, q) in chunk.q.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let (scale, sum) = round(x.get(g * 16..).unwrap_or_default(), q);
                chunk.scale[g] = scale;
                chunk.sum[g] = scale * sum as f32;
            }
        }
    }
}
