//! Rows of a table by number, and the gradient: adding rows back.

use crate::isa::{Isa, isa, simd_fn};
use crate::pool::{self, SharedMut};
use crate::vecmath::{CHUNK, ld, same_len, st};

simd_fn! {
    fn add_row<S>(s: S, x: &[f32], out: &mut [f32]) {
        for (x, o) in x.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
            st(s, s.add(ld(s, o), ld(s, x)), o);
        }
    }
}

/// Row i of out[ids.len(), d] becomes row `ids[i]` of table[rows, d].
///
/// # Panics
/// If a length does not match, or a number is not less than `rows`.
pub fn gather_rows(table: &[f32], rows: usize, d: usize, ids: &[u32], out: &mut [f32]) {
    same_len("gather_rows table", table.len(), rows * d);
    same_len("gather_rows out", out.len(), ids.len() * d);
    check(ids, rows, "gather_rows");
    if d == 0 {
        return;
    }
    let per = (CHUNK / d).max(1);
    let copy = |i: usize, out: &mut [f32]| {
        for (out, &id) in out.chunks_exact_mut(d).zip(&ids[i * per..]) {
            out.copy_from_slice(&table[id as usize * d..(id as usize + 1) * d]);
        }
    };
    pool::parallel_chunks(out, per * d, &copy);
}

/// Adds row i of x to row `ids[i]` of the table, for every i in order: the gradient of [`gather_rows`].
///
/// Tasks own ranges of the table, so that a row's sum is always taken in the same order.
///
/// # Panics
/// If a length does not match, or a number is not less than `rows`.
pub fn scatter_add_rows(x: &[f32], d: usize, ids: &[u32], table: &mut [f32], rows: usize) {
    scatter_add_rows_isa(isa(), x, d, ids, table, rows)
}

fn scatter_add_rows_isa(isa: Isa, x: &[f32], d: usize, ids: &[u32], table: &mut [f32], rows: usize) {
    same_len("scatter_add_rows table", table.len(), rows * d);
    same_len("scatter_add_rows x", x.len(), ids.len() * d);
    check(ids, rows, "scatter_add_rows");
    // Few enough that looking through the numbers in every task costs little.
    const RANGES: usize = 16;
    let per = if x.len() < 2 * CHUNK { rows } else { rows.div_ceil(RANGES) }.max(1);
    let shared = SharedMut::new(table);
    pool::parallel(rows.div_ceil(per), &|range| {
        for (i, &id) in ids.iter().enumerate() {
            if id as usize / per == range {
                // SAFETY: a row belongs to one range, and so to one task.
                add_row(isa, &x[i * d..(i + 1) * d], unsafe { shared.slice(id as usize * d, d) });
            }
        }
    });
}

fn check(ids: &[u32], rows: usize, op: &str) {
    if let Some(i) = ids.iter().position(|&id| id as usize >= rows) {
        panic!("{op}: number {} at {i} is not a row below {rows}", ids[i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::available;
    use crate::testing::{Random, assert_close, wide};

    #[test]
    fn rows_are_taken_and_added_back() {
        let mut r = Random::new(1);
        for (rows, d, n) in [(1, 1, 3), (10, 17, 0), (50, 33, 200), (1000, 48, 3000)] {
            let table = r.vec(rows * d, -1.0, 1.0);
            let ids: Vec<u32> = (0..n).map(|_| (r.bits() % rows as u64) as u32).collect();
            let mut out = vec![7.0; n * d];
            gather_rows(&table, rows, d, &ids, &mut out);
            let mut expected = wide(&table);
            for (i, &id) in ids.iter().enumerate() {
                let row = id as usize * d..(id as usize + 1) * d;
                assert_eq!(out[i * d..(i + 1) * d], table[row.clone()]);
                expected[row].iter_mut().zip(&out[i * d..]).for_each(|(e, o)| *e += f64::from(*o));
            }
            for isa in available() {
                let mut sum = table.clone();
                scatter_add_rows_isa(isa, &out, d, &ids, &mut sum, rows);
                assert_close(&format!("{isa} {rows} rows"), &sum, &expected, 1e-6, 1.0);
            }
        }
    }

    #[test]
    #[should_panic(expected = "number 5 at 1 is not a row below 5")]
    fn a_number_beyond_the_table_is_refused() {
        gather_rows(&[0.0; 10], 5, 2, &[0, 5], &mut [0.0; 4]);
    }
}
