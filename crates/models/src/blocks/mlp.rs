use imaginal_files::gguf::Value;
use imaginal_nn::{Activation, MlpConfig, join};

use super::{Bias, Keys, Reader};
use crate::config::WIDTH;
use crate::fields::Key;
use crate::tensors::{Specs, Stored};

/// What an architecture fixes of its feed-forward network.
#[derive(Copy, Clone, Debug)]
pub struct MlpRow {
    /// Where its tensors are within a layer of a Hugging Face checkpoint: `mlp`.
    pub hf: &'static str,
    /// Where newer checkpoints have them, if they have moved.
    pub moved: Option<&'static str>,
    /// The names of gate, up and down there; the first is not used without a gate.
    pub names: [&'static str; 3],
    /// The name of gate and up, one after another, where a Hugging Face checkpoint holds them as one tensor.
    pub hf_fused: Option<&'static str>,
    /// The same where only some checkpoints hold them so.
    pub hf_or_fused: Option<&'static str>,
    /// Whether up stands before gate in it.
    pub up_first: bool,
    /// Whether GGUF files are written with gate and up in `ffn_up`. Both ways are read.
    pub gguf_fused: bool,
    /// Whether matrices of a Hugging Face checkpoint are `[inputs, outputs]` (GPT-2).
    pub transposed: bool,
    /// Whether there is a gate.
    pub gated: bool,
    /// The function between the matrices.
    pub activation: ActivationRow,
    /// Whether it has biases.
    pub bias: Bias,
    /// The width between its matrices: the field, and how many times that of the residual stream it is where
    /// `config.json` has no such field.
    pub inner: (Key, Option<usize>),
    /// Whether that field of `config.json` is to be adjusted, unless `block_auto_adjust_ff_dim` is off (LFM2).
    pub adjusted: bool,
    /// How the width follows from other fields of `config.json`.
    pub(crate) hf_inner: Option<fn(&Reader) -> usize>,
    /// How sparse the gate of each layer is: `config.json` has the part that is 0, GGUF files the standard deviations.
    pub sparsity: Option<Key>,
}

/// The function between the matrices.
#[derive(Copy, Clone, Debug)]
pub enum ActivationRow {
    /// As `config.json` says; this one if it does not, and in GGUF files, which never say.
    Usually(Activation),
    /// This one, whatever `config.json` says.
    Always(Activation),
    /// As a field of this name says; this one if it does not, and in GGUF files.
    Named(&'static str, Activation),
    /// The same, where `gelu` is the name of the approximation, which is the usual one (Gemma).
    Approximate(&'static str),
    /// [`Activation::ClampedSwiglu`]: the fields of its bound, 7 if it is absent, and of its slope, 1.702 if it is absent.
    Clamped(Key, Key),
}

/// The usual bound and slope of [`ActivationRow::Clamped`].
const LIMIT: f64 = 7.0;
const SLOPE: f64 = 1.702;

const ACTIVATION: Key = Key::new(
    &[],
    &[
        "hidden_act",
        "hidden_activation",
        "activation_function",
        "mlp_hidden_act",
        "activation",
        "ffn_config.ffn_act_fn.name",
    ],
);

const ADJUST: Key = Key::new(&[], &["block_auto_adjust_ff_dim"]);
const TIMES: Key = Key::new(&[], &["block_ffn_dim_multiplier"]);
const MULTIPLE: Key = Key::new(&[], &["block_multiple_of"]);

impl ActivationRow {
    pub(super) fn read(self, r: &Reader) -> Activation {
        let usual = match self {
            ActivationRow::Always(activation) => return activation,
            ActivationRow::Clamped(limit, slope) => {
                let limit = r.f.float(&limit, Some(LIMIT), 1e-3, 1e6);
                return Activation::ClampedSwiglu { limit, slope: r.f.float(&slope, Some(SLOPE), 1e-3, 1e3) };
            }
            ActivationRow::Usually(activation) | ActivationRow::Named(_, activation) => activation,
            ActivationRow::Approximate(_) => Activation::Gelu,
        };
        let (field, found) = match self {
            ActivationRow::Named(field, _) | ActivationRow::Approximate(field) => {
                (field.to_owned(), r.f.hf_text(field))
            }
            _ => (r.f.name(&ACTIVATION), r.f.text(&ACTIVATION)),
        };
        let Some(name) = found else { return usual };
        if matches!((self, name.as_str()), (ActivationRow::Approximate(_), "gelu")) {
            return usual;
        }
        Activation::by_hf(&name).unwrap_or_else(|| {
            let known = "those that transformers knows are, but for those with parameters";
            r.f.problem(field, format!("{name:?} is not supported; {known}"));
            usual
        })
    }

    /// Writes what the file has to say of it, or why it cannot be written.
    pub(super) fn write(self, is: Activation, keys: &mut Keys) -> Result<(), String> {
        let usual = match self {
            ActivationRow::Usually(usual) | ActivationRow::Always(usual) | ActivationRow::Named(_, usual) => usual,
            ActivationRow::Approximate(_) => Activation::Gelu,
            ActivationRow::Clamped(limit, slope) => {
                let Activation::ClampedSwiglu { limit: l, slope: s } = is else { return Ok(()) };
                for (Key { gguf, .. }, is, usual) in [(limit, l, LIMIT), (slope, s, SLOPE)] {
                    match gguf {
                        _ if is == usual => {}
                        [key, ..] => keys.set(key, is as f32),
                        [] => return Err(format!("an activation with a slope of {is} has no place in a GGUF file")),
                    }
                }
                return Ok(());
            }
        };
        if is == usual {
            return Ok(());
        }
        Err(format!("GGUF files of this architecture have the activation {usual:?}; {is:?} has no place there"))
    }
}

impl MlpRow {
    /// Llama's.
    pub const LLAMA: MlpRow = MlpRow {
        hf: "mlp",
        moved: None,
        names: ["gate_proj", "up_proj", "down_proj"],
        hf_fused: None,
        hf_or_fused: None,
        up_first: false,
        gguf_fused: false,
        transposed: false,
        gated: true,
        activation: ActivationRow::Usually(Activation::Silu),
        bias: Bias::Optional(&["mlp_bias"]),
        inner: (Key::new(&["feed_forward_length"], &["intermediate_size", "ffn_hidden_size", "ffn_dim"]), None),
        adjusted: false,
        hf_inner: None,
        sparsity: None,
    };

    /// The same without biases.
    pub const PLAIN: MlpRow = MlpRow { bias: Bias::Never, ..MlpRow::LLAMA };

    pub(super) fn read(&self, r: &Reader) -> Vec<MlpConfig> {
        let (key, times) = &self.inner;
        let usual = times.filter(|_| !r.f.is_gguf()).map(|times| (times * r.shared.hidden).min(WIDTH));
        let config = MlpConfig {
            hidden: r.shared.hidden,
            inner: 1,
            gated: self.gated,
            activation: self.activation.read(r),
            bias: r.bias(self.bias, "ffn_down.bias"),
            sparsity: None,
        };
        let sparsity = self.sparsities(r);
        let mut inner = match self.hf_inner.filter(|_| !r.f.is_gguf()) {
            Some(inner) => vec![inner(r); r.layers.len()],
            None => r.counts(key, usual, WIDTH),
        };
        if self.adjusted && !r.f.is_gguf() && r.f.flag(&ADJUST, true) {
            let times = r.f.float(&TIMES, Some(1.0), 1e-3, 1e3);
            let multiple = r.f.size(&MULTIPLE, Some(256), WIDTH);
            let adjust = |inner: usize| ((times * (2 * inner / 3) as f64) as usize).div_ceil(multiple) * multiple;
            inner.iter_mut().for_each(|inner| *inner = adjust(*inner).clamp(1, WIDTH));
        }
        let each = inner.into_iter().zip(sparsity);
        each.map(|(inner, sparsity)| MlpConfig { inner, sparsity, ..config.clone() }).collect()
    }

    /// Above how many standard deviations the gates of each of the reader's layers are kept.
    fn sparsities(&self, r: &Reader) -> Vec<Option<f32>> {
        let (f, layers) = (r.f, r.shared.layers);
        let gguf = f.is_gguf();
        let fits = |x: f64| if gguf { x < f64::INFINITY } else { (0.0..1.0).contains(&x) };
        let Some(key) = self.sparsity else { return vec![None; r.layers.len()] };
        if !f.has(&key) {
            let usual = |layer: &usize| (*layer < 10 && layers > 10).then(|| normal_quantile(0.95) as f32);
            return r.layers.iter().map(usual).collect();
        }
        let list = f.floats_that(&key, fits).unwrap_or_default();
        if list.len() < layers {
            f.problem(f.name(&key), format!("not a list of parts from 0 to below 1 for {layers} layers"));
            return vec![None; r.layers.len()];
        }
        let deviations = |x: f64| match gguf {
            true => x.is_finite().then_some(x as f32),
            false => (x > 0.0).then(|| normal_quantile(x) as f32),
        };
        r.layers.iter().map(|&layer| deviations(list[layer])).collect()
    }

    pub(super) fn tensors(&self, c: &MlpConfig, specs: &mut Specs) {
        self.named(c, "", specs);
    }

    /// [`MlpRow::tensors`] with a suffix to the names in GGUF files.
    pub(super) fn named(&self, c: &MlpConfig, suffix: &str, specs: &mut Specs) {
        let hf = |name: &str| join(self.hf, name);
        let (inner, hidden) = (c.inner, c.hidden);
        let first = if c.gated { 0 } else { 1 };
        for (i, gguf) in ["ffn_gate", "ffn_up"].into_iter().enumerate().skip(first) {
            for what in if c.bias { &["weight", "bias"][..] } else { &["weight"] } {
                let matrix = *what == "weight";
                let shape = |rows: usize| if matrix { vec![rows, hidden] } else { vec![rows] };
                let name = format!("{gguf}{suffix}.{what}");
                let mut ways = vec![Stored::whole(&name, &shape(inner))];
                if c.gated {
                    let both = Stored::rows(format!("ffn_up{suffix}.{what}"), &shape(2 * inner), i * inner, inner);
                    ways.insert(if self.gguf_fused { 0 } else { 1 }, both);
                }
                let at = if self.up_first { 1 - i } else { i };
                let part = |fused| Stored::rows(format!("{}.{what}", hf(fused)), &shape(2 * inner), at * inner, inner);
                let mut stored = vec![match self.hf_fused {
                    Some(fused) => part(fused),
                    None => self.whole(format!("{}.{what}", hf(self.names[i])), &shape(inner)),
                }];
                stored.extend(self.hf_or_fused.map(part));
                stored.extend(self.moved.map(|at| self.whole(format!("{at}.{}.{what}", self.names[i]), &shape(inner))));
                specs.add_ways(&name, ways, stored, &shape(inner), matrix);
            }
        }
        let down = hf(self.names[2]);
        let places = [Some(down.clone()), self.moved.map(|at| format!("{at}.{}", self.names[2]))];
        let stored = places.into_iter().flatten().map(|at| self.whole(format!("{at}.weight"), &[hidden, inner]));
        specs.add_stored(&format!("ffn_down{suffix}.weight"), stored.collect(), &[hidden, inner], true);
        if c.bias {
            specs.add(&format!("ffn_down{suffix}.bias"), &[&format!("{down}.bias")], &[hidden], false);
        }
    }

    fn whole(&self, name: String, shape: &[usize]) -> Stored {
        match shape {
            [rows, cols] if self.transposed => Stored::columns(name, [*cols, *rows], 0..*rows),
            _ => Stored::whole(name, shape),
        }
    }

    pub(super) fn write(&self, layers: &[(usize, &MlpConfig)], keys: &mut Keys) -> Result<(), String> {
        if let (Some(Key { gguf: [key, ..], .. }), Some(last)) = (self.sparsity, layers.iter().map(|(i, _)| *i).max()) {
            let of = |i: usize| layers.iter().find(|(at, _)| *at == i).and_then(|(_, c)| c.sparsity);
            keys.set(key, Value::from((0..=last).map(|i| of(i).unwrap_or(f32::NEG_INFINITY)).collect::<Vec<f32>>()));
        }
        for (i, c) in layers {
            self.activation.write(c.activation, keys)?;
            keys.set_layer("feed_forward_length", *i, c.inner);
        }
        Ok(())
    }
}

/// The number below which a standard normal one lies with probability `p`, between 0 and 1.
fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..100 {
        let x = (low + high) / 2.0;
        if libm::erfc(-x / std::f64::consts::SQRT_2) / 2.0 < p { low = x } else { high = x }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    #[test]
    fn quantiles_are_those_of_tables() {
        for (p, x) in [(0.5, 0.0), (0.95, 1.6448536269514722), (0.1, -1.2815515655446004), (1e-9, -5.9978070150076865)]
        {
            assert!((super::normal_quantile(p) - x).abs() < 1e-12, "{p}");
        }
    }
}
