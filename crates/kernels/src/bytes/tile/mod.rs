//! Panels times tokens: blocks of rows and tokens whose sums stay in registers.
//!
//! Sums of products of bytes over a group begin at the bits of [`WHOLE`], a float whose last bits count ones: read as a
//! float, such a sum is that number and the sum. The scale of the activations, whose last two bits are 0, then brings both
//! to size in one fused multiply-add that takes the number away without a rounding.

mod avx2;
mod avx512;

use super::many::{Column, Panel, ROWS};
use super::read::Layout;
use crate::isa::Isa;

/// 1.5·2^23.
pub(super) const WHOLE: f32 = 12_582_912.0;

/// What multiplies a panel with tokens.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Adds the products of a panel with each column to the sums. Unsafe to call without the instruction set.
    pub multiply: unsafe fn(&Panel, &[Column], &mut [[f32; ROWS]]),
    /// The number of the weights that stands for zero, where they have no minima.
    pub zero: u8,
}

/// The tile of an instruction set for a format.
pub(super) fn of(isa: Isa, layout: Layout) -> Tile {
    if isa.usable() >= Isa::Avx512Vnni {
        return avx512::of(layout);
    }
    if isa.usable() >= Isa::Avx2 {
        return avx2::of(layout);
    }
    unreachable!("no products of bytes with {isa} ({layout:?})")
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
