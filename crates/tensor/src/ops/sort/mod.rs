//! Order along a dimension: full sort and the largest few.

mod cpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::dtype::with_element;
use crate::ops::common::build_as;
use crate::storage::Storage;
use crate::{Error, Result, Tensor};

/// What of each row is wanted.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// All elements, smallest first.
    Ascending,
    /// All elements, largest first.
    Descending,
    /// The largest so many, largest first.
    Top(usize),
}

impl Order {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Order::Top(_) => "topk",
            _ => "sort",
        }
    }
}

fn order(kind: Order, x: &Tensor, dim: usize) -> Result<(Tensor, Tensor)> {
    let op = kind.name();
    let n = x.dim(dim)?;
    let kept = match kind {
        Order::Top(k) if k > n => return Err(Error::OutOfRange { op, what: "count", index: k, bound: n }),
        Order::Top(k) => k,
        _ => n,
    };
    if u32::try_from(n).is_err() {
        return Err(Error::argument(op, format!("a dimension of size {n} has no u32 indices")));
    }
    // Rows are sorted with the dimension last; views bring it back to its place.
    let last = x.rank() - 1;
    let moved = crate::no_grad(|| x.transpose(dim, last))?;
    let mut shape = moved.shape().to_vec();
    shape[last] = kept;
    let (values, ids) = match moved.storage() {
        Storage::Cpu(_) => with_element!(x.dtype(), T => {
            let dense = crate::no_grad(|| moved.contiguous())?;
            let source = dense.as_slice::<T>()?;
            let ids = Tensor::build::<u32>(shape.clone(), |out| { cpu::order(kind, source, n, kept, out); Ok(()) })?;
            let list = ids.as_slice::<u32>()?;
            let values = build_as::<T>(shape, x.dtype(), |out| { cpu::follow(source, n, kept, list, out); Ok(()) })?;
            (values, ids)
        }),
        #[cfg(feature = "gpu")]
        Storage::Gpu(_) => return Err(crate::gpu::missing(op, x.dtype())),
    };
    let (values, ids) = (values.transpose(dim, last)?, ids.transpose(dim, last)?);
    if !x.dtype().is_float() {
        return Ok((values, ids));
    }
    let saved = ids.clone();
    let values =
        record(values, &[x], move |b| Ok(vec![Some(b.inputs[0].zeros_like()?.scatter_add(dim, &saved, b.grad)?)]));
    Ok((values, ids))
}

impl Tensor {
    /// The elements along `dim` in order, and their former places as `u32`. Equal elements keep their order; NaN comes
    /// last in either direction. The gradient of the values goes to where they came from.
    ///
    /// # Errors
    /// There is no such dimension, or it is too long for `u32` indices.
    pub fn sort(&self, dim: usize, descending: bool) -> Result<(Tensor, Tensor)> {
        order(if descending { Order::Descending } else { Order::Ascending }, self, dim)
    }

    /// The places of the elements along `dim` in order, as `u32`: the second result of [`Tensor::sort`].
    ///
    /// # Errors
    /// As [`Tensor::sort`].
    pub fn argsort(&self, dim: usize, descending: bool) -> Result<Tensor> {
        Ok(self.sort(dim, descending)?.1)
    }

    /// The `k` largest elements along `dim`, largest first, and their places as `u32`: what the first `k` of a
    /// descending [`Tensor::sort`] are.
    ///
    /// # Errors
    /// As [`Tensor::sort`], or the dimension has fewer than `k` elements.
    pub fn topk(&self, dim: usize, k: usize) -> Result<(Tensor, Tensor)> {
        order(Order::Top(k), self, dim)
    }
}
