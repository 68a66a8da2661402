use imaginal_nn::{MoeConfig, RouterConfig, Scores};

use super::mlp::{self, MlpRow};
use super::{BlockConfig, Keys};
use crate::config::{Shared, WIDTH};
use crate::fields::{Fields, Key};
use crate::tensors::{Specs, Stored};

/// What an architecture fixes of its experts.
#[derive(Copy, Clone, Debug)]
pub struct MoeRow {
    /// Where the experts are within a layer of a Hugging Face checkpoint: `mlp.experts`.
    pub hf: &'static str,
    /// Where the router is: `mlp.gate`.
    pub hf_router: &'static str,
    /// What becomes of the router's logits.
    pub scores: Scores,
    /// Whether readers of GGUF files take for granted that a token's weights are divided by their sum.
    pub gguf_normalised: bool,
    /// The feed-forward network of the layers that have no experts. GGUF files have experts in every layer.
    pub dense: MlpRow,
}

const EXPERTS: Key = Key::new(&["expert_count"], &["num_experts", "num_local_experts"]);
const USED: Key = Key::new(&["expert_used_count"], &["num_experts_per_tok"]);
const INNER: Key = Key::new(&["expert_feed_forward_length"], &["moe_intermediate_size"]);
const NORMALISED: Key = Key::new(&[], &["norm_topk_prob"]);
const STEP: Key = Key::new(&[], &["decoder_sparse_step"]);
const DENSE_LAYERS: Key = Key::new(&[], &["mlp_only_layers"]);

/// Most experts that are believed.
const MOST: usize = 1 << 12;

impl MoeRow {
    pub(super) fn read(&self, f: &Fields, shared: &Shared, present: &dyn Fn(&str) -> bool) -> Vec<BlockConfig> {
        mlp::check_activation(f);
        let experts = f.size(&EXPERTS, None, MOST);
        let used = f.size(&USED, None, MOST);
        if used > experts {
            f.conflict(f.name(&USED), format!("{used} experts for a token, of {experts}"));
        }
        let normalised = if f.is_gguf() { self.gguf_normalised } else { f.flag(&NORMALISED, false) };
        let router = RouterConfig { experts, used, scores: self.scores, normalised };
        let moe = MoeConfig { hidden: shared.hidden, inner: f.size(&INNER, None, WIDTH), router };
        let (step, dense) = (f.size(&STEP, Some(1), shared.layers.max(1)), f.sizes(&DENSE_LAYERS));
        let has_experts = |layer: &usize| (layer + 1).is_multiple_of(step) && !dense.contains(layer);
        let layers: Vec<bool> = (0..shared.layers).map(|layer| has_experts(&layer)).collect();
        // Its fields are those of layers that may not be.
        let mlp = layers.contains(&false).then(|| BlockConfig::Mlp(self.dense.read(f, shared, present)));
        let block = |experts: bool| match &mlp {
            Some(mlp) if !experts => mlp.clone(),
            _ => BlockConfig::Moe(moe.clone()),
        };
        layers.into_iter().map(block).collect()
    }

    pub(super) fn tensors(&self, c: &MoeConfig, specs: &mut Specs) {
        let (n, hidden, inner) = (c.router.experts, c.hidden, c.inner);
        specs.add("ffn_gate_inp.weight", &[&format!("{}.weight", self.hf_router)], &[n, hidden], false);
        let stored = |name: &str, shape: [usize; 2]| {
            let (before, after) = (format!("{}.", self.hf), format!(".{name}.weight"));
            Stored::Each { count: n, before, after, shape: shape.to_vec() }
        };
        // Newer versions of transformers stack the experts, gate and up in one tensor.
        let half = |part| Stored::Part {
            name: format!("{}.gate_up_proj", self.hf),
            shape: [n, 2 * inner, hidden],
            part,
            parts: 2,
        };
        let down = Stored::Whole { name: format!("{}.down_proj", self.hf), shape: vec![n, hidden, inner] };
        for (gguf, name, shape, stack) in [
            ("ffn_gate_exps.weight", "gate_proj", [inner, hidden], half(0)),
            ("ffn_up_exps.weight", "up_proj", [inner, hidden], half(1)),
            ("ffn_down_exps.weight", "down_proj", [hidden, inner], down),
        ] {
            specs.add_stored(gguf, vec![stored(name, shape), stack], &[n, shape[0], shape[1]], true);
        }
    }

    pub(super) fn write(&self, layers: &[&BlockConfig], keys: &mut Keys) -> Result<(), String> {
        let experts = layers.iter().find_map(|layer| match layer {
            BlockConfig::Moe(c) => Some(c),
            _ => None,
        });
        let Some(c) = experts.filter(|_| layers.iter().all(|layer| *layer == layers[0])) else {
            return Err("layers without experts have no place in a GGUF file of this architecture".into());
        };
        if c.router.normalised != self.gguf_normalised {
            let what = if c.router.normalised { "divided" } else { "not divided" };
            return Err(format!("weights of experts that are {what} by their sum have no place in a GGUF file"));
        }
        // Readers ask for the width of a dense layer: that of the experts that a token uses together.
        keys.push(("feed_forward_length", ((c.inner * c.router.used).min(u32::MAX as usize) as u32).into()));
        keys.push(("expert_feed_forward_length", (c.inner as u32).into()));
        keys.push(("expert_count", (c.router.experts as u32).into()));
        keys.push(("expert_used_count", (c.router.used as u32).into()));
        Ok(())
    }
}
