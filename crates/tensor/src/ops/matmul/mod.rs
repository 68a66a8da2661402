//! Matrix products, batched and broadcast over leading dimensions.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::layout::broadcast_shape;
use crate::ops::binary::same_kind;
use crate::{DType, Error, Result, Tensor};

impl Tensor {
    /// `self[.., m, k] · other[.., k, n]` → `[.., m, n]`; leading dimensions broadcast, any strides. `f16` and `bf16`
    /// are multiplied in `f32` and rounded once.
    ///
    /// # Errors
    /// An operand has fewer than two dimensions, sizes do not fit, or types or devices differ or are no floats.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        let op = "matmul";
        same_kind(op, self, other)?;
        for t in [self, other] {
            if t.rank() < 2 {
                return Err(Error::Rank { op, expected: 2, shape: t.shape().to_vec() });
            }
        }
        let ([.., m, k], [.., k2, n]) = (self.shape(), other.shape()) else { unreachable!("ranks were checked") };
        if k != k2 {
            return Err(Error::shapes(op, self.shape(), other.shape()));
        }
        let batch = broadcast_shape(op, &self.shape()[..self.rank() - 2], &other.shape()[..other.rank() - 2])
            .map_err(|_| Error::shapes(op, self.shape(), other.shape()))?;
        let with = |r: usize, c: usize| batch.iter().copied().chain([r, c]).collect::<Vec<_>>();
        let (a, b) = (self.detach().broadcast_as(with(*m, *k))?, other.detach().broadcast_as(with(*k, *n))?);
        let out = match self.dtype() {
            #[cfg(feature = "gpu")]
            _ if !self.device().is_cpu() => gpu::matmul(&a, &b)?,
            DType::F32 => cpu::f32(&a, &b, with(*m, *n))?,
            DType::F64 => cpu::f64(&a, &b, with(*m, *n))?,
            half @ (DType::F16 | DType::BF16) => {
                cpu::f32(&a.to_dtype(DType::F32)?, &b.to_dtype(DType::F32)?, with(*m, *n))?.to_dtype(half)?
            }
            got => return Err(Error::DType { op, got, expected: "a float".into() }),
        };
        Ok(record(out, &[self, other], |ctx| {
            let (a, b) = (&ctx.inputs[0], &ctx.inputs[1]);
            let da = || ctx.grad.matmul(&b.t()?)?.sum_to(a.shape());
            let db = || match (a.shape(), b.shape()) {
                // One matrix for all of a batch: the sum over the batch is part of one product.
                ([lead @ .., k], &[_, n]) if lead.len() > 1 => {
                    let rows = lead.iter().product::<usize>();
                    a.reshape([rows, *k])?.t()?.matmul(&ctx.grad.reshape([rows, n])?)
                }
                _ => a.t()?.matmul(ctx.grad)?.sum_to(b.shape()),
            };
            Ok(vec![ctx.needs(0).then(da).transpose()?, ctx.needs(1).then(db).transpose()?])
        }))
    }
}
