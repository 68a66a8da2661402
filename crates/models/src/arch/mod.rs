//! The table of architectures. An architecture is a row of data: what it is called in files, which blocks make a layer,
//! and how the tensors are named. Nothing outside this folder knows an architecture's name. A file holds the rows of one
//! family.

mod deepseek;
mod dense;
mod encoder;
mod gemma;
mod hybrid;
mod linear;
mod llama;
mod mamba;
mod moe;
mod qwen;
mod recurrent;

use std::sync::LazyLock;

use imaginal_nn::{Activation, NormKind};
use serde_json::Value as Json;

use crate::blocks::{Bias, BlockRow, Reader};
use crate::fields::{Fields, Key};

/// A row of [`ARCHS`].
#[derive(Debug)]
pub struct Arch {
    /// `general.architecture` in GGUF files, and the name of the row.
    pub name: &'static str,
    /// One line for lists.
    pub doc: &'static str,
    /// Other names in GGUF files.
    pub gguf: &'static [&'static str],
    /// The row as which GGUF files are written, where it is another: that format makes no difference between them.
    pub gguf_as: Option<&'static str>,
    /// What `config.json` may call it, the name first that is written.
    pub hf: &'static [HfName],
    /// Names outside the layers.
    pub outside: Outside,
    /// The kind of all norms outside the blocks.
    pub norm: NormKind,
    /// Where norms have no biases: the field of `config.json` that gives them some. In GGUF files the tensors tell.
    pub norm_bias: Option<&'static str>,
    /// Whether a Hugging Face checkpoint holds the weights of norms less 1 (Gemma).
    pub norm_less_one: bool,
    /// Whether the head is the embedding where `config.json` does not say.
    pub tied: bool,
    /// Epsilon of the norms where `config.json` does not say.
    pub eps: f64,
    /// Context length where `config.json` has no field for it.
    pub context: usize,
    /// What is added to the embedding of a token.
    pub embedding: EmbeddingRow,
    /// Factors between embedding and logits.
    pub scales: Scales,
    /// The blocks of a layer, in order; each adds its result to the residual stream.
    pub layer: &'static [SubLayer],
    /// Which models of these names it is for, where another row that follows is for the others.
    pub(crate) hf_when: Option<fn(&Json) -> bool>,
    /// What a Hugging Face checkpoint has tensors multiplied with when they are used, where that is done when they are loaded
    /// instead, as in GGUF files: the ends of their names, with one factor or one of each part of their rows.
    pub(crate) hf_factors: Option<fn(&Fields) -> HfFactors>,
    /// For models that read a whole text at once, instead of saying how it goes on: what they can be used for.
    pub encoder: Option<EncoderRow>,
    /// Other arrangements of a layer, of which the first whose condition holds is taken.
    pub variants: &'static [Variant],
    /// Whether several residual streams go through the layers, which have inputs of their own: AltUp (Gemma 3n).
    pub streams: bool,
    /// Settings (as in `config.json`) of a tiny model for tests.
    pub tiny: &'static str,
}

/// The ends of names of tensors, each with its factors.
pub(crate) type HfFactors = Vec<(&'static str, Vec<f64>)>;

/// A name of an architecture in `config.json`.
#[derive(Debug)]
pub struct HfName {
    /// `model_type`.
    pub model_type: &'static str,
    /// The entry of `architectures`.
    pub class: &'static str,
}

/// Names outside the layers in a Hugging Face checkpoint, each with its alternatives.
#[derive(Copy, Clone, Debug)]
pub struct Outside {
    /// The embedding.
    pub embedding: &'static [&'static str],
    /// The final norm, without `.weight`; none if there is no such norm.
    pub norm: &'static [&'static str],
    /// The final norm in GGUF files.
    pub gguf_norm: &'static str,
    /// The output head.
    pub head: &'static [&'static str],
    /// The bias of the output head; none if it has none.
    pub head_bias: &'static [&'static str],
    /// What comes before a layer's number.
    pub layers: &'static str,
    /// Parts of names that say nothing and are left out, between dots.
    pub left_out: &'static [&'static str],
    /// Ends of the names of tensors that checkpoints hold for nothing.
    pub ignored: &'static [&'static str],
}

/// Another arrangement of a layer.
pub struct Variant {
    /// Whether a file has it.
    pub(crate) when: fn(&Reader) -> bool,
    /// The field of GGUF metadata that says so, with its value, if there is one.
    pub key: Option<(Key, bool)>,
    /// The blocks.
    pub layer: &'static [SubLayer],
}

impl std::fmt::Debug for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Variant").field(&self.layer).finish()
    }
}

/// What is added to the embedding of a token.
#[derive(Copy, Clone, Debug)]
pub struct EmbeddingRow {
    /// A vector for each position.
    pub positions: Option<Positions>,
    /// A vector for each part of a text that is a pair; the name of the table in a Hugging Face checkpoint. Read if the
    /// model has it (`type_vocab_size`; `token_types.weight`).
    pub types: Option<&'static str>,
    /// The norm that follows.
    pub norm: Option<NormName>,
}

/// A table of positions (`position_embd.weight`).
#[derive(Copy, Clone, Debug)]
pub struct Positions {
    /// Its name in a Hugging Face checkpoint.
    pub hf: &'static str,
    /// Whether positions are counted from the id of padding on there, so that the rows up to it are not used.
    pub after_padding: bool,
}

/// What an architecture fixes of models that read a whole text at once.
#[derive(Copy, Clone, Debug)]
pub struct EncoderRow {
    /// A head that scores labels (`…ForSequenceClassification`).
    pub labels: Option<LabelsRow>,
    /// A head for masked words (`…ForMaskedLM`).
    pub masked: Option<MaskedRow>,
    /// Fields of `config.json` of which only one value is computed here.
    pub fixed: &'static [(&'static str, Fixed)],
}

/// The value that a field must have, if it is there.
#[derive(Copy, Clone, Debug)]
pub enum Fixed {
    /// This truth value.
    Flag(bool),
    /// This string.
    Text(&'static str),
    /// None, or `null`.
    Absent,
}

/// A head that scores labels.
#[derive(Copy, Clone, Debug)]
pub struct LabelsRow {
    /// Which hidden state of a text it reads.
    pub pooled: Pooled,
    /// The layer before the last.
    pub dense: DenseRow,
    /// The last layer in a Hugging Face checkpoint.
    pub output: &'static str,
}

/// Which hidden state of a text a head reads.
#[derive(Copy, Clone, Debug)]
pub enum Pooled {
    /// That of the first token.
    First,
    /// As `classifier_pooling` says: that of the first token, or the mean.
    Field,
}

/// A head for masked words.
#[derive(Copy, Clone, Debug)]
pub struct MaskedRow {
    /// The layer before the last.
    pub dense: DenseRow,
    /// The last matrix in a Hugging Face checkpoint, if it is not the embedding.
    pub output: &'static str,
    /// Its bias, with alternatives.
    pub output_bias: &'static [&'static str],
    /// Whether it has one.
    pub bias: Bias,
}

/// A layer before the last of a head.
#[derive(Copy, Clone, Debug)]
pub struct DenseRow {
    /// Its name in a Hugging Face checkpoint.
    pub hf: &'static str,
    /// Whether it has a bias.
    pub bias: Bias,
    /// The field of `config.json` that names the function after it, and the function where that is absent.
    pub activation: (Option<&'static str>, Activation),
    /// The norm after that, in a Hugging Face checkpoint.
    pub norm: Option<&'static str>,
}

/// Factors between embedding and logits.
#[derive(Copy, Clone, Debug)]
pub struct Scales {
    /// Of embeddings.
    pub embedding: Factor,
    /// Of what a block adds to the residual stream.
    pub residual: Factor,
    /// Of logits.
    pub logits: Factor,
    /// Logits x become `cap · tanh(x / cap)`, if the field is there.
    pub softcap: Option<Key>,
    /// Its value where `config.json` does not say, for models that always have one.
    pub usual_softcap: Option<f64>,
    /// The field of GGUF metadata that says after how many layers the residual stream is halved, each time; weights in such
    /// files are made for that (RWKV-6).
    pub halved: Option<Key>,
}

/// Where a factor comes from.
#[derive(Copy, Clone, Debug)]
pub enum Factor {
    /// It is 1.
    One,
    /// The square root of the width of the residual stream.
    SqrtWidth,
    /// A field, 1 if it is absent.
    Times(Key),
    /// One over a field.
    Over(Key),
    /// A field, if the head is the embedding; otherwise it is 1, and the weights are multiplied with it.
    IfTied(Key),
}

/// A block with its norms.
#[derive(Copy, Clone, Debug)]
pub struct SubLayer {
    /// The norm before the block.
    pub norm: Option<NormName>,
    /// The block.
    pub block: BlockRow,
    /// The norm of the block's result, before it is added.
    pub post_norm: Option<NormName>,
    /// The norm of the residual stream after the result is added.
    pub sum_norm: Option<NormName>,
    /// Whether the block reads what the one before it has read, instead of the residual stream after that: through a norm
    /// of its own if it has one, else through the same.
    pub beside: bool,
    /// How the block's result joins the residual stream, if it is not simply added.
    pub mix: Option<MixRow>,
    /// Whether the block's result is not for the residual stream: the next block reads the sum of both (Zamba 2).
    pub aside: bool,
    /// Factor of the residual stream after the result is added.
    pub sum_scale: f64,
}

/// Factors of a sum: the residual stream becomes what the block has read, after its norm, times one factor, plus the
/// block's result times another (MiniMax).
#[derive(Copy, Clone, Debug)]
pub struct MixRow {
    /// The fields of the two factors, 1 if they are absent, for each block of a choice.
    pub factors: &'static [[Key; 2]],
}

/// The names of a norm within a layer, without `.weight`.
#[derive(Copy, Clone, Debug)]
pub struct NormName {
    /// In GGUF files.
    pub gguf: &'static str,
    /// In a Hugging Face checkpoint.
    pub hf: &'static str,
    /// The first layer that has it.
    pub from: usize,
    /// Its kind, if it is another than that of the norms outside the layers.
    pub kind: Option<NormKind>,
}

impl NormName {
    /// In every layer.
    pub const fn new(gguf: &'static str, hf: &'static str) -> Self {
        NormName { gguf, hf, from: 0, kind: None }
    }

    /// The norm of layer `i`.
    pub(crate) fn in_layer(norm: &'static Option<NormName>, i: usize) -> Option<&'static NormName> {
        norm.as_ref().filter(|n| i >= n.from)
    }
}

impl SubLayer {
    /// A block behind a norm.
    pub const fn new(norm: NormName, block: BlockRow) -> Self {
        SubLayer {
            norm: Some(norm),
            block,
            post_norm: None,
            sum_norm: None,
            beside: false,
            mix: None,
            aside: false,
            sum_scale: 1.0,
        }
    }
}

impl Outside {
    /// As in transformers' models of Llama's shape.
    pub const MODEL: Outside = Outside {
        embedding: &["model.embed_tokens.weight"],
        norm: &["model.norm"],
        gguf_norm: "output_norm",
        head: &["lm_head.weight"],
        head_bias: &[],
        layers: "model.layers",
        left_out: &[],
        ignored: &[],
    };
}

impl EmbeddingRow {
    /// Nothing.
    pub const PLAIN: EmbeddingRow = EmbeddingRow { positions: None, types: None, norm: None };
}

impl Scales {
    /// None.
    pub const ONE: Scales = Scales {
        embedding: Factor::One,
        residual: Factor::One,
        logits: Factor::One,
        softcap: None,
        usual_softcap: None,
        halved: None,
    };
}

impl Arch {
    /// The row of this GGUF name.
    pub fn by_name(name: &str) -> Option<&'static Arch> {
        ARCHS.iter().find(|a| a.name == name || a.gguf.contains(&name))
    }

    /// The row of a `model_type`, or of a class name, that fits the rest of a `config.json`.
    pub fn by_hf(name: &str, json: &Json) -> Option<&'static Arch> {
        let named = |a: &&Arch| a.hf.iter().any(|h| h.model_type == name || h.class == name);
        ARCHS.iter().filter(named).find(|a| a.hf_when.is_none_or(|when| when(json)))
    }

    /// What transformers takes for granted of fields that a `config.json` of this `model_type` or class name lacks; none
    /// if it does not know the name. `tools/reference/class_defaults.py` asks it.
    pub(crate) fn class_defaults(&self, name: &str) -> Option<&'static Json> {
        // Compiled in: a damaged one must not pass for a class without defaults.
        static ALL: LazyLock<Json> = LazyLock::new(|| {
            serde_json::from_str(include_str!("defaults.json")).unwrap_or_else(|e| unreachable!("defaults.json: {e}"))
        });
        let of = self.hf.iter().find(|h| h.model_type == name || h.class == name)?;
        // Other names of a class are not known there.
        ALL.get(of.model_type)
            .or_else(|| self.hf.iter().filter(|h| h.class == of.class).find_map(|h| ALL.get(h.model_type)))
    }
}

/// Every architecture, in the order of lists.
pub static ARCHS: &[Arch] = &[
    llama::LLAMA,
    moe::LLAMA4,
    qwen::QWEN2,
    qwen::QWEN3,
    moe::QWEN2_MOE,
    qwen::QWEN3_MOE,
    gemma::GEMMA,
    gemma::GEMMA2,
    gemma::GEMMA3,
    gemma::GEMMA3N,
    dense::PHI2,
    dense::PHI3,
    dense::GPT2,
    dense::GPT_NEOX,
    dense::STARCODER2,
    dense::FALCON,
    dense::OLMO2,
    dense::GRANITE,
    dense::GLM4,
    dense::INTERNLM2,
    dense::EXAONE,
    dense::EXAONE4,
    dense::COMMAND_R,
    dense::COHERE2,
    moe::GRANITE_MOE,
    moe::MINIMAX_M2,
    moe::GPT_OSS,
    moe::DBRX,
    deepseek::DEEPSEEK2,
    mamba::MAMBA,
    mamba::FALCON_MAMBA,
    mamba::MAMBA2,
    mamba::JAMBA,
    hybrid::BAMBA,
    hybrid::NEMOTRON_H_MOE,
    hybrid::NEMOTRON_H,
    hybrid::FALCON_H1,
    linear::QWEN3_NEXT,
    linear::QWEN35,
    linear::QWEN35_MOE,
    linear::LFM2,
    linear::LFM2_MOE,
    linear::KIMI_LINEAR,
    linear::MINIMAX,
    linear::ZAMBA2,
    moe::GRANITE_HYBRID,
    recurrent::RWKV6,
    recurrent::RWKV7,
    recurrent::XLSTM,
    recurrent::MAMBA3,
    encoder::BERT,
    encoder::ROBERTA,
    encoder::MODERN_BERT,
    encoder::NOMIC_BERT,
];

/// The table as a page of Markdown, which `docs/architectures.md` is.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Architectures\n\nWritten by `imaginal list --architectures --markdown` from the table in \
         `crates/models/src/arch`; a test compares the two.\n\n\
         | Name in GGUF files | What it is | `model_type` | Class |\n|---|---|---|---|\n",
    );
    for arch in ARCHS {
        let names: Vec<String> = [arch.name].iter().chain(arch.gguf).map(|name| format!("`{name}`")).collect();
        let column = |name: fn(&HfName) -> &'static str| {
            let names: Vec<String> = arch.hf.iter().map(|hf| format!("`{}`", name(hf))).collect();
            names.join(", ")
        };
        let (types, classes) = (column(|hf| hf.model_type), column(|hf| hf.class));
        page += &format!("| {} | {} | {types} | {classes} |\n", names.join(", "), arch.doc);
    }
    page
}
