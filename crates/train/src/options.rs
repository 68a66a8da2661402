//! What a run is asked to do, and what it decides where nothing was asked.

use std::path::PathBuf;

use imaginal_models::morph::RECIPES;
use imaginal_models::{Arch, BlockRow, Config};
use imaginal_numeric::Format;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::data::split::HeldOut;
use crate::data::walk::Selection;
use crate::schedule::{Decay, Schedule};
use crate::{Error, Result};

/// What the matrix products of training are computed in. Parameters, gradients, moments and everything else are f32.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// Operands rounded to bf16 and sums in f32, where the CPU has AMX; f32 elsewhere.
    Bf16,
}

/// What a run is asked to do. `None` leaves the choice to [`Plan::new`], which goes by the amount of data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// Folders and files to train on.
    pub data: Vec<PathBuf>,
    /// The run directory.
    pub out: PathBuf,
    /// File name extensions to take; empty: all text.
    pub extensions: Vec<String>,
    /// Globs as in .gitignore; a leading `!` excludes.
    pub globs: Vec<String>,
    /// Larger files are left out.
    pub max_file_bytes: u64,
    /// Patterns of files to hold out; empty: a share of the top-level folders.
    pub held_out: Vec<String>,
    /// The share of folders to hold out where no patterns are given.
    pub held_out_fraction: f64,
    /// Tokens to train a tokenizer for.
    pub vocab: Option<usize>,
    /// A tokenizer.json to use instead of training one.
    pub tokenizer: Option<PathBuf>,
    /// How much text the tokenizer is trained on.
    pub tokenizer_sample_bytes: u64,
    /// A row of the table of architectures.
    pub arch: String,
    /// Width of the residual stream.
    pub hidden: Option<usize>,
    /// Number of layers.
    pub layers: Option<usize>,
    /// Attention heads.
    pub heads: Option<usize>,
    /// Heads of keys and values (fewer than heads: grouped queries).
    pub kv_heads: Option<usize>,
    /// Width of the feed-forward layer.
    pub ffn: Option<usize>,
    /// Numbers of recurrent state per channel.
    pub state: Option<usize>,
    /// Further fields of the model's configuration, by the names of config.json.
    pub settings: Map<String, Value>,
    /// Tokens in a sequence.
    pub context: Option<usize>,
    /// Sequences computed at once.
    pub batch: Option<usize>,
    /// Batches whose gradients are added up for one step.
    pub accumulate: usize,
    /// Steps of the optimizer.
    pub steps: Option<u64>,
    /// Training tokens, instead of steps.
    pub tokens: Option<u64>,
    /// Highest learning rate.
    pub lr: Option<f64>,
    /// What the learning rate ends at, as a share of the highest.
    pub lr_floor: f64,
    /// How the learning rate falls.
    pub decay: Decay,
    /// Steps of warm-up.
    pub warmup: Option<u64>,
    /// Decay of the matrices.
    pub weight_decay: f64,
    /// AdamW's decay of its two moments.
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    pub eps: f64,
    /// Largest norm of the gradient; zero: no limit.
    pub clip: f64,
    /// What matrix products are computed in.
    pub precision: Precision,
    /// Seed of everything random.
    pub seed: u64,
    /// Steps between measurements on the held-out files.
    pub eval_every: Option<u64>,
    /// How much held-out text is measured each time.
    pub eval_bytes: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: Option<u64>,
    /// Number format of the final model's matrices.
    pub format: String,
    /// The model's name, written into its file.
    pub name: Option<String>,
}

impl Default for TrainOptions {
    fn default() -> Self {
        TrainOptions {
            data: Vec::new(),
            out: PathBuf::new(),
            extensions: Vec::new(),
            globs: Vec::new(),
            max_file_bytes: 1 << 20,
            held_out: Vec::new(),
            held_out_fraction: 0.05,
            vocab: None,
            tokenizer: None,
            tokenizer_sample_bytes: 16 << 20,
            arch: "llama".into(),
            hidden: None,
            layers: None,
            heads: None,
            kv_heads: None,
            ffn: None,
            state: None,
            settings: Map::new(),
            context: None,
            batch: None,
            accumulate: 1,
            steps: None,
            tokens: None,
            lr: None,
            lr_floor: 0.1,
            decay: Decay::Cosine,
            warmup: None,
            weight_decay: 0.1,
            betas: [0.9, 0.95],
            eps: 1e-8,
            clip: 1.0,
            precision: Precision::F32,
            seed: 0,
            eval_every: None,
            eval_bytes: 200_000,
            checkpoint_every: None,
            format: "f32".into(),
            name: None,
        }
    }
}

impl TrainOptions {
    /// Which files are taken.
    pub fn selection(&self) -> Selection {
        Selection {
            extensions: self.extensions.clone(),
            globs: self.globs.clone(),
            max_file_bytes: self.max_file_bytes,
        }
    }

    /// Which of them are held out.
    pub fn held_out(&self) -> HeldOut {
        match self.held_out.as_slice() {
            [] => HeldOut::Fraction(self.held_out_fraction),
            patterns => HeldOut::Patterns(patterns.to_vec()),
        }
    }

    /// The number format of the final model's matrices.
    ///
    /// # Errors
    /// It is not one that a model file can hold.
    pub fn final_format(&self) -> Result<Format> {
        // Asked before the run, so that it does not fail at its end.
        let written = |f: &Format| RECIPES.iter().any(|r| r.base == *f);
        Format::from_name(&self.format).filter(written).ok_or_else(|| {
            Error::option("format", format!("{:?} is not a format of model files; try f32, f16 or q8_0", self.format))
        })
    }

    /// Refuses values that make no sense, before anything is read.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub fn check(&self) -> Result<()> {
        if self.data.is_empty() {
            return Err(Error::option("data", "name at least one folder or file to train on"));
        }
        let row = Arch::by_name(&self.arch);
        if row.is_none() {
            let known: Vec<_> = imaginal_models::ARCHS.iter().map(|a| a.name).collect();
            return Err(Error::option("arch", format!("{:?} is not one of {}", self.arch, known.join(", "))));
        }
        self.final_format()?;
        let sizes = [
            ("hidden", self.hidden),
            ("layers", self.layers),
            ("heads", self.heads),
            ("kv-heads", self.kv_heads),
            ("ffn", self.ffn),
            ("state", self.state),
            ("context", self.context),
            ("batch", self.batch),
            ("accumulate", Some(self.accumulate)),
            ("steps", self.steps.map(|n| n as usize)),
            ("tokens", self.tokens.map(|n| n as usize)),
            ("eval-every", self.eval_every.map(|n| n as usize)),
            ("checkpoint-every", self.checkpoint_every.map(|n| n as usize)),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, value)| *value == Some(0)) {
            return Err(Error::option(name, "must be at least 1"));
        }
        if self.steps.is_some() && self.tokens.is_some() {
            return Err(Error::option("tokens", "give either --steps or --tokens"));
        }
        let numbers = [
            ("lr", self.lr.unwrap_or(1e-3), 0.0, 10.0),
            ("lr-floor", self.lr_floor, 0.0, 1.0),
            ("weight-decay", self.weight_decay, 0.0, 10.0),
            ("beta1", self.betas[0], 0.0, 0.999_999),
            ("beta2", self.betas[1], 0.0, 0.999_999),
            ("eps", self.eps, 1e-30, 1.0),
            ("clip", self.clip, 0.0, 1e9),
        ];
        match numbers.iter().find(|(_, value, low, high)| !(*low..=*high).contains(value)) {
            Some((name, value, low, high)) => {
                Err(Error::option(name, format!("{value} is not between {low} and {high}")))
            }
            None => Ok(()),
        }
    }
}

/// What a run does: every choice made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The model's configuration, by the names of config.json.
    pub settings: Value,
    /// Tokens in a sequence.
    pub context: usize,
    /// Sequences computed at once.
    pub batch: usize,
    /// Batches per step.
    pub accumulate: usize,
    /// Learning rate and number of steps.
    pub schedule: Schedule,
    /// Steps between measurements.
    pub eval_every: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
}

/// Sizes for an amount of text: vocabulary, hidden, layers.
fn sizes_for(bytes: u64) -> (usize, usize, usize) {
    match bytes {
        0..200_000 => (512, 96, 3),
        200_000..2_000_000 => (1024, 128, 4),
        2_000_000..20_000_000 => (2048, 192, 6),
        _ => (4096, 256, 8),
    }
}

/// The vocabulary to train a tokenizer for, from this many bytes of text.
pub fn default_vocab(text_bytes: u64) -> usize {
    sizes_for(text_bytes).0
}

impl Plan {
    /// Decides everything that the options leave open, for a corpus of so many tokens and bytes.
    ///
    /// # Errors
    /// [`Error::Option`], or the model's configuration contradicts itself.
    pub fn new(options: &TrainOptions, vocab: usize, text_bytes: u64, text_tokens: u64) -> Result<Plan> {
        let (_, hidden, layers) = sizes_for(text_bytes);
        let hidden = options.hidden.unwrap_or(hidden);
        let context = options.context.unwrap_or(256);
        let row = Arch::by_name(&options.arch).ok_or_else(|| Error::option("arch", "unknown architecture"))?;
        let layers = options.layers.unwrap_or(layers);
        let mut settings = tiny_settings(row, layers);
        let mut set = |key: &str, value: Value| settings.insert(key.to_owned(), value);
        set("vocab_size", json!(vocab));
        set("hidden_size", json!(hidden));
        set("num_hidden_layers", json!(layers));
        set("tie_word_embeddings", json!(true));
        for block in row.layer.iter().flat_map(|l| l.block.alternatives()) {
            match block {
                BlockRow::Attention(_) => {
                    let heads = options.heads.unwrap_or_else(|| default_heads(hidden));
                    set("num_attention_heads", json!(heads));
                    set("num_key_value_heads", json!(options.kv_heads.unwrap_or(heads)));
                    set("head_dim", Value::Null);
                    set("max_position_embeddings", json!(context));
                }
                BlockRow::Mlp(_) => {
                    set("intermediate_size", json!(options.ffn.unwrap_or((hidden * 8 / 3).next_multiple_of(32))));
                }
                BlockRow::Moe(_) => {
                    // Few experts are used at once, which together are as wide as one dense network.
                    set("moe_intermediate_size", json!(options.ffn.unwrap_or((hidden * 4 / 3).next_multiple_of(32))));
                }
                BlockRow::Mamba(_) => {
                    set("state_size", json!(options.state.unwrap_or(16)));
                }
                BlockRow::Mamba2(_) => {
                    const HEAD: usize = 32;
                    set("mamba_num_heads", json!((2 * hidden).div_ceil(HEAD)));
                    set("mamba_head_dim", json!(HEAD));
                    set("mamba_n_groups", json!(1));
                    set("state_size", json!(options.state.unwrap_or(64)));
                }
                // Widths of this block are rounded up to multiples of 64.
                BlockRow::Mlstm(_) => {
                    set("num_heads", json!(4));
                }
                BlockRow::Mamba3(_) => {
                    set("pad_vocab_size_multiple", json!(1));
                }
                // What is particular to the others is as in the tiny model.
                _ => {}
            }
        }
        settings.extend(options.settings.clone());
        let settings = Value::Object(settings);
        let parameters = Config::build(&options.arch, &settings)?.parameters() as u64;

        let batch = options.batch.unwrap_or(16);
        let step_tokens = (batch * options.accumulate * context) as u64;
        // Twenty tokens per parameter is about what a model can use (Hoffmann et al. 2022); more than ten readings of
        // the same text teach little.
        let wanted = options.tokens.unwrap_or((20 * parameters).min(10 * text_tokens));
        let steps = options.steps.unwrap_or_else(|| match options.tokens {
            Some(_) => wanted.div_ceil(step_tokens),
            None => (wanted / step_tokens).clamp(50, 20_000),
        });
        let warmup = options.warmup.unwrap_or((steps / 20).clamp(1, 200));
        let peak = options.lr.unwrap_or(3e-3 * (128.0 / hidden as f64).sqrt().min(1.0));
        Ok(Plan {
            settings,
            context,
            batch,
            accumulate: options.accumulate,
            schedule: Schedule { decay: options.decay, peak, floor: options.lr_floor, warmup, steps },
            eval_every: options.eval_every.unwrap_or((steps / 20).clamp(1, 500)),
            checkpoint_every: options.checkpoint_every.unwrap_or((steps / 20).clamp(1, 200)),
        })
    }

    /// Training tokens in one step.
    pub fn step_tokens(&self) -> u64 {
        (self.batch * self.accumulate * self.context) as u64
    }
}

/// The settings of a row's tiny model, from which a plan begins: they say what has no default, and what an architecture is.
/// Lists and patterns with an entry for each layer are repeated for `layers`.
fn tiny_settings(row: &Arch, layers: usize) -> Map<String, Value> {
    let Ok(Value::Object(mut settings)) = serde_json::from_str::<Value>(row.tiny) else { return Map::new() };
    let count = |key: &str| settings.get(key).and_then(Value::as_u64).map(|n| n as usize);
    let tiny = count("num_hidden_layers").or(count("n_layer")).unwrap_or(0);
    for value in settings.values_mut() {
        match value {
            Value::Array(list) if list.len() == tiny && tiny > 1 => {
                *list = list.iter().cycle().take(layers).cloned().collect();
            }
            Value::String(text) if text.chars().count() == tiny && tiny > 1 => {
                *text = text.chars().cycle().take(layers).collect();
            }
            _ => {}
        }
    }
    // A fresh model of few layers has nothing to gain from keys and values that they share.
    if let Some(shared) = settings.get_mut("num_kv_shared_layers") {
        *shared = json!(0);
    }
    settings
}

/// Heads of 64 where that divides the width, else the next smaller even size that does.
fn default_heads(hidden: usize) -> usize {
    (1..=32).rev().map(|half| 2 * half).find(|size| hidden.is_multiple_of(*size)).map_or(1, |size| hidden / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> TrainOptions {
        TrainOptions { data: vec!["x".into()], ..TrainOptions::default() }
    }

    #[test]
    fn every_architecture_gets_a_plan_that_its_configuration_accepts() {
        for arch in imaginal_models::ARCHS.iter().filter(|a| a.encoder.is_none()) {
            for bytes in [1_000, 1_000_000, 10_000_000, 1_000_000_000] {
                let plan =
                    Plan::new(&TrainOptions { arch: arch.name.into(), ..options() }, 300, bytes, bytes / 3).unwrap();
                let config = Config::build(arch.name, &plan.settings).unwrap();
                assert_eq!(config.vocab(), 300);
                assert!(plan.schedule.steps >= 50 && plan.schedule.warmup < plan.schedule.steps);
            }
        }
    }

    #[test]
    fn heads_divide_the_width() {
        assert_eq!([96, 128, 192, 256, 320, 100, 7].map(default_heads), [2, 2, 3, 4, 5, 2, 1]);
        assert_eq!(default_heads(96), 2);
    }

    #[test]
    fn tokens_and_settings_are_followed() {
        let mut o = TrainOptions { tokens: Some(10_000), batch: Some(4), context: Some(100), ..options() };
        o.settings.insert("tie_word_embeddings".into(), json!(false));
        let plan = Plan::new(&o, 300, 1000, 300).unwrap();
        assert_eq!((plan.schedule.steps, plan.step_tokens()), (25, 400));
        assert_eq!(plan.settings["tie_word_embeddings"], json!(false));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let refused = |o: TrainOptions| o.check().unwrap_err().to_string();
        assert!(refused(TrainOptions::default()).starts_with("--data"));
        assert!(refused(TrainOptions { arch: "lama".into(), ..options() }).contains("llama"));
        assert!(refused(TrainOptions { batch: Some(0), ..options() }).starts_with("--batch"));
        assert!(refused(TrainOptions { lr: Some(f64::NAN), ..options() }).starts_with("--lr"));
        assert!(refused(TrainOptions { format: "int7".into(), ..options() }).starts_with("--format"));
        assert!(refused(TrainOptions { format: "i8".into(), ..options() }).starts_with("--format"));
        assert!(refused(TrainOptions { steps: Some(1), tokens: Some(1), ..options() }).starts_with("--tokens"));
        options().check().unwrap();
    }
}
