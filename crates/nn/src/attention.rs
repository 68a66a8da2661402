use std::sync::Arc;

use imaginal_numeric::half::{bf16_to_f32, f32_to_bf16};
use imaginal_tensor::{AttentionOpts, Error, Result, Tensor};

use crate::{Init, KvState, Linear, Module, Norm, NormKind, Param, Rope, RopeConfig, Slot, Source, State, join};

/// Shape of an attention layer.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads, each shared by `heads / kv_heads` query heads (Ainslie et al. 2023).
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Whether the query, key and value projections have biases.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub out_bias: bool,
    /// How queries and keys are normalised, if they are.
    pub qk_norm: Option<QkNorm>,
    /// Position embedding; `None` where positions are not told.
    pub rope: Option<RopeConfig>,
    /// Factor of the scores.
    pub scale: f64,
    /// Scores s become `cap · tanh(s / cap)` (Gemma 2).
    pub softcap: Option<f64>,
    /// Whether each head has a score that competes with those of the keys (GPT-OSS).
    pub sinks: bool,
    /// Whether a query sees only what stands before it.
    pub causal: bool,
    /// A query at position p sees only keys j with |p − j| < window; all if `None`.
    pub window: Option<usize>,
    /// A query sees only keys of its own stretch of so many positions; all if `None` (Llama 4).
    pub chunk: Option<usize>,
    /// Queries, keys and values are clamped to ± this (DBRX).
    pub clip: Option<f64>,
    /// Whether the query projection has a second half for each head, whose sigmoid is multiplied with the head's result
    /// (Qwen 3 Next).
    pub gated: bool,
    /// Queries grow with the logarithm of their position (Llama 4, layers without rotation).
    pub temperature: Option<Temperature>,
    /// Epsilon of the RMS norm of each head's values, which has no weight; `None` where there is none (Gemma 3n).
    pub v_norm: Option<f64>,
    /// Whether each head adds the position of a key times its slope to the scores, before they get their factor: ALiBi
    /// (Press et al. 2022) as Falcon has it, where slopes and products are bf16.
    pub alibi: bool,
    /// The layer whose keys and values it attends to, in place of its own; it comes before, and its keys have the same
    /// shape. Queries stand at the end of these keys.
    pub shared: Option<usize>,
}

impl AttentionConfig {
    /// Elements of a key in a state. ALiBi appends one for each query head that shares the key head; values are filled up.
    pub fn key_dim(&self) -> usize {
        self.head_dim + if self.alibi { self.heads / self.kv_heads } else { 0 }
    }
}

/// Keys and values of a layer that others attend to as well.
#[derive(Copy, Clone, Debug)]
pub enum SharedKv<'a> {
    /// What its state holds, the present tokens included.
    State(&'a KvState),
    /// Those of the present tokens, where there is no state.
    Tensors(&'a Tensor, &'a Tensor),
}

/// A normalisation of queries and keys.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct QkNorm {
    /// Its kind.
    pub kind: NormKind,
    /// Its epsilon.
    pub eps: f64,
    /// What is normalised together.
    pub over: Over,
    /// Whether it comes after the rotation.
    pub after_rope: bool,
}

/// What a normalisation of queries and keys takes together.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// A head, with weights that all heads share.
    Head,
    /// A head, with weights of its own.
    EachHead,
    /// All heads.
    Width,
}

/// Factor of a query at position p: `1 + scale · ln(1 + floor((p + 1) / floor))`.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Temperature {
    /// `attn_scale`.
    pub scale: f64,
    /// `floor_scale`.
    pub floor: f64,
}

/// Grouped-query attention.
#[derive(Clone, Debug)]
pub struct Attention {
    config: AttentionConfig,
    q: Linear,
    /// Unless it has those of another layer.
    kv: Option<(Linear, Linear)>,
    out: Linear,
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
    sinks: Option<Param>,
    rope: Option<Arc<Rope>>,
}

/// What the matrices before attention make of tokens, each `[b, t, heads · head_dim]` with heads of its own.
struct Projected {
    q: Tensor,
    /// Of the same shape as queries, where there are any.
    gate: Option<Tensor>,
    k: Tensor,
    v: Tensor,
}

impl Attention {
    /// Builds `attn_q`, `attn_k`, `attn_v`, `attn_output` and, where configured, `attn_q_norm`, `attn_k_norm` and
    /// `attn_sinks` under `prefix`, initialised to normal(0, 0.02); a layer with the keys and values of another has none of
    /// these that are for keys and values. `rope` are tables made from the same configuration;
    /// layers share them.
    ///
    /// # Errors
    /// The source does not have the tensors in these shapes.
    pub fn new(
        source: &mut dyn Source,
        prefix: &str,
        config: &AttentionConfig,
        rope: Option<Arc<Rope>>,
    ) -> Result<Self> {
        let c = config;
        let init = Init::Normal { std: 0.02 };
        let (q_width, kv_width) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let mut linear =
            |name: &str, inputs, outputs, bias| Linear::new(source, &join(prefix, name), inputs, outputs, bias, init);
        let q = linear("attn_q", c.hidden, if c.gated { 2 * q_width } else { q_width }, c.qkv_bias)?;
        let kv = match c.shared {
            Some(_) => None,
            None => Some((
                linear("attn_k", c.hidden, kv_width, c.qkv_bias)?,
                linear("attn_v", c.hidden, kv_width, c.qkv_bias)?,
            )),
        };
        let out = linear("attn_output", q_width, c.hidden, c.out_bias)?;
        let mut norm = |name: &str, heads: usize| {
            let new =
                |n: &QkNorm| Norm::new(source, &join(prefix, name), &n.over.shape(heads, c.head_dim), n.kind, n.eps);
            c.qk_norm.as_ref().map(new).transpose()
        };
        let q_norm = norm("attn_q_norm", c.heads)?;
        let k_norm = if kv.is_some() { norm("attn_k_norm", c.kv_heads)? } else { None };
        let sinks = match c.sinks {
            true => Some(source.param(&join(prefix, "attn_sinks.weight"), &[c.heads], init)?),
            false => None,
        };
        Ok(Attention { config: config.clone(), q, kv, out, q_norm, k_norm, sinks, rope })
    }

    /// `x[b, t, hidden]` → the same shape. With a state its first row stands at the state's length, sees what the state
    /// holds, and the state grows by `t` positions (then no gradients flow into the past); without one it stands at 0.
    ///
    /// # Errors
    /// The shapes do not fit, or the state is of another shape.
    pub fn forward(&self, x: &Tensor, state: Option<&mut KvState>) -> Result<Tensor> {
        let Some(state) = state else { return Ok(self.lend(x)?.0) };
        let start = state.len();
        let Projected { q, gate, k, v } = self.project(x)?;
        let (k, mut v) = self.place_kv(k, &v, start)?;
        let (b, t, c) = (x.dim(0)?, x.dim(1)?, &self.config);
        if c.key_dim() > c.head_dim {
            let rest = Tensor::zeros([b, t, c.kv_heads, c.key_dim() - c.head_dim], v.dtype(), v.device())?;
            v = Tensor::cat(&[&v, &rest], 3)?;
        }
        state.append(&k, &v)?;
        self.finish(self.look(q, start, SharedKv::State(state))?, gate)
    }

    /// [`Attention::forward`] without a state, and keys and values for layers that share them.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn lend(&self, x: &Tensor) -> Result<(Tensor, (Tensor, Tensor))> {
        let Projected { q, gate, k, v } = self.project(x)?;
        let (k, v) = self.place_kv(k, &v, 0)?;
        Ok((self.finish(self.look(q, 0, SharedKv::Tensors(&k, &v))?, gate)?, (k, v)))
    }

    /// `x[b, t, hidden]` → the same shape, with keys and values of another layer, which has got these `t` tokens already.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn borrow(&self, x: &Tensor, kv: SharedKv) -> Result<Tensor> {
        let start = match kv {
            SharedKv::State(state) => state.len().checked_sub(x.dim(1)?),
            SharedKv::Tensors(..) => Some(0),
        };
        let start =
            start.ok_or_else(|| Error::argument("attention", "the layer that lends has not got these tokens"))?;
        let (q, gate) = self.split(self.clip(self.q.forward(x)?)?)?;
        self.finish(self.look(q, start, kv)?, gate)
    }

    /// `x[1, t, hidden]` → the same shape, for several texts that lie one after another in `x` and see nothing of each
    /// other; `lengths` are theirs. Each begins at position 0. So texts of any lengths are computed together without filling
    /// up the shorter ones.
    ///
    /// # Errors
    /// The shapes do not fit, or the lengths do not add up to `t`.
    pub fn forward_packed(&self, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let c = &self.config;
        let t = x.dim(1)?;
        if x.dim(0)? != 1 || lengths.iter().sum::<usize>() != t {
            let what = format!("texts of {} tokens in a tensor {:?}", lengths.iter().sum::<usize>(), x.shape());
            return Err(Error::argument("attention", what));
        }
        let Projected { q, gate, k, v } = self.project(x)?;
        let (mut first, mut all) = (0, Vec::new());
        // Texts of one length that lie side by side are a batch.
        for group in lengths.chunk_by(|a, b| a == b).filter(|group| group[0] > 0) {
            let (b, t) = (group.len(), group[0]);
            let of = |x: &Tensor| x.narrow(1, first, b * t)?.reshape([b, t, x.dim(2)?]);
            let (k, v) = self.place_kv(of(&k)?, &of(&v)?, 0)?;
            let y = self.look(of(&q)?, 0, SharedKv::Tensors(&k, &v))?;
            all.push(y.reshape([1, b * t, c.heads * c.head_dim])?);
            first += b * t;
        }
        match &all[..] {
            [one] => self.finish(one.clone(), gate),
            all => self.finish(Tensor::cat(all, 1)?, gate),
        }
    }

    fn project(&self, x: &Tensor) -> Result<Projected> {
        let Some((k, v)) = &self.kv else {
            return Err(Error::argument("attention", "this layer has the keys and values of another"));
        };
        let [q, k, v] = Linear::forward_all([&self.q, k, v], x)?;
        let (q, gate) = self.split(self.clip(q)?)?;
        Ok(Projected { q, gate, k: self.clip(k)?, v: self.clip(v)? })
    }

    /// Queries `[b, t, heads · head_dim]` and, where there are any, gates of the same shape, of what was projected.
    fn split(&self, q: Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let c = &self.config;
        if !c.gated {
            return Ok((q, None));
        }
        let (b, t) = (q.dim(0)?, q.dim(1)?);
        let both = q.reshape([b, t, c.heads, 2 * c.head_dim])?;
        let half = |first: usize| both.narrow(3, first, c.head_dim)?.reshape([b, t, c.heads * c.head_dim]);
        Ok((half(0)?, Some(half(c.head_dim)?)))
    }

    /// What comes after the attention itself.
    fn finish(&self, y: Tensor, gate: Option<Tensor>) -> Result<Tensor> {
        match gate {
            Some(gate) => self.out.forward(&y.mul(&gate.sigmoid()?)?),
            None => self.out.forward(&y),
        }
    }

    /// Attention of projected queries, which stand at `start`: `[b, t, heads · head_dim]`, as they are.
    fn look(&self, q: Tensor, start: usize, kv: SharedKv) -> Result<Tensor> {
        let c = &self.config;
        let (b, t) = (q.dim(0)?, q.dim(1)?);
        let mut q = self.place(q, self.q_norm.as_ref(), c.heads, start)?;
        if let Some(Temperature { scale, floor }) = c.temperature {
            let factor = |p: usize| (1.0 + scale * (((p + 1) as f64 / floor).floor() + 1.0).ln()) as f32;
            let factors = Tensor::from_vec((start..start + t).map(factor).collect(), [t, 1, 1], q.device())?;
            q = q.mul(&factors)?;
        }
        if c.alibi {
            // Of the elements that keys have more, each query takes the one that is its own.
            let group = c.heads / c.kv_heads;
            let own = (0..c.heads * group).map(|i| if i / group % group == i % group { 1f32 } else { 0.0 });
            let own = Tensor::from_vec(own.collect(), [1, 1, c.heads, group], q.device())?;
            q = Tensor::cat(&[&q, &own.broadcast_as([b, t, c.heads, group])?], 3)?;
        }
        let opts = AttentionOpts {
            scale: c.scale as f32,
            causal: c.causal,
            q_start: start,
            window: c.window,
            chunk: c.chunk,
            softcap: c.softcap.map(|cap| cap as f32),
        };
        let sinks = self.sinks.as_ref().map(Param::get);
        let mut y = match kv {
            SharedKv::State(state) => state.look(&q, sinks.as_ref(), &opts)?,
            SharedKv::Tensors(k, v) => q.attention(k, v, sinks.as_ref(), &opts)?,
        };
        if y.dim(3)? > c.head_dim {
            y = y.narrow(3, 0, c.head_dim)?;
        }
        y.reshape([b, t, c.heads * c.head_dim])
    }

    /// Keys `[b, t, kv_heads, key_dim]` and values `[b, t, kv_heads, head_dim]` of what was projected, which stands at `start`.
    fn place_kv(&self, k: Tensor, v: &Tensor, start: usize) -> Result<(Tensor, Tensor)> {
        let c = &self.config;
        let (b, t) = (k.dim(0)?, k.dim(1)?);
        let mut k = self.place(k, self.k_norm.as_ref(), c.kv_heads, start)?;
        if c.alibi {
            let slopes = alibi_slopes(c.heads);
            let biases = (start..start + t).flat_map(|p| slopes.iter().map(move |slope| bf16(slope * bf16(p as f32))));
            let group = c.heads / c.kv_heads;
            let biases = Tensor::from_vec(biases.collect(), [1, t, c.kv_heads, group], k.device())?;
            k = Tensor::cat(&[&k, &biases.broadcast_as([b, t, c.kv_heads, group])?], 3)?;
        }
        let mut v = v.reshape([b, t, c.kv_heads, c.head_dim])?;
        if let Some(eps) = c.v_norm {
            v = v.mul(&v.sqr()?.mean(&[3], true)?.add_scalar(eps)?.rsqrt()?)?;
        }
        Ok((k, v))
    }

    fn clip(&self, y: Tensor) -> Result<Tensor> {
        match self.config.clip {
            Some(bound) => y.clamp(-bound, bound),
            None => Ok(y),
        }
    }

    /// Queries or keys `[b, t, heads · head_dim]` as `[b, t, heads, head_dim]`, normalised and turned.
    fn place(&self, x: Tensor, norm: Option<&Norm>, heads: usize, start: usize) -> Result<Tensor> {
        let c = &self.config;
        let (b, t) = (x.dim(0)?, x.dim(1)?);
        let norm = |over: Over, after: bool, x: Tensor| -> Result<Tensor> {
            let wanted = |n: &QkNorm| n.after_rope == after && (n.over == Over::Width) == (over == Over::Width);
            match (norm, c.qk_norm.as_ref().map(wanted)) {
                (Some(norm), Some(true)) => norm.forward(&x),
                _ => Ok(x),
            }
        };
        let x = norm(Over::Width, false, x)?.reshape([b, t, heads, c.head_dim])?;
        let mut x = norm(Over::Head, false, x)?;
        if let Some(rope) = &self.rope {
            x = rope.turn(&x, start)?;
        }
        norm(Over::Head, true, x)
    }
}

/// The slope of each head, rounded to bf16. Where the heads are no power of two, those beyond it have what lies between the
/// slopes of twice as many.
fn alibi_slopes(heads: usize) -> Vec<f32> {
    let power = 1usize << heads.max(1).ilog2();
    let of = |n: usize, i: usize| (-8.0 * i as f64 / n as f64).exp2() as f32;
    let first = (1..=power).map(|i| of(power, i));
    let between = (0..).map(|i| of(2 * power, 2 * i + 1));
    first.chain(between).take(heads).map(bf16).collect()
}

/// The nearest bf16.
fn bf16(x: f32) -> f32 {
    bf16_to_f32(f32_to_bf16(x))
}

impl Over {
    /// The shape of the weights for so many heads.
    pub fn shape(self, heads: usize, head_dim: usize) -> Vec<usize> {
        match self {
            Over::Head => vec![head_dim],
            Over::EachHead => vec![heads, head_dim],
            Over::Width => vec![heads * head_dim],
        }
    }
}

impl Module for Attention {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.q.slots(&join(prefix, "attn_q"), visit);
        if let Some((k, v)) = &self.kv {
            k.slots(&join(prefix, "attn_k"), visit);
            v.slots(&join(prefix, "attn_v"), visit);
        }
        self.out.slots(&join(prefix, "attn_output"), visit);
        for (norm, name) in [(&self.q_norm, "attn_q_norm"), (&self.k_norm, "attn_k_norm")] {
            if let Some(norm) = norm {
                norm.slots(&join(prefix, name), visit);
            }
        }
        if let Some(sinks) = &self.sinks {
            visit(join(prefix, "attn_sinks.weight"), Slot::Param(sinks));
        }
    }
}

#[cfg(test)]
mod tests {
    use imaginal_numeric::Format;
    use imaginal_tensor::Device;

    use super::*;
    use crate::Fresh;

    const T: usize = 6;
    const HEADS: usize = 6;

    /// Keys are zero and values tell their position, so that a head's result is its weights.
    fn biased() -> Attention {
        let config = AttentionConfig {
            hidden: T,
            heads: HEADS,
            kv_heads: 2,
            head_dim: T,
            qkv_bias: false,
            out_bias: false,
            qk_norm: None,
            rope: None,
            scale: 0.5,
            softcap: None,
            sinks: false,
            causal: true,
            window: None,
            chunk: None,
            clip: None,
            gated: false,
            temperature: None,
            v_norm: None,
            alibi: true,
            shared: None,
        };
        let attention = Attention::new(&mut Fresh::new(1, &Device::Cpu), "", &config, None).unwrap();
        let set = |linear: &Linear, rows: usize, cols: usize, value: &dyn Fn(usize, usize) -> f32| {
            let values = (0..rows * cols).map(|i| value(i / cols, i % cols)).collect();
            let tensor = Tensor::from_vec(values, [rows, cols], &Device::Cpu).unwrap();
            linear.weight().master().unwrap().set(tensor);
        };
        let (k, v) = attention.kv.as_ref().unwrap();
        set(k, 2 * T, T, &|_, _| 0.0);
        set(v, 2 * T, T, &|i, j| f32::from(u8::from(i % T == j)));
        // The sum over heads, each with a factor of its own.
        set(&attention.out, T, HEADS * T, &|i, j| if j % T == i { (j / T + 1) as f32 } else { 0.0 });
        attention
    }

    #[test]
    fn linear_biases_are_those_of_each_head() {
        let attention = biased();
        let one = (0..T * T).map(|i| f32::from(u8::from(i / T == i % T))).collect();
        let x = Tensor::from_vec(one, [1, T, T], &Device::Cpu).unwrap();
        // The slopes of four heads, and between them those of eight.
        let exponents = [2.0, 4.0, 6.0, 8.0, 1.0, 3.0];
        let mut want = [0f64; T * T];
        for (head, exponent) in exponents.iter().enumerate() {
            for t in 0..T {
                let weight = |j: usize| (0.5 * f64::exp2(-exponent) * j as f64).exp();
                let sum: f64 = (0..=t).map(weight).sum();
                (0..=t).for_each(|j| want[t * T + j] += (head + 1) as f64 * weight(j) / sum);
            }
        }
        let mut state = KvState::new(Format::F32, 1, 2, attention.config.key_dim(), &Device::Cpu).unwrap();
        let batch = attention.forward(&x, None).unwrap().to_vec::<f32>().unwrap();
        let mut steps = Vec::new();
        for t in 0..T {
            let y = attention.forward(&x.narrow(1, t, 1).unwrap(), Some(&mut state)).unwrap();
            steps.extend(y.to_vec::<f32>().unwrap());
        }
        for got in [batch, steps] {
            assert!(got.iter().zip(want).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5), "{got:?} {want:?}");
        }
    }

    #[test]
    fn a_layer_that_borrows_sees_what_its_lender_holds() {
        let lender = biased();
        let config = AttentionConfig { shared: Some(0), ..lender.config.clone() };
        let borrower = Attention { config, kv: None, ..lender.clone() };
        let values = (0..T * T).map(|i| (i as f32).sin()).collect();
        let x = Tensor::from_vec(values, [1, T, T], &Device::Cpu).unwrap();
        let (_, (k, v)) = lender.lend(&x).unwrap();
        let whole = borrower.borrow(&x, SharedKv::Tensors(&k, &v)).unwrap().to_vec::<f32>().unwrap();
        let mut state = KvState::new(Format::F32, 1, 2, lender.config.key_dim(), &Device::Cpu).unwrap();
        assert!(borrower.borrow(&x, SharedKv::State(&state)).is_err());
        assert!(borrower.forward(&x, None).is_err());
        let mut steps = Vec::new();
        for t in 0..T {
            let x = x.narrow(1, t, 1).unwrap();
            lender.forward(&x, Some(&mut state)).unwrap();
            steps.extend(borrower.borrow(&x, SharedKv::State(&state)).unwrap().to_vec::<f32>().unwrap());
        }
        assert!(steps.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
