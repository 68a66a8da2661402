//! Products of groups of tokens, each with a matrix of its own: the experts of a layer. A single matrix is one group.

use std::cmp::Reverse;
use std::ops::Range;

use imaginal_numeric::Format;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::bytes;
use crate::gemm::FEW;
use crate::isa::isa;
use crate::packed::{self, Role, Rounding, matmul_packed_with, rounding};
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};
use crate::vecmath;

/// Packed matrices of one shape, one after another.
#[derive(Clone, Copy, Debug)]
pub struct Stack<'a> {
    /// The number format of all of them.
    pub format: Format,
    /// Their rows.
    pub bytes: &'a [u8],
    /// Rows of each.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
}

/// out\[m, rows\] where the first `counts[0]` rows of x\[m, cols\] are multiplied with the first matrix, the next `counts[1]`
/// with the second, and so on: each product as [`matmul_packed`](crate::matmul_packed) has it. Whether operands may be
/// rounded is decided by the size of the whole stack.
///
/// # Panics
/// If a slice does not have the length that the shape and the counts ask for.
pub fn matmul_grouped(w: Stack, x: &[f32], counts: &[usize], out: &mut [f32]) {
    products([w], x, counts, out);
}

/// out\[m, rows\] = silu(x · Gᵀ) · (x · Uᵀ), the rows of x divided among the matrices of both stacks by `counts`: the bits of
/// [`matmul_grouped`] and [`swiglu`](crate::vecmath::swiglu), but the two products do not go through memory.
///
/// # Panics
/// As [`matmul_grouped`], or if the stacks differ in shape.
pub fn matmul_grouped_swiglu(gate: Stack, up: Stack, x: &[f32], counts: &[usize], out: &mut [f32]) {
    assert_eq!((gate.rows, gate.cols), (up.rows, up.cols), "matmul_grouped_swiglu: shapes of the matrices");
    products([gate, up], x, counts, out);
}

/// A group: its matrix, and which tokens are multiplied with it.
struct Group {
    matrix: usize,
    tokens: Range<usize>,
}

/// One product, or two of which SwiGLU makes one.
fn products<const N: usize>(w: [Stack; N], x: &[f32], counts: &[usize], out: &mut [f32]) {
    let (n, k) = (w[0].rows, w[0].cols);
    let m = counts.iter().sum::<usize>();
    assert_eq!((x.len(), out.len()), (m * k, m * n), "matmul_grouped: elements of x and of out for {m} rows of {k}");
    let role = match counts.len() {
        _ if N > 1 => Role::Gate,
        1 => Role::Alone,
        _ => Role::Expert,
    };
    let w = w.map(|stack| Matrices::new(stack, counts.len(), role));
    if k == 0 || n == 0 {
        return out.fill(0.0);
    }
    let mut end = 0;
    let groups: Vec<Group> = (counts.iter().enumerate())
        .map(|(matrix, count)| {
            end += count;
            Group { matrix, tokens: end - count..end }
        })
        .filter(|group| !group.tokens.is_empty())
        .collect();
    if groups.len() > 1 && groups.iter().all(|group| group.tokens.len() <= FEW) {
        return few(w, n, k, x, &groups, out);
    }
    let out = SharedMut::new(out);
    let one = |Group { matrix, tokens }: &Group| {
        let rows = w.map(|w| w.rows(*matrix, 0..n));
        // SAFETY: groups have tokens of their own.
        let out = unsafe { out.slice(tokens.start * n, tokens.len() * n) };
        product(rows, n, k, &x[tokens.start * k..tokens.end * k], tokens.len(), out);
    };
    // A large group is work enough for all threads. The others are taken by one thread each, the largest first, so that
    // threads end together.
    let share = m / (2 * pool::threads_here());
    let (large, mut others): (Vec<Group>, Vec<Group>) = groups.into_iter().partition(|g| g.tokens.len() > share);
    large.iter().for_each(one);
    others.sort_by_key(|group| Reverse(group.tokens.len()));
    pool::parallel(others.len(), &|t| one(&others[t]));
}

/// A stack, its size checked.
#[derive(Clone, Copy)]
struct Matrices<'a> {
    stack: Stack<'a>,
    row_bytes: usize,
    rounding: Rounding,
}

/// Some rows of one matrix of a stack.
#[derive(Clone, Copy)]
struct Rows<'a> {
    format: Format,
    bytes: &'a [u8],
    rounding: Rounding,
}

impl<'a> Matrices<'a> {
    fn new(stack: Stack<'a>, count: usize, role: Role) -> Self {
        let Stack { format, bytes, rows, cols } = stack;
        let all = count.checked_mul(rows);
        let row_bytes = format.bytes_for(cols).filter(|row| all.and_then(|n| n.checked_mul(*row)) == Some(bytes.len()));
        let Some(row_bytes) = row_bytes else {
            panic!("matmul_grouped: {} bytes are no {count} matrices of {rows} × {cols} in {format}", bytes.len())
        };
        Matrices { stack, row_bytes, rounding: rounding(format, count * rows, rows, cols, role) }
    }

    fn rows(&self, matrix: usize, rows: Range<usize>) -> Rows<'a> {
        let first = matrix * self.stack.rows + rows.start;
        let bytes = &self.stack.bytes[first * self.row_bytes..][..rows.len() * self.row_bytes];
        Rows { format: self.stack.format, bytes, rounding: self.rounding }
    }
}

/// Groups of a few tokens each: a group alone is little work, so that all share one call of the pool. Each task has some
/// rows of one group's matrix, and where there is no kernel for all groups, prepares the activations of the group for itself.
fn few<const N: usize>(w: [Matrices; N], n: usize, k: usize, x: &[f32], groups: &[Group], out: &mut [f32]) {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        let Matrices { stack: Stack { format, .. }, rounding, .. } = w[0];
        let alike = w.iter().all(|w| (w.stack.format, w.rounding) == (format, rounding));
        if alike && packed::few_from_bytes(isa(), rounding, format) {
            let mut rest = out;
            let product = |group: &Group| {
                let out = rest.split_off_mut(..group.tokens.len() * n).expect("as long as all tokens' results");
                let w = w.map(|w| w.rows(group.matrix, 0..n).bytes);
                bytes::Product { format, w, rows: n, tokens: group.tokens.clone(), out }
            };
            return packed::matmul_few(isa(), groups.iter().map(product).collect(), k, x);
        }
    }
    // Enough tasks that threads end together, and no more: each rounds its activations again.
    let part = (groups.len() * n).div_ceil(6 * pool::threads_here()).clamp(1, n);
    let parts = n.div_ceil(part);
    let out = SharedMut::new(out);
    let task = |t: usize| {
        let Group { matrix, tokens } = &groups[t / parts];
        let rows = t % parts * part..n.min((t % parts + 1) * part);
        let (count, x) = (rows.len(), &x[tokens.start * k..tokens.end * k]);
        let w = w.map(|w| w.rows(*matrix, rows.clone()));
        with_buffer(Slot::Rows, tokens.len() * count, |buffer| {
            product(w, count, k, x, tokens.len(), buffer);
            for (token, results) in tokens.clone().zip(buffer.chunks_exact(count)) {
                // SAFETY: each task has rows of its own of its tokens.
                unsafe { out.slice(token * n + rows.start, count) }.copy_from_slice(results);
            }
        });
    };
    pool::parallel(groups.len() * parts, &task);
}

/// The product of `m` tokens with `n` rows, or SwiGLU of their products with two times `n` rows.
fn product<const N: usize>(w: [Rows; N], n: usize, k: usize, x: &[f32], m: usize, out: &mut [f32]) {
    let isa = isa();
    let into = |w: &Rows, out: &mut [f32]| {
        matmul_packed_with(isa, w.rounding, w.format, w.bytes, n, k, x, m, out);
    };
    let [gate, others @ ..] = &w[..] else { return };
    let Some(up) = others.first() else { return into(gate, out) };
    if packed::matmul_swiglu(isa, [gate, up].map(|w| (w.rounding, w.format, w.bytes)), n, k, x, m, out) {
        return;
    }
    with_buffer(Slot::Fused, m * n, |products| {
        into(gate, out);
        into(up, products);
        const CHUNK: usize = 1 << 12;
        pool::parallel_chunks(out, CHUNK, &|t, gate| {
            vecmath::swiglu_in_place(isa, gate, &products[t * CHUNK..][..gate.len()]);
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn packed(format: Format, n: usize, seed: u64) -> Vec<u8> {
        let mut random = Random::new(seed);
        let values: Vec<f32> = (0..n).map(|_| random.uniform(-1.0, 1.0)).collect();
        let mut bytes = vec![0; format.bytes_for(n).unwrap()];
        format.encode(&values, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn each_group_meets_its_own_matrix() {
        let small =
            (33, 256, vec![vec![0, 1, 9, 2, 0, 40], vec![1, 0, 1, 1, 0, 0], vec![0; 6], vec![0, 0, 5, 0, 0, 0]]);
        // Small matrices of a stack that is large enough for rounding.
        let large = (96, 1024, vec![vec![0, 1, 2, 1, 0, 0, 8, 0, 0, 1, 0], vec![3, 0, 0, 20, 0, 0, 0, 0, 1, 9, 0]]);
        for (n, k, all) in [small, large] {
            for (gate, up) in [(Format::F32, Format::F32), (Format::Q8_0, Format::Q8_0), (Format::Q4_K, Format::Q6_K)] {
                for counts in &all {
                    let (g, u) = (packed(gate, counts.len() * n * k, 1), packed(up, counts.len() * n * k, 2));
                    let m = counts.iter().sum::<usize>();
                    let mut random = Random::new(3);
                    let x: Vec<f32> = (0..m * k).map(|_| random.uniform(-1.0, 1.0)).collect();
                    let expected = |format: Format, w: &[u8], role: Role| {
                        let (mut out, mut at) = (vec![0.0; m * n], 0);
                        let rounding = rounding(format, counts.len() * n, n, k, role);
                        for (w, count) in w.chunks(w.len() / counts.len()).zip(counts) {
                            let (x, out) = (&x[at * k..][..count * k], &mut out[at * n..][..count * n]);
                            matmul_packed_with(isa(), rounding, format, w, n, k, x, *count, out);
                            at += count;
                        }
                        out
                    };
                    let stack = |format, bytes| Stack { format, bytes, rows: n, cols: k };
                    let mut out = vec![f32::NAN; m * n];
                    matmul_grouped(stack(gate, &g), &x, counts, &mut out);
                    assert_eq!(out, expected(gate, &g, Role::Expert), "{gate} {n}×{k} {counts:?}");
                    matmul_grouped_swiglu(stack(gate, &g), stack(up, &u), &x, counts, &mut out);
                    let mut gates = expected(gate, &g, Role::Gate);
                    vecmath::swiglu_in_place(isa(), &mut gates, &expected(up, &u, Role::Gate));
                    assert_eq!(out, gates, "swiglu of {gate} and {up} {n}×{k} {counts:?}");
                }
            }
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let refuse = |bytes: usize, x: usize, counts: &[usize]| {
            let (w, x, mut out) = (vec![0; bytes], vec![0.0; x], vec![0.0; 2 * 3]);
            let stack = Stack { format: Format::Q8_0, bytes: &w, rows: 3, cols: 32 };
            let call = || matmul_grouped(stack, &x, counts, &mut out);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err()
        };
        assert!(!refuse(2 * 3 * 34, 2 * 32, &[1, 1]));
        assert!(refuse(2 * 3 * 34 - 1, 2 * 32, &[1, 1]));
        assert!(refuse(2 * 3 * 34, 2 * 32, &[2, 1]));
        assert!(refuse(2 * 3 * 34, 2 * 32, &[2]));
        assert!(refuse(2 * 3 * 34, 2 * 32 - 1, &[1, 1]));
    }
}
