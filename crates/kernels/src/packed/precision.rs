//! What the operands of products with packed weights may be rounded to.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use imaginal_numeric::Format;

/// Whether products with `n` rows of `k` weights in `format` may round their operands below f32.
pub fn may_round(format: Format, n: usize, k: usize) -> bool {
    let exact = format == Format::F32 || format == Format::F64;
    let wanted = match precision() {
        Precision::Auto => n.saturating_mul(k) >= SMALL && k >= NARROW,
        Precision::Fast => true,
        Precision::F32 => false,
    };
    wanted && !exact
}

/// What the operands of a product may be rounded to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rounding {
    /// They stay f32.
    None,
    /// bf16 in tiles; activations alone to bytes, a scale for each 16 or 32, in what multiplies bytes.
    Bf16,
    /// The same, but in prompts activations and weights to bytes, a scale for each 256 of a row, with AMX, and where blocks have
    /// 256 weights with AVX-512-VNNI. Without VNNI, from AVX2 on, only the activations before such blocks.
    Int8,
}

/// What a matrix is to the layer that it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Its products are results.
    Alone,
    /// The same, one of several experts.
    Expert,
    /// One of two whose products become one by SwiGLU.
    Gate,
}

/// What operands are rounded to in products with `n` rows of `k` weights in `format`, one of those matrices that were loaded
/// as one stack and have `all` rows together.
///
/// With AMX, tiles of bytes do 1.6 times the work of those of bf16; with AVX-512-VNNI, and from AVX2 on without VNNI, products
/// with blocks of 256 that are scaled once in a block do 1.4 times the work of others. They cost what llama.cpp's products cost:
/// there activations have a scale for each 256 before blocks of that length, for each 32 before the others. Measured on trained models
/// (benches/RESULTS.md), half of a feed-forward layer, its gate, takes the most time and loses least, so that in tiles even
/// formats of short blocks may round it as coarsely, unless some activations are far beyond the others (the kernels look at
/// them); without tiles the other matrices, whose activations are rounded to bytes too, leave no room for it. The layer's other
/// half, a matrix that narrows, loses most of all, because products of two numbers have the largest outliers, but beside
/// formats of long blocks still less than llama.cpp. Attention's matrices and that of the logits would lose as much together
/// for a small part of the time: they stay bf16, or have finer scales.
pub(crate) fn rounding(format: Format, all: usize, n: usize, k: usize, role: Role) -> Rounding {
    if !may_round(format, all, k) {
        return Rounding::None;
    }
    let bytes = match role {
        Role::Gate => format.block_len() > 1,
        // What narrows far more is no feed-forward layer: compressed keys and values, mamba's steps, B and C.
        Role::Alone => format.block_len() == 256 && (2 * n..=8 * n).contains(&k),
        Role::Expert => format.block_len() == 256,
    };
    if bytes { Rounding::Int8 } else { Rounding::Bf16 }
}

/// Weights below which a product is f32 in any case: they fit into a cache, and small models have the least to spare.
const SMALL: usize = 1 << 19;
/// Length of rows below which a product is f32 in any case, for the same reason: tables of words make small models large.
const NARROW: usize = 512;

/// What products with packed weights may be computed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    /// The fastest that the instruction set has: operands are rounded for matrices of half a million weights and more, with
    /// rows of 512 and more.
    #[default]
    Auto,
    /// The same for small matrices too.
    Fast,
    /// f32 throughout.
    F32,
}

static PRECISION: AtomicU8 = AtomicU8::new(Precision::Auto as u8);

/// Sets what products with packed weights are computed in from now on, in the whole process.
pub fn set_precision(precision: Precision) {
    PRECISION.store(precision as u8, Relaxed);
}

/// What products with packed weights are computed in.
pub fn precision() -> Precision {
    [Precision::Auto, Precision::Fast, Precision::F32][PRECISION.load(Relaxed) as usize]
}
