//! The two halves of an RWKV layer: time mixing, which carries a matrix per head from token to token, and channel mixing, its
//! feed-forward network. Both blend each token's features with those of the token before.

mod channel;
mod seven;
mod six;

pub use channel::{RwkvChannelMix, RwkvChannelMixConfig};
pub use seven::{Rwkv7TimeMix, Rwkv7TimeMixConfig};
pub use six::{Rwkv6TimeMix, Rwkv6TimeMixConfig};

use imaginal_tensor::{Result, Tensor};

use crate::{Init, Module, Norm, NormKind, Param, Slot, Source, join};

/// `x[b, t, c]` → the difference to it of the token before (`before` `[b, c]`; zeros if `None`), and the last token
/// `[b, c]`.
fn shift(x: &Tensor, before: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
    let &[b, t, c] = x.shape() else { return Err(crate::Error::shapes("token shift", x.shape(), &[1, 1, 1])) };
    let first = match before {
        Some(x) => x.reshape([b, 1, c])?,
        None => Tensor::zeros([b, 1, c], x.dtype(), x.device())?,
    };
    if t == 0 {
        return Ok((x.clone(), first.reshape([b, c])?));
    }
    let last = x.narrow(1, t - 1, 1)?.reshape([b, c])?;
    let earlier = if t == 1 { first } else { Tensor::cat(&[&first, &x.narrow(1, 0, t - 1)?], 1)? };
    Ok((earlier.sub(x)?, last.detach().contiguous()?))
}

/// `time_mix_ln`: normalises each head on its own (a group norm), with a gain and an offset for every channel.
#[derive(Clone, Debug)]
struct HeadNorm {
    norm: Norm,
    weight: Param,
    bias: Param,
}

impl HeadNorm {
    /// Both generations use this, whatever the model's other norms have.
    const EPS: f64 = 64e-5;

    fn new(source: &mut dyn Source, name: &str, hidden: usize) -> Result<Self> {
        Ok(HeadNorm {
            norm: Norm::new(source, name, &[], NormKind::LayerUnit, Self::EPS)?,
            weight: source.param(&join(name, "weight"), &[hidden], Init::Ones)?,
            bias: source.param(&join(name, "bias"), &[hidden], Init::Zeros)?,
        })
    }

    /// `x[b, t, h, d]` → `[b, t, h·d]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.norm.forward(x)?.flatten(2, 3)?.mul(&self.weight.get())?.add(&self.bias.get())
    }
}

impl Module for HeadNorm {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        visit(join(prefix, "weight"), Slot::Param(&self.weight));
        visit(join(prefix, "bias"), Slot::Param(&self.bias));
    }
}

/// How many heads of `head_dim` make up `hidden`.
fn heads(hidden: usize, head_dim: usize) -> Result<usize> {
    match head_dim > 0 && hidden.is_multiple_of(head_dim) {
        true => Ok(hidden / head_dim),
        false => Err(crate::Error::argument(
            "rwkv",
            format!("a width of {hidden} is no whole number of heads of {head_dim}"),
        )),
    }
}
