use imaginal_tensor::{Result, Tensor};

use crate::{Init, Module, Param, Slot, Source, Weight, join};

/// `y = x · Wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Param>,
}

impl Linear {
    /// Builds `name.weight` `[outputs, inputs]` and, if wanted, `name.bias` `[outputs]`, initialised to zero.
    ///
    /// # Errors
    /// The source does not have them in these shapes.
    pub fn new(
        source: &mut dyn Source,
        name: &str,
        inputs: usize,
        outputs: usize,
        bias: bool,
        init: Init,
    ) -> Result<Self> {
        let weight = source.weight(&join(name, "weight"), outputs, inputs, init)?;
        let bias = if bias { Some(source.param(&join(name, "bias"), &[outputs], Init::Zeros)?) } else { None };
        Ok(Linear { weight, bias })
    }

    /// A layer over a weight that exists already, such as a tied embedding.
    pub fn from_weight(weight: Weight, bias: Option<Param>) -> Self {
        Linear { weight, bias }
    }

    /// The weight.
    pub fn weight(&self) -> &Weight {
        &self.weight
    }

    /// `x[.., inputs]` → `[.., outputs]`.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(Param::get);
        self.weight.linear(x, bias.as_ref())
    }

    /// What [`Linear::forward`] gives for each of the layers; a few tokens are rounded once for all of them.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn forward_all<const N: usize>(layers: [&Linear; N], x: &Tensor) -> Result<[Tensor; N]> {
        let mut all = Weight::linears(layers.map(|layer| &layer.weight), x)?;
        for (y, layer) in all.iter_mut().zip(layers) {
            if let Some(bias) = &layer.bias {
                *y = y.add(&bias.get())?;
            }
        }
        Ok(all)
    }

    /// `silu(gate(x)) · up(x)`, for two layers of one shape.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn swiglu(gate: &Linear, up: &Linear, x: &Tensor) -> Result<Tensor> {
        if gate.bias.is_none() && up.bias.is_none() {
            return Weight::swiglu(&gate.weight, &up.weight, x);
        }
        gate.forward(x)?.swiglu(&up.forward(x)?)
    }
}

impl Module for Linear {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        visit(join(prefix, "weight"), Slot::Weight(&self.weight));
        if let Some(bias) = &self.bias {
            visit(join(prefix, "bias"), Slot::Param(bias));
        }
    }
}

/// A table of vectors, one per token.
#[derive(Clone, Debug)]
pub struct Embedding {
    weight: Weight,
}

impl Embedding {
    /// Builds `name.weight` `[entries, width]`.
    ///
    /// # Errors
    /// The source does not have it in this shape.
    pub fn new(source: &mut dyn Source, name: &str, entries: usize, width: usize, init: Init) -> Result<Self> {
        Ok(Embedding { weight: source.weight(&join(name, "weight"), entries, width, init)? })
    }

    /// The table, for tying an output head to it.
    pub fn weight(&self) -> &Weight {
        &self.weight
    }

    /// `ids` (u32, any shape) → `[.., width]`.
    ///
    /// # Errors
    /// An id is not in the table.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        self.weight.embed(ids)
    }
}

impl Module for Embedding {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        visit(join(prefix, "weight"), Slot::Weight(&self.weight));
    }
}

/// Root-mean-square normalisation with a gain (Zhang & Sennrich 2019): `x / sqrt(mean(x²) + eps) * weight`.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    weight: Param,
    eps: f64,
}

impl RmsNorm {
    /// Builds `name.weight` `[width]`, initialised to one.
    ///
    /// # Errors
    /// The source does not have it in this shape.
    pub fn new(source: &mut dyn Source, name: &str, width: usize, eps: f64) -> Result<Self> {
        Ok(RmsNorm { weight: source.param(&join(name, "weight"), &[width], Init::Ones)?, eps })
    }

    /// Normalises the last dimension.
    ///
    /// # Errors
    /// The last dimension is not the width.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.rms_norm(&self.weight.get(), self.eps as f32)
    }
}

impl Module for RmsNorm {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        visit(join(prefix, "weight"), Slot::Param(&self.weight));
    }
}
