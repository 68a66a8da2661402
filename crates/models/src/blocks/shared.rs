use imaginal_nn::{NormKind, RopeStyle, SharedBlockConfig};

use super::mlp::ActivationRow;
use super::rope::{self, RopeRow};
use super::{Bias, Keys, Reader};
use crate::config::WIDTH;
use crate::fields::Key;
use crate::tensors::Specs;

/// What an architecture fixes of a transformer block that several of its layers share. No other program writes GGUF files
/// with one: their keys and names are ours.
#[derive(Copy, Clone, Debug)]
pub struct SharedBlockRow {
    /// Where its tensors are within the first of its layers in a Hugging Face checkpoint: `shared_transformer`.
    pub hf: &'static str,
    /// The projection of each layer's own: `linear`.
    pub hf_out: &'static str,
    /// The function between the matrices of its feed-forward network.
    pub activation: ActivationRow,
    /// Position embedding, if the model has one.
    pub rope: RopeRow,
}

/// Which layers have such a block, in GGUF files.
pub(crate) const SHARED_LAYERS: Key = Key::new(&["shared_block.layers"], &[]);
const COUNT: Key = Key::new(&["shared_block.count"], &["num_mem_blocks"]);
const RANK: Key = Key::new(&["shared_block.adapter_rank"], &["adapter_rank"]);
const ADAPTERS: Key = Key::new(&["shared_block.attention_adapters"], &["use_shared_attention_adapter"]);
const ROPE: Key = Key::new(&["shared_block.rope"], &["use_mem_rope"]);
const HEADS: Key = Key::new(&["attention.head_count"], &["num_attention_heads"]);
const KV_HEADS: Key = Key::new(&["attention.head_count_kv"], &["num_key_value_heads"]);
const INNER: Key = Key::new(&["feed_forward_length"], &["intermediate_size"]);

impl SharedBlockRow {
    /// The blocks take turns in the layers that have one.
    pub(super) fn read(&self, r: &Reader) -> Vec<SharedBlockConfig> {
        let f = r.f;
        let hidden = r.shared.hidden;
        let heads = f.size(&HEADS, None, 1 << 14);
        let kv_heads = f.size(&KV_HEADS, Some(heads), 1 << 14);
        if !heads.is_multiple_of(kv_heads) {
            f.conflict(f.name(&KV_HEADS), format!("{kv_heads} does not divide the {heads} heads"));
        }
        if !(2 * hidden).is_multiple_of(heads) {
            f.conflict(f.name(&HEADS), format!("{heads} heads do not divide twice the width of {hidden}"));
        }
        let head_dim = (2 * hidden / heads).max(1);
        let usual = (!f.is_gguf()).then_some(4 * hidden);
        let rope = f.flag(&ROPE, false).then(|| self.rope.read(r, head_dim, RopeStyle::Half).full);
        let config = SharedBlockConfig {
            hidden,
            heads,
            kv_heads,
            head_dim,
            // As if the head were not of both halves.
            scale: (2.0 / head_dim as f64).sqrt(),
            rope,
            inner: f.size(&INNER, usual, WIDTH),
            activation: self.activation.read(r),
            bias: r.bias(Bias::Optional(&["add_bias_linear"]), "shared.ffn_down.bias"),
            rank: f.size(&RANK, (!f.is_gguf()).then_some(128), WIDTH),
            attention_adapters: f.flag(&ADAPTERS, false),
            eps: r.shared.eps,
            places: Vec::new(),
            place: 0,
            first: 0,
        };
        let (all, count) = (r.layers.len(), f.size(&COUNT, Some(1), r.shared.layers));
        let place = |n: usize| SharedBlockConfig {
            places: (n % count..all).step_by(count).collect(),
            place: n / count,
            first: r.layers[n % count],
            ..config.clone()
        };
        (0..all).map(place).collect()
    }

    pub(super) fn tensors(&self, c: &SharedBlockConfig, specs: &mut Specs) {
        let out = format!("{}.weight", self.hf_out);
        if c.place > 0 {
            specs.add("shared_out.weight", &[&out], &[c.hidden, c.hidden], true);
            return;
        }
        let (both, kv_width) = (2 * c.hidden, c.kv_heads * c.head_dim);
        let hf = |name: &str| format!("{}.{name}", self.hf);
        specs.norm("shared.attn_norm", &[&hf("input_layernorm")], &[both], NormKind::Rms);
        for (name, rows) in [("q", c.heads * c.head_dim), ("k", kv_width), ("v", kv_width)] {
            let shape = [rows, both];
            specs.linear(&format!("shared.attn_{name}"), &hf(&format!("self_attn.{name}_proj")), shape, false, None);
            if c.attention_adapters {
                let list = hf(&format!("self_attn.linear_{name}_adapter_list"));
                adapters(c, &format!("shared.attn_{name}"), &list, shape, specs);
            }
        }
        let shape = [2 * c.inner, c.hidden];
        specs.linear("shared.ffn_gate_up", &hf("feed_forward.gate_up_proj"), shape, c.bias, None);
        adapters(c, "shared.ffn_gate_up", &hf("feed_forward.gate_up_proj_adapter_list"), shape, specs);
        let shape = [c.hidden, c.heads * c.head_dim];
        specs.linear("shared.attn_output", &hf("self_attn.o_proj"), shape, false, None);
        specs.norm("shared.ffn_norm", &[&hf("pre_ff_layernorm")], &[c.hidden], NormKind::Rms);
        specs.linear("shared.ffn_down", &hf("feed_forward.down_proj"), [c.hidden, c.inner], c.bias, None);
        specs.add("shared_out.weight", &[&out], &[c.hidden, c.hidden], true);
    }

    pub(super) fn write(&self, layers: &[(usize, &SharedBlockConfig)], keys: &mut Keys) -> Result<(), String> {
        let Some((_, c)) = layers.first() else { return Ok(()) };
        self.activation.write(c.activation, keys)?;
        let mut flags = vec![false; keys.layers];
        layers.iter().for_each(|(i, _)| flags[*i] = true);
        keys.set("shared_block.layers", flags);
        keys.set("shared_block.count", layers.iter().filter(|(_, c)| c.place == 0).count() as u32);
        keys.set("shared_block.adapter_rank", c.rank as u32);
        keys.set("shared_block.attention_adapters", c.attention_adapters);
        keys.set("shared_block.rope", c.rope.is_some());
        keys.set("attention.head_count", c.heads as u32);
        keys.set("attention.head_count_kv", c.kv_heads as u32);
        keys.set("feed_forward_length", c.inner as u32);
        c.rope.as_ref().map_or(Ok(()), |rope| rope::write(&self.rope, rope, keys))
    }
}

/// The adapters of one projection, a pair for each place that shares it.
fn adapters(c: &SharedBlockConfig, gguf: &str, list: &str, [rows, cols]: [usize; 2], specs: &mut Specs) {
    for n in &c.places {
        specs.linear(&format!("{gguf}_a.{n}"), &format!("{list}.{n}.0"), [c.rank, cols], false, None);
        specs.linear(&format!("{gguf}_b.{n}"), &format!("{list}.{n}.1"), [rows, c.rank], false, None);
    }
}
