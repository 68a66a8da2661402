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
mod iq4_nl;
mod iq4_xs;
mod mxfp4;
mod nvfp4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod search;
pub mod tables;
mod tq1_0;
mod tq2_0;

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
    Q4_1 = q4_1::INFO;
    Q5_0 = q5_0::INFO;
    Q5_1 = q5_1::INFO;
    Q2_K = q2_k::INFO;
    Q3_K = q3_k::INFO;
    Q4_K = q4_k::INFO;
    Q5_K = q5_k::INFO;
    Q6_K = q6_k::INFO;
    IQ1_S = iq1_s::INFO;
    IQ1_M = iq1_m::INFO;
    IQ2_XXS = iq2_xxs::INFO;
    IQ2_XS = iq2_xs::INFO;
    IQ2_S = iq2_s::INFO;
    IQ3_XXS = iq3_xxs::INFO;
    IQ3_S = iq3_s::INFO;
    IQ4_NL = iq4_nl::INFO;
    IQ4_XS = iq4_xs::INFO;
    MXFP4 = mxfp4::INFO;
    NVFP4 = nvfp4::INFO;
    TQ1_0 = tq1_0::INFO;
    TQ2_0 = tq2_0::INFO;
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

/// Packs 4-bit numbers: the first half of them into the low halves of the bytes, the second into the high ones.
#[inline(always)]
fn pack_halves(q: &[u8], out: &mut [u8]) {
    let (low, high) = q.split_at(q.len() / 2);
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = low | high << 4;
    }
}

/// Packs the fifth bits of 32 numbers into 4 bytes.
#[inline(always)]
fn pack_fifth(q: &[u8; 32], out: &mut [u8]) {
    for (out, q) in out.iter_mut().zip(q.as_chunks::<8>().0) {
        *out = q.iter().enumerate().fold(0, |bits, (i, q)| bits | (q >> 4) << i);
    }
}

/// 32 five-bit numbers from 4 bytes of fifth bits and 16 bytes of halves.
#[inline(always)]
fn unpack_fifth(bytes: &[u8]) -> [u8; 32] {
    let fifth = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let halves = &bytes[4..20];
    std::array::from_fn(|i| {
        let half = if i < 16 { halves[i] & 15 } else { halves[i - 16] >> 4 };
        half | ((fifth >> i & 1) as u8) << 4
    })
}

/// Packs 256 two-bit numbers into 64 bytes: of each 128 the number `32 p + l` into bits `2 p` of byte `l`.
#[inline(always)]
fn pack_quarters(q: &[u8], out: &mut [u8]) {
    for (out, q) in out.as_chunks_mut::<32>().0.iter_mut().zip(q.as_chunks::<128>().0) {
        for (l, out) in out.iter_mut().enumerate() {
            *out = q[l] | q[l + 32] << 2 | q[l + 64] << 4 | q[l + 96] << 6;
        }
    }
}

/// The inverse of [`pack_quarters`].
#[inline(always)]
fn unpack_quarters(bytes: &[u8]) -> [u8; 256] {
    let mut q = [0; 256];
    for (q, bytes) in q.as_chunks_mut::<128>().0.iter_mut().zip(bytes.as_chunks::<32>().0) {
        for (p, q) in q.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (q, byte) in q.iter_mut().zip(bytes) {
                *q = byte >> (2 * p) & 3;
            }
        }
    }
    q
}
