//! The product in f64: for references and statistics, so plain blocking and the compiler's vectors.

use super::extent;
use crate::isa::{Isa, isa, simd_fn};
use crate::pool::{self, SharedMut};

/// A matrix operand in f64: element (i, j) is `data[i·rs + j·cs]`.
#[derive(Clone, Copy, Debug)]
pub struct MatRef64<'a> {
    /// The elements; may be longer than needed.
    pub data: &'a [f64],
    /// From one row to the next, in elements.
    pub rs: usize,
    /// From one column to the next, in elements.
    pub cs: usize,
}

/// Rows and columns of a register tile, and the depth of one pass.
const MR: usize = 4;
const NR: usize = 16;
const KC: usize = 256;

/// c = a·b, or c += a·b if `accumulate`, in f64; otherwise as [`gemm`](super::gemm).
///
/// # Panics
/// As [`gemm`](super::gemm).
#[allow(clippy::too_many_arguments)]
pub fn gemm_f64(
    m: usize,
    n: usize,
    k: usize,
    a: MatRef64<'_>,
    b: MatRef64<'_>,
    c: &mut [f64],
    c_rs: usize,
    accumulate: bool,
) {
    gemm_f64_with(isa(), m, n, k, a, b, c, c_rs, accumulate);
}

#[allow(clippy::too_many_arguments)]
pub(super) fn gemm_f64_with(
    isa: Isa,
    m: usize,
    n: usize,
    k: usize,
    a: MatRef64<'_>,
    b: MatRef64<'_>,
    c: &mut [f64],
    c_rs: usize,
    accumulate: bool,
) {
    let inside = |rows, rs, cols, cs, len| extent(rows, rs, cols, cs).is_some_and(|l| l <= len);
    assert!(inside(m, a.rs, k, a.cs, a.data.len()), "gemm_f64: operand a of {m}×{k} does not lie within its slice");
    assert!(inside(k, b.rs, n, b.cs, b.data.len()), "gemm_f64: operand b of {k}×{n} does not lie within its slice");
    assert!(m <= 1 || c_rs >= n, "gemm_f64: rows of c overlap: row stride {c_rs} for {n} columns");
    assert!(inside(m, c_rs, n, 1, c.len()), "gemm_f64: c of {m}×{n} does not lie within its slice");
    if m == 0 || n == 0 {
        return;
    }
    if !accumulate {
        (0..m).for_each(|i| c[i * c_rs..i * c_rs + n].fill(0.0));
    }
    // b in panels of NR columns, zero-padded: element (p, j) of panel q at (q·k + p)·NR + j.
    let mut packed = vec![0.0; n.div_ceil(NR) * NR * k];
    for (q, panel) in packed.chunks_exact_mut((k * NR).max(1)).enumerate() {
        for (p, row) in panel.chunks_exact_mut(NR).enumerate() {
            for (j, x) in row.iter_mut().enumerate().take(n - q * NR) {
                *x = b.data[p * b.rs + (q * NR + j) * b.cs];
            }
        }
    }
    let shared = SharedMut::new(c);
    let task = |t: usize| {
        let rows = MR.min(m - t * MR);
        // SAFETY: each task has its own rows of c, which do not overlap (asserted above).
        let c = unsafe { shared.slice(t * MR * c_rs, (rows - 1) * c_rs + n) };
        let mut panel = vec![0.0; KC.min(k) * MR];
        for p0 in (0..k).step_by(KC) {
            let depth = KC.min(k - p0);
            for p in 0..depth {
                for i in 0..rows {
                    panel[p * MR + i] = a.data[(t * MR + i) * a.rs + (p0 + p) * a.cs];
                }
            }
            for j in (0..n).step_by(NR) {
                let b = &packed[j * k + p0 * NR..][..depth * NR];
                tile(isa, &panel[..depth * MR], b, rows, NR.min(n - j), &mut c[j..], c_rs);
            }
        }
    };
    let tasks = m.div_ceil(MR);
    if m.saturating_mul(n).saturating_mul(k) < super::SERIAL {
        (0..tasks).for_each(task);
    } else {
        pool::parallel(tasks, &task);
    }
}

simd_fn! {
    /// Adds the product of a panel of `MR` rows and one of `NR` columns to c.
    fn tile<S>(_s: S, a: &[f64], b: &[f64], rows: usize, cols: usize, c: &mut [f64], c_rs: usize) {
        let mut acc = [[0.0f64; NR]; MR];
        for (a, b) in a.chunks_exact(MR).zip(b.chunks_exact(NR)) {
            for (a, acc) in a.iter().zip(&mut acc) {
                for (b, acc) in b.iter().zip(acc) {
                    *acc = if S::ISA == Isa::Scalar { a * b + *acc } else { a.mul_add(*b, *acc) };
                }
            }
        }
        for (i, acc) in acc.iter().enumerate().take(rows) {
            for (c, x) in c[i * c_rs..].iter_mut().zip(acc).take(cols) {
                *c += x;
            }
        }
    }
}
