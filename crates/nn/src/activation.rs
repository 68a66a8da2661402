use imaginal_tensor::{Result, Tensor};

/// The non-linear function of a feed-forward network.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`, also called swish.
    Silu,
    /// The exact GELU (Hendrycks & Gimpel 2016).
    GeluErf,
    /// GELU by its tanh approximation.
    Gelu,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²` (So et al. 2021).
    Relu2,
    /// Of GPT-OSS, for gated networks: with the gate at most 7 and the other in ±7,
    /// `gate · sigmoid(1.702 gate) · (up + 1)`. Alone it is `x · sigmoid(1.702 x)`.
    ClampedSwiglu,
}

/// The bound of [`Activation::ClampedSwiglu`].
const LIMIT: f64 = 7.0;

impl Activation {
    /// By the name that `config.json` has for it.
    pub fn by_hf(name: &str) -> Option<Self> {
        Some(match name {
            "silu" | "swish" => Activation::Silu,
            "gelu" => Activation::GeluErf,
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Activation::Gelu,
            "relu" => Activation::Relu,
            "relu2" => Activation::Relu2,
            _ => return None,
        })
    }

    /// The function, element by element.
    ///
    /// # Errors
    /// The type has none.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Silu => x.silu(),
            Activation::GeluErf => x.gelu_erf(),
            Activation::Gelu => x.gelu(),
            Activation::Relu => x.relu(),
            Activation::Relu2 => x.relu()?.sqr(),
            Activation::ClampedSwiglu => x.mul(&x.mul_scalar(1.702)?.sigmoid()?),
        }
    }

    /// What a gated network computes of its two halves: `apply(gate) · up`, but for [`Activation::ClampedSwiglu`].
    ///
    /// # Errors
    /// The shapes differ.
    pub fn gate(self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Silu => gate.swiglu(up),
            Activation::ClampedSwiglu => {
                let gate = gate.clamp(f64::NEG_INFINITY, LIMIT)?;
                self.apply(&gate)?.mul(&up.clamp(-LIMIT, LIMIT)?.add_scalar(1.0)?)
            }
            _ => self.apply(gate)?.mul(up),
        }
    }
}
