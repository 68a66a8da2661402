use std::f64::consts::FRAC_1_SQRT_2;

use imaginal_tensor::{Result, Tensor};

use crate::{Activation, Embedding, Init, Linear, Module, Norm, NormKind, Param, Slot, Source, join};

/// Shape of the inputs that each layer has of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerInputsConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// How many layers there are.
    pub layers: usize,
    /// Width of the input of one layer.
    pub width: usize,
    /// How many tokens the table has; all further ones have what token 0 has.
    pub vocab: usize,
    /// The function of the gate.
    pub activation: Activation,
    /// Whether the gate has a factor for each element of what it reads.
    pub scaled: bool,
    /// Epsilon of the norms.
    pub eps: f64,
}

/// What each layer gets besides the residual stream, made of the token and its embedding (Gemma 3n).
#[derive(Clone, Debug)]
pub struct LayerInputs {
    config: LayerInputsConfig,
    table: Embedding,
    project: Linear,
    norm: Norm,
}

impl LayerInputs {
    /// Builds `per_layer_token_embd` `[vocab, layers · width]`, `per_layer_model_proj` and `per_layer_proj_norm`, initialised
    /// to normal(0, 0.02).
    ///
    /// # Errors
    /// The source does not have them in these shapes.
    pub fn new(source: &mut dyn Source, c: &LayerInputsConfig) -> Result<Self> {
        let (all, init) = (c.layers * c.width, Init::Normal { std: 0.02 });
        Ok(LayerInputs {
            config: c.clone(),
            table: Embedding::new(source, "per_layer_token_embd", c.vocab, all, init)?,
            project: Linear::new(source, "per_layer_model_proj", c.hidden, all, false, init)?,
            norm: Norm::new(source, "per_layer_proj_norm", &[c.width], NormKind::Rms, c.eps)?,
        })
    }

    /// The inputs `[b, t, layers, width]` of tokens `ids` (u32 `[b, t]`) with embeddings `x[b, t, hidden]`.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn forward(&self, ids: &Tensor, x: &Tensor) -> Result<Tensor> {
        let c = &self.config;
        let shape = [x.dim(0)?, x.dim(1)?, c.layers, c.width];
        let list = ids.to_vec::<u32>()?;
        let known = |id: u32| if (id as usize) < c.vocab { id } else { 0 };
        let known = Tensor::from_vec(list.into_iter().map(known).collect(), ids.shape(), ids.device())?;
        let told = self.table.forward(&known)?.mul_scalar((c.width as f64).sqrt())?.reshape(shape)?;
        let made = self.project.forward(x)?.mul_scalar(1.0 / (c.hidden as f64).sqrt())?.reshape(shape)?;
        self.norm.forward(&made)?.add(&told)?.mul_scalar(FRAC_1_SQRT_2)
    }
}

impl Module for LayerInputs {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.table.slots(&join(prefix, "per_layer_token_embd"), visit);
        self.project.slots(&join(prefix, "per_layer_model_proj"), visit);
        self.norm.slots(&join(prefix, "per_layer_proj_norm"), visit);
    }
}

/// Where a layer takes its input in, gated by what it has computed.
#[derive(Clone, Debug)]
pub struct LayerInput {
    activation: Activation,
    scale: Option<Param>,
    gate: Linear,
    project: Linear,
    norm: Norm,
}

impl LayerInput {
    /// Builds `altup_correct_scale.weight` if configured (to ones), `inp_gate`, `proj` and `post_norm` under `prefix`,
    /// initialised to normal(0, 0.02).
    ///
    /// # Errors
    /// The source does not have them in these shapes.
    pub fn new(source: &mut dyn Source, prefix: &str, c: &LayerInputsConfig) -> Result<Self> {
        let scale = match c.scaled {
            true => Some(source.param(&join(prefix, "altup_correct_scale.weight"), &[c.hidden], Init::Ones)?),
            false => None,
        };
        let mut linear = |name: &str, inputs, outputs| {
            Linear::new(source, &join(prefix, name), inputs, outputs, false, Init::Normal { std: 0.02 })
        };
        let (gate, project) = (linear("inp_gate", c.hidden, c.width)?, linear("proj", c.width, c.hidden)?);
        let norm = Norm::new(source, &join(prefix, "post_norm"), &[c.hidden], NormKind::Rms, c.eps)?;
        Ok(LayerInput { activation: c.activation, scale, gate, project, norm })
    }

    /// What is added to other streams: `[b, t, hidden]`, of the result of the layer, `x[b, t, hidden]`, and its input
    /// `[b, t, width]`.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn forward(&self, x: &Tensor, input: &Tensor) -> Result<Tensor> {
        let gate = match &self.scale {
            Some(scale) => self.gate.forward(&x.mul(&scale.get())?)?,
            None => self.gate.forward(x)?,
        };
        self.norm.forward(&self.project.forward(&self.activation.apply(&gate)?.mul(input)?)?)
    }
}

impl Module for LayerInput {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        if let Some(scale) = &self.scale {
            visit(join(prefix, "altup_correct_scale.weight"), Slot::Param(scale));
        }
        self.gate.slots(&join(prefix, "inp_gate"), visit);
        self.project.slots(&join(prefix, "proj"), visit);
        self.norm.slots(&join(prefix, "post_norm"), visit);
    }
}
