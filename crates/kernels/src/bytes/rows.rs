//! Few tokens: rows are multiplied as they are read, 256 weights at a time, by what each instruction set makes of them.
//!
//! What bounds these products, where memory does not, is the number of vector instructions for 256 weights. Hence a format
//! chooses the order of the activations, so that weights need no moves after they are unpacked; activations share their
//! scale by the lane that their products end in, so that sums of several products are one conversion; and whole scales of
//! weights multiply in whole numbers.

use super::{Activations, Order};
use crate::gemm::FEW;
use crate::simd::prefetch;

/// Bytes between what is read and what is fetched: less waits for memory, more is fetched in vain at the end of a task.
const AHEAD: usize = 4096;

/// Blocks whose units are read together.
pub(super) const GROUP: usize = 8;

/// How the rows of a format are multiplied, 256 weights at a time from `BYTES` bytes. Unsafe functions want the instruction
/// set that they are made for.
pub(super) trait Rows<const BYTES: usize> {
    /// The order of the activations.
    const ORDER: Order;
    /// What is read of [`GROUP`] blocks at once.
    type Units;
    /// 256 weights in registers.
    type Weights: Copy;
    /// Sums of products in registers.
    type Sums: Copy;

    /// Reads the units of up to [`GROUP`] blocks.
    unsafe fn units(blocks: &[[u8; BYTES]]) -> Self::Units;

    /// Reads a block, which is the `i`th of those that the units belong to.
    unsafe fn weights(block: &[u8; BYTES], units: &Self::Units, i: usize) -> Self::Weights;

    /// No products.
    unsafe fn zero() -> Self::Sums;

    /// Adds the products with 256 activations to some sums.
    unsafe fn add(w: Self::Weights, x: &Activations, sums: Self::Sums) -> Self::Sums;

    /// The sum of all.
    unsafe fn total(sums: Self::Sums) -> f32;

    /// [`total`](Rows::total) of some rows, to the bit.
    #[inline(always)]
    unsafe fn totals(sums: [Self::Sums; TOGETHER]) -> [f32; TOGETHER] {
        // SAFETY: by the caller's promise.
        sums.map(|sums| unsafe { Self::total(sums) })
    }
}

/// Rows whose sums end together: where rows are short, adding lanes up for each alone takes a fifth of the time.
pub(super) const TOGETHER: usize = 4;

/// Of each 128 weights those at 0, 16, 64 and 80 in one vector: the order of formats that keep two bits of four of them in
/// a byte, whose scales are for 16.
pub(super) const QUARTERS: [u8; 16] = [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15];
/// The order of formats that keep 32 weights in the low halves of bytes and the next in the high ones.
pub(super) const PAIRS: [u8; 16] = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15];
/// The order of formats that keep 16 weights in the low halves of bytes and the next in the high ones.
pub(super) const HALVES: [u8; 16] = [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15];

/// What blocks have of a binary16 scale at byte `at` and, perhaps, `and` a minimum after it: the low and high halves of words.
///
/// They are put together in registers: a vector that is read from where its parts were just written waits until all of
/// these have left the pipeline.
#[inline(always)]
pub(super) fn words<const BYTES: usize>(blocks: &[[u8; BYTES]], at: usize, and: bool) -> [u32; GROUP] {
    match blocks.first_chunk::<GROUP>() {
        Some([a, b, c, d, e, f, g, h]) => [
            word(a, at, and),
            word(b, at, and),
            word(c, at, and),
            word(d, at, and),
            word(e, at, and),
            word(f, at, and),
            word(g, at, and),
            word(h, at, and),
        ],
        None => {
            let of = |i: usize| if i < blocks.len() { word(&blocks[i], at, and) } else { 0 };
            [of(0), of(1), of(2), of(3), of(4), of(5), of(6), 0]
        }
    }
}

/// [`words`] of one block.
#[inline(always)]
fn word<const BYTES: usize>(block: &[u8; BYTES], at: usize, and: bool) -> u32 {
    let first = if and || at < 2 { at } else { at - 2 };
    let four = match block.get(first..).and_then(|bytes| bytes.first_chunk()) {
        Some(four) => u32::from_le_bytes(*four),
        None => 0,
    };
    if and {
        four
    } else if first == at {
        four & 0xffff
    } else {
        four >> 16
    }
}

/// The products of rows of `row_bytes` with one token.
///
/// # Safety
/// The CPU must have the instruction set.
#[inline(always)]
pub(super) unsafe fn one<R: Rows<BYTES>, const BYTES: usize>(
    rows: &[u8],
    row_bytes: usize,
    x: &[Activations],
    out: &mut [f32],
) {
    let (together, rest) = out.as_chunks_mut::<TOGETHER>();
    let (first, last) = rows.split_at(together.len() * TOGETHER * row_bytes);
    // SAFETY: by the caller's promise.
    unsafe {
        for (rows, out) in first.chunks_exact(TOGETHER * row_bytes).zip(together) {
            let mut sums = [R::zero(); TOGETHER];
            for (row, sums) in rows.chunks_exact(row_bytes).zip(&mut sums) {
                [*sums] = products::<R, BYTES, 1>(row, x, 0);
            }
            *out = R::totals(sums);
        }
        for (row, out) in last.chunks_exact(row_bytes).zip(rest) {
            let [sums] = products::<R, BYTES, 1>(row, x, 0);
            *out = R::total(sums);
        }
    }
}

/// The products of a row with each of the tokens, whose chunks are `stride` apart.
///
/// # Safety
/// The CPU must have the instruction set.
#[inline(always)]
pub(super) unsafe fn row<R: Rows<BYTES>, const BYTES: usize>(
    row: &[u8],
    x: &[Activations],
    stride: usize,
    out: &mut [f32],
) {
    let mut done = 0;
    while done < out.len() {
        let (x, out) = (&x[done * stride..], &mut out[done..]);
        // SAFETY: by the caller's promise.
        done += unsafe {
            match out.len() {
                FEW.. => tokens::<R, BYTES, FEW>(row, x, stride, out),
                4.. => tokens::<R, BYTES, 4>(row, x, stride, out),
                2.. => tokens::<R, BYTES, 2>(row, x, stride, out),
                _ => tokens::<R, BYTES, 1>(row, x, stride, out),
            }
        };
    }
}

/// Adds the products of at most [`GROUP`] blocks, the first of which is the one at `at` of its row, with the first `M` tokens.
#[inline(always)]
unsafe fn add<R: Rows<BYTES>, const BYTES: usize, const M: usize>(
    blocks: &[[u8; BYTES]],
    x: &[Activations],
    stride: usize,
    at: usize,
    sums: &mut [R::Sums; M],
) {
    // SAFETY: by the caller's promise, who has as many activations too.
    unsafe {
        let units = R::units(blocks);
        for (i, block) in blocks.iter().enumerate() {
            // Rows follow each other: what comes in a while is on its way when it is asked for.
            for line in 0..BYTES.div_ceil(64) {
                prefetch(block.as_ptr().wrapping_add(AHEAD + 64 * line).cast());
            }
            let w = R::weights(block, &units, i);
            for (t, sums) in sums.iter_mut().enumerate() {
                *sums = R::add(w, x.get_unchecked(t * stride + at + i), *sums);
            }
        }
    }
}

/// The sums of products of a row with the first `M` tokens.
#[inline(always)]
unsafe fn products<R: Rows<BYTES>, const BYTES: usize, const M: usize>(
    row: &[u8],
    x: &[Activations],
    stride: usize,
) -> [R::Sums; M] {
    let (whole, rest) = row.as_chunks::<BYTES>();
    let (groups, others) = whole.as_chunks::<GROUP>();
    assert!(x.len() >= (M - 1) * stride + whole.len() + usize::from(!rest.is_empty()));
    // SAFETY: by the caller's promise; there are as many activations as was just asserted.
    unsafe {
        let mut sums = [R::zero(); M];
        for (g, blocks) in groups.iter().enumerate() {
            add::<R, BYTES, M>(blocks, x, stride, g * GROUP, &mut sums);
        }
        if !others.is_empty() {
            add::<R, BYTES, M>(others, x, stride, groups.len() * GROUP, &mut sums);
        }
        if !rest.is_empty() {
            // Blocks of zeros are weights of zero or meet activations of zero.
            let mut last = [[0; BYTES]];
            last[0][..rest.len()].copy_from_slice(rest);
            add::<R, BYTES, M>(&last, x, stride, whole.len(), &mut sums);
        }
        sums
    }
}

/// The products of a row with the first `M` tokens. Returns how many these are.
#[inline(always)]
unsafe fn tokens<R: Rows<BYTES>, const BYTES: usize, const M: usize>(
    row: &[u8],
    x: &[Activations],
    stride: usize,
    out: &mut [f32],
) -> usize {
    // SAFETY: by the caller's promise.
    unsafe {
        for (out, sums) in out.iter_mut().zip(products::<R, BYTES, M>(row, x, stride)) {
            *out = R::total(sums);
        }
    }
    M
}
