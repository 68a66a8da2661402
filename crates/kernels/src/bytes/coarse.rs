//! Coarse scales: one for each [`CHUNK`] weights of a row and activations of a token, with AVX-512-VNNI and in tiles of AMX.
//!
//! Sums of products are scaled that much less often, so that the time of a product does not depend on the format. What that
//! costs, and which matrices may have it, [`rounding`](fn@crate::packed::rounding) says.

use std::arch::x86_64::*;

use imaginal_numeric::Format;

use super::many::Column;
use super::{CHUNK, Weights, avx512, read, scale, tile, whole};
use crate::isa::Isa;
use crate::pool;

/// What stands for zero in panels of [`Rounder::read`].
pub(super) const ZERO: u8 = 128;

/// What rounds the weights of a format to bytes, with one scale for each [`CHUNK`].
#[derive(Clone, Copy)]
pub(crate) struct Rounder {
    /// Bytes of a chunk.
    bytes: usize,
    round: avx512::Round,
}

impl Rounder {
    /// # Panics
    /// If the CPU has no AVX-512-VNNI or the format no blocks.
    pub(crate) fn new(format: Format) -> Self {
        let (Some(round), Some(layout)) = (avx512::rounding(format), read::layout(format)) else {
            panic!("no coarse scales for {format}")
        };
        assert!(Isa::Avx512Vnni.usable() == Isa::Avx512Vnni, "no AVX-512-VNNI");
        Rounder { bytes: layout.bytes, round }
    }

    /// Rounds up to [`CHUNK`] weights; those that are missing become 0. Returns their scale, NaN if that of any is not finite.
    #[inline]
    pub(crate) fn round(self, bytes: &[u8], to: &mut [i8; CHUNK]) -> f32 {
        // SAFETY: `new` found the instructions.
        whole(bytes, self.bytes, |bytes| unsafe { (self.round)(bytes, to) })
    }

    /// [`round`](Rounder::round) for panels: `w` gets the numbers, [`ZERO`] more than they are, and the scale as the first of
    /// its own.
    pub(super) fn read(self, bytes: &[u8], w: &mut Weights) {
        let mut q = [0; CHUNK];
        w.scale[0] = self.round(bytes, &mut q);
        w.q = q.map(|q| q as u8 ^ ZERO);
    }
}

/// Whether a scale for each [`CHUNK`] activations costs little more than one for each 16 would: whether the largest are not far
/// beyond the others.
///
/// The energy of rounding errors is that of the largest of those that share a scale. Of normally distributed numbers the
/// largest of 256 has 2.5 times the energy of that of 16; where a few channels outweigh all others, it is up to 16 times.
///
/// # Panics
/// Without AVX-512.
pub(crate) fn even(x: &[f32], k: usize) -> bool {
    const TASK: usize = 16;
    assert!(Isa::Avx512.usable() == Isa::Avx512, "no AVX-512");
    let mut sums = vec![[0.0f32; 2]; x.len().div_ceil(TASK * k)];
    pool::parallel_chunks(&mut sums, 1, &|t, sum| {
        for x in x[t * TASK * k..].chunks(k).take(TASK) {
            // SAFETY: that AVX-512 is there was just asserted.
            let [coarse, fine] = unsafe { energies(x) };
            sum[0][0] += coarse;
            sum[0][1] += fine;
        }
    });
    let [coarse, fine] = sums.iter().fold([0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
    coarse <= 4.0 * fine
}

/// The energy of rounding errors with a scale for each [`CHUNK`] numbers, and with one for each 16 of them, in the same units.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn energies(x: &[f32]) -> [f32; 2] {
    let mut sums = [0.0; 2];
    for x in x.chunks(CHUNK) {
        let mut largest = _mm512_setzero_ps();
        for x in x.chunks(16) {
            let mask = if x.len() == 16 { u16::MAX } else { (1 << x.len()) - 1 };
            // SAFETY: masked lanes are not read.
            let x = unsafe { _mm512_maskz_loadu_ps(mask, x.as_ptr()) };
            largest = _mm512_max_ps(largest, _mm512_abs_ps(x));
        }
        sums[0] += 16.0 * _mm512_reduce_max_ps(largest).powi(2);
        sums[1] += _mm512_reduce_add_ps(_mm512_mul_ps(largest, largest));
    }
    sums
}

/// Rounds up to [`CHUNK`] numbers to bytes; the rest become 0. Returns their scale, NaN if any is not finite.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn round(x: &[f32], q: &mut [i8; CHUNK]) -> f32 {
    let mut vectors = [_mm512_setzero_ps(); CHUNK / 16];
    let mut largest = _mm512_setzero_si512();
    for (v, x) in vectors.iter_mut().zip(x.chunks(16)) {
        let mask = if x.len() == 16 { u16::MAX } else { (1 << x.len()) - 1 };
        // SAFETY: masked lanes are not read.
        *v = unsafe { _mm512_maskz_loadu_ps(mask, x.as_ptr()) };
        largest = _mm512_max_epu32(largest, _mm512_castps_si512(_mm512_abs_ps(*v)));
    }
    let (scale, inverse) = scale(_mm512_reduce_max_epu32(largest), 127.0);
    for (v, q) in vectors.iter().zip(q.as_chunks_mut::<16>().0) {
        let whole = _mm512_cvtps_epi32(_mm512_mul_ps(*v, _mm512_set1_ps(inverse)));
        // SAFETY: 16 bytes.
        unsafe { _mm_storeu_si128(q.as_mut_ptr().cast(), _mm512_cvtsepi32_epi8(whole)) };
    }
    scale
}

/// Rounds up to [`CHUNK`] activations of a token, with one scale; what is missing becomes 0.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn column(x: &[f32], column: &mut Column) {
    let mut q = [0i8; CHUNK];
    let scale = round(x, &mut q);
    let sum: i32 = q.iter().map(|q| i32::from(*q)).sum();
    for (word, q) in column.q.as_flattened_mut().iter_mut().zip(q.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(q.map(|q| q as u8));
    }
    column.scale[0] = scale;
    column.base[0] = scale * -tile::WHOLE;
    column.start[0] = tile::WHOLE.to_bits() as i32 - i32::from(ZERO) * sum;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn outliers_are_seen() {
        if Isa::Avx512.usable() != Isa::Avx512 {
            return;
        }
        let (m, k) = (40, 544);
        let mut random = Random::new(3);
        let mut x: Vec<f32> = (0..m * k).map(|_| (0..12).map(|_| random.uniform(-0.5, 0.5)).sum::<f32>()).collect();
        assert!(even(&x, k));
        // One channel far beyond the others.
        x.iter_mut().skip(77).step_by(k).for_each(|x| *x *= 30.0);
        assert!(!even(&x, k));
        assert!(even(&[0.0; 64], 64));
    }
}
