use std::sync::Arc;

use imaginal_tensor::{AttentionOpts, Result, Tensor};

use crate::{Activation, Init, KvState, Linear, Module, Norm, NormKind, Rope, RopeConfig, Slot, Source, State, join};

/// Shape of a transformer block that several places of a model share.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedBlockConfig {
    /// Width of the residual stream; the block reads twice as much.
    pub hidden: usize,
    /// Query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor of the scores.
    pub scale: f64,
    /// Position embedding; `None` where positions are not told.
    pub rope: Option<RopeConfig>,
    /// Width between the matrices of the feed-forward network.
    pub inner: usize,
    /// The function between them, behind a gate.
    pub activation: Activation,
    /// Whether they have biases.
    pub bias: bool,
    /// Width of the adapters, which are a place's own.
    pub rank: usize,
    /// Whether queries, keys and values have adapters, and not the feed-forward network alone.
    pub attention_adapters: bool,
    /// Of the norms.
    pub eps: f64,
    /// The numbers of the places that share the block, of all such places of the model.
    pub places: Vec<usize>,
    /// Which of those this is, from 0. The tensors belong to the first.
    pub place: usize,
    /// The layer of the first.
    pub first: usize,
}

/// One place of a transformer block that several places of a model share (Zamba 2, Glorioso et al. 2024): attention over the
/// residual stream beside the embedding, then a feed-forward network of what attention returns, without a residual between
/// them. What differs from place to place is an adapter of low rank beside each projection, and a projection at the end.
#[derive(Clone, Debug)]
pub struct SharedBlock {
    core: Arc<Core>,
    place: usize,
    out: Linear,
}

/// What the places share, with the adapters of all of them.
#[derive(Debug)]
struct Core {
    config: SharedBlockConfig,
    norm: Norm,
    qkv: [Adapted; 3],
    attn_out: Linear,
    ffn_norm: Norm,
    /// The rows of the gate, then of what it is multiplied with.
    gate_up: Adapted,
    down: Linear,
    rope: Option<Arc<Rope>>,
}

/// A projection with an adapter for each place.
#[derive(Debug)]
struct Adapted {
    name: &'static str,
    base: Linear,
    adapters: Vec<[Linear; 2]>,
}

impl Adapted {
    fn forward(&self, x: &Tensor, place: usize) -> Result<Tensor> {
        let y = self.base.forward(x)?;
        match self.adapters.get(place) {
            Some([down, up]) => y.add(&up.forward(&down.forward(x)?)?),
            None => Ok(y),
        }
    }

    fn slots(&self, prefix: &str, places: &[usize], visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.base.slots(&join(prefix, self.name), visit);
        for ([down, up], n) in self.adapters.iter().zip(places) {
            down.slots(&join(prefix, &format!("{}_a.{n}", self.name)), visit);
            up.slots(&join(prefix, &format!("{}_b.{n}", self.name)), visit);
        }
    }
}

const INIT: Init = Init::Normal { std: 0.02 };

impl SharedBlock {
    /// Builds the first place: `shared.attn_norm`, `attn_q`, `attn_k`, `attn_v`, `attn_output`, `ffn_norm`, `ffn_gate_up` and
    /// `ffn_down` under `prefix`, adapters `_a.N` and `_b.N` beside them for each place, and `shared_out`; initialised to
    /// normal(0, 0.02). `rope` are tables made from the same configuration.
    ///
    /// # Errors
    /// The source does not have the tensors in these shapes.
    pub fn new(
        source: &mut dyn Source,
        prefix: &str,
        config: &SharedBlockConfig,
        rope: Option<Arc<Rope>>,
    ) -> Result<Self> {
        let c = config;
        let name = |n: &str| join(prefix, &format!("shared.{n}"));
        let mut norm = |n: &str, width| Norm::new(source, &name(n), &[width], NormKind::Rms, c.eps);
        let (attn_norm, ffn_norm) = (norm("attn_norm", 2 * c.hidden)?, norm("ffn_norm", c.hidden)?);
        let mut linear = |n: &str, inputs, outputs, bias| Linear::new(source, &name(n), inputs, outputs, bias, INIT);
        let mut adapted = |n: &'static str, inputs, outputs, bias, with: bool| -> Result<Adapted> {
            let base = linear(n, inputs, outputs, bias)?;
            let adapter = |place: &usize| -> Result<[Linear; 2]> {
                let down = linear(&format!("{n}_a.{place}"), inputs, c.rank, false)?;
                Ok([down, linear(&format!("{n}_b.{place}"), c.rank, outputs, false)?])
            };
            let adapters = c.places.iter().filter(|_| with).map(adapter).collect::<Result<_>>()?;
            Ok(Adapted { name: n, base, adapters })
        };
        let (both, q_width, kv_width) = (2 * c.hidden, c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let mut of_attention = |n, outputs| adapted(n, both, outputs, false, c.attention_adapters);
        let qkv =
            [of_attention("attn_q", q_width)?, of_attention("attn_k", kv_width)?, of_attention("attn_v", kv_width)?];
        let gate_up = adapted("ffn_gate_up", c.hidden, 2 * c.inner, c.bias, true)?;
        let attn_out = linear("attn_output", q_width, c.hidden, false)?;
        let down = linear("ffn_down", c.inner, c.hidden, c.bias)?;
        let core = Core { config: c.clone(), norm: attn_norm, qkv, attn_out, ffn_norm, gate_up, down, rope };
        SharedBlock::at(Arc::new(core), source, prefix, 0)
    }

    /// Builds another place of the same block: `shared_out` under `prefix`.
    ///
    /// # Errors
    /// The source does not have it.
    pub fn again(&self, source: &mut dyn Source, prefix: &str, place: usize) -> Result<Self> {
        SharedBlock::at(self.core.clone(), source, prefix, place)
    }

    fn at(core: Arc<Core>, source: &mut dyn Source, prefix: &str, place: usize) -> Result<Self> {
        let hidden = core.config.hidden;
        let out = Linear::new(source, &join(prefix, "shared_out"), hidden, hidden, false, INIT)?;
        Ok(SharedBlock { core, place, out })
    }

    /// `x[b, t, hidden]` and the embeddings of the same tokens → the same shape. With a state its first row stands at the
    /// state's length, sees what the state holds, and the state grows by `t` positions (then no gradients flow into the
    /// past); without one it stands at 0. Each place has a state of its own.
    ///
    /// # Errors
    /// The shapes do not fit, or the state is of another shape.
    pub fn forward(&self, x: &Tensor, embedded: &Tensor, state: Option<&mut KvState>) -> Result<Tensor> {
        let (core, place) = (&*self.core, self.place);
        let c = &core.config;
        let (b, t) = (x.dim(0)?, x.dim(1)?);
        let start = state.as_ref().map_or(0, |s| s.len());
        let x = core.norm.forward(&Tensor::cat(&[x, embedded], 2)?)?;
        let project = |i: usize, heads: usize| core.qkv[i].forward(&x, place)?.reshape([b, t, heads, c.head_dim]);
        let (mut q, mut k, v) = (project(0, c.heads)?, project(1, c.kv_heads)?, project(2, c.kv_heads)?);
        if let Some(rope) = &core.rope {
            (q, k) = (rope.turn(&q, start)?, rope.turn(&k, start)?);
        }
        let opts = AttentionOpts {
            scale: c.scale as f32,
            causal: true,
            q_start: start,
            window: None,
            chunk: None,
            softcap: None,
        };
        let y = match state {
            Some(state) => state.attend(&q, &k, &v, None, &opts)?,
            None => q.attention(&k, &v, None, &opts)?,
        };
        let y = core.ffn_norm.forward(&core.attn_out.forward(&y.reshape([b, t, c.heads * c.head_dim])?)?)?;
        let parts = core.gate_up.forward(&y, place)?.split(2, &[c.inner; 2])?;
        self.out.forward(&core.down.forward(&c.activation.gate(&parts[0], &parts[1])?)?)
    }
}

impl Module for SharedBlock {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        if self.place == 0 {
            let (core, prefix) = (&*self.core, &join(prefix, "shared"));
            core.norm.slots(&join(prefix, "attn_norm"), visit);
            for projection in core.qkv.iter().chain([&core.gate_up]) {
                projection.slots(prefix, &core.config.places, visit);
            }
            core.attn_out.slots(&join(prefix, "attn_output"), visit);
            core.ffn_norm.slots(&join(prefix, "ffn_norm"), visit);
            core.down.slots(&join(prefix, "ffn_down"), visit);
        }
        self.out.slots(&join(prefix, "shared_out"), visit);
    }
}
