use imaginal_nn::LightningAttentionConfig;

use super::delta::only_silu;
use super::{Keys, Reader, write_recurrent};
use crate::config::WIDTH;
use crate::fields::Key;
use crate::tensors::Specs;

/// What an architecture fixes of its lightning attention.
#[derive(Copy, Clone, Debug)]
pub struct LightningRow {
    /// Where its tensors are within a layer of a Hugging Face checkpoint: `self_attn`.
    pub hf: &'static str,
    /// Epsilon of the norm of its results in Hugging Face checkpoints; GGUF files have one for all norms.
    pub eps: f64,
}

const HEADS: Key = Key::new(&["attention.head_count"], &["num_attention_heads"]);
const HEAD_DIM: Key = Key::new(&["attention.key_length"], &["head_dim"]);

impl LightningRow {
    pub(super) fn read(&self, r: &Reader) -> Vec<LightningAttentionConfig> {
        let f = r.f;
        only_silu(r);
        let heads = f.size(&HEADS, None, 1 << 14);
        let hidden = r.shared.hidden;
        let head_dim = f.size(&HEAD_DIM, Some((hidden / heads).max(1)), WIDTH);
        if heads.saturating_mul(head_dim) > WIDTH {
            f.conflict(f.name(&HEADS), format!("{heads} heads of {head_dim} are wider than {WIDTH}"));
        }
        let (layers, eps) = (r.shared.layers, if f.is_gguf() { r.shared.eps } else { self.eps });
        let config = |&layer: &usize| LightningAttentionConfig { hidden, heads, head_dim, layer, layers, eps };
        r.layers.iter().map(config).collect()
    }

    pub(super) fn tensors(&self, c: &LightningAttentionConfig, specs: &mut Specs) {
        let hf = |name: &str| format!("{}.{name}", self.hf);
        let inner = c.heads * c.head_dim;
        specs.linear("attn_qkv", &hf("qkv_proj"), [3 * inner, c.hidden], false, None);
        specs.add("attn_norm_2.weight", &[&hf("norm.weight")], &[inner], false);
        specs.linear("attn_gate", &hf("output_gate"), [inner, c.hidden], false, None);
        specs.linear("attn_output", &hf("out_proj"), [c.hidden, inner], false, None);
    }

    pub(super) fn write(&self, layers: &[(usize, &LightningAttentionConfig)], keys: &mut Keys) -> Result<(), String> {
        let Some((_, c)) = layers.first() else { return Ok(()) };
        if c.eps != keys.eps {
            return Err(format!(
                "an epsilon of {} in the norms of lightning attention has no place in a GGUF file",
                c.eps
            ));
        }
        write_recurrent(layers.iter().map(|l| l.0), keys);
        keys.set("attention.head_count", c.heads as u32);
        keys.set("attention.key_length", c.head_dim as u32);
        keys.set("attention.value_length", c.head_dim as u32);
        keys.fill("attention.head_count_kv");
        Ok(())
    }
}
