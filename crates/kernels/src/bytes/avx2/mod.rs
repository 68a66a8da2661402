//! Few tokens with AVX2.

use std::arch::x86_64::*;

use imaginal_numeric::Format;

use super::read::{self, block_of, with_formats};
use super::steps::Steps;
use super::{Activations, CHUNK, Kernel, PLAIN, Read, Row, Weights, whole};

/// Makes functions compiled with AVX2.
macro_rules! avx2 {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident $(<const $c:ident: $of:ty>)? ($($arg:ident: $ty:ty),* $(,)?) -> $ret:ty $body:block)*) => {$(
        $(#[$doc])*
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        $vis fn $name $(<const $c: $of>)? ($($arg: $ty),*) -> $ret $body
    )*};
}

// After the macro, which they use.
mod grids;
mod rows;

/// Makes a kernel of each format from what reads it.
macro_rules! kernels {
    ($($format:ident $name:ident: $bytes:literal, $group:literal, $zero:expr, $largest:literal;)*) => {
        /// What reads and multiplies a format.
        pub(super) fn kernel(format: Format) -> Option<Kernel> {
            $(mod $name {
                use super::*;

                // A function of its own is vectorised better than code inside of another loop.
                #[inline(never)]
                #[target_feature(enable = "avx2,fma,f16c")]
                pub(super) fn read(block: &[u8], w: &mut Weights) {
                    // SAFETY: this function runs only where its features exist.
                    read::$name(unsafe { Avx2::new() }, block_of(block), w);
                }

                #[target_feature(enable = "avx2,fma,f16c")]
                pub(super) fn multiply(bytes: &[u8], x: &[Activations], stride: usize, out: &mut [f32]) {
                    if let [out] = out {
                        // SAFETY: this function runs only where its features exist.
                        let steps = unsafe { Avx2::new() };
                        *out = one::<$bytes, { limit($largest) }>(bytes, &x[..stride], |block, w| {
                            read::$name(steps, block, w)
                        });
                        return;
                    }
                    row::<{ limit($largest) }>(read, $bytes, bytes, x, stride, out);
                }
            })*
            Some(match format {
                $(Format::$format => match rows::kernel(format) {
                    Some((row, one, order)) => Kernel { read: $name::read, row, one: Some(one), order },
                    None => Kernel { read: $name::read, row: $name::multiply, one: None, order: &PLAIN },
                },)*
                _ => return None,
            })
        }
    };
}
with_formats!(kernels);

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
    fn quarters(self, bytes: &[u8; 64], q: &mut [u8; CHUNK]) {
        // SAFETY: only made where AVX2 exists; whole arrays are read and written.
        unsafe {
            let three = _mm256_set1_epi8(3);
            for (bytes, q) in bytes.as_chunks::<32>().0.iter().zip(q.as_chunks_mut::<128>().0) {
                let bits = _mm256_loadu_si256(bytes.as_ptr().cast());
                let parts =
                    [bits, _mm256_srli_epi16::<2>(bits), _mm256_srli_epi16::<4>(bits), _mm256_srli_epi16::<6>(bits)];
                for (q, part) in q.as_chunks_mut::<32>().0.iter_mut().zip(parts) {
                    _mm256_storeu_si256(q.as_mut_ptr().cast(), _mm256_and_si256(part, three));
                }
            }
        }
    }

    #[inline(always)]
    fn flip(self, bytes: &[u8; 32], q: &mut [u8; 32]) {
        // SAFETY: only made where AVX2 exists; whole arrays are read and written.
        unsafe {
            let flipped = _mm256_xor_si256(_mm256_loadu_si256(bytes.as_ptr().cast()), _mm256_set1_epi8(-128));
            _mm256_storeu_si256(q.as_mut_ptr().cast(), flipped);
        }
    }

    #[inline(always)]
    fn widen<const N: usize>(self, bits: [u16; N]) -> [f32; N] {
        assert!(N <= 8);
        let (mut eight, mut wide) = ([0; 8], [0.0; 8]);
        eight[..N].copy_from_slice(&bits);
        // SAFETY: only made where F16C exists; whole arrays are read and written.
        unsafe { _mm256_storeu_ps(wide.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(eight.as_ptr().cast()))) };
        std::array::from_fn(|i| wide[i])
    }
}

/// The limit of numbers that are multiplied alike: up to 63 four products fit into 16 bits, up to 127 two.
const fn limit(largest: u8) -> u8 {
    match largest {
        0..64 => 63,
        64..128 => 127,
        _ => 255,
    }
}

/// The product of a row with one token, where reading is part of the loop.
#[inline(always)]
fn one<const BYTES: usize, const LARGEST: u8>(
    bytes: &[u8],
    x: &[Activations],
    read: impl Fn(&[u8; BYTES], &mut Weights),
) -> f32 {
    // SAFETY: only called where AVX2 exists.
    unsafe {
        let mut acc = [_mm256_setzero_ps(); 2];
        let (blocks, rest) = bytes.as_chunks::<BYTES>();
        let mut last = [0; BYTES];
        last[..rest.len()].copy_from_slice(rest);
        for (i, x) in x.iter().enumerate() {
            let block = blocks.get(i).unwrap_or(&last);
            // Rows follow each other: what comes in a while is on its way when it is asked for.
            for line in 0..BYTES.div_ceil(64).min(3) {
                _mm_prefetch::<_MM_HINT_T0>(block.as_ptr().wrapping_add(2048 + 64 * line).cast());
            }
            let mut w = std::mem::MaybeUninit::<Weights>::uninit();
            read(block, &mut *w.as_mut_ptr());
            add::<LARGEST>(&*w.as_ptr(), x, &mut acc);
        }
        sum(_mm256_add_ps(acc[0], acc[1]))
    }
}

/// The products of a row with each of the tokens, whose chunks are `stride` apart. `LARGEST` is the [`limit`]
/// of the weights' numbers.
#[target_feature(enable = "avx2,fma,f16c")]
fn row<const LARGEST: u8>(read: Read, chunk: usize, bytes: &[u8], x: &[Activations], stride: usize, out: &mut [f32]) {
    match out.len() {
        1 => tokens::<1, LARGEST>(read, chunk, bytes, x, stride, out),
        2 => tokens::<2, LARGEST>(read, chunk, bytes, x, stride, out),
        3 => tokens::<3, LARGEST>(read, chunk, bytes, x, stride, out),
        4 => tokens::<4, LARGEST>(read, chunk, bytes, x, stride, out),
        _ => {
            for (x, out) in x.chunks(4 * stride).zip(out.chunks_mut(4)) {
                row::<LARGEST>(read, chunk, bytes, x, stride, out);
            }
        }
    }
}

/// The products of a row with `M` tokens.
#[target_feature(enable = "avx2,fma,f16c")]
fn tokens<const M: usize, const LARGEST: u8>(
    read: Read,
    chunk: usize,
    bytes: &[u8],
    x: &[Activations],
    stride: usize,
    out: &mut [f32],
) {
    let mut acc = [[_mm256_setzero_ps(); 2]; M];
    let mut w = Weights::ZERO;
    for (i, block) in bytes.chunks(chunk).enumerate() {
        // Rows follow each other: what comes in a while is on its way when it is asked for.
        for line in 0..3 {
            _mm_prefetch::<_MM_HINT_T0>(block.as_ptr().wrapping_add(2048 + 64 * line).cast());
        }
        // SAFETY: the reader is compiled for AVX2, which is there.
        whole(block, chunk, |block| unsafe { read(block, &mut w) });
        for (t, acc) in acc.iter_mut().enumerate() {
            add::<LARGEST>(&w, &x[t * stride + i], acc);
        }
    }
    for (out, [a, b]) in out.iter_mut().zip(acc) {
        *out = sum(_mm256_add_ps(a, b));
    }
}

/// Adds the products of 256 weights with as many activations to two sums of eight lanes.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add<const LARGEST: u8>(w: &Weights, x: &Activations, acc: &mut [__m256; 2]) {
    let ones = _mm256_set1_epi16(1);
    for (half, at) in [0, 8].into_iter().enumerate() {
        // SAFETY: the loads lie in the fields.
        let (scale, min, sum) = unsafe {
            let scales = (_mm256_loadu_ps(w.scale.as_ptr().add(at)), _mm256_loadu_ps(x.scale.as_ptr().add(at)));
            let min = _mm256_loadu_ps(w.min.as_ptr().add(at));
            (_mm256_mul_ps(scales.0, scales.1), min, _mm256_loadu_ps(x.sum.as_ptr().add(at)))
        };
        if LARGEST < 128 {
            acc[half] = _mm256_fmadd_ps(min, sum, acc[half]);
        }
        for (i, acc) in acc.iter_mut().enumerate() {
            let (a, b) =
                (pairs::<LARGEST>(w, x, 128 * half + 64 * i), pairs::<LARGEST>(w, x, 128 * half + 64 * i + 32));
            // Of 64 products each eight, in the order that adding neighbours within half registers leaves them in.
            let dots = if LARGEST < 64 {
                _mm256_madd_epi16(_mm256_hadd_epi16(a, b), ones)
            } else {
                _mm256_hadd_epi32(_mm256_madd_epi16(a, ones), _mm256_madd_epi16(b, ones))
            };
            let each = _mm256_setr_epi32(0, 0, 2, 2, 1, 1, 3, 3);
            let each = _mm256_add_epi32(each, _mm256_set1_epi32(4 * i as i32));
            *acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm256_permutevar8x32_ps(scale, each), *acc);
        }
    }
}

/// The sums of two products each of the 32 weights from `at` on.
///
/// They are added in 16 bits, which holds for weights up to 127. Larger ones, all of which stand for numbers around 128,
/// are multiplied as magnitudes with activations that have taken their signs; they have no minima then.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs<const LARGEST: u8>(w: &Weights, x: &Activations, at: usize) -> __m256i {
    let (q, x) = (&w.q[at..at + 32], &x.q[at..at + 32]);
    // SAFETY: 32 bytes each.
    let (q, x) = unsafe { (_mm256_loadu_si256(q.as_ptr().cast()), _mm256_loadu_si256(x.as_ptr().cast())) };
    if LARGEST < 128 {
        _mm256_maddubs_epi16(q, x)
    } else {
        let q = _mm256_xor_si256(q, _mm256_set1_epi8(-128));
        _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q))
    }
}

/// The sum of eight lanes: of neighbours, of their sums, and of both halves.
#[inline]
#[target_feature(enable = "avx2")]
fn sum(x: __m256) -> f32 {
    let x = _mm256_hadd_ps(x, x);
    _mm_cvtss_f32(halves_added(_mm256_hadd_ps(x, x)))
}

/// The sums of lanes of both halves.
#[inline]
#[target_feature(enable = "avx2")]
fn halves_added(x: __m256) -> __m128 {
    _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x))
}
