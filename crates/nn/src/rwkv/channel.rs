use imaginal_tensor::{Result, Tensor};

use super::shift;
use crate::{Init, Linear, Module, Param, RecurrentState, Slot, Source, join};

/// Shape of [`RwkvChannelMix`].
#[derive(Clone, Debug, PartialEq)]
pub struct RwkvChannelMixConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width between the matrices.
    pub inner: usize,
    /// Whether the result is gated by a receptance: RWKV-6 has it, RWKV-7 does not.
    pub receptance: bool,
}

/// Channel mixing of RWKV-6 (Peng et al. 2024, §4.3) and RWKV-7 (Peng et al. 2025, §4): `value(relu(key(x_k))²)`, in RWKV-6
/// times `σ(receptance(x_r))`, where `x_k` and `x_r` are blends with the token before.
#[derive(Clone, Debug)]
pub struct RwkvChannelMix {
    hidden: usize,
    lerp_k: Param,
    key: Linear,
    value: Linear,
    gate: Option<(Param, Linear)>,
}

impl RwkvChannelMix {
    /// Builds the layer's tensors under `prefix`, `channel_mix_…`, as GGUF names them.
    ///
    /// # Errors
    /// The source does not have them in these shapes.
    pub fn new(source: &mut dyn Source, prefix: &str, c: &RwkvChannelMixConfig) -> Result<Self> {
        let name = |n: &str| join(prefix, &format!("channel_mix_{n}"));
        let lerp = |source: &mut dyn Source, n: &str| {
            source.param(&join(&name(n), "weight"), &[c.hidden], Init::Uniform { bound: 1.0 })
        };
        let normal = Init::Normal { std: 0.02 };
        Ok(RwkvChannelMix {
            hidden: c.hidden,
            lerp_k: lerp(source, "lerp_k")?,
            key: Linear::new(source, &name("key"), c.hidden, c.inner, false, normal)?,
            value: Linear::new(source, &name("value"), c.inner, c.hidden, false, normal)?,
            gate: match c.receptance {
                true => Some((
                    lerp(source, "lerp_r")?,
                    Linear::new(source, &name("receptance"), c.hidden, c.hidden, false, normal)?,
                )),
                false => None,
            },
        })
    }

    /// `x[b, t, hidden]` → the same shape. With a state the first token is blended with the last of the call before, without one
    /// with zeros.
    ///
    /// # Errors
    /// The shapes do not fit, or the state is of another shape.
    pub fn forward(&self, x: &Tensor, state: Option<&mut RecurrentState>) -> Result<Tensor> {
        match state {
            None => Ok(self.mix(x, None)?.0),
            Some(state) => state.run(x.dim(1)?, |range, tensors| {
                let (y, last) = self.mix(&x.narrow(1, range.start, range.len())?, Some(&tensors[0]))?;
                Ok((y, vec![last]))
            }),
        }
    }

    fn mix(&self, x: &Tensor, before: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (dx, last) = shift(x, before)?;
        let blend = |lerp: &Param| x.add(&dx.mul(&lerp.get())?);
        let y = self.value.forward(&self.key.forward(&blend(&self.lerp_k)?)?.relu()?.sqr()?)?;
        let y = match &self.gate {
            Some((lerp, receptance)) => receptance.forward(&blend(lerp)?)?.sigmoid()?.mul(&y)?,
            None => y,
        };
        Ok((y, last))
    }

    /// A state for `batch` sequences, before the first token: the last token's features.
    pub fn state(&self, batch: usize) -> RecurrentState {
        RecurrentState::new(vec![vec![batch, self.hidden]], self.lerp_k.get().device())
    }
}

impl Module for RwkvChannelMix {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        let name = |n: &str| join(prefix, &format!("channel_mix_{n}"));
        visit(name("lerp_k.weight"), Slot::Param(&self.lerp_k));
        self.key.slots(&name("key"), visit);
        self.value.slots(&name("value"), visit);
        if let Some((lerp, receptance)) = &self.gate {
            visit(name("lerp_r.weight"), Slot::Param(lerp));
            receptance.slots(&name("receptance"), visit);
        }
    }
}
