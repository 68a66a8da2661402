//! `tokenizer.json`, read and checked before the tokenizers library gets it: that library trusts its input.

use super::charsmap;
use super::vocab::{Spelling, TokenKind, Vocabulary};
use crate::Result;
use crate::error::Origin;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::{BpeBuilder, Vocab};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

/// Ids may leave gaps, but not more than this beyond twice the number of tokens: tables are as long as the largest id.
const MOST_GAP: usize = 4096;

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    /// Read when its kind is known: it may be large, and as a tree of values many times larger.
    #[serde(borrow)]
    model: &'a RawValue,
}

#[derive(Deserialize)]
struct ModelKind {
    #[serde(rename = "type")]
    kind: Option<String>,
    merges: Option<IgnoredAny>,
    unk_token: Option<String>,
    unk_id: Option<u32>,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

/// The BPE model. Its tokens and merges are the larger part of the file.
#[derive(Deserialize)]
struct Bpe {
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Joined(String),
}

/// A tokenizer of the library, and what it says about itself.
pub(super) struct Loaded {
    pub(super) inner: tokenizers::Tokenizer,
    pub(super) vocab: Vocabulary,
    pub(super) pre_tokenizer: Value,
    pub(super) normalizer: Value,
    /// The token for text that has none.
    pub(super) unknown: Option<u32>,
    pub(super) bpe: bool,
    pub(super) unigram: bool,
    pub(super) ignore_merges: bool,
}

pub(super) fn load(origin: &Origin, bytes: &[u8]) -> Result<Loaded> {
    let document: Document = serde_json::from_slice(bytes).map_err(|e| origin.malformed("JSON", e))?;
    let Document { added_tokens, normalizer, pre_tokenizer, post_processor, decoder, model } = document;
    for (field, value) in [
        ("normalizer", &normalizer),
        ("pre_tokenizer", &pre_tokenizer),
        ("post_processor", &post_processor),
        ("decoder", &decoder),
    ] {
        harmless(origin, field, value)?;
    }
    let model = model.get();
    let ModelKind { kind, merges, unk_token, unk_id } =
        serde_json::from_str(model).map_err(|e| origin.malformed("model", e))?;
    // Files from before the field existed are BPE where they have merges.
    let bpe = kind.as_deref() == Some("BPE") || (kind.is_none() && merges.is_some());
    let unigram = kind.as_deref() == Some("Unigram");
    let mut ignore_merges = false;
    let model = if bpe {
        let model: Bpe = serde_json::from_str(model).map_err(|e| origin.malformed("model", e))?;
        ignore_merges = model.ignore_merges.unwrap_or(false);
        build_bpe(origin, model)?
    } else {
        let model = serde_json::from_str(model).map_err(|e| origin.malformed("model", e))?;
        check_model(origin, &model)?;
        model
    };
    let mut inner = tokenizers::Tokenizer::new(model);
    let error = |field: &'static str| move |e: serde_json::Error| origin.malformed(field, e);
    inner
        .with_normalizer(
            serde_json::from_value::<Option<NormalizerWrapper>>(normalizer.clone()).map_err(error("normalizer"))?,
        )
        .map_err(|e| origin.malformed("normalizer", e))?;
    inner.with_pre_tokenizer(
        serde_json::from_value::<Option<PreTokenizerWrapper>>(pre_tokenizer.clone()).map_err(error("pre_tokenizer"))?,
    );
    let spelling = spelling(&decoder);
    inner.with_decoder(serde_json::from_value::<Option<DecoderWrapper>>(decoder).map_err(error("decoder"))?);
    add_tokens(origin, &mut inner, added_tokens)?;
    let vocab = vocabulary(origin, &inner, spelling)?;
    let unknown = unk_token.and_then(|text| vocab.ids.get(&text).copied()).or(unk_id);
    check_ids(origin, &post_processor, &vocab)?;
    inner.with_post_processor(
        serde_json::from_value::<Option<PostProcessorWrapper>>(post_processor).map_err(error("post_processor"))?,
    );
    Ok(Loaded { inner, vocab, pre_tokenizer, normalizer, unknown, bpe, unigram, ignore_merges })
}

/// Settings with which the library would stop the process. They are found by their own names: the library goes by those,
/// and not always by the `type` beside them.
fn harmless(origin: &Origin, field: &str, value: &Value) -> Result<()> {
    match value {
        Value::Object(map) => {
            let refuse = |name: &str, problem: &str| Err(origin.malformed(format_args!("{field}: {name}"), problem));
            let number = |name: &str| map.get(name).and_then(Value::as_u64);
            if map.contains_key("precompiled_charsmap") || map.get("type").is_some_and(|t| t == "Precompiled") {
                let table = map.get("precompiled_charsmap").and_then(Value::as_str).unwrap_or_default();
                let bytes =
                    BASE64.decode(table).map_err(|e| origin.malformed(format_args!("{field}: Precompiled"), e))?;
                if let Some(problem) = charsmap::problem(&bytes) {
                    return refuse("Precompiled", problem);
                }
            }
            if number("length") == Some(0) {
                return refuse("length", "zero");
            }
            if field == "decoder" && number("stop").unwrap_or(0) > 0 {
                return refuse("stop", "not zero, which is not supported");
            }
            if map.get("pattern").is_some_and(|p| p.get("String").is_some_and(|s| s == "")) {
                return refuse("pattern", "empty");
            }
            map.values().try_for_each(|v| harmless(origin, field, v))
        }
        Value::Array(values) => values.iter().try_for_each(|v| harmless(origin, field, v)),
        _ => Ok(()),
    }
}

fn build_bpe(origin: &Origin, model: Bpe) -> Result<ModelWrapper> {
    let prefix = model.continuing_subword_prefix.as_deref().unwrap_or("");
    let mut merges = Vec::with_capacity(model.merges.len());
    for (i, merge) in model.merges.into_iter().enumerate() {
        let field = || format!("model.merges[{i}]");
        let (a, b) = match merge {
            Merge::Pair(a, b) => (a, b),
            Merge::Joined(text) => match text.split_once(' ') {
                Some((a, b)) if !b.contains(' ') => (a.to_owned(), b.to_owned()),
                _ => return Err(origin.malformed(field(), format!("{text:?} is not two tokens"))),
            },
        };
        merges.push(check_merge(origin, &field(), &model.vocab, prefix, a, b)?);
    }
    if let Some(unknown) = &model.unk_token
        && !model.vocab.contains_key(unknown)
    {
        return Err(origin.tokenizer("model.unk_token", format!("{unknown:?} is not in the vocabulary")));
    }
    let vocab: Vocab = model.vocab.into_iter().collect();
    let mut builder = BpeBuilder::new().vocab_and_merges(vocab, merges);
    if let Some(unknown) = model.unk_token {
        builder = builder.unk_token(unknown);
    }
    if let Some(prefix) = model.continuing_subword_prefix {
        builder = builder.continuing_subword_prefix(prefix);
    }
    if let Some(suffix) = model.end_of_word_suffix {
        builder = builder.end_of_word_suffix(suffix);
    }
    // Dropout is for training a model; here the same text has the same tokens.
    let model = builder
        .fuse_unk(model.fuse_unk.unwrap_or(false))
        .byte_fallback(model.byte_fallback.unwrap_or(false))
        .ignore_merges(model.ignore_merges.unwrap_or(false))
        .build()
        .map_err(|e| origin.malformed("model", e))?;
    Ok(ModelWrapper::BPE(model))
}

/// A merge whose parts and whole are tokens. The library copies the whole into a buffer that is as long as the longest
/// token.
pub(super) fn check_merge(
    origin: &Origin,
    field: &str,
    vocab: &HashMap<String, u32>,
    prefix: &str,
    a: String,
    b: String,
) -> Result<(String, String)> {
    let missing = |text: &str| {
        let problem =
            format!("{text:?} points past the vocabulary: no token has this text; convert the tokenizer again");
        origin.tokenizer(field, problem)
    };
    let tail = b.strip_prefix(prefix).ok_or_else(|| missing(&b))?;
    for text in [a.as_str(), b.as_str(), &format!("{a}{tail}")] {
        if !vocab.contains_key(text) {
            return Err(missing(text));
        }
    }
    Ok((a, b))
}

/// The other kinds of model are small, and checked as the library has read them.
fn check_model(origin: &Origin, model: &ModelWrapper) -> Result<()> {
    if let ModelWrapper::WordPiece(model) = model
        && model.continuing_subword_prefix.len() > 64
    {
        return Err(origin.malformed("model.continuing_subword_prefix", "longer than 64 bytes"));
    }
    Ok(())
}

fn add_tokens(origin: &Origin, inner: &mut tokenizers::Tokenizer, added: Vec<Added>) -> Result<()> {
    let expected: Vec<(u32, String)> = added.iter().map(|a| (a.id, a.token.content.clone())).collect();
    if let Some((id, _)) = expected.iter().find(|(_, content)| content.is_empty()) {
        return Err(origin.malformed("added_tokens", format!("token {id} has no content")));
    }
    inner.add_tokens(added.into_iter().map(|a| a.token)).map_err(|e| origin.malformed("added_tokens", e))?;
    for (id, content) in expected {
        let found = inner.token_to_id(&content);
        if found != Some(id) {
            let problem = format!(
                "{content:?} has the id {id}, but {} is its place in the vocabulary; an id must not point past the \
                 vocabulary or leave gaps",
                found.map_or("nothing".to_owned(), |id| id.to_string())
            );
            return Err(origin.tokenizer("added_tokens", problem));
        }
    }
    Ok(())
}

/// The tokens by id, from the library's table.
fn vocabulary(origin: &Origin, inner: &tokenizers::Tokenizer, spelling: Spelling) -> Result<Vocabulary> {
    let all: BTreeMap<u32, String> = {
        let by_text = inner.get_vocab(true);
        let count = by_text.len();
        let by_id: BTreeMap<u32, String> = by_text.into_iter().map(|(text, id)| (id, text)).collect();
        if by_id.len() != count {
            return Err(origin.tokenizer("model.vocab", "two tokens have the same id; convert the tokenizer again"));
        }
        by_id
    };
    let len = all.last_key_value().map_or(0, |(id, _)| *id as usize + 1);
    if len > all.len() * 2 + MOST_GAP {
        let problem = format!("the id {} points past the vocabulary of {} tokens", len - 1, all.len());
        return Err(origin.tokenizer("model.vocab", problem));
    }
    let added = inner.get_added_tokens_decoder();
    let mut tokens = vec![String::new(); len];
    let mut kinds = vec![TokenKind::Unused; len];
    for (id, text) in all {
        kinds[id as usize] = match added.get(&id) {
            Some(token) if token.special => TokenKind::Control,
            Some(_) => TokenKind::UserDefined,
            None if spelling == Spelling::Metaspace && super::vocab::byte_of(&text).is_some() => TokenKind::Byte,
            None => TokenKind::Normal,
        };
        tokens[id as usize] = text;
    }
    let mut vocab = Vocabulary::new(tokens, kinds, spelling);
    // Gaps have no text that could be looked up.
    vocab.ids.remove("");
    Ok(vocab)
}

/// How the decoder spells bytes.
fn spelling(decoder: &Value) -> Spelling {
    match decoder.get("type").and_then(Value::as_str) {
        Some("ByteLevel") => Spelling::ByteLevel,
        Some("WordPiece") => Spelling::WordPiece,
        Some("Metaspace" | "ByteFallback") => Spelling::Metaspace,
        Some("Replace") if decoder.pointer("/pattern/String").is_some_and(|s| s == "▁") => Spelling::Metaspace,
        Some("Sequence") => {
            let steps = decoder.get("decoders").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            steps.iter().map(spelling).find(|s| *s != Spelling::Plain).unwrap_or(Spelling::Plain)
        }
        _ => Spelling::Plain,
    }
}

/// The ids a post-processor adds are ids of the vocabulary, and what its template names is there: the library looks
/// neither up. Found by the names of the settings, as in [`harmless`].
fn check_ids(origin: &Origin, value: &Value, vocab: &Vocabulary) -> Result<()> {
    let check = |field: &str, id: Option<u64>| match id {
        Some(id) => vocab.check(origin, field, u32::try_from(id).unwrap_or(u32::MAX)).map(drop),
        None => Err(origin.malformed(field, "not an id")),
    };
    let list = |value: Option<&'_ Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    if value.get("single").is_some() {
        let tokens = value.get("special_tokens").and_then(Value::as_object).cloned().unwrap_or_default();
        for piece in list(value.get("single")) {
            let problem = if let Some(token) = piece.get("SpecialToken") {
                let name = token.get("id").and_then(Value::as_str).unwrap_or_default();
                (!tokens.contains_key(name)).then(|| format!("{name:?} is not in its special_tokens"))
            } else {
                let first = piece.pointer("/Sequence/id").is_some_and(|id| id == "A");
                (!first).then(|| "a piece is neither the text nor a special token".to_owned())
            };
            if let Some(problem) = problem {
                return Err(origin.malformed("post_processor.single", problem));
            }
        }
        for (name, token) in &tokens {
            for id in list(token.get("ids")) {
                check(&format!("post_processor.special_tokens.{name}.ids"), id.as_u64())?;
            }
        }
    }
    for name in ["sep", "cls"] {
        if let Some(token) = value.get(name) {
            check(&format!("post_processor.{name}"), token.get(1).and_then(Value::as_u64))?;
        }
    }
    list(value.get("processors")).iter().try_for_each(|step| check_ids(origin, step, vocab))
}
