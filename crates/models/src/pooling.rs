//! How the hidden states of a text become one vector.

use std::path::{Component, Path};

use imaginal_files::Json;
use imaginal_tensor::Tensor;
use serde_json::Value;

use crate::{Error, Problem, Result};

/// What of a text's hidden states is its vector.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PoolingKind {
    /// Their mean.
    Mean,
    /// That of the first token.
    First,
    /// That of the last token.
    Last,
    /// The largest of each element.
    Max,
    /// Their sum divided by the square root of their number.
    MeanSqrt,
}

/// How a text becomes a vector: the declaration of its file.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Pooling {
    /// What of the hidden states is taken.
    pub kind: PoolingKind,
    /// Whether the vector is divided by its length.
    pub normalize: bool,
    /// How many tokens of a text are read, if that is less than the model's context.
    pub limit: Option<usize>,
}

impl PoolingKind {
    /// From hidden states `[tokens, hidden]` of texts one after another to `[texts, hidden]`.
    ///
    /// # Errors
    /// A text without tokens, or lengths beyond the hidden states.
    pub fn apply(self, x: &Tensor, lengths: &[usize]) -> imaginal_tensor::Result<Tensor> {
        let mut first = 0;
        let rows = lengths.iter().map(|&len| {
            let text = x.narrow(0, first, len)?;
            first += len;
            match self {
                PoolingKind::Mean => text.mean(&[0], true),
                PoolingKind::First => text.narrow(0, 0, 1),
                PoolingKind::Last => text.narrow(0, len.saturating_sub(1), 1),
                PoolingKind::Max => text.max(0, true),
                PoolingKind::MeanSqrt => text.sum(&[0], true)?.mul_scalar(1.0 / (len as f64).sqrt()),
            }
        });
        Tensor::cat(&rows.collect::<imaginal_tensor::Result<Vec<_>>>()?, 0)
    }

    /// Its number in GGUF files (`pooling_type`); 0, none, for those that the format does not have.
    pub(crate) fn to_gguf(self) -> u32 {
        match self {
            PoolingKind::Mean => 1,
            PoolingKind::First => 2,
            PoolingKind::Last => 3,
            PoolingKind::Max | PoolingKind::MeanSqrt => 0,
        }
    }

    /// By its number in GGUF files.
    pub(crate) fn from_gguf(number: usize) -> Option<PoolingKind> {
        [PoolingKind::Mean, PoolingKind::First, PoolingKind::Last].into_iter().find(|k| k.to_gguf() as usize == number)
    }
}

/// The fields of sentence-transformers' `1_Pooling/config.json`.
const KINDS: &[(&str, PoolingKind)] = &[
    ("pooling_mode_mean_tokens", PoolingKind::Mean),
    ("pooling_mode_cls_token", PoolingKind::First),
    ("pooling_mode_lasttoken", PoolingKind::Last),
    ("pooling_mode_max_tokens", PoolingKind::Max),
    ("pooling_mode_mean_sqrt_len_tokens", PoolingKind::MeanSqrt),
];

impl Pooling {
    /// What sentence-transformers' files in a directory declare (`modules.json`), if it has them.
    ///
    /// # Errors
    /// Files that cannot be read, or modules that are not computed here.
    pub(crate) fn from_dir(dir: &Path) -> Result<Option<Pooling>> {
        let path = dir.join("modules.json");
        if !path.is_file() {
            return Ok(None);
        }
        let modules = Json::open_list(&path)?;
        let problem = |path: &Path, field: String, what: String| {
            let problems = vec![Problem { field, what }];
            Error::Config { path: path.to_path_buf(), problems }
        };
        let mut pooling = Pooling { kind: PoolingKind::Mean, normalize: false, limit: None };
        for (i, module) in modules.iter().enumerate() {
            let text = |key: &str| module.get(key).and_then(Value::as_str).unwrap_or_default();
            // The last part of a class name in Python, whose modules move about.
            match text("type").rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Normalize" => pooling.normalize = true,
                "Pooling" => {
                    let inner = Path::new(text("path"));
                    if !inner.components().all(|c| matches!(c, Component::Normal(_))) {
                        return Err(problem(&path, format!("[{i}].path"), format!("{inner:?} leads out of the model")));
                    }
                    let file = dir.join(inner).join("config.json");
                    let config = Json::open(&file)?;
                    pooling.kind = kind(config.root()).map_err(|what| problem(&file, "pooling_mode".into(), what))?;
                }
                other => {
                    let what = format!("{other:?} is not supported; Transformer, Pooling and Normalize are");
                    return Err(problem(&path, format!("[{i}].type"), what));
                }
            }
        }
        let file = dir.join("sentence_bert_config.json");
        if file.is_file() {
            let config = Json::open(&file)?;
            let limit = config.root().get("max_seq_length").filter(|x| !x.is_null());
            let number = |x: &Value| {
                let number = x.as_u64().filter(|&n| n > 0).and_then(|n| usize::try_from(n).ok());
                number
                    .ok_or_else(|| problem(&file, "max_seq_length".into(), format!("{x} is not a whole number from 1")))
            };
            pooling.limit = limit.map(number).transpose()?;
        }
        Ok(Some(pooling))
    }
}

/// The one way that a `1_Pooling/config.json` turns on.
fn kind(config: &Value) -> std::result::Result<PoolingKind, String> {
    // Newer files name it.
    if let Some(mode) = config.get("pooling_mode").and_then(Value::as_str) {
        return match mode {
            "mean" => Ok(PoolingKind::Mean),
            "cls" => Ok(PoolingKind::First),
            "lasttoken" => Ok(PoolingKind::Last),
            "max" => Ok(PoolingKind::Max),
            "mean_sqrt_len_tokens" => Ok(PoolingKind::MeanSqrt),
            other => Err(format!("{other:?} is not supported; mean, cls, max, lasttoken and mean_sqrt_len_tokens are")),
        };
    }
    let on = |key: &str| config.get(key).and_then(Value::as_bool).unwrap_or(false);
    if on("pooling_mode_weightedmean_tokens") {
        return Err("a weighted mean is not supported".into());
    }
    let mut kinds = KINDS.iter().filter(|(key, _)| on(key)).map(|(_, kind)| *kind);
    match (kinds.next(), kinds.next()) {
        (Some(kind), None) => Ok(kind),
        (None, _) => Err("no way of pooling is turned on".into()),
        _ => Err("several ways of pooling at once are not supported".into()),
    }
}
