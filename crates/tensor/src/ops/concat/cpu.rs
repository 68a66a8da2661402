use imaginal_kernels::pool;

use crate::ops::common::{around, copy, per_task};
use crate::{Element, Result, Tensor};

pub(super) fn cat<T: Element>(parts: &[&Tensor], dim: usize, out: &mut [T]) -> Result<()> {
    let (outer, _, inner) = around(parts[0].shape(), dim);
    if out.is_empty() {
        return Ok(());
    }
    if outer == 1 {
        let mut rest = out;
        for t in parts {
            let (head, tail) = rest.split_at_mut(t.elem_count());
            copy(t.cpu_storage::<T>("cat")?, t.layout(), head);
            rest = tail;
        }
        return Ok(());
    }
    let dense = parts.iter().map(|t| crate::no_grad(|| t.contiguous())).collect::<Result<Vec<_>>>()?;
    // Each part with the length of its share of a row of the result.
    let sources: Vec<(&[T], usize)> =
        dense.iter().map(|t| Ok((t.as_slice::<T>()?, t.shape()[dim] * inner))).collect::<Result<_>>()?;
    let row = out.len() / outer;
    let per = per_task(outer, row);
    pool::parallel_chunks(out, per * row, &|t, dst| {
        for (r, dst) in dst.chunks_mut(row).enumerate() {
            let r = t * per + r;
            let mut start = 0;
            for &(source, len) in &sources {
                dst[start..start + len].copy_from_slice(&source[r * len..(r + 1) * len]);
                start += len;
            }
        }
    });
    Ok(())
}
