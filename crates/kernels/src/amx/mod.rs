//! Products with AMX tiles: weights unpacked to bf16 panels that stay in the first-level cache, activations packed once.
//!
//! A tile is 16 rows of 64 bytes. `tdpbf16ps` adds to a 16×16 tile of f32 the product of a tile of 16 rows × 32 bf16 and one
//! of 16 pairs × 16 columns. Weights are the left operand, because its rows are what unpacking writes, without any
//! interleaving; activations are the right one, interleaved in pairs once per product. The result is therefore transposed,
//! which is undone while it is copied out.
//!
//! Products of floats ([`gemm`](fn@gemm)) take their left and right sides as they are, so that nothing is transposed but
//! operands that lie the wrong way.
//!
//! A panel is [`ROWS`] rows by [`DEPTH`] columns, 16 KB: two threads that share a core would find both of theirs in its L1 cache.
//! Sums over such a part of the depth are kept in a block of f32 beside it. Deeper panels were measured slower (see
//! ARCHITECTURE.md).
//!
//! Tiles are configured at the start of every task and released at its end: what a thread did before is never relied on.

mod gemm;
mod int8;
mod weights;

use std::arch::asm;
use std::arch::x86_64::*;

use crate::gemm::MatRef;
use crate::simd_x86::transpose16;

pub(crate) use gemm::gemm;
pub(crate) use weights::{Rows, matmul, matmul_swiglu};

/// Rows of a panel of weights, and columns (tokens) of a block of activations: two tiles.
const ROWS: usize = 32;
/// Depth of a panel. Every block format's length divides it.
pub(crate) const DEPTH: usize = 256;
/// Bytes from row to row of a panel: a row and a cache line, so that rows do not fall into one set of the cache.
pub(crate) const PANEL_STRIDE: usize = DEPTH * 2 + 64;
/// Elements of depth that one tile instruction takes.
pub(crate) const STEP: usize = 32;

/// Whether the CPU has AMX for bf16 and bytes (and AVX-512 for bf16) and the operating system lets this process use it. Asks once.
pub(crate) fn granted() -> bool {
    static GRANTED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *GRANTED.get_or_init(|| {
        // Leaf 7, EDX: bit 22 AMX-BF16, bit 24 AMX-TILE, bit 25 AMX-INT8.
        let has = is_x86_feature_detected!("avx512bf16") && {
            let leaf = __cpuid_count(7, 0);
            __get_cpuid_max(0).0 >= 7 && [22, 24, 25].iter().all(|bit| leaf.edx >> bit & 1 == 1)
        };
        has && permission()
    })
}

/// Asks Linux for the tile registers; without its consent the first tile instruction would kill the process.
#[cfg(target_os = "linux")]
fn permission() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: a system call that only changes this process's permissions; it clobbers rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XTILEDATA,
            out("rcx") _, out("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permission() -> bool {
    false
}

/// The tile configuration: palette 1, eight tiles of 16 rows × 64 bytes.
#[repr(C, align(64))]
struct Config([u8; 64]);

const CONFIG: Config = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
        tile += 1;
    }
    Config(bytes)
};

/// Tile registers in use by this thread, until dropped.
pub(crate) struct Tiles;

impl Tiles {
    /// # Safety
    /// [`granted`] must have said yes.
    pub(crate) unsafe fn new() -> Self {
        // SAFETY: the instruction exists by the caller's promise and reads 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(nostack, readonly)) };
        Tiles
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: only made where AMX exists.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// A panel times all tokens: sums (+)= panel · activations.
///
/// # Safety
/// Tiles are configured; the panel has [`ROWS`] rows of `steps` steps; `activations` has `steps` steps of `columns` tokens
/// in blocks of 32 (the last may be of 16); `sums` has [`ROWS`] rows of `stride` ≥ `columns` elements.
pub(crate) unsafe fn multiply(
    steps: usize,
    panel: *const u8,
    activations: *const u8,
    columns: usize,
    sums: *mut f32,
    stride: usize,
    add: bool,
) {
    let mut j = 0;
    while j < columns {
        // SAFETY: within the operands by the caller's promise.
        unsafe {
            let (b, c) = (activations.add(j * steps * STEP * 2), sums.add(j));
            if j + 32 <= columns {
                two_by_two(steps, panel, b, c, stride, add);
            } else {
                two_by_one(steps, panel, b, c, stride, add);
            }
        }
        j += 32;
    }
}

/// Two tiles of rows by two of tokens.
///
/// # Safety
/// As [`multiply`].
#[inline]
unsafe fn two_by_two(steps: usize, a: *const u8, b: *const u8, c: *mut f32, stride: usize, add: bool) {
    // SAFETY: see above. Tiles 0 to 3 hold the sums, 4 and 5 weights, 6 and 7 activations.
    unsafe {
        let (c1, c2, c3) = (c.add(16), c.add(16 * stride), c.add(16 * stride + 16));
        if add {
            asm!(
                "tileloadd tmm0, [{c0} + {s}]", "tileloadd tmm1, [{c1} + {s}]",
                "tileloadd tmm2, [{c2} + {s}]", "tileloadd tmm3, [{c3} + {s}]",
                c0 = in(reg) c, c1 = in(reg) c1, c2 = in(reg) c2, c3 = in(reg) c3, s = in(reg) stride * 4,
                options(nostack, readonly));
        } else {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
        }
        asm!(
            "2:",
            "tileloadd tmm4, [{a} + {sa}]",
            "tileloadd tmm6, [{b} + {sb}]",
            "tileloadd tmm5, [{a2} + {sa}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {sb} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 64", "add {a2}, 64", "add {b}, 2048", "dec {n}", "jnz 2b",
            a = inout(reg) a => _, a2 = inout(reg) a.add(16 * PANEL_STRIDE) => _, b = inout(reg) b => _,
            n = inout(reg) steps => _, sa = in(reg) PANEL_STRIDE, sb = in(reg) 64usize,
            options(nostack, readonly));
        asm!(
            "tilestored [{c0} + {s}], tmm0", "tilestored [{c1} + {s}], tmm1",
            "tilestored [{c2} + {s}], tmm2", "tilestored [{c3} + {s}], tmm3",
            c0 = in(reg) c, c1 = in(reg) c1, c2 = in(reg) c2, c3 = in(reg) c3, s = in(reg) stride * 4,
            options(nostack));
    }
}

/// Two tiles of rows by one of tokens.
///
/// # Safety
/// As [`multiply`].
#[inline]
unsafe fn two_by_one(steps: usize, a: *const u8, b: *const u8, c: *mut f32, stride: usize, add: bool) {
    // SAFETY: see above.
    unsafe {
        let c2 = c.add(16 * stride);
        if add {
            asm!("tileloadd tmm0, [{c0} + {s}]", "tileloadd tmm2, [{c2} + {s}]",
                c0 = in(reg) c, c2 = in(reg) c2, s = in(reg) stride * 4, options(nostack, readonly));
        } else {
            asm!("tilezero tmm0", "tilezero tmm2", options(nostack, nomem));
        }
        asm!(
            "2:",
            "tileloadd tmm4, [{a} + {sa}]",
            "tileloadd tmm6, [{b} + {sb}]",
            "tileloadd tmm5, [{a2} + {sa}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "add {a}, 64", "add {a2}, 64", "add {b}, 1024", "dec {n}", "jnz 2b",
            a = inout(reg) a => _, a2 = inout(reg) a.add(16 * PANEL_STRIDE) => _, b = inout(reg) b => _,
            n = inout(reg) steps => _, sa = in(reg) PANEL_STRIDE, sb = in(reg) 64usize,
            options(nostack, readonly));
        asm!("tilestored [{c0} + {s}], tmm0", "tilestored [{c2} + {s}], tmm2",
            c0 = in(reg) c, c2 = in(reg) c2, s = in(reg) stride * 4, options(nostack));
    }
}

/// Packs 16 rows of x (tokens, or columns of a product's right side), of which `rows` exist, as tiles of pairs: block `t`
/// of every part of the depth `k`.
///
/// Part p (of [`DEPTH`] columns) starts at byte `p·columns·2`; in it each block of 32 tokens is contiguous, step by step,
/// and of each step the tile of the first 16 tokens, then that of the second 16 if there are any.
///
/// # Safety
/// The CPU has AVX-512 with BF16; `x` holds those rows; `dst` has room for all parts.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(crate) unsafe fn pack_tokens(x: MatRef, k: usize, rows: usize, t: usize, columns: usize, dst: *mut f32) {
    let first = t / 2 * 32;
    let width = 32.min(columns - first); // tokens of the block of 32 that this one is in
    for p in (0..k).step_by(DEPTH) {
        let steps = DEPTH.min(k - p).div_ceil(STEP);
        for s in 0..steps {
            let at = p + s * STEP;
            // SAFETY: by the caller's promise.
            let tile = unsafe { read(x, rows, at, STEP.min(k - at), Form::Pairs) };
            let to = p * columns * 2 + first * steps * STEP * 2 + s * width * 64 + t % 2 * 1024;
            for (i, row) in tile.into_iter().enumerate() {
                // SAFETY: the tile lies in `dst` by the caller's promise.
                unsafe { _mm512_storeu_si512(dst.byte_add(to + i * 64).cast(), row) };
            }
        }
    }
}

/// How a block of 16 rows × 32 columns lies in a tile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A row each: what the left operand wants.
    Rows,
    /// 16 pairs of columns, each with all rows side by side: what the right one wants. The transpose, in words of 32 bits.
    Pairs,
}

/// Columns `at..at + len` (32 at most) of the first `rows` rows (16 at most) of x, rounded to bf16; what is missing is 0.
///
/// # Safety
/// The CPU has AVX-512 with BF16; x holds those elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn read(x: MatRef, rows: usize, at: usize, len: usize, form: Form) -> [__m512i; 16] {
    let mut tile = [_mm512_setzero_si512(); 16];
    let found = if x.rs == 1 && x.cs != 1 {
        let mask = ((1u32 << rows) - 1) as u16;
        // Of each lane the element of the first vector, then that of the second.
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let interleaved =
            _mm512_or_si512(lanes, _mm512_slli_epi32::<16>(_mm512_add_epi32(lanes, _mm512_set1_epi32(16))));
        for (pair, row) in tile.iter_mut().enumerate().take(len.div_ceil(2)) {
            let from = x.data.as_ptr().wrapping_add((at + 2 * pair) * x.cs);
            let second = if 2 * pair + 1 < len { mask } else { 0 };
            // SAFETY: masked lanes are not read.
            let both = unsafe {
                to_bf16(_mm512_maskz_loadu_ps(mask, from), _mm512_maskz_loadu_ps(second, from.wrapping_add(x.cs)))
            };
            *row = _mm512_permutexvar_epi16(interleaved, both);
        }
        Form::Pairs
    } else {
        let bits = if len >= STEP { u32::MAX } else { (1 << len) - 1 };
        let mut gathered = [0.0; STEP];
        for (i, row) in tile.iter_mut().enumerate().take(rows) {
            let from = if x.cs == 1 {
                x.data[i * x.rs + at..][..len].as_ptr()
            } else {
                (0..len).for_each(|p| gathered[p] = x.data[i * x.rs + (at + p) * x.cs]);
                gathered.as_ptr()
            };
            // SAFETY: masked lanes are not read.
            *row = unsafe {
                to_bf16(
                    _mm512_maskz_loadu_ps(bits as u16, from),
                    _mm512_maskz_loadu_ps((bits >> 16) as u16, from.wrapping_add(16)),
                )
            };
        }
        Form::Rows
    };
    if found == form { tile } else { transpose16(tile) }
}

/// 32 numbers rounded to bf16, nearest even.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn to_bf16(low: __m512, high: __m512) -> __m512i {
    // SAFETY: the same 512 bits.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Writes the transpose of a 16×16 block of f32: `tokens` rows of `count` elements; `past` the caches if that can be.
///
/// # Safety
/// The CPU has AVX-512; `src` holds 16 rows, `src_stride` elements apart; `dst` takes the result, whose rows are
/// `dst_stride` apart.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn copy_transposed(
    src: *const f32,
    src_stride: usize,
    dst: *mut f32,
    dst_stride: usize,
    tokens: usize,
    count: usize,
    past: bool,
) {
    let mut rows = [_mm512_setzero_si512(); 16];
    for (i, row) in rows.iter_mut().enumerate() {
        // SAFETY: readable by the caller's promise.
        *row = unsafe { _mm512_loadu_si512(src.add(i * src_stride).cast()) };
    }
    let mask = if count >= 16 { u16::MAX } else { (1 << count) - 1 };
    for (i, row) in transpose16(rows).into_iter().enumerate().take(tokens) {
        // SAFETY: writable by the caller's promise; masked lanes are not written. Whole lines go past the caches where
        // that is asked for: to be written there they would have to be read first.
        unsafe {
            let to = dst.add(i * dst_stride);
            if past && mask == u16::MAX && to.addr().is_multiple_of(64) {
                _mm512_stream_si512(to.cast(), row);
            } else {
                _mm512_mask_storeu_epi32(to.cast(), mask, row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_sixteen_rows() {
        if !granted() {
            return;
        }
        let src: Vec<f32> = (0..16 * 20).map(|i| i as f32).collect();
        let mut dst = vec![-1.0f32; 16 * 24];
        // SAFETY: AVX-512 is there with AMX; the buffers hold 16 rows of 16.
        unsafe { copy_transposed(src.as_ptr(), 20, dst.as_mut_ptr(), 24, 15, 13, false) };
        for i in 0..16 {
            for j in 0..24 {
                let expected = if i < 15 && j < 13 { (j * 20 + i) as f32 } else { -1.0 };
                assert_eq!(dst[i * 24 + j], expected, "{i} {j}");
            }
        }
    }
}
