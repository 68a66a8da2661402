use imaginal_kernels::pool;

use crate::dtype::with_element;
use crate::ops::common::{PARALLEL, Sum, copy, per_task};
use crate::{Element, Layout, Result, Tensor};

/// `out[o, i, ..] = source[o, ids[i], ..]` of a dense source `[outer, n, inner]`.
pub(super) fn pick<T: Element>(source: &[T], (_, n, inner): (usize, usize, usize), ids: &[usize], out: &mut [T]) {
    if out.is_empty() {
        return;
    }
    let per = per_task(out.len() / inner, inner);
    pool::parallel_chunks(out, per * inner, &|t, dst| {
        for (r, dst) in dst.chunks_mut(inner).enumerate() {
            let r = t * per + r;
            let from = (r / ids.len() * n + ids[r % ids.len()]) * inner;
            dst.copy_from_slice(&source[from..from + inner]);
        }
    });
}

/// A dense copy of the target `[outer, n, inner]` with `src[o, i, ..]` added at `[o, ids[i], ..]`.
pub(super) fn add_slices(
    target: &Tensor,
    (outer, n, inner): (usize, usize, usize),
    ids: &[usize],
    src: &Tensor,
) -> Result<Tensor> {
    let src = crate::no_grad(|| src.contiguous())?;
    with_element!(target.dtype(), T => {
        let src = src.as_slice::<T>()?;
        let old = target.cpu_storage::<T>("index_add")?;
        Tensor::build::<T>(target.shape(), |out| {
            copy(old, target.layout(), out);
            if out.is_empty() || ids.is_empty() {
                return Ok(());
            }
            // A task owns a range of target slices and goes through all indices in order, so that a sum does not
            // depend on who computes it.
            let slices = outer * n;
            let per = if src.len() < PARALLEL { slices } else { slices.div_ceil(pool::threads()) };
            pool::parallel_chunks(out, per * inner, &|t, dst| {
                let (first, count) = (t * per, dst.len() / inner);
                for o in first / n..=(first + count - 1) / n {
                    for (i, &id) in ids.iter().enumerate() {
                        let Some(at) = (o * n + id).checked_sub(first).filter(|&at| at < count) else { continue };
                        let from = &src[(o * ids.len() + i) * inner..][..inner];
                        dst[at * inner..][..inner].iter_mut().zip(from).for_each(|(d, &s)| *d = d.plus(s));
                    }
                }
            });
            Ok(())
        })
    })
}

/// Where the elements lie that indices of shape `ids` choose from, but for the step along `dim`; and that step.
fn still(layout: &Layout, dim: usize, ids: &[usize]) -> Result<(Layout, usize)> {
    let mut l = layout.clone();
    for (d, &size) in ids.iter().enumerate() {
        l = l.narrow("gather", d, 0, if d == dim { 1 } else { size })?;
    }
    Ok((l.broadcast("gather", ids)?, layout.strides()[dim]))
}

/// Calls `f` with the place of each element of a view, row-major.
fn places(layout: &Layout, mut f: impl FnMut(usize)) {
    let rows = layout.rows();
    let (len, stride) = (rows.len, rows.stride);
    for start in rows {
        (0..len).for_each(|i| f(start + i * stride));
    }
}

pub(super) fn gather<T: Element>(
    source: &[T],
    layout: &Layout,
    dim: usize,
    ids: &[usize],
    out: &mut [T],
    shape: &[usize],
) -> Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    let (places_of, step) = still(layout, dim, shape)?;
    let mut next = out.iter_mut().zip(ids);
    places(&places_of, |at| {
        if let Some((o, &id)) = next.next() {
            *o = source[at + id * step];
        }
    });
    Ok(())
}

pub(super) fn scatter_add(target: &Tensor, dim: usize, ids: &[usize], src: &Tensor) -> Result<Tensor> {
    let dense = crate::no_grad(|| src.contiguous())?;
    with_element!(target.dtype(), T => {
        let src = dense.as_slice::<T>()?;
        let old = target.cpu_storage::<T>("scatter_add")?;
        Tensor::build::<T>(target.shape(), |out| {
            copy(old, target.layout(), out);
            if src.is_empty() {
                return Ok(());
            }
            let (places_of, step) = still(&Layout::contiguous(target.shape()), dim, dense.shape())?;
            let mut next = src.iter().zip(ids);
            places(&places_of, |at| {
                if let Some((&s, &id)) = next.next() {
                    let o = &mut out[at + id * step];
                    *o = o.plus(s);
                }
            });
            Ok(())
        })
    })
}
