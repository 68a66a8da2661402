use imaginal_nn::{Rwkv6TimeMixConfig, Rwkv7TimeMixConfig, RwkvChannelMixConfig};

use super::{Keys, Reader};
use crate::config::WIDTH;
use crate::fields::Key;
use crate::tensors::{Specs, Stored};

/// Time mixing of RWKV-6.
#[derive(Copy, Clone, Debug)]
pub struct Rwkv6Row {
    /// Where its tensors are within a layer of a Hugging Face checkpoint: `attention`.
    pub hf: &'static str,
}

/// Time mixing of RWKV-7.
#[derive(Copy, Clone, Debug)]
pub struct Rwkv7Row {
    /// Where its tensors are within a layer of a Hugging Face checkpoint: `attn`.
    pub hf: &'static str,
}

/// What an architecture fixes of RWKV's channel mixing.
#[derive(Copy, Clone)]
pub struct ChannelMixRow {
    /// Where its tensors are within a layer of a Hugging Face checkpoint: `feed_forward`.
    pub hf: &'static str,
    /// The names of the blends there, of keys and of the receptance; without a receptance only the former is used.
    pub blends: [&'static str; 2],
    /// Whether the result is gated by a receptance.
    pub receptance: bool,
    /// The width between the matrices where `config.json` does not say.
    pub(crate) usual: fn(&Reader) -> usize,
}

impl std::fmt::Debug for ChannelMixRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ChannelMixRow").field(&self.hf).finish()
    }
}

const HEAD: Key = Key::new(&["wkv.head_size"], &["head_size", "head_dim"]);
const HEADS: Key = Key::new(&[], &["num_heads"]);
const INNER: Key = Key::new(&["feed_forward_length"], &["intermediate_size"]);
const MIX_RANK: Key = Key::new(&["time_mix_extra_dim"], &["time_mix_extra_dim"]);
const DECAY_RANK_6: Key = Key::new(&["time_decay_extra_dim"], &["time_decay_extra_dim"]);
const INNER_WIDTH: Key = Key::new(&[], &["attention_hidden_size"]);
const DIVISOR: Key = Key::new(&[], &["head_size_divisor"]);
const DECAY_RANK: Key = Key::new(&["attention.decay_lora_rank"], &["decay_low_rank_dim"]);
const RATE_RANK: Key = Key::new(&["attention.iclr_lora_rank"], &["a_low_rank_dim"]);
const VALUE_RANK: Key = Key::new(&["attention.value_residual_mix_lora_rank"], &["v_low_rank_dim"]);
const GATE_RANK: Key = Key::new(&["attention.gate_lora_rank"], &["gate_low_rank_dim"]);
const NORM_FIRST: Key = Key::new(&[], &["norm_first"]);
const NORM_BIAS: Key = Key::new(&[], &["norm_bias"]);
const VALUE_DIM: Key = Key::new(&[], &["value_dim"]);

/// Epsilon of the norms of heads, which files of both generations have.
const HEAD_EPS: f64 = 64e-5;

fn head_dim(r: &Reader) -> usize {
    let (f, hidden) = (r.f, r.shared.hidden);
    let usual = match f.has(&HEADS) {
        true => (hidden / f.size(&HEADS, None, WIDTH)).max(1),
        false => 64,
    };
    let head_dim = f.size(&HEAD, (!f.is_gguf()).then_some(usual), WIDTH);
    if !hidden.is_multiple_of(head_dim) {
        f.conflict(f.name(&HEAD), format!("a width of {hidden} is no whole number of heads of {head_dim}"));
    }
    head_dim
}

/// A blend with the token before, alone or one of several.
fn blend(name: String, hidden: usize) -> Vec<Stored> {
    vec![Stored::whole(&name, &[1, 1, hidden]), Stored::whole(&name, &[hidden])]
}

/// Blends that are one parameter, under these names within `hf`.
fn blends(specs: &mut Specs, names: &'static [&'static str], hf: &str, hidden: usize) {
    let shape = [names.len(), 1, 1, hidden];
    let ways = [&[1, 1, hidden][..], &[hidden]].map(|each| Stored::named(names, hf, "", each));
    // Old GGUF files have them one by one too.
    let gguf = vec![
        Stored::whole("time_mix_lerp_fused.weight", &shape),
        Stored::named(names, "time_mix_lerp_", ".weight", &[hidden]),
    ];
    let hf = ways.into_iter().chain([Stored::whole(format!("{hf}x"), &shape)]).collect();
    specs.add_ways("time_mix_lerp_fused.weight", gguf, hf, &shape, false);
}

fn norm(specs: &mut Specs, hf: String, hidden: usize) {
    for which in ["weight", "bias"] {
        specs.add(&format!("time_mix_ln.{which}"), &[&format!("{hf}.{which}")], &[hidden], false);
    }
}

impl Rwkv6Row {
    pub(super) fn read(&self, r: &Reader) -> Rwkv6TimeMixConfig {
        let (f, hidden) = (r.f, r.shared.hidden);
        let head_dim = head_dim(r);
        if f.size(&INNER_WIDTH, Some(hidden), WIDTH) != hidden {
            f.problem(f.name(&INNER_WIDTH), format!("only the width of the model, {hidden}, is supported"));
        }
        if f.float(&DIVISOR, Some(8.0), 0.0, 1e6) != 8.0 {
            f.problem(f.name(&DIVISOR), "only 8 is supported");
        }
        // `config.json` does not tell the ranks; the authors' code has two of each, by the width.
        let rank = |key: &Key, tensor: &str, parts: usize, usual: usize| {
            let shape = r.shape(0, &format!("{}.{tensor}", self.hf));
            let found = shape.and_then(|shape| Some(shape.last()? / parts)).filter(|rank| (1..=WIDTH).contains(rank));
            let usual = if hidden >= 4096 { 2 * usual } else { usual };
            f.size(key, (!f.is_gguf()).then(|| found.unwrap_or(usual)), WIDTH)
        };
        Rwkv6TimeMixConfig {
            hidden,
            head_dim,
            mix_rank: rank(&MIX_RANK, "time_maa_w1", 5, 32),
            decay_rank: rank(&DECAY_RANK_6, "time_decay_w1", 1, 64),
        }
    }

    pub(super) fn tensors(&self, c: &Rwkv6TimeMixConfig, specs: &mut Specs) {
        let hf = |name: &str| format!("{}.{name}", self.hf);
        let (hidden, mixes) = (c.hidden, 5 * c.mix_rank);
        specs.add_stored("time_mix_lerp_x.weight", blend(hf("time_maa_x"), hidden), &[hidden], false);
        blends(specs, &["w", "k", "v", "r", "g"], &hf("time_maa_"), hidden);
        for (gguf, name, [outputs, inputs]) in [
            ("time_mix_w1.weight", "time_maa_w1", [mixes, hidden]),
            ("time_mix_decay_w1.weight", "time_decay_w1", [c.decay_rank, hidden]),
            ("time_mix_decay_w2.weight", "time_decay_w2", [hidden, c.decay_rank]),
        ] {
            let stored = Stored::columns(hf(name), [inputs, outputs], 0..outputs);
            specs.add_stored(gguf, vec![stored], &[outputs, inputs], true);
        }
        let w2 = Stored::turned(hf("time_maa_w2"), [5, c.mix_rank, hidden], 0, 1);
        specs.add_stored("time_mix_w2.weight", vec![w2], &[5, hidden, c.mix_rank], false);
        let heads = [hidden / c.head_dim, c.head_dim];
        specs.add("time_mix_first.weight", &[&hf("time_faaaa")], &heads, false);
        specs.add_stored("time_mix_decay.weight", blend(hf("time_decay"), hidden), &[hidden], false);
        for name in ["receptance", "key", "value", "gate", "output"] {
            specs.linear(&format!("time_mix_{name}"), &hf(name), [hidden, hidden], false, None);
        }
        norm(specs, hf("ln_x"), hidden);
    }

    pub(super) fn write(&self, layers: &[(usize, &Rwkv6TimeMixConfig)], keys: &mut Keys) -> Result<(), String> {
        let Some((_, c)) = layers.first() else { return Ok(()) };
        keys.set("wkv.head_size", c.head_dim as u32);
        keys.set("time_mix_extra_dim", c.mix_rank as u32);
        keys.set("time_decay_extra_dim", c.decay_rank as u32);
        Ok(())
    }
}

impl Rwkv7Row {
    pub(super) fn read(&self, r: &Reader) -> Vec<Rwkv7TimeMixConfig> {
        let (f, hidden) = (r.f, r.shared.hidden);
        let head_dim = head_dim(r);
        if !f.is_gguf() {
            if (head_dim as f64 * r.shared.eps - HEAD_EPS).abs() > 1e-9 {
                let what = format!("with heads of {head_dim} only {} is supported", HEAD_EPS / head_dim as f64);
                f.conflict("norm_eps", what);
            }
            for key in [&NORM_FIRST, &NORM_BIAS] {
                if !f.flag(key, true) {
                    f.problem(f.name(key), "only true is supported");
                }
            }
            if f.has_hf("attn") {
                f.problem("attn", "layers of attention are not supported here");
            }
            let values = f.per_layer(&VALUE_DIM, Some(hidden), 1, WIDTH, r.shared.layers);
            if values.iter().any(|&width| width != hidden) {
                f.problem(f.name(&VALUE_DIM), format!("only the width of the model, {hidden}, is supported"));
            }
        }
        // Where `config.json` does not say, the tensors do; fresh models have what the paper recommends.
        let rank = |key: &Key, tensor: &str, exponent: f64, factor: f64| {
            let last = r.shared.layers - 1;
            let shape = r.shape(last, &format!("{}.{tensor}_lora.lora.0.weight", self.hf));
            let found = shape.and_then(|shape| shape.first().copied()).filter(|rank| (1..=WIDTH).contains(rank));
            let usual = || 32 * ((hidden as f64).powf(exponent) * factor / 32.0).round().max(1.0) as usize;
            f.size(key, (!f.is_gguf()).then(|| found.unwrap_or_else(usual)), WIDTH)
        };
        let config = Rwkv7TimeMixConfig {
            hidden,
            head_dim,
            decay_rank: rank(&DECAY_RANK, "w", 0.5, 1.8),
            rate_rank: rank(&RATE_RANK, "a", 0.5, 1.8),
            value_rank: Some(rank(&VALUE_RANK, "v", 0.5, 1.3)),
            gate_rank: Some(rank(&GATE_RANK, "g", 0.8, 0.6)),
            norm: true,
        };
        let own = |&layer: &usize| config.value_rank.filter(|_| layer > 0);
        r.layers.iter().map(|layer| Rwkv7TimeMixConfig { value_rank: own(layer), ..config.clone() }).collect()
    }

    pub(super) fn tensors(&self, c: &Rwkv7TimeMixConfig, specs: &mut Specs) {
        let hf = |name: &str| format!("{}.{name}", self.hf);
        let hidden = c.hidden;
        let names: &[&str] = &["r", "w", "k", "v", "a", "g"];
        blends(specs, if c.gate_rank.is_some() { names } else { &names[..5] }, &hf("x_"), hidden);
        let ranks = [("w", Some(c.decay_rank)), ("a", Some(c.rate_rank)), ("v", c.value_rank), ("g", c.gate_rank)];
        for (name, rank) in ranks.into_iter().filter_map(|(name, rank)| Some((name, rank?))) {
            let (gguf, hf) = (|n: u8| format!("time_mix_{name}{n}"), hf(&format!("{name}_lora.lora")));
            specs.linear(&gguf(1), &format!("{hf}.0"), [rank, hidden], false, None);
            specs.linear(&gguf(2), &format!("{hf}.2"), [hidden, rank], false, None);
            if name != "g" {
                specs.add(&format!("{}.weight", gguf(0)), &[&format!("{hf}.2.bias")], &[hidden], false);
            }
        }
        for name in ["k_k", "k_a"] {
            specs.add(&format!("time_mix_{name}.weight"), &[&hf(name)], &[hidden], false);
        }
        let heads = Stored::whole(hf("r_k"), &[hidden / c.head_dim, c.head_dim]);
        specs.add_stored("time_mix_r_k.weight", vec![heads, Stored::whole(hf("r_k"), &[hidden])], &[hidden], false);
        for (gguf, name) in [("receptance", "r"), ("key", "k"), ("value", "v"), ("output", "o")] {
            specs.linear(&format!("time_mix_{gguf}"), &hf(&format!("{name}_proj")), [hidden, hidden], false, None);
        }
        norm(specs, hf("g_norm"), hidden);
    }

    pub(super) fn write(&self, layers: &[(usize, &Rwkv7TimeMixConfig)], keys: &mut Keys) -> Result<(), String> {
        let Some((_, c)) = layers.last() else { return Ok(()) };
        keys.set("wkv.head_size", c.head_dim as u32);
        keys.set("attention.decay_lora_rank", c.decay_rank as u32);
        keys.set("attention.iclr_lora_rank", c.rate_rank as u32);
        // A model of one layer has no use for it, but readers ask.
        keys.set("attention.value_residual_mix_lora_rank", c.value_rank.unwrap_or(c.rate_rank) as u32);
        keys.set("attention.gate_lora_rank", c.gate_rank.unwrap_or(0) as u32);
        Ok(())
    }
}

impl ChannelMixRow {
    pub(super) fn read(&self, r: &Reader) -> RwkvChannelMixConfig {
        let usual = (!r.f.is_gguf()).then(|| (self.usual)(r).clamp(1, WIDTH));
        RwkvChannelMixConfig {
            hidden: r.shared.hidden,
            inner: r.f.size(&INNER, usual, WIDTH),
            receptance: self.receptance,
        }
    }

    pub(super) fn tensors(&self, c: &RwkvChannelMixConfig, specs: &mut Specs) {
        let hf = |name: &str| format!("{}.{name}", self.hf);
        let hidden = c.hidden;
        for (gguf, name) in ["k", "r"].into_iter().zip(self.blends).take(if c.receptance { 2 } else { 1 }) {
            let name = blend(hf(name), hidden);
            specs.add_stored(&format!("channel_mix_lerp_{gguf}.weight"), name, &[hidden], false);
        }
        specs.linear("channel_mix_key", &hf("key"), [c.inner, hidden], false, None);
        specs.linear("channel_mix_value", &hf("value"), [hidden, c.inner], false, None);
        if c.receptance {
            specs.linear("channel_mix_receptance", &hf("receptance"), [hidden, hidden], false, None);
        }
    }

    pub(super) fn write(&self, layers: &[(usize, &RwkvChannelMixConfig)], keys: &mut Keys) -> Result<(), String> {
        layers.iter().for_each(|(layer, c)| keys.set_layer("feed_forward_length", *layer, c.inner));
        Ok(())
    }
}
