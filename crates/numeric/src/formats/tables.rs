//! The tables that formats look values up in, for kernels that multiply packed numbers without decoding them to f32.

use super::{iq1_s, iq2_s, iq2_xs, iq2_xxs, iq3_s, iq3_xxs, iq4_nl, mxfp4, nvfp4};

/// The values of the indices of `iq4_nl` and `iq4_xs`.
pub const IQ4: [i8; 16] = iq4_nl::VALUES;
/// Twice the value of every 4-bit float (`mxfp4`, `nvfp4`).
pub const E2M1: [i8; 16] = mxfp4::VALUES;

/// The points of `iq1_s` and `iq1_m`, each value one larger.
pub static IQ1: &[[u8; 8]; 2048] = &iq1_s::GRID.levels;
/// The points of `iq2_xxs`.
pub static IQ2_XXS: &[[i8; 8]; 256] = &iq2_xxs::GRID.values;
/// The points of `iq2_xs`.
pub static IQ2_XS: &[[i8; 8]; 512] = &iq2_xs::GRID.values;
/// The points of `iq2_s`.
pub static IQ2_S: &[[i8; 8]; 1024] = &iq2_s::GRID.values;
/// The points of `iq3_xxs`.
pub static IQ3_XXS: &[[i8; 4]; 256] = &iq3_xxs::GRID.values;
/// The points of `iq3_s`.
pub static IQ3_S: &[[i8; 4]; 512] = &iq3_s::GRID.values;

/// Half of the scale that a block of `mxfp4` has, what [`E2M1`] is multiplied with.
#[inline(always)]
pub fn mxfp4_half_scale(byte: u8) -> f32 {
    mxfp4::half_scale(byte)
}

/// Half of the scale that a group of `nvfp4` has, what [`E2M1`] is multiplied with.
#[inline(always)]
pub fn nvfp4_half_scale(byte: u8) -> f32 {
    nvfp4::half_scale(byte)
}
