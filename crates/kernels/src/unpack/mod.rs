//! Rows of weights in any format, unpacked to bf16: the operand of the AMX product.
//!
//! Formats with few distinct values per block are unpacked by lookup: the block's possible values are computed once in f32,
//! rounded to bf16, and one `vpermw` fetches 32 elements at a time; the others are read as [`bytes`](crate::bytes). A value is
//! rounded once, from the f32 that [`Format::decode`] gives or from one fused multiply-add of the same terms.

mod blocks;

use std::arch::x86_64::*;

use imaginal_numeric::Format;

use crate::amx::to_bf16;
use crate::bytes::{CHUNK, Weights, read};
use crate::isa::Isa;
use crate::scratch::{Slot, with_buffer};

/// The bytes of a row that hold columns `first..first + len`.
///
/// # Panics
/// If they are no whole blocks.
pub(crate) fn range(format: Format, first: usize, len: usize) -> std::ops::Range<usize> {
    let (Some(skip), Some(bytes)) = (format.bytes_for(first), format.bytes_for(len)) else {
        panic!("columns {first}.. are no whole {format} blocks")
    };
    skip..skip + bytes
}

/// Unpacks the bytes of `len` columns into `dst`, whose rest is set to 0.
///
/// # Safety
/// The CPU must have AVX-512 (F, BW, DQ, VL) and its BF16.
///
/// # Panics
/// If a slice is too short.
pub(crate) unsafe fn bf16(format: Format, src: &[u8], len: usize, dst: &mut [u16]) {
    let (dst, rest) = dst.split_at_mut(len);
    rest.fill(0);
    // SAFETY: the instructions are there by the caller's promise.
    unsafe {
        match format {
            Format::BF16 => {
                for (d, s) in dst.iter_mut().zip(src.as_chunks::<2>().0) {
                    *d = u16::from_le_bytes(*s);
                }
            }
            Format::F16 => f16(src, dst),
            Format::F32 => f32s(src, dst),
            _ => match blocks::kernel(format) {
                Some(kernel) => kernel(src, dst),
                None if format.block_len() > 1 => numbers(format, src, dst),
                None => with_buffer(Slot::Rows, len, |floats| {
                    (format.info().decode)(src, floats);
                    round(floats, dst);
                }),
            },
        }
    }
}

/// Rounds weights that are read as bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn numbers(format: Format, src: &[u8], dst: &mut [u16]) {
    let Some(chunk) = format.bytes_for(CHUNK) else { panic!("{CHUNK} weights are no whole {format} blocks") };
    let mut weights = Weights::ZERO;
    for (src, dst) in src.chunks(chunk).zip(dst.chunks_mut(CHUNK)) {
        read(Isa::Amx, format, src, &mut weights);
        let groups = weights.q.as_chunks::<32>().0.iter().zip(weights.scale.as_chunks::<2>().0);
        for (dst, ((q, scale), min)) in
            dst.as_chunks_mut::<32>().0.iter_mut().zip(groups.zip(weights.min.as_chunks::<2>().0))
        {
            // SAFETY: 32 bytes are read, and 32 elements written.
            unsafe {
                let part = |i: usize| {
                    let q = _mm512_cvtepu8_epi32(_mm_loadu_si128(q.as_ptr().add(16 * i).cast()));
                    _mm512_fmadd_ps(_mm512_cvtepi32_ps(q), _mm512_set1_ps(scale[i]), _mm512_set1_ps(min[i]))
                };
                _mm512_storeu_si512(dst.as_mut_ptr().cast(), to_bf16(part(0), part(1)));
            }
        }
    }
}

/// Rounds f32 to bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn round(src: &[f32], dst: &mut [u16]) {
    for (s, d) in src.chunks(32).zip(dst.chunks_mut(32)) {
        let bits = if s.len() == 32 { u32::MAX } else { (1 << s.len()) - 1 };
        // SAFETY: masked lanes are neither read nor written; both chunks have the same length.
        unsafe {
            let low = _mm512_maskz_loadu_ps(bits as u16, s.as_ptr());
            let high = _mm512_maskz_loadu_ps((bits >> 16) as u16, s.as_ptr().wrapping_add(16));
            _mm512_mask_storeu_epi16(d.as_mut_ptr().cast(), bits, to_bf16(low, high));
        }
    }
}

/// Rounds f32 from a file's bytes, which may have any alignment.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn f32s(src: &[u8], dst: &mut [u16]) {
    for (s, d) in src.chunks(128).zip(dst.chunks_mut(32)) {
        let bits = if d.len() == 32 { u32::MAX } else { (1 << d.len()) - 1 };
        assert!(s.len() >= 4 * d.len());
        // SAFETY: as in `round`.
        unsafe {
            let low = _mm512_maskz_loadu_ps(bits as u16, s.as_ptr().cast());
            let high = _mm512_maskz_loadu_ps((bits >> 16) as u16, s.as_ptr().cast::<f32>().wrapping_add(16));
            _mm512_mask_storeu_epi16(d.as_mut_ptr().cast(), bits, to_bf16(low, high));
        }
    }
}

/// Rounds binary16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn f16(src: &[u8], dst: &mut [u16]) {
    for (s, d) in src.chunks(64).zip(dst.chunks_mut(32)) {
        let bits = if d.len() == 32 { u32::MAX } else { (1 << d.len()) - 1 };
        assert!(s.len() >= 2 * d.len());
        // SAFETY: as in `round`.
        unsafe {
            let both = _mm512_maskz_loadu_epi16(bits, s.as_ptr().cast());
            let low = _mm512_cvtph_ps(_mm512_castsi512_si256(both));
            let high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(both));
            _mm512_mask_storeu_epi16(d.as_mut_ptr().cast(), bits, to_bf16(low, high));
        }
    }
}

#[cfg(test)]
mod tests;
