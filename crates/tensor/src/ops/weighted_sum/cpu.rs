use imaginal_kernels::pool;
use imaginal_kernels::vecmath::add_scaled;

use crate::ops::common::PARALLEL;
use crate::{Result, Tensor};

pub(super) fn forward(x: &Tensor, weights: &Tensor, ids: &[usize], rows: usize) -> Result<Tensor> {
    let (x, weights) = (x.detach().contiguous()?, weights.detach().contiguous()?);
    let d = x.shape()[1];
    Tensor::build::<f32>([rows, d], |out| {
        out.fill(0.0);
        if out.is_empty() {
            return Ok(());
        }
        let (x, weights) = (x.as_slice::<f32>()?, weights.as_slice::<f32>()?);
        // A task owns a range of the sums and goes through all rows in order.
        let per = if x.len() < PARALLEL { rows } else { rows.div_ceil(4 * pool::threads()) };
        pool::parallel_chunks(out, per * d, &|t, sums| {
            let (first, count) = (t * per, sums.len() / d);
            for ((x, weight), id) in x.chunks_exact(d).zip(weights).zip(ids) {
                let Some(at) = id.checked_sub(first).filter(|at| *at < count) else { continue };
                add_scaled(*weight, x, &mut sums[at * d..][..d]);
            }
        });
        Ok(())
    })
}
