//! Products with few rows: bound by the memory bandwidth of the large operand, which is read once, from where it lies.

use imaginal_numeric::Format;

use super::MatRef;
use crate::isa::{Isa, Simd, simd_fn};
use crate::pool::{self, SharedMut};
use crate::simd::f16_to_f32;

/// Depth from which dot products pay; below, a vector is hardly filled.
pub(crate) const MIN_DEPTH: usize = 24;
/// Rows up to which [`axpys`] beats packing.
pub(crate) const FEW_AXPY: usize = 4;

/// Elements that a row format decodes at a time.
pub(crate) const STEP: usize = 32;

/// Formats that are decoded in registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
}

impl Kind {
    /// The kind of a format; `None` if it is not decoded in registers.
    pub(crate) fn of(format: Format) -> Option<Kind> {
        match format {
            Format::F32 => Some(Kind::F32),
            Format::F16 => Some(Kind::F16),
            Format::BF16 => Some(Kind::Bf16),
            Format::Q8_0 => Some(Kind::Q8_0),
            Format::Q4_0 => Some(Kind::Q4_0),
            _ => None,
        }
    }

    /// Bytes of [`STEP`] elements.
    pub(crate) const fn step_bytes(self) -> usize {
        match self {
            Kind::F32 => 128,
            Kind::F16 | Kind::Bf16 => 64,
            Kind::Q8_0 => 34,
            Kind::Q4_0 => 18,
        }
    }
}

/// Rows of weights in one of the [`Kind`]s, `row_bytes` apart.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub kind: Kind,
    pub bytes: &'a [u8],
    pub row_bytes: usize,
}

/// The few rows: `rows` of them, `stride` elements apart, their depth contiguous.
#[derive(Clone, Copy)]
pub(crate) struct Few<'a> {
    pub data: &'a [f32],
    pub stride: usize,
    pub rows: usize,
}

/// Where results go: that of few row i and weight row j to `data[i·row + j·col]`.
pub(crate) struct Out<'a> {
    pub data: SharedMut<'a, f32>,
    pub row: usize,
    pub col: usize,
    pub add: bool,
}

impl Out<'_> {
    /// The results of weight rows from `first` on.
    pub fn from(&self, first: usize) -> Out<'_> {
        Out { data: self.data.part(first * self.col), ..*self }
    }
}

/// Decodes [`STEP`] elements of a row into registers: the first `STEP / LANES` vectors of the result.
trait Decode {
    const KIND: Kind;
    /// # Safety
    /// `src` must be readable for `KIND.step_bytes()` bytes.
    unsafe fn step<S: Simd>(s: S, src: *const u8) -> [S::F; 4];
}

macro_rules! decode {
    ($name:ident, $kind:expr, |$s:ident, $src:ident, $v:ident| $vector:expr) => {
        struct $name;
        impl Decode for $name {
            const KIND: Kind = $kind;
            #[inline(always)]
            unsafe fn step<S: Simd>($s: S, $src: *const u8) -> [S::F; 4] {
                let mut r = [$s.zero(); 4];
                let mut $v = 0;
                while $v < STEP / S::LANES {
                    // SAFETY: vectors below STEP / LANES lie in the step, readable by the caller's promise.
                    r[$v] = unsafe { $vector };
                    $v += 1;
                }
                r
            }
        }
    };
}

decode!(F32Rows, Kind::F32, |s, src, v| s.load_ptr(src.add(v * S::LANES * 4).cast()));
decode!(F16Rows, Kind::F16, |s, src, v| s.load_f16(src.add(v * S::LANES * 2)));
decode!(Bf16Rows, Kind::Bf16, |s, src, v| s.load_bf16(src.add(v * S::LANES * 2)));
decode!(Q8Rows, Kind::Q8_0, |s, src, v| s.mul(s.load_i8(src.add(2 + v * S::LANES)), scale(s, src)));
decode!(Q4Rows, Kind::Q4_0, |s, src, v| {
    // Byte i holds element i in its low half and element i + 16 in its high half.
    let per_half = 16 / S::LANES;
    let both = s.load_u8(src.add(2 + v % per_half * S::LANES));
    let q = if v < per_half { s.and_i(both, s.splat_i(15)) } else { s.shr_u::<4>(both) };
    s.mul(s.to_f(s.sub_i(q, s.splat_i(8))), scale(s, src))
});

/// A block's scale, the f16 at its start.
///
/// # Safety
/// `src` must be readable for 2 bytes.
#[inline(always)]
unsafe fn scale<S: Simd>(s: S, src: *const u8) -> S::F {
    // SAFETY: readable by the caller's promise.
    s.splat(f16_to_f32(u16::from_le_bytes(unsafe { src.cast::<[u8; 2]>().read() })))
}

/// The dot products of `n` weight rows with all few rows at depth `k`, on `threads` threads.
///
/// One product is one accumulator of a vector's width over the depth, then the sum across it: its order depends on the
/// instruction set only.
///
/// # Panics
/// If weights or few rows are too short.
pub(crate) fn dots(isa: Isa, threads: usize, w: Weights<'_>, n: usize, k: usize, few: Few<'_>, out: &Out<'_>) {
    if n == 0 || few.rows == 0 {
        return;
    }
    let row = check(w, n, k, few);
    // Whole groups of rows, and enough bytes that handing out a task does not show.
    let rows = (64 * 1024 / row.max(1)).max(n.div_ceil(8 * threads)).next_multiple_of(8).min(n);
    let task = |t: usize| dot_rows(isa, w, t * rows, rows.min(n - t * rows), k, few, out);
    if threads > 1 { pool::parallel(n.div_ceil(rows), &task) } else { (0..n.div_ceil(rows)).for_each(task) }
}

/// Panics unless weights and few rows lie in their slices. Returns the bytes of a row of weights.
fn check(w: Weights<'_>, n: usize, k: usize, few: Few<'_>) -> usize {
    assert!((few.rows - 1) * few.stride + k <= few.data.len(), "few rows too short");
    let row = (k / STEP) * w.kind.step_bytes() + (k % STEP) * w.kind.step_bytes() / STEP;
    assert!((n - 1) * w.row_bytes + row <= w.bytes.len(), "weights too short");
    row
}

simd_fn! {
    /// [`dots`] of weight rows `first..first + n`. Bounds are the caller's duty.
    fn dot_rows<S>(s: S, w: Weights<'_>, first: usize, n: usize, k: usize, few: Few<'_>, out: &Out<'_>) {
        match w.kind {
            Kind::F32 => dot_kind::<S, F32Rows>(s, w, first, n, k, few, out),
            Kind::F16 => dot_kind::<S, F16Rows>(s, w, first, n, k, few, out),
            Kind::Bf16 => dot_kind::<S, Bf16Rows>(s, w, first, n, k, few, out),
            Kind::Q8_0 => dot_kind::<S, Q8Rows>(s, w, first, n, k, few, out),
            Kind::Q4_0 => dot_kind::<S, Q4Rows>(s, w, first, n, k, few, out),
        }
    }
}

#[inline(always)]
fn dot_kind<S: Simd, D: Decode>(s: S, w: Weights<'_>, first: usize, n: usize, k: usize, few: Few<'_>, out: &Out<'_>) {
    // A rest of the depth that is no whole step is padded with zeros, which decode to 0 in the elementwise formats; the
    // others have only whole steps.
    let mut ends = [[0.0f32; STEP]; MAX_FEW];
    assert!(few.rows <= MAX_FEW);
    let rest = k % STEP;
    for (i, end) in ends.iter_mut().enumerate().take(few.rows) {
        end[..rest].copy_from_slice(&few.data[i * few.stride + k - rest..][..rest]);
    }
    // As many weight rows at a time as accumulators fit: several independent sums hide the latency of the multiply-add.
    // The number is a constant of the instruction set, to keep the variants of this code few. If there are more few rows
    // than one turn takes, some weight rows wait in the cache for the next turn.
    let block = if few.rows <= 4 { n } else { (BLOCK / w.row_bytes.max(1)).max(1).next_multiple_of(4) };
    let end = first + n;
    for first in (first..end).step_by(block) {
        let n = block.min(end - first);
        let mut i = 0;
        while i < few.rows {
            let rows = few.rows - i;
            // SAFETY: bounds are `dots`' duty.
            unsafe {
                i += match (S::LANES, rows) {
                    (16, 4..) => dot_rows_of::<S, D, 4, 4>(s, w, first, n, k, few, i, &ends, out),
                    (16, 2..) => dot_rows_of::<S, D, 4, 2>(s, w, first, n, k, few, i, &ends, out),
                    (16, _) => dot_rows_of::<S, D, 4, 1>(s, w, first, n, k, few, i, &ends, out),
                    (_, 2..) => dot_rows_of::<S, D, 2, 2>(s, w, first, n, k, few, i, &ends, out),
                    _ => dot_rows_of::<S, D, 2, 1>(s, w, first, n, k, few, i, &ends, out),
                };
            }
        }
    }
}

/// Bytes of weight rows that wait for the next turn.
const BLOCK: usize = 128 << 10;

/// Few rows that [`dots`] takes.
const MAX_FEW: usize = super::FEW;

/// All weight rows, `R` at a time, with `M` few rows from i, whose last incomplete steps are in `ends`. Returns `M`.
///
/// # Safety
/// The rows must lie in their slices.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn dot_rows_of<S: Simd, D: Decode, const R: usize, const M: usize>(
    s: S,
    w: Weights<'_>,
    first: usize,
    n: usize,
    k: usize,
    few: Few<'_>,
    i: usize,
    ends: &[[f32; STEP]; MAX_FEW],
    out: &Out<'_>,
) -> usize {
    let bytes = D::KIND.step_bytes();
    let (whole, rest) = (k / STEP, k % STEP);
    let mut j = first;
    while j < first + n {
        // Where fewer rows are left, the last one is computed again.
        let valid = R.min(first + n - j);
        let mut acc = [[s.zero(); M]; R];
        let mut tails = [[0u8; 128]; R];
        // SAFETY: rows lie in their slices by the caller's promise.
        unsafe {
            let mut rows = [w.bytes.as_ptr(); R];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = row.add((j + r.min(valid - 1)) * w.row_bytes);
            }
            let mut x = few.data.as_ptr().add(i * few.stride);
            let mut stride = few.stride;
            for step in 0..whole + usize::from(rest > 0) {
                if step == whole {
                    for (row, tail) in rows.iter_mut().zip(&mut tails) {
                        tail.as_mut_ptr().copy_from_nonoverlapping(*row, rest * bytes / STEP);
                        *row = tail.as_ptr();
                    }
                    (x, stride) = (ends[i].as_ptr(), STEP);
                }
                for (row, acc) in rows.iter_mut().zip(&mut acc) {
                    add_step(s, D::step(s, *row), x, stride, acc);
                    *row = row.wrapping_add(bytes);
                }
                x = x.wrapping_add(STEP);
            }
        }
        for (r, acc) in acc.iter().enumerate().take(valid) {
            for (m, acc) in acc.iter().enumerate() {
                // SAFETY: different tasks have different weight rows, hence different results.
                let to = unsafe { &mut out.data.slice((i + m) * out.row + (j + r) * out.col, 1)[0] };
                *to = if out.add { *to + s.sum(*acc) } else { s.sum(*acc) };
            }
        }
        j += R;
    }
    M
}

/// Adds the products of one step of a weight row with `M` few rows, `stride` apart.
///
/// # Safety
/// `x` must be readable for a step of each row.
#[inline(always)]
unsafe fn add_step<S: Simd, const M: usize>(s: S, w: [S::F; 4], x: *const f32, stride: usize, acc: &mut [S::F; M]) {
    let mut v = 0;
    while v < STEP / S::LANES {
        for (m, acc) in acc.iter_mut().enumerate() {
            // SAFETY: readable by the caller's promise.
            *acc = s.mul_add(w[v], unsafe { s.load_ptr(x.add(m * stride + v * S::LANES)) }, *acc);
        }
        v += 1;
    }
}

simd_fn! {
    /// Decodes `k` elements from the start of `src` into `dst`.
    ///
    /// # Panics
    /// If `dst` or `src` is too short.
    pub(crate) fn decode_row<S>(s: S, kind: Kind, src: &[u8], k: usize, dst: &mut [f32]) {
        match kind {
            Kind::F32 => decode_kind::<S, F32Rows>(s, src, k, dst),
            Kind::F16 => decode_kind::<S, F16Rows>(s, src, k, dst),
            Kind::Bf16 => decode_kind::<S, Bf16Rows>(s, src, k, dst),
            Kind::Q8_0 => decode_kind::<S, Q8Rows>(s, src, k, dst),
            Kind::Q4_0 => decode_kind::<S, Q4Rows>(s, src, k, dst),
        }
    }
}

#[inline(always)]
fn decode_kind<S: Simd, D: Decode>(s: S, src: &[u8], k: usize, dst: &mut [f32]) {
    let bytes = D::KIND.step_bytes();
    let (steps, rest) = (k / STEP, k % STEP);
    let src = &src[..steps * bytes + rest * bytes / STEP];
    let dst = &mut dst[..k];
    for (from, to) in src.chunks_exact(bytes).zip(dst.chunks_exact_mut(STEP)) {
        // SAFETY: a whole step.
        let r = unsafe { D::step(s, from.as_ptr()) };
        let mut v = 0;
        while v < STEP / S::LANES {
            s.store(r[v], &mut to[v * S::LANES..]);
            v += 1;
        }
    }
    if rest > 0 {
        let mut padded = [0u8; 128];
        padded[..src.len() - steps * bytes].copy_from_slice(&src[steps * bytes..]);
        // SAFETY: no step is longer than 128 bytes.
        let r = unsafe { D::step(s, padded.as_ptr()) };
        for (v, to) in dst[steps * STEP..].chunks_mut(S::LANES).enumerate() {
            s.store_partial(r[v], to);
        }
    }
}

/// c (+)= a·b for at most [`FEW_AXPY`] rows and a row-major b, on `threads` threads: b's rows stream by, c stays.
#[allow(clippy::too_many_arguments)]
pub(super) fn axpys(
    isa: Isa,
    threads: usize,
    m: usize,
    n: usize,
    k: usize,
    a: MatRef<'_>,
    b: MatRef<'_>,
    c: &mut [f32],
    c_rs: usize,
    add: bool,
) {
    // Columns per task: rows of a few KB are long enough for the hardware to prefetch, and c's part stays in L1.
    let cols = n.div_ceil(4 * threads).next_multiple_of(64).clamp(256, 2048);
    let out = Out { data: SharedMut::new(c), row: c_rs, col: 1, add };
    let task = |t: usize| axpy_columns(isa, m, t * cols, cols.min(n - t * cols), k, a, b, &out);
    if threads > 1 { pool::parallel(n.div_ceil(cols), &task) } else { (0..n.div_ceil(cols)).for_each(task) }
}

simd_fn! {
    /// [`axpys`] for columns `first..first + n`.
    fn axpy_columns<S>(s: S, m: usize, first: usize, n: usize, k: usize, a: MatRef<'_>, b: MatRef<'_>, out: &Out<'_>) {
        for i in 0..m {
            // SAFETY: rows of c do not overlap, nor do the columns of different tasks.
            let c = unsafe { out.data.slice(i * out.row + first, n) };
            if !out.add {
                c.fill(0.0);
            }
            let mut p = 0;
            while p < k {
                // Eight rows of b at a time save most of the traffic on c.
                let count = (k - p).min(8);
                let mut factors = [s.zero(); 8];
                let mut rows = [&b.data[..0]; 8];
                for q in 0..count {
                    factors[q] = s.splat(a.data[i * a.rs + (p + q) * a.cs]);
                    rows[q] = &b.data[(p + q) * b.rs + first..][..n];
                }
                let mut j = 0;
                while j + S::LANES <= n && count == 8 {
                    let mut acc = s.load(&c[j..]);
                    for q in 0..8 {
                        // SAFETY: a row has n elements.
                        acc = s.mul_add(factors[q], unsafe { s.load_ptr(rows[q].as_ptr().add(j)) }, acc);
                    }
                    s.store(acc, &mut c[j..]);
                    j += S::LANES;
                }
                while j < n {
                    let mut acc = s.load_partial(&c[j..]);
                    for q in 0..count {
                        acc = s.mul_add(factors[q], s.load_partial(&rows[q][j..]), acc);
                    }
                    s.store_partial(acc, &mut c[j..]);
                    j += S::LANES;
                }
                p += count;
            }
        }
    }
}
