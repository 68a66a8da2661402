use imaginal_tensor::{Result, Tensor};

use crate::{Init, Module, Param, Slot, Source, join};

/// The short causal filter of recurrent layers: a convolution over time of each channel by itself.
#[derive(Clone, Debug)]
pub(crate) struct CausalConv {
    weight: Param,
    bias: Option<Param>,
    silu: bool,
    size: [usize; 2],
}

impl CausalConv {
    /// Builds `name.weight` `[channels, kernel]` and, if wanted, `name.bias` `[channels]`. `silu` follows the filter or
    /// nothing does.
    ///
    /// # Errors
    /// The source does not have them in these shapes.
    pub fn new(source: &mut dyn Source, name: &str, size: [usize; 2], bias: bool, silu: bool) -> Result<Self> {
        let init = Init::Uniform { bound: 1.0 / (size[1].max(1) as f64).sqrt() };
        let weight = source.param(&join(name, "weight"), &size, init)?;
        let bias = if bias { Some(source.param(&join(name, "bias"), &size[..1], init)?) } else { None };
        Ok(CausalConv { weight, bias, silu, size })
    }

    /// `x[b, t, channels]` → the same shape, and what the next call needs of it, given what this one needs of the last.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn forward(&self, x: &Tensor, tail: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let bias = self.bias.as_ref().map(Param::get);
        x.causal_conv1d(&self.weight.get(), bias.as_ref(), tail, self.silu)
    }

    /// The shape of what is handed from call to call.
    pub fn tail(&self, batch: usize) -> Vec<usize> {
        vec![batch, self.size[1].saturating_sub(1), self.size[0]]
    }
}

impl Module for CausalConv {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        visit(join(prefix, "weight"), Slot::Param(&self.weight));
        if let Some(bias) = &self.bias {
            visit(join(prefix, "bias"), Slot::Param(bias));
        }
    }
}
