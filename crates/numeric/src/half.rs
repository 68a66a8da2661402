//! Conversions between f32 and the two 16-bit floats, on raw bits.
//!
//! Written without branches (selects only), so that loops over them are vectorised by the compiler for whatever
//! instruction set the crate is built for. IEEE 754 round to nearest even, subnormals exact.

/// Bits of an IEEE binary16 as f32. Exact.
#[inline(always)]
pub const fn f16_to_f32(bits: u16) -> f32 {
    let sign = ((bits & 0x8000) as u32) << 16;
    let magnitude = ((bits & 0x7fff) as u32) << 13;
    // Rebias the exponent: 127 - 15; infinity and NaN once more, up to 255.
    let normal = magnitude + (112 << 23);
    let special = magnitude + (224 << 23);
    // Subnormal: put the fraction behind an exponent of 2^-14 and take that away again, which is exact.
    const LEAST: u32 = 113 << 23;
    let subnormal = (f32::from_bits(magnitude + LEAST) - f32::from_bits(LEAST)).to_bits();
    let finite = if magnitude < (1 << 23) { subnormal } else { normal };
    let value = if magnitude >= (31 << 23) { special } else { finite };
    f32::from_bits(sign | value)
}

/// The nearest binary16 of an f32, ties to even; too large becomes infinity, NaN stays a (quiet) NaN.
#[inline(always)]
pub const fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
    // Adding 0.5 shifts the fraction of a subnormal to the right place and rounds it in hardware.
    const HALF: u32 = 126 << 23;
    let subnormal = (f32::from_bits(magnitude) + f32::from_bits(HALF)).to_bits().wrapping_sub(HALF);
    let finite = if magnitude < (113 << 23) { subnormal } else { normal };
    let special = if magnitude > 0x7f80_0000 { 0x7e00 } else { 0x7c00 };
    let value = if magnitude >= (143 << 23) { special } else { finite };
    (sign | value) as u16
}

/// An 8-bit float with four bits of exponent and three of fraction (OCP E4M3: no infinities, 448 is the largest) as f32.
/// Exact.
#[inline(always)]
pub const fn f8_e4m3_to_f32(bits: u8) -> f32 {
    let sign = ((bits & 0x80) as u32) << 24;
    let magnitude = ((bits & 0x7f) as u32) << 20;
    // Rebias the exponent: 127 - 7; subnormals as in `f16_to_f32`.
    const LEAST: u32 = 121 << 23;
    let subnormal = (f32::from_bits(magnitude + LEAST) - f32::from_bits(LEAST)).to_bits();
    let finite = if magnitude < (1 << 23) { subnormal } else { magnitude + (120 << 23) };
    let value = if bits & 0x7f == 0x7f { f32::NAN.to_bits() } else { finite };
    f32::from_bits(sign | value)
}

/// Bits of a bfloat16 as f32. Exact.
#[inline(always)]
pub const fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// The nearest bfloat16 of an f32, ties to even; NaN stays a NaN and becomes quiet.
#[inline(always)]
pub const fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 64;
    (if (bits & 0x7fff_ffff) > 0x7f80_0000 { quiet } else { rounded }) as u16
}
