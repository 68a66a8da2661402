//! Products of queries, rounded to bytes, with keys in blocks of bytes or four bits, by AVX-512-VNNI.
//!
//! A query is rounded once to 8 bits with a scale for each block of 32, as keys are. Numbers of keys are read as unsigned
//! (a byte with 128 added, four bits with 8), what that adds to a product is taken away by the sums' first values. Sums of
//! a block are exact integers.

use std::arch::x86_64::*;

use super::KEYS;
use super::rows::{BLOCK, Run, blocks};
use crate::gemm::few::Kind;
use crate::isa::Isa;

/// Elements of a chunk: two blocks, a register of bytes.
const CHUNK: usize = 2 * BLOCK;

/// A chunk of a query.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Chunk {
    /// Rounded, in units of the scale.
    q: [i8; CHUNK],
    /// What each lane's sum begins with.
    begin: [i32; 16],
    /// The scale of each lane's block.
    scale: [f32; 16],
}

/// The queries of a task.
pub(super) struct Queries {
    chunks: Vec<Chunk>,
    per_query: usize,
}

impl Queries {
    /// Rounds queries of `dim` elements; `None` if keys of this kind are not multiplied here.
    pub fn new(isa: Isa, kind: Kind, q: &[f32], dim: usize) -> Option<Self> {
        if isa.usable() < Isa::Avx512Vnni || !blocks(kind) {
            return None;
        }
        let zero = if kind == Kind::Q8_0 { 128 } else { 8 };
        let per_query = dim.div_ceil(CHUNK);
        let chunk = |x: &[f32]| {
            let mut c = Chunk { q: [0; CHUNK], begin: [0; 16], scale: [0.0; 16] };
            for (i, x) in x.chunks(BLOCK).enumerate() {
                // A NaN is lost by `max`, and makes the sum one.
                let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs())) + 0.0 * x.iter().sum::<f32>();
                let scale = largest / 127.0;
                let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                // A scale whose inverse overflows belongs to numbers that vanish beside anything.
                let inverse = if inverse.is_finite() { inverse } else { 0.0 };
                for (q, v) in c.q[i * BLOCK..].iter_mut().zip(x) {
                    *q = (v * inverse).round_ties_even() as i8;
                }
                c.scale[i * 8..(i + 1) * 8].fill(scale);
            }
            for (begin, q) in c.begin.iter_mut().zip(c.q.as_chunks::<4>().0) {
                *begin = -zero * q.iter().map(|&q| i32::from(q)).sum::<i32>();
            }
            c
        };
        Some(Queries { chunks: q.chunks_exact(dim).flat_map(|q| q.chunks(CHUNK).map(chunk)).collect(), per_query })
    }

    /// The products with a block of keys, as `all_scores` of the decoding path has them.
    pub fn scores(&self, k: &Run, scales: &[f32], scores: &mut [f32]) {
        let rows = scores.len() / KEYS;
        assert!(blocks(k.kind) && k.rows <= KEYS && k.dim.is_multiple_of(BLOCK) && k.rows > 0);
        assert!(self.chunks.len() == rows * self.per_query && self.per_query == k.dim.div_ceil(CHUNK));
        assert!(scales.len() >= k.dim / BLOCK * KEYS);
        for j in (0..k.rows).step_by(4) {
            let mut r = 0;
            while r < rows {
                let (q, to) = (&self.chunks[r * self.per_query..], &mut scores[r * KEYS + j..]);
                // SAFETY: `new` has seen the instruction set; lengths are asserted above.
                unsafe {
                    match rows - r {
                        4.. => four_keys::<4>(k, q, self.per_query, scales, j, to),
                        2.. => four_keys::<2>(k, q, self.per_query, scales, j, to),
                        _ => four_keys::<1>(k, q, self.per_query, scales, j, to),
                    }
                }
                r += match rows - r {
                    4.. => 4,
                    2.. => 2,
                    _ => 1,
                };
            }
        }
    }
}

/// Chunk `c` of a row as unsigned bytes.
///
/// # Safety
/// The CPU has AVX-512-VNNI, and the row has the chunk, or the first block of it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn unsigned(kind: Kind, row: *const u8, c: usize, half: bool) -> __m512i {
    // SAFETY: masked lanes are not read; the rest is there by the caller's promise.
    unsafe {
        if kind == Kind::Q8_0 {
            let mask = if half { u64::from(u32::MAX) } else { u64::MAX };
            let x = _mm512_maskz_loadu_epi8(mask, row.add(c * CHUNK).cast());
            return _mm512_xor_si512(x, _mm512_set1_epi8(-128));
        }
        let mask = if half { u32::from(u16::MAX) } else { u32::MAX };
        let x = _mm512_castsi256_si512(_mm256_maskz_loadu_epi8(mask, row.add(c * CHUNK / 2).cast()));
        // Each block twice: its low halves are the first 16 elements, its high halves the others.
        let x = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3), x);
        let x = _mm512_srlv_epi64(x, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4));
        _mm512_and_si512(x, _mm512_set1_epi8(15))
    }
}

/// The products of N queries with the four keys from `j` on.
///
/// # Safety
/// The CPU has AVX-512-VNNI; the queries, scales and scores that the sizes name are there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn four_keys<const N: usize>(
    k: &Run,
    q: &[Chunk],
    per_query: usize,
    scales: &[f32],
    j: usize,
    scores: &mut [f32],
) {
    let rows = [k.row(j), k.row(j + 1), k.row(j + 2), k.row(j + 3)];
    super::decode::ahead(k, j, 4);
    let mut sums = [_mm512_setzero_ps(); N];
    for c in 0..per_query {
        let half = (c + 1) * CHUNK > k.dim;
        let second = if half { 2 * c } else { 2 * c + 1 };
        // SAFETY: the chunk is there; a block has KEYS scales, of which `j + 4` is at most the end.
        unsafe {
            // Loops instead of closures, which would be compiled without the instructions.
            let mut x = [_mm512_setzero_si512(); 4];
            for (x, row) in x.iter_mut().zip(rows) {
                *x = unsigned(k.kind, row, c, half);
            }
            let lower = _mm512_broadcast_f32x4(_mm_loadu_ps(scales.as_ptr().add(2 * c * KEYS + j)));
            let upper = _mm_loadu_ps(scales.as_ptr().add(second * KEYS + j));
            let key_scales = _mm512_mask_broadcast_f32x4(lower, 0xff00, upper);
            for (r, sum) in sums.iter_mut().enumerate() {
                let chunk = q.as_ptr().add(r * per_query + c);
                let values = _mm512_load_si512((*chunk).q.as_ptr().cast());
                let begin = _mm512_load_si512((*chunk).begin.as_ptr().cast());
                let mut d = [begin; 4];
                for (d, x) in d.iter_mut().zip(x) {
                    *d = _mm512_dpbusd_epi32(*d, x, values);
                }
                // Sums of four neighbours, the keys side by side; two quarters belong to each block.
                let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(d[0], d[1]), _mm512_unpackhi_epi32(d[0], d[1]));
                let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(d[2], d[3]), _mm512_unpackhi_epi32(d[2], d[3]));
                let d = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
                let factor = _mm512_mul_ps(key_scales, _mm512_load_ps((*chunk).scale.as_ptr()));
                *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(d), factor, *sum);
            }
        }
    }
    for (r, sum) in sums.into_iter().enumerate() {
        let x = _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps::<1>(sum));
        let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let to = &mut scores[r * KEYS..r * KEYS + 4];
        // SAFETY: four floats.
        unsafe { _mm_storeu_ps(to.as_mut_ptr(), x) };
    }
}
