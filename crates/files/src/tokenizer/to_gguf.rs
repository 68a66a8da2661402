//! A tokenizer as the metadata of a GGUF file.

use super::spm::Prefix;
use super::vocab::{Spelling, TokenKind, byte_of};
use super::{Engine, Family, Tokenizer};
use crate::Result;
use crate::gguf::{Kind, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::HashMap;

/// Says that characters are composed before they are split, which `pre` leaves open and other engines pass over.
pub(super) const NFC: &str = "ggml.normalizer.nfc";

pub(super) fn metadata(tokenizer: &Tokenizer) -> Result<Vec<(String, Value)>> {
    let origin = &tokenizer.origin;
    let mut out: Vec<(String, Value)> = Vec::new();
    let mut put = |key: &str, value: Value| out.push((format!("tokenizer.{key}"), value));
    match (&tokenizer.family, &tokenizer.engine) {
        (Family::None, _) => put("ggml.model", "no_vocab".into()),
        (Family::ByteLevelBpe, Engine::Library(inner)) => {
            let Some(pre) = &tokenizer.pre else {
                let problem = "GGUF has no name for this way of splitting text, so that other engines would split \
                               otherwise; use the splits of gpt-2, qwen2 or llama-bpe";
                return Err(origin.tokenizer("pre_tokenizer", problem));
            };
            put("ggml.model", "gpt2".into());
            put("ggml.pre", pre.as_str().into());
            put("ggml.tokens", tokens(tokenizer).into());
            put("ggml.token_type", kinds(tokenizer).into());
            if inner.get_normalizer().is_some() {
                put(NFC, true.into());
            }
            let merges = merges(tokenizer, inner)?;
            put("ggml.merges", merges.iter().map(|(a, b)| format!("{a} {b}")).collect::<Vec<_>>().into());
        }
        (Family::SentencePiece, engine) => {
            put("ggml.model", "llama".into());
            put("ggml.pre", tokenizer.pre.as_deref().unwrap_or("default").into());
            put("ggml.tokens", tokens(tokenizer).into());
            let (scores, prefix) = match engine {
                Engine::SentencePiece(engine) => (engine.scores.clone(), engine.prefix != Prefix::Never),
                Engine::Library(inner) => (scores(tokenizer, inner)?, adds_space(inner)),
                Engine::None | Engine::Trie(_) => (Vec::new(), true),
            };
            put("ggml.scores", scores.into());
            put("ggml.token_type", kinds(tokenizer).into());
            put("ggml.add_space_prefix", prefix.into());
        }
        (Family::WordPiece, Engine::Library(inner)) => {
            put("ggml.model", "bert".into());
            put("ggml.pre", tokenizer.pre.as_deref().unwrap_or("default").into());
            let words = tokens(tokenizer).into_iter().zip(&tokenizer.vocab.kinds).map(|(text, kind)| match kind {
                TokenKind::Normal => text.strip_prefix("##").map_or_else(|| format!("▁{text}"), str::to_owned),
                _ => text,
            });
            put("ggml.tokens", words.collect::<Vec<_>>().into());
            put("ggml.token_type", kinds(tokenizer).into());
            let normalizer = normalizer(tokenizer, inner)?;
            let flag = |name: &str| find(&normalizer, name).and_then(serde_json::Value::as_bool);
            put("ggml.normalizer.lowercase", flag("lowercase").unwrap_or(false).into());
            if let Some(strip) = flag("strip_accents") {
                put("ggml.normalizer.strip_accents", strip.into());
            }
        }
        (Family::Unigram, Engine::Library(inner)) => {
            put("ggml.model", "t5".into());
            put("ggml.pre", tokenizer.pre.as_deref().unwrap_or("default").into());
            put("ggml.tokens", tokens(tokenizer).into());
            let model = serde_json::to_value(inner.get_model()).map_err(|e| origin.tokenizer("model", e))?;
            let entries: Vec<(String, f32)> =
                serde_json::from_value(model["vocab"].clone()).map_err(|e| origin.tokenizer("model.vocab", e))?;
            // Tokens added behind the model's have no score.
            let mut scores: Vec<f32> = entries.into_iter().map(|(_, score)| score).collect();
            scores.resize(tokenizer.vocab.len(), 0.0);
            put("ggml.scores", scores.into());
            put("ggml.token_type", kinds(tokenizer).into());
            put("ggml.add_space_prefix", adds_space(inner).into());
            let normalizer = normalizer(tokenizer, inner)?;
            let strips = find(&normalizer, "strip_right").is_some();
            put("ggml.remove_extra_whitespaces", strips.into());
            if let Some(table) = find(&normalizer, "precompiled_charsmap").and_then(serde_json::Value::as_str) {
                let bytes = BASE64.decode(table).map_err(|e| origin.tokenizer("normalizer", e))?;
                let bytes = bytes.into_iter().map(Value::U8).collect();
                put("ggml.precompiled_charsmap", Value::Array(Kind::U8, bytes));
            }
        }
        (Family::Rwkv, _) => {
            put("ggml.model", "rwkv".into());
            put("ggml.tokens", tokens(tokenizer).into());
            put("ggml.token_type", kinds(tokenizer).into());
        }
        _ => {
            let problem = "GGUF has no tokenizer of this kind; byte-level BPE, SentencePiece, WordPiece and RWKV's can be written";
            return Err(origin.tokenizer("model", problem));
        }
    }
    let specials = &tokenizer.specials;
    for (name, id) in [
        ("bos", specials.bos),
        ("eos", specials.eos),
        ("unknown", specials.unknown),
        ("padding", specials.padding),
        // Spelled so in the format.
        ("seperator", specials.separator),
        ("cls", specials.classifier),
        ("mask", specials.mask),
    ] {
        if let Some(id) = id {
            put(&format!("ggml.{name}_token_id"), id.into());
        }
    }
    if tokenizer.family != Family::None {
        put("ggml.add_bos_token", specials.add_bos.into());
        put("ggml.add_eos_token", specials.add_eos.into());
    }
    let mut named = Vec::new();
    for (name, template) in &tokenizer.chat_templates {
        if name == super::config::DEFAULT {
            put("chat_template", template.as_str().into());
        } else {
            put(&format!("chat_template.{name}"), template.as_str().into());
            named.push(name.clone());
        }
    }
    if !named.is_empty() {
        put("chat_templates", named.into());
    }
    Ok(out)
}

/// The texts; ids without a token get one of their own, as GGUF has no gaps.
fn tokens(tokenizer: &Tokenizer) -> Vec<String> {
    let vocab = &tokenizer.vocab;
    let unused = |(i, text): (usize, &String)| match text.is_empty() {
        true => format!("[PAD{i}]"),
        false => text.clone(),
    };
    vocab.tokens.iter().enumerate().map(unused).collect()
}

fn kinds(tokenizer: &Tokenizer) -> Vec<i32> {
    let unknown = tokenizer.specials.unknown;
    let number = |(i, kind): (usize, &TokenKind)| match kind {
        TokenKind::Control if unknown == Some(i as u32) => TokenKind::Unknown as i32,
        kind => *kind as i32,
    };
    tokenizer.vocab.kinds.iter().enumerate().map(number).collect()
}

/// The merges in order.
fn merges(tokenizer: &Tokenizer, inner: &tokenizers::Tokenizer) -> Result<Vec<(String, String)>> {
    let error = |e: serde_json::Error| tokenizer.origin.tokenizer("model.merges", e);
    let mut model = serde_json::to_value(inner.get_model()).map_err(error)?;
    serde_json::from_value(model["merges"].take()).map_err(error)
}

/// SentencePiece's scores from the order of the merges: a piece scores higher the earlier it is made.
fn scores(tokenizer: &Tokenizer, inner: &tokenizers::Tokenizer) -> Result<Vec<f32>> {
    let merges = merges(tokenizer, inner)?;
    let mut ranks: HashMap<String, usize> = HashMap::new();
    for (rank, (a, b)) in merges.iter().enumerate() {
        ranks.entry(format!("{a}{b}")).or_insert(rank);
    }
    let last = merges.len() as f32;
    let score = |(text, kind): (&String, &TokenKind)| match kind {
        TokenKind::Normal => -(ranks.get(text).map_or(last, |rank| *rank as f32)),
        _ => 0.0,
    };
    Ok(tokenizer.vocab.tokens.iter().zip(&tokenizer.vocab.kinds).map(score).collect())
}

fn normalizer(tokenizer: &Tokenizer, inner: &tokenizers::Tokenizer) -> Result<serde_json::Value> {
    serde_json::to_value(inner.get_normalizer()).map_err(|e| tokenizer.origin.tokenizer("normalizer", e))
}

/// A setting, wherever it is in a sequence of steps.
fn find<'v>(value: &'v serde_json::Value, name: &str) -> Option<&'v serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => {
            map.get(name).filter(|v| !v.is_null()).or_else(|| map.values().find_map(|v| find(v, name)))
        }
        serde_json::Value::Array(items) => items.iter().find_map(|v| find(v, name)),
        _ => None,
    }
}

/// Whether a space is put before a text: seen by what the tokenizer does to one.
fn adds_space(inner: &tokenizers::Tokenizer) -> bool {
    let probe = inner.encode("a", false).ok();
    probe.and_then(|e| e.get_tokens().first().map(|t| t.starts_with('▁'))).unwrap_or(true)
}

/// Whether a BPE of the library is SentencePiece's: pieces with `▁`, and bytes for what has no piece.
pub(super) fn is_sentencepiece(tokenizer_spelling: Spelling, tokens: &[String]) -> bool {
    tokenizer_spelling == Spelling::Metaspace && tokens.iter().any(|t| byte_of(t).is_some())
}
