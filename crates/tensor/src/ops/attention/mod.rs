//! Scaled dot product attention over grouped heads, without the matrix of scores in memory
//! (Vaswani et al. 2017; Ainslie et al. 2023; Dao et al. 2022).

mod cache;
mod cpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::ops::binary::same_kind;
use crate::{DType, Device, Error, Result, Tensor};

pub use cache::KvCache;
pub use imaginal_kernels::attention::{AttentionOpts, LONGEST_CHUNK};

/// Sizes of one call: batch, queries, query heads, keys, key heads, head size, value size.
pub(crate) struct Sizes {
    pub b: usize,
    pub tq: usize,
    pub hq: usize,
    pub tk: usize,
    pub hk: usize,
    pub d: usize,
    pub dv: usize,
}

impl Sizes {
    /// What shapes of keys and values do not tell.
    fn check(&self, sinks: Option<&Tensor>, opts: &AttentionOpts) -> Result<()> {
        let op = "attention";
        if opts.causal && opts.q_start + self.tq > self.tk {
            let index = opts.q_start + self.tq;
            return Err(Error::OutOfRange { op, what: "position of the last query", index, bound: self.tk });
        }
        if opts.window == Some(0) {
            return Err(Error::argument(op, "a window of 0 keys leaves nothing to see"));
        }
        if opts.chunk.is_some_and(|chunk| chunk == 0 || chunk > LONGEST_CHUNK) {
            return Err(Error::argument(op, format!("chunks have from 1 to {LONGEST_CHUNK} keys")));
        }
        match sinks {
            Some(sinks) if sinks.shape() != [self.hq] => Err(Error::shapes(op, &[self.hq], sinks.shape())),
            _ => Ok(()),
        }
    }
}

impl Tensor {
    /// `softmax(q·kᵀ·scale + mask)·v` per head: `self` `[b, tq, hq, d]`, `k` `[b, tk, hk, d]`, `v` `[b, tk, hk, dv]` →
    /// `[b, tq, hq, dv]`. With a window, the query at position `p` sees only keys `j` with `|p − j| < window`; with a
    /// chunk, only those with `j / chunk = p / chunk`. `hq` is a
    /// multiple of `hk`: query head `h` reads key head `h / (hq/hk)`. `sinks` `[hq]` are scores of a key that every query
    /// of a head sees and whose value is 0: its probability is lost. Any strides whose last is 1.
    ///
    /// # Errors
    /// Shapes do not fit, types or devices differ, or a causal query stands beyond the keys.
    pub fn attention(&self, k: &Tensor, v: &Tensor, sinks: Option<&Tensor>, opts: &AttentionOpts) -> Result<Tensor> {
        let sizes = self.attention_sizes(k, v, sinks, opts)?;
        if !(self.device().is_cpu() && self.dtype() == DType::F32) {
            return self.attention_reference(k, v, sinks, opts);
        }
        let [out, lse] = cpu::forward([self, k, v], sinks, &sizes, opts)?;
        let (kept, opts) = (out.clone(), *opts);
        let inputs: Vec<&Tensor> = [self, k, v].into_iter().chain(sinks).collect();
        Ok(record(out, &inputs, move |b| {
            let [q, k, v, sinks @ ..] = b.inputs else { unreachable!("three inputs were recorded, or four") };
            let sizes = q.attention_sizes(k, v, sinks.first(), &opts)?;
            let result = [&kept, &lse, b.grad];
            let mut grads = cpu::backward([q, k, v], result, &sizes, &opts)?.map(Some).to_vec();
            for sinks in sinks {
                grads.push(Some(cpu::backward_sinks(sinks, result, &sizes)?));
            }
            Ok(grads)
        }))
    }

    fn attention_sizes(&self, k: &Tensor, v: &Tensor, sinks: Option<&Tensor>, opts: &AttentionOpts) -> Result<Sizes> {
        let op = "attention";
        same_kind(op, self, k)?;
        same_kind(op, self, v)?;
        let [b, tq, hq, d] = self.dims_n(op)?;
        let [bk, tk, hk, dk] = k.dims_n(op)?;
        let [bv, tv, hv, dv] = v.dims_n(op)?;
        if (b, d) != (bk, dk) || hk == 0 || hq % hk != 0 {
            return Err(Error::shapes(op, self.shape(), k.shape()));
        }
        if (bk, tk, hk) != (bv, tv, hv) {
            return Err(Error::shapes(op, k.shape(), v.shape()));
        }
        if let Some(sinks) = sinks {
            same_kind(op, self, sinks)?;
        }
        let sizes = Sizes { b, tq, hq, tk, hk, d, dv };
        sizes.check(sinks, opts)?;
        Ok(sizes)
    }

    /// The reference form of [`Tensor::attention`], composed of primitives; holds all scores.
    ///
    /// # Errors
    /// As [`Tensor::attention`].
    pub fn attention_reference(
        &self,
        k: &Tensor,
        v: &Tensor,
        sinks: Option<&Tensor>,
        opts: &AttentionOpts,
    ) -> Result<Tensor> {
        let s = self.attention_sizes(k, v, sinks, opts)?;
        let group = s.hq / s.hk;
        let spread = |t: &Tensor, width: usize| {
            t.unsqueeze(3)?.broadcast_as([s.b, s.tk, s.hk, group, width])?.reshape([s.b, s.tk, s.hq, width])
        };
        let heads_first = |t: &Tensor| t.transpose(1, 2);
        let (q, k, v) = (heads_first(self)?, heads_first(&spread(k, s.d)?)?, heads_first(&spread(v, s.dv)?)?);
        let mut scores = q.matmul(&k.t()?)?.mul_scalar(opts.scale as f64)?;
        if let Some(c) = opts.softcap {
            scores = scores.mul_scalar(1.0 / c as f64)?.tanh()?.mul_scalar(c as f64)?;
        }
        if opts.causal || opts.window.is_some() || opts.chunk.is_some() {
            let mask: Vec<f64> = (0..s.tq * s.tk)
                .map(|i| {
                    let (at, key) = (opts.q_start + i / s.tk, i % s.tk);
                    let late = opts.causal && key > at;
                    let far = opts.window.is_some_and(|w| key.abs_diff(at) >= w);
                    let apart = opts.chunk.is_some_and(|c| key / c != at / c);
                    if late || far || apart { f64::NEG_INFINITY } else { 0.0 }
                })
                .collect();
            let mask = Tensor::from_vec(mask, [s.tq, s.tk], &Device::Cpu)?.to_dtype(self.dtype())?;
            scores = scores.add(&mask.to_device(self.device())?)?;
        }
        if let Some(sinks) = sinks {
            let sinks = sinks.reshape([1, s.hq, 1, 1])?.broadcast_as([s.b, s.hq, s.tq, 1])?;
            scores = Tensor::cat(&[&scores, &sinks], 3)?;
        }
        scores.softmax(3)?.narrow(3, 0, s.tk)?.matmul(&v)?.transpose(1, 2)
    }
}
