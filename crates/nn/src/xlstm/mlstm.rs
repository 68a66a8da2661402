use imaginal_tensor::{MlstmInputs, Result, Tensor};

use super::head_dim;
use crate::{Init, Linear, Module, Norm, NormKind, Param, RecurrentState, Slot, Source, join};

/// Shape of [`Mlstm`].
#[derive(Clone, Debug, PartialEq)]
pub struct MlstmConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Heads.
    pub heads: usize,
    /// Width of all queries, and of all keys.
    pub qk: usize,
    /// Width of all values.
    pub v: usize,
    /// `c` of `c·tanh(x / c)`, which bounds the inputs of the gates.
    pub gate_cap: Option<f64>,
    /// Of the norm of the heads.
    pub norm_eps: f64,
    /// Added to the normaliser.
    pub eps: f64,
    /// Whether all matrices and the norm have biases; the input and forget gates always have.
    pub bias: bool,
}

/// The matrix memory of xLSTM as xLSTM-7B has it (Beck et al. 2025): queries, keys and values without a convolution, a norm
/// for each head, an output gate.
#[derive(Clone, Debug)]
pub struct Mlstm {
    config: MlstmConfig,
    /// Query, key, value, output gate, input gate, forget gate, output.
    linear: [Linear; 7],
    norm: Norm,
    norm_weight: Param,
    norm_bias: Option<Param>,
}

/// Of [`Mlstm::linear`].
const LINEAR: [&str; 7] = ["q", "k", "v", "ogate", "igate", "fgate", "out"];

impl Mlstm {
    /// Builds `mlstm_q`, `mlstm_k`, `mlstm_v`, `mlstm_ogate`, `mlstm_igate`, `mlstm_fgate`, `mlstm_norm` and `mlstm_out`
    /// under `prefix` (GGUF has no names for them yet). Fresh gates start as in the authors' implementation: their
    /// matrices zero, the input gates' biases −10, the forget gates' from 3 to 6.
    ///
    /// # Errors
    /// The source does not have them in these shapes, or a width does not divide into the heads.
    pub fn new(source: &mut dyn Source, prefix: &str, c: &MlstmConfig) -> Result<Self> {
        head_dim("mlstm", c.qk, c.heads)?;
        head_dim("mlstm", c.v, c.heads)?;
        let name = |n: &str| join(prefix, &format!("mlstm_{n}"));
        let init = Init::Normal { std: (2.0 / (5 * c.hidden) as f64).sqrt() };
        let mut linear = Vec::with_capacity(LINEAR.len());
        for n in LINEAR {
            let (inputs, outputs) = match n {
                "q" | "k" => (c.hidden, c.qk),
                "v" | "ogate" => (c.hidden, c.v),
                "out" => (c.v, c.hidden),
                _ => (c.hidden, c.heads),
            };
            linear.push(match n {
                "igate" | "fgate" => {
                    let (first, last) = if n == "igate" { (-10.0, -10.0) } else { (3.0, 6.0) };
                    let weight = source.weight(&name(&format!("{n}.weight")), outputs, inputs, Init::Zeros)?;
                    let bias = source.param(&name(&format!("{n}.bias")), &[outputs], Init::Spaced { first, last })?;
                    Linear::from_weight(weight, Some(bias))
                }
                _ => Linear::new(source, &name(n), inputs, outputs, c.bias, init)?,
            });
        }
        let bias = match c.bias {
            true => Some(source.param(&name("norm.bias"), &[c.v], Init::Zeros)?),
            false => None,
        };
        Ok(Mlstm {
            linear: linear.try_into().map_err(|_| crate::Error::argument("mlstm", "seven matrices"))?,
            norm: Norm::new(source, &name("norm"), &[], NormKind::LayerUnit, c.norm_eps)?,
            norm_weight: source.param(&name("norm.weight"), &[c.v], Init::Ones)?,
            norm_bias: bias,
            config: c.clone(),
        })
    }

    /// `x[b, t, hidden]` → the same shape. With a state the recurrence goes on from it and the state moves by `t` positions
    /// (then no gradients flow into the past); without one it starts from zero.
    ///
    /// # Errors
    /// The shapes do not fit, or the state is of another shape.
    pub fn forward(&self, x: &Tensor, state: Option<&mut RecurrentState>) -> Result<Tensor> {
        let c = &self.config;
        let (b, t) = (x.dim(0)?, x.dim(1)?);
        let [q, k, v, ogate, igate, fgate, out] = &self.linear;
        let heads = |l: &Linear| {
            let y = l.forward(x)?;
            let d = y.dim(2)? / c.heads;
            y.reshape([b, t, c.heads, d])
        };
        let gate = |l: &Linear| match c.gate_cap {
            Some(cap) => l.forward(x)?.mul_scalar(1.0 / cap)?.tanh()?.mul_scalar(cap),
            None => l.forward(x),
        };
        let all = [heads(q)?, heads(k)?, heads(v)?, gate(igate)?, gate(fgate)?];
        let run = |[q, k, v, i, f]: &[Tensor; 5], state: Option<(&Tensor, &Tensor)>| {
            q.mlstm(&MlstmInputs { k, v, i, f, state, eps: c.eps })
        };
        let y = match state {
            None => run(&all, None)?.0,
            Some(state) => state.run(t, |range, s| {
                let part = |x: &Tensor| x.narrow(1, range.start, range.len());
                let [q, k, v, i, f] = &all;
                let part = [part(q)?, part(k)?, part(v)?, part(i)?, part(f)?];
                let (y, s) = run(&part, Some((&s[0], &s[1])))?;
                Ok((y, s.into()))
            })?,
        };
        let mut y = self.norm.forward(&y)?.flatten(2, 3)?.mul(&self.norm_weight.get())?;
        if let Some(bias) = &self.norm_bias {
            y = y.add(&bias.get())?;
        }
        out.forward(&ogate.forward(x)?.sigmoid()?.mul(&y)?)
    }

    /// A state for `batch` sequences, before the first token: the memory with its normaliser, and the stabiliser.
    pub fn state(&self, batch: usize) -> RecurrentState {
        let c = &self.config;
        let shapes = vec![vec![batch, c.heads, c.qk / c.heads, c.v / c.heads + 1], vec![batch, c.heads]];
        RecurrentState::new(shapes, self.norm_weight.get().device())
    }
}

impl Module for Mlstm {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        let name = |n: &str| join(prefix, &format!("mlstm_{n}"));
        for (n, linear) in LINEAR.iter().zip(&self.linear) {
            linear.slots(&name(n), visit);
        }
        visit(name("norm.weight"), Slot::Param(&self.norm_weight));
        if let Some(bias) = &self.norm_bias {
            visit(name("norm.bias"), Slot::Param(bias));
        }
    }
}
