use imaginal_kernels::{MatRef, gemm};

use crate::{Result, Tensor};

/// The groups that are not empty: number of the matrix, first row and number of rows.
fn groups(counts: &[usize]) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut end = 0;
    let all = counts.iter().enumerate().map(move |(i, &count)| {
        end += count;
        (i, end - count, count)
    });
    all.filter(|(.., count)| *count > 0)
}

fn dense(t: &Tensor) -> Result<Tensor> {
    t.detach().contiguous()
}

pub(super) fn forward(x: &Tensor, w: &Tensor, counts: &[usize]) -> Result<Tensor> {
    let (k, n) = (w.shape()[1], w.shape()[0] / counts.len());
    let (x, w) = (dense(x)?, dense(w)?);
    Tensor::build::<f32>([x.shape()[0], n], |out| {
        let (x, w) = (x.as_slice::<f32>()?, w.as_slice::<f32>()?);
        for (i, at, m) in groups(counts) {
            let (x, w) = (MatRef::row_major(&x[at * k..], k), MatRef::row_major(&w[i * n * k..], k));
            gemm(m, n, k, x, w.t(), &mut out[at * n..(at + m) * n], n, false);
        }
        Ok(())
    })
}

/// `dy · W`.
pub(super) fn grad_input(dy: &Tensor, w: &Tensor, counts: &[usize]) -> Result<Tensor> {
    let (k, n) = (w.shape()[1], w.shape()[0] / counts.len());
    let (dy, w) = (dense(dy)?, dense(w)?);
    Tensor::build::<f32>([dy.shape()[0], k], |out| {
        let (dy, w) = (dy.as_slice::<f32>()?, w.as_slice::<f32>()?);
        for (i, at, m) in groups(counts) {
            let (dy, w) = (MatRef::row_major(&dy[at * n..], n), MatRef::row_major(&w[i * n * k..], k));
            gemm(m, k, n, dy, w, &mut out[at * k..(at + m) * k], k, false);
        }
        Ok(())
    })
}

/// `dyᵀ · x`, zero for the matrices of empty groups.
pub(super) fn grad_weight(dy: &Tensor, x: &Tensor, shape: &[usize], counts: &[usize]) -> Result<Tensor> {
    let (k, n) = (shape[1], shape[0] / counts.len());
    let (dy, x) = (dense(dy)?, dense(x)?);
    Tensor::build::<f32>(shape, |out| {
        out.fill(0.0);
        let (dy, x) = (dy.as_slice::<f32>()?, x.as_slice::<f32>()?);
        for (i, at, m) in groups(counts) {
            let (dy, x) = (MatRef::row_major(&dy[at * n..], n), MatRef::row_major(&x[at * k..], k));
            gemm(n, k, m, dy.t(), x, &mut out[i * n * k..(i + 1) * n * k], k, false);
        }
        Ok(())
    })
}
