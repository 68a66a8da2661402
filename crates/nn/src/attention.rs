use std::sync::Arc;

use imaginal_tensor::{AttentionOpts, Error, Result, Tensor};

use crate::{Init, KvState, Linear, Module, Norm, NormKind, Param, Rope, RopeConfig, Slot, Source, State, join};

/// Shape of an attention layer.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads, each shared by `heads / kv_heads` query heads (Ainslie et al. 2023).
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Whether the query, key and value projections have biases.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub out_bias: bool,
    /// How queries and keys are normalised, if they are.
    pub qk_norm: Option<QkNorm>,
    /// Position embedding; `None` where positions are not told.
    pub rope: Option<RopeConfig>,
    /// Factor of the scores.
    pub scale: f64,
    /// Scores s become `cap · tanh(s / cap)` (Gemma 2).
    pub softcap: Option<f64>,
    /// Whether each head has a score that competes with those of the keys (GPT-OSS).
    pub sinks: bool,
    /// Whether a query sees only what stands before it.
    pub causal: bool,
    /// A query at position p sees only keys j with |p − j| < window; all if `None`.
    pub window: Option<usize>,
    /// A query sees only keys of its own stretch of so many positions; all if `None` (Llama 4).
    pub chunk: Option<usize>,
    /// Queries, keys and values are clamped to ± this (DBRX).
    pub clip: Option<f64>,
    /// Whether the query projection has a second half for each head, whose sigmoid is multiplied with the head's result
    /// (Qwen 3 Next).
    pub gated: bool,
    /// Queries grow with the logarithm of their position (Llama 4, layers without rotation).
    pub temperature: Option<Temperature>,
}

/// A normalisation of queries and keys.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct QkNorm {
    /// Its kind.
    pub kind: NormKind,
    /// Its epsilon.
    pub eps: f64,
    /// What is normalised together.
    pub over: Over,
    /// Whether it comes after the rotation.
    pub after_rope: bool,
}

/// What a normalisation of queries and keys takes together.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// A head, with weights that all heads share.
    Head,
    /// A head, with weights of its own.
    EachHead,
    /// All heads.
    Width,
}

/// Factor of a query at position p: `1 + scale · ln(1 + floor((p + 1) / floor))`.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Temperature {
    /// `attn_scale`.
    pub scale: f64,
    /// `floor_scale`.
    pub floor: f64,
}

/// Grouped-query attention.
#[derive(Clone, Debug)]
pub struct Attention {
    config: AttentionConfig,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norms: Option<(Norm, Norm)>,
    sinks: Option<Param>,
    rope: Option<Arc<Rope>>,
}

impl Attention {
    /// Builds `attn_q`, `attn_k`, `attn_v`, `attn_output` and, where configured, `attn_q_norm`, `attn_k_norm` and
    /// `attn_sinks` under `prefix`, initialised to normal(0, 0.02). `rope` are tables made from the same configuration;
    /// layers share them.
    ///
    /// # Errors
    /// The source does not have the tensors in these shapes.
    pub fn new(
        source: &mut dyn Source,
        prefix: &str,
        config: &AttentionConfig,
        rope: Option<Arc<Rope>>,
    ) -> Result<Self> {
        let c = config;
        let init = Init::Normal { std: 0.02 };
        let (q_width, kv_width) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let mut linear =
            |name: &str, inputs, outputs, bias| Linear::new(source, &join(prefix, name), inputs, outputs, bias, init);
        let q = linear("attn_q", c.hidden, if c.gated { 2 * q_width } else { q_width }, c.qkv_bias)?;
        let k = linear("attn_k", c.hidden, kv_width, c.qkv_bias)?;
        let v = linear("attn_v", c.hidden, kv_width, c.qkv_bias)?;
        let out = linear("attn_output", q_width, c.hidden, c.out_bias)?;
        let mut norm = |name: &str, heads: usize, n: &QkNorm| {
            Norm::new(source, &join(prefix, name), &n.over.shape(heads, c.head_dim), n.kind, n.eps)
        };
        let norms = match &c.qk_norm {
            Some(n) => Some((norm("attn_q_norm", c.heads, n)?, norm("attn_k_norm", c.kv_heads, n)?)),
            None => None,
        };
        let sinks = match c.sinks {
            true => Some(source.param(&join(prefix, "attn_sinks.weight"), &[c.heads], init)?),
            false => None,
        };
        Ok(Attention { config: config.clone(), q, k, v, out, norms, sinks, rope })
    }

    /// `x[b, t, hidden]` → the same shape. With a state its first row stands at the state's length, sees what the state
    /// holds, and the state grows by `t` positions (then no gradients flow into the past); without one it stands at 0.
    ///
    /// # Errors
    /// The shapes do not fit, or the state is of another shape.
    pub fn forward(&self, x: &Tensor, state: Option<&mut KvState>) -> Result<Tensor> {
        let start = state.as_ref().map_or(0, |s| s.len());
        self.project(x, |[q, k, v]| self.attend(q, k, v, start, state))
    }

    /// `x[1, t, hidden]` → the same shape, for several texts that lie one after another in `x` and see nothing of each
    /// other; `lengths` are theirs. Each begins at position 0. So texts of any lengths are computed together without filling
    /// up the shorter ones.
    ///
    /// # Errors
    /// The shapes do not fit, or the lengths do not add up to `t`.
    pub fn forward_packed(&self, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let c = &self.config;
        let t = x.dim(1)?;
        if x.dim(0)? != 1 || lengths.iter().sum::<usize>() != t {
            let what = format!("texts of {} tokens in a tensor {:?}", lengths.iter().sum::<usize>(), x.shape());
            return Err(Error::argument("attention", what));
        }
        self.project(x, |parts| {
            let (mut first, mut all) = (0, Vec::new());
            // Texts of one length that lie side by side are a batch.
            for group in lengths.chunk_by(|a, b| a == b).filter(|group| group[0] > 0) {
                let (b, t) = (group.len(), group[0]);
                let of = |x: &Tensor| x.narrow(1, first, b * t)?.reshape([b, t, x.dim(2)?]);
                let [q, k, v] = parts;
                let y = self.attend(&of(q)?, &of(k)?, &of(v)?, 0, None)?;
                all.push(y.reshape([1, b * t, c.heads * c.head_dim])?);
                first += b * t;
            }
            match &all[..] {
                [one] => Ok(one.clone()),
                all => Tensor::cat(all, 1),
            }
        })
    }

    /// What comes before and after the attention itself, which gets queries, keys and values
    /// `[b, t, heads · head_dim]` and returns the results in the shape of the queries.
    fn project(&self, x: &Tensor, attend: impl FnOnce([&Tensor; 3]) -> Result<Tensor>) -> Result<Tensor> {
        let c = &self.config;
        let (b, t) = (x.dim(0)?, x.dim(1)?);
        let project = |linear: &Linear| -> Result<Tensor> {
            let y = linear.forward(x)?;
            match c.clip {
                Some(bound) => y.clamp(-bound, bound),
                None => Ok(y),
            }
        };
        let (mut q, mut gate) = (project(&self.q)?, None);
        if c.gated {
            let both = q.reshape([b, t, c.heads, 2 * c.head_dim])?;
            let flat = [b, t, c.heads * c.head_dim];
            gate = Some(both.narrow(3, c.head_dim, c.head_dim)?.reshape(flat)?);
            q = both.narrow(3, 0, c.head_dim)?.reshape(flat)?;
        }
        let mut y = attend([&q, &project(&self.k)?, &project(&self.v)?])?;
        if let Some(gate) = gate {
            y = y.mul(&gate.sigmoid()?)?;
        }
        self.out.forward(&y)
    }

    /// Attention of projected queries, keys and values `[b, t, heads · head_dim]`, the first row at position `start`.
    fn attend(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        start: usize,
        state: Option<&mut KvState>,
    ) -> Result<Tensor> {
        let c = &self.config;
        let (b, t) = (q.dim(0)?, q.dim(1)?);
        let (q, k) = self.place(q, k, start)?;
        let v = v.reshape([b, t, c.kv_heads, c.head_dim])?;
        let opts = AttentionOpts {
            scale: c.scale as f32,
            causal: c.causal,
            q_start: start,
            window: c.window,
            chunk: c.chunk,
            softcap: c.softcap.map(|cap| cap as f32),
        };
        let sinks = self.sinks.as_ref().map(Param::get);
        let y = match state {
            Some(state) => state.attend(&q, &k, &v, sinks.as_ref(), &opts)?,
            None => q.attention(&k, &v, sinks.as_ref(), &opts)?,
        };
        y.reshape([b, t, c.heads * c.head_dim])
    }

    /// Queries and keys `[b, t, heads, head_dim]`, normalised and turned.
    fn place(&self, q: &Tensor, k: &Tensor, start: usize) -> Result<(Tensor, Tensor)> {
        let c = &self.config;
        let (b, t) = (q.dim(0)?, q.dim(1)?);
        let (mut q, mut k) = (q.clone(), k.clone());
        let norm = |over: Over, after: bool, q: &mut Tensor, k: &mut Tensor| -> Result<()> {
            let wanted = |n: &QkNorm| n.after_rope == after && (n.over == Over::Width) == (over == Over::Width);
            if let (Some((q_norm, k_norm)), Some(true)) = (&self.norms, c.qk_norm.as_ref().map(wanted)) {
                (*q, *k) = (q_norm.forward(q)?, k_norm.forward(k)?);
            }
            Ok(())
        };
        norm(Over::Width, false, &mut q, &mut k)?;
        q = q.reshape([b, t, c.heads, c.head_dim])?;
        k = k.reshape([b, t, c.kv_heads, c.head_dim])?;
        norm(Over::Head, false, &mut q, &mut k)?;
        if let Some(rope) = &self.rope {
            (q, k) = (rope.turn(&q, start)?, rope.turn(&k, start)?);
        }
        norm(Over::Head, true, &mut q, &mut k)?;
        if let Some(Temperature { scale, floor }) = c.temperature {
            let factor = |p: usize| (1.0 + scale * (((p + 1) as f64 / floor).floor() + 1.0).ln()) as f32;
            let factors = Tensor::from_vec((start..start + t).map(factor).collect(), [t, 1, 1], q.device())?;
            q = q.mul(&factors)?;
        }
        Ok((q, k))
    }
}

impl Over {
    /// The shape of the weights for so many heads.
    pub fn shape(self, heads: usize, head_dim: usize) -> Vec<usize> {
        match self {
            Over::Head => vec![head_dim],
            Over::EachHead => vec![heads, head_dim],
            Over::Width => vec![heads * head_dim],
        }
    }
}

impl Module for Attention {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.q.slots(&join(prefix, "attn_q"), visit);
        self.k.slots(&join(prefix, "attn_k"), visit);
        self.v.slots(&join(prefix, "attn_v"), visit);
        self.out.slots(&join(prefix, "attn_output"), visit);
        if let Some((q_norm, k_norm)) = &self.norms {
            q_norm.slots(&join(prefix, "attn_q_norm"), visit);
            k_norm.slots(&join(prefix, "attn_k_norm"), visit);
        }
        if let Some(sinks) = &self.sinks {
            visit(join(prefix, "attn_sinks.weight"), Slot::Param(sinks));
        }
    }
}
