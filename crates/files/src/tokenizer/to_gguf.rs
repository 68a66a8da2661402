//! A tokenizer as the metadata of a GGUF file.

use super::vocab::{Spelling, TokenKind, byte_of};
use super::{Engine, Family, Tokenizer};
use crate::Result;
use crate::gguf::Value;
use std::collections::HashMap;

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
            let merges = merges(tokenizer, inner)?;
            put("ggml.merges", merges.iter().map(|(a, b)| format!("{a} {b}")).collect::<Vec<_>>().into());
        }
        (Family::SentencePiece, engine) => {
            put("ggml.model", "llama".into());
            put("ggml.pre", tokenizer.pre.as_deref().unwrap_or("default").into());
            put("ggml.tokens", tokens(tokenizer).into());
            let (scores, prefix) = match engine {
                Engine::SentencePiece(engine) => (engine.scores.clone(), engine.add_space_prefix),
                Engine::Library(inner) => (scores(tokenizer, inner)?, adds_space(tokenizer, inner)),
                Engine::None => (Vec::new(), true),
            };
            put("ggml.scores", scores.into());
            put("ggml.token_type", kinds(tokenizer).into());
            put("ggml.add_space_prefix", prefix.into());
        }
        _ => {
            let problem = "GGUF has no tokenizer of this kind; byte-level BPE and SentencePiece BPE can be written";
            return Err(origin.tokenizer("model", problem));
        }
    }
    let specials = &tokenizer.specials;
    for (name, id) in
        [("bos", specials.bos), ("eos", specials.eos), ("unknown", specials.unknown), ("padding", specials.padding)]
    {
        if let Some(id) = id {
            put(&format!("ggml.{name}_token_id"), id.into());
        }
    }
    if tokenizer.family != Family::None {
        put("ggml.add_bos_token", specials.add_bos.into());
        put("ggml.add_eos_token", specials.add_eos.into());
    }
    if let Some(template) = &tokenizer.chat_template {
        put("chat_template", template.as_str().into());
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

/// Whether a space is put before a text: seen by what the tokenizer does to one.
fn adds_space(tokenizer: &Tokenizer, inner: &tokenizers::Tokenizer) -> bool {
    debug_assert_eq!(tokenizer.vocab.spelling, Spelling::Metaspace);
    let probe = inner.encode("a", false).ok();
    probe.and_then(|e| e.get_tokens().first().map(|t| t.starts_with('▁'))).unwrap_or(true)
}

/// Whether a BPE of the library is SentencePiece's: pieces with `▁`, and bytes for what has no piece.
pub(super) fn is_sentencepiece(tokenizer_spelling: Spelling, tokens: &[String]) -> bool {
    tokenizer_spelling == Spelling::Metaspace && tokens.iter().any(|t| byte_of(t).is_some())
}
