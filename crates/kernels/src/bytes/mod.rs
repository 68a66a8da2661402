//! Products of packed weights with activations rounded to bytes, by AVX-512-VNNI: what generation runs on.
//!
//! Activations are rounded once per product to 8 bits with a scale for each 16 of them. Weights are read straight from the
//! file's layout: 256 at a time become unsigned bytes `q` and, for each 16, a scale and a minimum (a weight is
//! `scale·q + minimum`). Then a product of 256 is four `vpdpbusd`, whose sums of four are scaled in f32; minima meet the sums
//! of the activations. The order of summation does not depend on how many tokens there are.

mod blocks;

use std::arch::x86_64::*;

use imaginal_numeric::Format;

use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};
pub(crate) use blocks::supported;

/// Weights that are read at a time: the longest block.
const CHUNK: usize = 256;
/// Tokens of one pass over a chunk of weights, whose sums stay in registers.
const MAX_TOKENS: usize = 16;

/// 256 activations.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Activations {
    /// Rounded, in units of the scale.
    q: [i8; CHUNK],
    /// The scale of each 16.
    scale: [f32; 16],
    /// The sum of each 16 rounded ones, times the scale.
    sum: [f32; 16],
}

/// 256 weights.
#[derive(Clone, Copy)]
struct Weights {
    q: [__m512i; 4],
    scale: __m512,
    min: __m512,
}

/// What takes a row's bytes, its number of columns, the activations (`chunks` per token), and sums up to [`MAX_TOKENS`]
/// tokens. Unsafe to call without AVX-512-VNNI.
type Row = unsafe fn(&[u8], usize, &[Activations], usize, &mut [f32]);

/// out\[m, n\] = x\[m, k\] · Wᵀ as [`matmul_packed`](crate::matmul_packed) has it.
///
/// # Panics
/// If the format is not [`supported`] or a slice is too short.
///
/// # Safety
/// The CPU must have AVX-512-VNNI.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn matmul(
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
    let Some(kernel) = blocks::kernel(format) else { panic!("no dot products of bytes for {format}") };
    assert!(x.len() >= m * k && out.len() >= m * n && w.len() >= n * row_bytes);
    let run = |count: usize, f: &(dyn Fn(usize) + Sync)| {
        if threads > 1 && count > 1 { pool::parallel(count, f) } else { (0..count).for_each(f) }
    };
    let chunks = k.div_ceil(CHUNK);
    let floats = size_of::<Activations>() / size_of::<f32>();
    with_buffer(Slot::B, m * chunks * floats, |buffer| {
        let shared = SharedMut::new(&mut *buffer);
        // SAFETY: the instructions are there by the caller's promise; each token's chunks are its own, and buffers are
        // aligned to 64 bytes.
        run(m, &|t| unsafe {
            let chunks = std::slice::from_raw_parts_mut(shared.as_ptr().cast::<Activations>().add(t * chunks), chunks);
            quantize(&x[t * k..][..k], chunks);
        });
        // SAFETY: as many were just written; any bits are a valid value.
        let activations = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<Activations>(), m * chunks) };
        let shared = SharedMut::new(out);
        // Enough bytes that handing out a task does not show, and enough tasks that threads end together.
        let rows = (64 * 1024 / row_bytes.max(1)).clamp(1, n.div_ceil(8 * threads).max(1));
        run(n.div_ceil(rows), &|t| {
            let mut sums = [0.0; MAX_TOKENS];
            for first in (0..m).step_by(MAX_TOKENS) {
                let tokens = MAX_TOKENS.min(m - first);
                let x = &activations[first * chunks..(first + tokens) * chunks];
                for j in t * rows..n.min((t + 1) * rows) {
                    // SAFETY: the instructions are there; each row has results of its own.
                    unsafe {
                        kernel(&w[j * row_bytes..][..row_bytes], k, x, chunks, &mut sums[..tokens]);
                        for (i, sum) in sums[..tokens].iter().enumerate() {
                            *shared.as_ptr().add((first + i) * n + j) = *sum;
                        }
                    }
                }
            }
        });
    });
}

/// Rounds a token's activations; what is missing of the last chunk becomes 0.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn quantize(x: &[f32], chunks: &mut [Activations]) {
    for (x, chunk) in x.chunks(CHUNK).zip(chunks) {
        for g in 0..16 {
            let part = x.get(g * 16..).unwrap_or_default();
            let mask = if part.len() >= 16 { u16::MAX } else { (1 << part.len()) - 1 };
            // SAFETY: masked lanes are not read.
            let v = unsafe { _mm512_maskz_loadu_ps(mask, part.as_ptr()) };
            let largest = _mm512_reduce_max_ps(_mm512_abs_ps(v));
            let scale = largest / 127.0;
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            // A scale whose inverse overflows belongs to numbers that vanish beside anything.
            let inverse = if inverse.is_finite() { inverse } else { 0.0 };
            let q = _mm512_cvtps_epi32(_mm512_mul_ps(v, _mm512_set1_ps(inverse)));
            // SAFETY: 16 bytes of the chunk's 256.
            unsafe { _mm_storeu_si128(chunk.q.as_mut_ptr().add(g * 16).cast(), _mm512_cvtsepi32_epi8(q)) };
            // What is not a number, or infinite, makes all its products so.
            let bad = _mm512_mask_cmp_ps_mask::<_CMP_UNORD_Q>(mask, v, v) != 0 || !largest.is_finite();
            chunk.scale[g] = if bad { f32::NAN } else { scale };
            chunk.sum[g] = _mm512_reduce_add_epi32(q) as f32 * chunk.scale[g];
        }
    }
}

/// Adds the products of 256 weights with those of each token, `stride` chunks apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn add<const M: usize>(w: Weights, x: &[Activations], at: usize, stride: usize, acc: &mut [__m512; M]) {
    let spread = [
        _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
        _mm512_setr_epi32(4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7),
        _mm512_setr_epi32(8, 8, 8, 8, 9, 9, 9, 9, 10, 10, 10, 10, 11, 11, 11, 11),
        _mm512_setr_epi32(12, 12, 12, 12, 13, 13, 13, 13, 14, 14, 14, 14, 15, 15, 15, 15),
    ];
    for (t, acc) in acc.iter_mut().enumerate() {
        let x = &x[t * stride + at];
        // SAFETY: the loads lie in the chunk, which is aligned to 64 bytes.
        unsafe {
            let scale = _mm512_mul_ps(w.scale, _mm512_load_ps(x.scale.as_ptr()));
            *acc = _mm512_fmadd_ps(w.min, _mm512_load_ps(x.sum.as_ptr()), *acc);
            for (i, (q, spread)) in w.q.into_iter().zip(spread).enumerate() {
                let x = _mm512_load_si512(x.q.as_ptr().add(64 * i).cast());
                let dots = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), q, x));
                *acc = _mm512_fmadd_ps(dots, _mm512_permutexvar_ps(spread, scale), *acc);
            }
        }
    }
}

#[cfg(test)]
mod tests;
