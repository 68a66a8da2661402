//! Panels times tokens: blocks of rows and tokens whose sums stay in registers.
//!
//! Sums of products of bytes over a group begin at the bits of [`WHOLE`], a float whose last bits count ones: read as a
//! float, such a sum is that number and the sum. The scale of the activations, whose last two bits are 0, then brings both
//! to size in one fused multiply-add that takes the number away without a rounding.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use super::many::{Column, Panel, ROWS};
use super::read::Layout;
use crate::isa::Isa;

/// 1.5·2^23.
pub(super) const WHOLE: f32 = 12_582_912.0;

/// Adds the products of a panel with each column to the sums. Unsafe to call without the instruction set.
pub(super) type Multiply = unsafe fn(&Panel, &[Column], &mut [[f32; ROWS]]);

/// What multiplies a panel with tokens.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub multiply: Multiply,
    /// The number of the weights that stands for zero, where they have no minima.
    pub zero: u8,
}

/// The tile of an instruction set for a format.
pub(super) fn of(isa: Isa, layout: Layout) -> Tile {
    match isa.usable() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni | Isa::Amx => avx512::of(layout),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 if in_pairs(isa) => avx2::in_pairs(layout),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::with_dot_products(layout),
        #[cfg(target_arch = "aarch64")]
        Isa::I8mm => neon::with_matrices(layout),
        #[cfg(target_arch = "aarch64")]
        Isa::Dotprod => neon::with_dot_products(layout),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => neon::without(layout),
        _ => unreachable!("no products of bytes with {isa} ({layout:?})"),
    }
}

/// Whether products of bytes are added in pairs of 16 bits, for want of dot products (VNNI).
#[cfg(target_arch = "x86_64")]
pub(super) fn in_pairs(isa: Isa) -> bool {
    match isa.usable() {
        Isa::Avx2 => !is_x86_feature_detected!("avxvnni"),
        // Who has AVX-512 and no VNNI has no AVX-VNNI.
        Isa::Avx512 => true,
        _ => false,
    }
}

/// Calls a function of some tokens with all, `$most` at a time and the rest at once.
macro_rules! in_blocks {
    ($x:expr, $sums:expr, $most:literal $(, $fewer:literal)*; |$block:ident, $block_sums:ident| $call:expr) => {{
        let ((x, x_rest), (sums, sums_rest)) = ($x.as_chunks::<$most>(), $sums.as_chunks_mut::<$most>());
        for ($block, $block_sums) in x.iter().zip(sums) {
            $call;
        }
        match x_rest.len() {
            $($fewer => {
                if let (Some($block), Some($block_sums)) = (x_rest.first_chunk::<$fewer>(), sums_rest.first_chunk_mut::<$fewer>()) {
                    $call;
                }
            })*
            _ => {}
        }
    }};
}
use in_blocks;
