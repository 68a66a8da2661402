//! Rounding activations for few tokens.

use std::arch::x86_64::*;

use super::super::padded;
use super::{Activations, CHUNK, Lanes, Order};

/// Lanes of four 128 bits, one list for each of them.
const fn lanes(of: [[i32; 4]; 4]) -> [i32; 16] {
    let (mut all, mut i) = ([0; 16], 0);
    while i < 16 {
        all[i] = of[i / 4][i % 4];
        i += 1;
    }
    all
}

vnni! {
    /// What [`few`](super::super::few) rounds with other instructions: the same bits.
    pub(in super::super) fn quantize(x: &[f32], order: &Order, zero: u8, chunks: &mut [Activations]) {
        match order.lanes {
            Lanes::Fours | Lanes::Halves => in_pieces::<4>(x, order, zero, chunks),
            Lanes::Eights => in_pieces::<8>(x, order, zero, chunks),
            Lanes::Runs | Lanes::Columns(_) => in_pieces::<16>(x, order, zero, chunks),
        }
    }

    /// Puts four numbers of each run into each of four vectors, the first as `within` says.
    fn columns(q: [__m512i; 4], within: &[u8; 16]) -> [__m512i; 4] {
        // SAFETY: 16 bytes.
        let within = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(within.as_ptr().cast()) });
        let [a, b, c, d] = [
            _mm512_shuffle_epi8(q[0], within),
            _mm512_shuffle_epi8(q[1], within),
            _mm512_shuffle_epi8(q[2], within),
            _mm512_shuffle_epi8(q[3], within),
        ];
        let every_fourth = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 0, 0, 0, 0, 0, 0, 0);
        let vector = |v: i32| {
            let at = _mm512_add_epi32(every_fourth, _mm512_set1_epi32(v));
            let (low, high) = (_mm512_permutex2var_epi32(a, at, b), _mm512_permutex2var_epi32(c, at, d));
            _mm512_inserti64x4::<1>(low, _mm512_castsi512_si256(high))
        };
        [vector(0), vector(1), vector(2), vector(3)]
    }

    /// [`quantize`] where `PIECE` activations that follow each other share a scale with others elsewhere.
    fn in_pieces<const PIECE: usize>(x: &[f32], order: &Order, zero: u8, chunks: &mut [Activations]) {
        let wide = |of: [i32; 16]| {
            // SAFETY: 16 numbers.
            unsafe { _mm512_loadu_si512(of.as_ptr().cast()) }
        };
        // Sums come out by fours of runs.
        let mut back = [0; 16];
        for (at, run) in order.runs.iter().enumerate() {
            back[usize::from(run % 16)] = (at % 4 * 4 + at / 4) as i32;
        }
        let back = wide(back);
        for (x, chunk) in x.chunks(CHUNK).zip(chunks) {
            let mut zeros = [0.0; CHUNK];
            let x = padded(x, &mut zeros);
            let x = x.as_chunks::<16>().0;
            let run = |i: usize| {
                // SAFETY: 16 numbers.
                unsafe { _mm512_loadu_ps(x[usize::from(order.runs[i] % 16)].as_ptr()) }
            };
            let magnitude = |x: __m512| _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fff_ffff));
            let infinite = _mm512_set1_epi32(0x7f80_0000);

            let ends = wide(if PIECE == 4 { lanes([[0, 4, 8, 12]; 4]) } else { lanes([[0, 8, 0, 8]; 4]) });
            let mut largest = _mm512_setzero_si512();
            for first in 0..PIECE {
                let mut most = magnitude(run(first));
                for i in (first + PIECE..16).step_by(PIECE) {
                    most = _mm512_max_epu32(most, magnitude(run(i)));
                }
                let most = _mm512_max_epu32(most, _mm512_shuffle_epi32::<0b10_11_00_01>(most));
                let mut most = _mm512_max_epu32(most, _mm512_shuffle_epi32::<0b01_00_11_10>(most));
                if PIECE > 4 {
                    most = _mm512_max_epu32(most, _mm512_shuffle_i32x4::<0b10_11_00_01>(most, most));
                }
                if PIECE > 8 {
                    most = _mm512_max_epu32(most, _mm512_shuffle_i32x4::<0b01_00_11_10>(most, most));
                }
                // Where the scales of these are.
                largest = match PIECE {
                    4 => _mm512_mask_permutexvar_epi32(largest, 0xf << (4 * first), ends, most),
                    8 => _mm512_mask_permutexvar_epi32(largest, 3 << (first % 4 * 4 + first / 4 * 2), ends, most),
                    _ => _mm512_mask_mov_epi32(largest, 1 << first, most),
                };
            }
            // The arithmetic of `scale`.
            let steps = _mm512_div_ps(_mm512_castsi512_ps(largest), _mm512_set1_ps(127.0));
            let steps = _mm512_add_epi32(_mm512_castps_si512(steps), _mm512_set1_epi32(3));
            let steps = _mm512_castsi512_ps(_mm512_and_si512(steps, _mm512_set1_epi32(!3)));
            let inverse = _mm512_div_ps(_mm512_set1_ps(1.0), steps);
            let inverse = _mm512_maskz_mov_ps(_mm512_cmplt_epu32_mask(magnitude(inverse), infinite), inverse);
            let finite = _mm512_cmplt_epu32_mask(largest, infinite);
            let scale = _mm512_mask_mov_ps(_mm512_set1_ps(f32::NAN), finite, steps);
            // SAFETY: 16 numbers, aligned as the chunk is.
            unsafe { _mm512_store_ps(chunk.scale.as_mut_ptr(), scale) };

            let spread = wide(match PIECE {
                4 => lanes([[0; 4], [1; 4], [2; 4], [3; 4]]),
                8 => lanes([[0; 4], [0; 4], [1; 4], [1; 4]]),
                _ => [0; 16],
            });
            // Rounds a run.
            let rounded = |i: usize| {
                let first = match PIECE {
                    4 => i % 4 * 4,
                    8 => i % 4 * 4 + i / 4 % 2 * 2,
                    _ => i,
                };
                let own = _mm512_add_epi32(spread, _mm512_set1_epi32(first as i32));
                _mm512_cvtps_epi32(_mm512_mul_ps(run(i), _mm512_permutexvar_ps(own, inverse)))
            };
            // Packing leaves four runs by fours.
            let in_runs = wide(lanes([[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]]));
            let (mut all, mut starts) = ([_mm512_setzero_si512(); 4], [_mm512_setzero_si512(); 4]);
            let mut terms = [_mm512_setzero_ps(); 4];
            for (i, ((terms, start), q)) in terms.iter_mut().zip(&mut starts).zip(&mut all).enumerate() {
                let first = _mm512_packs_epi32(rounded(4 * i), rounded(4 * i + 1));
                let second = _mm512_packs_epi32(rounded(4 * i + 2), rounded(4 * i + 3));
                *q = _mm512_permutexvar_epi32(in_runs, _mm512_packs_epi16(first, second));
                let sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), *q);
                let factor = -i32::from(zero) * i32::from(order.steps[i]);
                *start = _mm512_mullo_epi32(sums, _mm512_set1_epi32(factor));
                let (owner, step) = match PIECE {
                    8 => (lanes([[0, 0, 1, 1], [4, 4, 5, 5], [8, 8, 9, 9], [12, 12, 13, 13]]), i % 2 * 2),
                    16 => (lanes([[0; 4], [1; 4], [2; 4], [3; 4]]), 4 * i),
                    _ => (lanes([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]), 0),
                };
                let owner = _mm512_add_epi32(wide(owner), _mm512_set1_epi32(step as i32));
                *terms = _mm512_mul_ps(_mm512_permutexvar_ps(owner, scale), _mm512_cvtepi32_ps(sums));
            }
            let [a, b, c, d] = terms;
            let (low, high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let (low_end, high_end) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let sum = _mm512_shuffle_ps::<0b01_00_01_00>(low, low_end);
            let sum = _mm512_add_ps(sum, _mm512_shuffle_ps::<0b11_10_11_10>(low, low_end));
            let sum = _mm512_add_ps(sum, _mm512_shuffle_ps::<0b01_00_01_00>(high, high_end));
            let sum = _mm512_add_ps(sum, _mm512_shuffle_ps::<0b11_10_11_10>(high, high_end));
            if order.lanes == Lanes::Halves {
                let [a, b, c, d] = starts;
                let none = _mm512_setzero_si512();
                starts = [_mm512_add_epi32(a, b), none, _mm512_add_epi32(c, d), none];
            }
            if let Lanes::Columns(within) = &order.lanes {
                all = columns(all, within);
                let mut sums = _mm512_setzero_si512();
                for q in all {
                    sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), q);
                }
                let none = _mm512_setzero_si512();
                starts = [_mm512_mullo_epi32(sums, _mm512_set1_epi32(-i32::from(zero))), none, none, none];
            }
            // SAFETY: 64 bytes each, aligned as the chunk is.
            unsafe {
                for (i, q) in all.into_iter().enumerate() {
                    _mm512_store_si512(chunk.q.as_mut_ptr().add(64 * i).cast(), q);
                }
                _mm512_store_ps(chunk.sum.as_mut_ptr(), _mm512_permutexvar_ps(back, sum));
                for (i, start) in starts.into_iter().enumerate() {
                    _mm512_store_si512(chunk.start.as_mut_ptr().add(16 * i).cast(), start);
                }
            }
        }
    }
}
