use imaginal_nn::{AttentionConfig, RopeConfig, RopeScaling};
use imaginal_tensor::RopeStyle;

use super::Keys;
use crate::config::{LONGEST, Shared, WIDTH};
use crate::fields::{Fields, Key};
use crate::tensors::Specs;

/// What an architecture fixes of its attention.
#[derive(Copy, Clone, Debug)]
pub struct AttentionRow {
    /// Where its tensors are within a layer of a Hugging Face checkpoint: `self_attn`.
    pub hf: &'static str,
    /// Order of a head's rows in GGUF files. Hugging Face checkpoints have [`RopeStyle::Half`].
    pub gguf_rope: RopeStyle,
    /// Biases of query, key and value.
    pub qkv_bias: Bias,
    /// Bias of the output.
    pub out_bias: Bias,
    /// Whether each query and key head is normalised.
    pub qk_norm: bool,
    /// How `config.json` limits what a query sees.
    pub window: Window,
}

/// Whether tensors are forbidden, required or optional.
#[derive(Copy, Clone, Debug)]
pub enum Bias {
    /// Forbidden.
    Never,
    /// Required.
    Always,
    /// As the named field of `config.json` says (false if absent); in a GGUF file, if the tensors are there.
    Optional(&'static [&'static str]),
}

impl Bias {
    pub(super) fn read(&self, f: &Fields, present: impl Fn() -> bool) -> bool {
        match self {
            Bias::Never => false,
            Bias::Always => true,
            Bias::Optional(_) if f.is_gguf() => present(),
            Bias::Optional(names) => f.flag(&Key::new(&[], names), false),
        }
    }
}

/// Fields of `config.json` about sliding windows.
#[derive(Copy, Clone, Debug)]
pub enum Window {
    /// `sliding_window`, if the model type is one of these; for others the field has no meaning.
    Types(&'static [&'static str]),
    /// `sliding_window` from layer `max_window_layers` on, if `use_sliding_window` is set; `layer_types` overrides.
    FromLayer,
}

const HEADS: Key = Key::new(&["attention.head_count"], &["num_attention_heads"]);
const KV_HEADS: Key = Key::new(&["attention.head_count_kv"], &["num_key_value_heads"]);
const HEAD_DIM: Key = Key::new(&["attention.key_length"], &["head_dim"]);
const VALUE_DIM: Key = Key::new(&["attention.value_length"], &[]);
const ROPE_DIMS: Key = Key::new(&["rope.dimension_count"], &[]);
const THETA: Key =
    Key::new(&["rope.freq_base"], &["rope_parameters.rope_theta", "rope_theta", "rope_scaling.rope_theta"]);
const SCALING: Key = Key::new(
    &["rope.scaling.type"],
    &["rope_parameters.rope_type", "rope_parameters.type", "rope_scaling.rope_type", "rope_scaling.type"],
);
const FACTOR: Key =
    Key::new(&["rope.scaling.factor", "rope.scale_linear"], &["rope_parameters.factor", "rope_scaling.factor"]);
const LOW: Key = Key::new(&[], &["rope_parameters.low_freq_factor", "rope_scaling.low_freq_factor"]);
const HIGH: Key = Key::new(&[], &["rope_parameters.high_freq_factor", "rope_scaling.high_freq_factor"]);
const ORIGINAL: Key = Key::new(
    &[],
    &["rope_parameters.original_max_position_embeddings", "rope_scaling.original_max_position_embeddings"],
);
const PARTIAL: Key = Key::new(&[], &["rope_parameters.partial_rotary_factor", "partial_rotary_factor"]);
const WINDOW: Key = Key::new(&["attention.sliding_window"], &["sliding_window"]);
const USE_WINDOW: Key = Key::new(&[], &["use_sliding_window"]);
const WINDOW_LAYERS: Key = Key::new(&[], &["max_window_layers"]);
const LAYER_TYPES: Key = Key::new(&[], &["layer_types"]);
const MODEL_TYPE: Key = Key::new(&[], &["model_type"]);

const MOST_HEADS: usize = 1 << 14;

impl AttentionRow {
    pub(super) fn read(&self, f: &Fields, shared: &Shared, present: &dyn Fn(&str) -> bool) -> Vec<AttentionConfig> {
        let hidden = shared.hidden;
        let heads = f.size(&HEADS, None, MOST_HEADS);
        let kv_heads = f.size(&KV_HEADS, Some(heads), MOST_HEADS);
        if !heads.is_multiple_of(kv_heads) {
            f.conflict(f.name(&KV_HEADS), format!("{kv_heads} does not divide the {heads} heads"));
        }
        if !f.has(&HEAD_DIM) && !hidden.is_multiple_of(heads) {
            f.conflict(f.name(&HEADS), format!("{heads} heads do not divide the width of {hidden}"));
        }
        let head_dim = f.size(&HEAD_DIM, Some((hidden / heads).max(1)), WIDTH);
        if heads.saturating_mul(head_dim) > WIDTH {
            f.conflict(f.name(&HEADS), format!("{heads} heads of {head_dim} are wider than {WIDTH}"));
        }
        let value_dim = f.size(&VALUE_DIM, Some(head_dim), WIDTH);
        if value_dim != head_dim {
            f.conflict(f.name(&VALUE_DIM), format!("{value_dim} differs from the {head_dim} of the keys"));
        }
        let config = AttentionConfig {
            hidden,
            heads,
            kv_heads,
            head_dim,
            qkv_bias: self.qkv_bias.read(f, || present("attn_q.bias")),
            out_bias: self.out_bias.read(f, || present("attn_output.bias")),
            qk_norm: self.qk_norm.then_some(shared.eps),
            rope: self.rope(f, shared, head_dim),
            window: None,
        };
        let windows = self.windows(f, shared.layers);
        windows.into_iter().map(|window| AttentionConfig { window, ..config.clone() }).collect()
    }

    fn rope(&self, f: &Fields, shared: &Shared, head_dim: usize) -> RopeConfig {
        let dims = f.size(&ROPE_DIMS, Some(head_dim), WIDTH);
        if dims > head_dim || !dims.is_multiple_of(2) {
            let name = if f.has(&ROPE_DIMS) { f.name(&ROPE_DIMS) } else { f.name(&HEAD_DIM) };
            f.conflict(name, format!("{dims} is not an even number up to the {head_dim} elements of a head"));
        }
        if f.float(&PARTIAL, Some(1.0), 0.0, 1.0) != 1.0 {
            f.problem(f.name(&PARTIAL), "only 1 is supported here");
        }
        let theta = f.float(&THETA, Some(10000.0), 1.0, 1e12);
        let factor = |default| f.float(&FACTOR, default, 1e-3, 1e6);
        let kind = f.text(&SCALING);
        let scaling = match kind.as_deref() {
            // GGUF: a factor without a type is linear.
            None if f.is_gguf() => linear(factor(Some(1.0))),
            None | Some("none" | "default") => RopeScaling::None,
            Some("linear") => linear(factor(None)),
            Some("llama3") => RopeScaling::llama3(
                dims,
                theta,
                factor(None),
                f.float(&LOW, None, 1e-6, 1e6),
                f.float(&HIGH, None, 1e-6, 1e6),
                f.size(&ORIGINAL, None, LONGEST) as f64,
            ),
            Some(other) => {
                f.problem(f.name(&SCALING), format!("{other:?} is not supported; none, linear and llama3 are"));
                RopeScaling::None
            }
        };
        let scaling = match (&shared.rope_factors, scaling) {
            (Some(factors), RopeScaling::None) => {
                if factors.len() * 2 != dims {
                    f.problem("rope_freqs.weight", format!("{} factors for {dims} dimensions", factors.len()));
                }
                RopeScaling::Factors(factors.clone())
            }
            (Some(_), scaling) => {
                f.problem("rope_freqs.weight", "factors beside another scaling are not supported");
                scaling
            }
            (None, scaling) => scaling,
        };
        let style = if f.is_gguf() { self.gguf_rope } else { RopeStyle::Half };
        RopeConfig { style, dims, theta, scaling }
    }

    fn windows(&self, f: &Fields, layers: usize) -> Vec<Option<usize>> {
        let size = || f.has(&WINDOW).then(|| f.size(&WINDOW, None, LONGEST));
        if f.is_gguf() {
            return vec![size(); layers];
        }
        match self.window {
            Window::Types(types) => {
                let window = types.iter().any(|t| f.is_text(&MODEL_TYPE, t)).then(size).flatten();
                vec![window; layers]
            }
            Window::FromLayer if f.flag(&USE_WINDOW, false) => {
                let window = size();
                let first = f.size_from(&WINDOW_LAYERS, Some(28), 0, LONGEST);
                match f.texts(&LAYER_TYPES) {
                    Some(types) if types.len() == layers => {
                        types.iter().map(|t| window.filter(|_| t == "sliding_attention")).collect()
                    }
                    Some(types) => {
                        f.problem("layer_types", format!("{} entries for {layers} layers", types.len()));
                        vec![None; layers]
                    }
                    None => (0..layers).map(|i| window.filter(|_| i >= first)).collect(),
                }
            }
            Window::FromLayer => vec![None; layers],
        }
    }

    pub(super) fn tensors(&self, c: &AttentionConfig, specs: &mut Specs) {
        let hf = |name: &str| format!("{}.{name}", self.hf);
        let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        specs.linear("attn_q", &hf("q_proj"), [q, c.hidden], c.qkv_bias, Some(c.heads));
        specs.linear("attn_k", &hf("k_proj"), [kv, c.hidden], c.qkv_bias, Some(c.kv_heads));
        specs.linear("attn_v", &hf("v_proj"), [kv, c.hidden], c.qkv_bias, None);
        specs.linear("attn_output", &hf("o_proj"), [c.hidden, q], c.out_bias, None);
        if c.qk_norm.is_some() {
            // Rows of the norms lie in the order of a head as well.
            specs.add("attn_q_norm.weight", &[&hf("q_norm.weight")], &[c.head_dim], false).heads = Some(1);
            specs.add("attn_k_norm.weight", &[&hf("k_norm.weight")], &[c.head_dim], false).heads = Some(1);
        }
    }
}

fn linear(factor: f64) -> RopeScaling {
    if factor == 1.0 { RopeScaling::None } else { RopeScaling::Linear(factor) }
}

pub(super) fn write(c: &AttentionConfig, keys: &mut Keys) {
    keys.push(("attention.head_count", (c.heads as u32).into()));
    keys.push(("attention.head_count_kv", (c.kv_heads as u32).into()));
    keys.push(("attention.key_length", (c.head_dim as u32).into()));
    keys.push(("attention.value_length", (c.head_dim as u32).into()));
    keys.push(("rope.dimension_count", (c.rope.dims as u32).into()));
    keys.push(("rope.freq_base", (c.rope.theta as f32).into()));
    if let RopeScaling::Linear(factor) = c.rope.scaling {
        keys.push(("rope.scaling.type", "linear".into()));
        keys.push(("rope.scaling.factor", (factor as f32).into()));
    }
    if let Some(window) = c.window {
        keys.push(("attention.sliding_window", (window as u32).into()));
    }
}
