use imaginal_tensor::{DType, Error, HeadOrder, LinearAttentionInputs, Result, Tensor};

use crate::conv::CausalConv;
use crate::decay::DecayRates;
use crate::state::tokens;
use crate::{Init, Linear, Module, Param, RecurrentState, RmsNorm, Slot, Source, join};

/// Shape of a gated DeltaNet layer.
#[derive(Clone, Debug, PartialEq)]
pub struct GatedDeltaNetConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Heads of queries and keys.
    pub key_heads: usize,
    /// Heads of values, a multiple of the former.
    pub value_heads: usize,
    /// Elements of a query and a key.
    pub key_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// Length of the convolution.
    pub conv: usize,
    /// Which key head belongs to a value head: `Grouped` as the authors train it; GGUF files of Qwen3.5 are `Tiled`.
    pub order: HeadOrder,
    /// How queries, keys, values and the gate are projected: `ssm_in`, or `attn_qkv` and `attn_gate`.
    pub qkvz: Projections,
    /// How step sizes and decays are projected: `ssm_ba`, or `ssm_beta` and `ssm_alpha`.
    pub beta_alpha: Projections,
    /// Of the norm of the output.
    pub eps: f64,
}

/// Whether a layer's projections are matrices of their own.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Projections {
    /// One matrix, in whose rows the parts of a key head with its value heads lie together, one key head after another.
    Fused,
    /// A matrix for each.
    Split,
}

/// Normalises queries or keys of `dim` elements to the length `1`, times `scale`.
#[derive(Clone, Debug)]
pub(crate) struct UnitLength {
    gain: Tensor,
    eps: f32,
}

impl UnitLength {
    /// Added to the sum of squares by all that use the delta rule.
    const EPS: f64 = 1e-6;

    pub fn new(dim: usize, scale: f64, source: &dyn Source) -> Result<Self> {
        // A root-mean-square norm divides by √(mean + eps), which is √(sum + dim·eps) / √dim.
        let gain = Tensor::full(dim, scale / (dim as f64).sqrt(), DType::F32, &source.device())?;
        Ok(UnitLength { gain, eps: (Self::EPS / dim as f64) as f32 })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.rms_norm(&self.gain, self.eps)
    }
}

/// The gated delta rule as a layer (Yang, Kautz & Hatamizadeh 2024), as Qwen3-Next and Qwen3.5 have it.
#[derive(Clone, Debug)]
pub struct GatedDeltaNet {
    config: GatedDeltaNetConfig,
    /// One matrix, or queries, keys and values, and the gate.
    qkvz: Vec<Linear>,
    /// One matrix, or β and α.
    beta_alpha: Vec<Linear>,
    conv: CausalConv,
    dt_bias: Param,
    a: DecayRates,
    query: UnitLength,
    key: UnitLength,
    norm: RmsNorm,
    out: Linear,
}

impl GatedDeltaNetConfig {
    fn keys(&self) -> usize {
        self.key_heads * self.key_dim
    }

    fn values(&self) -> usize {
        self.value_heads * self.value_dim
    }
}

const QKVZ: (&str, [&str; 2]) = ("ssm_in", ["attn_qkv", "attn_gate"]);
const BETA_ALPHA: (&str, [&str; 2]) = ("ssm_ba", ["ssm_beta", "ssm_alpha"]);

/// The names of a projection's matrices.
fn names((fused, split): (&'static str, [&'static str; 2]), how: Projections) -> Vec<&'static str> {
    match how {
        Projections::Fused => vec![fused],
        Projections::Split => split.to_vec(),
    }
}

impl GatedDeltaNet {
    /// Builds the layer's tensors under `prefix`, with the names of GGUF, but for `ssm_a_log` `[value_heads]`: the
    /// parameter is the logarithm of the decay rates, where GGUF's `ssm_a` holds `−exp` of it.
    ///
    /// # Errors
    /// The source does not have the tensors in these shapes, or the heads have no equal shares.
    pub fn new(source: &mut dyn Source, prefix: &str, config: &GatedDeltaNetConfig) -> Result<Self> {
        let c = config;
        if c.key_heads == 0 || !c.value_heads.is_multiple_of(c.key_heads) {
            let heads = format!("{} heads of values are no multiple of {} of keys", c.value_heads, c.key_heads);
            return Err(Error::argument("gated_delta_net", heads));
        }
        let init = Init::Uniform { bound: 1.0 / (c.hidden.max(1) as f64).sqrt() };
        let name = |n: &str| join(prefix, n);
        let mut project = |(names, widths): (Vec<&str>, [usize; 2])| -> Result<Vec<Linear>> {
            let widths = if names.len() == 1 { vec![widths[0] + widths[1]] } else { widths.to_vec() };
            let each = names.iter().zip(widths);
            each.map(|(n, width)| Linear::new(source, &name(n), c.hidden, width, false, init)).collect()
        };
        let qkv = 2 * c.keys() + c.values();
        let qkvz = project((names(QKVZ, c.qkvz), [qkv, c.values()]))?;
        let beta_alpha = project((names(BETA_ALPHA, c.beta_alpha), [c.value_heads; 2]))?;
        let conv = CausalConv::new(source, &name("ssm_conv1d"), [qkv, c.conv], false, true)?;
        let steps = Init::InverseSoftplus { min: 0.001, max: 0.1 };
        let dt_bias = source.param(&name("ssm_dt.bias"), &[c.value_heads], steps)?;
        let rates = Init::LogUniform { min: 0.01, max: 16.0 };
        let a = DecayRates::new(source, &name("ssm_a_log"), &[c.value_heads], rates)?;
        let query = UnitLength::new(c.key_dim, 1.0 / (c.key_dim as f64).sqrt(), source)?;
        let key = UnitLength::new(c.key_dim, 1.0, source)?;
        let norm = RmsNorm::new(source, &name("ssm_norm"), c.value_dim, c.eps)?;
        let bound = 1.0 / (c.values().max(1) as f64).sqrt();
        let out = Linear::new(source, &name("ssm_out"), c.values(), c.hidden, false, Init::Uniform { bound })?;
        Ok(GatedDeltaNet { config: c.clone(), qkvz, beta_alpha, conv, dt_bias, a, query, key, norm, out })
    }

    /// `x[b, t, hidden]` → the same shape. With a state the recurrence goes on from it and the state moves by `t`
    /// positions (then no gradients flow into the past); without one it starts from zero.
    ///
    /// # Errors
    /// The shapes do not fit, or the state is of another shape.
    pub fn forward(&self, x: &Tensor, state: Option<&mut RecurrentState>) -> Result<Tensor> {
        let c = &self.config;
        let [b, t] = [x.dim(0)?, x.dim(1)?];
        let (qkv, z) = self.project_qkvz(x)?;
        let (beta, alpha) = self.project_beta_alpha(x)?;
        let beta = beta.sigmoid()?;
        let decay = alpha.add(&self.dt_bias.get())?.softplus()?.mul(&self.a.get()?)?;
        let y = RecurrentState::run_or_start(state, t, |range, state| {
            let (u, tail) = self.conv.forward(&tokens(&qkv, &range)?, state.map(|s| &s[0]))?;
            let parts = u.split(2, &[c.keys(), c.keys(), c.values()])?;
            let heads = |x: &Tensor, heads, dim| x.reshape([b, range.len(), heads, dim]);
            let s = LinearAttentionInputs {
                k: &self.key.forward(&heads(&parts[1], c.key_heads, c.key_dim)?)?,
                v: &heads(&parts[2], c.value_heads, c.value_dim)?,
                decay: &tokens(&decay, &range)?,
                beta: Some(&tokens(&beta, &range)?),
                state: state.map(|s| &s[1]),
                order: c.order,
            };
            let q = self.query.forward(&heads(&parts[0], c.key_heads, c.key_dim)?)?;
            let (y, last) = q.linear_attention(&s)?;
            Ok((y, vec![tail, last]))
        })?;
        let y = self.norm.forward(&y)?.reshape([b, t, c.values()])?;
        self.out.forward(&z.swiglu(&y)?)
    }

    /// A state for `batch` sequences, before the first token.
    pub fn state(&self, batch: usize) -> RecurrentState {
        let c = &self.config;
        let shapes = vec![self.conv.tail(batch), vec![batch, c.value_heads, c.key_dim, c.value_dim]];
        RecurrentState::new(shapes, &self.a.device())
    }

    /// Queries, keys and values side by side, and the gate.
    fn project_qkvz(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let c = &self.config;
        let [fused] = self.qkvz.as_slice() else {
            return Ok((self.qkvz[0].forward(x)?, self.qkvz[1].forward(x)?));
        };
        let share = c.values() / c.key_heads;
        let parts = by_key_head(&fused.forward(x)?, c.key_heads, &[c.key_dim, c.key_dim, share, share])?;
        Ok((Tensor::cat(&parts[..3], 2)?, parts[3].clone()))
    }

    fn project_beta_alpha(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let c = &self.config;
        let [fused] = self.beta_alpha.as_slice() else {
            return Ok((self.beta_alpha[0].forward(x)?, self.beta_alpha[1].forward(x)?));
        };
        let share = c.value_heads / c.key_heads;
        let parts = by_key_head(&fused.forward(x)?, c.key_heads, &[share, share])?;
        Ok((parts[0].clone(), parts[1].clone()))
    }
}

/// The parts of `x[b, t, heads · Σ widths]`, in which those of a head lie together: each `[b, t, heads · width]`.
fn by_key_head(x: &Tensor, heads: usize, widths: &[usize]) -> Result<Vec<Tensor>> {
    let [b, t] = [x.dim(0)?, x.dim(1)?];
    let parts = x.reshape([b, t, heads, widths.iter().sum()])?.split(3, widths)?;
    parts.iter().zip(widths).map(|(part, width)| part.reshape([b, t, heads * width])).collect()
}

impl Module for GatedDeltaNet {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        let c = &self.config;
        for (name, linear) in names(QKVZ, c.qkvz).into_iter().zip(&self.qkvz) {
            linear.slots(&join(prefix, name), visit);
        }
        for (name, linear) in names(BETA_ALPHA, c.beta_alpha).into_iter().zip(&self.beta_alpha) {
            linear.slots(&join(prefix, name), visit);
        }
        self.conv.slots(&join(prefix, "ssm_conv1d"), visit);
        visit(join(prefix, "ssm_dt.bias"), Slot::Param(&self.dt_bias));
        self.a.slots(&join(prefix, "ssm_a_log"), visit);
        self.norm.slots(&join(prefix, "ssm_norm"), visit);
        self.out.slots(&join(prefix, "ssm_out"), visit);
    }
}
