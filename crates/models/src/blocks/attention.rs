mod lending;
mod windows;

use imaginal_nn::{AttentionConfig, NormKind, Over, QkNorm, RopeConfig, RopeScaling, Temperature};
use imaginal_tensor::RopeStyle;

use super::rope::{self, LocalRope, RopeRow, Ropes, Turned};
use super::{Bias, Keys, Reader};
use crate::config::WIDTH;
use crate::fields::Key;
use crate::tensors::{Specs, Stored};

/// What an architecture fixes of its attention.
#[derive(Copy, Clone, Debug)]
pub struct AttentionRow {
    /// Where its tensors are within a layer of a Hugging Face checkpoint: `self_attn`.
    pub hf: &'static str,
    /// How a Hugging Face checkpoint holds queries, keys and values.
    pub fused: Fused,
    /// The output projection there.
    pub hf_out: &'static str,
    /// Whether matrices of a Hugging Face checkpoint are `[inputs, outputs]` (GPT-2).
    pub transposed: bool,
    /// Whether GGUF files are written with one tensor for queries, keys and values. Both ways are read.
    pub gguf_fused: bool,
    /// Order of a head's rows in GGUF files.
    pub gguf_rope: RopeStyle,
    /// Order of a head's rows in Hugging Face checkpoints.
    pub hf_rope: RopeStyle,
    /// Biases of query, key and value.
    pub qkv_bias: Bias,
    /// Bias of the output.
    pub out_bias: Bias,
    /// How queries and keys are normalised.
    pub qk_norm: Option<QkNormRow>,
    /// Position embedding.
    pub rope: RopeRow,
    /// Factor of the scores.
    pub scale: Scale,
    /// Scores are capped, if this field is there.
    pub softcap: Option<Key>,
    /// Name of the sinks in a Hugging Face checkpoint.
    pub sinks: Option<&'static str>,
    /// Whether a query sees only what stands before it.
    pub causal: bool,
    /// How `config.json` limits what a query sees.
    pub window: Window,
    /// Queries, keys and values are clamped, if this field is there.
    pub clip: Option<Key>,
    /// Whether queries come with gates of the results.
    pub gated: bool,
    /// Whether queries of layers that do not turn them grow with their position.
    pub temperature: bool,
    /// Whether the number of key heads is told by Falcon's flags.
    pub falcon_heads: bool,
    /// Whether values are normalised, without weights.
    pub v_norm: bool,
    /// Whether scores have linear biases in place of turned queries and keys, if this flag is set.
    pub alibi: Option<Key>,
    /// How many of the last layers attend to the keys and values of the last before them that has a window as they do.
    pub shared: Option<Key>,
}

/// How a Hugging Face checkpoint holds queries, keys and values.
#[derive(Copy, Clone, Debug)]
pub enum Fused {
    /// As three tensors.
    Split([&'static str; 3]),
    /// As one: all queries, then all keys, then all values.
    Joined(&'static str),
    /// As one: for each key head its queries, its key and its value.
    Grouped(&'static str),
}

/// A normalisation of queries and keys.
#[derive(Copy, Clone, Debug)]
pub struct QkNormRow {
    /// Its kind.
    pub kind: NormKind,
    /// What it takes together.
    pub over: Over,
    /// Whether it comes after the rotation.
    pub after_rope: bool,
    /// The names of its two weights within the attention of a Hugging Face checkpoint.
    pub hf: [&'static str; 2],
    /// Whether models have it.
    pub when: Bias,
    /// Whether layers that do not turn queries and keys are without it.
    pub only_turned: bool,
    /// Whether models in GGUF files have it, where it has no weights that would tell.
    pub(crate) gguf: Option<fn(&Reader) -> bool>,
}

impl QkNormRow {
    /// An RMS norm of each head, as in Qwen 3.
    pub const HEAD: QkNormRow = QkNormRow {
        kind: NormKind::Rms,
        over: Over::Head,
        after_rope: false,
        hf: ["q_norm", "k_norm"],
        when: Bias::Always,
        only_turned: false,
        gguf: None,
    };
}

/// Factor of the scores.
#[derive(Copy, Clone, Debug)]
pub enum Scale {
    /// One over the square root of a head's size, unless a GGUF file says otherwise.
    Head,
    /// It is 1.
    One,
    /// A field.
    Field(Key),
    /// One over the square root of a field. GGUF files do not have it: it is a head's size there, or the width divided by the
    /// number of heads in models of so many layers.
    RootOf {
        /// The field.
        key: Key,
        /// The number of layers.
        wide_layers: usize,
    },
    /// That of a head unless a flag is off, divided by the layer's number (from 1) if another is on (GPT-2).
    OverLayer {
        /// The first flag.
        off: Key,
        /// The second.
        by_layer: Key,
    },
}

/// What limits what a query sees.
#[derive(Copy, Clone, Debug)]
pub enum Window {
    /// Nothing.
    Never,
    /// `sliding_window` in every layer.
    Always,
    /// The same, if `use_sliding_window` is set.
    IfUsed,
    /// The same in the first of each two layers, before layer `max_window_layers`; `layer_types` overrides.
    Alternating,
    /// In layers that turn queries and keys, the end of a stretch of `attention_chunk_size` positions (Llama 4);
    /// `layer_types` overrides.
    Chunked,
    /// `sliding_window`, if the model type is one of these; for others the field has no meaning.
    Types(&'static [&'static str]),
    /// `sliding_window` from layer `max_window_layers` on, if `use_sliding_window` is set; `layer_types` overrides.
    FromLayer,
    /// `sliding_window` in all layers but those whose number leaves the rest `full` after division by `period`;
    /// `layer_types` or `sliding_window_pattern` (another period, whose last layer is the full one, or the first if `full` is 0) override.
    Pattern {
        /// After how many layers the pattern repeats.
        period: usize,
        /// Which of them sees everything.
        full: usize,
    },
}

const HEADS: Key = Key::new(&["attention.head_count"], &["num_attention_heads", "n_head", "n_heads", "num_heads"]);
const KV_HEADS: Key = Key::new(
    &["attention.head_count_kv"],
    &["num_key_value_heads", "num_kv_heads", "attn_config.kv_n_heads", "num_query_groups"],
);
const HEAD_DIM: Key = Key::new(&["attention.key_length"], &["head_dim", "attention_head_dim"]);
const VALUE_DIM: Key = Key::new(&["attention.value_length"], &[]);
const SCALE: Key = Key::new(&["attention.scale"], &[]);
const WINDOW: Key = Key::new(&["attention.sliding_window"], &["sliding_window", "local_attention"]);
const PATTERN: Key =
    Key::new(&["attention.sliding_window_pattern"], &["sliding_window_pattern", "global_attn_every_n_layers"]);
const USE_WINDOW: Key = Key::new(&[], &["use_sliding_window"]);
const WINDOW_LAYERS: Key = Key::new(&[], &["max_window_layers"]);
const CHUNK: Key = Key::new(&["attention.chunk_size"], &["attention_chunk_size"]);
const USE_QK_NORM: Key = Key::new(&["attention.use_qk_norm"], &[]);
const LAYER_TYPES: Key = Key::new(&[], &["layer_types"]);
const MODEL_TYPE: Key = Key::new(&[], &["model_type"]);
const TEMPERATURE_SCALE: Key = Key::new(&["attention.temperature_scale"], &["attn_scale"]);
const TEMPERATURE_FLOOR: Key = Key::new(&["attention.temperature_length"], &["floor_scale"]);
const TEMPERATURE: Key = Key::new(&[], &["attn_temperature_tuning"]);

const BOTH_WAYS: Key = Key::new(&[], &["use_bidirectional_attention"]);

const NEW_DECODER: Key = Key::new(&[], &["new_decoder_architecture"]);
const MULTI_QUERY: Key = Key::new(&[], &["multi_query"]);

/// Positions of a chunk where no field says.
const CHUNK_SIZE: usize = 8192;

const MOST_HEADS: usize = 1 << 14;

impl AttentionRow {
    /// Llama's attention.
    pub const LLAMA: AttentionRow = AttentionRow {
        hf: "self_attn",
        fused: Fused::Split(["q_proj", "k_proj", "v_proj"]),
        hf_out: "o_proj",
        transposed: false,
        gguf_fused: false,
        gguf_rope: RopeStyle::Interleaved,
        hf_rope: RopeStyle::Half,
        qkv_bias: Bias::Optional(&["attention_bias"]),
        out_bias: Bias::Optional(&["attention_bias"]),
        qk_norm: None,
        rope: RopeRow::PLAIN,
        scale: Scale::Head,
        softcap: None,
        sinks: None,
        causal: true,
        window: Window::Types(&["mistral", "mixtral"]),
        clip: None,
        gated: false,
        temperature: false,
        falcon_heads: false,
        v_norm: false,
        alibi: None,
        shared: None,
    };

    /// Llama's attention without biases or windows, whose rows lie as in Hugging Face checkpoints.
    pub const PLAIN: AttentionRow = AttentionRow {
        gguf_rope: RopeStyle::Half,
        qkv_bias: Bias::Never,
        out_bias: Bias::Never,
        window: Window::Never,
        ..AttentionRow::LLAMA
    };

    pub(super) fn read(&self, r: &Reader) -> Vec<AttentionConfig> {
        let (f, hidden) = (r.f, r.shared.hidden);
        let heads = r.counts(&HEADS, None, MOST_HEADS);
        let most = heads.iter().copied().max().unwrap_or(1);
        let falcon = self.falcon_heads && !f.is_gguf() && !f.flag(&NEW_DECODER, false);
        let kv_heads = match f.has(&KV_HEADS) {
            _ if falcon && f.flag(&MULTI_QUERY, true) => vec![1; heads.len()],
            _ if falcon => heads.clone(),
            true => r.counts(&KV_HEADS, None, MOST_HEADS),
            false => heads.clone(),
        };
        for (heads, kv_heads) in heads.iter().zip(&kv_heads) {
            if !heads.is_multiple_of(*kv_heads) {
                f.conflict(f.name(&KV_HEADS), format!("{kv_heads} does not divide the {heads} heads"));
            }
        }
        if !f.has(&HEAD_DIM) && !hidden.is_multiple_of(most) {
            f.conflict(f.name(&HEADS), format!("{most} heads do not divide the width of {hidden}"));
        }
        let head_dim = f.size(&HEAD_DIM, Some((hidden / most).max(1)), WIDTH);
        if most.saturating_mul(head_dim) > WIDTH {
            f.conflict(f.name(&HEADS), format!("{most} heads of {head_dim} are wider than {WIDTH}"));
        }
        let value_dim = f.size(&VALUE_DIM, Some(head_dim), WIDTH);
        if value_dim != head_dim {
            f.conflict(f.name(&VALUE_DIM), format!("{value_dim} differs from the {head_dim} of the keys"));
        }
        if self.causal && f.has(&BOTH_WAYS) && f.flag(&BOTH_WAYS, false) {
            f.problem(f.name(&BOTH_WAYS), "only false is supported here");
        }
        let windows = self.windows(r);
        let windowed: Vec<bool> = windows.iter().map(Option::is_some).collect();
        let alibi = self.alibi.is_some_and(|key| f.flag(&key, false));
        let turned = match alibi {
            true => vec![false; r.layers.len()],
            false => self.rope.turned(r, f.has(&WINDOW).then_some(&windowed)),
        };
        let style = if f.is_gguf() { self.gguf_rope } else { self.hf_rope };
        let ropes = turned.contains(&true).then(|| self.rope.read(r, head_dim, style));
        let rope = |layer: usize| -> Option<RopeConfig> {
            let Ropes { full, local } = ropes.as_ref().filter(|_| turned[layer])?;
            Some(local.as_ref().filter(|_| windowed[layer]).unwrap_or(full).clone())
        };
        let qk_norm = self.qk_norm.filter(|n| match n.gguf {
            Some(usual) if f.is_gguf() => f.flag(&USE_QK_NORM, usual(r)),
            _ => r.bias(n.when, "attn_q_norm.weight"),
        });
        let chunks = self.chunks(r, &turned);
        let temperature = self.temperature && f.flag(&TEMPERATURE, true);
        let temperature = temperature.then(|| Temperature {
            scale: f.float(&TEMPERATURE_SCALE, Some(0.1), 0.0, 1e3),
            floor: f.float(&TEMPERATURE_FLOOR, Some(8192.0), 1.0, 1e9),
        });
        let config = AttentionConfig {
            hidden,
            heads: most,
            kv_heads: 1,
            head_dim,
            qkv_bias: r.bias(self.qkv_bias, if self.gguf_fused { "attn_qkv.bias" } else { "attn_q.bias" }),
            out_bias: r.bias(self.out_bias, "attn_output.bias"),
            qk_norm: qk_norm.map(|n| QkNorm {
                kind: n.kind,
                eps: r.shared.eps,
                over: n.over,
                after_rope: n.after_rope,
            }),
            rope: None,
            scale: 1.0,
            softcap: self.softcap.filter(|key| f.has(key)).map(|key| f.float(&key, None, 1e-3, 1e6)),
            sinks: self.sinks.is_some(),
            causal: self.causal,
            window: None,
            chunk: None,
            clip: self.clip.filter(|key| f.has(key)).map(|key| f.float(&key, None, 1e-3, 1e9)),
            gated: self.gated,
            temperature: None,
            v_norm: self.v_norm.then_some(r.shared.eps),
            alibi,
            shared: None,
        };
        let shared = self.lenders(r, &windowed, &kv_heads);
        (0..r.layers.len())
            .map(|i| AttentionConfig {
                heads: heads[i],
                kv_heads: kv_heads[i],
                scale: self.scale(r, r.layers[i], most, head_dim),
                window: windows[i],
                chunk: chunks[i],
                qk_norm: config.qk_norm.filter(|_| turned[i] || !qk_norm.is_some_and(|n| n.only_turned)),
                rope: rope(i),
                temperature: temperature.filter(|_| !turned[i]),
                shared: shared[i],
                ..config.clone()
            })
            .collect()
    }

    fn scale(&self, r: &Reader, layer: usize, heads: usize, head_dim: usize) -> f64 {
        let f = r.f;
        let usual = 1.0 / (head_dim as f64).sqrt();
        match self.scale {
            Scale::One => 1.0,
            Scale::Field(key) => f.float(&key, Some(usual), 1e-9, 1e3),
            Scale::RootOf { key, .. } if !f.is_gguf() => 1.0 / f.float(&key, Some(head_dim as f64), 1e-6, 1e9).sqrt(),
            Scale::RootOf { wide_layers, .. } if !f.has(&SCALE) && r.shared.layers == wide_layers => {
                1.0 / (r.shared.hidden as f64 / heads as f64).sqrt()
            }
            Scale::OverLayer { off, by_layer } if !f.is_gguf() => {
                let scale = if f.flag(&off, true) { usual } else { 1.0 };
                if f.flag(&by_layer, false) { scale / (layer + 1) as f64 } else { scale }
            }
            _ => f.float(&SCALE, Some(usual), 0.0, 1e3),
        }
    }

    pub(super) fn tensors(&self, c: &AttentionConfig, specs: &mut Specs) {
        let (q, kv) = (c.heads * c.head_dim * if c.gated { 2 } else { 1 }, c.kv_heads * c.head_dim);
        for (which, bias) in [("weight", false), ("bias", true)] {
            if bias && !c.qkv_bias {
                continue;
            }
            // Where each of the three lies among the rows of all of them.
            for (i, (name, rows, heads)) in
                [("attn_q", q, Some(c.heads)), ("attn_k", kv, Some(c.kv_heads)), ("attn_v", kv, None)]
                    .into_iter()
                    .enumerate()
            {
                if i > 0 && c.shared.is_some() {
                    continue;
                }
                let first = [0, q, q + kv][i];
                let shape = |rows: usize| if bias { vec![rows] } else { vec![rows, c.hidden] };
                let gguf = format!("{name}.{which}");
                let alone = Stored::whole(&gguf, &shape(rows));
                let fused = Stored::rows(format!("attn_qkv.{which}"), &shape(q + 2 * kv), first, rows);
                let ways = if self.gguf_fused { vec![fused, alone] } else { vec![alone, fused] };
                let hf = self.stored(c, i, first, rows, which, &shape);
                let spec = specs.add_ways(&gguf, ways, vec![hf], &shape(rows), !bias);
                spec.heads = heads.filter(|_| !c.gated);
            }
        }
        let out = [c.hidden, c.heads * c.head_dim];
        let name = format!("{}.{}", self.hf, self.hf_out);
        let stored = match self.transposed {
            true => Stored::columns(format!("{name}.weight"), [out[1], out[0]], 0..out[0]),
            false => Stored::whole(format!("{name}.weight"), &out),
        };
        specs.add_stored("attn_output.weight", vec![stored], &out, true);
        if c.out_bias {
            specs.add("attn_output.bias", &[&format!("{name}.bias")], &[c.hidden], false);
        }
        if let (Some(n), Some(row)) = (&c.qk_norm, self.qk_norm) {
            for (name, hf, heads) in [("attn_q_norm", row.hf[0], c.heads), ("attn_k_norm", row.hf[1], c.kv_heads)] {
                if name == "attn_k_norm" && c.shared.is_some() {
                    continue;
                }
                let at = specs.list.len();
                let hf = format!("{}.{hf}", self.hf);
                specs.norm(name, &[&hf], &n.over.shape(heads, c.head_dim), n.kind);
                // Rows of the norms lie in the order of a head as well.
                let heads = if n.over == Over::Head { 1 } else { heads };
                specs.list[at..].iter_mut().for_each(|spec| spec.heads = Some(heads));
            }
        }
        if let (true, Some(name)) = (c.sinks, self.sinks) {
            specs.add("attn_sinks.weight", &[&format!("{}.{name}", self.hf)], &[c.heads], false);
        }
    }

    /// How a Hugging Face checkpoint holds queries (0), keys (1) or values (2).
    fn stored(
        &self,
        c: &AttentionConfig,
        which: usize,
        first: usize,
        rows: usize,
        what: &str,
        shape: &dyn Fn(usize) -> Vec<usize>,
    ) -> Stored {
        let group = c.heads / c.kv_heads;
        let all = (c.heads * if c.gated { 2 } else { 1 } + 2 * c.kv_heads) * c.head_dim;
        let name = |name: &str| format!("{}.{name}.{what}", self.hf);
        match self.fused {
            Fused::Split(names) => Stored::whole(name(names[which]), &shape(rows)),
            Fused::Joined(fused) if self.transposed && what == "weight" => {
                Stored::columns(name(fused), [c.hidden, all], first..first + rows)
            }
            Fused::Joined(fused) => Stored::rows(name(fused), &shape(all), first, rows),
            Fused::Grouped(fused) => {
                let (before, heads) = [(0, group), (group, 1), (group + 1, 1)][which];
                let (first, len) = (before * c.head_dim, heads * c.head_dim);
                Stored::strided(name(fused), &shape(all), first, len, (group + 2) * c.head_dim, c.kv_heads)
            }
        }
    }

    pub(super) fn write(&self, layers: &[(usize, &AttentionConfig)], keys: &mut Keys) -> Result<(), String> {
        let Some((_, first)) = layers.first() else { return Ok(()) };
        let alike = layers.iter().all(|(_, c)| c.heads == first.heads);
        if alike {
            keys.set("attention.head_count", first.heads as u32);
        }
        for (i, c) in layers {
            if !alike {
                keys.set_layer("attention.head_count", *i, c.heads);
            }
            keys.set_layer("attention.head_count_kv", *i, c.kv_heads);
        }
        keys.set("attention.key_length", first.head_dim as u32);
        keys.set("attention.value_length", first.head_dim as u32);
        if layers.iter().any(|(_, c)| c.scale != first.scale) {
            return Err("scores with a factor of each layer have no place in a GGUF file".into());
        }
        if first.alibi {
            return Err("ALiBi has no place in a GGUF file of this architecture".into());
        }
        if let Some(Key { gguf: [key, ..], .. }) = self.shared {
            keys.set(key, layers.iter().filter(|(_, c)| c.shared.is_some()).count() as u32);
        }
        if !matches!(self.scale, Scale::One) && (first.scale * (first.head_dim as f64).sqrt() - 1.0).abs() > 1e-6 {
            let key = match self.scale {
                Scale::Field(Key { gguf: [key, ..], .. }) => key,
                _ => "attention.scale",
            };
            keys.set(key, first.scale as f32);
        }
        for (cap, key) in [(first.softcap, self.softcap), (first.clip, self.clip)] {
            if let (Some(cap), Some(Key { gguf: [key, ..], .. })) = (cap, key) {
                keys.set(key, cap as f32);
            }
        }
        self.write_chunks(layers, keys)?;
        if self.temperature && layers.iter().all(|(_, c)| c.temperature.is_none()) {
            keys.set("attention.temperature_scale", 0f32);
        }
        if let Some(t) = layers.iter().find_map(|(_, c)| c.temperature) {
            keys.set("attention.temperature_scale", t.scale as f32);
            keys.set("attention.temperature_length", t.floor as u32);
        }
        self.write_windows(layers, keys)?;
        let turned = |windowed: Option<bool>| {
            let fits = |c: &AttentionConfig| windowed.is_none_or(|w| c.window.is_some() == w);
            layers.iter().filter(|(_, c)| fits(c)).find_map(|(_, c)| c.rope.as_ref())
        };
        match self.rope.local {
            Some(LocalRope { theta: Key { gguf: [key, ..], .. }, .. }) => {
                if let Some(rope) = turned(Some(false)).or(turned(None)) {
                    rope::write(&self.rope, rope, keys)?;
                }
                if let Some(rope) = turned(Some(true)) {
                    if rope.scaling != RopeScaling::None {
                        return Err("stretched wavelengths of layers with a window have no place in a GGUF file".into());
                    }
                    keys.set(key, rope.theta as f32);
                }
            }
            _ => {
                if let Some(rope) = turned(None) {
                    rope::write(&self.rope, rope, keys)?;
                }
            }
        }
        Ok(())
    }

    /// Readers of the format take for granted which layers turn queries and keys, and that those have chunks and norms.
    fn write_chunks(&self, layers: &[(usize, &AttentionConfig)], keys: &mut Keys) -> Result<(), String> {
        let turned = |c: &AttentionConfig| c.rope.is_some();
        if let Turned::AllButEach(n) = self.rope.turned
            && layers.iter().any(|(i, c)| turned(c) == (i + 1).is_multiple_of(n))
        {
            return Err("which layers turn queries and keys has no place in a GGUF file".into());
        }
        if matches!(self.rope.turned, Turned::Named) {
            keys.set("rope.scaling.finetuned", layers.iter().any(|(_, c)| turned(c)));
        }
        if matches!(self.window, Window::Chunked) {
            if layers.iter().any(|(_, c)| c.chunk.is_some() != turned(c)) {
                return Err("which layers have chunks has no place in a GGUF file".into());
            }
            if let Some(chunk) = layers.iter().find_map(|(_, c)| c.chunk).filter(|&chunk| chunk != CHUNK_SIZE) {
                keys.set("attention.chunk_size", chunk as u32);
            }
        }
        if self.qk_norm.is_some_and(|n| n.gguf.is_some()) {
            keys.set("attention.use_qk_norm", layers.iter().any(|(_, c)| c.qk_norm.is_some()));
        }
        Ok(())
    }

    fn write_windows(&self, layers: &[(usize, &AttentionConfig)], keys: &mut Keys) -> Result<(), String> {
        let Some(window) = layers.iter().find_map(|(_, c)| c.window) else {
            return match self.rope.turned {
                Turned::Windowed if layers.iter().any(|(_, c)| c.rope.is_none()) => {
                    Err("that no layer turns queries and keys has no place in a GGUF file".into())
                }
                _ => Ok(()),
            };
        };
        let window = if self.causal { window } else { 2 * (window - 1) };
        keys.set("attention.sliding_window", window.min(u32::MAX as usize) as u32);
        let sliding = |i: usize| layers.iter().any(|(at, c)| *at == i && c.window.is_some());
        if layers.iter().all(|(_, c)| c.window.is_some()) && !matches!(self.window, Window::Pattern { .. }) {
            return Ok(());
        }
        let Window::Pattern { period, full } = self.window else {
            return Err("attention windows on some layers only have no place in a GGUF file".into());
        };
        if layers.iter().any(|(i, _)| sliding(*i) != (i % period != full)) {
            let last = layers.iter().map(|(i, _)| *i).max().unwrap_or(0);
            let flags: Vec<bool> = (0..=last).map(sliding).collect();
            keys.set("attention.sliding_window_pattern", flags);
        }
        Ok(())
    }
}
