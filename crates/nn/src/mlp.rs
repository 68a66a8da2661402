use imaginal_tensor::{Result, Tensor};

use crate::{Init, Linear, Module, Slot, Source, join};

/// Sizes of a gated feed-forward network.
#[derive(Clone, Debug, PartialEq)]
pub struct MlpConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width between the matrices.
    pub inner: usize,
    /// Whether the three matrices have biases.
    pub bias: bool,
}

/// The SwiGLU feed-forward network (Shazeer 2020): `down(silu(gate(x)) * up(x))`.
#[derive(Clone, Debug)]
pub struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Mlp {
    /// Builds `ffn_gate`, `ffn_up` and `ffn_down` under `prefix`, initialised to normal(0, 0.02).
    ///
    /// # Errors
    /// The source does not have them in these shapes.
    pub fn new(source: &mut dyn Source, prefix: &str, c: &MlpConfig) -> Result<Self> {
        let init = Init::Normal { std: 0.02 };
        Ok(Mlp {
            gate: Linear::new(source, &join(prefix, "ffn_gate"), c.hidden, c.inner, c.bias, init)?,
            up: Linear::new(source, &join(prefix, "ffn_up"), c.hidden, c.inner, c.bias, init)?,
            down: Linear::new(source, &join(prefix, "ffn_down"), c.inner, c.hidden, c.bias, init)?,
        })
    }

    /// `x[.., hidden]` → the same shape.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&Linear::swiglu(&self.gate, &self.up, x)?)
    }
}

impl Module for Mlp {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.gate.slots(&join(prefix, "ffn_gate"), visit);
        self.up.slots(&join(prefix, "ffn_up"), visit);
        self.down.slots(&join(prefix, "ffn_down"), visit);
    }
}
