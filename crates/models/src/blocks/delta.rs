use imaginal_nn::{Activation, GatedDeltaNetConfig, HeadOrder, KimiDeltaAttentionConfig, Projections};

use super::mamba::{CONV, INNER, MOST, STATE};
use super::mlp::ActivationRow;
use super::{Keys, Reader, write_recurrent};
use crate::config::WIDTH;
use crate::fields::Key;
use crate::tensors::{HeadMove, Specs, Stored};

/// What an architecture fixes of its gated DeltaNet.
#[derive(Copy, Clone, Debug)]
pub struct DeltaNetRow {
    /// Where its tensors are within a layer of a Hugging Face checkpoint: `linear_attn`.
    pub hf: &'static str,
    /// Whether it is projected by two matrices, in which the parts of a key head lie together (Qwen3-Next), and not by four.
    pub fused: bool,
    /// Which key head belongs to a value head in GGUF files.
    pub gguf_order: HeadOrder,
}

const KEY_HEADS: Key = Key::new(&["ssm.group_count"], &["linear_num_key_heads"]);
const VALUE_HEADS: Key = Key::new(&["ssm.time_step_rank"], &["linear_num_value_heads"]);
const KEY_DIM: Key = Key::new(STATE.gguf, &["linear_key_head_dim"]);
const VALUE_DIM: Key = Key::new(&[], &["linear_value_head_dim"]);
const KERNEL: Key = Key::new(CONV.gguf, &["linear_conv_kernel_dim"]);

impl DeltaNetRow {
    pub(super) fn read(&self, r: &Reader) -> GatedDeltaNetConfig {
        let f = r.f;
        only_silu(r);
        let size = |key: &Key| f.size(key, None, WIDTH);
        let (key_heads, value_heads, key_dim) = (size(&KEY_HEADS), size(&VALUE_HEADS), size(&KEY_DIM));
        let (inner_key, inner) = match f.is_gguf() {
            true => (&INNER, size(&INNER)),
            false => (&VALUE_DIM, value_heads.saturating_mul(size(&VALUE_DIM))),
        };
        if !value_heads.is_multiple_of(key_heads) {
            f.conflict(f.name(&VALUE_HEADS), format!("{value_heads} is no multiple of {key_heads} heads of keys"));
        }
        if inner > WIDTH || !inner.is_multiple_of(value_heads) || key_heads.saturating_mul(key_dim) > WIDTH {
            let what = format!("{value_heads} heads of values and {key_heads} of keys do not fit {inner} channels");
            f.conflict(f.name(inner_key), what);
        }
        let how = |fused: bool| if fused { Projections::Fused } else { Projections::Split };
        GatedDeltaNetConfig {
            hidden: r.shared.hidden,
            key_heads,
            value_heads,
            key_dim,
            value_dim: (inner / value_heads).max(1),
            conv: f.size(&KERNEL, None, MOST),
            order: if f.is_gguf() { self.gguf_order } else { HeadOrder::Grouped },
            // Newer GGUF files have the larger of the two matrices taken apart.
            qkvz: how(self.fused && (!f.is_gguf() || r.present("ssm_in.weight"))),
            beta_alpha: how(self.fused),
            eps: r.shared.eps,
        }
    }

    pub(super) fn tensors(&self, c: &GatedDeltaNetConfig, specs: &mut Specs) {
        let hf = |name: &str| format!("{}.{name}", self.hf);
        let (keys, values) = (c.key_heads * c.key_dim, c.value_heads * c.value_dim);
        let channels = 2 * keys + values;
        // What belongs to value heads is in another order in files than in the model.
        let moved = |axis: usize, first: usize, dim: usize| {
            let share = c.value_heads / c.key_heads;
            (c.order != self.gguf_order).then_some(HeadMove { axis, first, groups: c.key_heads, share, dim })
        };
        let linear = |specs: &mut Specs, gguf: &str, of: &str, shape: [usize; 2], moved: Option<HeadMove>| {
            specs.linear(gguf, &hf(of), shape, false, None);
            specs.move_heads(moved);
        };
        match c.qkvz {
            Projections::Fused => {
                linear(specs, "ssm_in", "in_proj_qkvz", [channels + values, c.hidden], None);
            }
            Projections::Split => {
                linear(specs, "attn_qkv", "in_proj_qkv", [channels, c.hidden], moved(0, 2 * keys, c.value_dim));
                linear(specs, "attn_gate", "in_proj_z", [values, c.hidden], moved(0, 0, c.value_dim));
            }
        }
        match c.beta_alpha {
            Projections::Fused => linear(specs, "ssm_ba", "in_proj_ba", [2 * c.value_heads, c.hidden], None),
            Projections::Split => {
                linear(specs, "ssm_beta", "in_proj_b", [c.value_heads, c.hidden], moved(0, 0, 1));
                linear(specs, "ssm_alpha", "in_proj_a", [c.value_heads, c.hidden], moved(0, 0, 1));
            }
        }
        let conv = Stored::whole(hf("conv1d.weight"), &[channels, 1, c.conv]);
        specs.add_stored("ssm_conv1d.weight", vec![conv], &[channels, c.conv], false);
        specs.move_heads(moved(0, 2 * keys, c.value_dim));
        specs.add("ssm_dt.bias", &[&hf("dt_bias")], &[c.value_heads], false);
        specs.move_heads(moved(0, 0, 1));
        specs.decay_rates(vec![Stored::whole(hf("A_log"), &[c.value_heads])], &[c.value_heads], &[]);
        specs.move_heads(moved(0, 0, 1));
        specs.add("ssm_norm.weight", &[&hf("norm.weight")], &[c.value_dim], false);
        linear(specs, "ssm_out", "out_proj", [c.hidden, values], moved(1, 0, c.value_dim));
    }

    pub(super) fn write(&self, layers: &[(usize, &GatedDeltaNetConfig)], keys: &mut Keys) -> Result<(), String> {
        let Some((_, c)) = layers.first() else { return Ok(()) };
        keys.set("ssm.conv_kernel", c.conv as u32);
        keys.set("ssm.inner_size", (c.value_heads * c.value_dim) as u32);
        keys.set("ssm.state_size", c.key_dim as u32);
        keys.set("ssm.time_step_rank", c.value_heads as u32);
        keys.set("ssm.group_count", c.key_heads as u32);
        write_recurrent(layers.iter().map(|l| l.0), keys);
        keys.fill("attention.head_count_kv");
        Ok(())
    }
}

/// Layers of this kind know no other function.
pub(super) fn only_silu(r: &Reader) {
    if ActivationRow::Usually(Activation::Silu).read(r) != Activation::Silu {
        r.f.problem("hidden_act", "only silu is supported here");
    }
}

/// What an architecture fixes of its Kimi delta attention.
#[derive(Copy, Clone, Debug)]
pub struct KimiDeltaRow {
    /// Where its tensors are within a layer of a Hugging Face checkpoint: `self_attn`.
    pub hf: &'static str,
}

const KIMI_HEADS: Key = Key::new(&["attention.head_count"], &["linear_attn_config.num_heads", "linear_num_heads"]);
const KIMI_DIM: Key = Key::new(&["kda.head_dim"], &["linear_attn_config.head_dim", "linear_head_dim"]);
const KIMI_KERNEL: Key = Key::new(CONV.gguf, &["linear_attn_config.short_conv_kernel_size", "linear_conv_kernel_dim"]);

impl KimiDeltaRow {
    pub(super) fn read(&self, r: &Reader) -> Vec<KimiDeltaAttentionConfig> {
        let f = r.f;
        only_silu(r);
        let heads = r.counts(&KIMI_HEADS, None, 1 << 14);
        let head_dim = f.size(&KIMI_DIM, None, WIDTH);
        if heads.iter().any(|heads| heads.saturating_mul(head_dim) > WIDTH) {
            f.conflict(f.name(&KIMI_DIM), format!("heads of {head_dim} are wider than {WIDTH} together"));
        }
        let conv = f.size(&KIMI_KERNEL, None, MOST);
        let (hidden, eps) = (r.shared.hidden, r.shared.eps);
        heads.into_iter().map(|heads| KimiDeltaAttentionConfig { hidden, heads, head_dim, conv, eps }).collect()
    }

    pub(super) fn tensors(&self, c: &KimiDeltaAttentionConfig, specs: &mut Specs) {
        let hf = |name: &str| format!("{}.{name}", self.hf);
        let inner = c.heads * c.head_dim;
        let linear = |specs: &mut Specs, gguf: &str, of: &str, outputs: usize, inputs: usize| {
            specs.linear(gguf, &hf(of), [outputs, inputs], false, None);
        };
        for which in ["q", "k", "v"] {
            linear(specs, &format!("attn_{which}"), &format!("{which}_proj"), inner, c.hidden);
            let (name, flat) = (format!("ssm_conv1d_{which}.weight"), [inner, c.conv]);
            // Quantizing drops the last of four dimensions, which is the first here.
            let deep = [1, inner, 1, c.conv];
            let gguf = vec![Stored::whole(&name, &deep), Stored::whole(&name, &deep[1..]), Stored::whole(&name, &flat)];
            let stored = Stored::whole(hf(&format!("{which}_conv1d.weight")), &deep[1..]);
            specs.add_ways(&name, gguf, vec![stored], &flat, false);
        }
        for (gguf, of) in [("ssm_f", "f"), ("ssm_g", "g")] {
            linear(specs, &format!("{gguf}_a"), &format!("{of}_a_proj"), c.head_dim, c.hidden);
            linear(specs, &format!("{gguf}_b"), &format!("{of}_b_proj"), inner, c.head_dim);
        }
        specs.add("ssm_dt.bias", &[&hf("dt_bias")], &[inner], false);
        let deep = [1, 1, c.heads, 1];
        let rates = [&deep[..], &deep[2..3]].map(|shape| Stored::whole(hf("A_log"), shape)).to_vec();
        specs.decay_rates(rates, &[c.heads, 1], &[&deep]);
        linear(specs, "ssm_beta", "b_proj", c.heads, c.hidden);
        specs.add("ssm_norm.weight", &[&hf("o_norm.weight")], &[c.head_dim], false);
        linear(specs, "attn_output", "o_proj", c.hidden, inner);
    }

    pub(super) fn write(&self, layers: &[(usize, &KimiDeltaAttentionConfig)], keys: &mut Keys) -> Result<(), String> {
        let Some((_, c)) = layers.first() else { return Ok(()) };
        keys.set("ssm.conv_kernel", c.conv as u32);
        keys.set("kda.head_dim", c.head_dim as u32);
        layers.iter().for_each(|(i, c)| keys.set_layer("attention.head_count", *i, c.heads));
        Ok(())
    }
}
