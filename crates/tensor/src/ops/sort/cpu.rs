use std::cmp::Ordering;

use imaginal_kernels::pool;

use super::Order;
use crate::Element;
use crate::ops::common::per_task;

/// Where `a` stands to `b`: NaN comes after everything in either direction.
#[allow(clippy::eq_op)]
fn compare<T: Element>(a: T, b: T, descending: bool) -> Ordering {
    match a.partial_cmp(&b) {
        Some(o) if descending => o.reverse(),
        Some(o) => o,
        None => (a != a).cmp(&(b != b)),
    }
}

/// For each row of `n` elements, the places of the first `kept` in order.
pub(super) fn order<T: Element>(kind: Order, source: &[T], n: usize, kept: usize, out: &mut [u32]) {
    if out.is_empty() {
        return;
    }
    let descending = kind != Order::Ascending;
    let per = per_task(out.len() / kept, 16 * n);
    pool::parallel_chunks(out, per * kept, &|t, dst| {
        let mut row: Vec<(T, u32)> = Vec::with_capacity(n);
        for (dst, src) in dst.chunks_mut(kept).zip(source[t * per * n..].chunks(n)) {
            row.clear();
            row.extend(src.iter().copied().zip(0u32..));
            // With the place as the last word the order is total, so that unstable algorithms give the stable result.
            let total = |a: &(T, u32), b: &(T, u32)| compare(a.0, b.0, descending).then(a.1.cmp(&b.1));
            if kept < n {
                row.select_nth_unstable_by(kept - 1, total);
                row.truncate(kept);
            }
            row.sort_unstable_by(total);
            dst.iter_mut().zip(&row).for_each(|(o, &(_, i))| *o = i);
        }
    });
}

/// The elements at those places.
pub(super) fn follow<T: Element>(source: &[T], n: usize, kept: usize, ids: &[u32], out: &mut [T]) {
    if kept == 0 {
        return;
    }
    for ((dst, ids), src) in out.chunks_mut(kept).zip(ids.chunks(kept)).zip(source.chunks(n)) {
        dst.iter_mut().zip(ids).for_each(|(o, &i)| *o = src[i as usize]);
    }
}
