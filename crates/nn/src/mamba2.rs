use imaginal_tensor::{DType, Error, HeadOrder, LinearAttentionInputs, Result, Tensor};

use crate::conv::CausalConv;
use crate::decay::DecayRates;
use crate::state::tokens;
use crate::{Activation, Init, Linear, Module, Param, RecurrentState, Slot, Source, join};

/// Shape of a Mamba-2 layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Mamba2Config {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Channels of the recurrence, those of all heads.
    pub inner: usize,
    /// Heads, each with a decay rate of its own.
    pub heads: usize,
    /// Groups of heads that share B and C.
    pub groups: usize,
    /// State per channel.
    pub state: usize,
    /// Length of the convolution.
    pub conv: usize,
    /// Whether the input projection has a bias.
    pub in_bias: bool,
    /// Whether the output projection has a bias.
    pub out_bias: bool,
    /// Whether the convolution has a bias.
    pub conv_bias: bool,
    /// The function after the convolution, usually [`Activation::Silu`].
    pub activation: Activation,
    /// The norm beside the gate; `None` for the gate alone.
    pub norm: Option<GatedNorm>,
    /// The range that step sizes are kept in.
    pub dt_limits: (f64, f64),
    /// Constant factors of the input projection.
    pub scales: Option<Mamba2Scales>,
    /// Layers of the whole model, by which the output projection's initial values are scaled down.
    pub layers: usize,
}

/// A root-mean-square norm beside a gate.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct GatedNorm {
    /// Added to the mean of squares.
    pub eps: f64,
    /// Equal parts of the channels that are normalised by themselves; 1 for all together.
    pub groups: usize,
    /// Whether the gate comes after the norm and not before it.
    pub before_gate: bool,
}

/// Factors that Falcon-H1 multiplies the input projection with (Zuo et al. 2025, after Yang et al. 2022).
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Mamba2Scales {
    /// Of the layer's input.
    pub input: f64,
    /// Of the parts of what the projection makes of it: gate, x, B, C, step sizes.
    pub parts: [f64; 5],
}

/// The state space layer of Mamba-2 (Dao & Gu 2024, §7).
#[derive(Clone, Debug)]
pub struct Mamba2 {
    config: Mamba2Config,
    input: Linear,
    /// The factors of the parts of the projection, one of each output.
    scales: Option<Tensor>,
    conv: CausalConv,
    dt_bias: Param,
    a: DecayRates,
    d: Param,
    norm: Option<Param>,
    /// The gain of a norm by groups, which follows as a product with `norm`.
    ones: Tensor,
    out: Linear,
}

impl Mamba2 {
    /// Builds the layer's tensors under `prefix`, with the names and shapes of GGUF, but for `ssm_a_log` `[heads, 1]`: the
    /// parameter is the logarithm of the decay rates, where GGUF's `ssm_a` holds `−exp` of it.
    ///
    /// Fresh values are those of the authors' implementation: the projections uniform in ±1/√inputs, the output
    /// projection divided by √layers, step sizes log-uniform in 0.001 … 0.1, `A` uniform in −16 … −1, `D` = 1.
    ///
    /// # Errors
    /// The source does not have the tensors in these shapes, or the heads have no equal shares.
    pub fn new(source: &mut dyn Source, prefix: &str, config: &Mamba2Config) -> Result<Self> {
        let c = config;
        let norm_groups = c.norm.map_or(1, |n| n.groups);
        let divides = |n: usize, of: usize| n > 0 && of.is_multiple_of(n);
        if !(divides(c.heads, c.inner) && divides(c.groups, c.heads) && divides(norm_groups, c.inner)) {
            let sizes = format!("{} channels in {} heads of {} groups", c.inner, c.heads, c.groups);
            return Err(Error::argument(
                "mamba2",
                format!("{sizes}, with {norm_groups} of the norm, have no equal shares"),
            ));
        }
        let uniform = |inputs: usize| Init::Uniform { bound: 1.0 / (inputs.max(1) as f64).sqrt() };
        let name = |n: &str| join(prefix, n);
        let shared = c.groups * c.state;
        let projected = 2 * c.inner + 2 * shared + c.heads;
        let input = Linear::new(source, &name("ssm_in"), c.hidden, projected, c.in_bias, uniform(c.hidden))?;
        let channels = c.inner + 2 * shared;
        let conv = CausalConv::new(
            source,
            &name("ssm_conv1d"),
            [channels, c.conv],
            c.conv_bias,
            c.activation == Activation::Silu,
        )?;
        let steps = Init::InverseSoftplus { min: 0.001, max: 0.1 };
        let dt_bias = source.param(&name("ssm_dt.bias"), &[c.heads], steps)?;
        let rates = Init::LogUniform { min: 1.0, max: 16.0 };
        let a = DecayRates::new(source, &name("ssm_a_log"), &[c.heads, 1], rates)?;
        let d = source.param(&name("ssm_d"), &[c.heads, 1], Init::Ones)?;
        let norm = match c.norm {
            Some(_) => {
                Some(source.param(&name("ssm_norm.weight"), &[norm_groups, c.inner / norm_groups], Init::Ones)?)
            }
            None => None,
        };
        let ones = Tensor::ones(c.inner / norm_groups, DType::F32, &source.device())?;
        let scales = c.scales.map(|s| {
            let widths = [c.inner, c.inner, shared, shared, c.heads];
            let of = |(&x, n): (&f64, usize)| std::iter::repeat_n(x as f32, n);
            let all: Vec<f32> = s.parts.iter().zip(widths).flat_map(of).collect();
            Tensor::from_vec(all, projected, &source.device())
        });
        let scales = scales.transpose()?;
        let out = uniform(c.inner * c.layers);
        let out = Linear::new(source, &name("ssm_out"), c.inner, c.hidden, c.out_bias, out)?;
        Ok(Mamba2 { config: c.clone(), input, scales, conv, dt_bias, a, d, norm, ones, out })
    }

    /// `x[b, t, hidden]` → the same shape. With a state the recurrence goes on from it and the state moves by `t`
    /// positions (then no gradients flow into the past); without one it starts from zero.
    ///
    /// # Errors
    /// The shapes do not fit, or the state is of another shape.
    pub fn forward(&self, x: &Tensor, state: Option<&mut RecurrentState>) -> Result<Tensor> {
        let c = &self.config;
        let projected = match (c.scales, &self.scales) {
            (Some(s), Some(parts)) => self.input.forward(&x.mul_scalar(s.input)?)?.mul(parts)?,
            _ => self.input.forward(x)?,
        };
        let parts = projected.split(2, &[c.inner, c.inner + 2 * c.groups * c.state, c.heads])?;
        let mut delta = parts[2].add(&self.dt_bias.get())?.softplus()?;
        let (low, high) = c.dt_limits;
        if low > 0.0 || high < f64::INFINITY {
            delta = delta.clamp(low, high)?;
        }
        let decay = delta.mul(&self.a.get()?.reshape(c.heads)?)?;
        let y = RecurrentState::run_or_start(state, x.dim(1)?, |range, state| {
            let (u, tail) = self.conv.forward(&tokens(&parts[1], &range)?, state.map(|s| &s[0]))?;
            let u = if c.activation == Activation::Silu { u } else { c.activation.apply(&u)? };
            let steps = [tokens(&delta, &range)?, tokens(&decay, &range)?];
            let (y, h) = self.recur(&u, steps, state.map(|s| &s[1]))?;
            Ok((y, vec![tail, h]))
        })?;
        self.out.forward(&self.gate(&y, &parts[0])?)
    }

    /// A state for `batch` sequences, before the first token.
    pub fn state(&self, batch: usize) -> RecurrentState {
        let c = &self.config;
        let shapes = vec![self.conv.tail(batch), vec![batch, c.heads, c.state, c.inner / c.heads]];
        RecurrentState::new(shapes, &self.a.device())
    }

    /// The recurrence over what the convolution returns; `steps` are the step sizes, and them times the rates.
    fn recur(&self, u: &Tensor, steps: [Tensor; 2], state: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let c = &self.config;
        let [b, t] = [u.dim(0)?, u.dim(1)?];
        let [delta, decay] = steps;
        let parts = u.split(2, &[c.inner, c.groups * c.state, c.groups * c.state])?;
        let x = parts[0].reshape([b, t, c.heads, c.inner / c.heads])?;
        let shared = |x: &Tensor| x.reshape([b, t, c.groups, c.state]);
        let s = LinearAttentionInputs {
            k: &shared(&parts[1])?,
            v: &x.mul(&delta.unsqueeze(3)?)?,
            decay: &decay,
            beta: None,
            state,
            order: HeadOrder::Grouped,
        };
        let (y, last) = shared(&parts[2])?.linear_attention(&s)?;
        Ok((y.add(&x.mul(&self.d.get())?)?.reshape([b, t, c.inner])?, last))
    }

    fn gate(&self, y: &Tensor, gate: &Tensor) -> Result<Tensor> {
        match (self.config.norm, &self.norm) {
            (Some(norm), Some(weight)) if norm.before_gate => gate.swiglu(&self.normalise(y, weight, norm)?),
            (Some(norm), Some(weight)) => self.normalise(&gate.swiglu(y)?, weight, norm),
            _ => gate.swiglu(y),
        }
    }

    fn normalise(&self, y: &Tensor, weight: &Param, norm: GatedNorm) -> Result<Tensor> {
        let (weight, eps) = (weight.get(), norm.eps as f32);
        if let &[1, width] = weight.shape() {
            return y.rms_norm(&weight.reshape(width)?, eps);
        }
        let parts = y.reshape([y.dim(0)?, y.dim(1)?, weight.dim(0)?, weight.dim(1)?])?;
        parts.rms_norm(&self.ones, eps)?.mul(&weight)?.reshape(y.shape())
    }
}

impl Module for Mamba2 {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.input.slots(&join(prefix, "ssm_in"), visit);
        self.conv.slots(&join(prefix, "ssm_conv1d"), visit);
        visit(join(prefix, "ssm_dt.bias"), Slot::Param(&self.dt_bias));
        self.a.slots(&join(prefix, "ssm_a_log"), visit);
        visit(join(prefix, "ssm_d"), Slot::Param(&self.d));
        if let Some(norm) = &self.norm {
            visit(join(prefix, "ssm_norm.weight"), Slot::Param(norm));
        }
        self.out.slots(&join(prefix, "ssm_out"), visit);
    }
}
