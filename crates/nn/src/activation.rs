use imaginal_tensor::{Result, Tensor};

/// The non-linear function of a feed-forward network.
#[derive(Copy, Clone, Debug, PartialEq)]
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
    /// The hyperbolic tangent.
    Tanh,
    /// `x` itself.
    Identity,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
    /// [`Activation::GeluErf`] within ±10.
    ClippedGelu,
    /// `x`, or `0.01 x` below 0.
    LeakyRelu,
    /// [`Activation::Relu`], at most 6.
    Relu6,
    /// `x · min(max(x + 3, 0), 6) / 6` (Howard et al. 2019).
    HardSwish,
    /// `x · tanh(ln(1 + e^x))` (Misra 2019).
    Mish,
    /// Of GPT-OSS, for gated networks: with the gate at most `limit` and the other in ±`limit`,
    /// `gate · sigmoid(slope · gate) · (up + 1)`. Alone it is `x · sigmoid(slope · x)`.
    ClampedSwiglu {
        /// The bound, usually 7.
        limit: f64,
        /// The factor in the sigmoid, usually 1.702.
        slope: f64,
    },
}

impl Activation {
    /// By the name that `config.json` has for it.
    pub fn by_hf(name: &str) -> Option<Self> {
        Some(match name {
            // A gated network is named as a whole by some.
            "silu" | "swish" | "swiglu" => Activation::Silu,
            "gelu" | "gelu_python" | "geglu" => Activation::GeluErf,
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_accurate" => Activation::Gelu,
            "relu" => Activation::Relu,
            "relu2" => Activation::Relu2,
            "tanh" => Activation::Tanh,
            "linear" => Activation::Identity,
            "sigmoid" => Activation::Sigmoid,
            "quick_gelu" => Activation::QuickGelu,
            "gelu_10" => Activation::ClippedGelu,
            "leaky_relu" => Activation::LeakyRelu,
            "relu6" => Activation::Relu6,
            "hardswish" => Activation::HardSwish,
            "mish" => Activation::Mish,
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
            Activation::Tanh => x.tanh(),
            Activation::Identity => Ok(x.clone()),
            Activation::Sigmoid => x.sigmoid(),
            Activation::QuickGelu => x.mul(&x.mul_scalar(1.702)?.sigmoid()?),
            Activation::ClippedGelu => x.gelu_erf()?.clamp(-10.0, 10.0),
            Activation::LeakyRelu => x.relu()?.add(&x.clamp(f64::NEG_INFINITY, 0.0)?.mul_scalar(0.01)?),
            Activation::Relu6 => x.clamp(0.0, 6.0),
            Activation::HardSwish => x.mul(&x.add_scalar(3.0)?.clamp(0.0, 6.0)?.mul_scalar(1.0 / 6.0)?),
            Activation::Mish => x.mul(&x.softplus()?.tanh()?),
            Activation::ClampedSwiglu { slope, .. } => x.mul(&x.mul_scalar(slope)?.sigmoid()?),
        }
    }

    /// What a gated network computes of its two halves: `apply(gate) · up`, but for [`Activation::ClampedSwiglu`].
    ///
    /// # Errors
    /// The shapes differ.
    pub fn gate(self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Silu => gate.swiglu(up),
            Activation::ClampedSwiglu { limit, .. } => {
                let gate = gate.clamp(f64::NEG_INFINITY, limit)?;
                self.apply(&gate)?.mul(&up.clamp(-limit, limit)?.add_scalar(1.0)?)
            }
            _ => self.apply(gate)?.mul(up),
        }
    }
}

#[cfg(test)]
mod tests {
    use imaginal_tensor::{Device, Tensor};

    use super::Activation;

    #[test]
    fn functions_are_what_their_names_say() {
        let x = [-12.0f32, -4.0, -3.0, -1.5, -0.2, 0.0, 0.3, 1.0, 2.9, 6.5, 12.0];
        let apply = |name: &str| {
            let x = Tensor::from_vec(x.to_vec(), [x.len()], &Device::Cpu).unwrap();
            Activation::by_hf(name).unwrap().apply(&x).unwrap().to_vec::<f32>().unwrap()
        };
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let expected: [(&str, &dyn Fn(f64) -> f64); 9] = [
            ("silu", &|x| x * sigmoid(x)),
            ("gelu_accurate", &|x| {
                x / 2.0 * (1.0 + ((x + 0.044715 * x.powi(3)) * (2.0 / std::f64::consts::PI).sqrt()).tanh())
            }),
            ("quick_gelu", &|x| x * sigmoid(1.702 * x)),
            ("linear", &|x| x),
            ("sigmoid", &sigmoid),
            ("leaky_relu", &|x| if x < 0.0 { 0.01 * x } else { x }),
            ("relu6", &|x| x.clamp(0.0, 6.0)),
            ("hardswish", &|x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0),
            ("mish", &|x| x * x.exp().ln_1p().tanh()),
        ];
        for (name, function) in expected {
            for (x, y) in x.iter().zip(apply(name)) {
                assert!((function(f64::from(*x)) - f64::from(y)).abs() < 2e-6, "{name} of {x}: {y}");
            }
        }
        let clipped: Vec<f32> = apply("gelu").into_iter().map(|y| y.min(10.0)).collect();
        assert_eq!(apply("gelu_10"), clipped);
    }
}
