//! Everything about a model but its values. `read` makes a [`Config`] of a file's fields, `write` says what such a model's
//! tensors are and what its file says.

mod read;
mod write;

use imaginal_nn::NormKind;

use crate::arch::{Arch, SubLayer};
use crate::blocks::{BlockConfig, BlockRow, StreamsConfig};
use crate::fields::Key;
use crate::heads::HeadConfig;
use crate::pooling::{Pooling, PoolingKind};

/// Widest layer that is believed.
pub(crate) const WIDTH: usize = 1 << 24;
pub(crate) const LONGEST: usize = 1 << 30;

pub(crate) const TIED: Key = Key::new(&[], &["tie_embedding", "tie_word_embeddings", "tie_embeddings"]);
const RMS_EPS: Key = Key::new(
    &["attention.layer_norm_rms_epsilon"],
    &["rms_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon"],
);
const LAYER_EPS: Key = Key::new(
    &["attention.layer_norm_epsilon"],
    &["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps", "layernorm_epsilon"],
);

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
    /// The kind of all norms outside the blocks.
    norm: NormKind,
    /// Rows of the table of positions that a Hugging Face checkpoint has before the first that is used.
    skipped_positions: usize,
    /// How many parts of a text are told apart; 0 if none are.
    types: usize,
    head: HeadConfig,
    pooling: Option<Pooling>,
    layers: Vec<Vec<BlockConfig>>,
    mixes: Vec<Vec<Option<Mix>>>,
    predictors: usize,
    fp8_blocks: Option<[usize; 2]>,
}

impl Config {
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

    /// The same with a head of its own, if it is a decoder's.
    pub(crate) fn untied(self) -> Config {
        Config { tied: self.tied && self.arch.encoder.is_some(), ..self }
    }

    /// The kind of all norms outside the blocks.
    pub(crate) fn norm(&self) -> NormKind {
        self.norm
    }

    /// How many parts of a text are told apart; 0 if none are.
    pub fn types(&self) -> usize {
        self.types
    }

    /// What the model makes of its hidden states.
    pub fn head(&self) -> &HeadConfig {
        &self.head
    }

    /// How the vector of a text is made: as the file declares, else the mean for models that read a whole text at once and
    /// the last token for others, normalised.
    pub fn pooling(&self) -> Pooling {
        let kind = if self.arch.encoder.is_some() { PoolingKind::Mean } else { PoolingKind::Last };
        self.pooling.unwrap_or(Pooling { kind, normalize: true, limit: None })
    }

    pub(crate) fn with_pooling(self, pooling: Option<Pooling>) -> Config {
        Config { pooling: pooling.or(self.pooling), ..self }
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
}

/// Where the epsilon of the norms stands.
fn eps_key(arch: &Arch) -> &'static Key {
    match arch.norm {
        NormKind::Rms | NormKind::RmsUnit | NormKind::RmsBias => &RMS_EPS,
        NormKind::Layer | NormKind::LayerNoBias | NormKind::LayerUnit => &LAYER_EPS,
    }
}
