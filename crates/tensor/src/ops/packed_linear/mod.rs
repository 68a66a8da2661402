//! Products with weights in a packed number format, straight from their bytes; and rows of a packed embedding.

#[cfg(feature = "gpu")]
pub(crate) mod gpu;
#[cfg(test)]
mod tests;

use imaginal_kernels::{PackedProduct, matmul_packed, matmul_packed_all, pool};

use crate::autograd::record;
use crate::{DType, Device, Error, Packed, Result, Tensor};

pub(super) fn same_device(op: &'static str, device: &Device, w: &Packed) -> Result<()> {
    if *device != w.device() {
        return Err(Error::DeviceMismatch { op, lhs: device.to_string(), rhs: w.device().to_string() });
    }
    Ok(())
}

impl Tensor {
    /// `x[.., k] · Wᵀ + bias[n]` → `[.., n]`, `f32`, with `W` packed as `[n, k]`. The gradient reaches `x` and `bias`;
    /// the packed weights are constants.
    ///
    /// # Errors
    /// The inner sizes differ, `bias` is not `[n]`, `x` is not `f32`, or devices differ.
    pub fn packed_linear(&self, w: &Packed, bias: Option<&Tensor>) -> Result<Tensor> {
        let op = "packed_linear";
        let (n, k) = (w.rows(), w.cols());
        if self.shape().last() != Some(&k) {
            return Err(Error::shapes(op, self.shape(), &[n, k]));
        }
        let x = self.detach().contiguous()?;
        let m = x.elem_count().checked_div(k).unwrap_or(0);
        let mut shape = self.shape().to_vec();
        shape[self.rank() - 1] = n;
        same_device(op, self.device(), w)?;
        let out = match w.device() {
            Device::Cpu => Tensor::build::<f32>(shape, |out| {
                matmul_packed(w.format(), w.bytes(), n, k, x.as_slice()?, m, out);
                Ok(())
            })?,
            #[cfg(feature = "gpu")]
            Device::Gpu(_) => x.reshape([m, k])?.matmul(&Tensor::from_packed(w)?.t()?)?.reshape(shape)?,
        };
        let weights = w.clone();
        let out = record(out, &[self], move |b| {
            let expanded = Tensor::from_packed(&weights)?;
            Ok(vec![Some(b.grad.matmul(&expanded)?)])
        });
        match bias {
            Some(b) if b.shape() != [n] => Err(Error::shapes(op, &[n, k], b.shape())),
            Some(b) => out.add(b),
            None => Ok(out),
        }
    }

    /// [`Tensor::packed_linear`] with several matrices of `k` columns each. On the CPU, a few tokens without a gradient are
    /// rounded once for all of them, and threads divide the rows of all of them.
    ///
    /// # Errors
    /// As [`Tensor::packed_linear`].
    pub fn packed_linears<const N: usize>(&self, w: [&Packed; N]) -> Result<[Tensor; N]> {
        let here = self.device().is_cpu() && w.iter().all(|w| w.device().is_cpu());
        let fits = w.iter().all(|w| self.shape().last() == Some(&w.cols()));
        let Some(&k) = self.shape().last().filter(|_| here && fits && !self.tracks_grad()) else {
            let all: Vec<_> = w.iter().map(|w| self.packed_linear(w, None)).collect::<Result<_>>()?;
            return Ok(all.try_into().unwrap_or_else(|_| unreachable!("as many as matrices")));
        };
        let x = self.contiguous()?;
        let m = x.elem_count().checked_div(k).unwrap_or(0);
        let shapes = w.map(|w| [&self.shape()[..self.rank() - 1], &[w.rows()]].concat());
        Tensor::build_n::<f32, N>(shapes.each_ref().map(|shape| &shape[..]), |out| {
            let products = w.into_iter().zip(out);
            let products =
                products.map(|(w, out)| PackedProduct { format: w.format(), bytes: w.bytes(), rows: w.rows(), out });
            matmul_packed_all(products.collect(), k, x.as_slice()?, m);
            Ok(())
        })
    }

    /// `silu(x · Gᵀ) · (x · Uᵀ)`: `[.., k]` → `[.., n]` with both matrices packed as `[n, k]`; what [`Tensor::packed_linear`]
    /// and [`Tensor::swiglu`] compose, without the two results in memory on the CPU.
    ///
    /// # Errors
    /// As [`Tensor::packed_linear`]; or the matrices differ in shape.
    pub fn packed_swiglu(&self, gate: &Packed, up: &Packed) -> Result<Tensor> {
        let (n, k) = (gate.rows(), gate.cols());
        if self.shape().last() != Some(&k) {
            return Err(Error::shapes("packed_swiglu", self.shape(), &[n, k]));
        }
        let m = self.elem_count().checked_div(k).unwrap_or(0);
        let mut shape = self.shape().to_vec();
        shape[self.rank() - 1] = n;
        self.reshape([m, k])?.packed_grouped_swiglu(gate, up, &[m])?.reshape(shape)
    }

    /// All weights of a packed matrix as `f32[rows, cols]`, on the device where they are.
    ///
    /// # Errors
    /// The format refuses its bytes.
    pub fn from_packed(w: &Packed) -> Result<Tensor> {
        #[cfg(feature = "gpu")]
        if let Some(words) = w.gpu_words() {
            return gpu::unpack("from_packed", w, words, None, [w.rows(), w.cols()].into());
        }
        Tensor::build::<f32>([w.rows(), w.cols()], |out| decode_rows(w, &(0..w.rows() as u32).collect::<Vec<_>>(), out))
    }

    /// Rows `ids` (`u32`, any shape) of a packed matrix: `[.., cols]` in `f32`. The lookup of an embedding.
    ///
    /// # Errors
    /// An id is not below the number of rows, devices differ, or the format refuses its bytes.
    pub fn packed_rows(w: &Packed, ids: &Tensor) -> Result<Tensor> {
        let op = "packed_rows";
        if ids.dtype() != DType::U32 {
            return Err(Error::DType { op, got: ids.dtype(), expected: "u32".into() });
        }
        same_device(op, ids.device(), w)?;
        let list = ids.to_vec::<u32>()?;
        if let Some(&id) = list.iter().find(|&&id| id as usize >= w.rows()) {
            return Err(Error::OutOfRange { op, what: "id", index: id as usize, bound: w.rows() });
        }
        let mut shape = ids.shape().to_vec();
        shape.push(w.cols());
        #[cfg(feature = "gpu")]
        if let Some(words) = w.gpu_words() {
            return gpu::unpack(op, w, words, Some(ids), shape.into());
        }
        Tensor::build::<f32>(shape, |out| decode_rows(w, &list, out))
    }
}

/// Decodes the rows `ids`, which exist, one after another into `out`.
fn decode_rows(w: &Packed, ids: &[u32], out: &mut [f32]) -> Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    let row_bytes = w.bytes().len() / w.rows();
    let per_task = ids.len().div_ceil(pool::threads() * 4).max(16);
    let failed = std::sync::Mutex::new(None);
    pool::parallel_chunks(out, per_task * w.cols(), &|task, dst| {
        for (&id, dst) in ids[task * per_task..].iter().zip(dst.chunks_exact_mut(w.cols())) {
            let at = id as usize * row_bytes;
            if let Err(e) = w.format().decode(&w.bytes()[at..at + row_bytes], dst) {
                *failed.lock().unwrap_or_else(|p| p.into_inner()) = Some(e);
            }
        }
    });
    match failed.into_inner().unwrap_or_else(|p| p.into_inner()) {
        Some(source) => Err(Error::Format { op: "decode", source }),
        None => Ok(()),
    }
}
