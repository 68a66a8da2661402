use crate::ops::common::{around, copy};
use crate::{Element, Result, Tensor};

pub(super) fn cat<T: Element>(parts: &[&Tensor], dim: usize, out: &mut [T]) -> Result<()> {
    let (outer, _, inner) = around(parts[0].shape(), dim);
    if out.is_empty() {
        return Ok(());
    }
    let row = out.len() / outer;
    let mut start = 0;
    for t in parts {
        let len = t.shape()[dim] * inner;
        if outer == 1 {
            let source = t.cpu_storage::<T>("cat")?;
            copy(source, t.layout(), &mut out[start..start + len]);
        } else if len > 0 {
            let dense = crate::no_grad(|| t.contiguous())?;
            let source = dense.as_slice::<T>()?;
            for (dst, src) in out.chunks_mut(row).zip(source.chunks(len)) {
                dst[start..start + len].copy_from_slice(src);
            }
        }
        start += len;
    }
    Ok(())
}
