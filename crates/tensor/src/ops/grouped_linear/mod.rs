//! Products of groups of rows, each with a matrix of its own: what the experts of a layer are made of. The matrices lie one
//! after another in one weight, and the rows come sorted: `counts[i]` of them, following those of the groups before, belong
//! to matrix `i`. A group may be empty.

mod cpu;
#[cfg(test)]
mod tests;

use imaginal_kernels::grouped::{Stack, matmul_grouped, matmul_grouped_swiglu};

use crate::autograd::record;
use crate::ops::binary::same_kind;
use crate::ops::packed_linear::same_device;
use crate::{DType, Device, Error, Packed, Result, Tensor};

/// The number of rows of each of `counts.len()` matrices that together have `rows` rows of `cols`, if they fit x and
/// `counts` adds up to its rows.
fn rows_of_each(op: &'static str, x: &Tensor, rows: usize, cols: usize, counts: &[usize]) -> Result<usize> {
    let [m, k] = x.dims_n(op)?;
    if k != cols || counts.is_empty() || !rows.is_multiple_of(counts.len()) {
        return Err(Error::shapes(op, x.shape(), &[counts.len(), rows, cols]));
    }
    if counts.iter().try_fold(0usize, |sum, &c| sum.checked_add(c)) != Some(m) {
        return Err(Error::argument(op, format!("the groups have other than {m} rows in all")));
    }
    Ok(rows / counts.len())
}

/// Calls `product` with the rows of x and the number of the matrix of each group that is not empty, and joins the results,
/// rows of `n`.
fn by_group(
    x: &Tensor,
    n: usize,
    counts: &[usize],
    product: impl Fn(&Tensor, usize) -> Result<Tensor>,
) -> Result<Tensor> {
    let (mut parts, mut at) = (Vec::new(), 0);
    for (i, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        parts.push(product(&x.narrow(0, at, count)?, i)?);
        at += count;
    }
    if parts.is_empty() { Tensor::zeros([0, n], x.dtype(), x.device()) } else { Tensor::cat(&parts, 0) }
}

impl Tensor {
    /// `x[m, k]` by groups: the rows of group `i` times matrix `i` of `w[groups · n, k]`, transposed → `[m, n]`.
    ///
    /// # Errors
    /// The shapes do not fit, `counts` does not add up to `m`, or types or devices differ.
    pub fn grouped_linear(&self, w: &Tensor, counts: &[usize]) -> Result<Tensor> {
        let op = "grouped_linear";
        same_kind(op, self, w)?;
        let [rows, k] = w.dims_n(op)?;
        rows_of_each(op, self, rows, k, counts)?;
        if !(self.device().is_cpu() && self.dtype() == DType::F32) {
            return self.grouped_linear_reference(w, counts);
        }
        let out = cpu::forward(self, w, counts)?;
        let counts = counts.to_vec();
        Ok(record(out, &[self, w], move |b| {
            let (x, w) = (&b.inputs[0], &b.inputs[1]);
            Ok(vec![
                b.needs(0).then(|| cpu::grad_input(b.grad, w, &counts)).transpose()?,
                b.needs(1).then(|| cpu::grad_weight(b.grad, x, w.shape(), &counts)).transpose()?,
            ])
        }))
    }

    /// The reference form of [`Tensor::grouped_linear`]: views of both operands and a product for each group.
    ///
    /// # Errors
    /// As [`Tensor::grouped_linear`].
    pub fn grouped_linear_reference(&self, w: &Tensor, counts: &[usize]) -> Result<Tensor> {
        let [rows, k] = w.dims_n("grouped_linear")?;
        let n = rows_of_each("grouped_linear", self, rows, k, counts)?;
        by_group(self, n, counts, |x, i| x.linear(&w.narrow(0, i * n, n)?, None))
    }

    /// [`Tensor::grouped_linear`] in `f32` with packed matrices, straight from their bytes. The gradient reaches `x`; the
    /// packed weights are constants. Devices other than the CPU expand the matrices that are used, one at a time.
    ///
    /// # Errors
    /// As [`Tensor::grouped_linear`].
    pub fn packed_grouped_linear(&self, w: &Packed, counts: &[usize]) -> Result<Tensor> {
        let op = "packed_grouped_linear";
        let n = rows_of_each(op, self, w.rows(), w.cols(), counts)?;
        same_device(op, self.device(), w)?;
        let x = self.detach().contiguous()?;
        let out = match w.device() {
            Device::Cpu => Tensor::build::<f32>([x.dim(0)?, n], |out| {
                matmul_grouped(stack(w, n), x.as_slice()?, counts, out);
                Ok(())
            })?,
            #[cfg(feature = "gpu")]
            Device::Gpu(_) => by_group(&x, n, counts, |x, i| x.matmul(&matrix(w, i, n)?.t()?))?,
        };
        let (w, counts) = (w.clone(), counts.to_vec());
        Ok(record(out, &[self], move |b| {
            let grad = by_group(b.grad, w.cols(), &counts, |grad, i| grad.matmul(&matrix(&w, i, n)?))?;
            Ok(vec![Some(grad)])
        }))
    }

    /// `silu(x · Gᵀ) · (x · Uᵀ)` by groups with packed matrices; what [`Tensor::packed_grouped_linear`] and
    /// [`Tensor::swiglu`] compose, without the two results in memory on the CPU.
    ///
    /// # Errors
    /// As [`Tensor::packed_grouped_linear`]; or the matrices differ in shape.
    pub fn packed_grouped_swiglu(&self, gate: &Packed, up: &Packed, counts: &[usize]) -> Result<Tensor> {
        let op = "packed_grouped_swiglu";
        if (gate.rows(), gate.cols()) != (up.rows(), up.cols()) {
            return Err(Error::shapes(op, &[gate.rows(), gate.cols()], &[up.rows(), up.cols()]));
        }
        let here = [self.device(), &gate.device(), &up.device()].iter().all(|d| d.is_cpu());
        if !here || self.tracks_grad() {
            return self.packed_grouped_linear(gate, counts)?.swiglu(&self.packed_grouped_linear(up, counts)?);
        }
        let n = rows_of_each(op, self, gate.rows(), gate.cols(), counts)?;
        let x = self.contiguous()?;
        Tensor::build::<f32>([x.dim(0)?, n], |out| {
            matmul_grouped_swiglu(stack(gate, n), stack(up, n), x.as_slice()?, counts, out);
            Ok(())
        })
    }
}

fn stack(w: &Packed, n: usize) -> Stack<'_> {
    Stack { format: w.format(), bytes: w.bytes(), rows: n, cols: w.cols() }
}

/// Matrix `i` of `n` rows, expanded where it is.
fn matrix(w: &Packed, i: usize, n: usize) -> Result<Tensor> {
    let rows = (i * n..(i + 1) * n).map(|row| row as u32).collect();
    Tensor::packed_rows(w, &Tensor::from_vec(rows, n, &w.device())?)
}
