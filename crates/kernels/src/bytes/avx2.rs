//! Few tokens with AVX2.

use std::arch::x86_64::*;

use super::read::{Layout, Read, Steps};
use super::{Activations, CHUNK, Weights};
use crate::gemm::FEW;

/// Steps of reading with AVX2 and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The CPU must have AVX2 and F16C.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Avx2(())
    }
}

impl Steps for Avx2 {
    #[inline(always)]
    fn look_up(self, table: &[u8; 16], q: &mut [u8; CHUNK]) {
        // SAFETY: only made where AVX2 exists; whole arrays are read and written.
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            for q in q.as_chunks_mut::<32>().0 {
                let looked_up = _mm256_shuffle_epi8(table, _mm256_loadu_si256(q.as_ptr().cast()));
                _mm256_storeu_si256(q.as_mut_ptr().cast(), looked_up);
            }
        }
    }

    #[inline(always)]
    fn widen(self, bits: [u16; 8]) -> [f32; 8] {
        let mut wide = [0.0; 8];
        // SAFETY: only made where F16C exists; whole arrays are read and written.
        unsafe { _mm256_storeu_ps(wide.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(bits.as_ptr().cast()))) };
        wide
    }
}

/// Chunks that are read before they are multiplied; they stay in the first-level cache.
const PART: usize = 8;

/// The products of a row with each of up to [`FEW`] tokens, whose chunks are `stride` apart.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn row(layout: Layout, read: Read, row: &[u8], k: usize, x: &[Activations], stride: usize, out: &mut [f32]) {
    let mut acc = [[_mm256_setzero_ps(); 2]; FEW];
    let mut weights = [Weights::ZERO; PART];
    for (part, row) in row.chunks(PART * layout.bytes).enumerate() {
        let first = part * PART;
        let weights = &mut weights[..PART.min(k.div_ceil(CHUNK) - first)];
        let ahead = row.as_ptr().wrapping_add(PART * layout.bytes);
        for line in 0..row.len().div_ceil(64) {
            _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64 * line).cast());
        }
        // SAFETY: AVX2 is there.
        unsafe { read(row, weights) };
        for (i, w) in weights.iter().enumerate() {
            for (acc, x) in acc.iter_mut().zip(x.chunks(stride)).take(out.len()) {
                if layout.largest > 127 {
                    add::<true>(w, &x[first + i], acc);
                } else {
                    add::<false>(w, &x[first + i], acc);
                }
            }
        }
    }
    for (out, [a, b]) in out.iter_mut().zip(acc) {
        *out = sum(_mm256_add_ps(a, b));
    }
}

/// Adds the products of 256 weights with as many activations to two sums of eight lanes.
///
/// Pairs of products of bytes are added in 16 bits, which holds for weights up to 127. `WIDE` ones, all of which stand for
/// numbers around 128, are multiplied as magnitudes with activations that have taken their signs; they have no minima then.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add<const WIDE: bool>(w: &Weights, x: &Activations, acc: &mut [__m256; 2]) {
    let ones = _mm256_set1_epi16(1);
    for half in 0..2 {
        // SAFETY: the loads lie in the fields.
        let (scale, min, sum) = unsafe {
            let at = 8 * half;
            let scales = (_mm256_loadu_ps(w.scale.as_ptr().add(at)), _mm256_loadu_ps(x.scale.as_ptr().add(at)));
            let min = _mm256_loadu_ps(w.min.as_ptr().add(at));
            (_mm256_mul_ps(scales.0, scales.1), min, _mm256_loadu_ps(x.sum.as_ptr().add(at)))
        };
        if !WIDE {
            acc[half] = _mm256_fmadd_ps(min, sum, acc[half]);
        }
        for i in 0..4 {
            // SAFETY: as above.
            let (q, x) = unsafe {
                let at = 128 * half + 32 * i;
                (_mm256_loadu_si256(w.q.as_ptr().add(at).cast()), _mm256_loadu_si256(x.q.as_ptr().add(at).cast()))
            };
            let pairs = if WIDE {
                let q = _mm256_xor_si256(q, _mm256_set1_epi8(-128));
                _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q))
            } else {
                _mm256_maddubs_epi16(q, x)
            };
            let dots = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, ones));
            let each = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
            let each = _mm256_add_epi32(each, _mm256_set1_epi32(2 * i as i32));
            acc[i % 2] = _mm256_fmadd_ps(dots, _mm256_permutevar8x32_ps(scale, each), acc[i % 2]);
        }
    }
}

/// The sum of eight lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn sum(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}
