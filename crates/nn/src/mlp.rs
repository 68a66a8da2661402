use imaginal_tensor::{Result, Tensor};

use crate::{Activation, Init, Linear, Module, Slot, Source, join};

/// Sizes of a feed-forward network.
#[derive(Clone, Debug, PartialEq)]
pub struct MlpConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width between the matrices.
    pub inner: usize,
    /// Whether there is a gate beside the matrix up (Shazeer 2020).
    pub gated: bool,
    /// The function between the matrices.
    pub activation: Activation,
    /// Whether the matrices have biases.
    pub bias: bool,
    /// Before the function, the gate becomes what it exceeds its mean by more than so many standard deviations of its row,
    /// else 0: about the largest of a normal distribution (Gemma 3n). Networks without a gate ignore it.
    pub sparsity: Option<f32>,
}

/// The feed-forward network of a layer: `down(act(gate(x)) · up(x))`, or `down(act(up(x)))`.
#[derive(Clone, Debug)]
pub struct Mlp {
    activation: Activation,
    sparsity: Option<f32>,
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
}

impl Mlp {
    /// Builds `ffn_gate`, `ffn_up` and `ffn_down` under `prefix`, initialised to normal(0, 0.02).
    ///
    /// # Errors
    /// The source does not have them in these shapes.
    pub fn new(source: &mut dyn Source, prefix: &str, c: &MlpConfig) -> Result<Self> {
        Mlp::named(source, prefix, "", c)
    }

    /// The same with `suffix` after the three names: `_shexp` for experts that every token uses.
    ///
    /// # Errors
    /// As [`Mlp::new`].
    pub fn named(source: &mut dyn Source, prefix: &str, suffix: &str, c: &MlpConfig) -> Result<Self> {
        let mut linear = |name: &str, inputs, outputs| {
            let name = join(prefix, &format!("{name}{suffix}"));
            Linear::new(source, &name, inputs, outputs, c.bias, Init::Normal { std: 0.02 })
        };
        Ok(Mlp {
            activation: c.activation,
            sparsity: c.sparsity,
            gate: if c.gated { Some(linear("ffn_gate", c.hidden, c.inner)?) } else { None },
            up: linear("ffn_up", c.hidden, c.inner)?,
            down: linear("ffn_down", c.inner, c.hidden)?,
        })
    }

    /// `x[.., hidden]` → the same shape.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let inner = match &self.gate {
            Some(gate) if self.activation == Activation::Silu && self.sparsity.is_none() => {
                Linear::swiglu(gate, &self.up, x)?
            }
            Some(gate) => {
                let mut gate = gate.forward(x)?;
                if let Some(deviations) = self.sparsity {
                    gate = largest(&gate, deviations)?;
                }
                self.activation.gate(&gate, &self.up.forward(x)?)?
            }
            None => self.activation.apply(&self.up.forward(x)?)?,
        };
        self.down.forward(&inner)
    }

    /// [`Module::slots`] with the suffix that it was made with.
    pub(crate) fn slots_named(&self, prefix: &str, suffix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        let name = |name: &str| join(prefix, &format!("{name}{suffix}"));
        if let Some(gate) = &self.gate {
            gate.slots(&name("ffn_gate"), visit);
        }
        self.up.slots(&name("ffn_up"), visit);
        self.down.slots(&name("ffn_down"), visit);
    }
}

/// What the elements of each row exceed their mean by more than so many standard deviations, else 0.
fn largest(x: &Tensor, deviations: f32) -> Result<Tensor> {
    let last = x.rank() - 1;
    let x = x.sub(&x.mean(&[last], true)?)?;
    let bound = x.sqr()?.mean(&[last], true)?.sqrt()?.mul_scalar(deviations.into())?;
    x.sub(&bound)?.relu()
}

impl Module for Mlp {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.slots_named(prefix, "", visit);
    }
}
