use imaginal_tensor::{Result, Tensor, WkvInputs};

use super::{HeadNorm, shift};
use crate::{Init, Linear, Module, Param, RecurrentState, Slot, Source, join};

/// Shape of [`Rwkv7TimeMix`].
#[derive(Clone, Debug, PartialEq)]
pub struct Rwkv7TimeMixConfig {
    /// Width of the residual stream, a multiple of `head_dim`.
    pub hidden: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width through which decays are projected.
    pub decay_rank: usize,
    /// Width through which the learning rates in context are projected.
    pub rate_rank: usize,
    /// Width through which the share of the first layer's values is projected; `None` in the first layer.
    pub value_rank: Option<usize>,
    /// Width through which the gate is projected; `None` without a gate.
    pub gate_rank: Option<usize>,
    /// Whether the heads are normalised.
    pub norm: bool,
}

/// `offset + second(act(first(x)))`: a projection through a narrow middle.
#[derive(Clone, Debug)]
struct LowRank {
    first: Linear,
    second: Linear,
    offset: Option<Param>,
}

impl LowRank {
    /// `name0`, `name1`, `name2` as GGUF has them.
    fn new(source: &mut dyn Source, name: &str, hidden: usize, rank: usize, offset: Option<Init>) -> Result<Self> {
        let small = Init::Uniform { bound: 1e-2 };
        Ok(LowRank {
            first: Linear::new(source, &format!("{name}1"), hidden, rank, false, small)?,
            second: Linear::new(source, &format!("{name}2"), rank, hidden, false, small)?,
            offset: match offset {
                Some(init) => Some(source.param(&format!("{name}0.weight"), &[hidden], init)?),
                None => None,
            },
        })
    }

    fn forward(&self, x: &Tensor, act: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let y = self.second.forward(&act(&self.first.forward(x)?)?)?;
        match &self.offset {
            Some(offset) => y.add(&offset.get()),
            None => Ok(y),
        }
    }

    fn slots(&self, name: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        if let Some(offset) = &self.offset {
            visit(format!("{name}0.weight"), Slot::Param(offset));
        }
        self.first.slots(&format!("{name}1"), visit);
        self.second.slots(&format!("{name}2"), visit);
    }
}

/// Time mixing of RWKV-7 (Peng et al. 2025, "Goose", §4): linear attention whose state is corrected by a generalised delta
/// rule, with decays and learning rates for every channel, and values that lean towards those of the first layer.
#[derive(Clone, Debug)]
pub struct Rwkv7TimeMix {
    config: Rwkv7TimeMixConfig,
    lerp: Param,
    w: LowRank,
    a: LowRank,
    v: Option<LowRank>,
    g: Option<LowRank>,
    k_k: Param,
    k_a: Param,
    r_k: Param,
    /// Receptance, key, value, output.
    linear: [Linear; 4],
    norm: Option<HeadNorm>,
}

/// Of [`Rwkv7TimeMix::linear`].
const LINEAR: [&str; 4] = ["receptance", "key", "value", "output"];

impl Rwkv7TimeMix {
    /// Builds the layer's tensors under `prefix`, `time_mix_…`, as GGUF names them. The weights of the blends with the token
    /// before are one tensor, `time_mix_lerp_fused` `[6, 1, 1, hidden]` (5 without a gate), in the order r, w, k, v, a,
    /// g. The first layer has no `time_mix_v0`, `v1`, `v2`; where a file has them nevertheless nothing reads them.
    ///
    /// # Errors
    /// The source does not have them in these shapes, or the width is not a whole number of heads.
    pub fn new(source: &mut dyn Source, prefix: &str, c: &Rwkv7TimeMixConfig) -> Result<Self> {
        super::heads(c.hidden, c.head_dim)?;
        let name = |n: &str| join(prefix, &format!("time_mix_{n}"));
        let blend = Init::Uniform { bound: 1.0 };
        let blends = 5 + usize::from(c.gate_rank.is_some());
        let mut linear = Vec::with_capacity(LINEAR.len());
        for n in LINEAR {
            linear.push(Linear::new(source, &name(n), c.hidden, c.hidden, false, Init::Normal { std: 0.02 })?);
        }
        Ok(Rwkv7TimeMix {
            lerp: source.param(&name("lerp_fused.weight"), &[blends, 1, 1, c.hidden], blend)?,
            w: LowRank::new(source, &name("w"), c.hidden, c.decay_rank, Some(Init::Uniform { bound: 5.0 }))?,
            a: LowRank::new(source, &name("a"), c.hidden, c.rate_rank, Some(Init::Zeros))?,
            v: match c.value_rank {
                Some(rank) => Some(LowRank::new(source, &name("v"), c.hidden, rank, Some(Init::Ones))?),
                None => None,
            },
            g: match c.gate_rank {
                Some(rank) => Some(LowRank::new(source, &name("g"), c.hidden, rank, None)?),
                None => None,
            },
            k_k: source.param(&name("k_k.weight"), &[c.hidden], Init::Ones)?,
            k_a: source.param(&name("k_a.weight"), &[c.hidden], Init::Ones)?,
            r_k: source.param(&name("r_k.weight"), &[c.hidden], Init::Zeros)?,
            linear: linear.try_into().map_err(|_| crate::Error::argument("rwkv7", "four matrices"))?,
            norm: if c.norm { Some(HeadNorm::new(source, &name("ln"), c.hidden)?) } else { None },
            config: c.clone(),
        })
    }

    /// `x[b, t, hidden]` → the same shape. With a state the recurrence goes on from it and the state moves by `t` positions
    /// (then no gradients flow into the past); without one it starts from zero.
    ///
    /// `first` carries the values of the model's first layer to the others, within one pass through the layers: that layer
    /// (the one without a `value_rank`) writes it, later ones read it.
    ///
    /// # Errors
    /// The shapes do not fit, the state is of another shape, or a later layer finds no values of the first.
    pub fn forward(
        &self,
        x: &Tensor,
        state: Option<&mut RecurrentState>,
        first: &mut Option<Tensor>,
    ) -> Result<Tensor> {
        if self.v.is_none() {
            *first = None;
        }
        let given = match (&self.v, &*first) {
            (Some(_), None) => {
                return Err(crate::Error::argument(
                    "rwkv7",
                    "a later layer ran before the values of the first were there",
                ));
            }
            (_, given) => given.clone(),
        };
        let mut values = Vec::new();
        let mut mix = |x: &Tensor, at: usize, s: Option<&[Tensor]>| {
            let given =
                given.as_ref().map(|v| if x.dim(1)? == v.dim(1)? { Ok(v.clone()) } else { v.narrow(1, at, x.dim(1)?) });
            let (y, v, s) = self.mix(x, given.transpose()?.as_ref(), s)?;
            values.push(v);
            Ok((y, s))
        };
        let y = match state {
            None => mix(x, 0, None)?.0,
            Some(state) => {
                state.run(x.dim(1)?, |range, s| mix(&x.narrow(1, range.start, range.len())?, range.start, Some(s)))?
            }
        };
        if self.v.is_none() {
            *first = Some(match values.as_slice() {
                [one] => one.clone(),
                several => Tensor::cat(several, 1)?,
            });
        }
        Ok(y)
    }

    /// The result, the values, the state after.
    fn mix(
        &self,
        x: &Tensor,
        first: Option<&Tensor>,
        state: Option<&[Tensor]>,
    ) -> Result<(Tensor, Tensor, Vec<Tensor>)> {
        let c = &self.config;
        let (b, t) = (x.dim(0)?, x.dim(1)?);
        let (dx, last) = shift(x, state.map(|s| &s[0]))?;
        let blends = self.lerp.get().mul(&dx)?.add(x)?;
        let blend = |i: usize| blends.narrow(0, i, 1)?.squeeze(0);
        let heads = |x: Tensor| x.reshape([b, t, c.hidden / c.head_dim, c.head_dim]);
        let same = |x: &Tensor| Ok(x.clone());
        let [receptance, key, value, output] = &self.linear;
        // The decay is e^(−e^(−½)·σ(w)).
        let log_decay = self.w.forward(&blend(1)?, Tensor::tanh)?.sigmoid()?.mul_scalar(-(-0.5f64).exp())?;
        let (r, k, xv) = (receptance.forward(&blend(0)?)?, key.forward(&blend(2)?)?, blend(3)?);
        let mut v = value.forward(&xv)?;
        if let (Some(mix), Some(first)) = (&self.v, first) {
            v = v.add(&first.sub(&v)?.mul(&mix.forward(&xv, same)?.sigmoid()?)?)?;
        }
        let a = self.a.forward(&blend(4)?, same)?.sigmoid()?;
        let unit = heads(k.mul(&self.k_k.get())?)?;
        let unit = unit.mul(&unit.sqr()?.sum(&[3], true)?.clamp(1e-24, f64::INFINITY)?.rsqrt()?)?;
        let k = heads(k.mul(&a.add_scalar(-1.0)?.mul(&self.k_a.get())?.add_scalar(1.0)?)?)?;
        let (r, v4) = (heads(r)?, heads(v.clone())?);
        let inputs = WkvInputs {
            log_decay: &heads(log_decay)?,
            k: &k,
            v: &v4,
            bonus: None,
            correction: Some((&unit.neg()?, &unit.mul(&heads(a)?)?)),
            s0: state.map(|s| &s[1]),
        };
        let (y, s) = r.wkv(&inputs)?;
        let y = match &self.norm {
            Some(norm) => norm.forward(&y)?,
            None => y.flatten(2, 3)?,
        };
        let own = r.mul(&k)?.mul(&self.r_k.get().reshape([c.hidden / c.head_dim, c.head_dim])?)?.sum(&[3], true)?;
        let y = y.add(&own.mul(&v4)?.flatten(2, 3)?)?;
        let y = match &self.g {
            Some(g) => y.mul(&g.forward(&blend(5)?, Tensor::sigmoid)?)?,
            None => y,
        };
        Ok((output.forward(&y)?, v, vec![last, s]))
    }

    /// A state for `batch` sequences, before the first token: the last token's features and the matrices of the heads.
    pub fn state(&self, batch: usize) -> RecurrentState {
        let c = &self.config;
        let shapes = vec![vec![batch, c.hidden], vec![batch, c.hidden / c.head_dim, c.head_dim, c.head_dim]];
        RecurrentState::new(shapes, self.k_k.get().device())
    }
}

impl Module for Rwkv7TimeMix {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        let name = |n: &str| join(prefix, &format!("time_mix_{n}"));
        for (n, p) in [("lerp_fused", &self.lerp), ("k_k", &self.k_k), ("k_a", &self.k_a), ("r_k", &self.r_k)] {
            visit(name(&format!("{n}.weight")), Slot::Param(p));
        }
        for (n, low) in [("w", Some(&self.w)), ("a", Some(&self.a)), ("v", self.v.as_ref()), ("g", self.g.as_ref())] {
            if let Some(low) = low {
                low.slots(&name(n), visit);
            }
        }
        for (n, linear) in LINEAR.iter().zip(&self.linear) {
            linear.slots(&name(n), visit);
        }
        if let Some(norm) = &self.norm {
            norm.slots(&name("ln"), visit);
        }
    }
}
