use std::hint::select_unpredictable;

use imaginal_kernels::pool;

use crate::dtype::with_element;
use crate::ops::common::{build_as, copy, per_task};
use crate::storage::CpuStorage;
use crate::{DType, Element, Layout, Result, Tensor};

type View<'a> = (&'a CpuStorage, &'a Layout);

pub(super) fn select(dtype: DType, cond: View, a: View, b: View) -> Result<Tensor> {
    with_element!(dtype, T => build_as::<T>(cond.1.dims(), dtype, |out| {
        // The result starts as `b`; then the chosen elements of `a` are written over it.
        copy(b.0.slice::<T>(), b.1, out);
        overwrite(cond.0.slice::<u8>(), cond.1, a.0.slice::<T>(), a.1, out);
        Ok(())
    }))
}

/// `out = a` where `cond`, over two views of the shape of `out`.
fn overwrite<T: Element>(cond: &[u8], lc: &Layout, a: &[T], la: &Layout, out: &mut [T]) {
    let Some((&len, outer)) = lc.dims().split_last() else {
        if cond[lc.offset()] != 0 {
            out[0] = a[la.offset()];
        }
        return;
    };
    if out.is_empty() {
        return;
    }
    let last = outer.len();
    let (cs, as_) = (lc.strides()[last], la.strides()[last]);
    let rows = out.len() / len;
    let per = per_task(rows, len);
    pool::parallel_chunks(out, per * len, &|t, dst| {
        for (r, dst) in dst.chunks_mut(len).enumerate() {
            let (mut pc, mut pa, mut left) = (lc.offset(), la.offset(), t * per + r);
            for d in (0..last).rev() {
                let i = left % outer[d];
                left /= outer[d];
                pc += i * lc.strides()[d];
                pa += i * la.strides()[d];
            }
            // No branches: a random condition would mispredict at every other element.
            if (cs, as_) == (1, 1) {
                let (c, a) = (&cond[pc..pc + len], &a[pa..pa + len]);
                dst.iter_mut().zip(c).zip(a).for_each(|((o, &c), &a)| *o = select_unpredictable(c != 0, a, *o));
            } else {
                dst.iter_mut().enumerate().for_each(|(i, o)| {
                    let a = a[pa + i * as_];
                    *o = select_unpredictable(cond[pc + i * cs] != 0, a, *o);
                });
            }
        }
    });
}
