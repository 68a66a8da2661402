use imaginal_tensor::{Result, Tensor};

use super::head_dim;
use crate::{Init, Module, Norm, NormKind, Param, RecurrentState, Slot, Source, join};

/// Shape of [`Slstm`].
#[derive(Clone, Debug, PartialEq)]
pub struct SlstmConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Heads, within which cells mix.
    pub heads: usize,
    /// Length of the convolution before the input and forget gates; `None` for none.
    pub conv: Option<usize>,
    /// Of the norm of the heads.
    pub eps: f64,
}

/// The scalar memory of xLSTM (Beck et al. 2024, §2.2 and Figure 9): the input and forget gates see the input through a
/// convolution, all four gates mix the outputs before within a head, and each head is normalised. What follows in the
/// paper's block, a residual and a gated feed-forward network, is the decoder's.
#[derive(Clone, Debug)]
pub struct Slstm {
    config: SlstmConfig,
    conv: Option<(Param, Param)>,
    /// Input and forget gate, z and output gate.
    gates: [Param; 2],
    bias: [Param; 4],
    mix: Param,
    norm: Norm,
    norm_weight: Param,
}

/// Of [`Slstm::gates`].
const GATES: [&str; 2] = ["if", "zo"];
/// Of [`Slstm::bias`].
const BIAS: [&str; 4] = ["i", "f", "z", "o"];

impl Slstm {
    /// Builds under `prefix` (GGUF has no names for them yet): `slstm_conv1d` (weight `[hidden, conv]`, bias), the matrices of the
    /// gates two at a time, `slstm_if.weight` and `slstm_zo.weight` `[heads, 2·d, d]`, their biases `slstm_i.bias` …
    /// `slstm_o.bias` `[heads, d]`, the mixing matrix `slstm_mix.weight` `[heads, d, 4, d]` (from a cell to the gates i, f,
    /// z, o of another) and `slstm_norm.weight` `[hidden]`.
    ///
    /// # Errors
    /// The source does not have them in these shapes, or the width does not divide into the heads.
    pub fn new(source: &mut dyn Source, prefix: &str, c: &SlstmConfig) -> Result<Self> {
        let d = head_dim("slstm", c.hidden, c.heads)?;
        let name = |n: &str| join(prefix, &format!("slstm_{n}"));
        let uniform = |inputs: usize| Init::Uniform { bound: 1.0 / (inputs.max(1) as f64).sqrt() };
        let small = Init::Normal { std: (2.0 / (5 * d.max(1)) as f64).sqrt() };
        let conv = match c.conv {
            Some(k) => Some((
                source.param(&name("conv1d.weight"), &[c.hidden, k], uniform(k))?,
                source.param(&name("conv1d.bias"), &[c.hidden], uniform(k))?,
            )),
            None => None,
        };
        let mut gate = |n: &str| source.param(&name(&format!("{n}.weight")), &[c.heads, 2 * d, d], small);
        let gates = [gate(GATES[0])?, gate(GATES[1])?];
        let mut bias = |n: &str, init| source.param(&name(&format!("{n}.bias")), &[c.heads, d], init);
        // Forget gates that remember, for differently long.
        let forget = Init::Spaced { first: 3.0, last: 6.0 };
        let zeros = Init::Zeros;
        let bias = [bias(BIAS[0], zeros)?, bias(BIAS[1], forget)?, bias(BIAS[2], zeros)?, bias(BIAS[3], zeros)?];
        Ok(Slstm {
            conv,
            gates,
            bias,
            mix: source.param(&name("mix.weight"), &[c.heads, d, 4, d], Init::Zeros)?,
            norm: Norm::new(source, &name("norm"), &[], NormKind::LayerUnit, c.eps)?,
            norm_weight: source.param(&name("norm.weight"), &[c.hidden], Init::Ones)?,
            config: c.clone(),
        })
    }

    /// `x[b, t, hidden]` → the same shape. With a state the recurrence goes on from it and the state moves by `t` positions
    /// (then no gradients flow into the past); without one it starts from zero.
    ///
    /// # Errors
    /// The shapes do not fit, or the state is of another shape.
    pub fn forward(&self, x: &Tensor, state: Option<&mut RecurrentState>) -> Result<Tensor> {
        match state {
            None => Ok(self.mix(x, None)?.0),
            Some(state) => state.run(x.dim(1)?, |range, s| self.mix(&x.narrow(1, range.start, range.len())?, Some(s))),
        }
    }

    fn mix(&self, x: &Tensor, state: Option<&[Tensor]>) -> Result<(Tensor, Vec<Tensor>)> {
        let c = &self.config;
        let (b, t, h, d) = (x.dim(0)?, x.dim(1)?, c.heads, c.hidden / c.heads);
        let (smooth, tail) = match &self.conv {
            Some((weight, bias)) => {
                let tail = state.map(|s| &s[1]);
                let (y, tail) = x.causal_conv1d(&weight.get(), Some(&bias.get()), tail, true)?;
                (y, Some(tail))
            }
            None => (x.clone(), None),
        };
        // [h, b·t, d] · [h, d, 2·d]
        let heads = |x: &Tensor, w: &Param| x.reshape([b * t, h, d])?.transpose(0, 1)?.matmul(&w.get().t()?);
        let gates = Tensor::cat(&[heads(&smooth, &self.gates[0])?, heads(x, &self.gates[1])?], 2)?;
        let gates = gates.transpose(0, 1)?.reshape([b, t, h, 4, d])?;
        let bias = Tensor::stack(&self.bias.each_ref().map(Param::get), 1)?;
        let (y, last) = gates.add(&bias)?.slstm(&self.mix.get(), state.map(|s| &s[0]))?;
        let y = self.norm.forward(&y)?.flatten(2, 3)?.mul(&self.norm_weight.get())?;
        Ok((y, [last].into_iter().chain(tail).collect()))
    }

    /// A state for `batch` sequences, before the first token: outputs and cells, and the convolution's inputs.
    pub fn state(&self, batch: usize) -> RecurrentState {
        let c = &self.config;
        let tail = c.conv.map(|k| vec![batch, k.saturating_sub(1), c.hidden]);
        let cells = vec![batch, 4, c.heads, c.hidden / c.heads];
        RecurrentState::new([cells].into_iter().chain(tail).collect(), self.mix.get().device())
    }
}

impl Module for Slstm {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        let name = |n: &str| join(prefix, &format!("slstm_{n}"));
        if let Some((weight, bias)) = &self.conv {
            visit(name("conv1d.weight"), Slot::Param(weight));
            visit(name("conv1d.bias"), Slot::Param(bias));
        }
        for (n, gate) in GATES.iter().zip(&self.gates) {
            visit(name(&format!("{n}.weight")), Slot::Param(gate));
        }
        for (n, bias) in BIAS.iter().zip(&self.bias) {
            visit(name(&format!("{n}.bias")), Slot::Param(bias));
        }
        visit(name("mix.weight"), Slot::Param(&self.mix));
        visit(name("norm.weight"), Slot::Param(&self.norm_weight));
    }
}
