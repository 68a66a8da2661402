use std::path::Path;

use imaginal_files::Gguf;
use imaginal_files::gguf::{Metadata, Value};
use imaginal_nn::RopeScaling;
use serde_json::Value as Json;

use crate::arch::{ARCHS, Arch};
use crate::blocks::{BlockConfig, BlockRow, Keys};
use crate::fields::{Fields, Key, Source};
use crate::tensors::{Specs, TensorSpec};
use crate::{Error, Problem, Result};

/// Widest layer that is believed.
pub(crate) const WIDTH: usize = 1 << 24;
const MOST_LAYERS: usize = 1 << 12;
const MOST_TOKENS: usize = 1 << 24;
pub(crate) const LONGEST: usize = 1 << 30;

const HIDDEN: Key = Key::new(&["embedding_length"], &["hidden_size", "d_model"]);
const LAYERS: Key = Key::new(&["block_count"], &["num_hidden_layers", "n_layer"]);
const CONTEXT: Key = Key::new(&["context_length"], &["max_position_embeddings"]);
const EPS: Key = Key::new(&["attention.layer_norm_rms_epsilon"], &["rms_norm_eps", "layer_norm_epsilon"]);
const VOCAB: Key = Key::new(&["vocab_size"], &["vocab_size"]);
const TIED: Key = Key::new(&[], &["tie_word_embeddings"]);

/// What the blocks of a layer share.
pub(crate) struct Shared {
    pub hidden: usize,
    pub layers: usize,
    pub eps: f64,
    /// The values of a GGUF file's `rope_freqs.weight`.
    pub rope_factors: Option<Vec<f32>>,
}

/// Everything about a model but its values: checked, so that a model can be built from it.
#[derive(Clone, Debug)]
pub struct Config {
    arch: &'static Arch,
    name: Option<String>,
    vocab: usize,
    hidden: usize,
    context: usize,
    eps: f64,
    tied: bool,
    layers: Vec<Vec<BlockConfig>>,
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
        Ok(Config::from_fields(row, settings, path)?.in_gguf_order())
    }

    /// The configuration in a `config.json`.
    ///
    /// # Errors
    /// [`Error::Architecture`] or [`Error::Config`].
    pub fn from_hf(json: &Json, path: &Path) -> Result<Config> {
        let class = || json.get("architectures").and_then(|a| a.get(0)).and_then(Json::as_str);
        let named = json.get("model_type").and_then(Json::as_str).or_else(class);
        let Some(name) = named else {
            let problem = Problem { field: "model_type".into(), what: "missing, or not a string".into() };
            return Err(Error::Config { path: path.to_path_buf(), problems: vec![problem] });
        };
        let row = Arch::by_hf(name).ok_or_else(|| unknown(path, "model_type", name))?;
        Config::from_fields(row, json, path)
    }

    fn from_fields(arch: &'static Arch, json: &Json, path: &Path) -> Result<Config> {
        let fields = Fields::new(Source::Hf(json), path);
        if fields.has_hf("quantization_config") {
            fields.problem("quantization_config", "quantized checkpoints are not supported; use a GGUF file");
        }
        let tied = fields.flag(&TIED, arch.tied);
        let shared = Shared::read(&fields, arch, None);
        let vocab = fields.size(&VOCAB, None, MOST_TOKENS);
        Config::assemble(arch, fields, shared, vocab, tied, &|_| false)
    }

    /// The configuration of a GGUF file.
    ///
    /// # Errors
    /// [`Error::Architecture`], [`Error::Config`], or an error of the file.
    pub fn from_gguf(gguf: &Gguf) -> Result<Config> {
        let (metadata, path): (&Metadata, &Path) = (gguf.metadata(), gguf.path());
        let name: String = metadata.require("general.architecture")?;
        let arch = Arch::by_name(&name).ok_or_else(|| unknown(path, "general.architecture", &name))?;
        let fields = Fields::new(Source::Gguf(metadata, arch.name), path);
        let factors = match gguf.find("rope_freqs.weight") {
            Some(t) if t.elem_count() <= WIDTH => {
                let mut values = vec![0f32; t.elem_count()];
                match t.format.decode(&t.bytes, &mut values) {
                    Ok(()) if values.iter().all(|x| x.is_finite() && *x > 0.0) => Some(values),
                    _ => {
                        fields.problem("rope_freqs.weight", "its values are no positive numbers");
                        None
                    }
                }
            }
            _ => None,
        };
        let shared = Shared::read(&fields, arch, factors);
        let rows = gguf.find("token_embd.weight").and_then(|t| t.shape.first().copied());
        let vocab = fields.size(&VOCAB, rows, MOST_TOKENS);
        let tied = gguf.find("output.weight").is_none();
        let present = |tensor: &str| gguf.find(&format!("blk.0.{tensor}")).is_some();
        let config = Config::assemble(arch, fields, shared, vocab, tied, &present)?;
        let name = metadata.get_as::<String>("general.name")?;
        Ok(Config { name, ..config })
    }

    fn assemble(
        arch: &'static Arch,
        fields: Fields,
        shared: Shared,
        vocab: usize,
        tied: bool,
        present: &dyn Fn(&str) -> bool,
    ) -> Result<Config> {
        let context = fields.size(&CONTEXT, (!fields.is_gguf()).then_some(arch.context), LONGEST);
        let mut layers = vec![Vec::new(); shared.layers];
        for sub in arch.layer {
            for (layer, block) in layers.iter_mut().zip(sub.block.read(&fields, &shared, present)) {
                layer.push(block);
            }
        }
        let Shared { hidden, eps, .. } = shared;
        fields.finish()?;
        Ok(Config { arch, name: None, vocab, hidden, context, eps, tied, layers })
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

    /// The blocks, layer by layer.
    pub fn layers(&self) -> &[Vec<BlockConfig>] {
        &self.layers
    }

    /// Whether the model forgets nothing but is slowed by the length of its context: it has attention.
    pub fn has_attention(&self) -> bool {
        self.layers.iter().flatten().any(|b| matches!(b, BlockConfig::Attention(_)))
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        let count = |shape: &[usize]| shape.iter().fold(1usize, |n, &d| n.saturating_mul(d));
        self.tensors().iter().fold(0usize, |n, t| n.saturating_add(count(&t.shape)))
    }

    /// All tensors of the model, in the order of a file.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut specs = Specs::new();
        specs.add("token_embd.weight", self.arch.hf_embedding, &[self.vocab, self.hidden], true);
        for (i, layer) in self.layers.iter().enumerate() {
            specs.within(format!("blk.{i}"), format!("{}.{i}", self.arch.hf_layers));
            for (sub, block) in self.arch.layer.iter().zip(layer) {
                let norm = format!("{}.weight", sub.norm);
                specs.add(&norm, &[&format!("{}.weight", sub.hf_norm)], &[self.hidden], false);
                sub.block.tensors(block, &mut specs);
            }
        }
        specs.within(String::new(), String::new());
        specs.add("output_norm.weight", self.arch.hf_norm, &[self.hidden], false);
        if !self.tied {
            specs.add("output.weight", self.arch.hf_head, &[self.vocab, self.hidden], true);
        }
        specs.list
    }

    /// The same model with the rows of queries and keys in the order of GGUF files.
    pub(crate) fn in_gguf_order(mut self) -> Config {
        for layer in &mut self.layers {
            for (sub, block) in self.arch.layer.iter().zip(layer) {
                if let (BlockRow::Attention(row), BlockConfig::Attention(c)) = (&sub.block, block) {
                    c.rope.style = row.gguf_rope;
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
        let mut keys: Keys = vec![
            ("context_length", (self.context.min(u32::MAX as usize) as u32).into()),
            ("embedding_length", (self.hidden as u32).into()),
            ("block_count", (self.layers.len() as u32).into()),
            ("vocab_size", (self.vocab as u32).into()),
            ("attention.layer_norm_rms_epsilon", (self.eps as f32).into()),
        ];
        for (i, sub) in self.arch.layer.iter().enumerate() {
            let blocks: Vec<&BlockConfig> = self.layers.iter().filter_map(|l| l.get(i)).collect();
            sub.block.write(&blocks, &mut keys).map_err(Error::Argument)?;
        }
        let mut all = vec![("general.architecture".to_owned(), Value::from(self.arch.name))];
        if let Some(name) = &self.name {
            all.push(("general.name".into(), name.clone().into()));
        }
        all.extend(keys.into_iter().map(|(key, value)| (format!("{}.{key}", self.arch.name), value)));
        Ok(all)
    }

    /// Tensors that a GGUF file has and the model has not, with their values.
    pub(crate) fn gguf_extras(&self) -> Vec<(String, Vec<f32>)> {
        let mut extras = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            for block in layer {
                match block {
                    BlockConfig::Attention(c) if i == 0 => {
                        if let RopeScaling::Factors(factors) = &c.rope.scaling {
                            extras.push(("rope_freqs.weight".to_owned(), factors.clone()));
                        }
                    }
                    // The format knows no Mamba without this bias.
                    BlockConfig::Mamba(c) if !c.conv_bias => {
                        extras.push((format!("blk.{i}.ssm_conv1d.bias"), vec![0.0; c.inner]));
                    }
                    _ => {}
                }
            }
        }
        extras
    }
}

impl Shared {
    fn read(fields: &Fields, arch: &Arch, rope_factors: Option<Vec<f32>>) -> Shared {
        let hf = |x: f64| (!fields.is_gguf()).then_some(x);
        Shared {
            hidden: fields.size(&HIDDEN, None, WIDTH),
            layers: fields.size(&LAYERS, None, MOST_LAYERS),
            eps: fields.float(&EPS, hf(arch.eps), 0.0, 1.0),
            rope_factors,
        }
    }
}

fn unknown(path: &Path, field: &'static str, name: &str) -> Error {
    let known = ARCHS.iter().map(|a| a.name).collect::<Vec<_>>().join(", ");
    let name = name.chars().take(80).collect();
    Error::Architecture { path: path.to_path_buf(), field, name, known }
}
