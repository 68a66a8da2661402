//! Numbers of 16 bits, with AVX2.
//!
//! Without dot products of bytes (VNNI), numbers of eight bits with a sign overflow where two of their products are added in 16
//! bits. Products of 16 bits are added in 32, cost less than turning the sign of activations for each weight, and leave room
//! for more of the activations, and for the whole numbers that iq4_xs multiplies its scale with.

use imaginal_numeric::Format;
use imaginal_numeric::half::f16_to_f32;

use super::many::{Column, Panel, ROWS};
use super::read::Layout;
use super::tile::{self, Multiply, avx2};
use super::{CHUNK, Read, Weights, kernel, magnitude, nearest, read, scale, whole};
use crate::isa::{Isa, simd_fn};

/// Columns of a panel: as many words as a panel of bytes has.
pub(super) const DEPTH: usize = CHUNK / 2;

/// What makes operands of 16 bits.
#[derive(Clone, Copy)]
pub(super) struct Wide {
    isa: Isa,
    layout: Layout,
    read: Read,
    tile: Multiply,
    /// The number that stands for zero.
    zero: u8,
    /// Whether all of a chunk have one scale, the binary16 number at its beginning, times whole numbers.
    unit: bool,
    /// What the largest activation becomes: the most for which no sum of products overflows.
    steps: f32,
}

impl Wide {
    /// `None` if products in pairs of bytes hold the format's numbers, or the instruction set needs none.
    pub(super) fn new(isa: Isa, format: Format) -> Option<Self> {
        let layout = read::layout(format)?;
        let zero = layout.zero.filter(|_| layout.largest > 127 && tile::in_pairs(isa))?;
        let unit = format == Format::IQ4_XS;
        // Numbers of iq4_xs are -127 to 113, and the scale's -32 to 31.
        let largest = if unit { DEPTH as u32 * 127 * 32 } else { 32 * 128 };
        let steps = (i32::MAX as u32 / largest).min(32767) as f32;
        let tile = if unit { avx2::wide::<1> } else { avx2::wide::<4> };
        Some(Wide { isa, layout, read: kernel(isa, format)?.read, tile, zero, unit, steps })
    }

    /// Adds the products of two panels, the second of which continues the rows of the first, with as many columns of each token
    /// to the sums.
    pub(super) fn multiply(self, panels: &[Panel], x: &[Column], sums: &mut [[f32; ROWS]]) {
        for (panel, x) in panels.iter().zip(x.chunks_exact(sums.len())) {
            // SAFETY: `new` found the instructions.
            unsafe { (self.tile)(panel, x, sums) };
        }
    }

    /// Reads the bytes of a chunk as two pieces of [`DEPTH`]: of each, the first scale is that of all, or the first four are those
    /// of 32 each.
    pub(super) fn read(self, bytes: &[u8], pieces: [&mut Weights; 2]) {
        let mut w = Weights::ZERO;
        // SAFETY: the reader is one of the instruction set.
        whole(bytes, self.layout.bytes, |bytes| unsafe { (self.read)(bytes, &mut w) });
        let unit = self.unit.then(|| f16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]])));
        widen(self.isa, self.zero, unit, &w, pieces);
    }

    /// Rounds up to [`DEPTH`] activations of a token.
    pub(super) fn column(self, x: &[f32], column: &mut Column) {
        quantize(self.isa, self.steps, x, column);
    }
}

simd_fn! {
    /// Widens numbers, and multiplies them with what their scales are in units, if there is one.
    fn widen<S>(_s: S, zero: u8, unit: Option<f32>, w: &Weights, pieces: [&mut Weights; 2]) {
        let pieces_of_w = w.q.as_chunks::<DEPTH>().0.iter().zip(w.scale.as_chunks::<8>().0);
        for (to, (q, scales)) in pieces.into_iter().zip(pieces_of_w) {
            let groups = to.q.as_chunks_mut::<64>().0.iter_mut().zip(q.as_chunks::<32>().0);
            for (g, (to_q, q)) in groups.enumerate() {
                let scale = scales[2 * g];
                // What is 0 or no number times a whole one stays so, whatever that is.
                let times = unit.map_or(1, |unit| nearest(scale / unit) as i16);
                to.scale[g] = unit.unwrap_or(scale);
                for (to, q) in to_q.as_chunks_mut::<2>().0.iter_mut().zip(q) {
                    *to = (i16::from(*q) - i16::from(zero)).wrapping_mul(times).to_ne_bytes();
                }
            }
        }
    }
}

simd_fn! {
    /// Rounds up to [`DEPTH`] activations of a token, with one scale; what is missing becomes 0.
    fn quantize<S>(_s: S, steps: f32, x: &[f32], column: &mut Column) {
        let mut all = [0.0; DEPTH];
        all[..x.len()].copy_from_slice(x);
        let largest = all.iter().fold(0, |largest, x| largest.max(magnitude(*x)));
        let (scale, inverse) = scale(largest, steps);
        column.scale[0] = scale;
        for (word, x) in column.q.as_flattened_mut().iter_mut().zip(all.as_chunks::<2>().0) {
            let [low, high] = x.map(|x| nearest(x * inverse));
            *word = (low & 0xffff) as u32 | (high as u32) << 16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::tests::{assert_products, operands};
    use crate::isa::available;
    use crate::packed::Rounding;

    #[test]
    fn products_are_those_of_what_was_rounded() {
        let formats = || Format::all().filter(|format| format.block_len() > 1);
        for (isa, format) in available().flat_map(|isa| formats().map(move |format| (isa, format))) {
            let Some(wide) = Wide::new(isa, format) else { continue };
            let (n, k, m) = (37, 768, 11);
            let (w, decoded, x) = operands(format, (m, n, k));
            let mut weights = Vec::new();
            for (bytes, decoded) in w.chunks(wide.layout.bytes).zip(decoded.chunks(CHUNK)) {
                let mut pieces = [Weights::ZERO; 2];
                let [a, b] = &mut pieces;
                wide.read(bytes, [a, b]);
                for (i, decoded) in decoded.iter().enumerate() {
                    let piece = &pieces[i / DEPTH];
                    let scale = piece.scale[if wide.unit { 0 } else { i % DEPTH / 32 }];
                    let q = piece.q.as_chunks::<2>().0[i % DEPTH];
                    let is = f64::from(scale) * f64::from(i16::from_ne_bytes(q));
                    assert!(
                        (is - f64::from(*decoded)).abs() <= 1e-7 * is.abs(),
                        "{isa} {format}: {is} is not {decoded}"
                    );
                    weights.push(is);
                }
            }
            let mut activations = Vec::new();
            for x in x.chunks(DEPTH) {
                let mut to = Column::ZERO;
                wide.column(x, &mut to);
                let scale = f64::from(to.scale[0]);
                for (q, x) in to.q.iter().flatten().flat_map(|q| [*q as i16, (*q >> 16) as i16]).zip(x) {
                    let q = scale * f64::from(q);
                    assert!((q - f64::from(*x)).abs() <= 0.51 * scale);
                    activations.push(q);
                }
            }
            assert_products(isa, Rounding::Bf16, format, &w, (m, n, k), &x, &weights, &activations);
        }
    }
}
