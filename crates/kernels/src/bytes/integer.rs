//! Integer scales: whole numbers of one unit for each [`CHUNK`] weights of a row, with AVX2.
//!
//! Without dot products of bytes (VNNI), sums of products in 16 bits are widened to 32 by a multiplication with ones. It brings
//! them to scale as well, where scales are integers: then all of a chunk is summed in integers, and scaled once. Weights keep
//! the numbers and scales that they have in the file, but for what rounding scales to a fraction of the largest costs: at most a
//! quarter of what rounding activations costs, a thirtieth with q4_k. Those have one scale for all that meet a chunk, as llama.cpp
//! gives them before blocks of that length.

use imaginal_numeric::Format;

use super::many::{Column, Panel, ROWS};
use super::read::Layout;
use super::tile::{self, Multiply, avx2};
use super::{CHUNK, Read, Weights, kernel, magnitude, nearest, read, round, scale, whole};
use crate::isa::{Isa, simd_fn};

/// The largest number of 16 bits.
const MOST: f32 = 32767.0;

/// What makes the operands of a format.
#[derive(Clone, Copy)]
pub(super) struct Integers {
    isa: Isa,
    layout: Layout,
    read: Read,
    tile: Multiply,
    /// What the largest scale of a chunk becomes: the most for which neither a sum of products nor, in 16 bits, a scale times
    /// the number that stands for zero overflows.
    steps: f32,
}

impl Integers {
    /// `None` if the instruction set has dot products of bytes, or products of the format's numbers overflow in pairs.
    pub(super) fn new(isa: Isa, format: Format) -> Option<Self> {
        let layout = read::layout(format)?;
        let tile = (layout.largest < 128 && tile::in_pairs(isa)).then(|| avx2::integers(layout))?;
        let zero = layout.zero.unwrap_or(0);
        let largest = u64::from(zero.max(layout.largest - zero));
        let steps = ((1 << 31) / (127 * CHUNK as u64 * largest)) as f32;
        let steps = steps.min((MOST / f32::from(zero.max(1))).floor());
        Some(Integers { isa, layout, read: kernel(isa, format)?.read, tile, steps })
    }

    /// Adds the products of a panel with each column to the sums.
    #[inline]
    pub(super) fn multiply(self, panel: &Panel, x: &[Column], sums: &mut [[f32; ROWS]]) {
        // SAFETY: `new` found the instructions.
        unsafe { (self.tile)(panel, x, sums) };
    }

    /// Reads the bytes of a chunk. What [`Words`] says is in the place of scales and minima.
    pub(super) fn read(self, bytes: &[u8], w: &mut Weights) {
        // SAFETY: the reader is one of the instruction set.
        whole(bytes, self.layout.bytes, |bytes| unsafe { (self.read)(bytes, w) });
        to_integers(self.isa, self.layout, self.steps, w);
    }

    /// Words of [`Weights`] that the tile looks at, a multiple of 16.
    pub(super) fn words(self) -> usize {
        (CHUNK / 4 + Words::of(self.layout.group).all()).next_multiple_of(16)
    }

    /// Rounds up to [`CHUNK`] activations of a token.
    pub(super) fn column(self, x: &[f32], column: &mut Column) {
        quantize(self.isa, self.layout.group, x, column);
    }
}

/// Which words follow the numbers of a chunk: the scale of each group in both halves of a word, the minima of two groups in a
/// word, the unit of the scales and that of the minima. Minima of formats in which they follow from the scales have these' unit.
#[derive(Clone, Copy)]
pub(super) struct Words {
    /// Where minima begin.
    pub minima: usize,
    /// Where the unit is.
    pub unit: usize,
    /// Where the minima's unit is.
    pub min_unit: usize,
}

impl Words {
    /// The words of a format with groups of 16 or 32.
    pub(super) const fn of(group: usize) -> Self {
        let groups = CHUNK / group;
        Words { minima: groups, unit: groups + groups / 2, min_unit: groups + groups / 2 + 1 }
    }

    const fn all(self) -> usize {
        self.min_unit + 1
    }
}

/// Two numbers of 16 bits in a word.
#[inline(always)]
fn pair(low: i32, high: i32) -> u32 {
    (low & 0xffff) as u32 | (high as u32) << 16
}

/// The magnitude of the largest.
#[inline(always)]
fn largest(x: &[f32; 16]) -> u32 {
    x.iter().fold(0, |largest, x| largest.max(magnitude(*x)))
}

simd_fn! {
    /// Replaces scales and minima by [`Words`].
    fn to_integers<S>(_s: S, layout: Layout, steps: f32, w: &mut Weights) {
        let (words, apart) = (Words::of(layout.group), layout.group / 16);
        let (unit, inverse) = scale(largest(&w.scale), steps);
        let scales = w.scale.map(|scale| nearest(scale * inverse));
        let (minima, min_unit) = match layout.zero {
            Some(zero) => (scales.map(|scale| scale.wrapping_mul(-i32::from(zero))), unit),
            None => {
                let (unit, inverse) = scale(largest(&w.min), MOST);
                (w.min.map(|min| nearest(min * inverse)), unit)
            }
        };
        let mut all = [0.0; 32];
        for (g, to) in all[..words.minima].iter_mut().enumerate() {
            *to = f32::from_bits(pair(scales[apart * g], scales[apart * g]));
        }
        for (g, to) in all[words.minima..words.unit].iter_mut().enumerate() {
            *to = f32::from_bits(pair(minima[apart * 2 * g], minima[apart * (2 * g + 1)]));
        }
        all[words.unit] = unit;
        all[words.min_unit] = min_unit;
        w.scale.copy_from_slice(&all[..16]);
        w.min.copy_from_slice(&all[16..]);
    }
}

simd_fn! {
    /// Rounds up to [`CHUNK`] activations of a token, with one scale; what is missing becomes 0. Sums of two groups share a word.
    fn quantize<S>(_s: S, group: usize, x: &[f32], column: &mut Column) {
        let mut q = [0i8; CHUNK];
        (column.scale[0], _) = round(x, &mut q);
        for (word, q) in column.q.as_flattened_mut().iter_mut().zip(q.as_chunks::<4>().0) {
            *word = u32::from_ne_bytes(q.map(|q| q as u8));
        }
        for (sums, q) in column.start.iter_mut().zip(q.chunks_exact(2 * group)) {
            let (low, high) = q.split_at(group);
            let sum = |q: &[i8]| q.iter().map(|q| i32::from(*q)).sum();
            *sums = pair(sum(low), sum(high)) as i32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::tests::{assert_products, operands};
    use crate::isa::available;
    use crate::packed::Rounding;

    /// The halves of a word.
    fn halves(word: u32) -> [f64; 2] {
        [word as i16, (word >> 16) as i16].map(f64::from)
    }

    #[test]
    fn products_are_those_of_what_was_rounded() {
        let formats = || Format::all().filter(|format| format.block_len() == CHUNK);
        for (isa, format) in available().flat_map(|isa| formats().map(move |format| (isa, format))) {
            let Some(integers) = Integers::new(isa, format) else { continue };
            let (n, k, m) = (37, 768, 11);
            let (w, decoded, x) = operands(format, (m, n, k));
            let group = integers.layout.group;
            let words = Words::of(group);
            let mut weights = Vec::new();
            for (bytes, decoded) in w.chunks(integers.layout.bytes).zip(decoded.chunks(CHUNK)) {
                let (mut w, mut fine) = (Weights::ZERO, Weights::ZERO);
                integers.read(bytes, &mut w);
                // SAFETY: the reader is one of the instruction set.
                unsafe { (integers.read)(bytes, &mut fine) };
                let all = [w.scale, w.min].concat();
                let [unit, min_unit] = [words.unit, words.min_unit].map(|word| f64::from(all[word]));
                for (i, decoded) in decoded.iter().enumerate() {
                    let g = i / group;
                    let scale = unit * halves(all[g].to_bits())[0];
                    let min = min_unit * halves(all[words.minima + g / 2].to_bits())[g % 2];
                    let is = scale * f64::from(w.q[i]) + min;
                    // Half a step of the scale, and of the minimum where it is rounded for itself, and what f32 loses.
                    let about = f64::from(integers.layout.zero.unwrap_or(0));
                    let steps = 0.53 * unit * (f64::from(w.q[i]) - about).abs();
                    let bound = steps + if about == 0.0 { 0.53 * min_unit } else { 1e-6 * scale.abs() * about };
                    assert!((is - f64::from(*decoded)).abs() <= bound, "{isa} {format} {i}: {is} is not {decoded}");
                    weights.push(is);
                }
                assert_eq!(w.q, fine.q);
            }
            let mut activations = Vec::new();
            for x in x.chunks(CHUNK) {
                let (mut q, mut column) = ([0i8; CHUNK], Column::ZERO);
                let (scale, _) = round(x, &mut q);
                integers.column(x, &mut column);
                assert_eq!(column.scale[0], scale);
                activations.extend(q.map(|q| f64::from(scale) * f64::from(q)));
            }
            assert_products(isa, Rounding::Int8, format, &w, (m, n, k), &x, &weights, &activations);
        }
    }
}
