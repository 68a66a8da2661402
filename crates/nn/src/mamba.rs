use imaginal_tensor::{DType, Result, ScanInputs, Tensor};

use crate::conv::CausalConv;
use crate::decay::DecayRates;
use crate::state::tokens;
use crate::{Init, Linear, Module, Param, RecurrentState, Slot, Source, join};

/// Shape of a Mamba layer.
#[derive(Clone, Debug, PartialEq)]
pub struct MambaConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Channels of the recurrence, usually `2 · hidden`.
    pub inner: usize,
    /// State per channel.
    pub state: usize,
    /// Length of the convolution.
    pub conv: usize,
    /// Width through which the step sizes are projected.
    pub dt_rank: usize,
    /// Whether the input and output projections have biases.
    pub bias: bool,
    /// Whether the convolution has a bias.
    pub conv_bias: bool,
    /// Root-mean-square norms of what the step sizes are projected from, and of B and C.
    pub norms: Option<InnerNorms>,
    /// Layers of the whole model, by which the output projection's initial values are scaled down.
    pub layers: usize,
}

/// The norms within a Mamba layer.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct InnerNorms {
    /// Added to the mean of squares.
    pub eps: f64,
    /// Whether they have gains: those of Jamba (Lieber et al. 2024) do, those of Falcon Mamba (Zuo et al. 2024) do not.
    pub gains: bool,
}

/// The names of the gains, in the order of what they belong to.
const NORMS: [&str; 3] = ["ssm_dt_norm.weight", "ssm_b_norm.weight", "ssm_c_norm.weight"];

/// The selective state space layer of Mamba (Gu & Dao 2023, Algorithm 2 and Figure 3).
#[derive(Clone, Debug)]
pub struct Mamba {
    config: MambaConfig,
    input: Linear,
    conv: CausalConv,
    x: Linear,
    /// Gains of the inner norms: all ones where they are no parameters.
    norms: Vec<Param>,
    dt: Linear,
    a: DecayRates,
    d: Param,
    out: Linear,
}

impl Mamba {
    /// Builds the layer's tensors under `prefix`. They have the names of GGUF, but for `ssm_a_log`: the parameter is the
    /// logarithm of the decay rates, as the paper trains it, where GGUF's `ssm_a` holds `−exp` of it.
    ///
    /// Fresh values are those of the authors' implementation: the projections uniform in ±1/√inputs, the output
    /// projection divided by √layers, step sizes log-uniform in 0.001 … 0.1, `A` = −1 … −n, `D` = 1.
    ///
    /// # Errors
    /// The source does not have the tensors in these shapes.
    pub fn new(source: &mut dyn Source, prefix: &str, config: &MambaConfig) -> Result<Self> {
        let c = config;
        let uniform = |inputs: usize| Init::Uniform { bound: 1.0 / (inputs.max(1) as f64).sqrt() };
        let name = |n: &str| join(prefix, n);
        let out_bound = 1.0 / ((c.inner * c.layers).max(1) as f64).sqrt();
        let input = Linear::new(source, &name("ssm_in"), c.hidden, 2 * c.inner, c.bias, uniform(c.hidden))?;
        let conv = CausalConv::new(source, &name("ssm_conv1d"), [c.inner, c.conv], c.conv_bias, true)?;
        let x = Linear::new(source, &name("ssm_x"), c.inner, c.dt_rank + 2 * c.state, false, uniform(c.inner))?;
        let dt_weight = source.weight(&name("ssm_dt.weight"), c.inner, c.dt_rank, uniform(c.dt_rank))?;
        let steps = Init::InverseSoftplus { min: 0.001, max: 0.1 };
        let dt_bias = source.param(&name("ssm_dt.bias"), &[c.inner], steps)?;
        let mut norms = Vec::new();
        if let Some(inner) = c.norms {
            for (norm, width) in NORMS.into_iter().zip([c.dt_rank, c.state, c.state]) {
                norms.push(match inner.gains {
                    true => source.param(&name(norm), &[width], Init::Ones)?,
                    false => Param::new(Tensor::ones(width, DType::F32, &source.device())?),
                });
            }
        }
        let a = DecayRates::new(source, &name("ssm_a_log"), &[c.inner, c.state], Init::LogRange)?;
        let d = source.param(&name("ssm_d"), &[c.inner], Init::Ones)?;
        let bound = Init::Uniform { bound: out_bound };
        let out = Linear::new(source, &name("ssm_out"), c.inner, c.hidden, c.bias, bound)?;
        let dt = Linear::from_weight(dt_weight, Some(dt_bias));
        Ok(Mamba { config: c.clone(), input, conv, x, norms, dt, a, d, out })
    }

    /// `x[b, t, hidden]` → the same shape. With a state the recurrence goes on from it and the state moves by `t`
    /// positions (then no gradients flow into the past); without one it starts from zero.
    ///
    /// # Errors
    /// The shapes do not fit, or the state is of another shape.
    pub fn forward(&self, x: &Tensor, state: Option<&mut RecurrentState>) -> Result<Tensor> {
        let c = &self.config;
        let xz = self.input.forward(x)?;
        let u = xz.narrow(2, 0, c.inner)?;
        let z = xz.narrow(2, c.inner, c.inner)?;
        let y = RecurrentState::run_or_start(state, x.dim(1)?, |range, state| {
            let (u, tail) = self.conv.forward(&tokens(&u, &range)?, state.map(|s| &s[0]))?;
            let (y, h) = self.scan(&u, state.map(|s| &s[1]))?;
            Ok((y, vec![tail, h]))
        })?;
        self.out.forward(&z.swiglu(&y)?)
    }

    /// A state for `batch` sequences, before the first token.
    pub fn state(&self, batch: usize) -> RecurrentState {
        let c = &self.config;
        RecurrentState::new(vec![self.conv.tail(batch), vec![batch, c.inner, c.state]], &self.a.device())
    }

    fn scan(&self, u: &Tensor, h0: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let c = &self.config;
        let dbc = self.x.forward(u)?;
        let mut parts = dbc.split(2, &[c.dt_rank, c.state, c.state])?;
        if let Some(inner) = c.norms {
            for (part, gain) in parts.iter_mut().zip(&self.norms) {
                *part = part.rms_norm(&gain.get(), inner.eps as f32)?;
            }
        }
        let delta = self.dt.forward(&parts[0])?.softplus()?;
        let (a, d) = (self.a.get()?, self.d.get());
        let (b, out) = (&parts[1], &parts[2]);
        u.selective_scan(&ScanInputs { delta: &delta, a: &a, b, c: out, d: Some(&d), h0 })
    }
}

impl Module for Mamba {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.input.slots(&join(prefix, "ssm_in"), visit);
        self.conv.slots(&join(prefix, "ssm_conv1d"), visit);
        self.x.slots(&join(prefix, "ssm_x"), visit);
        if self.config.norms.is_some_and(|n| n.gains) {
            for (norm, gain) in NORMS.into_iter().zip(&self.norms) {
                visit(join(prefix, norm), Slot::Param(gain));
            }
        }
        self.dt.slots(&join(prefix, "ssm_dt"), visit);
        self.a.slots(&join(prefix, "ssm_a_log"), visit);
        visit(join(prefix, "ssm_d"), Slot::Param(&self.d));
        self.out.slots(&join(prefix, "ssm_out"), visit);
    }
}
