//! Packing: an operand of any strides becomes panels in the order in which the micro-kernels read it.
//!
//! Seen from here both operands are the same thing: a matrix of *lanes* (rows of a, columns of b) by *depth*. A panel
//! holds `width` lanes; at each step of the depth its elements lie side by side. A panel at the edge has full width; what
//! its missing lanes hold is unspecified, and micro-kernels do not use it.

use crate::isa::{Simd, simd_fn};
use crate::simd::prefetch;

/// A matrix of lanes × depth: element (lane, p) is `data[lane·ls + p·ps]`.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub data: &'a [f32],
    pub ls: usize,
    pub ps: usize,
}

simd_fn! {
    /// Packs lanes `lane0..lane0 + lanes` at depths `p0..p0 + depth` of `src` into ⌈lanes/width⌉ panels at `dst`, each of
    /// `depth·width` elements.
    ///
    /// # Panics
    /// If `src` or `dst` is too short, or a panel is wider than a vector but no whole number of vectors.
    pub(super) fn pack<S>(s: S, src: Source<'_>, lane0: usize, lanes: usize, p0: usize, depth: usize, width: usize, dst: &mut [f32]) {
        if lanes == 0 || depth == 0 {
            return;
        }
        let Source { data, ls, ps } = src;
        assert!((lane0 + lanes - 1) * ls + (p0 + depth - 1) * ps < data.len(), "pack: the operand is too short");
        assert!(lanes.div_ceil(width) * width * depth <= dst.len(), "pack: the buffer is too short");
        assert!(width <= S::LANES || width.is_multiple_of(S::LANES), "pack: panels of {width}");
        let data = &data[lane0 * ls + p0 * ps..];
        if ls == 1 {
            copy(s, data, ps, lanes, depth, width, dst);
            return;
        }
        for (i, panel) in dst.chunks_exact_mut(depth * width).take(lanes.div_ceil(width)).enumerate() {
            let base = &data[i * width * ls..];
            let n = width.min(lanes - i * width);
            let mut done = 0;
            if ps == 1 {
                let mut g = 0;
                while g < width {
                    done = transpose(s, base, ls, g, n, depth, width, panel);
                    g += S::LANES;
                }
            }
            for p in done..depth {
                for l in 0..n {
                    panel[p * width + l] = base[l * ls + p * ps];
                }
            }
        }
    }
}

/// Packs lanes that lie side by side: some steps of all panels, then the next steps, so that memory is read in order and
/// written in runs (panels are often a multiple of 4 KB apart, and single vectors into each would evict each other).
///
/// A vector may run over the end of a step's lanes, where the next step overwrites what it left; so not at the last.
#[inline(always)]
fn copy<S: Simd>(s: S, data: &[f32], ps: usize, lanes: usize, depth: usize, width: usize, dst: &mut [f32]) {
    const STEPS: usize = 8;
    let vectors = width.div_ceil(S::LANES);
    for p0 in (0..depth).step_by(STEPS) {
        let steps = STEPS.min(depth - p0);
        let last = p0 + steps - 1;
        for (i, panel) in dst.chunks_exact_mut(depth * width).take(lanes.div_ceil(width)).enumerate() {
            let first = i * width;
            let fits = last * ps + first + vectors * S::LANES <= data.len()
                && last * width + vectors * S::LANES <= panel.len();
            // SAFETY: the last step's vectors end within data and panel.
            unsafe {
                let (from, to) = (data.as_ptr().wrapping_add(p0 * ps + first), panel.as_mut_ptr().add(p0 * width));
                match vectors {
                    1 if fits => copy_steps::<S, 1>(s, from, ps, to, width, steps),
                    2 if fits => copy_steps::<S, 2>(s, from, ps, to, width, steps),
                    _ => {
                        let n = width.min(lanes - first);
                        for p in p0..=last {
                            let from = p * ps + first;
                            panel[p * width..p * width + n].copy_from_slice(&data[from..from + n]);
                        }
                    }
                }
            }
        }
    }
}

/// Copies `steps` runs of `V` vectors, `ps` apart at the source and `width` apart at the destination, and fetches the
/// runs that come as many steps later: they are too far apart for the hardware to foresee.
///
/// # Safety
/// The vectors must be readable and writable.
#[inline(always)]
unsafe fn copy_steps<S: Simd, const V: usize>(
    s: S,
    mut from: *const f32,
    ps: usize,
    mut to: *mut f32,
    width: usize,
    steps: usize,
) {
    for _ in 0..steps {
        for v in 0..V {
            prefetch(from.wrapping_add(steps * ps + v * S::LANES));
            // SAFETY: by the caller's promise.
            unsafe { s.store_ptr(s.load_ptr(from.add(v * S::LANES)), to.add(v * S::LANES)) };
        }
        from = from.wrapping_add(ps);
        to = to.wrapping_add(width);
    }
}

/// Elements of a row that are fetched before they are transposed: two cache lines.
const AHEAD: usize = 32;

/// Packs lanes `g..g + LANES` of a panel whose depth lies side by side in memory, four steps at a time. Returns how many
/// steps it did: all but the last few, for the reason given at [`copy`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn transpose<S: Simd>(
    s: S,
    base: &[f32],
    ls: usize,
    g: usize,
    n: usize,
    depth: usize,
    width: usize,
    panel: &mut [f32],
) -> usize {
    // Steps that vectors of the last of the four may run into.
    let beyond = S::LANES.div_ceil(width);
    assert!((n - 1) * ls + depth <= base.len() && depth * width <= panel.len());
    let mut rows = [base.as_ptr(); 16];
    for (l, row) in rows.iter_mut().enumerate() {
        // Lanes that are missing repeat one that exists.
        *row = base[if g + l < n { (g + l) * ls } else { 0 }..].as_ptr();
    }
    let mut to = panel[g..].as_mut_ptr();
    let mut p = 0;
    while p + 3 + beyond < depth {
        if p.is_multiple_of(16) {
            // So many rows at a time are too many for the hardware to foresee.
            rows[..S::LANES].iter().for_each(|row| prefetch(row.wrapping_add(p + AHEAD)));
        }
        // SAFETY: steps below depth of the panel's lanes lie in `base`; the stores end `beyond` steps later, in the panel.
        unsafe {
            let columns = s.transpose4(rows.map(|r| r.add(p)));
            // In order of depth: a vector may reach into the next step's lanes.
            s.store_ptr(columns[0], to);
            s.store_ptr(columns[1], to.add(width));
            s.store_ptr(columns[2], to.add(2 * width));
            s.store_ptr(columns[3], to.add(3 * width));
            to = to.add(4 * width);
        }
        p += 4;
    }
    p
}
