//! Tiles of bytes: both operands are rounded to int8 with a scale for each [`DEPTH`] columns of a row or a token.
//!
//! `tdpbssd` adds to a 16×16 tile of i32 the product of a tile of 16 rows × 64 bytes and one of 16 groups of four × 16
//! columns: twice what `tdpbf16ps` does in the same time. After each part of the depth the sums, which are exact, are scaled
//! and added to those in f32. Those of one block are scaled while the tiles work on the next.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

use imaginal_numeric::Format;

use super::weights::{Operand, Part};
use super::{DEPTH, ROWS};
use crate::bytes::coarse::{Rounder, round};
use crate::simd_x86::transpose16;

/// Operands in bytes.
pub(super) struct Int8;

/// Tokens of a block.
const TOKENS: usize = 32;
/// Whole sums of a block.
const BLOCK: usize = ROWS * TOKENS;
/// Elements of depth that one tile instruction takes.
const STEP: usize = 64;
/// Bytes from row to row of a panel.
const STRIDE: usize = DEPTH + 64;
/// Where a panel's rows begin, behind their scales and the whole sums of two blocks; in units of 4 bytes.
const FIRST: usize = ROWS + 2 * BLOCK;

impl Operand for Int8 {
    const BYTES: usize = 1;
    const SCALED: bool = true;
    const PANEL: usize = FIRST + ROWS * STRIDE / 4;

    unsafe fn pack(x: &[f32], k: usize, t: usize, columns: usize, to: *mut f32, scales: *mut f32) {
        // SAFETY: by the caller's promise.
        unsafe { pack(x, k, t, columns, to.cast(), scales) }
    }

    type Reader = Rounder;

    fn reader(format: Format) -> Rounder {
        Rounder::new(format)
    }

    unsafe fn unpack(reader: Rounder, src: &[u8], _: usize, panel: *mut f32, r: usize) {
        // SAFETY: row r of the panel and its scale.
        unsafe {
            let to = &mut *panel.add(FIRST).byte_add(r * STRIDE).cast::<[i8; DEPTH]>();
            *panel.add(r) = reader.round(src, to);
        }
    }

    unsafe fn multiply(panel: *mut f32, part: Part, columns: usize, sums: *mut f32, stride: usize) {
        // SAFETY: by the caller's promise; AVX-512 is there with AMX.
        unsafe { multiply(panel, part, columns, sums, stride) }
    }
}

/// Packs 16 tokens, of which `x` holds as many as there are, as tiles of groups of four: block `t` of every part of the
/// depth `k`. The order is that of [`pack_tokens`](super::pack_tokens). The scale of token c in part p is `scales[p·columns + c]`.
///
/// # Safety
/// The CPU has AVX-512; `to` and `scales` have room for all parts.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn pack(x: &[f32], k: usize, t: usize, columns: usize, to: *mut u8, scales: *mut f32) {
    #[repr(C, align(64))]
    struct Rounded([[i8; DEPTH]; 16]);
    let mut rounded = Rounded([[0; DEPTH]; 16]);
    let first = t / 2 * TOKENS;
    let width = TOKENS.min(columns - first);
    for p in (0..k).step_by(DEPTH) {
        let len = DEPTH.min(k - p);
        for (i, q) in rounded.0.iter_mut().enumerate() {
            let scale = match x.get(i * k + p..i * k + p + len) {
                Some(x) => round(x, q),
                None => 0.0,
            };
            // SAFETY: a scale for each token and part.
            unsafe { *scales.add(p / DEPTH * columns + t * 16 + i) = scale };
        }
        let steps = len.div_ceil(STEP);
        for s in 0..steps {
            let mut tile = [_mm512_setzero_si512(); 16];
            for (row, q) in tile.iter_mut().zip(&rounded.0) {
                // SAFETY: 64 bytes of 256.
                *row = unsafe { _mm512_load_si512(q[s * STEP..].as_ptr().cast()) };
            }
            let at = p * columns + first * steps * STEP + s * width * STEP + t % 2 * 1024;
            for (i, row) in transpose16(tile).into_iter().enumerate() {
                // SAFETY: the tile lies in `to` by the caller's promise.
                unsafe { _mm512_storeu_si512(to.add(at + i * 64).cast(), row) };
            }
        }
    }
}

/// A panel times all tokens: sums (+)= panel · activations.
///
/// # Safety
/// As [`Operand::multiply`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn multiply(panel: *mut f32, part: Part, columns: usize, sums: *mut f32, stride: usize) {
    let steps = part.len.div_ceil(STEP);
    let mut j = 0;
    while j < columns {
        // SAFETY: the panel's parts are where `FIRST` says; everything else by the caller's promise. Tiles 0 to 3 hold the
        // sums, 4 and 5 weights, 6 and 7 activations.
        unsafe {
            let whole = panel.add(ROWS).cast::<i32>();
            let (now, before) = (whole.add(j / TOKENS % 2 * BLOCK), whole.add((j / TOKENS + 1) % 2 * BLOCK));
            let a = panel.add(FIRST).cast::<u8>();
            let b = part.activations.add(j * steps * STEP);
            let wide = j + TOKENS <= columns;
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
            for s in 0..steps {
                let a = a.add(s * STEP);
                if wide {
                    asm!(
                        "tileloadd tmm4, [{a} + {sa}]",
                        "tileloadd tmm6, [{b} + {sb}]",
                        "tileloadd tmm5, [{a2} + {sa}]",
                        "tdpbssd tmm0, tmm4, tmm6",
                        "tileloadd tmm7, [{b} + {sb} + 1024]",
                        "tdpbssd tmm2, tmm5, tmm6",
                        "tdpbssd tmm1, tmm4, tmm7",
                        "tdpbssd tmm3, tmm5, tmm7",
                        a = in(reg) a, a2 = in(reg) a.add(16 * STRIDE), b = in(reg) b.add(s * 2048),
                        sa = in(reg) STRIDE, sb = in(reg) 64usize, options(nostack, readonly));
                } else {
                    asm!(
                        "tileloadd tmm4, [{a} + {sa}]",
                        "tileloadd tmm6, [{b} + {sb}]",
                        "tileloadd tmm5, [{a2} + {sa}]",
                        "tdpbssd tmm0, tmm4, tmm6",
                        "tdpbssd tmm2, tmm5, tmm6",
                        a = in(reg) a, a2 = in(reg) a.add(16 * STRIDE), b = in(reg) b.add(s * 1024),
                        sa = in(reg) STRIDE, sb = in(reg) 64usize, options(nostack, readonly));
                }
                if j > 0 {
                    let rows = ROWS * s / steps..ROWS * (s + 1) / steps;
                    finish::<true>(panel, before, part, j - TOKENS, rows, sums, stride);
                }
            }
            asm!("tilestored [{c} + {s}], tmm0", "tilestored [{c} + {s} + 2048], tmm2",
                c = in(reg) now, s = in(reg) 64usize, options(nostack));
            if wide {
                asm!("tilestored [{c} + {s} + 1024], tmm1", "tilestored [{c} + {s} + 3072], tmm3",
                    c = in(reg) now, s = in(reg) 64usize, options(nostack));
            }
            if j + TOKENS >= columns {
                if wide {
                    finish::<true>(panel, now, part, j, 0..ROWS, sums, stride);
                } else {
                    finish::<false>(panel, now, part, j, 0..ROWS, sums, stride);
                }
            }
        }
        j += TOKENS;
    }
}

/// Scales some rows of a block of whole sums, which begins at token `j`, and adds them to the sums.
///
/// # Safety
/// As [`multiply`]; there are 32 tokens if `WIDE`, else 16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn finish<const WIDE: bool>(
    panel: *const f32,
    whole: *const i32,
    part: Part,
    j: usize,
    rows: Range<usize>,
    sums: *mut f32,
    stride: usize,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let second = if WIDE { 16 } else { 0 };
        let scale = [_mm512_loadu_ps(part.scales.add(j)), _mm512_loadu_ps(part.scales.add(j + second))];
        for r in rows {
            let from = whole.add(r / 16 * 512 + r % 16 * 16);
            let weight = _mm512_set1_ps(*panel.add(r));
            for (i, scale) in scale.into_iter().enumerate().take(1 + usize::from(WIDE)) {
                let sum = _mm512_cvtepi32_ps(_mm512_load_si512(from.add(256 * i).cast()));
                let scaled = _mm512_mul_ps(sum, scale);
                let to = sums.add(r * stride + j + 16 * i);
                let old = if part.add { _mm512_loadu_ps(to) } else { _mm512_setzero_ps() };
                _mm512_storeu_ps(to, _mm512_fmadd_ps(scaled, weight, old));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amx::{granted, weights};
    use crate::packed::Rounding;
    use crate::testing::Random;

    #[test]
    fn what_is_no_number_stays_so_and_touches_no_other_token() {
        if !granted() {
            return;
        }
        let (m, n, k) = (40, 33, 512);
        let mut random = Random::new(4);
        for format in [Format::Q4_K, Format::Q6_K, Format::IQ4_XS] {
            let values: Vec<f32> = (0..n * k).map(|_| random.uniform(-1.0, 1.0)).collect();
            let mut w = vec![0; format.bytes_for(n * k).unwrap()];
            format.encode(&values, &mut w).unwrap();
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x: Vec<f32> = (0..m * k).map(|_| random.uniform(-1.0, 1.0)).collect();
                x[7 * k + 300] = bad;
                let mut out = vec![0.0; m * n];
                let rows = weights::Rows { format, bytes: &w, row_bytes: w.len() / n };
                weights::matmul(1, Rounding::Int8, rows, n, k, &x, m, &mut out);
                for (token, out) in out.chunks(n).enumerate() {
                    let expected = token != 7;
                    assert!(out.iter().all(|x| x.is_finite() == expected), "{format} {bad} token {token}: {out:?}");
                }
            }
        }
    }
}
