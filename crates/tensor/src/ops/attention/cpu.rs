use imaginal_kernels::attention::{
    AttentionResult, AttentionShape, Cached, Heads, HeadsMut, attention, attention_backward, attention_cached,
};

use super::{AttentionOpts, Sizes};
use crate::{Result, Tensor};

fn shape(s: &Sizes) -> AttentionShape {
    AttentionShape { b: s.b, tq: s.tq, tk: s.tk, hq: s.hq, hkv: s.hk, d: s.d, dv: s.dv }
}

/// The tensor itself where the elements of a head lie side by side, else a dense copy.
pub(super) fn dense_heads(t: &Tensor) -> Result<Tensor> {
    let t = t.detach();
    if t.layout().strides()[3] == 1 || t.shape()[3] <= 1 { Ok(t) } else { t.contiguous() }
}

pub(super) fn heads(t: &Tensor) -> Result<Heads<'_>> {
    let s = t.layout().strides();
    let all = t.cpu_storage::<f32>("attention")?;
    Ok(Heads { data: &all[t.layout().offset().min(all.len())..], bs: s[0], ts: s[1], hs: s[2] })
}

/// The result, and the logarithm of the sum of each query's exponentiated scores, `[b, hq, tq]`.
pub(super) fn forward(
    [q, k, v]: [&Tensor; 3],
    sinks: Option<&Tensor>,
    s: &Sizes,
    opts: &AttentionOpts,
) -> Result<[Tensor; 2]> {
    let (q, k, v) = (dense_heads(q)?, dense_heads(k)?, dense_heads(v)?);
    let sinks = sinks.map(|x| x.to_vec::<f32>()).transpose()?;
    Tensor::build_n::<f32, 2>([&[s.b, s.tq, s.hq, s.dv], &[s.b, s.hq, s.tq]], |[out, lse]| {
        let out = HeadsMut::contiguous(out, s.tq, s.hq, s.dv);
        attention(shape(s), opts, heads(&q)?, heads(&k)?, heads(&v)?, sinks.as_deref(), out, lse);
        Ok(())
    })
}

/// The result over a cache.
pub(super) fn forward_cached(
    q: &Tensor,
    k: Cached,
    v: Cached,
    sinks: Option<&Tensor>,
    s: &Sizes,
    opts: &AttentionOpts,
) -> Result<Tensor> {
    let q = dense_heads(q)?;
    let sinks = sinks.map(|x| x.to_vec::<f32>()).transpose()?;
    let mut lse = vec![0.0; s.b * s.hq * s.tq];
    Tensor::build::<f32>([s.b, s.tq, s.hq, s.dv], |out| {
        let out = HeadsMut::contiguous(out, s.tq, s.hq, s.dv);
        attention_cached(shape(s), opts, heads(&q)?, k, v, sinks.as_deref(), out, &mut lse);
        Ok(())
    })
}

/// The gradient of the sinks. A sink is a key whose value is 0, so that of its probability p it gets −p·Σ grad∘out.
pub(super) fn backward_sinks(sinks: &Tensor, [out, lse, grad]: [&Tensor; 3], s: &Sizes) -> Result<Tensor> {
    let grad = grad.detach().contiguous()?;
    let (sinks, out, lse, grad) = (sinks.to_vec::<f32>()?, out.as_slice::<f32>()?, lse.as_slice::<f32>()?, grad);
    let grad = grad.as_slice::<f32>()?;
    Tensor::build::<f32>([s.hq], |dsinks| {
        dsinks.fill(0.0);
        for (n, (out, grad)) in out.chunks(s.dv).zip(grad.chunks(s.dv)).enumerate() {
            let (b, t, h) = (n / s.hq / s.tq, n / s.hq % s.tq, n % s.hq);
            let p = (sinks[h] - lse[(b * s.hq + h) * s.tq + t]).exp();
            dsinks[h] -= p * out.iter().zip(grad).map(|(o, g)| o * g).sum::<f32>();
        }
        Ok(())
    })
}

/// Gradients of queries, keys and values, given the result, its logarithms and its gradient.
pub(super) fn backward(
    qkv: [&Tensor; 3],
    [out, lse, grad]: [&Tensor; 3],
    s: &Sizes,
    opts: &AttentionOpts,
) -> Result<[Tensor; 3]> {
    let [q, k, v] = [dense_heads(qkv[0])?, dense_heads(qkv[1])?, dense_heads(qkv[2])?];
    let grad = dense_heads(grad)?;
    Tensor::build_n::<f32, 3>(qkv.map(Tensor::shape), |[dq, dk, dv]| {
        let result = AttentionResult { out: heads(out)?, lse: lse.as_slice()?, dout: heads(&grad)? };
        let (dq, dk) = (HeadsMut::contiguous(dq, s.tq, s.hq, s.d), HeadsMut::contiguous(dk, s.tk, s.hk, s.d));
        let dv = HeadsMut::contiguous(dv, s.tk, s.hk, s.dv);
        attention_backward(shape(s), opts, heads(&q)?, heads(&k)?, heads(&v)?, result, dq, dk, dv);
        Ok(())
    })
}
