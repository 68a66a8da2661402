use std::sync::Arc;

use imaginal_tensor::{AttentionOpts, Result, Tensor};

use crate::{Init, KvState, Linear, Module, RmsNorm, Rope, RopeConfig, Slot, Source, State, join};

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
    /// Epsilon of an RMS norm over each query and key head before they are turned (Qwen 3), if there is one.
    pub qk_norm: Option<f64>,
    /// Position embedding.
    pub rope: RopeConfig,
    /// A query sees this many positions, its own among them; all if `None`.
    pub window: Option<usize>,
}

/// Causal grouped-query attention with rotary position embedding.
#[derive(Clone, Debug)]
pub struct Attention {
    config: AttentionConfig,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norms: Option<(RmsNorm, RmsNorm)>,
    rope: Arc<Rope>,
}

impl Attention {
    /// Builds `attn_q`, `attn_k`, `attn_v`, `attn_output` and, where configured, `attn_q_norm` and `attn_k_norm` under
    /// `prefix`, initialised to normal(0, 0.02). `rope` are tables made from the same configuration; layers share them.
    ///
    /// # Errors
    /// The source does not have the tensors in these shapes.
    pub fn new(source: &mut dyn Source, prefix: &str, config: &AttentionConfig, rope: Arc<Rope>) -> Result<Self> {
        let c = config;
        let init = Init::Normal { std: 0.02 };
        let (q_width, kv_width) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let mut linear =
            |name: &str, inputs, outputs, bias| Linear::new(source, &join(prefix, name), inputs, outputs, bias, init);
        let q = linear("attn_q", c.hidden, q_width, c.qkv_bias)?;
        let k = linear("attn_k", c.hidden, kv_width, c.qkv_bias)?;
        let v = linear("attn_v", c.hidden, kv_width, c.qkv_bias)?;
        let out = linear("attn_output", q_width, c.hidden, c.out_bias)?;
        let norms = match c.qk_norm {
            Some(eps) => Some((
                RmsNorm::new(source, &join(prefix, "attn_q_norm"), c.head_dim, eps)?,
                RmsNorm::new(source, &join(prefix, "attn_k_norm"), c.head_dim, eps)?,
            )),
            None => None,
        };
        Ok(Attention { config: config.clone(), q, k, v, out, norms, rope })
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
        let q = self.q.forward(x)?.reshape([b, t, c.heads, c.head_dim])?;
        let k = self.k.forward(x)?.reshape([b, t, c.kv_heads, c.head_dim])?;
        let v = self.v.forward(x)?.reshape([b, t, c.kv_heads, c.head_dim])?;
        let (q, k) = match &self.norms {
            Some((q_norm, k_norm)) => (q_norm.forward(&q)?, k_norm.forward(&k)?),
            None => (q, k),
        };
        let (q, k) = (self.rope.turn(&q, start)?, self.rope.turn(&k, start)?);
        let opts = AttentionOpts { window: c.window, ..AttentionOpts::causal(c.head_dim, start) };
        let y = match state {
            Some(state) => state.attend(&q, &k, &v, &opts)?,
            None => q.attention(&k, &v, None, &opts)?,
        };
        self.out.forward(&y.reshape([b, t, c.heads * c.head_dim])?)
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
    }
}
