use imaginal_tensor::{HeadOrder, LinearAttentionInputs, Result, Tensor};

use crate::state::tokens;
use crate::{Init, Linear, Module, RecurrentState, RmsNorm, Slot, Source, join};

/// Shape of a lightning attention layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LightningAttentionConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Heads.
    pub heads: usize,
    /// Elements of a query, a key and a value.
    pub head_dim: usize,
    /// Which layer of the model it is, from 0: later ones forget more slowly.
    pub layer: usize,
    /// Layers of the whole model.
    pub layers: usize,
    /// Of the norm of the output.
    pub eps: f64,
}

impl LightningAttentionConfig {
    /// How much the logarithm of the state of each head shrinks with a token.
    fn slopes(&self) -> impl Iterator<Item = f64> {
        let depth = 1.0 - self.layer as f64 / (self.layers as f64 - 1.0 + 1e-5) + 1e-5;
        let heads = self.heads;
        (1..=heads).map(move |i| 2f64.powf(-8.0 * i as f64 / heads as f64) * depth)
    }
}

/// Linear attention with fixed decays (Qin et al. 2024), as in MiniMax-Text-01 (MiniMax 2025, §2.2).
#[derive(Clone, Debug)]
pub struct LightningAttention {
    config: LightningAttentionConfig,
    qkv: Linear,
    /// Logarithms of the decays, `[heads]`.
    decay: Tensor,
    norm: RmsNorm,
    gate: Linear,
    out: Linear,
}

impl LightningAttention {
    /// Builds the layer's tensors under `prefix`, with the names of GGUF. The rows of `attn_qkv` are query, key and value
    /// of one head after another.
    ///
    /// # Errors
    /// The source does not have the tensors in these shapes.
    pub fn new(source: &mut dyn Source, prefix: &str, config: &LightningAttentionConfig) -> Result<Self> {
        let c = config;
        let inner = c.heads * c.head_dim;
        let init = |inputs: usize| Init::Uniform { bound: 1.0 / (inputs.max(1) as f64).sqrt() };
        let name = |n: &str| join(prefix, n);
        let qkv = Linear::new(source, &name("attn_qkv"), c.hidden, 3 * inner, false, init(c.hidden))?;
        let decay: Vec<f32> = c.slopes().map(|slope| -slope as f32).collect();
        let decay = Tensor::from_vec(decay, c.heads, &source.device())?;
        let norm = RmsNorm::new(source, &name("attn_norm_2"), inner, c.eps)?;
        let gate = Linear::new(source, &name("attn_gate"), c.hidden, inner, false, init(c.hidden))?;
        let out = Linear::new(source, &name("attn_output"), inner, c.hidden, false, init(inner))?;
        Ok(LightningAttention { config: c.clone(), qkv, decay, norm, gate, out })
    }

    /// `x[b, t, hidden]` → the same shape. With a state the recurrence goes on from it and the state moves by `t`
    /// positions (then no gradients flow into the past); without one it starts from zero.
    ///
    /// # Errors
    /// The shapes do not fit, or the state is of another shape.
    pub fn forward(&self, x: &Tensor, state: Option<&mut RecurrentState>) -> Result<Tensor> {
        let c = &self.config;
        let [b, t] = [x.dim(0)?, x.dim(1)?];
        let qkv = self.qkv.forward(x)?.silu()?.reshape([b, t, c.heads, 3 * c.head_dim])?;
        let parts = qkv.split(3, &[c.head_dim; 3])?;
        let y = RecurrentState::run_or_start(state, t, |range, state| {
            let s = LinearAttentionInputs {
                k: &tokens(&parts[1], &range)?,
                v: &tokens(&parts[2], &range)?,
                decay: &self.decay.broadcast_as([b, range.len(), c.heads])?,
                beta: None,
                state: state.map(|s| &s[0]),
                order: HeadOrder::Grouped,
            };
            let (y, last) = tokens(&parts[0], &range)?.linear_attention(&s)?;
            Ok((y, vec![last]))
        })?;
        let y = self.norm.forward(&y.reshape([b, t, c.heads * c.head_dim])?)?;
        self.out.forward(&self.gate.forward(x)?.sigmoid()?.mul(&y)?)
    }

    /// A state for `batch` sequences, before the first token.
    pub fn state(&self, batch: usize) -> RecurrentState {
        let c = &self.config;
        RecurrentState::new(vec![vec![batch, c.heads, c.head_dim, c.head_dim]], self.decay.device())
    }
}

impl Module for LightningAttention {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.qkv.slots(&join(prefix, "attn_qkv"), visit);
        self.norm.slots(&join(prefix, "attn_norm_2"), visit);
        self.gate.slots(&join(prefix, "attn_gate"), visit);
        self.out.slots(&join(prefix, "attn_output"), visit);
    }
}
