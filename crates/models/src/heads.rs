//! What encoders make of the hidden states of a text: scores of labels, or logits of words that were masked.

use imaginal_files::gguf::Value;
use imaginal_nn::{Activation, Init, Linear, Module, Norm, NormKind, Param, Slot, Source, join};
use imaginal_tensor::{Result, Tensor};

use crate::arch::{DenseRow, EncoderRow, Fixed, LabelsRow, Pooled};
use crate::blocks::Reader;
use crate::config::WIDTH;
use crate::fields::{Fields, Key};
use crate::pooling::PoolingKind;
use crate::tensors::Specs;

/// What a model makes of the hidden states of its last layer.
#[derive(Clone, Debug, PartialEq)]
pub enum HeadConfig {
    /// Logits of the token that follows: a language model.
    Language,
    /// Nothing: an encoder whose hidden states are what it is for.
    None,
    /// Scores of labels for a whole text.
    Labels(LabelsConfig),
    /// Logits of the token that stands at each place: a masked language model.
    Masked(MaskedConfig),
}

/// A layer before the last of a head: `norm(activation(dense(x)))`.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseConfig {
    /// Whether the matrix has a bias.
    pub bias: bool,
    /// The function after it.
    pub activation: Activation,
    /// The norm after that.
    pub norm: Option<NormKind>,
}

/// A head that scores labels.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelsConfig {
    /// The names of the labels.
    pub names: Vec<String>,
    /// How the hidden states of a text become one: its first, or their mean.
    pub pooling: PoolingKind,
    /// The layer before the last, if there is one.
    pub dense: Option<DenseConfig>,
}

/// A head for masked words; its matrix is the embedding if the model is tied.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskedConfig {
    /// The layer before the last.
    pub dense: DenseConfig,
    /// Whether the last matrix has a bias.
    pub bias: bool,
}

const CLASSES: Key = Key::new(&[], &["architectures"]);
const CLASSIFIER_POOLING: Key = Key::new(&["classifier.pooling_type"], &["classifier_pooling"]);
const LABELS: Key = Key::new(&["classifier.output_labels"], &[]);
const LABEL_COUNT: Key = Key::new(&[], &["num_labels"]);
const MOST_LABELS: usize = 1 << 20;

/// The names of the parameters of a masked head, beside `output`.
const MASKED: &str = "mlm";

impl HeadConfig {
    /// The head of a model of this row. `shape` is that of a tensor of a GGUF file.
    pub(crate) fn read(row: Option<&EncoderRow>, r: &Reader, norm: NormKind) -> HeadConfig {
        let shape = r.tensors.shape;
        let Some(row) = row else { return HeadConfig::Language };
        let f = r.f;
        check_fixed(f, row.fixed);
        let dense = |d: &DenseRow, there: bool| DenseConfig {
            bias: there,
            activation: activation(f, d),
            norm: d.norm.map(|_| norm),
        };
        if f.is_gguf() {
            let (Some(labels), Some(output)) = (&row.labels, shape("cls.output.weight")) else {
                return HeadConfig::None;
            };
            let count = output.first().copied().unwrap_or(0);
            let there = shape("cls.weight").is_some();
            return HeadConfig::Labels(LabelsConfig {
                names: names(f.strings(&LABELS).unwrap_or_default(), count),
                pooling: pooling(f, labels),
                dense: there.then(|| dense(&labels.dense, shape("cls.bias").is_some())),
            });
        }
        let class = f.texts(&CLASSES).and_then(|c| c.into_iter().next()).unwrap_or_default();
        if let (Some(labels), true) = (&row.labels, class.ends_with("ForSequenceClassification")) {
            let given = f.labels("id2label", MOST_LABELS);
            let count = match given.len() {
                0 => f.size(&LABEL_COUNT, Some(2), MOST_LABELS),
                count => count,
            };
            return HeadConfig::Labels(LabelsConfig {
                names: names(given, count),
                pooling: pooling(f, labels),
                dense: Some(dense(&labels.dense, r.bias(labels.dense.bias, ""))),
            });
        }
        match &row.masked {
            Some(masked) if class.ends_with("ForMaskedLM") || class.ends_with("ForPreTraining") => {
                HeadConfig::Masked(MaskedConfig {
                    dense: dense(&masked.dense, r.bias(masked.dense.bias, "")),
                    bias: r.bias(masked.bias, ""),
                })
            }
            _ => HeadConfig::None,
        }
    }

    /// Names the tensors of the head of an encoder.
    pub(crate) fn tensors(&self, row: &EncoderRow, hidden: usize, vocab: usize, tied: bool, specs: &mut Specs) {
        let dense = |specs: &mut Specs, name: &str, row: &DenseRow, c: &DenseConfig| {
            specs.linear(name, row.hf, [hidden, hidden], c.bias, None);
            if let (Some(hf), Some(kind)) = (row.norm, c.norm) {
                specs.norm(&join(name, "norm"), &[hf], &[hidden], kind);
            }
        };
        match (self, &row.labels, &row.masked) {
            (HeadConfig::Labels(c), Some(labels), _) => {
                if let Some(c) = &c.dense {
                    dense(specs, "cls", &labels.dense, c);
                }
                specs.linear("cls.output", labels.output, [c.names.len(), hidden], true, None);
            }
            (HeadConfig::Masked(c), _, Some(masked)) => {
                let first = specs.list.len();
                dense(specs, MASKED, &masked.dense, &c.dense);
                if !tied {
                    specs.add("output.weight", &[masked.output], &[vocab, hidden], true);
                }
                if c.bias {
                    specs.add("output.bias", masked.output_bias, &[vocab], false);
                }
                // GGUF has no names for them.
                specs.list[first..].iter_mut().for_each(|spec| spec.gguf.clear());
            }
            _ => {}
        }
    }

    /// What GGUF metadata says of the head, without the architecture's name.
    ///
    /// # Errors
    /// In words, what the format has no place for.
    pub(crate) fn write(&self, row: &EncoderRow) -> std::result::Result<Vec<(&'static str, Value)>, String> {
        let (HeadConfig::Labels(c), Some(labels)) = (self, &row.labels) else { return Ok(Vec::new()) };
        if let Some(dense) = c.dense.as_ref().filter(|d| d.activation != labels.dense.activation.1) {
            return Err(format!("a head with the activation {:?} has no place in a GGUF file", dense.activation));
        }
        let mut keys = vec![("classifier.output_labels", Value::from(c.names.clone()))];
        if matches!(labels.pooled, Pooled::Field) {
            keys.push(("classifier.pooling_type", c.pooling.to_gguf().into()));
        }
        Ok(keys)
    }
}

/// Notes fields of `config.json` that ask for what the row does not compute.
fn check_fixed(f: &Fields, fixed: &[(&'static str, Fixed)]) {
    for (name, value) in fixed {
        let (fits, known) = match value {
            Fixed::Flag(flag) => (f.hf_flag(name, *flag) == *flag, flag.to_string()),
            Fixed::Text(text) => (f.hf_text(name).is_none_or(|x| x == *text), format!("{text:?}")),
            Fixed::Absent => (!f.has_hf(name), "null".into()),
        };
        if !fits {
            f.problem(*name, format!("only {known} is supported here"));
        }
    }
}

fn activation(f: &Fields, row: &DenseRow) -> Activation {
    let (field, usual) = row.activation;
    let Some(name) = field.filter(|_| !f.is_gguf()).and_then(|field| f.hf_text(field)) else { return usual };
    Activation::by_hf(&name).unwrap_or_else(|| {
        f.problem(field.unwrap_or_default(), format!("{name:?} is not supported"));
        usual
    })
}

fn pooling(f: &Fields, row: &LabelsRow) -> PoolingKind {
    match row.pooled {
        Pooled::First => PoolingKind::First,
        Pooled::Field if f.is_gguf() => {
            let number = f.size_from(&CLASSIFIER_POOLING, Some(PoolingKind::First.to_gguf() as usize), 0, 16);
            [PoolingKind::Mean, PoolingKind::First].into_iter().find(|k| k.to_gguf() as usize == number).unwrap_or_else(
                || {
                    f.problem(f.name(&CLASSIFIER_POOLING), format!("{number} is neither 1 (mean) nor 2 (first)"));
                    PoolingKind::First
                },
            )
        }
        Pooled::Field => match f.text(&CLASSIFIER_POOLING).as_deref() {
            None | Some("cls") => PoolingKind::First,
            Some("mean") => PoolingKind::Mean,
            Some(other) => {
                f.problem(f.name(&CLASSIFIER_POOLING), format!("{other:?} is neither \"cls\" nor \"mean\""));
                PoolingKind::First
            }
        },
    }
}

/// So many names; those that are not given are numbers, as transformers has them.
fn names(mut given: Vec<String>, count: usize) -> Vec<String> {
    let count = count.min(WIDTH);
    given.truncate(count);
    (given.len()..count).for_each(|i| given.push(format!("LABEL_{i}")));
    given
}

#[derive(Debug)]
struct Dense {
    linear: Linear,
    activation: Activation,
    norm: Option<Norm>,
}

impl Dense {
    fn new(source: &mut dyn Source, name: &str, hidden: usize, eps: f64, c: &DenseConfig) -> Result<Self> {
        let linear = Linear::new(source, name, hidden, hidden, c.bias, Init::Normal { std: 0.02 })?;
        let norm = c.norm.map(|kind| Norm::new(source, &join(name, "norm"), &[hidden], kind, eps)).transpose()?;
        Ok(Dense { linear, activation: c.activation, norm })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.activation.apply(&self.linear.forward(x)?)?;
        self.norm.as_ref().map_or(Ok(y.clone()), |norm| norm.forward(&y))
    }

    fn slots(&self, name: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.linear.slots(name, visit);
        if let Some(norm) = &self.norm {
            norm.slots(&join(name, "norm"), visit);
        }
    }
}

/// The parameters of a head.
#[derive(Debug)]
pub(crate) enum Head {
    Language(Output),
    None,
    Labels(Labels),
    Masked(Masked),
}

/// The matrix from hidden states to logits.
#[derive(Debug)]
pub(crate) struct Output {
    linear: Linear,
    /// Whether the matrix is not the embedding.
    own: bool,
    bias: Option<Param>,
}

#[derive(Debug)]
pub(crate) struct Labels {
    pooling: PoolingKind,
    dense: Option<Dense>,
    output: Linear,
}

#[derive(Debug)]
pub(crate) struct Masked {
    dense: Dense,
    output: Output,
}

impl Output {
    /// `tied` is the embedding, if that is the matrix.
    pub fn new(
        source: &mut dyn Source,
        [vocab, hidden]: [usize; 2],
        tied: Option<&imaginal_nn::Weight>,
        bias: bool,
    ) -> Result<Output> {
        let bias = if bias { Some(source.param("output.bias", &[vocab], Init::Zeros)?) } else { None };
        let weight = match tied {
            Some(weight) => weight.clone(),
            None => source.weight("output.weight", vocab, hidden, Init::Normal { std: 0.02 })?,
        };
        Ok(Output { linear: Linear::from_weight(weight, bias.clone()), own: tied.is_none(), bias })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear.forward(x)
    }

    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        if self.own {
            visit(join(prefix, "output.weight"), Slot::Weight(self.linear.weight()));
        }
        if let Some(bias) = &self.bias {
            visit(join(prefix, "output.bias"), Slot::Param(bias));
        }
    }
}

impl Labels {
    pub fn new(source: &mut dyn Source, hidden: usize, eps: f64, c: &LabelsConfig) -> Result<Labels> {
        let dense = c.dense.as_ref().map(|d| Dense::new(source, "cls", hidden, eps, d)).transpose()?;
        let output = Linear::new(source, "cls.output", hidden, c.names.len(), true, Init::Normal { std: 0.02 })?;
        Ok(Labels { pooling: c.pooling, dense, output })
    }

    /// Scores `[texts, labels]` of texts that lie one after another in `x[tokens, hidden]`.
    pub fn forward(&self, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let mut x = self.pooling.apply(x, lengths)?;
        if let Some(dense) = &self.dense {
            x = dense.forward(&x)?;
        }
        self.output.forward(&x)
    }
}

impl Masked {
    pub fn new(
        source: &mut dyn Source,
        shape: [usize; 2],
        eps: f64,
        tied: Option<&imaginal_nn::Weight>,
        c: &MaskedConfig,
    ) -> Result<Masked> {
        let dense = Dense::new(source, MASKED, shape[1], eps, &c.dense)?;
        Ok(Masked { dense, output: Output::new(source, shape, tied, c.bias)? })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.output.forward(&self.dense.forward(x)?)
    }
}

impl Module for Head {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        match self {
            Head::None => {}
            Head::Language(output) => output.slots(prefix, visit),
            Head::Labels(labels) => {
                if let Some(dense) = &labels.dense {
                    dense.slots(&join(prefix, "cls"), visit);
                }
                labels.output.slots(&join(prefix, "cls.output"), visit);
            }
            Head::Masked(masked) => {
                masked.dense.slots(&join(prefix, MASKED), visit);
                masked.output.slots(prefix, visit);
            }
        }
    }
}
