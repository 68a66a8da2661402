use imaginal_kernels::pool;

use crate::{Element, Layout};

/// Below this many elements a copy is not worth waking the workers for.
const PARALLEL: usize = 1 << 15;

/// Copies the elements of a strided view, in row-major order, into `out`.
pub fn copy_strided<T: Element>(source: &[T], layout: &Layout, out: &mut [T]) {
    let rows = layout.rows();
    let (len, stride) = (rows.len, rows.stride);
    if len == 0 || out.is_empty() {
        return;
    }
    let copy = |start: usize, dst: &mut [T]| {
        if stride == 1 {
            dst.copy_from_slice(&source[start..start + len]);
        } else if stride == 0 {
            dst.fill(source[start]);
        } else {
            for (d, s) in dst.iter_mut().zip(source[start..].iter().step_by(stride)) {
                *d = *s;
            }
        }
    };
    if out.len() < PARALLEL || pool::threads() == 1 {
        rows.zip(out.chunks_mut(len)).for_each(|(start, dst)| copy(start, dst));
        return;
    }
    let starts: Vec<usize> = rows.collect();
    let per_task = starts.len().div_ceil(pool::threads() * 4);
    pool::parallel_chunks(out, per_task * len, &|task, dst| {
        for (&start, dst) in starts[task * per_task..].iter().zip(dst.chunks_mut(len)) {
            copy(start, dst);
        }
    });
}

/// Writes the elements of a strided view over those of `target`, a view of `out` whose first element is at `base`.
pub fn write_strided<T: Element>(source: &[T], layout: &Layout, out: &mut [T], target: &Layout, base: usize) {
    // Rows of both sides have to have one length, that of the innermost dimension.
    let Some(&len) = layout.dims().last() else {
        out[target.offset() - base] = source[layout.offset()];
        return;
    };
    if layout.count() == 0 {
        return;
    }
    let last = layout.dims().len() - 1;
    let (from_stride, to_stride) = (layout.strides()[last], target.strides()[last]);
    let outer = |l: &Layout| -> Vec<usize> {
        let mut starts = vec![l.offset()];
        for (&d, &s) in l.dims()[..last].iter().zip(&l.strides()[..last]) {
            starts = starts.iter().flat_map(|&at| (0..d).map(move |i| at + i * s)).collect();
        }
        starts
    };
    for (from, to) in outer(layout).into_iter().zip(outer(target)) {
        let to = to - base;
        if from_stride == 1 && to_stride == 1 {
            out[to..to + len].copy_from_slice(&source[from..from + len]);
        } else {
            for i in 0..len {
                out[to + i * to_stride] = source[from + i * from_stride];
            }
        }
    }
}
