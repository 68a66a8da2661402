//! Configurations from the fields of a `config.json` or of GGUF metadata.

use std::path::Path;

use imaginal_files::Gguf;
use imaginal_files::gguf::Metadata;
use imaginal_nn::NormKind;
use serde_json::Value as Json;

use super::{Config, LONGEST, Mix, ModelScales, Shared, TIED, WIDTH, eps_key};
use crate::arch::{Arch, Factor};
use crate::blocks::{Reader, StreamsConfig, Tensors};
use crate::fields::{Fields, Key, Source};
use crate::heads::HeadConfig;
use crate::pooling::{Pooling, PoolingKind};
use crate::recognise::{self, unknown};
use crate::{Error, Problem, Result};

const MOST_LAYERS: usize = 1 << 12;
const MOST_TOKENS: usize = 1 << 24;
const HIDDEN: Key = Key::new(&["embedding_length"], &["hidden_size", "d_model", "n_embd", "embedding_dim"]);
const LAYERS: Key =
    Key::new(&["block_count"], &["num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks"]);
const KINDS: Key = Key::new(&[], &["layers_block_type", "layer_types"]);
const PATTERN: Key = Key::new(&[], &["hybrid_override_pattern"]);
const CONTEXT: Key = Key::new(
    &["context_length"],
    &["max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length"],
);
const VOCAB: Key = Key::new(&["vocab_size"], &["vocab_size"]);
/// Layers after the last that predict further tokens (DeepSeek V3); they are left out.
const PREDICTORS: Key = Key::new(&["nextn_predict_layers"], &["num_nextn_predict_layers"]);
const QUANTIZATION: Key = Key::new(&[], &["quantization_config.quant_method"]);
const FP8_BLOCK: Key = Key::new(&[], &["quantization_config.weight_block_size"]);
/// In the layout of `mamba_ssm`, of which the embedding has a multiple of rows.
const PADDED: Key = Key::new(&[], &["pad_vocab_size_multiple"]);

const TYPES: Key = Key::new(&[], &["type_vocab_size"]);
const POOLING: Key = Key::new(&["pooling_type"], &[]);
/// The id of padding, after which RoBERTa's positions begin.
const PADDING: Key = Key::new(&[], &["pad_token_id"]);
const MOST_TYPES: usize = 1 << 16;

impl Config {
    /// The configuration of a fresh model. `settings` are the fields of a `config.json`, of which only those without a
    /// default are needed: `hidden_size`, `num_hidden_layers`, `vocab_size`, and what the blocks ask for.
    ///
    /// # Errors
    /// [`Error::Architecture`] or [`Error::Config`], with `settings` for a path.
    pub fn build(arch: &str, settings: &Json) -> Result<Config> {
        let path = Path::new("settings");
        let row = Arch::by_name(arch).ok_or_else(|| unknown(path, "architecture", arch))?;
        Ok(Config::of_hf(row, settings, None, path, Tensors::NONE)?.in_gguf_order())
    }

    /// The configuration in a `config.json`.
    ///
    /// # Errors
    /// [`Error::Architecture`] or [`Error::Config`].
    pub fn from_hf(json: &Json, path: &Path) -> Result<Config> {
        Config::from_hf_beside(json, path, Tensors::NONE)
    }

    /// [`Config::from_hf`] with the tensors beside it.
    pub(crate) fn from_hf_beside(json: &Json, path: &Path, tensors: Tensors) -> Result<Config> {
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
            return Config::from_hf_beside(&Json::Object(all), path, tensors);
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
        Config::of_hf(row, json, row.class_defaults(name), path, tensors)
    }

    /// The configuration in a `config.json`, read as that of this row; `usual` is what its class takes for granted.
    pub(crate) fn of_hf(
        arch: &'static Arch,
        json: &Json,
        usual: Option<&'static Json>,
        path: &Path,
        tensors: Tensors,
    ) -> Result<Config> {
        let fields = Fields::new(Source::Hf(json, usual), path);
        let fp8_blocks = quantization(&fields);
        let tied = fields.flag(&TIED, arch.tied);
        let mut vocab = fields.size(&VOCAB, None, MOST_TOKENS);
        if fields.has_hf("ssm_cfg") {
            vocab = vocab.next_multiple_of(fields.size(&PADDED, Some(8), MOST_TOKENS));
        }
        let config = Config::assemble(arch, fields, vocab, tied, tensors)?;
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
        let rows = gguf.find("token_embd.weight").and_then(|t| t.shape.first().copied());
        let vocab = fields.size(&VOCAB, rows, MOST_TOKENS);
        let tied = gguf.find("output.weight").is_none();
        let shape = |name: &str| gguf.find(name).map(|t| t.shape.clone());
        let tensors = Tensors { shape: &shape, values: Some(gguf) };
        let config = Config::assemble(arch, fields, vocab, tied, tensors)?;
        let name = metadata.get_as::<String>("general.name")?;
        Ok(Config { name, ..config })
    }

    fn assemble(arch: &'static Arch, fields: Fields, vocab: usize, tied: bool, tensors: Tensors) -> Result<Config> {
        let hf = |x: f64| (!fields.is_gguf()).then_some(x);
        let hidden = fields.size(&HIDDEN, None, WIDTH);
        let predictors = fields.size_from(&PREDICTORS, Some(0), 0, MOST_LAYERS);
        let listed = || fields.texts(&KINDS).map(|kinds| kinds.len()).filter(|&n| n > 0);
        let lettered = || fields.text(&PATTERN).map(|letters| letters.chars().count()).filter(|&n| n > 0);
        // Nemotron-H's files may have no more than a list of them.
        let mut count = fields.size(&LAYERS, listed().or_else(lettered), MOST_LAYERS);
        if fields.is_gguf() {
            // There they count as layers.
            count = count.saturating_sub(predictors).max(1);
        }
        let gguf = fields.is_gguf();
        let positions = fields.size(&CONTEXT, (!gguf).then_some(arch.context), LONGEST);
        let skipped_positions = match arch.embedding.positions {
            Some(p) if p.after_padding && !gguf => fields.size_from(&PADDING, Some(1), 0, MOST_TOKENS) + 1,
            _ => 0,
        };
        if skipped_positions >= positions {
            let what = format!("{positions} positions, but they are counted from {skipped_positions} on");
            fields.conflict(fields.name(&CONTEXT), what);
        }
        let shared = Shared {
            hidden,
            layers: count,
            eps: fields.float(eps_key(arch), hf(arch.eps), 0.0, 1.0),
            context: positions.saturating_sub(skipped_positions).max(1),
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
        let prefix = if gguf { "blk" } else { arch.outside.layers };
        let reader = Reader { f: &fields, shared: &shared, tensors, prefix, layers: &all };
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
        let norm_bias = match arch.norm_bias {
            Some(_) if gguf => (tensors.shape)("token_embd_norm.bias").is_some(),
            Some(field) => fields.hf_flag(field, false),
            None => false,
        };
        let norm = if norm_bias { NormKind::Layer } else { arch.norm };
        let types = match arch.embedding.types {
            Some(_) if gguf => (tensors.shape)("token_types.weight").and_then(|s| s.first().copied()).unwrap_or(0),
            Some(_) => fields.size_from(&TYPES, Some(2), 0, MOST_TYPES),
            None => 0,
        };
        let head = HeadConfig::read(arch.encoder.as_ref(), &reader, norm);
        let tied = tied || matches!(head, HeadConfig::None | HeadConfig::Labels(_));
        let pooling = fields.has(&POOLING).then(|| fields.size_from(&POOLING, None, 0, 16));
        // Vectors of GGUF files are normalised, since they cannot say that they are not.
        let pooling =
            pooling.and_then(PoolingKind::from_gguf).map(|kind| Pooling { kind, normalize: true, limit: None });
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
            norm,
            skipped_positions,
            types,
            head,
            pooling,
            layers,
            mixes,
            predictors,
            fp8_blocks,
        })
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
