//! Weighted rows added up by index: how the results of a token's experts become one.

mod cpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::ops::binary::same_kind;
use crate::ops::common::{indices, same_device};
use crate::{DType, Error, Result, Tensor};

impl Tensor {
    /// `[rows, d]`: the sums of the rows of `self[m, d]`, each times its number in `weights[m]`, that belong to each place by
    /// `ids[m]`, in the order of `ids`. Places that none belongs to are zero.
    ///
    /// # Errors
    /// The shapes do not fit, an index is not below `rows`, `ids` is not of type `u32`, `i32` or `i64`, or types or devices
    /// differ.
    pub fn weighted_sum(&self, weights: &Tensor, ids: &Tensor, rows: usize) -> Result<Tensor> {
        let op = "weighted_sum";
        same_kind(op, self, weights)?;
        same_device(op, self, ids)?;
        let [m, _] = self.dims_n(op)?;
        for list in [weights, ids] {
            if list.shape() != [m] {
                return Err(Error::shapes(op, self.shape(), list.shape()));
            }
        }
        if !(self.device().is_cpu() && self.dtype() == DType::F32) {
            return self.weighted_sum_reference(weights, ids, rows);
        }
        let out = cpu::forward(self, weights, &indices(op, ids, rows)?, rows)?;
        let ids = ids.detach();
        Ok(record(out, &[self, weights], move |b| {
            let (x, weights) = (&b.inputs[0], &b.inputs[1]);
            let grad = b.grad.index_select(0, &ids)?;
            Ok(vec![
                b.needs(0).then(|| grad.mul(&weights.unsqueeze(1)?)).transpose()?,
                b.needs(1).then(|| grad.mul(x)?.sum(&[1], false)).transpose()?,
            ])
        }))
    }

    /// The reference form of [`Tensor::weighted_sum`], composed of primitives.
    ///
    /// # Errors
    /// As [`Tensor::weighted_sum`].
    pub fn weighted_sum_reference(&self, weights: &Tensor, ids: &Tensor, rows: usize) -> Result<Tensor> {
        let zeros = Tensor::zeros([rows, self.dim(1)?], self.dtype(), self.device())?;
        zeros.index_add(0, ids, &self.mul(&weights.unsqueeze(1)?)?)
    }
}
