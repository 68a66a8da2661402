use std::path::Path;

use imaginal_files::Gguf;
use imaginal_files::gguf::{Metadata, Value};
use imaginal_nn::{AttentionConfig, NormKind, Over, RopeScaling};
use serde_json::Value as Json;

use crate::arch::{Arch, Factor, NormName, SubLayer};
use crate::blocks::{BlockConfig, BlockRow, Keys, Reader, StreamsConfig};
use crate::fields::{Fields, Key, Source};
use crate::recognise::{self, unknown};
use crate::tensors::{Arrange, Map, Specs, TensorSpec};
use crate::{Error, Problem, Result};

/// Widest layer that is believed.
pub(crate) const WIDTH: usize = 1 << 24;
const MOST_LAYERS: usize = 1 << 12;
const MOST_TOKENS: usize = 1 << 24;
pub(crate) const LONGEST: usize = 1 << 30;

const HIDDEN: Key = Key::new(&["embedding_length"], &["hidden_size", "d_model", "n_embd", "embedding_dim"]);
const LAYERS: Key =
    Key::new(&["block_count"], &["num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks"]);
const CONTEXT: Key = Key::new(
    &["context_length"],
    &["max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length"],
);
const RMS_EPS: Key = Key::new(
    &["attention.layer_norm_rms_epsilon"],
    &["rms_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon"],
);
const LAYER_EPS: Key = Key::new(
    &["attention.layer_norm_epsilon"],
    &["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps", "layernorm_epsilon"],
);
const VOCAB: Key = Key::new(&["vocab_size"], &["vocab_size"]);
/// Layers after the last that predict further tokens (DeepSeek V3); they are left out.
const PREDICTORS: Key = Key::new(&["nextn_predict_layers"], &["num_nextn_predict_layers"]);
const QUANTIZATION: Key = Key::new(&[], &["quantization_config.quant_method"]);
const FP8_BLOCK: Key = Key::new(&[], &["quantization_config.weight_block_size"]);
pub(crate) const TIED: Key = Key::new(&[], &["tie_embedding", "tie_word_embeddings", "tie_embeddings"]);
/// In the layout of `mamba_ssm`, of which the embedding has a multiple of rows.
const PADDED: Key = Key::new(&[], &["pad_vocab_size_multiple"]);

/// What the blocks of a layer share.
pub(crate) struct Shared {
    pub hidden: usize,
    pub layers: usize,
    pub eps: f64,
    pub context: usize,
}

/// A tensor that a GGUF file has and the model has not.
pub(crate) struct Extra {
    pub name: String,
    pub shape: Vec<usize>,
    /// Zeros, if there are none.
    pub values: Option<Vec<f32>>,
}

type Present<'a> = &'a dyn Fn(usize, &str) -> bool;
type Floats<'a> = &'a dyn Fn(&str) -> Option<Vec<f32>>;
/// How many rows a matrix has before those at its end that are zero.
type Rows<'a> = &'a dyn Fn(&str) -> Option<usize>;
type Shape<'a> = &'a dyn Fn(usize, &str) -> Option<Vec<usize>>;

/// Factors between embedding and logits.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelScales {
    /// Of embeddings.
    pub embedding: f64,
    /// Of what a block adds to the residual stream.
    pub residual: f64,
    /// Of logits.
    pub logits: f64,
    /// Logits x become `cap · tanh(x / cap)`.
    pub softcap: Option<f64>,
    /// After how many layers the residual stream is halved, each time.
    pub halved: Option<usize>,
}

/// Factors of the sum that a block leaves: see [`crate::arch::MixRow`].
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Mix {
    /// Of what the block has read, after its norm.
    pub read: f64,
    /// Of the block's result.
    pub result: f64,
}

/// Everything about a model but its values: checked, so that a model can be built from it.
#[derive(Clone, Debug)]
pub struct Config {
    arch: &'static Arch,
    name: Option<String>,
    stands_for: Option<String>,
    vocab: usize,
    hidden: usize,
    context: usize,
    eps: f64,
    tied: bool,
    scales: ModelScales,
    layout: &'static [SubLayer],
    streams: Option<StreamsConfig>,
    /// What a Hugging Face checkpoint has tensors multiplied with when they are used: ends of names, and factors.
    hf_factors: Vec<(&'static str, Vec<f64>)>,
    layers: Vec<Vec<BlockConfig>>,
    mixes: Vec<Vec<Option<Mix>>>,
    predictors: usize,
    fp8_blocks: Option<[usize; 2]>,
}

impl Config {
    /// The configuration of a fresh model. `settings` are the fields of a `config.json`, of which only those without a
    /// default are needed: `hidden_size`, `num_hidden_layers`, `vocab_size`, and what the blocks ask for.
    ///
    /// # Errors
    /// [`Error::Architecture`] or [`Error::Config`], with `settings` for a path.
    pub fn build(arch: &str, settings: &Json) -> Result<Config> {
        let path = Path::new("settings");
        let row = Arch::by_name(arch).ok_or_else(|| unknown(path, "architecture", arch))?;
        Ok(Config::of_hf(row, settings, path, &|_| None)?.in_gguf_order())
    }

    /// The configuration in a `config.json`.
    ///
    /// # Errors
    /// [`Error::Architecture`] or [`Error::Config`].
    pub fn from_hf(json: &Json, path: &Path) -> Result<Config> {
        Config::from_hf_beside(json, path, &|_| None)
    }

    /// [`Config::from_hf`] with the shapes of the tensors beside it by their names, which say what some fail to.
    pub(crate) fn from_hf_beside(
        json: &Json,
        path: &Path,
        shapes: &dyn Fn(&str) -> Option<Vec<usize>>,
    ) -> Result<Config> {
        // A model with several towers has the language model's fields in an object of their own.
        let inner = ["text_config", "llm_config", "language_config"].iter().find_map(|key| json.get(key)?.as_object());
        if let Some(inner) = inner {
            let mut all = inner.clone();
            for (key, value) in json
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(key, value)| !value.is_object() || key.as_str() == "quantization_config")
            {
                all.entry(key.clone()).or_insert_with(|| value.clone());
            }
            return Config::from_hf_beside(&Json::Object(all), path, shapes);
        }
        let class = || json.get("architectures").and_then(|a| a.get(0)).and_then(Json::as_str);
        // What is saved by `mamba_ssm` has neither.
        let layer = || json.get("ssm_cfg").and_then(|c| c.get("layer")).and_then(Json::as_str);
        let named = json.get("model_type").and_then(Json::as_str).or_else(class).or_else(layer);
        let Some(name) = named else {
            let problem = Problem { field: "model_type".into(), what: "missing, or not a string".into() };
            return Err(Error::Config { path: path.to_path_buf(), problems: vec![problem] });
        };
        let row = Arch::by_hf(name, json).ok_or_else(|| unknown(path, "model_type", name))?;
        Config::of_hf(row, json, path, shapes)
    }

    /// The configuration in a `config.json`, read as that of this row.
    pub(crate) fn of_hf(
        arch: &'static Arch,
        json: &Json,
        path: &Path,
        shapes: &dyn Fn(&str) -> Option<Vec<usize>>,
    ) -> Result<Config> {
        let fields = Fields::new(Source::Hf(json), path);
        let fp8_blocks = quantization(&fields);
        let tied = fields.flag(&TIED, arch.tied);
        let mut vocab = fields.size(&VOCAB, None, MOST_TOKENS);
        if fields.has_hf("ssm_cfg") {
            vocab = vocab.next_multiple_of(fields.size(&PADDED, Some(8), MOST_TOKENS));
        }
        let shape = |layer: usize, name: &str| shapes(&format!("{}.{layer}.{name}", arch.outside.layers));
        let config = Config::assemble(arch, fields, vocab, tied, (&|_, _| false, &|_| None, &|_| None, &shape))?;
        Ok(Config { fp8_blocks, ..config })
    }

    /// The configuration of a GGUF file. An architecture that is not in the table is taken for a row whose fields and tensors
    /// the file has (see [`Config::stands_for`]).
    ///
    /// # Errors
    /// [`Error::Architecture`], [`Error::Config`], or an error of the file.
    pub fn from_gguf(gguf: &Gguf) -> Result<Config> {
        let name: String = gguf.metadata().require("general.architecture")?;
        match Arch::by_name(&name) {
            Some(arch) => Config::of_gguf(arch, gguf, &name),
            None => recognise::from_gguf(gguf, &name),
        }
    }

    /// The configuration of a GGUF file, read as that of this row; its keys begin with `name`.
    pub(crate) fn of_gguf(arch: &'static Arch, gguf: &Gguf, name: &str) -> Result<Config> {
        let (metadata, path): (&Metadata, &Path) = (gguf.metadata(), gguf.path());
        let fields = Fields::new(Source::Gguf(metadata, name), path);
        let floats = |name: &str| {
            let tensor = gguf.find(name).filter(|t| t.elem_count() <= WIDTH)?;
            let mut values = vec![0f32; tensor.elem_count()];
            tensor.format.decode(&tensor.bytes, &mut values).ok()?;
            Some(values)
        };
        let nonzero = |name: &str| {
            let tensor = gguf.find(name)?;
            let [rows, cols] = tensor.shape[..] else { return None };
            let bytes = tensor.format.bytes_for(cols).filter(|&bytes| bytes > 0 && cols <= WIDTH)?;
            let mut values = vec![0f32; cols];
            let mut zero =
                |row: &[u8]| tensor.format.decode(row, &mut values).is_ok() && values.iter().all(|&x| x == 0.0);
            let empty = tensor.bytes.rchunks_exact(bytes).take_while(|row| zero(row)).count();
            Some(rows.saturating_sub(empty).max(1))
        };
        let rows = gguf.find("token_embd.weight").and_then(|t| t.shape.first().copied());
        let vocab = fields.size(&VOCAB, rows, MOST_TOKENS);
        let tied = gguf.find("output.weight").is_none();
        let present = |layer: usize, tensor: &str| gguf.find(&format!("blk.{layer}.{tensor}")).is_some();
        let config = Config::assemble(arch, fields, vocab, tied, (&present, &floats, &nonzero, &|_, _| None))?;
        let name = metadata.get_as::<String>("general.name")?;
        Ok(Config { name, ..config })
    }

    fn assemble(
        arch: &'static Arch,
        fields: Fields,
        vocab: usize,
        tied: bool,
        (present, floats, rows, shape): (Present, Floats, Rows, Shape),
    ) -> Result<Config> {
        let hf = |x: f64| (!fields.is_gguf()).then_some(x);
        let hidden = fields.size(&HIDDEN, None, WIDTH);
        let predictors = fields.size_from(&PREDICTORS, Some(0), 0, MOST_LAYERS);
        let mut count = fields.size(&LAYERS, None, MOST_LAYERS);
        if fields.is_gguf() {
            // There they count as layers.
            count = count.saturating_sub(predictors).max(1);
        }
        let shared = Shared {
            hidden,
            layers: count,
            eps: fields.float(eps_key(arch), hf(arch.eps), 0.0, 1.0),
            context: fields.size(&CONTEXT, (!fields.is_gguf()).then_some(arch.context), LONGEST),
        };
        let factor = |factor: &Factor| match factor {
            Factor::One => 1.0,
            Factor::SqrtWidth => (hidden as f64).sqrt(),
            Factor::Times(key) => fields.float(key, Some(1.0), -1e6, 1e6),
            Factor::IfTied(key) if tied => fields.float(key, Some(1.0), -1e6, 1e6),
            Factor::IfTied(_) => 1.0,
            Factor::Over(key) => 1.0 / fields.float(key, Some(1.0), 1e-9, 1e6),
        };
        let scales = ModelScales {
            embedding: factor(&arch.scales.embedding),
            residual: factor(&arch.scales.residual),
            logits: factor(&arch.scales.logits),
            softcap: match arch.scales.usual_softcap.filter(|_| !fields.is_gguf()) {
                Some(usual) => arch.scales.softcap.map(|k| fields.float(&k, Some(usual), 1e-3, 1e6)),
                None => arch.scales.softcap.filter(|k| fields.has(k)).map(|k| fields.float(&k, None, 1e-3, 1e6)),
            },
            halved: {
                let every = arch.scales.halved.map(|k| fields.size_from(&k, Some(0), 0, MOST_LAYERS));
                every.filter(|&every| every > 0)
            },
        };
        let all: Vec<usize> = (0..shared.layers).collect();
        let reader = Reader { f: &fields, shared: &shared, present, floats, rows, shape, layers: &all };
        let variant = arch.variants.iter().find(|v| (v.when)(&reader));
        let layout = variant.map_or(arch.layer, |v| v.layer);
        let mut layers = vec![Vec::new(); shared.layers];
        let mut mixes = vec![Vec::new(); shared.layers];
        for sub in layout {
            for (i, block) in sub.block.read(&reader).into_iter().enumerate() {
                let factor = |key: &Key| fields.float(key, Some(1.0), -1e6, 1e6);
                let keys = sub.mix.and_then(|mix| mix.factors.get(sub.block.number(&block)));
                mixes[i].push(keys.map(|[read, result]| Mix { read: factor(read), result: factor(result) }));
                layers[i].push(block);
            }
        }
        let streams = arch.streams.then(|| StreamsConfig::read(&reader, vocab));
        let Shared { hidden, eps, context, .. } = shared;
        let hf_factors =
            arch.hf_factors.filter(|_| !fields.is_gguf()).map_or_else(Vec::new, |factors| factors(&fields));
        fields.finish()?;
        let fp8_blocks = None;
        Ok(Config {
            arch,
            name: None,
            stands_for: None,
            vocab,
            hidden,
            context,
            eps,
            tied,
            scales,
            layout,
            streams,
            hf_factors,
            layers,
            mixes,
            predictors,
            fp8_blocks,
        })
    }

    /// The row of the table.
    pub fn arch(&self) -> &'static Arch {
        self.arch
    }

    /// The model's name, if its file has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The same with a name, which is written into files.
    pub fn with_name(mut self, name: impl Into<String>) -> Config {
        self.name = Some(name.into());
        self
    }

    /// What the file calls the architecture, if that is not in the table: the model is computed as one of
    /// [`Config::arch`], whose fields and tensors it has.
    pub fn stands_for(&self) -> Option<&str> {
        self.stands_for.as_deref()
    }

    pub(crate) fn standing_for(mut self, name: &str) -> Config {
        self.stands_for = Some(name.to_owned());
        self
    }

    /// Number of tokens.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Width of the residual stream.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// How many tokens the model was made for.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Epsilon of the norms.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// Whether the output head is the embedding.
    pub fn tied(&self) -> bool {
        self.tied
    }

    /// Factors between embedding and logits.
    pub fn scales(&self) -> &ModelScales {
        &self.scales
    }

    /// How the blocks of a layer are arranged.
    pub fn layout(&self) -> &'static [SubLayer] {
        self.layout
    }

    /// The streams around the layers, where there are several.
    pub fn streams(&self) -> Option<&StreamsConfig> {
        self.streams.as_ref()
    }

    /// The blocks, layer by layer.
    pub fn layers(&self) -> &[Vec<BlockConfig>] {
        &self.layers
    }

    /// How the results of the blocks join the residual stream, layer by layer; `None` where they are added.
    pub fn mixes(&self) -> &[Vec<Option<Mix>>] {
        &self.mixes
    }

    /// Whether a tensor belongs to a layer after the last, whose names begin with `layers` and its number.
    pub(crate) fn is_predictor(&self, layers: &str, name: &str) -> bool {
        let number = name.strip_prefix(layers).and_then(|n| n.strip_prefix('.')?.split('.').next()?.parse().ok());
        let further = self.layers.len()..self.layers.len() + self.predictors;
        number.is_some_and(|n: usize| further.contains(&n))
    }

    /// Whether a tensor of a Hugging Face checkpoint is for keys and values of a layer that has those of another.
    pub(crate) fn is_unused(&self, name: &str) -> bool {
        let inner = name.strip_prefix(self.arch.outside.layers).and_then(|n| n.strip_prefix('.'));
        let Some((layer, rest)) = inner.and_then(|n| n.split_once('.')) else { return false };
        let layer = layer.parse().ok().and_then(|layer: usize| self.layers.get(layer));
        layer.into_iter().flatten().zip(self.layout).any(|(block, sub)| match (sub.block.of(block), block) {
            (BlockRow::Attention(row), BlockConfig::Attention(c)) => {
                row.unused(c).iter().any(|start| rest.starts_with(start))
            }
            _ => false,
        })
    }

    /// Rows and columns that share a scale in a checkpoint whose matrices are in FP8.
    pub(crate) fn fp8_blocks(&self) -> Option<[usize; 2]> {
        self.fp8_blocks
    }

    /// Whether the model forgets nothing but is slowed by the length of its context: it has attention.
    pub fn has_attention(&self) -> bool {
        self.layers
            .iter()
            .flatten()
            .any(|b| matches!(b, BlockConfig::Attention(_) | BlockConfig::Mla(_) | BlockConfig::Shared(_)))
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        let count = |shape: &[usize]| shape.iter().fold(1usize, |n, &d| n.saturating_mul(d));
        self.tensors().iter().fold(0usize, |n, t| n.saturating_add(count(&t.shape)))
    }

    /// All tensors of the model, in the order of a file.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let Arch { outside, embedding, norm, .. } = self.arch;
        let mut specs = Specs::new();
        specs.norms_less_one = self.arch.norm_less_one;
        specs.add("token_embd.weight", outside.embedding, &[self.vocab, self.hidden], true);
        if let Some(positions) = embedding.positions {
            specs.add("position_embd.weight", &[positions.hf], &[self.context, self.hidden], true);
        }
        if let Some(n) = embedding.norm {
            specs.norm(n.gguf, &[n.hf], &[self.hidden], *norm);
        }
        if let Some(streams) = &self.streams {
            streams.tensors(self.vocab, &mut specs);
        }
        for (i, layer) in self.layers.iter().enumerate() {
            specs.within(format!("blk.{i}"), format!("{}.{i}", outside.layers));
            if let Some(streams) = &self.streams {
                streams.layer_tensors(&mut specs);
            }
            for (sub, block) in self.layout.iter().zip(layer) {
                let add = |specs: &mut Specs, name: &'static Option<NormName>| {
                    if let Some(n) = NormName::in_layer(name, i) {
                        specs.norm(n.gguf, &[n.hf], &[self.hidden], n.kind.unwrap_or(*norm));
                    }
                };
                add(&mut specs, &sub.norm);
                sub.block.tensors(block, &mut specs);
                add(&mut specs, &sub.post_norm);
                add(&mut specs, &sub.sum_norm);
            }
        }
        specs.within(String::new(), String::new());
        if !outside.norm.is_empty() {
            specs.norm(outside.gguf_norm, outside.norm, &[self.hidden], *norm);
        }
        if !self.tied {
            specs.add("output.weight", outside.head, &[self.vocab, self.hidden], true);
        }
        if !outside.head_bias.is_empty() {
            specs.add("output.bias", outside.head_bias, &[self.vocab], false);
        }
        for (end, factors) in &self.hf_factors {
            for spec in specs.list.iter_mut().filter(|spec| spec.name.ends_with(end)) {
                match factors.as_slice() {
                    [factor] => spec.hf_map = Map::Times(*factor),
                    factors => self.scale_rows(spec, factors),
                }
            }
        }
        specs.list
    }

    /// The input projection of a state space of heads has a factor for each of its parts.
    fn scale_rows(&self, spec: &mut TensorSpec, factors: &[f64]) {
        let mamba = self.layers.iter().flatten().find_map(|block| match block {
            BlockConfig::Mamba2(c) => Some(c),
            _ => None,
        });
        let Some(c) = mamba else { return };
        let parts = [c.inner, c.inner, c.groups * c.state, c.groups * c.state, c.heads];
        let rows: Vec<(usize, f64)> = parts.into_iter().zip(factors.iter().copied()).collect();
        spec.hf.iter_mut().for_each(|way| way.arrange = Some(Arrange::Scaled(rows.clone())));
    }

    /// The same model with the rows of queries and keys, and value heads, in the order of GGUF files.
    pub(crate) fn in_gguf_order(mut self) -> Config {
        for layer in &mut self.layers {
            for (sub, block) in self.layout.iter().zip(layer) {
                match (sub.block.of(block), block) {
                    (BlockRow::Attention(row), BlockConfig::Attention(AttentionConfig { rope: Some(rope), .. })) => {
                        rope.style = row.gguf_rope;
                    }
                    (BlockRow::DeltaNet(row), BlockConfig::DeltaNet(c)) => c.order = row.gguf_order,
                    _ => {}
                }
            }
        }
        self
    }

    /// The model's metadata in a GGUF file, without that of the tokenizer.
    ///
    /// # Errors
    /// [`Error::Argument`] if the format has no place for something.
    pub fn to_gguf(&self) -> Result<Vec<(String, Value)>> {
        let mut keys = Keys::new(self.layers.len(), self.eps);
        keys.set("context_length", self.context.min(u32::MAX as usize) as u32);
        keys.set("embedding_length", self.hidden as u32);
        keys.set("block_count", self.layers.len() as u32);
        keys.set("vocab_size", self.vocab as u32);
        for key in eps_key(self.arch).gguf {
            keys.set(key, self.eps as f32);
        }
        let Arch { scales: row, .. } = self.arch;
        for (factor, value) in [
            (row.embedding, self.scales.embedding),
            (row.residual, self.scales.residual),
            (row.logits, self.scales.logits),
        ] {
            match factor {
                // Other programs would compute without it.
                Factor::IfTied(_) | Factor::Times(Key { gguf: [], .. }) | Factor::Over(Key { gguf: [], .. })
                    if value != 1.0 =>
                {
                    let what = "factors of embeddings and logits have no place in a GGUF file of this architecture";
                    return Err(Error::Argument(what.into()));
                }
                Factor::Times(Key { gguf: [key, ..], .. }) => keys.set(key, value as f32),
                Factor::Over(Key { gguf: [key, ..], .. }) => keys.set(key, (1.0 / value) as f32),
                _ => {}
            }
        }
        let mut mixes = self.mixes.iter().flatten().flatten();
        if let Some(first) = mixes.next() {
            if first.result != 1.0 || mixes.any(|mix| mix != first) {
                let what = "factors of single blocks in the residual stream have no place in a GGUF file";
                return Err(Error::Argument(what.into()));
            }
            keys.set("residual_scale", first.read as f32);
        }
        if let (Some(Key { gguf: [key, ..], .. }), Some(cap)) = (row.softcap, self.scales.softcap) {
            keys.set(key, cap as f32);
        }
        if let (Some(Key { gguf: [key, ..], .. }), Some(every)) = (row.halved, self.scales.halved) {
            keys.set(key, every as u32);
        }
        if let Some(streams) = &self.streams {
            streams.write(&mut keys).map_err(Error::Argument)?;
        }
        for (at, sub) in self.layout.iter().enumerate() {
            let blocks: Vec<(usize, &BlockConfig)> =
                self.layers.iter().enumerate().filter_map(|(i, l)| Some((i, l.get(at)?))).collect();
            sub.block.write(&blocks, &mut keys).map_err(Error::Argument)?;
        }
        // Readers of the format ask for the keys of attention and feed-forward of every model.
        for key in ["feed_forward_length", "attention.head_count"] {
            if !keys.has(key) {
                keys.set(key, 0u32);
            }
        }
        for variant in self.arch.variants {
            if let Some((Key { gguf: [key, ..], .. }, value)) = variant.key {
                keys.set(key, value == std::ptr::eq(variant.layer, self.layout));
            }
        }
        let mut all = vec![("general.architecture".to_owned(), Value::from(self.arch.name))];
        if let Some(name) = &self.name {
            all.push(("general.name".into(), name.clone().into()));
        }
        all.extend(keys.into_values().map(|(key, value)| (format!("{}.{key}", self.arch.name), value)));
        Ok(all)
    }

    /// Tensors that a GGUF file has and the model has not.
    pub(crate) fn gguf_extras(&self) -> Vec<Extra> {
        let mut extras = Vec::new();
        let vector = |name: &str, values: &[f32]| {
            let (shape, values) = (vec![values.len()], Some(values.to_vec()));
            Extra { name: name.to_owned(), shape, values }
        };
        let rope = self.layers.iter().flatten().find_map(|b| match b {
            BlockConfig::Attention(c) => c.rope.as_ref(),
            _ => None,
        });
        match rope.map(|rope| &rope.scaling) {
            Some(RopeScaling::Factors(factors)) => extras.push(vector("rope_freqs.weight", factors)),
            Some(RopeScaling::Long { short, long, .. }) => {
                extras.push(vector("rope_factors_short.weight", short));
                extras.push(vector("rope_factors_long.weight", long));
            }
            _ => {}
        }
        for (i, layer) in self.layers.iter().enumerate() {
            for block in layer {
                match block {
                    // The format knows no Mamba without this bias.
                    BlockConfig::Mamba(c) if !c.conv_bias => {
                        extras.push(Extra {
                            name: format!("blk.{i}.ssm_conv1d.bias"),
                            shape: vec![c.inner],
                            values: None,
                        });
                    }
                    // Nor a first layer of RWKV-7 without a share of its own values.
                    BlockConfig::Rwkv7(c) if c.value_rank.is_none() => {
                        let shapes = [vec![c.hidden], vec![c.rate_rank, c.hidden], vec![c.hidden, c.rate_rank]];
                        extras.extend(shapes.into_iter().enumerate().map(|(n, shape)| Extra {
                            name: format!("blk.{i}.time_mix_v{n}.weight"),
                            shape,
                            values: None,
                        }));
                    }
                    // Nor layers without keys and values; it does not use them.
                    BlockConfig::Attention(c) if c.shared.is_some() => {
                        let matrix = vec![c.kv_heads * c.head_dim, c.hidden];
                        let mut add = |name: &str, shape| {
                            extras.push(Extra { name: format!("blk.{i}.{name}.weight"), shape, values: None });
                        };
                        add("attn_k", matrix.clone());
                        add("attn_v", matrix);
                        if c.qk_norm.is_some_and(|n| n.over == Over::Head) {
                            add("attn_k_norm", vec![c.head_dim]);
                        }
                    }
                    _ => {}
                }
            }
            if let Some(streams) = self.streams.as_ref().filter(|s| !s.inputs.scaled) {
                let hidden = streams.altup.hidden;
                let (name, values) = (format!("blk.{i}.altup_correct_scale.weight"), Some(vec![1.0; hidden]));
                extras.push(Extra { name, shape: vec![hidden], values });
            }
        }
        extras
    }
}

/// How the matrices of a checkpoint are quantized: the size of a block, if it is FP8.
fn quantization(fields: &Fields) -> Option<[usize; 2]> {
    if !fields.has_hf("quantization_config") {
        return None;
    }
    match fields.text(&QUANTIZATION).as_deref() {
        Some("mxfp4") => None,
        Some("fp8") => {
            let sizes = fields.sizes(&FP8_BLOCK);
            let block = <[usize; 2]>::try_from(sizes).ok().filter(|sizes| !sizes.contains(&0));
            if block.is_none() {
                fields.problem(fields.name(&FP8_BLOCK), "not the rows and columns of a block");
            }
            block
        }
        other => {
            let method = other.unwrap_or("this one");
            let what = format!("{method} is not supported, only fp8 and mxfp4 are; use a GGUF file");
            fields.problem("quantization_config", what);
            None
        }
    }
}

/// Where the epsilon of the norms stands.
fn eps_key(arch: &Arch) -> &'static Key {
    match arch.norm {
        NormKind::Rms | NormKind::RmsUnit | NormKind::RmsBias => &RMS_EPS,
        NormKind::Layer | NormKind::LayerNoBias | NormKind::LayerUnit => &LAYER_EPS,
    }
}
