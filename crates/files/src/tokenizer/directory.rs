//! Directories from before `tokenizer.json`: SentencePiece and tiktoken models, `vocab.json` with `merges.txt`,
//! `vocab.txt`, RWKV's vocabulary.

use super::config::{self, TokenizerConfig};
use super::proto::Model;
use super::rwkv::{self, Trie};
use super::spm::{Prefix, SentencePiece};
use super::vocab::{Spelling, TokenKind, Vocabulary};
use super::{Engine, Family, MOST_BYTES, Specials, Tokenizer, build, charsmap, document, pre, ranks};
use crate::error::Origin;
use crate::{Json, Result, source};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// What a file is read by. The first that is there is taken.
type Reader = fn(&Files, &[u8]) -> Result<Tokenizer>;
const READERS: &[(&str, Reader)] = &[
    ("tokenizer.model", model),
    ("spiece.model", model),
    ("sentencepiece.bpe.model", model),
    ("tiktoken.model", tiktoken),
    ("qwen.tiktoken", tiktoken),
    ("vocab.json", merges),
    ("vocab.txt", wordpiece),
    ("rwkv_vocab_v20230424.txt", world),
];

/// The file at hand and what the others say.
struct Files {
    origin: Origin,
    config: TokenizerConfig,
    /// Added tokens by id: text, and whether they steer the model.
    added: BTreeMap<u32, (String, bool)>,
}

/// Whether the directory has one of the files.
pub(super) fn has_any(directory: &Path) -> bool {
    READERS.iter().any(|(name, _)| directory.join(name).is_file())
}

/// The tokenizer of a directory without `tokenizer.json`.
pub(super) fn open(directory: &Path) -> Result<Tokenizer> {
    let Some((name, read)) = READERS.iter().find(|(name, _)| directory.join(name).exists()) else {
        let names: Vec<&str> = READERS.iter().map(|(name, _)| *name).collect();
        let problem = format!("not there, nor is any of {}; download the tokenizer of the model", names.join(", "));
        return Err(Origin::new(directory.join("tokenizer.json")).tokenizer("file", problem));
    };
    let origin = Origin::new(directory.join(name));
    let bytes = source::read_limited(&origin, "file size", MOST_BYTES)?;
    let (config_origin, config) =
        TokenizerConfig::beside(&origin)?.unwrap_or_else(|| (origin.clone(), TokenizerConfig::default()));
    let mut added: BTreeMap<u32, (String, bool)> = BTreeMap::new();
    if let Some(json) = Json::open_if_exists(directory.join("added_tokens.json"))? {
        for (text, id) in json.root().as_object().into_iter().flatten() {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            added.insert(id.ok_or_else(|| origin.malformed("added_tokens.json", "not an id"))?, (text.clone(), true));
        }
    }
    added.extend(config.added().iter().map(|(id, token)| (*id, (token.content.clone(), token.special))));
    let files = Files { origin, config, added };
    let mut tokenizer = read(&files, &bytes)?;
    let (add_bos, add_eos) = (tokenizer.specials.add_bos, tokenizer.specials.add_eos);
    let wanted = files.config.adds();
    config::apply(&mut tokenizer, &config_origin, files.config)?;
    let more = config::apply_siblings(&mut tokenizer)?;
    let specials = &mut tokenizer.specials;
    specials.add_bos = wanted.0.unwrap_or(add_bos) && specials.bos.is_some();
    specials.add_eos = wanted.1.unwrap_or(add_eos) && specials.eos.is_some();
    config::finish(specials, &tokenizer.vocab, more);
    Ok(tokenizer)
}

impl Files {
    fn tokenizer(&self, engine: Engine, family: Family, vocab: Vocabulary, specials: Specials) -> Tokenizer {
        Tokenizer {
            origin: self.origin.clone(),
            engine,
            family,
            vocab,
            specials,
            wraps: true,
            pre: None,
            names: Vec::new(),
            chat_templates: Vec::new(),
        }
    }

    /// The tokenizer of the library that a document describes.
    fn library(&self, parts: build::Parts, family: Family, specials: Specials) -> Result<Tokenizer> {
        let added: Vec<build::Added<'_>> =
            self.added.iter().map(|(id, (text, special))| (*id, text.as_str(), *special)).collect();
        let loaded = document::load(&self.origin, &parts.document(&added))?;
        Ok(self.tokenizer(Engine::Library(Box::new(loaded.inner)), family, loaded.vocab, specials))
    }

    fn text<'b>(&self, bytes: &'b [u8]) -> Result<&'b str> {
        std::str::from_utf8(bytes).map_err(|_| self.origin.malformed("vocabulary", "not UTF-8"))
    }
}

/// `tokenizer.model`: SentencePiece's, or tiktoken's under the same name.
fn model(files: &Files, bytes: &[u8]) -> Result<Tokenizer> {
    let origin = &files.origin;
    // A message begins with the key of its first piece; a line of base64 does not.
    if bytes.first() != Some(&0x0a) {
        return tiktoken(files, bytes);
    }
    let model = Model::parse(origin, bytes)?;
    let (mut tokens, mut kinds, mut scores) = (Vec::new(), Vec::new(), Vec::new());
    for piece in &model.pieces {
        tokens.push(piece.text.clone());
        kinds.push(TokenKind::from_number(piece.kind));
        scores.push(piece.score);
    }
    for (id, (text, special)) in &files.added {
        let at = *id as usize;
        if at > tokens.len() {
            let problem = format!("the token {text:?} has the id {id}, but {} comes next", tokens.len());
            return Err(origin.tokenizer("added_tokens", problem));
        }
        let kind = if *special { TokenKind::Control } else { TokenKind::UserDefined };
        match kinds.get_mut(at) {
            // The unknown token stays what it is.
            Some(TokenKind::Unknown) => {}
            Some(old) => (tokens[at], *old) = (text.clone(), kind),
            None => {
                tokens.push(text.clone());
                kinds.push(kind);
                scores.push(0.0);
            }
        }
    }
    let [unknown, bos, eos, padding] = model.ids;
    let specials = Specials { unknown, bos, eos, padding, ..Specials::default() };
    if model.kind == Model::UNIGRAM {
        if files.config.class() == Some("XLMRobertaTokenizer") {
            let problem = "XLM-RoBERTa numbers the tokens otherwise; use the tokenizer.json of the model";
            return Err(origin.tokenizer("tokenizer_class", problem));
        }
        let charsmap = (!model.charsmap.is_empty()).then_some(&model.charsmap);
        if let Some(problem) = charsmap.and_then(|table| charsmap::problem(table)) {
            return Err(origin.malformed("precompiled_charsmap", problem));
        }
        let vocab = Vocabulary::new(tokens, kinds, Spelling::Metaspace);
        let parts = build::Unigram {
            vocab: vocab.tokens.iter().map(String::as_str).zip(scores).collect(),
            unknown,
            byte_fallback: model.byte_fallback,
            charsmap: charsmap.map(|table| BASE64.encode(table)),
            add_space_prefix: model.add_dummy_prefix,
            remove_extra_whitespaces: model.remove_extra_whitespaces,
        };
        let special = |(id, kind): (usize, &TokenKind)| {
            let special = kind.is_special();
            (special || *kind == TokenKind::UserDefined).then(|| (id as u32, (vocab.tokens[id].clone(), special)))
        };
        let added = vocab.kinds.iter().enumerate().filter_map(special).collect();
        let files = Files { origin: origin.clone(), config: TokenizerConfig::default(), added };
        let specials = Specials { add_eos: true, ..specials };
        return files.library(parts.parts(), Family::Unigram, specials);
    }
    if model.kind != Model::BPE || !model.charsmap.is_empty() {
        let problem = "only unigram models and BPE models that leave characters as they are can be read; use the \
                       tokenizer.json of the model";
        return Err(origin.tokenizer("model_type", problem));
    }
    let vocab = Vocabulary::new(tokens, kinds, Spelling::Metaspace);
    let prefix = match (files.config.prefix_space().unwrap_or(model.add_dummy_prefix), files.config.legacy()) {
        (false, _) => Prefix::Never,
        (true, true) => Prefix::Always,
        (true, false) => Prefix::First,
    };
    let engine = SentencePiece::new(origin, &vocab, scores, prefix, unknown)?;
    let specials = Specials { add_bos: true, ..specials };
    Ok(files.tokenizer(Engine::SentencePiece(Box::new(engine)), Family::SentencePiece, vocab, specials))
}

/// The split that a class of tokenizers stands for, by its name in GGUF, and whether characters are composed first.
fn split_of(class: Option<&str>, default: &'static str) -> (&'static str, bool) {
    match class {
        Some("Qwen2Tokenizer") => ("qwen2", true),
        Some("QWenTokenizer") => ("qwen2", true),
        Some("TikTokenTokenizer") => ("kimi-k2", false),
        _ => (default, false),
    }
}

/// A byte-level BPE with the split of the directory's class of tokenizers.
fn byte_level(
    files: &Files,
    vocab: Value,
    merges: Vec<(String, String)>,
    default: &'static str,
    ignore_merges: bool,
    specials: Specials,
) -> Result<Tokenizer> {
    let (name, compose) = split_of(files.config.class(), default);
    let split = pre::by_name(name)
        .ok_or_else(|| files.origin.tokenizer("tokenizer_class", format!("no split is known as {name}")))?;
    let mut added = files.added.clone();
    for text in files.config.special_texts() {
        let id = vocab.get(text).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        added.extend(id.map(|id| (id, (text.to_owned(), true))));
    }
    let files = Files { origin: files.origin.clone(), config: TokenizerConfig::default(), added };
    let parts = build::byte_level(vocab, merges, pre::to_json(split), compose, ignore_merges);
    let mut tokenizer = files.library(parts, Family::ByteLevelBpe, specials)?;
    tokenizer.pre = Some(name.to_owned());
    Ok(tokenizer)
}

/// Tokens in base64 with ranks.
fn tiktoken(files: &Files, bytes: &[u8]) -> Result<Tokenizer> {
    let (tokens, merges) = ranks::read(&files.origin, files.text(bytes)?)?;
    let vocab = tokens.into_iter().enumerate().map(|(id, text)| (text, id.into())).collect();
    byte_level(files, Value::Object(vocab), merges, "llama-bpe", true, Specials::default())
}

/// GPT-2's `vocab.json`, with `merges.txt` beside it.
fn merges(files: &Files, bytes: &[u8]) -> Result<Tokenizer> {
    let vocab: Value = serde_json::from_slice(bytes).map_err(|e| files.origin.malformed("JSON", e))?;
    let origin = Origin::new(files.origin.path().with_file_name("merges.txt"));
    let text = source::read_limited(&origin, "file size", MOST_BYTES)?;
    let text = std::str::from_utf8(&text).map_err(|_| origin.malformed("merges", "not UTF-8"))?;
    let mut merges = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(i, l)| !(l.is_empty() || *i == 0 && l.starts_with("#version"))) {
        let pair = line.split_once(' ').filter(|(_, b)| !b.contains(' '));
        let (a, b) = pair.ok_or_else(|| origin.malformed(format_args!("line {}", i + 1), "not two tokens"))?;
        merges.push((a.to_owned(), b.to_owned()));
    }
    let roberta = matches!(files.config.class(), Some("RobertaTokenizer" | "BartTokenizer" | "LongformerTokenizer"));
    let id = |text: &str| vocab.get(text).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    let specials = match roberta {
        true => Specials { bos: id("<s>"), eos: id("</s>"), add_bos: true, add_eos: true, ..Specials::default() },
        false => Specials::default(),
    };
    byte_level(files, vocab, merges, "gpt-2", false, specials)
}

/// BERT's `vocab.txt`: a token on each line.
fn wordpiece(files: &Files, bytes: &[u8]) -> Result<Tokenizer> {
    let text = files.text(bytes)?;
    let vocab: serde_json::Map<String, Value> =
        text.lines().enumerate().map(|(id, token)| (token.trim_end_matches('\r').to_owned(), id.into())).collect();
    let id = |text: &str| vocab.get(text).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    let (bos, eos) = (id("[CLS]"), id("[SEP]"));
    let specials = Specials {
        bos,
        eos,
        classifier: bos,
        separator: eos,
        unknown: id("[UNK]"),
        padding: id("[PAD]"),
        mask: id("[MASK]"),
        add_bos: true,
        add_eos: true,
        ..Specials::default()
    };
    let mut added = files.added.clone();
    for name in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] {
        added.extend(id(name).map(|id| (id, (name.to_owned(), true))));
    }
    let lowercase = files.config.lower_case().unwrap_or(true);
    let files = Files { origin: files.origin.clone(), config: TokenizerConfig::default(), added };
    files.library(build::wordpiece(vocab.into(), "[UNK]", lowercase, None), Family::WordPiece, specials)
}

/// RWKV's "world" vocabulary.
fn world(files: &Files, bytes: &[u8]) -> Result<Tokenizer> {
    let vocab = rwkv::vocabulary(&files.origin, files.text(bytes)?)?;
    let trie = Trie::new(&files.origin, &vocab)?;
    // Id 0 ends a text; a blank line ends a turn.
    let specials = Specials { bos: Some(0), eos: Some(0), ..Specials::default() };
    Ok(files.tokenizer(Engine::Trie(Box::new(trie)), Family::Rwkv, vocab, specials))
}
