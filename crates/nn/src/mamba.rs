use std::sync::{Arc, Mutex};

use imaginal_tensor::{Result, ScanInputs, Tensor, TensorId, is_grad_enabled};

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
    /// Layers of the whole model, by which the output projection's initial values are scaled down.
    pub layers: usize,
}

/// The selective state space layer of Mamba (Gu & Dao 2023, Algorithm 2 and Figure 3).
#[derive(Clone, Debug)]
pub struct Mamba {
    config: MambaConfig,
    input: Linear,
    conv: Param,
    conv_bias: Option<Param>,
    x: Linear,
    dt: Linear,
    a_log: Param,
    d: Param,
    out: Linear,
    decay: Arc<Mutex<Option<(TensorId, Tensor)>>>,
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
        let conv = source.param(&name("ssm_conv1d.weight"), &[c.inner, c.conv], uniform(c.conv))?;
        let conv_bias = match c.conv_bias {
            true => Some(source.param(&name("ssm_conv1d.bias"), &[c.inner], uniform(c.conv))?),
            false => None,
        };
        let x = Linear::new(source, &name("ssm_x"), c.inner, c.dt_rank + 2 * c.state, false, uniform(c.inner))?;
        let dt_weight = source.weight(&name("ssm_dt.weight"), c.inner, c.dt_rank, uniform(c.dt_rank))?;
        let steps = Init::InverseSoftplus { min: 0.001, max: 0.1 };
        let dt_bias = source.param(&name("ssm_dt.bias"), &[c.inner], steps)?;
        let a_log = source.param(&name("ssm_a_log"), &[c.inner, c.state], Init::LogRange)?;
        let d = source.param(&name("ssm_d"), &[c.inner], Init::Ones)?;
        let bound = Init::Uniform { bound: out_bound };
        let out = Linear::new(source, &name("ssm_out"), c.inner, c.hidden, c.bias, bound)?;
        let dt = Linear::from_weight(dt_weight, Some(dt_bias));
        Ok(Mamba { config: c.clone(), input, conv, conv_bias, x, dt, a_log, d, out, decay: Arc::default() })
    }

    /// `A = −exp(A_log)`, kept while the parameter does not change and no gradient is wanted.
    fn decay(&self) -> Result<Tensor> {
        let a_log = self.a_log.get();
        if is_grad_enabled() && a_log.tracks_grad() {
            return a_log.exp()?.neg();
        }
        let mut kept = self.decay.lock().unwrap_or_else(|e| e.into_inner());
        match &*kept {
            Some((id, a)) if *id == a_log.id() => Ok(a.clone()),
            _ => {
                let a = a_log.exp()?.neg()?;
                *kept = Some((a_log.id(), a.clone()));
                Ok(a)
            }
        }
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
        let y = match state {
            None => {
                let (u, _) = self.convolve(&u, None)?;
                self.scan(&u, None)?.0
            }
            Some(state) => state.run(x.dim(1)?, |range, tensors| {
                let (u, tail) = self.convolve(&u.narrow(1, range.start, range.len())?, Some(&tensors[0]))?;
                let (y, h) = self.scan(&u, Some(&tensors[1]))?;
                Ok((y, vec![tail, h]))
            })?,
        };
        self.out.forward(&z.swiglu(&y)?)
    }

    /// A state for `batch` sequences, before the first token.
    pub fn state(&self, batch: usize) -> RecurrentState {
        let c = &self.config;
        let shapes = vec![vec![batch, c.conv - 1, c.inner], vec![batch, c.inner, c.state]];
        RecurrentState::new(shapes, self.a_log.get().device())
    }

    fn convolve(&self, u: &Tensor, tail: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let bias = self.conv_bias.as_ref().map(Param::get);
        u.causal_conv1d(&self.conv.get(), bias.as_ref(), tail, true)
    }

    fn scan(&self, u: &Tensor, h0: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let c = &self.config;
        let dbc = self.x.forward(u)?;
        let delta = self.dt.forward(&dbc.narrow(2, 0, c.dt_rank)?)?.softplus()?;
        let b = dbc.narrow(2, c.dt_rank, c.state)?;
        let out = dbc.narrow(2, c.dt_rank + c.state, c.state)?;
        let (a, d) = (self.decay()?, self.d.get());
        u.selective_scan(&ScanInputs { delta: &delta, a: &a, b: &b, c: &out, d: Some(&d), h0 })
    }
}

impl Module for Mamba {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.input.slots(&join(prefix, "ssm_in"), visit);
        visit(join(prefix, "ssm_conv1d.weight"), Slot::Param(&self.conv));
        if let Some(bias) = &self.conv_bias {
            visit(join(prefix, "ssm_conv1d.bias"), Slot::Param(bias));
        }
        self.x.slots(&join(prefix, "ssm_x"), visit);
        self.dt.slots(&join(prefix, "ssm_dt"), visit);
        visit(join(prefix, "ssm_a_log"), Slot::Param(&self.a_log));
        visit(join(prefix, "ssm_d"), Slot::Param(&self.d));
        self.out.slots(&join(prefix, "ssm_out"), visit);
    }
}
