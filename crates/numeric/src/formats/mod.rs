//! The table and its rows.

use crate::{Format, FormatInfo};

mod bf16;
mod fp16;
mod fp32;
mod fp64;
mod grid;
mod int;
mod iq1_m;
mod iq1_s;
mod iq2_s;
mod iq2_xs;
mod iq2_xxs;
mod iq3_s;
mod iq3_xxs;
mod q4_0;
mod q8_0;

/// Writes the table and one constant of [`Format`] per row from one list, so that they cannot disagree.
macro_rules! formats {
    ($($name:ident = $row:path;)*) => {
        #[allow(non_camel_case_types)]
        #[repr(u8)]
        enum Row { $($name),* }

        impl Format {
            $(#[doc = concat!("The format `", stringify!($name), "`; see its row in [`FORMATS`].")]
            pub const $name: Format = Format(Row::$name as u8);)*
        }

        /// Every format the engine knows, one row each.
        pub static FORMATS: &[FormatInfo] = &[$($row),*];
    };
}

formats! {
    F32 = fp32::INFO;
    F16 = fp16::INFO;
    BF16 = bf16::INFO;
    F64 = fp64::INFO;
    Q8_0 = q8_0::INFO;
    Q4_0 = q4_0::INFO;
    IQ1_S = iq1_s::INFO;
    IQ1_M = iq1_m::INFO;
    IQ2_XXS = iq2_xxs::INFO;
    IQ2_XS = iq2_xs::INFO;
    IQ2_S = iq2_s::INFO;
    IQ3_XXS = iq3_xxs::INFO;
    IQ3_S = iq3_s::INFO;
    I8 = int::I8;
    I16 = int::I16;
    I32 = int::I32;
    I64 = int::I64;
}

/// Decodes plain numbers of `N` bytes one by one.
#[inline(always)]
fn decode_each<const N: usize>(src: &[u8], dst: &mut [f32], f: impl Fn([u8; N]) -> f32) {
    for (d, &s) in dst.iter_mut().zip(src.as_chunks::<N>().0) {
        *d = f(s);
    }
}

/// Encodes plain numbers of `N` bytes one by one.
#[inline(always)]
fn encode_each<const N: usize>(src: &[f32], dst: &mut [u8], f: impl Fn(f32) -> [u8; N]) {
    for (d, &s) in dst.as_chunks_mut::<N>().0.iter_mut().zip(src) {
        *d = f(s);
    }
}

/// Largest magnitude of a block. Compared as integers, where a NaN is larger than everything: it reaches the scale
/// and makes the whole block NaN, as in the reference, instead of vanishing.
#[inline(always)]
fn max_magnitude<const N: usize>(block: &[f32; N]) -> f32 {
    let mut max = 0u32;
    for x in block {
        max = max.max(x.to_bits() & 0x7fff_ffff);
    }
    f32::from_bits(max)
}
