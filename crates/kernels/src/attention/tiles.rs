//! The path over blocks with AMX: both products in bf16 with sums in f32, the softmax in f32.
//!
//! A task takes all query heads of one key-value head for some positions, in columns of [`COLUMNS`] queries of one head.
//! A block of keys and values is rounded to bf16 once for all of them. Keys are the left operand of the scores and rows
//! of transposed values that of the output, so that queries lie in the lanes in between, as on the path without tiles.

use std::arch::x86_64::*;

use super::rows::Rows;
use super::{COUNTING, Inputs, Mask, SharedHeads, soft_cap, visible};
use crate::amx::{DEPTH, PANEL_STRIDE, STEP, Tiles, copy_transposed, multiply, pack_tokens, to_bf16};
use crate::gemm::few::Kind;
use crate::isa::{Avx512Token, Isa, Simd};
use crate::pool::{self, SharedMut};
use crate::scratch::{Slot, with_buffer};
use crate::simd_x86::transpose16;
use crate::vecmath::math;

/// Queries of a column: two tiles.
const COLUMNS: usize = 32;
/// Keys of a block.
const KEYS: usize = 64;
/// Queries that a task takes, of all its heads together, where there are as many.
const QUERIES: usize = 256;
/// Floats from row to row of a panel.
const PANEL: usize = PANEL_STRIDE / 4;

/// Whether attention over these keys and values runs here.
pub(super) fn supported(isa: Isa, x: &Inputs) -> bool {
    isa.usable() == Isa::Amx && x.k.kind() != Kind::F32 && x.v.kind() != Kind::F32 && x.shape.d <= DEPTH
}

/// What the columns of a task share: positions `q0..q0 + positions` of the heads of a key-value head.
#[derive(Clone, Copy)]
struct Task {
    b: usize,
    kv: usize,
    q0: usize,
    positions: usize,
}

/// Floats of the parts of a task's scratch.
struct Sizes {
    /// Columns, at most.
    columns: usize,
    /// A column of packed queries.
    q: usize,
    /// The output of a column.
    out: usize,
}

impl Sizes {
    fn new(x: &Inputs, positions: usize) -> Self {
        let s = &x.shape;
        let columns = s.hq / s.hkv * positions.div_ceil(COLUMNS);
        let (d, dv) = (s.d.next_multiple_of(STEP), s.dv.next_multiple_of(32));
        Sizes { columns, q: COLUMNS * d / 2, out: COLUMNS * dv }
    }

    fn panels(&self) -> usize {
        (KEYS + self.out / COLUMNS) * PANEL
    }

    fn all(&self, x: &Inputs) -> usize {
        let column = self.q + self.out + 2 * COLUMNS;
        // Scores, packed probabilities, and f32 rows of keys, values and queries before they are rounded.
        self.columns * column + self.panels() + KEYS * COLUMNS * 3 / 2 + KEYS * x.shape.d.max(x.shape.dv)
    }
}

pub(super) fn attention(x: &Inputs, out: &SharedHeads, lse: &SharedMut<f32>) {
    let s = x.shape;
    let positions = (QUERIES / (s.hq / s.hkv)).next_multiple_of(COLUMNS).clamp(COLUMNS, s.tq.next_multiple_of(COLUMNS));
    let blocks = s.tq.div_ceil(positions);
    let sizes = Sizes::new(x, positions);
    // The last blocks of a causal attention are the longest: they go first.
    pool::parallel(s.b * s.hkv * blocks, &|i| {
        let q0 = (blocks - 1 - i / (s.b * s.hkv)) * positions;
        let head = i % (s.b * s.hkv);
        let task = Task { b: head / s.hkv, kv: head % s.hkv, q0, positions: positions.min(s.tq - q0) };
        with_buffer(Slot::Fused, sizes.all(x), |buf| {
            // SAFETY: the caller has asked `supported`.
            unsafe { queries(x, task, &sizes, buf, out, lse) }
        });
    });
}

/// # Safety
/// AMX is granted, which AVX-512 with BF16 comes with. No other task has these queries.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn queries(x: &Inputs, task: Task, sizes: &Sizes, buf: &mut [f32], out: &SharedHeads, lse: &SharedMut<f32>) {
    // SAFETY: this function runs only where the instructions are.
    let s = unsafe { Avx512Token::new() };
    let Task { b, kv, q0, positions } = task;
    let shape = x.shape;
    let (d, dv, group) = (shape.d, shape.dv, shape.hq / shape.hkv);
    let per_head = positions.div_ceil(COLUMNS);
    let columns = group * per_head;
    let (q, buf) = buf.split_at_mut(sizes.columns * sizes.q);
    let (acc, buf) = buf.split_at_mut(sizes.columns * sizes.out);
    let (max, buf) = buf.split_at_mut(sizes.columns * COLUMNS);
    let (sum, buf) = buf.split_at_mut(sizes.columns * COLUMNS);
    let (k_panel, buf) = buf.split_at_mut(KEYS * PANEL);
    let (v_panel, buf) = buf.split_at_mut(sizes.out / COLUMNS * PANEL);
    let (scores, buf) = buf.split_at_mut(KEYS * COLUMNS);
    let (probs, rows) = buf.split_at_mut(KEYS * COLUMNS / 2);
    // What rounding leaves out of the panels is 0: the ends of rows, and rows that do not exist.
    k_panel.fill(0.0);
    v_panel.fill(0.0);
    acc.fill(0.0);

    // A column's head, and its first position and the number of them, from `q0`.
    let column = |c: usize| {
        let first = c % per_head * COLUMNS;
        (kv * group + c / per_head, first, COLUMNS.min(positions - first))
    };
    for c in 0..columns {
        let (h, first, count) = column(c);
        for t in 0..2 {
            let count = count.saturating_sub(16 * t).min(16);
            for (i, row) in rows.chunks_exact_mut(d).enumerate().take(count) {
                let from = &x.q.from(b, q0 + first + 16 * t + i, h)[..d];
                row.iter_mut().zip(from).for_each(|(r, v)| *r = x.opts.scale * v);
            }
            // SAFETY: the rows are there; a column has room for two tiles of each step.
            unsafe { pack_tokens(&rows[..count * d], d, count, t, COLUMNS, q[c * sizes.q..].as_mut_ptr()) };
        }
        // A sink is a key that comes first and has the value 0.
        let sink = x.sink(h);
        max[c * COLUMNS..][..COLUMNS].fill(sink);
        sum[c * COLUMNS..][..COLUMNS].fill(if sink == f32::NEG_INFINITY { 0.0 } else { 1.0 });
    }

    let see = |from: usize, to: usize| {
        let p = x.opts.q_start + q0;
        (visible(&x.opts, p + from, shape.tk).0, visible(&x.opts, p + to - 1, shape.tk).1)
    };
    let (lo, hi) = see(0, positions);
    // SAFETY: AMX is granted.
    let tiles = unsafe { Tiles::new() };
    // Blocks begin at multiples of their length, so that the order of a query's sums is its own.
    for j0 in (lo / KEYS * KEYS..hi).step_by(KEYS) {
        let keys = KEYS.min(hi - j0);
        // SAFETY: the panels have KEYS rows, and as many as values have elements.
        unsafe {
            round_keys(&x.k, [b, j0, kv], keys, d, rows, k_panel);
            round_values(&x.v, [b, j0, kv], keys, dv, rows, v_panel);
        }
        for c in 0..columns {
            let (_, first, count) = column(c);
            let (lo, hi) = see(first, first + count);
            if j0 >= hi || j0 + keys <= lo {
                continue;
            }
            let acc = &mut acc[c * sizes.out..][..sizes.out];
            // SAFETY: tiles are configured; panels, queries and scores have the sizes that are named.
            unsafe {
                for i in (0..KEYS).step_by(32) {
                    let (panel, to) = (k_panel[i * PANEL..].as_ptr(), scores[i * COLUMNS..].as_mut_ptr());
                    let q = q[c * sizes.q..].as_ptr();
                    multiply(d.div_ceil(STEP), panel.cast(), q.cast(), COLUMNS, to, COLUMNS, false);
                }
            }
            for half in 0..2 {
                let at = c * COLUMNS + 16 * half;
                if 16 * half >= count {
                    break;
                }
                let p0 = x.opts.q_start + q0 + first + 16 * half;
                let mask = Mask::new(&x.opts, p0, p0 + (count - 16 * half).min(16) - 1, j0, keys);
                let lanes = Lanes { max: &mut max[at..at + 16], sum: &mut sum[at..at + 16] };
                // SAFETY: the instructions are there.
                unsafe { softmax(s, x, keys, mask, half, scores, probs, lanes, acc) };
            }
            // SAFETY: as above; there are KEYS probabilities of each query.
            unsafe {
                for i in (0..sizes.out / COLUMNS).step_by(32) {
                    let (panel, to) = (v_panel[i * PANEL..].as_ptr(), acc[i * COLUMNS..].as_mut_ptr());
                    multiply(KEYS / STEP, panel.cast(), probs.as_ptr().cast(), COLUMNS, to, COLUMNS, true);
                }
            }
        }
    }
    drop(tiles);

    for c in 0..columns {
        let (h, first, count) = column(c);
        let (max, sum) = (&max[c * COLUMNS..][..COLUMNS], &sum[c * COLUMNS..][..COLUMNS]);
        let acc = &mut acc[c * sizes.out..][..sizes.out];
        for row in acc.chunks_exact_mut(COLUMNS) {
            for (x, sum) in row.iter_mut().zip(sum) {
                *x = if *sum > 0.0 { *x / sum } else { 0.0 };
            }
        }
        let t0 = q0 + first;
        // SAFETY: no other task has these queries.
        let lse = unsafe { lse.slice((b * shape.hq + h) * shape.tq + t0, count) };
        for (lse, (max, sum)) in lse.iter_mut().zip(max.iter().zip(sum)) {
            *lse = if *sum > 0.0 { max + sum.ln() } else { f32::NEG_INFINITY };
        }
        for t in (0..count).step_by(16) {
            for e in (0..dv).step_by(16) {
                let to = &mut [0.0; 256];
                let (tokens, elements) = ((count - t).min(16), (dv - e).min(16));
                // SAFETY: 16 rows of 16 are in `acc`, whose rows are padded; the rows of `out` are this task's.
                unsafe {
                    copy_transposed(
                        acc[e * COLUMNS + t..].as_ptr(),
                        COLUMNS,
                        to.as_mut_ptr(),
                        16,
                        tokens,
                        elements,
                        false,
                    );
                    for i in 0..tokens {
                        let row = out.row(b, t0 + t + i, h, dv);
                        row[e..e + elements].copy_from_slice(&to[16 * i..16 * i + elements]);
                    }
                }
            }
        }
    }
}

/// The running maxima and sums of 16 queries.
struct Lanes<'a> {
    max: &'a mut [f32],
    sum: &'a mut [f32],
}

/// Turns the scores of 16 queries, half of a column, with a block of keys into unnormalised probabilities, packed in
/// pairs of keys, and scales what was summed before to the new maxima.
///
/// # Safety
/// The CPU has AVX-512 with BF16.
#[allow(clippy::too_many_arguments)]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn softmax(
    s: Avx512Token,
    x: &Inputs,
    keys: usize,
    mask: Option<Mask>,
    half: usize,
    scores: &mut [f32],
    probs: &mut [f32],
    lanes: Lanes,
    acc: &mut [f32],
) {
    let query = s.load(&COUNTING);
    let column = 16 * half;
    let hidden = s.splat(f32::NEG_INFINITY);
    let before = s.load(lanes.max);
    let mut most = [before, hidden, hidden, hidden];
    let scores = &mut scores[..KEYS * COLUMNS];
    if x.opts.softcap.is_some() || mask.is_some() || keys < KEYS {
        for j in 0..KEYS {
            let score = &mut scores[j * COLUMNS + column..][..16];
            let mut v = s.load(score);
            if let Some(cap) = x.opts.softcap {
                v = soft_cap(s, v, cap);
            }
            if let Some(mask) = &mask {
                v = mask.apply(s, v, j, query);
            }
            s.store(if j < keys { v } else { hidden }, score);
        }
    }
    for rows in scores.chunks_exact(4 * COLUMNS) {
        for (i, most) in most.iter_mut().enumerate() {
            *most = s.max(s.load(&rows[i * COLUMNS + column..]), *most);
        }
    }
    let max = s.max(s.max(most[0], most[1]), s.max(most[2], most[3]));
    s.store(max, lanes.max);
    // A query that has seen no key yet keeps −∞; 0 stands in for it below, where e^−∞ = 0 is wanted.
    let max = s.select(s.eq(max, hidden), s.zero(), max);
    let factor = math::exp_fast(s, s.sub(before, max));
    let mut total = [s.mul(s.load(lanes.sum), factor), s.zero()];
    // Of 32 numbers, 16 of an even key and 16 of the odd one after it: pairs.
    let pairs = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1,
        16, 0,
    );
    for (pair, rows) in scores.chunks_exact(2 * COLUMNS).enumerate() {
        let even = math::exp_fast(s, s.sub(s.load(&rows[column..]), max));
        let odd = math::exp_fast(s, s.sub(s.load(&rows[COLUMNS + column..]), max));
        total = [s.add(total[0], even), s.add(total[1], odd)];
        let packed = _mm512_permutexvar_epi16(pairs, to_bf16(even, odd));
        // Steps of 16 pairs, of which the tile of the first 16 queries comes first.
        let to = &mut probs[pair / 16 * 512 + half * 256 + pair % 16 * 16..][..16];
        // SAFETY: 64 bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), packed) };
    }
    s.store(s.add(total[0], total[1]), lanes.sum);
    if _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(factor, s.splat(1.0)) != 0 {
        for row in acc.chunks_exact_mut(COLUMNS) {
            let row = &mut row[column..];
            s.store(s.mul(s.load(row), factor), row);
        }
    }
}

/// Elements `e..e + 16` of a row, 0 beyond its end.
#[inline(always)]
fn part(s: Avx512Token, row: &[f32], e: usize) -> __m512 {
    s.load_partial(row.get(e..).map_or(&[], |r| &r[..r.len().min(16)]))
}

/// Rounds a block of keys into the rows of a panel; rows beyond the last become 0.
///
/// # Safety
/// The CPU has AVX-512 with BF16; the panel has [`KEYS`] rows of at least `d` elements.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn round_keys(k: &Rows, at: [usize; 3], keys: usize, d: usize, rows: &mut [f32], panel: &mut [f32]) {
    // SAFETY: this function runs only where the instructions are.
    let s = unsafe { Avx512Token::new() };
    let (rows, stride) = k.floats(Isa::Avx512, at, keys, d, rows);
    for (j, to) in panel.chunks_exact_mut(PANEL).enumerate() {
        let row = if j < keys { &rows[j * stride..j * stride + d] } else { &[] };
        for (e, to) in (0..d).step_by(STEP).zip(to.chunks_exact_mut(STEP / 2)) {
            // SAFETY: 64 bytes.
            unsafe {
                _mm512_storeu_si512(to.as_mut_ptr().cast(), to_bf16(part(s, row, e), part(s, row, e + 16)));
            }
        }
    }
}

/// Rounds a block of values and transposes it: row e of the panel has element e of [`KEYS`] values, 0 beyond the last.
///
/// # Safety
/// The CPU has AVX-512 with BF16; the panel has as many rows as values have elements, in whole sixteens.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn round_values(v: &Rows, at: [usize; 3], keys: usize, dv: usize, rows: &mut [f32], panel: &mut [f32]) {
    // SAFETY: this function runs only where the instructions are.
    let s = unsafe { Avx512Token::new() };
    let (rows, stride) = v.floats(Isa::Avx512, at, keys, dv, rows);
    let row = |j: usize| if j < keys { &rows[j * stride..j * stride + dv] } else { &[] };
    // Element e of two neighbouring values side by side, for 16 pairs; the transpose has the pairs of an element.
    let pairs = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1,
        16, 0,
    );
    for j in (0..KEYS).step_by(32) {
        for e in (0..dv).step_by(16) {
            let mut block = [_mm512_setzero_si512(); 16];
            for (i, x) in block.iter_mut().enumerate() {
                let (even, odd) = (row(j + 2 * i), row(j + 2 * i + 1));
                *x = _mm512_permutexvar_epi16(pairs, to_bf16(part(s, even, e), part(s, odd, e)));
            }
            for (i, x) in transpose16(block).into_iter().enumerate() {
                let to = &mut panel[(e + i) * PANEL + j / 2..][..16];
                // SAFETY: 64 bytes.
                unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) };
            }
        }
    }
}
