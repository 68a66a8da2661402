//! Matrix products in f32 and f64.
//!
//! [`gemm`] takes operands of any strides. What it does depends on the shape only, never on the data:
//! * one few-row (or few-column) operand against one whose depth is contiguous: dot products that stream the large operand
//!   once, straight from where it lies;
//! * few rows against a row-major operand: the rows of the large operand are streamed and added up;
//! * everything else: both operands are packed into panels and go through a register-tiled micro-kernel, blocked for the
//!   caches.
//!
//! **Determinism.** An element's sum runs over the depth in an order that depends on the instruction set, the path and the
//! depth. So a row's result does not depend on how many rows stand beside it as long as the path is the same, nor on
//! the number of threads, nor on which of them does what.
//!
//! **Error.** Each element is within `(k + 2)·ε·Σ|a||b|` of the exact value, ε = 2⁻²⁴ in f32 (Higham, *Accuracy and
//! Stability of Numerical Algorithms*, §3.1); usually far closer.

pub(crate) mod dots;
mod double;
pub(crate) mod few;
mod micro;
mod pack;
mod plan;
#[cfg(test)]
mod tests;

use std::cell::Cell;

use crate::isa::{Isa, isa};
use crate::pool;

pub use double::{MatRef64, gemm_f64};
pub(crate) use plan::{Right, run};

/// A matrix operand: element (i, j) is `data[i·rs + j·cs]`. Any strides; 0 repeats a row or a column.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a> {
    /// The elements; may be longer than needed.
    pub data: &'a [f32],
    /// From one row to the next, in elements.
    pub rs: usize,
    /// From one column to the next, in elements.
    pub cs: usize,
}

impl<'a> MatRef<'a> {
    /// A row-major matrix with rows of `cols` elements.
    pub fn row_major(data: &'a [f32], cols: usize) -> Self {
        Self { data, rs: cols, cs: 1 }
    }

    /// The same matrix with rows and columns exchanged.
    pub fn t(self) -> Self {
        Self { data: self.data, rs: self.cs, cs: self.rs }
    }

    fn check(&self, what: &str, rows: usize, cols: usize) {
        let last = extent(rows, self.rs, cols, self.cs);
        assert!(
            last.is_some_and(|l| l <= self.data.len()),
            "gemm: operand {what} of {rows}×{cols} with strides {}, {} does not lie within {} elements",
            self.rs,
            self.cs,
            self.data.len()
        );
    }
}

/// Elements that a matrix spans from its first to its last; `None` if that overflows.
fn extent(rows: usize, rs: usize, cols: usize, cs: usize) -> Option<usize> {
    if rows == 0 || cols == 0 {
        return Some(0);
    }
    (rows - 1).checked_mul(rs)?.checked_add((cols - 1).checked_mul(cs)?)?.checked_add(1)
}

/// Rows (or columns) up to which an operand counts as few.
pub(crate) const FEW: usize = 8;
/// Multiply-adds below which the pool is not worth waking.
const SERIAL: usize = 1 << 18;
/// The same for few rows in elements of the other operand, which come from memory.
const SERIAL_FEW: usize = 1 << 15;

/// c = a·b, or c += a·b if `accumulate`; a is m×k, b is k×n, c is m×n with rows `c_rs` apart and columns side by side.
///
/// Parallel over [`pool`]. Elements of `c` between the rows (if `c_rs > n`) are not touched.
///
/// # Panics
/// If an operand does not lie within its slice, or rows of c overlap (`c_rs < n` with m > 1).
#[allow(clippy::too_many_arguments)]
pub fn gemm(m: usize, n: usize, k: usize, a: MatRef<'_>, b: MatRef<'_>, c: &mut [f32], c_rs: usize, accumulate: bool) {
    gemm_in(operands(), m, n, k, a, b, c, c_rs, accumulate);
}

#[allow(clippy::too_many_arguments)]
fn gemm_in(
    operands: Operands,
    m: usize,
    n: usize,
    k: usize,
    a: MatRef<'_>,
    b: MatRef<'_>,
    c: &mut [f32],
    c_rs: usize,
    accumulate: bool,
) {
    #[cfg(target_arch = "x86_64")]
    if operands == Operands::Bf16
        && isa() == Isa::Amx
        && m.min(n) > FEW
        && m.saturating_mul(n).saturating_mul(k) > SERIAL
    {
        a.check("a", m, k);
        b.check("b", k, n);
        check_out(m, n, c.len(), c_rs);
        return crate::amx::gemm(pool::threads_here(), m, n, k, a, b, c, c_rs, accumulate);
    }
    let _ = operands;
    gemm_with(isa(), m, n, k, a, b, c, c_rs, accumulate);
}

/// What operands of [`gemm`] may be rounded to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Operands {
    /// Nothing: f32 throughout.
    #[default]
    F32,
    /// bf16, with sums in f32, where the CPU multiplies that faster (AMX) and the product is of some size; f32 elsewhere.
    Bf16,
}

thread_local! {
    static OPERANDS: Cell<Operands> = const { Cell::new(Operands::F32) };
}

/// Runs `f`, in which products that this thread asks for may round their operands so.
pub fn with_operands<R>(operands: Operands, f: impl FnOnce() -> R) -> R {
    /// Puts the old value back, after a panic too.
    struct Restore(Operands);
    impl Drop for Restore {
        fn drop(&mut self) {
            OPERANDS.set(self.0);
        }
    }
    let _restore = Restore(OPERANDS.replace(operands));
    f()
}

/// What operands of [`gemm`] may be rounded to on this thread.
pub fn operands() -> Operands {
    OPERANDS.get()
}

/// [`gemm`] with a given instruction set (the best below it that the CPU has).
#[allow(clippy::too_many_arguments)]
pub fn gemm_with(
    isa: Isa,
    m: usize,
    n: usize,
    k: usize,
    a: MatRef<'_>,
    b: MatRef<'_>,
    c: &mut [f32],
    c_rs: usize,
    accumulate: bool,
) {
    a.check("a", m, k);
    b.check("b", k, n);
    check_out(m, n, c.len(), c_rs);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            (0..m).for_each(|i| c[i * c_rs..i * c_rs + n].fill(0.0));
        }
        return;
    }
    let threads = if m.saturating_mul(n).saturating_mul(k) < SERIAL { 1 } else { pool::threads_here() };
    let few_rows = m <= dots::MOST && a.cs == 1 && b.rs == 1 && b.cs > 0;
    let few_cols = n <= dots::MOST && b.rs == 1 && a.cs == 1 && a.rs > 0;
    if k >= few::MIN_DEPTH && (few_rows || few_cols) {
        // The same dot products either way; only c is walked differently.
        let (rows, x, w, out_row, out_col) = if few_rows {
            ((m, n), (a.data, a.rs), (b.data, b.cs), c_rs, 1)
        } else {
            ((n, m), (b.data, b.cs), (a.data, a.rs), 1, c_rs)
        };
        let out = few::Out { data: pool::SharedMut::new(c), row: out_row, col: out_col, add: accumulate };
        let threads = if rows.1 * k < SERIAL_FEW { threads } else { pool::threads_here() };
        dots::run(isa, threads, w.0, w.1, rows.1, k, few::Few { data: x.0, stride: x.1, rows: rows.0 }, &out);
    } else if m <= few::FEW_AXPY && b.cs == 1 && b.rs > 0 {
        few::axpys(isa, threads, m, n, k, a, b, c, c_rs, accumulate);
    } else {
        run(isa, threads, m, n, k, a, Right::Floats(b), c, c_rs, accumulate);
    }
}

fn check_out(m: usize, n: usize, len: usize, c_rs: usize) {
    assert!(m <= 1 || c_rs >= n, "gemm: rows of c overlap: row stride {c_rs} for {n} columns");
    let need = extent(m, c_rs, n, 1);
    assert!(
        need.is_some_and(|l| l <= len),
        "gemm: c of {m}×{n} with row stride {c_rs} does not lie within {len} elements"
    );
}

/// `batch` products: number i is [`gemm`] on `a.data[i·a_bs..]`, `b.data[i·b_bs..]` and `c[i·c_bs..]`. A batch stride of 0
/// uses an operand for all.
///
/// Many small products run side by side, each on one thread; a shared b under stacked rows becomes one large product.
///
/// # Panics
/// As [`gemm`], or if outputs overlap (`c_bs` smaller than one output's extent with `batch` > 1).
#[allow(clippy::too_many_arguments)]
pub fn gemm_batch(
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    a: MatRef<'_>,
    a_bs: usize,
    b: MatRef<'_>,
    b_bs: usize,
    c: &mut [f32],
    c_bs: usize,
    c_rs: usize,
    accumulate: bool,
) {
    if batch == 0 || m == 0 || n == 0 {
        return;
    }
    let one = extent(m, c_rs, n, 1).unwrap_or(usize::MAX);
    assert!(batch == 1 || c_bs >= one, "gemm_batch: outputs overlap: batch stride {c_bs} for {one} elements");
    for (name, len, bs) in [("a", a.data.len(), a_bs), ("b", b.data.len(), b_bs), ("c", c.len(), c_bs)] {
        let start = (batch - 1).checked_mul(bs);
        assert!(
            start.is_some_and(|s| s <= len),
            "gemm_batch: {batch} operands {name}, {bs} apart, exceed {len} elements"
        );
    }
    if batch > 1 && b_bs == 0 && a_bs == m * a.rs && c_bs == m * c_rs {
        return gemm(batch * m, n, k, a, b, c, c_rs, accumulate);
    }
    // Asked once: tasks run on other threads.
    let operands = operands();
    let product = |i: usize, c: &mut [f32]| {
        let a = MatRef { data: &a.data[i * a_bs..], ..a };
        let b = MatRef { data: &b.data[i * b_bs..], ..b };
        gemm_in(operands, m, n, k, a, b, c, c_rs, accumulate);
    };
    let work = m.saturating_mul(n).saturating_mul(k);
    let shared = pool::SharedMut::new(c);
    // SAFETY (of the slices below): outputs are `c_bs` apart and at most that long (asserted above).
    if work.saturating_mul(batch) < SERIAL || (batch < 2 * pool::threads() && work >= 8 * SERIAL) {
        // SAFETY: see above; one at a time besides.
        (0..batch).for_each(|i| product(i, unsafe { shared.slice(i * c_bs, one) }));
    } else {
        // Small products share a task, so that a task is worth its while.
        let group = (SERIAL / work.max(1)).clamp(1, batch.div_ceil(2 * pool::threads()).max(1));
        pool::parallel(batch.div_ceil(group), &|t| {
            for i in t * group..batch.min((t + 1) * group) {
                // SAFETY: see above.
                product(i, unsafe { shared.slice(i * c_bs, one) });
            }
        });
    }
}
