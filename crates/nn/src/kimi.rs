use imaginal_tensor::{HeadOrder, LinearAttentionInputs, Result, Tensor};

use crate::conv::CausalConv;
use crate::decay::DecayRates;
use crate::delta::UnitLength;
use crate::state::tokens;
use crate::{Init, Linear, Module, Param, RecurrentState, RmsNorm, Slot, Source, join};

/// Shape of a Kimi delta attention layer.
#[derive(Clone, Debug, PartialEq)]
pub struct KimiDeltaAttentionConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Heads.
    pub heads: usize,
    /// Elements of a query, a key and a value, and width through which decays and gates are projected.
    pub head_dim: usize,
    /// Length of the convolutions.
    pub conv: usize,
    /// Of the norm of the output.
    pub eps: f64,
}

/// The gated delta rule with a decay for each key element (Kimi Team 2025, Kimi Linear).
#[derive(Clone, Debug)]
pub struct KimiDeltaAttention {
    config: KimiDeltaAttentionConfig,
    /// Queries, keys, values.
    qkv: [(Linear, CausalConv); 3],
    /// Through the two of them decays are projected.
    forget: [Linear; 2],
    dt_bias: Param,
    a: DecayRates,
    beta: Linear,
    /// Through the two of them the gate of the output is projected.
    gate: [Linear; 2],
    query: UnitLength,
    key: UnitLength,
    norm: RmsNorm,
    out: Linear,
}

const QKV: [[&str; 2]; 3] = [["attn_q", "ssm_conv1d_q"], ["attn_k", "ssm_conv1d_k"], ["attn_v", "ssm_conv1d_v"]];
const FORGET: [&str; 2] = ["ssm_f_a", "ssm_f_b"];
const GATE: [&str; 2] = ["ssm_g_a", "ssm_g_b"];

impl KimiDeltaAttention {
    /// Builds the layer's tensors under `prefix`, with the names of GGUF, but for `ssm_a_log` `[heads, 1]`: the parameter
    /// is the logarithm of the decay rates, where GGUF's `ssm_a` holds `−exp` of it. Convolutions are `[channels, conv]`.
    ///
    /// # Errors
    /// The source does not have the tensors in these shapes.
    pub fn new(source: &mut dyn Source, prefix: &str, config: &KimiDeltaAttentionConfig) -> Result<Self> {
        let c = config;
        let inner = c.heads * c.head_dim;
        let name = |n: &str| join(prefix, n);
        fn linear(source: &mut dyn Source, name: &str, inputs: usize, outputs: usize) -> Result<Linear> {
            let bound = 1.0 / (inputs.max(1) as f64).sqrt();
            Linear::new(source, name, inputs, outputs, false, Init::Uniform { bound })
        }
        let mut qkv = |[projection, conv]: [&str; 2]| -> Result<(Linear, CausalConv)> {
            let projection = linear(source, &name(projection), c.hidden, inner)?;
            Ok((projection, CausalConv::new(source, &name(conv), [inner, c.conv], false, true)?))
        };
        let qkv = [qkv(QKV[0])?, qkv(QKV[1])?, qkv(QKV[2])?];
        let mut narrow = |[down, up]: [&str; 2]| -> Result<[Linear; 2]> {
            let down = linear(source, &name(down), c.hidden, c.head_dim)?;
            Ok([down, linear(source, &name(up), c.head_dim, inner)?])
        };
        let (forget, gate) = (narrow(FORGET)?, narrow(GATE)?);
        let steps = Init::InverseSoftplus { min: 0.001, max: 0.1 };
        let dt_bias = source.param(&name("ssm_dt.bias"), &[inner], steps)?;
        let rates = Init::LogUniform { min: 1.0, max: 16.0 };
        let a = DecayRates::new(source, &name("ssm_a_log"), &[c.heads, 1], rates)?;
        let beta = linear(source, &name("ssm_beta"), c.hidden, c.heads)?;
        let query = UnitLength::new(c.head_dim, 1.0 / (c.head_dim as f64).sqrt(), source)?;
        let key = UnitLength::new(c.head_dim, 1.0, source)?;
        let norm = RmsNorm::new(source, &name("ssm_norm"), c.head_dim, c.eps)?;
        let out = linear(source, &name("attn_output"), inner, c.hidden)?;
        Ok(KimiDeltaAttention { config: c.clone(), qkv, forget, dt_bias, a, beta, gate, query, key, norm, out })
    }

    /// `x[b, t, hidden]` → the same shape. With a state the recurrence goes on from it and the state moves by `t`
    /// positions (then no gradients flow into the past); without one it starts from zero.
    ///
    /// # Errors
    /// The shapes do not fit, or the state is of another shape.
    pub fn forward(&self, x: &Tensor, state: Option<&mut RecurrentState>) -> Result<Tensor> {
        let c = &self.config;
        let [b, t] = [x.dim(0)?, x.dim(1)?];
        let heads = |x: &Tensor| x.reshape([b, x.dim(1)?, c.heads, c.head_dim]);
        let through = |pair: &[Linear; 2]| pair[1].forward(&pair[0].forward(x)?);
        let decay = heads(&through(&self.forget)?.add(&self.dt_bias.get())?.softplus()?)?.mul(&self.a.get()?)?;
        let beta = self.beta.forward(x)?.sigmoid()?;
        let qkv = self.qkv.each_ref().map(|(projection, _)| projection.forward(x));
        let [q, k, v] = qkv;
        let qkv = [q?, k?, v?];
        let y = RecurrentState::run_or_start(state, t, |range, state| {
            let mut after = Vec::new();
            let mut parts = Vec::new();
            for (i, (x, (_, conv))) in qkv.iter().zip(&self.qkv).enumerate() {
                let (part, tail) = conv.forward(&tokens(x, &range)?, state.map(|s| &s[i]))?;
                parts.push(heads(&part)?);
                after.push(tail);
            }
            let s = LinearAttentionInputs {
                k: &self.key.forward(&parts[1])?,
                v: &parts[2],
                decay: &tokens(&decay, &range)?,
                beta: Some(&tokens(&beta, &range)?),
                state: state.map(|s| &s[3]),
                order: HeadOrder::Grouped,
            };
            let (y, last) = self.query.forward(&parts[0])?.linear_attention(&s)?;
            after.push(last);
            Ok((y, after))
        })?;
        let y = self.norm.forward(&y)?.mul(&heads(&through(&self.gate)?.sigmoid()?)?)?;
        self.out.forward(&y.reshape([b, t, c.heads * c.head_dim])?)
    }

    /// A state for `batch` sequences, before the first token.
    pub fn state(&self, batch: usize) -> RecurrentState {
        let c = &self.config;
        let mut shapes: Vec<Vec<usize>> = self.qkv.iter().map(|(_, conv)| conv.tail(batch)).collect();
        shapes.push(vec![batch, c.heads, c.head_dim, c.head_dim]);
        RecurrentState::new(shapes, &self.a.device())
    }
}

impl Module for KimiDeltaAttention {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        for ([projection, conv], slots) in QKV.into_iter().zip(&self.qkv) {
            slots.0.slots(&join(prefix, projection), visit);
            slots.1.slots(&join(prefix, conv), visit);
        }
        for (names, pair) in [(FORGET, &self.forget), (GATE, &self.gate)] {
            for (name, linear) in names.into_iter().zip(pair) {
                linear.slots(&join(prefix, name), visit);
            }
        }
        visit(join(prefix, "ssm_dt.bias"), Slot::Param(&self.dt_bias));
        self.a.slots(&join(prefix, "ssm_a_log"), visit);
        self.beta.slots(&join(prefix, "ssm_beta"), visit);
        self.norm.slots(&join(prefix, "ssm_norm"), visit);
        self.out.slots(&join(prefix, "attn_output"), visit);
    }
}
