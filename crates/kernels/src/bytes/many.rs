//! Many tokens: panels of rows, transposed so that the lanes of a vector are rows, times blocks of tokens.
//!
//! Activations have a scale for each 32, or one for all that meet a panel (`coarse`, `integer`, `wide`). A task has some panels,
//! which pass over each chunk of the activations while it is in the second-level cache; its sums stay there too, until the last
//! chunk, so that results are written once.

use imaginal_numeric::Format;

#[cfg(target_arch = "x86_64")]
use super::coarse::{self, Rounder};
#[cfg(target_arch = "x86_64")]
use super::integer::Integers;
use super::read::Layout;
use super::tile::{self, Tile};
#[cfg(target_arch = "x86_64")]
use super::wide::{self, Wide};
use super::{CHUNK, Read, Weights, kernel, read, round, whole};
use crate::isa::{Isa, simd_fn};
use crate::packed::Rounding;
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};

/// Rows of a panel.
pub(super) const ROWS: usize = 32;
/// Rows that are read before they are transposed.
const READ: usize = 16;
/// Words of 32 bits of [`Weights`]: four numbers, a scale or a minimum each.
const WORDS: usize = size_of::<Weights>() / 4;
/// Tokens of a block; more come in turns, each of which reads the weights again.
const MAX_TOKENS: usize = 512;
/// Panels of a task, at most.
const GROUP: usize = 8;

/// 32 rows of 256 weights: of each row's [`Weights`] the words, transposed.
#[repr(C, align(64))]
pub(super) struct Panel {
    pub q: [[u32; ROWS]; CHUNK / 4],
    pub scale: [[f32; ROWS]; 16],
    pub min: [[f32; ROWS]; 16],
}

/// 256 activations of a token.
#[repr(C, align(64))]
pub(super) struct Column {
    /// Rounded, in units of the scale.
    pub q: [[u32; 8]; 8],
    /// The scale of each 32.
    pub scale: [f32; 8],
    /// The scale times -[`tile::WHOLE`].
    pub base: [f32; 8],
    /// What a sum of integers over a group begins at: the bits of [`tile::WHOLE`], and what weights that stand for zero
    /// take away.
    pub start: [i32; 16],
    /// The sum of the rounded ones of a group, times the scale.
    pub sum: [f32; 16],
}

#[cfg(all(test, target_arch = "x86_64"))]
impl Column {
    pub(super) const ZERO: Column =
        Column { q: [[0; 8]; 8], scale: [0.0; 8], base: [0.0; 8], start: [0; 16], sum: [0.0; 16] };
}

/// How operands become panels and columns.
#[derive(Clone, Copy)]
enum Scales {
    /// Weights with the scales that the format has, activations with one for each 32.
    Fine(Layout, Read, Tile),
    /// One scale for all.
    #[cfg(target_arch = "x86_64")]
    Coarse(Rounder),
    /// Integers of one unit for weights, one scale for all activations.
    #[cfg(target_arch = "x86_64")]
    Integer(Integers),
    /// Weights with the scales that the format has, as numbers of 16 bits, activations too, with one for each 128.
    #[cfg(target_arch = "x86_64")]
    Wide(Wide),
}

impl Scales {
    /// How the operands of a format may be rounded; `None` as [`kernel`] says.
    fn new(isa: Isa, rounding: Rounding, format: Format) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(wide) = Wide::new(isa, format) {
                return Some(Scales::Wide(wide));
            }
            if rounding == Rounding::Int8 && format.block_len() == CHUNK {
                if isa.usable() >= Isa::Avx512Vnni {
                    return Some(Scales::Coarse(Rounder::new(format)));
                }
                if let Some(integers) = Integers::new(isa, format) {
                    return Some(Scales::Integer(integers));
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = rounding;
        let layout = read::layout(format)?;
        Some(Scales::Fine(layout, kernel(isa, format)?.read, tile::of(isa, layout)))
    }

    /// Columns of a panel.
    fn depth(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Scales::Wide(_) => wide::DEPTH,
            _ => CHUNK,
        }
    }

    /// Rows of panels that are multiplied together, at most.
    fn panels(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Scales::Coarse(_) => 2,
            _ => 1,
        }
    }

    /// Adds the products of panels with columns to the sums. Panels of other rows have sums that follow those of the first; where
    /// panels continue rows, the columns that they meet follow those of the first.
    fn multiply(self, panels: &[Panel], x: &[Column], sums: &mut [[f32; ROWS]]) {
        match self {
            Scales::Fine(_, _, tile) => {
                for (panel, sums) in panels.iter().zip(sums.chunks_exact_mut(x.len())) {
                    // SAFETY: the tile is one of the instruction set.
                    unsafe { (tile.multiply)(panel, x, sums) };
                }
            }
            // SAFETY: the rounder found the instructions.
            #[cfg(target_arch = "x86_64")]
            Scales::Coarse(_) => unsafe { tile::avx512::coarse(panels, x, sums) },
            #[cfg(target_arch = "x86_64")]
            Scales::Integer(integers) => {
                for (panel, sums) in panels.iter().zip(sums.chunks_exact_mut(x.len())) {
                    integers.multiply(panel, x, sums);
                }
            }
            #[cfg(target_arch = "x86_64")]
            Scales::Wide(wide) => wide.multiply(panels, x, sums),
        }
    }

    /// Rounds up to [`depth`](Scales::depth) activations of a token.
    fn column(self, isa: Isa, x: &[f32], column: &mut Column) {
        match self {
            Scales::Fine(layout, _, tile) => quantize(isa, layout.group, tile.zero, x, column),
            // SAFETY: the rounder found the instructions.
            #[cfg(target_arch = "x86_64")]
            Scales::Coarse(_) => unsafe { coarse::column(x, column) },
            #[cfg(target_arch = "x86_64")]
            Scales::Integer(integers) => integers.column(x, column),
            #[cfg(target_arch = "x86_64")]
            Scales::Wide(wide) => wide.column(x, column),
        }
    }

    /// Reads the bytes of a chunk, of which the last are missing where a row ends before, for as many panels as it fills.
    fn read(self, bytes: &[u8], pieces: [&mut Weights; 2]) {
        let first = &mut *pieces[0];
        match self {
            // SAFETY: the reader is one of the instruction set.
            Scales::Fine(layout, read, _) => whole(bytes, layout.bytes, |bytes| unsafe { read(bytes, first) }),
            #[cfg(target_arch = "x86_64")]
            Scales::Coarse(rounder) => rounder.read(bytes, first),
            #[cfg(target_arch = "x86_64")]
            Scales::Integer(integers) => integers.read(bytes, first),
            #[cfg(target_arch = "x86_64")]
            Scales::Wide(wide) => wide.read(bytes, pieces),
        }
    }

    /// Words of [`Weights`] that the tile looks at.
    fn words(self) -> usize {
        match self {
            // Minima that follow from the scales are not among them.
            Scales::Fine(layout, ..) => WORDS - if layout.zero.is_some() { 16 } else { 0 },
            #[cfg(target_arch = "x86_64")]
            Scales::Coarse(_) | Scales::Wide(_) => WORDS - 16,
            #[cfg(target_arch = "x86_64")]
            Scales::Integer(integers) => integers.words(),
        }
    }
}

/// [`matmul`](super::matmul) for any number of tokens, with each of `w`; of the products `join` makes one, in the place of the
/// first.
#[allow(clippy::too_many_arguments)]
pub(super) fn matmul<const N: usize>(
    isa: Isa,
    threads: usize,
    rounding: Rounding,
    format: Format,
    w: [&[u8]; N],
    row_bytes: usize,
    n: usize,
    k: usize,
    x: &[f32],
    m: usize,
    out: &mut [f32],
    join: impl Fn([&mut [f32]; N]) + Sync,
) {
    let run = |count: usize, f: &(dyn Fn(usize) + Sync)| {
        if threads > 1 && count > 1 { pool::parallel(count, f) } else { (0..count).for_each(f) }
    };
    let (Some(layout), Some(scales)) = (read::layout(format), Scales::new(isa, rounding, format)) else { return };
    let (depth, pieces) = (scales.depth(), CHUNK / scales.depth());
    let chunks = k.div_ceil(CHUNK);
    let tokens = m.min(MAX_TOKENS);
    for (x, out) in x.chunks(tokens * k).zip(out.chunks_mut(tokens * n)) {
        let tokens = x.len() / k;
        let all_columns = chunks * pieces * tokens;
        with_buffer(Slot::B, all_columns * size_of::<Column>() / 4, |buffer| {
            let shared = SharedMut::new(&mut *buffer);
            run(tokens, &|t| {
                let x = &x[t * k..][..k];
                for c in 0..chunks * pieces {
                    // SAFETY: a token has a column of each piece of a chunk to itself.
                    let to = unsafe { &mut *shared.as_ptr().cast::<Column>().add(c * tokens + t) };
                    scales.column(isa, &x[k.min(c * depth)..k.min((c + 1) * depth)], to);
                }
            });
            // SAFETY: as many were just written.
            let columns = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<Column>(), all_columns) };
            let out = SharedMut::new(out);
            // Panels share a task also so that results are written in longer pieces: the next token's lie pages away.
            let group = (n.div_ceil(ROWS) / (4 * threads)).clamp(1, GROUP / N) * ROWS;
            run(n.div_ceil(group), &|t| {
                let (start, end) = (t * group, n.min((t + 1) * group));
                let panel_count = scales.panels() * pieces;
                let panel_floats = panel_count * size_of::<Panel>() / 4;
                with_buffer(Slot::A, panel_floats + N * tokens * group, |buffer| {
                    let (panels, all) = buffer.split_at_mut(panel_floats);
                    // SAFETY: buffers are aligned to 64 bytes; any bits are a valid value.
                    let panels =
                        unsafe { std::slice::from_raw_parts_mut(panels.as_mut_ptr().cast::<Panel>(), panel_count) };
                    all.fill(0.0);
                    let mut weights = [[Weights::ZERO; READ]; 2];
                    let mut parts = all.chunks_exact_mut(tokens * group);
                    let mut all = [(); N].map(|()| parts.next().expect("as many parts as products"));
                    for c in 0..chunks {
                        for (w, sums) in w.iter().zip(&mut all) {
                            let row = |r: usize| {
                                let bytes = &w[r * row_bytes..][..row_bytes];
                                &bytes[c * layout.bytes..row_bytes.min((c + 1) * layout.bytes)]
                            };
                            let rows = (start..end).step_by(scales.panels() * ROWS);
                            let sums = sums.as_chunks_mut::<ROWS>().0.chunks_mut(scales.panels() * tokens);
                            for (first, sums) in rows.zip(sums) {
                                let mut filled = 0;
                                for (p, panels) in (first..end).step_by(ROWS).zip(panels.chunks_exact_mut(pieces)) {
                                    fill(isa, scales, (p..end.min(p + ROWS)).map(row), &mut weights, panels);
                                    filled += pieces;
                                }
                                let tokens = pieces * tokens;
                                scales.multiply(&panels[..filled], &columns[c * tokens..][..tokens], sums);
                            }
                        }
                    }
                    join(all.each_mut().map(|sums| &mut **sums));
                    let sums = all[0].as_chunks::<ROWS>().0;
                    for t in 0..tokens {
                        // SAFETY: each task has rows of its own, whose results lie in `out`.
                        let out =
                            unsafe { std::slice::from_raw_parts_mut(out.as_ptr().add(t * n + start), end - start) };
                        let (whole, rest) = out.as_chunks_mut::<ROWS>();
                        let mut sums = sums.iter().skip(t).step_by(tokens);
                        whole.iter_mut().zip(&mut sums).for_each(|(out, sums)| *out = *sums);
                        rest.iter_mut().zip(sums.next().into_iter().flatten()).for_each(|(out, sum)| *out = *sum);
                    }
                });
            });
        });
    }
}

simd_fn! {
    /// Rounds up to [`CHUNK`] activations of a token; what is missing becomes 0.
    fn quantize<S>(_s: S, group: usize, zero: u8, x: &[f32], column: &mut Column) {
        let (sums_of, zero) = (32 / group, i32::from(zero));
        for (g, words) in column.q.iter_mut().enumerate() {
            let mut q = [0i8; 32];
            let (scale, sum) = round(x.get(g * 32..).unwrap_or_default(), &mut q);
            for (word, q) in words.iter_mut().zip(q.as_chunks::<4>().0) {
                *word = u32::from_ne_bytes(q.map(|q| q as u8));
            }
            column.scale[g] = scale;
            column.base[g] = scale * -tile::WHOLE;
            let first = q[..group].iter().map(|q| i32::from(*q)).sum::<i32>();
            for (i, sum) in [first, sum - first].into_iter().take(sums_of).enumerate() {
                column.start[sums_of * g + i] = tile::WHOLE.to_bits() as i32 - zero * sum;
                column.sum[sums_of * g + i] = scale * sum as f32;
            }
        }
    }
}

/// Reads the panels of some rows, one or for less [`depth`](Scales::depth) two; rows that are missing repeat older ones.
fn fill<'a>(
    isa: Isa,
    scales: Scales,
    rows: impl ExactSizeIterator<Item = &'a [u8]>,
    weights: &mut [[Weights; READ]; 2],
    panels: &mut [Panel],
) {
    let (count, mut rows) = (rows.len(), rows);
    for first in (0..count).step_by(READ) {
        let [w, second] = &mut *weights;
        for ((w, second), row) in w.iter_mut().zip(second).zip(rows.by_ref().take(READ)) {
            scales.read(row, [w, second]);
        }
        for (weights, panel) in weights.iter().zip(&mut *panels) {
            transpose(isa, scales.words(), weights, panel, first);
        }
    }
}

/// Transposes the first words of 16 rows, a multiple of 16, to lanes `first..first + 16` of a panel.
fn transpose(isa: Isa, words: usize, weights: &[Weights; READ], panel: &mut Panel, first: usize) {
    let (from, to) = (weights.as_ptr().cast::<u32>(), (&raw mut *panel).cast::<u32>());
    assert!(first + READ <= ROWS && words <= WORDS && words.is_multiple_of(16));
    #[cfg(target_arch = "x86_64")]
    if isa.usable() >= Isa::Avx512 {
        for word in (0..words).step_by(16) {
            // SAFETY: the instruction set is there; 16 words of 16 rows are read, and 16 lanes of 16 words written.
            unsafe { transpose16(from.add(word), to.add(word * ROWS + first)) };
        }
        return;
    }
    #[cfg(target_arch = "aarch64")]
    if isa.usable() >= Isa::Neon {
        for (word, row) in (0..words).step_by(4).flat_map(|word| (0..READ).step_by(4).map(move |row| (word, row))) {
            // SAFETY: four words of four rows are read, and four lanes of four words written.
            unsafe { transpose4(from.add(row * WORDS + word), to.add(word * ROWS + first + row)) };
        }
        return;
    }
    for word in 0..words {
        for row in 0..READ {
            // SAFETY: both structures are words only, as many as are counted here.
            unsafe { to.add(word * ROWS + first + row).write(from.add(row * WORDS + word).read()) };
        }
    }
}

/// Transposes 16 words of 16 rows of [`Weights`] to 16 lanes of a [`Panel`].
///
/// # Safety
/// The CPU must have AVX-512; the rows can be read and the lanes written.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn transpose16(from: *const u32, to: *mut u32) {
    use std::arch::x86_64::*;
    let mut rows = [_mm512_setzero_si512(); 16];
    for (i, row) in rows.iter_mut().enumerate() {
        // SAFETY: by the caller's promise.
        *row = unsafe { _mm512_loadu_si512(from.add(i * WORDS).cast()) };
    }
    for (i, row) in crate::simd_x86::transpose16(rows).into_iter().enumerate() {
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(to.add(i * ROWS).cast(), row) };
    }
}

/// Transposes four words of four rows of [`Weights`] to four lanes of a [`Panel`].
///
/// # Safety
/// The rows can be read and the lanes written.
#[cfg(target_arch = "aarch64")]
#[inline]
unsafe fn transpose4(from: *const u32, to: *mut u32) {
    use std::arch::aarch64::*;
    // SAFETY: by the caller's promise; NEON is part of aarch64.
    unsafe {
        let rows = [0, 1, 2, 3].map(|i| vld1q_u32(from.add(i * WORDS)));
        for (i, row) in crate::simd_aarch64::transpose4(rows).into_iter().enumerate() {
            vst1q_u32(to.add(i * ROWS), row);
        }
    }
}
