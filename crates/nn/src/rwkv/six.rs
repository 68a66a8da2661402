use imaginal_tensor::{Result, Tensor, WkvInputs};

use super::{HeadNorm, shift};
use crate::{Init, Linear, Module, Param, RecurrentState, Slot, Source, join};

/// Shape of [`Rwkv6TimeMix`].
#[derive(Clone, Debug, PartialEq)]
pub struct Rwkv6TimeMixConfig {
    /// Width of the residual stream, a multiple of `head_dim`.
    pub hidden: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width through which the blends with the token before are projected.
    pub mix_rank: usize,
    /// Width through which decays are projected.
    pub decay_rank: usize,
}

/// Time mixing of RWKV-6 (Peng et al. 2024, "Eagle and Finch", §4): five blends with the token before, whose weights depend
/// on the token; linear attention whose decay does too; a norm for each head and a gate.
#[derive(Clone, Debug)]
pub struct Rwkv6TimeMix {
    config: Rwkv6TimeMixConfig,
    lerp_x: Param,
    lerp: Param,
    w1: Linear,
    w2: Param,
    first: Param,
    decay: Param,
    decay_w1: Linear,
    decay_w2: Linear,
    /// Receptance, key, value, gate, output.
    linear: [Linear; 5],
    norm: HeadNorm,
}

/// Of [`Rwkv6TimeMix::linear`].
const LINEAR: [&str; 5] = ["receptance", "key", "value", "gate", "output"];

impl Rwkv6TimeMix {
    /// Builds the layer's tensors under `prefix`, `time_mix_…`, as GGUF names them. The weights of the five blends are one
    /// tensor, `time_mix_lerp_fused` `[5, 1, 1, hidden]`, in the order w, k, v, r, g.
    ///
    /// # Errors
    /// The source does not have them in these shapes, or the width is not a whole number of heads.
    pub fn new(source: &mut dyn Source, prefix: &str, c: &Rwkv6TimeMixConfig) -> Result<Self> {
        let heads = super::heads(c.hidden, c.head_dim)?;
        let name = |n: &str| join(prefix, &format!("time_mix_{n}"));
        let (small, normal) = (Init::Uniform { bound: 1e-2 }, Init::Normal { std: 0.02 });
        let blend = Init::Uniform { bound: 1.0 };
        let mut linear = Vec::with_capacity(LINEAR.len());
        for n in LINEAR {
            linear.push(Linear::new(source, &name(n), c.hidden, c.hidden, false, normal)?);
        }
        Ok(Rwkv6TimeMix {
            lerp_x: source.param(&name("lerp_x.weight"), &[c.hidden], blend)?,
            lerp: source.param(&name("lerp_fused.weight"), &[5, 1, 1, c.hidden], blend)?,
            w1: Linear::new(source, &name("w1"), c.hidden, 5 * c.mix_rank, false, small)?,
            w2: source.param(&name("w2.weight"), &[5, c.hidden, c.mix_rank], small)?,
            first: source.param(&name("first.weight"), &[heads, c.head_dim], blend)?,
            decay: source.param(&name("decay.weight"), &[c.hidden], Init::Uniform { bound: 5.0 })?,
            decay_w1: Linear::new(source, &name("decay_w1"), c.hidden, c.decay_rank, false, small)?,
            decay_w2: Linear::new(source, &name("decay_w2"), c.decay_rank, c.hidden, false, small)?,
            linear: linear.try_into().map_err(|_| crate::Error::argument("rwkv6", "five matrices"))?,
            norm: HeadNorm::new(source, &name("ln"), c.hidden)?,
            config: c.clone(),
        })
    }

    /// `x[b, t, hidden]` → the same shape. With a state the recurrence goes on from it and the state moves by `t` positions
    /// (then no gradients flow into the past); without one it starts from zero.
    ///
    /// # Errors
    /// The shapes do not fit, or the state is of another shape.
    pub fn forward(&self, x: &Tensor, state: Option<&mut RecurrentState>) -> Result<Tensor> {
        match state {
            None => Ok(self.mix(x, None)?.0),
            Some(state) => state.run(x.dim(1)?, |range, s| self.mix(&x.narrow(1, range.start, range.len())?, Some(s))),
        }
    }

    fn mix(&self, x: &Tensor, state: Option<&[Tensor]>) -> Result<(Tensor, Vec<Tensor>)> {
        let c = &self.config;
        let (b, t) = (x.dim(0)?, x.dim(1)?);
        let (dx, last) = shift(x, state.map(|s| &s[0]))?;
        let low = self.w1.forward(&x.add(&dx.mul(&self.lerp_x.get())?)?)?.tanh()?;
        let low = low.reshape([b * t, 5, c.mix_rank])?.transpose(0, 1)?;
        let lerp = low.matmul(&self.w2.get().t()?)?.reshape([5, b, t, c.hidden])?.add(&self.lerp.get())?;
        let blends = lerp.mul(&dx)?.add(x)?;
        let blend = |i: usize| blends.narrow(0, i, 1)?.squeeze(0);
        let heads = |x: Tensor| x.reshape([b, t, c.hidden / c.head_dim, c.head_dim]);
        let [receptance, key, value, gate, output] = &self.linear;
        let decay = self.decay_w2.forward(&self.decay_w1.forward(&blend(0)?)?.tanh()?)?;
        let inputs = WkvInputs {
            log_decay: &heads(decay.add(&self.decay.get())?.exp()?.neg()?)?,
            k: &heads(key.forward(&blend(1)?)?)?,
            v: &heads(value.forward(&blend(2)?)?)?,
            bonus: Some(&self.first.get()),
            correction: None,
            s0: state.map(|s| &s[1]),
        };
        let (y, s) = heads(receptance.forward(&blend(3)?)?)?.wkv(&inputs)?;
        let gate = gate.forward(&blend(4)?)?;
        Ok((output.forward(&gate.swiglu(&self.norm.forward(&y)?)?)?, vec![last, s]))
    }

    /// A state for `batch` sequences, before the first token: the last token's features and the matrices of the heads.
    pub fn state(&self, batch: usize) -> RecurrentState {
        let c = &self.config;
        let shapes = vec![vec![batch, c.hidden], vec![batch, c.hidden / c.head_dim, c.head_dim, c.head_dim]];
        RecurrentState::new(shapes, self.first.get().device())
    }
}

impl Module for Rwkv6TimeMix {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        let name = |n: &str| join(prefix, &format!("time_mix_{n}"));
        self.w1.slots(&name("w1"), visit);
        self.decay_w1.slots(&name("decay_w1"), visit);
        self.decay_w2.slots(&name("decay_w2"), visit);
        let params = [("lerp_x", &self.lerp_x), ("lerp_fused", &self.lerp), ("w2", &self.w2)];
        for (n, p) in params.into_iter().chain([("first", &self.first), ("decay", &self.decay)]) {
            visit(name(&format!("{n}.weight")), Slot::Param(p));
        }
        for (n, linear) in LINEAR.iter().zip(&self.linear) {
            linear.slots(&name(n), visit);
        }
        self.norm.slots(&name("ln"), visit);
    }
}
