use imaginal_files::gguf::Value;
use imaginal_nn::{MlaConfig, NormKind, RopeScaling, Yarn};
use imaginal_tensor::RopeStyle;

use super::rope::{self, RopeRow};
use super::{Bias, Keys, Reader};
use crate::config::WIDTH;
use crate::fields::Key;
use crate::tensors::{Specs, Stored};

/// What an architecture fixes of its multi-head latent attention.
#[derive(Copy, Clone, Debug)]
pub struct MlaRow {
    /// Where its tensors are within a layer of a Hugging Face checkpoint: `self_attn`.
    pub hf: &'static str,
    /// Biases of the projections of the residual stream to latents, and of that back; no GGUF file has them.
    pub bias: Bias,
    /// Epsilon of the latents' norms in Hugging Face checkpoints; GGUF files have one for all norms.
    pub eps: f64,
    /// Position embedding; `None` where positions are not told.
    pub rope: Option<RopeRow>,
}

const HEADS: Key = Key::new(&["attention.head_count"], &["num_attention_heads"]);
const Q_RANK: Key = Key::new(&["attention.q_lora_rank"], &["q_lora_rank"]);
const KV_RANK: Key = Key::new(&["attention.kv_lora_rank"], &["kv_lora_rank"]);
const PLAIN_DIM: Key = Key::new(&[], &["qk_nope_head_dim"]);
const TURNED_DIM: Key = Key::new(&["rope.dimension_count"], &["qk_rope_head_dim"]);
// Older files have the sizes of a head in the place of those of the latent.
const KEY_DIM: Key = Key::new(&["attention.key_length_mla", "attention.key_length"], &[]);
const VALUE_DIM: Key = Key::new(&["attention.value_length_mla", "attention.value_length"], &["v_head_dim"]);
const INTERLEAVED: Key = Key::new(&[], &["rope_interleave"]);

impl MlaRow {
    /// Of DeepSeek V2 and V3.
    pub const DEEPSEEK: MlaRow =
        MlaRow { hf: "self_attn", bias: Bias::Optional(&["attention_bias"]), eps: 1e-6, rope: Some(RopeRow::PLAIN) };

    pub(super) fn read(&self, r: &Reader) -> MlaConfig {
        let f = r.f;
        let size = |key: &Key| f.size(key, None, WIDTH);
        let (heads, kv_rank, turned_dim, value_dim) = (
            r.counts(&HEADS, None, 1 << 14).first().copied().unwrap_or(1),
            size(&KV_RANK),
            size(&TURNED_DIM),
            size(&VALUE_DIM),
        );
        let plain_dim = match f.is_gguf() {
            true => size(&KEY_DIM).saturating_sub(turned_dim).max(1),
            false => size(&PLAIN_DIM),
        };
        let key_dim = plain_dim + turned_dim;
        for (key, width) in [(&PLAIN_DIM, heads.saturating_mul(key_dim)), (&VALUE_DIM, heads.saturating_mul(value_dim))]
        {
            if width > WIDTH {
                f.conflict(f.name(key), format!("{heads} heads are wider than {WIDTH}"));
            }
        }
        if f.is_gguf() && size(&KEY_DIM) <= turned_dim {
            f.conflict(f.name(&KEY_DIM), format!("not more than the {turned_dim} elements that are turned"));
        }
        let style = match f.is_gguf() || f.flag(&INTERLEAVED, true) {
            true => RopeStyle::Interleaved,
            false => RopeStyle::Half,
        };
        let rope = self.rope.as_ref().map(|row| row.read(r, turned_dim, style).full);
        let factor = rope.as_ref().map_or(1.0, |c| rope::score_factor(r, c));
        MlaConfig {
            hidden: r.shared.hidden,
            heads,
            q_rank: f.has(&Q_RANK).then(|| size(&Q_RANK)),
            kv_rank,
            plain_dim,
            turned_dim,
            value_dim,
            bias: r.bias(self.bias, "attn_output.bias"),
            eps: if f.is_gguf() { r.shared.eps } else { self.eps },
            rope,
            scale: factor / (key_dim as f64).sqrt(),
        }
    }

    pub(super) fn tensors(&self, c: &MlaConfig, specs: &mut Specs) {
        let hf = |name: &str| format!("{}.{name}", self.hf);
        let linear = |specs: &mut Specs, name: &str, of: &str, shape, bias| {
            specs.linear(name, &hf(of), shape, bias, None);
            if bias {
                specs.without_gguf();
            }
        };
        let (heads, rank) = (c.heads, c.kv_rank);
        let q_width = heads * (c.plain_dim + c.turned_dim);
        match c.q_rank {
            None => linear(specs, "attn_q", "q_proj", [q_width, c.hidden], false),
            Some(rank) => {
                linear(specs, "attn_q_a", "q_a_proj", [rank, c.hidden], c.bias);
                specs.norm("attn_q_a_norm", &[&hf("q_a_layernorm")], &[rank], NormKind::Rms);
                linear(specs, "attn_q_b", "q_b_proj", [q_width, rank], false);
            }
        }
        linear(specs, "attn_kv_a_mqa", "kv_a_proj_with_mqa", [rank + c.turned_dim, c.hidden], c.bias);
        specs.norm("attn_kv_a_norm", &[&hf("kv_a_layernorm")], &[rank], NormKind::Rms);
        // Checkpoints and older GGUF files have one matrix: for each head the rows of its key, then those of its value.
        let both = c.plain_dim + c.value_dim;
        let keys =
            |name: &str| Stored::strided(name, &[heads * both, rank], 0, c.plain_dim, both, heads).transposed(heads);
        let values = |name: &str| Stored::strided(name, &[heads * both, rank], c.plain_dim, c.value_dim, both, heads);
        let (old, kv_b) = ("attn_kv_b.weight", hf("kv_b_proj.weight"));
        let mut add = |name: &str, shape: [usize; 3], old: Stored, hf: Stored| {
            specs.add_ways(name, vec![Stored::whole(name, &shape), old], vec![hf], &shape, true);
        };
        add("attn_k_b.weight", [heads, rank, c.plain_dim], keys(old), keys(&kv_b));
        add("attn_v_b.weight", [heads, c.value_dim, rank], values(old), values(&kv_b));
        linear(specs, "attn_output", "o_proj", [c.hidden, heads * c.value_dim], c.bias);
    }

    pub(super) fn write(&self, layers: &[(usize, &MlaConfig)], keys: &mut Keys) -> Result<(), String> {
        let Some((_, c)) = layers.first() else { return Ok(()) };
        if c.bias {
            return Err("biases of latent attention have no place in a GGUF file".into());
        }
        if keys.value("attention.layer_norm_rms_epsilon") != Some(&Value::from(c.eps as f32)) {
            return Err(format!("an epsilon of {} in the norms of latents only has no place in a GGUF file", c.eps));
        }
        let key_dim = c.plain_dim + c.turned_dim;
        for (i, c) in layers {
            keys.set_layer("attention.head_count", *i, c.heads);
            keys.set_layer("attention.head_count_kv", *i, 1);
        }
        if let Some(rank) = c.q_rank {
            keys.set("attention.q_lora_rank", rank as u32);
        }
        keys.set("attention.kv_lora_rank", c.kv_rank as u32);
        keys.set("attention.key_length", (c.kv_rank + c.turned_dim) as u32);
        keys.set("attention.value_length", c.kv_rank as u32);
        keys.set("attention.key_length_mla", key_dim as u32);
        keys.set("attention.value_length_mla", c.value_dim as u32);
        keys.set("rope.dimension_count", c.turned_dim as u32);
        let factor = c.scale * (key_dim as f64).sqrt();
        if let (Some(rope), Some(row)) = (&c.rope, &self.rope) {
            if rope.style != RopeStyle::Interleaved {
                return Err("elements that are not turned in pairs of neighbours have no place in a GGUF file".into());
            }
            rope::write(row, rope, keys)?;
            if let RopeScaling::Yarn(Yarn { factor: stretch, amplitude, .. }) = rope.scaling
                && (factor - 1.0).abs() > 1e-9
            {
                // The factor of scores is the square of 1 + multiplier · ln(stretch).
                keys.set("rope.scaling.yarn_log_multiplier", ((factor.sqrt() - 1.0) / stretch.ln()) as f32);
                keys.set("rope.scaling.attn_factor", amplitude as f32);
                return Ok(());
            }
        }
        match (factor - 1.0).abs() > 1e-9 {
            true => Err(format!("a factor of {factor} in the scores of latent attention has no place in a GGUF file")),
            false => Ok(()),
        }
    }
}
