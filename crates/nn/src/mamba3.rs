use std::f64::consts::{PI, TAU};

use imaginal_tensor::{DType, Error, Result, Tensor, TrapezoidInputs};

use crate::{Init, Linear, Module, Norm, NormKind, Param, RecurrentState, RopeStyle, Slot, Source, join};

/// How the rate of decay follows from its projection `x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mamba3Decay {
    /// `ln(1 + e^x)`: the paper, and the authors' code at first.
    Softplus,
    /// `1 + x` above zero, `1 / (1 − x)` below: the authors' code since June 2026.
    HeavyTail,
}

/// Shape of [`Mamba3`].
#[derive(Clone, Debug, PartialEq)]
pub struct Mamba3Config {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// State per channel, an even number.
    pub state: usize,
    /// How many `B` and `C` the heads share.
    pub groups: usize,
    /// Inputs and outputs of a head (MIMO); `None` for one without matrices to and from it (SISO).
    pub rank: Option<usize>,
    /// Angles by which pairs of the state turn, at most half of it; the rest stands still.
    pub angles: usize,
    /// Which elements make up a pair: `i` and `i + state/2`, or neighbours. The authors' kernels take the former for MIMO,
    /// the latter for SISO.
    pub style: RopeStyle,
    /// How rates of decay are computed.
    pub decay: Mamba3Decay,
    /// The smallest rate of decay.
    pub least_decay: f64,
    /// Whether each head is normalised before its gate.
    pub norm: bool,
    /// Layers of the whole model, by which the output projection's initial values are scaled down.
    pub layers: usize,
}

/// The state space layer of Mamba-3 (Lahoti et al. 2026): the trapezoidal rule, a state that turns (complex
/// eigenvalues, as rotations of `B` and `C` by angles that depend on the data and add up), norms and biases of `B` and
/// `C`, several inputs and outputs per head, no convolution.
///
/// Order and meaning of the tensors are those of the authors' implementation, `state-spaces/mamba`.
#[derive(Clone, Debug)]
pub struct Mamba3 {
    config: Mamba3Config,
    input: Linear,
    dt_bias: Param,
    b_norm: Norm,
    c_norm: Norm,
    b_bias: Param,
    c_bias: Param,
    /// To the inputs, to the gates and from the outputs of a head.
    mimo: Option<[Param; 3]>,
    d: Param,
    norm: Option<(Norm, Param)>,
    out: Linear,
}

const EPS: f64 = 1e-5;
/// Steps after which whole turns are taken off angles: those of thousands of steps would be sums too large for f32.
const TURNS: usize = 64;
/// Of [`Mamba3::mimo`].
const MIMO: [&str; 3] = ["ssm_mimo_x", "ssm_mimo_z", "ssm_mimo_out"];

impl Mamba3 {
    /// Builds under `prefix` (GGUF has no names for all of them yet): `ssm_in` (z, x, B, C, Δ, A, λ and the angles),
    /// `ssm_dt.bias`, `ssm_b_norm`, `ssm_c_norm`, `ssm_b_bias` and `ssm_c_bias` `[heads, rank, state]`, `ssm_mimo_x`,
    /// `ssm_mimo_z`, `ssm_mimo_out` `[heads, rank, head_dim]`, `ssm_d`, `ssm_norm` and `ssm_out`.
    ///
    /// # Errors
    /// The source does not have them in these shapes, or the sizes contradict one another.
    pub fn new(source: &mut dyn Source, prefix: &str, c: &Mamba3Config) -> Result<Self> {
        if c.groups == 0 || !c.heads.is_multiple_of(c.groups) {
            let what = format!("{} heads are no multiple of {} groups", c.heads, c.groups);
            return Err(Error::argument("mamba3", what));
        }
        if c.angles == 0 || 2 * c.angles > c.state || !c.state.is_multiple_of(2) || c.rank == Some(0) {
            let what = format!("{} angles, a state of {}, a rank of {:?}", c.angles, c.state, c.rank);
            return Err(Error::argument("mamba3", format!("impossible sizes: {what}")));
        }
        let name = |n: &str| join(prefix, n);
        let (inner, rank) = (c.heads * c.head_dim, c.rank.unwrap_or(1));
        let uniform = |inputs: usize| Init::Uniform { bound: 1.0 / (inputs.max(1) as f64).sqrt() };
        let bc = &[c.heads, rank, c.state];
        let share = Init::Spaced { first: 1.0 / rank as f64, last: 1.0 / rank as f64 };
        let mimo = match c.rank {
            Some(rank) => {
                let mut of = |i: usize, init| source.param(&name(MIMO[i]), &[c.heads, rank, c.head_dim], init);
                Some([of(0, share)?, of(1, Init::Ones)?, of(2, share)?])
            }
            None => None,
        };
        Ok(Mamba3 {
            input: Linear::new(source, &name("ssm_in"), c.hidden, c.widths().iter().sum(), false, uniform(c.hidden))?,
            dt_bias: source.param(&name("ssm_dt.bias"), &[c.heads], Init::InverseSoftplus { min: 0.001, max: 0.1 })?,
            b_norm: Norm::new(source, &name("ssm_b_norm"), &[c.state], NormKind::Rms, EPS)?,
            c_norm: Norm::new(source, &name("ssm_c_norm"), &[c.state], NormKind::Rms, EPS)?,
            b_bias: source.param(&name("ssm_b_bias"), bc, Init::Ones)?,
            c_bias: source.param(&name("ssm_c_bias"), bc, Init::Ones)?,
            mimo,
            d: source.param(&name("ssm_d"), &[c.heads], Init::Ones)?,
            norm: match c.norm {
                true => Some((
                    Norm::new(source, &name("ssm_norm"), &[], NormKind::RmsUnit, EPS)?,
                    source.param(&name("ssm_norm.weight"), &[inner], Init::Ones)?,
                )),
                false => None,
            },
            out: Linear::new(source, &name("ssm_out"), inner, c.hidden, false, uniform(inner * c.layers))?,
            config: c.clone(),
        })
    }

    /// `x[b, t, hidden]` → the same shape. With a state the recurrence goes on from it and the state moves by `t` positions
    /// (then no gradients flow into the past); without one it starts from zero.
    ///
    /// # Errors
    /// The shapes do not fit, or the state is of another shape.
    pub fn forward(&self, x: &Tensor, state: Option<&mut RecurrentState>) -> Result<Tensor> {
        let input = self.input.forward(x)?;
        let y = match state {
            None => self.scan(&input, None)?.0,
            Some(state) => {
                state.run(x.dim(1)?, |range, s| self.scan(&input.narrow(1, range.start, range.len())?, Some(s)))?
            }
        };
        self.out.forward(&y)
    }

    fn scan(&self, input: &Tensor, state: Option<&[Tensor]>) -> Result<(Tensor, Vec<Tensor>)> {
        let c = &self.config;
        let (b, t, h, p, n, r) = (input.dim(0)?, input.dim(1)?, c.heads, c.head_dim, c.state, c.rank.unwrap_or(1));
        let mut at = 0;
        let parts = c.widths().map(|width| {
            at += width;
            input.narrow(2, at - width, width)
        });
        let [z, x, bs, cs, dt, a, trapezoid, angles] = parts;
        let dt = dt?.add(&self.dt_bias.get())?.softplus()?;
        let log_decay = c.decay_rate(&a?)?.mul(&dt)?.neg()?;
        let now = trapezoid?.sigmoid()?.mul(&dt)?;

        let steps = angles?.tanh()?.mul_scalar(PI)?.unsqueeze(2)?.mul(&dt.unsqueeze(3)?)?;
        let (turns, kept) = add_up(&steps, state.map(|s| &s[0]))?;
        let (cos, sin) = (turns.cos()?.unsqueeze(3)?, turns.sin()?.unsqueeze(3)?);
        let rows = |x: Tensor, norm: &Norm, bias: &Param| {
            let x = norm.forward(&x.reshape([b, t, r, c.groups, n])?)?.transpose(2, 3)?;
            let x = x.unsqueeze(3)?.broadcast_as([b, t, c.groups, h / c.groups, r, n])?.reshape([b, t, h, r, n])?;
            c.turn(&x.add(&bias.get())?, &cos, &sin)
        };
        let (k, q) = (rows(bs?, &self.b_norm, &self.b_bias)?, rows(cs?, &self.c_norm, &self.c_bias)?);
        let heads = |x: Tensor, i: usize| {
            let x = x.reshape([b, t, h, 1, p])?;
            match &self.mimo {
                Some(mimo) => x.mul(&mimo[i].get()),
                None => Ok(x),
            }
        };
        let (v, z) = (heads(x?, 0)?, heads(z?, 1)?);
        let inputs = TrapezoidInputs {
            k: &k,
            v: &v,
            log_decay: &log_decay,
            now: &now,
            before: &dt.sub(&now)?,
            state: state.map(|s| [&s[1], &s[2], &s[3]]),
        };
        let (y, last) = q.trapezoid_scan(&inputs)?;
        let mut y = y.add(&v.mul(&self.d.get().reshape([h, 1, 1])?)?)?;
        if let Some((norm, weight)) = &self.norm {
            y = norm.forward(&y)?.mul(&weight.get().reshape([h, 1, p])?)?;
        }
        let y = z.swiglu(&y)?;
        let y = match &self.mimo {
            Some(mimo) => y.mul(&mimo[2].get())?.sum(&[3], false)?,
            None => y.squeeze(3)?,
        };
        Ok((y.reshape([b, t, h * p])?, [kept].into_iter().chain(last).collect()))
    }

    /// A state for `batch` sequences, before the first token: angles, memory, and the last step's keys and values.
    pub fn state(&self, batch: usize) -> RecurrentState {
        let c = &self.config;
        let r = c.rank.unwrap_or(1);
        let heads = |rest: &[usize]| [&[batch, c.heads], rest].concat();
        let shapes =
            vec![heads(&[c.angles]), heads(&[c.state, c.head_dim]), heads(&[r, c.state]), heads(&[r, c.head_dim])];
        RecurrentState::new(shapes, self.d.get().device())
    }
}

/// The running sums of `steps[b, t, ..]` from `start[b, ..]` on but for whole turns, and the last without them.
fn add_up(steps: &Tensor, start: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
    let t = steps.dim(1)?;
    let mut last = match start {
        Some(start) => start.unsqueeze(1)?,
        None => Tensor::zeros((), steps.dtype(), steps.device())?
            .broadcast_as([&[steps.dim(0)?, 1], &steps.shape()[2..]].concat())?,
    };
    let mut sums = Vec::with_capacity(t.div_ceil(TURNS));
    for at in (0..t).step_by(TURNS) {
        let len = TURNS.min(t - at);
        let sum = steps.narrow(1, at, len)?.cumsum(1)?.add(&last)?;
        last = sum.narrow(1, len - 1, 1)?;
        let whole = last.mul_scalar(1.0 / TAU)?.to_dtype(DType::I32)?.to_dtype(last.dtype())?;
        last = last.sub(&whole.mul_scalar(TAU)?)?;
        sums.push(sum);
    }
    let sums = match sums.as_slice() {
        [] => steps.clone(),
        [one] => one.clone(),
        sums => Tensor::cat(sums, 1)?,
    };
    Ok((sums, last.squeeze(1)?.detach()))
}

impl Mamba3Config {
    /// Of the parts of the input projection: z, x, B, C, Δ, A, λ, angles.
    fn widths(&self) -> [usize; 8] {
        let (inner, h) = (self.heads * self.head_dim, self.heads);
        let bc = self.rank.unwrap_or(1) * self.groups * self.state;
        [inner, inner, bc, bc, h, h, h, self.angles]
    }

    fn decay_rate(&self, x: &Tensor) -> Result<Tensor> {
        let rate = match self.decay {
            Mamba3Decay::Softplus => x.softplus()?,
            Mamba3Decay::HeavyTail => {
                let above = x.relu()?;
                above.add(&above.sub(x)?.add_scalar(1.0)?.recip()?)?
            }
        };
        rate.clamp(self.least_decay, f64::INFINITY)
    }

    /// Turns the first pairs of `x[.., state]`.
    fn turn(&self, x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
        let (last, half, a) = (x.rank() - 1, self.state / 2, self.angles);
        let pairs = |x: &Tensor, tail: [usize; 2]| x.reshape([&x.shape()[..last], &tail].concat());
        let (x, pair) = match self.style {
            RopeStyle::Half => (pairs(x, [2, half])?, last),
            RopeStyle::Interleaved => (pairs(x, [half, 2])?, last + 1),
        };
        let side = |i: usize| x.narrow(pair, i, 1)?.squeeze(pair);
        let (left, right) = (side(0)?, side(1)?);
        let (l, r) = (left.narrow(last, 0, a)?, right.narrow(last, 0, a)?);
        let turned = [l.mul(cos)?.sub(&r.mul(sin)?)?, l.mul(sin)?.add(&r.mul(cos)?)?];
        let [left, right] = match a == half {
            true => turned,
            false => {
                let [l, r] = turned;
                let still = |x: &Tensor| x.narrow(last, a, half - a);
                [Tensor::cat(&[l, still(&left)?], last)?, Tensor::cat(&[r, still(&right)?], last)?]
            }
        };
        Tensor::stack(&[left, right], pair)?.flatten(last, last + 1)
    }
}

impl Module for Mamba3 {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        let name = |n: &str| join(prefix, n);
        self.input.slots(&name("ssm_in"), visit);
        visit(name("ssm_dt.bias"), Slot::Param(&self.dt_bias));
        self.b_norm.slots(&name("ssm_b_norm"), visit);
        self.c_norm.slots(&name("ssm_c_norm"), visit);
        visit(name("ssm_b_bias"), Slot::Param(&self.b_bias));
        visit(name("ssm_c_bias"), Slot::Param(&self.c_bias));
        for (n, p) in MIMO.iter().zip(self.mimo.iter().flatten()) {
            visit(name(n), Slot::Param(p));
        }
        visit(name("ssm_d"), Slot::Param(&self.d));
        if let Some((_, weight)) = &self.norm {
            visit(name("ssm_norm.weight"), Slot::Param(weight));
        }
        self.out.slots(&name("ssm_out"), visit);
    }
}
