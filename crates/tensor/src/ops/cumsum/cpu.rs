use imaginal_kernels::pool;

use crate::ops::common::{Sum, per_task};

/// Running sums along the middle dimension of a dense `[outer, n, inner]`, from its end if `reverse`.
pub(super) fn running_sum<T: Sum>(
    source: &[T],
    (outer, n, inner): (usize, usize, usize),
    reverse: bool,
    out: &mut [T],
) {
    if out.is_empty() {
        return;
    }
    let block = n * inner;
    let per = per_task(outer, block);
    pool::parallel_chunks(out, per * block, &|t, dst| {
        let mut sums = vec![T::ZERO; inner];
        for (dst, src) in dst.chunks_mut(block).zip(source[t * per * block..].chunks(block)) {
            sums.fill(T::ZERO);
            for i in 0..n {
                let at = if reverse { n - 1 - i } else { i } * inner;
                for ((o, &x), sum) in dst[at..at + inner].iter_mut().zip(&src[at..at + inner]).zip(&mut sums) {
                    *sum = T::join(*sum, x.lift());
                    *o = T::lower(*sum);
                }
            }
        }
    });
}
