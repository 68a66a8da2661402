//! Packing: an operand of any strides becomes panels in the order in which the micro-kernels read it.
//!
//! Seen from here both operands are the same thing: a matrix of *lanes* (rows of a, columns of b) by *depth*. A panel
//! holds `width` lanes; at each step of the depth its elements lie side by side. A panel at the edge has full width; what
//! its missing lanes hold is unspecified, and micro-kernels do not use it.

use crate::isa::simd_fn;

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
    /// If `src` or `dst` is too short.
    pub(super) fn pack<S>(s: S, src: Source<'_>, lane0: usize, lanes: usize, p0: usize, depth: usize, width: usize, dst: &mut [f32]) {
        if lanes == 0 || depth == 0 {
            return;
        }
        let Source { data, ls, ps } = src;
        assert!((lane0 + lanes - 1) * ls + (p0 + depth - 1) * ps < data.len(), "pack: the operand is too short");
        assert!(lanes.div_ceil(width) * width * depth <= dst.len(), "pack: the buffer is too short");
        for (i, panel) in dst.chunks_exact_mut(depth * width).take(lanes.div_ceil(width)).enumerate() {
            let first = i * width;
            let base = &data[(lane0 + first) * ls + p0 * ps..];
            let n = width.min(lanes - first);
            if ls == 1 {
                // Lanes side by side: copy. Vectors may run over the end of a step's lanes, where the next step overwrites
                // what they left; so not at the last step.
                for p in 0..depth - 1 {
                    let mut g = 0;
                    while g < width {
                        let from = &base[p * ps..p * ps + n];
                        let v = if g >= n { s.zero() } else { s.load_partial(&from[g..]) };
                        let to = p * width + g;
                        if to + S::LANES <= panel.len() {
                            s.store(v, &mut panel[to..]);
                        } else {
                            s.store_partial(v, &mut panel[to..]);
                        }
                        g += S::LANES;
                    }
                }
                let p = depth - 1;
                panel[p * width..p * width + n].copy_from_slice(&base[p * ps..p * ps + n]);
            } else if ps == 1 {
                // Depth side by side: transpose four steps at a time.
                let mut p = 0;
                // The last step is left to the loop below, for the reason given above.
                while p + 4 < depth && p * width + 3 * width + width.next_multiple_of(S::LANES) <= panel.len() {
                    let mut g = 0;
                    while g < width {
                        // SAFETY: lanes below n and steps below depth lie in `data` (asserted above); other lanes repeat one
                        // that exists. The stores end within the panel (loop condition).
                        unsafe {
                            let origin = base.as_ptr().add(p);
                            let mut rows = [origin; 16];
                            if g + S::LANES <= n {
                                for (l, row) in rows.iter_mut().enumerate().take(S::LANES) {
                                    *row = origin.add((g + l) * ls);
                                }
                            } else {
                                for (l, row) in rows.iter_mut().enumerate().take(S::LANES) {
                                    *row = origin.add(if g + l < n { (g + l) * ls } else { 0 });
                                }
                            }
                            let columns = s.transpose4(rows);
                            // In order of depth: a vector may reach into the next step's lanes.
                            let to = panel.as_mut_ptr().add(p * width + g);
                            s.store_ptr(columns[0], to);
                            s.store_ptr(columns[1], to.add(width));
                            s.store_ptr(columns[2], to.add(2 * width));
                            s.store_ptr(columns[3], to.add(3 * width));
                        }
                        g += S::LANES;
                    }
                    p += 4;
                }
                for p in p..depth {
                    for l in 0..n {
                        panel[p * width + l] = base[l * ls + p];
                    }
                }
            } else {
                for p in 0..depth {
                    for l in 0..n {
                        panel[p * width + l] = base[l * ls + p * ps];
                    }
                }
            }
        }
    }
}
