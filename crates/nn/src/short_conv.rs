use imaginal_tensor::{Device, Result, Tensor};

use crate::conv::CausalConv;
use crate::state::tokens;
use crate::{Init, Linear, Module, RecurrentState, Slot, Source, join};

/// Shape of a gated short convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct ShortConvConfig {
    /// Width of the residual stream, and channels of the convolution.
    pub hidden: usize,
    /// Length of the convolution.
    pub conv: usize,
    /// Whether the projections and the convolution have biases.
    pub bias: bool,
}

/// The gated short convolution of LFM2 (Liquid AI 2025): `out(c ⊙ conv(b ⊙ x))` with `b`, `c` and `x` projected from the
/// input.
#[derive(Clone, Debug)]
pub struct ShortConv {
    config: ShortConvConfig,
    input: Linear,
    conv: CausalConv,
    out: Linear,
    device: Device,
}

impl ShortConv {
    /// Builds the layer's tensors under `prefix`, with the names of GGUF: `shortconv.in_proj`, `shortconv.conv` and
    /// `shortconv.out_proj`.
    ///
    /// # Errors
    /// The source does not have the tensors in these shapes.
    pub fn new(source: &mut dyn Source, prefix: &str, config: &ShortConvConfig) -> Result<Self> {
        let c = config;
        let init = Init::Uniform { bound: 1.0 / (c.hidden.max(1) as f64).sqrt() };
        let name = |n: &str| join(prefix, n);
        let input = Linear::new(source, &name("shortconv.in_proj"), c.hidden, 3 * c.hidden, c.bias, init)?;
        let conv = CausalConv::new(source, &name("shortconv.conv"), [c.hidden, c.conv], c.bias, false)?;
        let out = Linear::new(source, &name("shortconv.out_proj"), c.hidden, c.hidden, c.bias, init)?;
        Ok(ShortConv { config: c.clone(), input, conv, out, device: source.device() })
    }

    /// `x[b, t, hidden]` → the same shape. With a state the convolution sees the tokens before and the state moves by `t`
    /// positions (then no gradients flow into the past); without one there are none.
    ///
    /// # Errors
    /// The shapes do not fit, or the state is of another shape.
    pub fn forward(&self, x: &Tensor, state: Option<&mut RecurrentState>) -> Result<Tensor> {
        let parts = self.input.forward(x)?.split(2, &[self.config.hidden; 3])?;
        let gated = parts[0].mul(&parts[2])?;
        let y = RecurrentState::run_or_start(state, x.dim(1)?, |range, state| {
            let (y, tail) = self.conv.forward(&tokens(&gated, &range)?, state.map(|s| &s[0]))?;
            Ok((y, vec![tail]))
        })?;
        self.out.forward(&parts[1].mul(&y)?)
    }

    /// A state for `batch` sequences, before the first token.
    pub fn state(&self, batch: usize) -> RecurrentState {
        RecurrentState::new(vec![self.conv.tail(batch)], &self.device)
    }
}

impl Module for ShortConv {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.input.slots(&join(prefix, "shortconv.in_proj"), visit);
        self.conv.slots(&join(prefix, "shortconv.conv"), visit);
        self.out.slots(&join(prefix, "shortconv.out_proj"), visit);
    }
}
