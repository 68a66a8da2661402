//! Few tokens: rows are multiplied as they are read.

use std::ops::Range;

use imaginal_numeric::Format;

use super::{Activations, CHUNK, Kernel, Order, group, kernel, magnitude, nearest, padded, read, scale};
use crate::gemm::FEW;
use crate::isa::{Isa, simd_fn};
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};

/// Chunks that are rounded in one task: fewer are sooner rounded than handed over.
const TASK: usize = 32;

/// Some tokens of those that a call is given, and the rows of `N` matrices of one shape that they are multiplied with.
pub(crate) struct Product<'a, const N: usize> {
    /// The number format of the matrices.
    pub format: Format,
    /// Their bytes.
    pub w: [&'a [u8]; N],
    /// The rows of each.
    pub rows: usize,
    /// Which tokens; at most [`FEW`].
    pub tokens: Range<usize>,
    /// \[tokens, rows\].
    pub out: &'a mut [f32],
}

/// A product, ready to be divided.
struct Ready<'a, const N: usize> {
    kernel: Kernel,
    w: [&'a [u8]; N],
    row_bytes: usize,
    rows: usize,
    tokens: Range<usize>,
    out: SharedMut<'a, f32>,
    /// Its rows come after so many of the products before.
    first: usize,
    /// Which of the ways of rounding the activations is its own.
    way: usize,
}

/// Products of tokens `x`\[m, k\] with matrices of rows of `k` weights. Of the products of a token with some rows of each matrix
/// `join` makes one, in the place of the first.
///
/// Activations are rounded once for all products whose formats want them alike, and all rows of all products are one list that
/// threads divide among them.
///
/// # Panics
/// If a format is not [`supported`](super::supported), there are no whole blocks in a row, or a slice is not as long as its shape asks for.
pub(crate) fn matmul<const N: usize>(
    isa: Isa,
    threads: usize,
    products: Vec<Product<N>>,
    k: usize,
    x: &[f32],
    join: impl Fn([&mut [f32]; N]) + Sync,
) {
    let run = |count: usize, f: &(dyn Fn(usize) + Sync)| {
        if threads > 1 && count > 1 { pool::parallel(count, f) } else { (0..count).for_each(f) }
    };
    let m = x.len() / k;
    let (mut ways, mut all): (Vec<(&Order, u8)>, usize) = (Vec::new(), 0);
    let ready = products.into_iter().map(|Product { format, w, rows, tokens, out }| {
        let (kernel, layout) = (kernel(isa, format), read::layout(format));
        let (Some(kernel), Some(layout), Some(row_bytes)) = (kernel, layout, format.bytes_for(k)) else {
            panic!("no products of bytes for rows of {k} in {format} with {isa}")
        };
        assert!(tokens.len() <= FEW && tokens.end <= m && out.len() == tokens.len() * rows);
        assert!(w.iter().all(|w| w.len() == rows * row_bytes));
        let (order, zero) = (kernel.order, layout.zero.unwrap_or(0));
        let way = ways.iter().position(|way| *way == (order, zero)).unwrap_or_else(|| {
            ways.push((order, zero));
            ways.len() - 1
        });
        all += rows;
        Ready { kernel, w, row_bytes, rows, tokens, out: SharedMut::new(out), first: all - rows, way }
    });
    let ready: Vec<Ready<N>> = ready.collect();
    let chunks = k.div_ceil(CHUNK);
    let floats = size_of::<Activations>() / size_of::<f32>();
    with_buffer(Slot::B, ways.len() * m * chunks * floats, |buffer| {
        // Chunk by chunk, token by token, way by way.
        let count = ways.len() * m * chunks;
        let shared = SharedMut::new(&mut *buffer);
        run(count.div_ceil(TASK), &|t| {
            let (mut at, end) = (t * TASK, count.min((t + 1) * TASK));
            while at < end {
                let (row, first) = (at / chunks, at % chunks);
                let last = chunks.min(first + end - at);
                // SAFETY: each task's chunks are its own, and buffers are aligned to 64 bytes; any bits are a valid value.
                let chunks = unsafe {
                    std::slice::from_raw_parts_mut(shared.as_ptr().cast::<Activations>().add(at), last - first)
                };
                let (order, zero) = ways[row / m];
                quantize(isa, &x[row % m * k..][first * CHUNK..k.min(last * CHUNK)], order, zero, chunks);
                at += last - first;
            }
        });
        // SAFETY: as many were just written.
        let activations = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<Activations>(), count) };
        // At the end so few bytes that nobody waits long.
        let longest = ready.iter().map(|product| N * product.row_bytes).max().unwrap_or(0);
        let tasks = pool::shares(all, 16 * 1024 / longest.max(1));
        run(tasks.len() - 1, &|t| {
            let (mut at, end) = (tasks[t], tasks[t + 1]);
            let mut product = ready.partition_point(|product| product.first + product.rows <= at);
            while at < end {
                let of = &ready[product];
                let first = at - of.first;
                let count = (of.rows - first).min(end - at);
                let activations = &activations[(of.way * m + of.tokens.start) * chunks..][..of.tokens.len() * chunks];
                // SAFETY: each task has rows of its own.
                unsafe { of.rows(first..first + count, activations, &join) };
                (at, product) = (at + count, product + 1);
            }
        });
    });
}

impl<const N: usize> Ready<'_, N> {
    /// Computes some rows for all of its tokens.
    ///
    /// # Safety
    /// No other thread computes these rows.
    unsafe fn rows(&self, rows: Range<usize>, activations: &[Activations], join: &impl Fn([&mut [f32]; N])) {
        let (count, tokens) = (rows.len(), self.tokens.len());
        if count == 0 || tokens == 0 {
            return;
        }
        // SAFETY: rows have results of their own, by the caller's word.
        let out = |token: usize| unsafe { self.out.slice(token * self.rows + rows.start, count) };
        let w = self.w.map(|w| &w[rows.start * self.row_bytes..][..count * self.row_bytes]);
        if let (Some(one), 1) = (self.kernel.one, tokens) {
            return with_buffer(Slot::A, (N - 1) * count, |others| {
                let mut others = others.chunks_exact_mut(count);
                let mut first = Some(out(0));
                join(w.map(|w| {
                    let results = first.take().or_else(|| others.next()).expect("as many as matrices");
                    // SAFETY: the kernel is one of the instruction set.
                    unsafe { one(w, self.row_bytes, activations, &mut *results) };
                    results
                }));
            });
        }
        with_buffer(Slot::A, N * tokens * count, |buffer| {
            let (mut sums, chunks) = ([0.0; FEW], activations.len() / tokens);
            for (w, results) in w.iter().zip(buffer.chunks_exact_mut(tokens * count)) {
                for (j, row) in w.chunks_exact(self.row_bytes).enumerate() {
                    // SAFETY: the kernel is one of the instruction set.
                    unsafe { (self.kernel.row)(row, activations, chunks, &mut sums[..tokens]) };
                    sums[..tokens].iter().enumerate().for_each(|(t, sum)| results[t * count + j] = *sum);
                }
            }
            let mut all = buffer.chunks_exact_mut(tokens * count);
            join([(); N].map(|()| all.next().expect("as many results as matrices")));
            for (token, results) in buffer.chunks_exact(count).take(tokens).enumerate() {
                out(token).copy_from_slice(results);
            }
        });
    }
}

/// Rounds a token's activations and puts them in order; what is missing of the last chunk becomes 0. `zero` is the number
/// of the weights that stands for zero, 0 if none does.
fn quantize(isa: Isa, x: &[f32], order: &Order, zero: u8, chunks: &mut [Activations]) {
    #[cfg(target_arch = "x86_64")]
    if isa.usable() >= Isa::Avx512Vnni {
        // SAFETY: the CPU has the instructions.
        return unsafe { super::avx512::quantize(x, order, zero, chunks) };
    }
    portably(isa, x, order, zero, chunks);
}

simd_fn! {
    /// [`quantize`], by code for all instruction sets.
    fn portably<S>(_s: S, x: &[f32], order: &Order, zero: u8, chunks: &mut [Activations]) {
        match order.lanes.piece() {
            4 => in_pieces::<4>(x, order, zero, chunks),
            8 => in_pieces::<8>(x, order, zero, chunks),
            _ => in_pieces::<16>(x, order, zero, chunks),
        }
    }
}

/// [`portably`] where `PIECE` activations that follow each other share a scale with others elsewhere. Each step is a loop
/// over a whole chunk, which becomes vectors.
#[inline(always)]
fn in_pieces<const PIECE: usize>(x: &[f32], order: &Order, zero: u8, chunks: &mut [Activations]) {
    const FOURS: usize = CHUNK / 4;
    for (x, chunk) in x.chunks(CHUNK).zip(chunks) {
        let mut zeros = [0.0; CHUNK];
        let x = padded(x, &mut zeros);
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
        #[cfg(target_arch = "x86_64")]
        if let super::Lanes::Columns(within) = order.lanes {
            let place = |at: usize| at % 64 / 4 * 16 + usize::from(within[at / 64 * 4 + at % 4]);
            chunk.q = std::array::from_fn(|at| chunk.q[place(at)]);
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn activations_are_rounded_alike_by_hand() {
        if Isa::Avx512Vnni.usable() < Isa::Avx512Vnni {
            return;
        }
        let mut random = Random::new(1);
        let mut x: Vec<f32> =
            (0..3 * CHUNK + 77).map(|i| random.uniform(-1.0, 1.0) * 4f32.powi((i / 50) as i32)).collect();
        // What vanishes, what overflows, and what is no number.
        x[256..272].fill(0.0);
        (x[300], x[301], x[320], x[350], x[700]) = (1e-42, 3e-39, 3.4e38, f32::INFINITY, f32::NAN);
        for format in Format::all() {
            let (Some(kernel), Some(layout)) = (kernel(Isa::Avx512Vnni, format), read::layout(format)) else {
                continue;
            };
            let nothing = Activations { q: [9; CHUNK], scale: [9.0; 16], sum: [9.0; 16], start: [9; CHUNK / 4] };
            let (mut expected, mut got) = ([nothing; 4], [nothing; 4]);
            let zero = layout.zero.unwrap_or(0);
            portably(Isa::Avx512, &x, kernel.order, zero, &mut expected);
            quantize(Isa::Avx512Vnni, &x, kernel.order, zero, &mut got);
            for (i, (expected, got)) in expected.iter().zip(&got).enumerate() {
                let bits =
                    |of: &[f32; 16]| of.map(|x| if x.is_nan() { f32::NAN.to_bits() } else { (x + 0.0).to_bits() });
                assert_eq!(bits(&got.scale), bits(&expected.scale), "{format}, scales of chunk {i}");
                assert_eq!(bits(&got.sum), bits(&expected.sum), "{format}, sums of chunk {i}");
                for (j, (e, g)) in expected.q.iter().zip(&got.q).enumerate() {
                    // Where the scale is no number, neither is any product.
                    let own = match kernel.order.lanes {
                        super::super::Lanes::Columns(_) => j % 64 / 4,
                        lanes => group(lanes.piece(), j / 4),
                    };
                    let scale = expected.scale[own];
                    assert!(e == g || scale.is_nan(), "{format}, number {j} of chunk {i}: {g}, not {e}");
                }
                if !expected.scale.iter().any(|scale| scale.is_nan()) {
                    assert_eq!(got.start, expected.start, "{format}, starts of chunk {i}");
                }
            }
        }
    }
}
