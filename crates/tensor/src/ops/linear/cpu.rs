use imaginal_kernels::{MatRef, gemm, pool};

use crate::ops::common::per_task;
use crate::{Result, Tensor};

/// A matrix as the kernels take it, whatever its strides. The caller has checked that it has two dimensions.
fn mat(t: &Tensor) -> Result<MatRef<'_>> {
    let s = t.layout().strides();
    Ok(MatRef { data: &t.cpu_storage::<f32>("linear")?[t.layout().offset()..], rs: s[0], cs: s[1] })
}

/// All leading dimensions as rows; a view unless the strides forbid one.
fn rows(t: &Tensor) -> Result<Tensor> {
    let k = t.shape()[t.rank() - 1];
    t.detach().reshape([t.shape()[..t.rank() - 1].iter().product(), k])
}

pub(super) fn forward(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (n, k) = (w.shape()[0], w.shape()[1]);
    let x2 = rows(x)?;
    let m = x2.shape()[0];
    let mut shape = x.shape().to_vec();
    shape[x.rank() - 1] = n;
    let wt = w.detach().t()?;
    let bias = bias.map(|b| b.detach().contiguous()).transpose()?;
    Tensor::build::<f32>(shape, |out| {
        if out.is_empty() {
            return Ok(());
        }
        if let Some(b) = &bias {
            let b = b.as_slice::<f32>()?;
            pool::parallel_chunks(out, per_task(m, n) * n, &|_, rows| {
                rows.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(b));
            });
        }
        gemm(m, n, k, mat(&x2)?, mat(&wt)?, out, n, bias.is_some());
        Ok(())
    })
}

/// `dy · W`.
pub(super) fn grad_input(dy: &Tensor, w: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let (n, k) = (w.shape()[0], w.shape()[1]);
    let dy = rows(dy)?;
    Tensor::build::<f32>(shape, |out| {
        if !out.is_empty() {
            gemm(dy.shape()[0], k, n, mat(&dy)?, mat(w)?, out, k, false);
        }
        Ok(())
    })
}

/// `dyᵀ · x`.
pub(super) fn grad_weight(dy: &Tensor, x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let (n, k) = (shape[0], shape[1]);
    let (dy, x) = (rows(dy)?.t()?, rows(x)?);
    Tensor::build::<f32>(shape, |out| {
        if !out.is_empty() {
            gemm(n, k, x.shape()[0], mat(&dy)?, mat(&x)?, out, k, false);
        }
        Ok(())
    })
}
