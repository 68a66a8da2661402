use imaginal_nn::{Activation, Groups, MlpConfig, MoeConfig, RouterConfig, Scores, SharedExperts};

use super::mlp::{ActivationRow, MlpRow};
use super::{Bias, Keys, Reader, by_types};
use crate::config::{LONGEST, WIDTH};
use crate::fields::Key;
use crate::tensors::{Specs, Stored};

/// What an architecture fixes of its experts.
#[derive(Copy, Clone, Debug)]
pub struct MoeRow {
    /// Where the experts' tensors are within a layer of a Hugging Face checkpoint: `mlp.experts`.
    pub hf: &'static str,
    /// The names of gate, up and down of one expert there.
    pub names: [&'static str; 3],
    /// Where the router is: `mlp.gate`.
    pub hf_router: &'static str,
    /// How a checkpoint holds the experts that has them in one.
    pub stacks: Stacks,
    /// Where experts and router are in newer checkpoints, if they have moved.
    pub moved: Option<[&'static str; 2]>,
    /// The width between the matrices of an expert.
    pub inner: Key,
    /// Whether experts have a gate.
    pub gated: bool,
    /// The function between their matrices.
    pub activation: ActivationRow,
    /// Whether experts have biases.
    pub bias: bool,
    /// Whether the router has a bias.
    pub router_bias: bool,
    /// What becomes of the router's logits.
    pub scores: Scores,
    /// Where a Hugging Face checkpoint may have the corrections of the choice.
    pub correction: Option<&'static [&'static str]>,
    /// Whether experts lie in groups.
    pub groups: Option<GroupScore>,
    /// Whether a token's weights are divided by their sum where a file does not say. GGUF files are taken for what
    /// readers of the format take for granted.
    pub normalised: [bool; 2],
    /// Whether the classes of Hugging Face checkpoints take no notice of a field that asks for it (DeepSeek V2).
    pub never_normalised: bool,
    /// The order of the norm that a token's weights are divided by, of which only 1, their sum, is supported;
    /// they are not divided where it is `null`.
    pub norm_order: Option<Key>,
    /// What every token uses besides.
    pub shared: Option<SharedRow>,
    /// Whether that, and the matrices into and out of a narrower space, have biases.
    pub outer_bias: Bias,
    /// The names of its matrices in a Hugging Face checkpoint that holds gate and up as one, without `.weight`.
    pub shared_fused: Option<[&'static str; 2]>,
    /// Whether experts get tokens multiplied by their weights.
    pub on_input: bool,
    /// Whether GGUF files may have layers without experts.
    pub dense_layers: DenseLayers,
}

/// How a Hugging Face checkpoint holds all experts of a layer in one tensor for gate and up and one for down.
#[derive(Copy, Clone, Debug)]
pub enum Stacks {
    /// The rows of each gate, then of each up. Experts without a gate have a name without `gate_`.
    Rows([&'static str; 2]),
    /// The same with every matrix transposed.
    Columns([&'static str; 2]),
    /// Transposed, the columns of gate and up in turn, with biases; or as MXFP4, not transposed (GPT-OSS).
    InTurn([&'static str; 2]),
    /// Three matrices, the experts' one below the other, down transposed (DBRX).
    Below([&'static str; 3]),
}

/// How groups of experts are compared.
#[derive(Copy, Clone, Debug)]
pub enum GroupScore {
    /// By the highest score in them.
    Best,
    /// By the sum of the two highest.
    BestTwo,
}

/// Experts that every token uses.
#[derive(Copy, Clone, Debug)]
pub struct SharedRow {
    /// Their feed-forward network in a Hugging Face checkpoint; its width is that of all of them.
    pub hf: &'static str,
    /// What their result is multiplied by there.
    pub gate: Option<&'static str>,
    /// Their number, if they are as wide as the others.
    pub count: Option<Key>,
    /// Their width, if they are not.
    pub inner: Option<Key>,
}

/// Where a model has layers without experts.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum DenseLayers {
    /// GGUF files cannot have them.
    Never,
    /// In all layers, or nowhere.
    AllOrNone,
    /// At the beginning: `leading_dense_block_count`.
    Leading,
    /// Wherever the router is missing.
    Anywhere,
    /// In all layers but each n-th: `interleave_moe_layer_step`.
    Interleaved,
}

pub(crate) const EXPERTS: Key = Key::new(
    &["expert_count"],
    &["num_experts", "num_local_experts", "n_routed_experts", "ffn_config.moe_num_experts"],
);
const USED: Key = Key::new(
    &["expert_used_count"],
    &["num_experts_per_tok", "num_experts_per_token", "moe_topk", "ffn_config.moe_top_k"],
);
const NORMALISED: Key = Key::new(&["expert_weights_norm"], &["norm_topk_prob", "moe_renormalize"]);
const SCALE: Key = Key::new(&["expert_weights_scale"], &["routed_scaling_factor"]);
const GATING: Key = Key::new(&["expert_gating_func"], &[]);
const TOPK_METHOD: Key = Key::new(&[], &["topk_method"]);
const MODEL_TYPE: Key = Key::new(&[], &["model_type"]);
const GROUPS: Key = Key::new(&["expert_group_count"], &["n_group", "num_expert_group"]);
const GROUPS_USED: Key = Key::new(&["expert_group_used_count"], &["topk_group"]);
const LATENT: Key = Key::new(&["moe_latent_size"], &["moe_latent_size"]);
const STEP: Key = Key::new(&[], &["decoder_sparse_step"]);
const INTERLEAVE: Key = Key::new(&["interleave_moe_layer_step"], &["interleave_moe_layer_step"]);
const MOE_LAYERS: Key = Key::new(&[], &["moe_layers"]);
const MLP_TYPES: Key = Key::new(&[], &["mlp_layer_types"]);
const DENSE_LAYERS: Key = Key::new(&[], &["mlp_only_layers"]);
pub(crate) const LEADING: Key =
    Key::new(&["leading_dense_block_count"], &["first_k_dense_replace", "num_dense_layers"]);

/// What a model is told that mixes layers in a way that the format does not know.
const WITHOUT: &str = "layers without experts have no place in a GGUF file of this architecture";

/// Most experts that are believed.
const MOST: usize = 1 << 12;

impl MoeRow {
    /// Of Qwen 3.
    pub const QWEN: MoeRow = MoeRow {
        hf: "mlp.experts",
        names: ["gate_proj", "up_proj", "down_proj"],
        hf_router: "mlp.gate",
        stacks: Stacks::Rows(["gate_up_proj", "down_proj"]),
        moved: None,
        inner: Key::new(&["expert_feed_forward_length"], &["moe_intermediate_size"]),
        gated: true,
        activation: ActivationRow::Usually(Activation::Silu),
        bias: false,
        router_bias: false,
        scores: Scores::Softmax,
        correction: None,
        groups: None,
        normalised: [false, true],
        never_normalised: false,
        norm_order: None,
        shared: None,
        outer_bias: Bias::Never,
        shared_fused: None,
        on_input: false,
        dense_layers: DenseLayers::Never,
    };

    pub(super) fn read(&self, r: &Reader) -> MoeConfig {
        let f = r.f;
        let experts = f.size(&EXPERTS, None, MOST);
        let used = f.size(&USED, None, MOST);
        if used > experts {
            f.conflict(f.name(&USED), format!("{used} experts for a token, of {experts}"));
        }
        let groups = self.groups.filter(|_| !f.is_text(&TOPK_METHOD, "greedy")).and_then(|score| {
            let count = f.size(&GROUPS, Some(1), MOST);
            let open = f.size(&GROUPS_USED, Some(count), MOST);
            let size = experts / count;
            if !experts.is_multiple_of(count) || open > count || used > open * size {
                let what = format!("{open} of {count} groups of {experts} experts, of which a token uses {used}");
                f.conflict(f.name(&GROUPS), what);
            }
            let top = if matches!(score, GroupScore::Best) { 1 } else { 2 };
            (count > 1).then_some(Groups { count, used: open, top })
        });
        let undivided = self.norm_order.is_some_and(|key| f.is_null(&key));
        if let Some(key) = self.norm_order.filter(|key| f.float(key, Some(1.0), 0.0, 1e9) != 1.0) {
            f.problem(f.name(&key), "only 1 is supported: weights are divided by their sum");
        }
        let [hf, gguf] = self.normalised;
        let inner = f.size(&self.inner, None, WIDTH);
        let shared = self.shared.as_ref().and_then(|shared| {
            let inner = match (&shared.inner, &shared.count) {
                (Some(key), _) if f.has(key) => f.size_from(key, None, 0, WIDTH),
                (_, Some(count)) => f.size_from(count, Some(0), 0, MOST).saturating_mul(inner).min(WIDTH),
                (Some(key), None) => f.size_from(key, Some(0), 0, WIDTH),
                (None, None) => inner,
            };
            (inner > 0).then_some(SharedExperts {
                inner,
                gate: shared.gate.is_some(),
                bias: self.bias || r.bias(self.outer_bias, "ffn_down_shexp.bias"),
            })
        });
        MoeConfig {
            hidden: r.shared.hidden,
            inner,
            gated: self.gated,
            activation: self.activation.read(r),
            bias: self.bias,
            router: RouterConfig {
                experts,
                used,
                scores: self.scores,
                bias: self.router_bias,
                correction: self.correction.is_some()
                    && r.bias(Bias::Usually(&["use_expert_bias"]), "exp_probs_b.bias"),
                groups,
                normalised: match self.never_normalised && !f.is_gguf() {
                    true => false,
                    false => f.flag(&NORMALISED, if f.is_gguf() { gguf } else { hf && !undivided }),
                },
                scale: f.float(&SCALE, Some(1.0), 0.0, 1e6),
                on_input: self.on_input,
            },
            shared,
            latent_bias: r.bias(self.outer_bias, "ffn_latent_up.bias"),
            latent: f.has(&LATENT).then(|| f.size(&LATENT, None, WIDTH)),
        }
    }

    pub(super) fn tensors(&self, c: &MoeConfig, specs: &mut Specs) {
        let (n, hidden, inner) = (c.router.experts, c.hidden, c.inner);
        let places = [Some([self.hf, self.hf_router]), self.moved];
        let routers: Vec<String> = places.iter().flatten().map(|[_, router]| format!("{router}.weight")).collect();
        let routers: Vec<&str> = routers.iter().map(String::as_str).collect();
        specs.add("ffn_gate_inp.weight", &routers, &[n, hidden], false);
        if c.router.bias {
            specs.add("ffn_gate_inp.bias", &[&format!("{}.bias", self.hf_router)], &[n], false);
        }
        if let (true, Some(names)) = (c.router.correction, self.correction) {
            specs.add("exp_probs_b.bias", names, &[n], false);
        }
        let width = c.latent.unwrap_or(hidden);
        if c.latent.is_some() {
            let (at, _) = self.hf.rsplit_once('.').unwrap_or_default();
            specs.linear("ffn_latent_down", &format!("{at}.fc1_latent_proj"), [width, hidden], c.latent_bias, None);
            specs.linear("ffn_latent_up", &format!("{at}.fc2_latent_proj"), [hidden, width], c.latent_bias, None);
        }
        let experts = &MoeConfig { hidden: width, ..c.clone() };
        let first = if c.gated { 0 } else { 1 };
        for (i, gguf) in ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"].into_iter().enumerate().skip(first) {
            let shape = if i == 2 { [n, width, inner] } else { [n, inner, width] };
            let mut ways = Vec::new();
            for [at, _] in places.into_iter().flatten() {
                let after = format!(".{}.weight", self.names[i]);
                ways.push(Stored::each(n, format!("{at}."), after, &shape[1..]));
                ways.extend(self.stacks.weight(at, experts, i));
            }
            specs.add_stored(&format!("{gguf}.weight"), ways, &shape, true);
            if c.bias {
                specs.add_stored(&format!("{gguf}.bias"), self.stacks.bias(self.hf, experts, i), &shape[..2], false);
            }
        }
        if let (Some(shared), Some(row)) = (&c.shared, self.shared) {
            let MoeConfig { hidden, gated, activation, .. } = *c;
            let bias = shared.bias;
            let mlp = MlpConfig { hidden, inner: shared.inner, gated, activation, bias, sparsity: None };
            let plain = MlpRow { hf: row.hf, ..MlpRow::PLAIN };
            match self.shared_fused {
                Some([both, down]) => MlpRow { hf_fused: Some(both), names: ["", "", down], ..plain },
                None => plain,
            }
            .named(&mlp, "_shexp", specs);
            if let (true, Some(gate)) = (shared.gate, row.gate) {
                let stored = |name: &str, shape: &[usize]| Stored::whole(name, shape);
                let name = "ffn_gate_inp_shexp.weight";
                let gguf = vec![stored(name, &[hidden]), stored(name, &[1, hidden])];
                let hf = vec![stored(&format!("{gate}.weight"), &[1, hidden])];
                specs.add_ways(name, gguf, hf, &[hidden], false);
            }
        }
    }

    pub(super) fn write(&self, layers: &[(usize, &MoeConfig)], keys: &mut Keys) -> Result<(), String> {
        let Some((first, c)) = layers.first() else {
            match self.dense_layers {
                DenseLayers::AllOrNone | DenseLayers::Anywhere => {}
                DenseLayers::Leading => keys.set("leading_dense_block_count", keys.layers as u32),
                DenseLayers::Interleaved => keys.set("interleave_moe_layer_step", keys.layers as u32 + 1),
                DenseLayers::Never => return Err(WITHOUT.into()),
            }
            return Ok(());
        };
        self.activation.write(c.activation, keys)?;
        if layers.len() < keys.layers {
            match self.dense_layers {
                DenseLayers::Anywhere => {}
                DenseLayers::Interleaved
                    if layers.iter().map(|l| l.0 + 1).eq((first + 1..=keys.layers).step_by(first + 1)) => {}
                DenseLayers::Leading if first + layers.len() == keys.layers => {
                    keys.set("leading_dense_block_count", *first as u32);
                }
                _ => return Err(WITHOUT.into()),
            }
        }
        if self.dense_layers == DenseLayers::Interleaved {
            keys.set("interleave_moe_layer_step", *first as u32 + 1);
        }
        let gguf_norm = self.normalised[1];
        if c.router.normalised != gguf_norm {
            if self.normalised[0] == self.normalised[1] || self.dense_layers == DenseLayers::Never {
                let what = if c.router.normalised { "divided" } else { "not divided" };
                return Err(format!("weights of experts that are {what} by their sum have no place in a GGUF file"));
            }
            keys.set("expert_weights_norm", c.router.normalised);
        }
        if let Some(groups) = c.router.groups {
            keys.set("expert_group_count", groups.count as u32);
            keys.set("expert_group_used_count", groups.used as u32);
        }
        if c.router.scale != 1.0 {
            keys.set("expert_weights_scale", c.router.scale as f32);
        }
        keys.set("expert_gating_func", gating(c.router.scores));
        if let (Some(shared), Some(row)) = (&c.shared, self.shared) {
            if row.inner.is_some() {
                keys.set("expert_shared_feed_forward_length", shared.inner as u32);
            }
            if row.count.is_some() {
                keys.set("expert_shared_count", (shared.inner / c.inner) as u32);
            }
        }
        if self.inner.gguf.contains(&"feed_forward_length") || self.dense_layers == DenseLayers::Anywhere {
            layers.iter().for_each(|(i, c)| keys.set_layer("feed_forward_length", *i, c.inner));
        } else if keys.has("feed_forward_length") {
            keys.fill("feed_forward_length");
        } else {
            // Readers ask for the width of a dense layer: that of the experts that a token uses together.
            keys.set("feed_forward_length", (c.inner * c.router.used).min(u32::MAX as usize) as u32);
        }
        if let Some(width) = c.latent {
            keys.set("moe_latent_size", width as u32);
        }
        keys.set("expert_feed_forward_length", c.inner as u32);
        keys.set("expert_count", c.router.experts as u32);
        keys.set("expert_used_count", c.router.used as u32);
        Ok(())
    }
}

/// The number of the function of the router in GGUF metadata.
fn gating(scores: Scores) -> u32 {
    match scores {
        Scores::Softmax => 1,
        Scores::Sigmoid => 2,
        Scores::SoftmaxChosen => 3,
    }
}

impl Stacks {
    /// The ways to gate (0), up (1) or down (2) of all experts below `at`.
    fn weight(&self, at: &str, c: &MoeConfig, which: usize) -> Vec<Stored> {
        let (n, hidden, inner) = (c.router.experts, c.hidden, c.inner);
        let parts = if c.gated { 2 } else { 1 };
        let part = if c.gated { which } else { 0 };
        let both = parts * inner;
        let name = |name: &str| format!("{at}.{name}");
        match (self, which) {
            (Stacks::Rows([_, down]), 2) => vec![Stored::whole(name(down), &[n, hidden, inner])],
            (Stacks::Rows([up, _]), _) => {
                let up = if c.gated { up } else { up.trim_start_matches("gate_") };
                vec![Stored::strided(name(up), &[n, both, hidden], part * inner, inner, both, n)]
            }
            (Stacks::Columns([_, down]), 2) => vec![Stored::turned(name(down), [n, inner, hidden], 0, 1)],
            (Stacks::Columns([up, _]), _) => {
                vec![Stored::turned(name(up), [n, hidden, both], part * inner, 1).only(inner)]
            }
            (Stacks::InTurn([_, down]), 2) => vec![
                Stored::turned(name(down), [n, inner, hidden], 0, 1),
                Stored::mxfp4(name(down), [n, hidden, inner], 0, 1),
            ],
            (Stacks::InTurn([up, _]), _) => vec![
                Stored::turned(name(up), [n, hidden, both], part, parts),
                Stored::mxfp4(name(up), [n, both, hidden], part, parts),
            ],
            (Stacks::Below(names), 2) => vec![Stored::joined_turned(name(names[2]), [n, inner, hidden])],
            (Stacks::Below(names), _) => vec![Stored::whole(name(names[which]), &[n * inner, hidden])],
        }
    }

    /// The ways to their biases.
    fn bias(&self, at: &str, c: &MoeConfig, which: usize) -> Vec<Stored> {
        let (n, hidden, inner) = (c.router.experts, c.hidden, c.inner);
        match (self, which) {
            (Stacks::InTurn([_, down]), 2) => vec![Stored::whole(format!("{at}.{down}_bias"), &[n, hidden])],
            (Stacks::InTurn([up, _]), _) => {
                let parts = if c.gated { 2 } else { 1 };
                let part = if c.gated { which } else { 0 };
                vec![Stored::turned(format!("{at}.{up}_bias"), [n, parts * inner], part, parts)]
            }
            _ => Vec::new(),
        }
    }
}

/// For [`Choice`](super::Choice): 1 for layers with experts, 0 for the others, by `decoder_sparse_step` and
/// `mlp_only_layers`. In GGUF files all layers have experts.
pub(crate) fn by_step(r: &Reader) -> Vec<usize> {
    let (step, dense) = (r.f.size(&STEP, Some(1), LONGEST), r.f.sizes(&DENSE_LAYERS));
    let sparse = |layer: usize| (layer + 1).is_multiple_of(step) && !dense.contains(&layer);
    r.layers.iter().map(|&layer| usize::from(sparse(layer))).collect()
}

/// The same where the first layers have none, `first_k_dense_replace`, unless a list says which have.
pub(crate) fn after_leading(r: &Reader) -> Vec<usize> {
    if r.f.texts(&MLP_TYPES).is_some() {
        return by_types(r, &MLP_TYPES, &[("dense", 0), ("sparse", 1)]);
    }
    let leading = r.f.size_from(&LEADING, Some(0), 0, LONGEST);
    r.layers.iter().map(|&layer| usize::from(layer >= leading)).collect()
}

/// Whether experts are chosen by softmax: in models of these types, and in GGUF files that do not say otherwise.
pub(crate) fn is_softmax(r: &Reader, types: &[&str]) -> bool {
    match r.f.is_gguf() {
        true => r.f.size_from(&GATING, Some(0), 0, 16) <= gating(Scores::Softmax) as usize,
        false => types.iter().any(|name| r.f.is_text(&MODEL_TYPE, name)),
    }
}

/// The same where each n-th layer has experts, by `interleave_moe_layer_step` or the list `moe_layers`.
pub(crate) fn by_interleave(r: &Reader) -> Vec<usize> {
    let step = r.f.size(&INTERLEAVE, Some(1), LONGEST);
    let listed = r.f.sizes(&MOE_LAYERS);
    let sparse = |layer: usize| match listed.is_empty() {
        true => (layer + 1).is_multiple_of(step),
        false => listed.contains(&layer),
    };
    r.layers.iter().map(|&layer| usize::from(sparse(layer))).collect()
}

/// The same where all layers have experts or none has.
pub(crate) fn if_any(r: &Reader) -> Vec<usize> {
    let any = r.f.size_from(&EXPERTS, Some(0), 0, MOST) > 0;
    vec![usize::from(any); r.layers.len()]
}
