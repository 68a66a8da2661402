//! Products with weights in a packed number format, straight from a file's bytes.

mod precision;

use std::ops::Range;

use imaginal_numeric::Format;

pub use self::precision::{Precision, Rounding, may_round, precision, set_precision};
pub(crate) use self::precision::{Role, rounding};

#[cfg(target_arch = "x86_64")]
use crate::amx::Rows;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::bytes::Product;
use crate::gemm::few::{self, Few, Kind, Out, Weights};
use crate::gemm::{FEW, MatRef, Right, dots, run};
use crate::isa::{Isa, isa};
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};

/// out\[m, n\] = x\[m, k\] · Wᵀ, where W\[n, k\] lies row by row in `format` in the bytes `w`; x and out are row-major.
///
/// W is never expanded as a whole. What it is multiplied in depends on the instruction set, the number of rows of x and on
/// whether operands [may be rounded](may_round):
/// - to 8 bits each activation (a scale for each 16 of them, or 32 with many rows), block formats read as bytes: up to eight
///   rows from AVX2 on, any number without AMX, where x86 may have one scale for each 256 too; without VNNI, in products with
///   many rows, formats of numbers beyond seven bits are read as 16 bits, and activations have 13 or more then;
/// - to bf16 both, more than eight rows with AMX, or to 8 bits both, with a scale for each 256 (see [`Rounding::Int8`]);
/// - f32 otherwise, where the remarks of [`gemm`](fn@crate::gemm) on order and error hold, W being what `format` decodes to.
///
/// # Panics
/// If `k` is no multiple of the format's block length, or a slice does not have the length that the shape asks for.
pub fn matmul_packed(format: Format, w: &[u8], n: usize, k: usize, x: &[f32], m: usize, out: &mut [f32]) {
    matmul_packed_with(isa(), rounding(format, n, n, k, Role::Alone), format, w, n, k, x, m, out);
}

/// [`matmul_packed`] with a given instruction set (the best below it that the CPU has) and rounding, whatever the size.
#[allow(clippy::too_many_arguments)]
pub fn matmul_packed_with(
    isa: Isa,
    rounding: Rounding,
    format: Format,
    w: &[u8],
    n: usize,
    k: usize,
    x: &[f32],
    m: usize,
    out: &mut [f32],
) {
    let name = format.name();
    let row_bytes = format.bytes_for(k);
    let Some(row_bytes) = row_bytes else {
        panic!("matmul_packed: {k} columns are no whole number of {name} blocks of {}", format.block_len())
    };
    let sizes = (row_bytes.checked_mul(n), m.checked_mul(k), m.checked_mul(n));
    assert_eq!(
        sizes,
        (Some(w.len()), Some(x.len()), Some(out.len())),
        "matmul_packed: bytes of W, elements of x and of out for m = {m}, n = {n}, k = {k} in {name}, against those given"
    );
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        return out.fill(0.0);
    }
    let threads = threads(m, n, k);
    match way(isa, rounding, format, m) {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        Way::Bytes => return crate::bytes::matmul(isa, threads, rounding, format, w, row_bytes, n, k, x, m, out),
        #[cfg(target_arch = "x86_64")]
        Way::Tiles(rounding) => {
            return crate::amx::matmul(threads, rounding, Rows { format, bytes: w, row_bytes }, n, k, x, m, out);
        }
        #[cfg(not(target_arch = "x86_64"))]
        Way::Tiles(_) => unreachable!("tiles of {format} without AMX"),
        Way::Floats => {}
    }
    if m > FEW {
        let x = MatRef::row_major(x, k);
        return run(isa, threads, m, n, k, x, Right::Packed { format, bytes: w, row_bytes }, out, n, false);
    }
    let x = Few { data: x, stride: k, rows: m };
    let out = Out { data: SharedMut::new(out), row: n, col: 1, add: false };
    match Kind::of(format) {
        Some(kind) => few::dots(isa, threads, Weights { kind, bytes: w, row_bytes }, n, k, x, &out),
        None => {
            // Some rows at a time go through a buffer that stays in the cache.
            let rows = (32 * 1024 / k).clamp(1, n);
            let task = |t: usize| {
                let count = rows.min(n - t * rows);
                with_buffer(Slot::Rows, rows * k, |buffer| {
                    decode_rows(isa, format, w, row_bytes, t * rows..t * rows + count, 0..k, buffer);
                    dots::run(isa, 1, &buffer[..count * k], k, count, k, x, &out.from(t * rows));
                });
            };
            if threads > 1 { pool::parallel(n.div_ceil(rows), &task) } else { (0..n.div_ceil(rows)).for_each(task) }
        }
    }
}

/// How many threads a product is worth.
fn threads(m: usize, n: usize, k: usize) -> usize {
    if m * n * k < 1 << 17 { 1 } else { pool::threads_here() }
}

/// out\[m, n\] = silu(x · Gᵀ) · (x · Uᵀ) for the bytes G and U of two matrices as [`matmul_packed_with`] has them: its bits and
/// those of [`swiglu`](crate::vecmath::swiglu), without the products going through memory. `false` if there is no such kernel for
/// what they are and may be rounded to; nothing is computed then.
///
/// # Panics
/// If the matrices are empty, or a slice does not have the length that the shape asks for.
#[allow(clippy::too_many_arguments)]
pub(crate) fn matmul_swiglu(
    isa: Isa,
    [gate, up]: [(Rounding, Format, &[u8]); 2],
    n: usize,
    k: usize,
    x: &[f32],
    m: usize,
    out: &mut [f32],
) -> bool {
    let ways = [gate, up].map(|(rounding, format, _)| way(isa, rounding, format, m));
    let threads = threads(m, n, k);
    match ways {
        #[cfg(target_arch = "x86_64")]
        [Way::Tiles(rounding), Way::Tiles(second)] if rounding == second => {
            let rows = [gate, up].map(|(_, format, bytes)| Rows { format, bytes, row_bytes: bytes.len() / n });
            crate::amx::matmul_swiglu(threads, rounding, rows, n, k, x, m, out);
            true
        }
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        [Way::Bytes, Way::Bytes] if (gate.0, gate.1) == (up.0, up.1) => {
            let row_bytes = gate.2.len() / n;
            crate::bytes::matmul_swiglu(isa, threads, gate.0, gate.1, [gate.2, up.2], row_bytes, n, k, x, m, out);
            true
        }
        _ => false,
    }
}

/// Whether products of few tokens are computed from bytes.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) fn few_from_bytes(isa: Isa, rounding: Rounding, format: Format) -> bool {
    way(isa, rounding, format, FEW) == Way::Bytes
}

/// Products of few tokens, each [`matmul_packed_with`] of its own tokens of x\[m, k\] with its matrix, or [`matmul_swiglu`] with
/// its two, in one call of the pool.
///
/// # Panics
/// If a format is not one that is computed [from bytes](few_from_bytes), or a slice does not have the length that the shape
/// asks for.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) fn matmul_few<const N: usize>(isa: Isa, products: Vec<Product<N>>, k: usize, x: &[f32]) {
    let work = products.iter().map(|product| product.tokens.len() * product.rows).sum();
    crate::bytes::matmul_few(isa, threads(1, work, k), products, k, x);
}

/// A matrix of [`matmul_packed_all`], and where its product goes.
#[derive(Debug)]
pub struct PackedProduct<'a> {
    /// The number format.
    pub format: Format,
    /// The rows, one after another.
    pub bytes: &'a [u8],
    /// How many.
    pub rows: usize,
    /// out\[m, rows\].
    pub out: &'a mut [f32],
}

/// [`matmul_packed`] of the same x\[m, k\] with several matrices: the same bits. With few rows of x it is one call of the pool, and
/// x is rounded once.
///
/// # Panics
/// As [`matmul_packed`].
pub fn matmul_packed_all(products: Vec<PackedProduct>, k: usize, x: &[f32], m: usize) {
    let rounded = |f: &PackedProduct| rounding(f.format, f.rows, f.rows, k, Role::Alone);
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if k > 0 && (1..=FEW).contains(&m) && products.iter().all(|f| few_from_bytes(isa(), rounded(f), f.format)) {
        assert_eq!(x.len(), m * k, "matmul_packed_all: elements of x for {m} rows of {k}");
        let products = products.into_iter().map(|PackedProduct { format, bytes, rows, out }| Product {
            format,
            w: [bytes],
            rows,
            tokens: 0..m,
            out,
        });
        return matmul_few(isa(), products.collect(), k, x);
    }
    for product in products {
        let (rounding, PackedProduct { format, bytes, rows, out }) = (rounded(&product), product);
        matmul_packed_with(isa(), rounding, format, bytes, rows, k, x, m, out);
    }
}

/// What a product is computed from.
#[derive(PartialEq, Eq)]
enum Way {
    /// Bytes: activations rounded, weights as the format has them.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    Bytes,
    /// Tiles of what operands are rounded to.
    Tiles(Rounding),
    /// f32.
    Floats,
}

/// The way of a product with `m` tokens.
fn way(isa: Isa, rounding: Rounding, format: Format, m: usize) -> Way {
    if rounding == Rounding::None {
        return Way::Floats;
    }
    if let Some(rounding) = tiles(isa, rounding, format, m) {
        return Way::Tiles(rounding);
    }
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if crate::bytes::supported(isa, format) {
        return Way::Bytes;
    }
    Way::Floats
}

/// Whether a product with `m` tokens is one of tiles, and what its operands are rounded to there.
fn tiles(isa: Isa, rounding: Rounding, format: Format, m: usize) -> Option<Rounding> {
    let rounds = rounding != Rounding::None && format != Format::F32 && format != Format::F64;
    let rounding = if format.block_len() == 1 { Rounding::Bf16 } else { rounding };
    (rounds && m > FEW && isa.usable() == Isa::Amx).then_some(rounding)
}

/// What products with a format run on here: with few tokens, and with many (those of SwiGLU's first half). For reports; small
/// matrices, and all with [`Precision::F32`], take the f32 ways.
pub fn kernels(format: Format) -> (&'static str, &'static str) {
    let way = |m: usize| way(isa(), Rounding::Int8, format, m);
    let few = match way(1) {
        Way::Floats if Kind::of(format).is_some() => "f32 registers",
        Way::Floats => "f32 rows",
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        Way::Bytes => "byte dots",
        Way::Tiles(_) => "tiles",
    };
    let many = match way(FEW + 1) {
        Way::Floats => "f32 panels",
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        Way::Bytes => "byte panels",
        Way::Tiles(Rounding::Int8) => "int8 tiles",
        Way::Tiles(_) => "bf16 tiles",
    };
    (few, many)
}

/// Decodes columns `depth` of rows `rows` into `dst`, row-major. The range must begin and end at block borders.
///
/// # Panics
/// If it does not, or a slice is too short.
pub(crate) fn decode_rows(
    isa: Isa,
    format: Format,
    bytes: &[u8],
    row_bytes: usize,
    rows: Range<usize>,
    depth: Range<usize>,
    dst: &mut [f32],
) {
    let (Some(skip), Some(len)) = (format.bytes_for(depth.start), format.bytes_for(depth.len())) else {
        panic!("columns {depth:?} are no whole {} blocks", format.name())
    };
    for (row, dst) in rows.zip(dst.chunks_exact_mut(depth.len())) {
        let src = &bytes[row * row_bytes + skip..][..len];
        match Kind::of(format) {
            Some(kind) => few::decode_row(isa, kind, src, depth.len(), dst),
            None => (format.info().decode)(src, dst),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::available;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed | 1;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// All formats that hold fractions: the table's rows that decode what they encoded to something near.
    fn float_formats() -> impl Iterator<Item = Format> {
        Format::all().filter(|f| {
            let (len, x) = (f.block_len(), 0.625);
            let (mut bytes, mut back) = (vec![0; f.block_bytes()], vec![0.0; len]);
            f.encode(&vec![x; len], &mut bytes).is_ok()
                && f.decode(&bytes, &mut back).is_ok()
                && (back[0] - x).abs() < 0.3
        })
    }

    #[test]
    fn decoding_in_registers_equals_the_table() {
        for format in [Format::F32, Format::F16, Format::BF16, Format::Q8_0, Format::Q4_0] {
            let unit = format.block_len();
            for blocks in [1, 2, 3, 7, 50] {
                let k = blocks * unit;
                let (mut bytes, mut expected) = (vec![0; format.bytes_for(k).unwrap()], vec![0.0; k]);
                let values: Vec<f32> = numbers(k, 5).iter().map(|x| x * 3.0).collect();
                format.encode(&values, &mut bytes).unwrap();
                format.decode(&bytes, &mut expected).unwrap();
                for isa in available() {
                    let mut got = vec![9.0; k + 1];
                    few::decode_row(isa, Kind::of(format).unwrap(), &bytes, k, &mut got);
                    assert_eq!(got[..k], expected, "{isa} {} {k}", format.name());
                    assert_eq!(got[k], 9.0);
                }
            }
        }
    }

    const ALL: [Rounding; 3] = [Rounding::None, Rounding::Bf16, Rounding::Int8];

    /// Whether products of bytes have one scale for 256 on both sides.
    #[cfg(target_arch = "x86_64")]
    fn coarse(isa: Isa, rounding: Rounding, format: Format, m: usize) -> bool {
        rounding == Rounding::Int8 && m > FEW && isa.usable() >= Isa::Avx512Vnni && format.block_len() == 256
    }

    /// The most that rounding can do to a product, where activations are at most 1: W's row has the sum of magnitudes
    /// `weights`.
    ///
    /// `activations` is the sum of its own magnitudes times W's largest.
    fn loss(isa: Isa, rounding: Rounding, format: Format, m: usize, weights: f64, activations: f64) -> f64 {
        match way(isa, rounding, format, m) {
            // Both operands to 127 steps, those of weights up to what their scales allow, and in whole numbers.
            Way::Tiles(Rounding::Int8) => weights * 0.501 / 127.0 + activations * 1.2 / 127.0,
            #[cfg(target_arch = "x86_64")]
            Way::Bytes if coarse(isa, rounding, format, m) => weights * 0.501 / 127.0 + activations * 1.2 / 127.0,
            // To 127 steps.
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Way::Bytes => weights * 0.501 / 127.0,
            // Both operands to 8 bits, by 2^-8 at most.
            Way::Tiles(_) => weights * 1.01 * 2f64.powi(-7),
            Way::Floats => 0.0,
        }
    }

    /// Checks a product of random weights with the activations, for all instruction sets.
    fn check(format: Format, m: usize, n: usize, k: usize, x: &[f32]) {
        let mut w = vec![0; format.bytes_for(n * k).unwrap()];
        format.encode(&numbers(n * k, 1), &mut w).unwrap();
        let mut decoded = vec![0.0; n * k];
        format.decode(&w, &mut decoded).unwrap();
        // One byte further, to prove that bytes need no alignment.
        let shifted: Vec<u8> = [0].iter().chain(&w).copied().collect();
        let largest = f64::from(x.iter().fold(0.0f32, |a, x| a.max(x.abs())));
        let heaviest = f64::from(decoded.iter().fold(0.0f32, |a, w| a.max(w.abs())));
        let mut exact = vec![(0.0, 0.0, 0.0, 0.0); m * n];
        for (i, exact) in exact.iter_mut().enumerate() {
            let (x, w) = (&x[i / n * k..][..k], &decoded[i % n * k..][..k]);
            for (x, w) in x.iter().zip(w) {
                let product = f64::from(*x) * f64::from(*w);
                exact.0 += product;
                exact.1 += product.abs();
                exact.2 += f64::from(w.abs());
                exact.3 += f64::from(x.abs());
            }
        }
        for (isa, rounding) in available().flat_map(|isa| ALL.map(|rounding| (isa, rounding))) {
            let mut out = vec![f32::NAN; m * n];
            matmul_packed_with(isa, rounding, format, &shifted[1..], n, k, x, m, &mut out);
            for (i, (out, (exact, terms, weights, activations))) in out.iter().zip(&exact).enumerate() {
                let bound = (k + 2) as f64 * 2f64.powi(-23) * terms
                    + loss(isa, rounding, format, m, weights * largest, activations * heaviest);
                let error = (f64::from(*out) - exact).abs();
                assert!(error <= bound, "{isa} {rounding:?} {} {m}×{n}×{k} at {i}: {error}", format.name());
            }
        }
    }

    #[test]
    fn every_format_against_the_decoded_matrix_in_f64() {
        let formats: Vec<Format> = float_formats().collect();
        // All but the whole numbers.
        assert_eq!(formats.len(), Format::all().filter(|f| !f.name().starts_with('i') || f.block_len() > 1).count());
        for format in formats {
            let unit = format.block_len();
            let depths = if unit == 1 { vec![1, 20, 37, 100, 500] } else { vec![unit, 3 * unit, 1024] };
            for k in depths {
                for n in [1, 2, 7, 33, 70] {
                    for m in [1, 3, 8, 9, 40] {
                        check(format, m, n, k, &numbers(m * k, 2));
                    }
                }
            }
        }
    }

    #[test]
    fn odd_shapes_of_every_format() {
        let mut random = crate::testing::Random::new(5);
        let mut below = |n: u64| (random.bits() >> 20) as usize % n as usize;
        for format in float_formats() {
            for most in [8, 40, 600] {
                let (m, n, k) = (1 + below(most), 1 + below(40), format.block_len() * (1 + below(300 / 32)));
                let mut x = numbers(m * k, 3);
                // One channel far beyond the others.
                let channel = below(k as u64);
                x.iter_mut().skip(channel).step_by(k).for_each(|x| *x *= 100.0);
                check(format, m, n, k, &x);
            }
        }
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[test]
    fn products_are_as_near_as_llama_cpp_s() {
        // There activations have a scale for each 32, or for each 256 before blocks of that length.
        let (m, n, k) = (12, 40, 1024);
        let mut random = crate::testing::Random::new(8);
        let mut normal = |n: usize| -> Vec<f32> {
            (0..n).map(|_| (0..12).map(|_| random.uniform(-0.5, 0.5)).sum::<f32>()).collect()
        };
        let x: Vec<f32> =
            normal(m * k).iter().enumerate().map(|(i, x)| if i % k == 77 { x * 30.0 } else { *x }).collect();
        let values = normal(n * k);
        for format in float_formats().filter(|f| f.block_len() > 1) {
            let mut w = vec![0; format.bytes_for(n * k).unwrap()];
            format.encode(&values, &mut w).unwrap();
            let mut decoded = vec![0.0; n * k];
            format.decode(&w, &mut decoded).unwrap();
            let group = if format.block_len() == 256 { 256 } else { 32 };
            let mut theirs = x.clone();
            for x in theirs.chunks_mut(group) {
                let scale = x.iter().fold(0.0f32, |a, x| a.max(x.abs())) / 127.0;
                x.iter_mut().for_each(|x| *x = (*x / scale).round() * scale);
            }
            let product = |x: &[f32], i: usize| -> f64 {
                let (x, w) = (&x[i / n * k..][..k], &decoded[i % n * k..][..k]);
                x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
            };
            let theirs: f64 = (0..m * n).map(|i| (product(&theirs, i) - product(&x, i)).powi(2)).sum();
            for isa in available() {
                for (tokens, rounding) in [(FEW, Rounding::Bf16), (m, Rounding::Bf16), (m, Rounding::Int8)] {
                    let mut ours = 0.0;
                    for x in x.chunks(tokens * k) {
                        let mut out = vec![0.0; x.len() / k * n];
                        matmul_packed_with(isa, rounding, format, &w, n, k, x, x.len() / k, &mut out);
                        for (i, out) in out.iter().enumerate() {
                            ours += (f64::from(*out) - product(x, i)).powi(2);
                        }
                    }
                    let tiles = matches!(way(isa, rounding, format, tokens), Way::Tiles(Rounding::Int8));
                    let floats = way(isa, rounding, format, tokens) == Way::Floats;
                    // Where weights are rounded as well, a little more.
                    let most = if tiles { 1.4 } else { 1.2 };
                    assert!(ours <= most * theirs, "{isa} {format} {tokens} {rounding:?}: {ours:e} beside {theirs:e}");
                    // Of f32 it would be 1e-9, of activations in 16 bits 1e-5 and more.
                    let wide = matches!(format, Format::Q8_0 | Format::IQ4_NL | Format::IQ4_XS) && tokens > FEW;
                    let least = if wide && matches!(isa, Isa::Avx2 | Isa::Avx512) { 1e-6 } else { 1e-3 };
                    assert!(floats || ours > least * theirs, "{isa} {format} {tokens} {rounding:?} rounds nothing");
                }
            }
        }
    }

    #[test]
    fn feed_forward_layers_of_blocks_are_rounded_to_bytes() {
        use Role::{Alone, Expert, Gate};
        let all = [
            (Format::Q4_K, 8192, 2048, Gate, Rounding::Int8),
            (Format::Q8_0, 8192, 2048, Gate, Rounding::Int8),
            (Format::F16, 8192, 2048, Gate, Rounding::Bf16),
            (Format::F32, 8192, 2048, Gate, Rounding::None),
            (Format::Q4_K, 2048, 8192, Alone, Rounding::Int8),
            (Format::Q4_0, 2048, 8192, Alone, Rounding::Bf16),
            (Format::Q4_K, 2048, 2048, Alone, Rounding::Bf16),
            (Format::Q4_K, 576, 7168, Alone, Rounding::Bf16),
            (Format::Q6_K, 128_256, 2048, Alone, Rounding::Bf16),
            (Format::Q4_K, 2048, 768, Expert, Rounding::Int8),
            (Format::MXFP4, 2048, 768, Expert, Rounding::Bf16),
            (Format::Q4_K, 256, 768, Alone, Rounding::None),
        ];
        for (format, n, k, role, expected) in all {
            assert_eq!(rounding(format, n, n, k, role), expected, "{format} {n}×{k} {role:?}");
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours() {
        let (n, k) = (70, 768);
        for format in float_formats() {
            let mut w = vec![0; format.bytes_for(n * k).unwrap()];
            format.encode(&numbers(n * k, 3), &mut w).unwrap();
            let x = numbers(50 * k, 4);
            for (isa, rounding) in available().flat_map(|isa| ALL.map(|rounding| (isa, rounding))) {
                for range in [1..FEW + 1, FEW + 1..50] {
                    let mut first: Option<Vec<f32>> = None;
                    for m in range {
                        let mut out = vec![0.0; m * n];
                        matmul_packed_with(isa, rounding, format, &w, n, k, &x[..m * k], m, &mut out);
                        let row = first.get_or_insert_with(|| out[..n].to_vec());
                        assert_eq!(out[..n], row[..], "{isa} {rounding:?} {} {m}", format.name());
                    }
                }
            }
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let refuse = |k: usize, w: usize, out: usize| {
            let (x, w, mut out) = (vec![0.0; 2 * k], vec![0; w], vec![0.0; out]);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                matmul_packed(Format::Q8_0, &w, 3, k, &x, 2, &mut out)
            }))
            .is_err()
        };
        assert!(!refuse(64, 3 * 68, 6));
        assert!(refuse(63, 3 * 68, 6));
        assert!(refuse(64, 3 * 68 - 1, 6));
        assert!(refuse(64, 3 * 68, 5));
    }
}
