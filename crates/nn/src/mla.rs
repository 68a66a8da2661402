use std::sync::Arc;

use imaginal_tensor::{AttentionOpts, Result, Tensor};

use crate::{Init, KvState, Linear, Module, Norm, NormKind, Rope, RopeConfig, Slot, Source, State, Weight, join};

/// Sizes of multi-head latent attention.
#[derive(Clone, Debug, PartialEq)]
pub struct MlaConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Heads.
    pub heads: usize,
    /// Width of the latent from which queries are made; `None` if they are made from the residual stream.
    pub q_rank: Option<usize>,
    /// Width of the latent from which keys and values are made.
    pub kv_rank: usize,
    /// Elements of a query or key that are not turned.
    pub plain_dim: usize,
    /// Elements of a query or key that are turned; those of the key are the same for all heads.
    pub turned_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// Whether the projections of the residual stream to latents, and that back, have biases.
    pub bias: bool,
    /// Epsilon of the latents' norms.
    pub eps: f64,
    /// Position embedding of the elements that are turned; `None` where positions are not told.
    pub rope: Option<RopeConfig>,
    /// Factor of the scores.
    pub scale: f64,
}

/// Multi-head latent attention (DeepSeek V2, §2.1): keys and values of all heads are products of one narrow latent, and that
/// alone is remembered, beside a key of a few elements that tells positions and that all heads share.
///
/// For many tokens the keys and values of all heads are computed. For few the matrices that make them are multiplied with the
/// queries and the results instead, so that attention runs over the latents as they are: one key head whose values are the
/// beginning of its keys. What multiplies less is done.
#[derive(Clone, Debug)]
pub struct Mla {
    config: MlaConfig,
    q: Queries,
    kv_a: Linear,
    kv_norm: Norm,
    /// For each head `[kv_rank, plain_dim]`.
    k_b: Weight,
    /// For each head `[value_dim, kv_rank]`.
    v_b: Weight,
    out: Linear,
    rope: Option<Arc<Rope>>,
}

#[derive(Clone, Debug)]
enum Queries {
    Whole(Linear),
    Latent { a: Linear, norm: Norm, b: Linear },
}

impl Mla {
    /// Builds `attn_q`, or `attn_q_a`, `attn_q_a_norm` and `attn_q_b`, then `attn_kv_a_mqa`, `attn_kv_a_norm`,
    /// `attn_k_b`, `attn_v_b` and `attn_output` under `prefix`, initialised to normal(0, 0.02). `rope` are tables made from
    /// the same configuration; layers share them.
    ///
    /// # Errors
    /// The source does not have the tensors in these shapes.
    pub fn new(source: &mut dyn Source, prefix: &str, c: &MlaConfig, rope: Option<Arc<Rope>>) -> Result<Self> {
        let init = Init::Normal { std: 0.02 };
        let mut linear =
            |name: &str, inputs, outputs, bias| Linear::new(source, &join(prefix, name), inputs, outputs, bias, init);
        let q_width = c.heads * (c.plain_dim + c.turned_dim);
        let (mut q, mut latent) = (None, None);
        match c.q_rank {
            None => q = Some(Queries::Whole(linear("attn_q", c.hidden, q_width, false)?)),
            Some(rank) => {
                let a = linear("attn_q_a", c.hidden, rank, c.bias)?;
                latent = Some((rank, a, linear("attn_q_b", rank, q_width, false)?));
            }
        }
        let kv_a = linear("attn_kv_a_mqa", c.hidden, c.kv_rank + c.turned_dim, c.bias)?;
        let out = linear("attn_output", c.heads * c.value_dim, c.hidden, c.bias)?;
        let mut norm = |name: &str, width| Norm::new(source, &join(prefix, name), &[width], NormKind::Rms, c.eps);
        let kv_norm = norm("attn_kv_a_norm", c.kv_rank)?;
        if let Some((rank, a, b)) = latent {
            q = Some(Queries::Latent { a, norm: norm("attn_q_a_norm", rank)?, b });
        }
        let q = q.ok_or_else(|| imaginal_tensor::Error::argument("mla", "there are no queries"))?;
        let k_b = source.weight(&join(prefix, "attn_k_b.weight"), c.heads * c.kv_rank, c.plain_dim, init)?;
        let v_b = source.weight(&join(prefix, "attn_v_b.weight"), c.heads * c.value_dim, c.kv_rank, init)?;
        Ok(Mla { config: c.clone(), q, kv_a, kv_norm, k_b, v_b, out, rope })
    }

    /// `x[b, t, hidden]` → the same shape. With a state its first row stands at the state's length, sees what the state
    /// holds, and the state grows by `t` positions (then no gradients flow into the past); without one it stands at 0.
    ///
    /// # Errors
    /// The shapes do not fit, or the state is of another shape.
    pub fn forward(&self, x: &Tensor, state: Option<&mut KvState>) -> Result<Tensor> {
        let c = &self.config;
        let (b, t) = (x.dim(0)?, x.dim(1)?);
        let start = state.as_ref().map_or(0, |s| s.len());
        let q = match &self.q {
            Queries::Whole(q) => q.forward(x)?,
            Queries::Latent { a, norm, b } => b.forward(&norm.forward(&a.forward(x)?)?)?,
        };
        let q = q.reshape([b, t, c.heads, c.plain_dim + c.turned_dim])?;
        let (q, q_turned) = (q.narrow(3, 0, c.plain_dim)?, self.turn(&q.narrow(3, c.plain_dim, c.turned_dim)?, start)?);
        let kv = self.kv_a.forward(x)?;
        let latent = self.kv_norm.forward(&kv.narrow(2, 0, c.kv_rank)?)?;
        let key = kv.narrow(2, c.kv_rank, c.turned_dim)?.reshape([b, t, 1, c.turned_dim])?;
        let key = self.turn(&key, start)?;
        let opts = AttentionOpts {
            scale: c.scale as f32,
            causal: true,
            q_start: start,
            window: None,
            chunk: None,
            softcap: None,
        };
        let y = match state {
            None => self.expanded(&q, &q_turned, &latent, &key, &opts)?,
            Some(state) => {
                let rows = latent.reshape([b, t, 1, c.kv_rank])?;
                state.append_latent(&Tensor::cat(&[&rows, &key], 3)?)?;
                if !self.expands(t) {
                    self.absorbed(&q, &q_turned, state, &opts)?
                } else if start == 0 {
                    self.expanded(&q, &q_turned, &latent, &key, &opts)?
                } else {
                    let rows = state.latents()?;
                    let latent = rows.narrow(3, 0, c.kv_rank)?.reshape([b, start + t, c.kv_rank])?;
                    let key = rows.narrow(3, c.kv_rank, c.turned_dim)?;
                    self.expanded(&q, &q_turned, &latent, &key, &opts)?
                }
            }
        };
        self.out.forward(&y.reshape([b, t, c.heads * c.value_dim])?)
    }

    /// Whether it takes less to compute keys and values of every position and head for `t` queries than to let those attend to
    /// the wider latents.
    fn expands(&self, t: usize) -> bool {
        let c = &self.config;
        let (made, attended) = (c.plain_dim + c.value_dim, 2 * c.kv_rank);
        attended > made && c.kv_rank * made < t * (attended - made)
    }

    fn turn(&self, x: &Tensor, start: usize) -> Result<Tensor> {
        match &self.rope {
            Some(rope) => rope.turn(&x.contiguous()?, start),
            None => Ok(x.clone()),
        }
    }

    /// Attention with the keys and values of every head, `[b, t, heads, value_dim]`.
    fn expanded(
        &self,
        q: &Tensor,
        q_turned: &Tensor,
        latent: &Tensor,
        key: &Tensor,
        opts: &AttentionOpts,
    ) -> Result<Tensor> {
        let c = &self.config;
        let (b, t) = (latent.dim(0)?, latent.dim(1)?);
        // A master is what gradients flow to.
        let k_b = self.k_b.master().map_or_else(|| self.k_b.to_f32(), |master| Ok(master.get()))?;
        let k_b = k_b.reshape([c.heads, c.kv_rank, c.plain_dim])?;
        let k = latent.reshape([1, b * t, c.kv_rank])?.matmul(&k_b)?;
        let k = k.transpose(0, 1)?.reshape([b, t, c.heads, c.plain_dim])?;
        let k = Tensor::cat(&[&k, &key.broadcast_as([b, t, c.heads, c.turned_dim])?], 3)?;
        let v = self.v_b.linear(latent, None)?.reshape([b, t, c.heads, c.value_dim])?;
        Tensor::cat(&[q, q_turned], 3)?.attention(&k, &v, None, opts)
    }

    /// Attention over the latents that the state holds, `[b, t, heads, value_dim]`.
    fn absorbed(&self, q: &Tensor, q_turned: &Tensor, state: &KvState, opts: &AttentionOpts) -> Result<Tensor> {
        let c = &self.config;
        let (b, t) = (q.dim(0)?, q.dim(1)?);
        let n = b * t;
        // A product with a matrix of each head.
        let by_head = |weight: &Weight, x: &Tensor, inputs: usize, outputs: usize| -> Result<Tensor> {
            let x = x.reshape([n, c.heads, inputs])?.transpose(0, 1)?.reshape([c.heads * n, inputs])?;
            let y = weight.grouped_linear(&x, &vec![n; c.heads])?;
            y.reshape([c.heads, n, outputs])?.transpose(0, 1)?.reshape([b, t, c.heads, outputs])
        };
        let q = by_head(&self.k_b, q, c.plain_dim, c.kv_rank)?;
        let y = state.look(&Tensor::cat(&[&q, q_turned], 3)?, None, opts)?;
        by_head(&self.v_b, &y, c.kv_rank, c.value_dim)
    }
}

impl Module for Mla {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        match &self.q {
            Queries::Whole(q) => q.slots(&join(prefix, "attn_q"), visit),
            Queries::Latent { a, norm, b } => {
                a.slots(&join(prefix, "attn_q_a"), visit);
                norm.slots(&join(prefix, "attn_q_a_norm"), visit);
                b.slots(&join(prefix, "attn_q_b"), visit);
            }
        }
        self.kv_a.slots(&join(prefix, "attn_kv_a_mqa"), visit);
        self.kv_norm.slots(&join(prefix, "attn_kv_a_norm"), visit);
        visit(join(prefix, "attn_k_b.weight"), Slot::Weight(&self.k_b));
        visit(join(prefix, "attn_v_b.weight"), Slot::Weight(&self.v_b));
        self.out.slots(&join(prefix, "attn_output"), visit);
    }
}

#[cfg(test)]
mod tests {
    use imaginal_numeric::Format;
    use imaginal_tensor::{Device, RopeStyle};

    use super::*;
    use crate::{Fresh, Rng, RopeScaling};

    #[test]
    fn latents_give_what_all_keys_and_values_give() {
        for q_rank in [None, Some(24)] {
            let scaling = RopeScaling::None;
            let rope = RopeConfig { style: RopeStyle::Interleaved, dims: 32, theta: 1000.0, scaling };
            let config = MlaConfig {
                hidden: 40,
                heads: 3,
                q_rank,
                kv_rank: 32,
                plain_dim: 12,
                turned_dim: 32,
                value_dim: 7,
                bias: true,
                eps: 1e-6,
                rope: Some(rope.clone()),
                scale: 0.4,
            };
            let tables = Some(Arc::new(Rope::new(rope, &Device::Cpu)));
            let mla = Mla::new(&mut Fresh::new(1, &Device::Cpu), "", &config, tables).unwrap();
            // Fresh keys hardly differ.
            mla.k_b.master().unwrap().set(mla.k_b.to_f32().unwrap().mul_scalar(30.0).unwrap());
            let mut rng = Rng::new(5);
            let values: Vec<f32> = (0..2 * 60 * 40).map(|_| rng.normal() as f32).collect();
            let x = Tensor::from_vec(values, [2, 60, 40], &Device::Cpu).unwrap();
            let whole = mla.forward(&x, None).unwrap().to_vec::<f32>().unwrap();
            let most = whole.iter().fold(0f32, |m, x| m.max(x.abs()));
            // Several queries over halves may be multiplied as bf16.
            for (format, bound) in [(Format::F32, 1e-5), (Format::F16, 2e-2), (Format::Q8_0, 3e-2)] {
                for pieces in [vec![1; 60], vec![7, 1, 2, 50], vec![20, 40], vec![60]] {
                    let mut state = KvState::latent(format, 2, 64, 32, &Device::Cpu).unwrap();
                    let mut at = 0;
                    for t in pieces {
                        let y = mla.forward(&x.narrow(1, at, t).unwrap(), Some(&mut state)).unwrap();
                        let y = y.to_vec::<f32>().unwrap();
                        for b in 0..2 {
                            let wanted = &whole[(b * 60 + at) * 40..(b * 60 + at + t) * 40];
                            let near = |(x, y): (&f32, &f32)| (x - y).abs() <= bound * most;
                            assert!(y[b * t * 40..(b + 1) * t * 40].iter().zip(wanted).all(near), "{format} {at}+{t}");
                        }
                        at += t;
                    }
                }
            }
        }
    }
}
