//! The blocked product: who packs what, and which thread computes which part of c.

use std::ops::Range;

use imaginal_numeric::Format;

use super::MatRef;
use super::micro::Kernels;
use super::pack::{Source, pack};
use crate::isa::Isa;
use crate::packed::decode_rows;
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};

/// The right operand of a product.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    /// Any f32 matrix.
    Floats(MatRef<'a>),
    /// The transpose of a matrix whose rows (columns of this operand) lie behind each other in a packed format.
    Packed { format: Format, bytes: &'a [u8], row_bytes: usize },
}

/// Elements of b packed at a time: 16 MB, so that the third-level cache holds them.
const B_ELEMENTS: usize = 4 << 20;

/// Elements of b that pass by each panel of a before the next one's turn: 192 KB, a small part of the L2 cache, which two
/// threads may share and a's block needs too.
const B_BLOCK: usize = 48 << 10;

/// c (+)= a·b through panels and micro-kernels, on `threads` threads. Operands are within bounds, no dimension is 0.
#[allow(clippy::too_many_arguments)]
pub(crate) fn run(
    isa: Isa,
    threads: usize,
    m: usize,
    n: usize,
    k: usize,
    a: MatRef<'_>,
    b: Right<'_>,
    c: &mut [f32],
    c_rs: usize,
    add: bool,
) {
    let kernels = Kernels::of(isa);
    let unit = match b {
        Right::Floats(_) => 1,
        Right::Packed { format, .. } => format.block_len(),
    };
    let job = Job {
        isa,
        kernels,
        threads,
        m,
        k,
        kc: even_part(k, kernels.kc, unit),
        a: Source { data: a.data, ls: a.rs, ps: a.cs },
        b,
        c: SharedMut::new(c),
        c_rs,
        add,
    };
    let (row_panels, column_panels) = (m.div_ceil(kernels.mr), n.div_ceil(kernels.nr));
    if threads > 1 && row_panels < 8 * threads && row_panels < column_panels {
        job.by_columns(n);
    } else {
        job.by_rows(n);
    }
}

/// Cuts `total` into the fewest parts of at most `max` (at least `unit`), as even as multiples of `unit` allow.
fn even_part(total: usize, max: usize, unit: usize) -> usize {
    let parts = total.div_ceil(max.next_multiple_of(unit));
    total.div_ceil(parts).next_multiple_of(unit)
}

/// Cuts `total` items into ranges for `threads` threads: at first large ones (at most `max`), towards the end smaller
/// ones, so that all threads finish together although none is known to be as fast as the others.
fn guided(total: usize, threads: usize, max: usize, min: usize) -> Vec<Range<usize>> {
    // At least four for each thread, if there are as many items.
    let min = min.min(max).min(total / (4 * threads)).max(1);
    let mut ranges = Vec::new();
    let mut start = 0;
    while start < total {
        let rest = total - start;
        let len = if threads == 1 { max } else { (rest / (2 * threads)).clamp(min, max) }.min(rest);
        ranges.push(start..start + len);
        start += len;
    }
    ranges
}

struct Job<'a> {
    isa: Isa,
    kernels: &'static Kernels,
    threads: usize,
    m: usize,
    k: usize,
    /// Depth of one pass.
    kc: usize,
    a: Source<'a>,
    b: Right<'a>,
    c: SharedMut<'a, f32>,
    c_rs: usize,
    add: bool,
}

impl Job<'_> {
    /// Runs tasks on the pool, or here if the product is to run on one thread.
    fn tasks(&self, count: usize, f: &(dyn Fn(usize) + Sync)) {
        if self.threads > 1 { pool::parallel(count, f) } else { (0..count).for_each(f) }
    }

    /// The passes over the depth: start and length of each.
    fn passes(&self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.k).step_by(self.kc).map(|p| (p, self.kc.min(self.k - p)))
    }

    /// Packs columns `j..j + cols` at depths `p..p + depth` of b.
    fn pack_b(&self, j: usize, cols: usize, p: usize, depth: usize, dst: &mut [f32]) {
        let nr = self.kernels.nr;
        match self.b {
            Right::Floats(b) => {
                pack(self.isa, Source { data: b.data, ls: b.cs, ps: b.rs }, j, cols, p, depth, nr, dst);
            }
            Right::Packed { format, bytes, row_bytes } => with_buffer(Slot::Rows, nr * depth, |rows| {
                for (panel, first) in dst.chunks_exact_mut(nr * depth).zip((j..j + cols).step_by(nr)) {
                    let count = nr.min(j + cols - first);
                    decode_rows(self.isa, format, bytes, row_bytes, first..first + count, p..p + depth, rows);
                    pack(self.isa, Source { data: rows, ls: depth, ps: 1 }, 0, count, 0, depth, nr, panel);
                }
            }),
        }
    }

    /// Packs row panels `rows` at depths `p..p + depth` of a.
    fn pack_a(&self, rows: Range<usize>, p: usize, depth: usize, dst: &mut [f32]) {
        let mr = self.kernels.mr;
        let (first, end) = (rows.start * mr, (rows.end * mr).min(self.m));
        pack(self.isa, self.a, first, end - first, p, depth, mr, dst);
    }

    /// Computes the part of c under row panels `rows` and columns `j..j + cols` from packed panels. `pass` is the start
    /// of this pass: the first overwrites c unless the caller wants its product added.
    #[allow(clippy::too_many_arguments)]
    fn block(&self, rows: Range<usize>, a: &[f32], j: usize, cols: usize, b: &[f32], pass: usize, depth: usize) {
        let Kernels { mr, nr, .. } = *self.kernels;
        let add = self.add || pass > 0;
        assert!(a.len() >= rows.len() * mr * depth && b.len() >= cols.div_ceil(nr) * nr * depth);
        let panels = cols.div_ceil(nr);
        // Some panels of b stay in the L2 cache while all of a's pass by; c is walked along its rows.
        let few = (B_BLOCK / (nr * depth)).max(1);
        for first in (0..panels).step_by(few) {
            for (ip, a) in rows.clone().zip(a.chunks_exact(mr * depth)) {
                let height = mr.min(self.m - ip * mr);
                for jp in first..panels.min(first + few) {
                    let b = &b[jp * nr * depth..];
                    let width = nr.min(cols - jp * nr);
                    // SAFETY: `Kernels::of` gives only what the CPU has; the panels are whole (asserted above); the tile
                    // lies in c, whose extent `gemm` has checked, and only this task computes it.
                    unsafe {
                        let c = self.c.as_ptr().add(ip * mr * self.c_rs + j + jp * nr);
                        self.kernels.tile(height, width)(depth, a.as_ptr(), b.as_ptr(), c, self.c_rs, width, add);
                    }
                }
            }
        }
    }

    /// Many rows: b is packed once by all threads together; then each task packs a block of rows and multiplies it.
    fn by_rows(&self, n: usize) {
        let Kernels { mr, nr, mc_panels, .. } = *self.kernels;
        let most = (B_ELEMENTS / self.k / nr).max(1) * nr;
        let nc = even_part(n, most, nr);
        let blocks = guided(self.m.div_ceil(mr), self.threads, mc_panels, 4);
        with_buffer(Slot::B, nc.min(n.next_multiple_of(nr)) * self.k, |packed| {
            for j in (0..n).step_by(nc) {
                let cols = nc.min(n - j);
                let padded = cols.next_multiple_of(nr);
                // Panels of one pass lie together: pass p starts at p·padded.
                let shared = SharedMut::new(&mut *packed);
                let passes: Vec<_> = self.passes().collect();
                let parts = guided(padded / nr, self.threads, 8, 1);
                self.tasks(passes.len() * parts.len(), &|t| {
                    let (p, depth) = passes[t / parts.len()];
                    let part = &parts[t % parts.len()];
                    // SAFETY: passes and parts do not overlap, each task has one pair.
                    let dst = unsafe { shared.slice(p * padded + part.start * nr * depth, part.len() * nr * depth) };
                    let width = part.len() * nr;
                    self.pack_b(j + part.start * nr, width.min(cols - part.start * nr), p, depth, dst);
                });
                let packed = &*packed;
                self.tasks(blocks.len(), &|t| {
                    let rows = blocks[t].clone();
                    with_buffer(Slot::A, rows.len() * mr * self.kc, |a| {
                        for (p, depth) in self.passes() {
                            self.pack_a(rows.clone(), p, depth, a);
                            self.block(rows.clone(), a, j, cols, &packed[p * padded..], p, depth);
                        }
                    });
                });
            }
        });
    }

    /// Few rows and many columns: a is packed once, each task packs some columns of b and multiplies them.
    fn by_columns(&self, n: usize) {
        let Kernels { mr, nr, .. } = *self.kernels;
        let panels = self.m.div_ceil(mr);
        let parts = guided(n.div_ceil(nr), self.threads, 16, 1);
        with_buffer(Slot::A, panels * mr * self.k, |packed| {
            let shared = SharedMut::new(&mut *packed);
            let passes: Vec<_> = self.passes().collect();
            self.tasks(passes.len(), &|t| {
                let (p, depth) = passes[t];
                // SAFETY: passes do not overlap.
                self.pack_a(0..panels, p, depth, unsafe { shared.slice(p * panels * mr, panels * mr * depth) });
            });
            let packed = &*packed;
            self.tasks(parts.len(), &|t| {
                let (j, end) = (parts[t].start * nr, (parts[t].end * nr).min(n));
                with_buffer(Slot::B, parts[t].len() * nr * self.kc, |b| {
                    for (p, depth) in self.passes() {
                        self.pack_b(j, end - j, p, depth, b);
                        self.block(0..panels, &packed[p * panels * mr..], j, end - j, b, p, depth);
                    }
                });
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guided_ranges_cover_everything_once() {
        for total in [0, 1, 5, 16, 147, 1000] {
            for threads in [1, 2, 3, 16] {
                let ranges = guided(total, threads, 16, 4);
                let mut next = 0;
                for r in &ranges {
                    assert_eq!(r.start, next);
                    assert!(!r.is_empty() && r.len() <= 16);
                    next = r.end;
                }
                assert_eq!(next, total);
            }
        }
    }

    #[test]
    fn passes_are_even_and_whole_blocks() {
        assert_eq!(even_part(320, 384, 1), 320);
        assert_eq!(even_part(400, 384, 1), 200);
        assert_eq!(even_part(2048, 384, 32), 352);
        assert_eq!(even_part(512, 384, 256), 512);
        assert_eq!(even_part(1024, 384, 256), 512);
    }
}
