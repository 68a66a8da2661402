//! A tokenizer from the metadata of a GGUF file.

use super::rwkv::Trie;
use super::spm::{Prefix, SentencePiece};
use super::vocab::{Spelling, TokenKind, Vocabulary, ends, is_end_name};
use super::{Engine, Family, Specials, Tokenizer, build, charsmap, document, pre, to_gguf};
use crate::Result;
use crate::error::Origin;
use crate::gguf::Metadata;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokenizers::models::bpe::{BpeBuilder, Vocab};
use tokenizers::{AddedToken, PreTokenizerWrapper};

/// More tokens than this are refused; the largest vocabularies have a quarter of a million.
const MOST_TOKENS: usize = 1 << 22;

pub(super) fn load(meta: &Metadata) -> Result<Tokenizer> {
    let model: &str = meta.require("tokenizer.ggml.model")?;
    match model {
        "no_vocab" | "none" => no_vocabulary(meta),
        "gpt2" => bpe(meta),
        "gemma4" => metaspace_bpe(meta),
        "llama" => sentencepiece(meta),
        "bert" => wordpiece(meta),
        "t5" => unigram(meta),
        "rwkv" => rwkv(meta),
        other => Err(meta.origin().unsupported(
            "metadata tokenizer.ggml.model",
            format!("the tokenizer {other:?}"),
            "gpt2, gemma4, llama, bert, t5, rwkv, no_vocab",
        )),
    }
}

/// The model was made without text: its ids are all there is.
fn no_vocabulary(meta: &Metadata) -> Result<Tokenizer> {
    Ok(Tokenizer {
        origin: meta.origin().clone(),
        engine: Engine::None,
        family: Family::None,
        vocab: Vocabulary::new(Vec::new(), Vec::new(), Spelling::Plain),
        specials: Specials::default(),
        wraps: true,
        pre: None,
        names: Vec::new(),
        chat_templates: templates(meta)?,
    })
}

fn bpe(meta: &Metadata) -> Result<Tokenizer> {
    let origin = meta.origin();
    let name: &str = meta.get_as("tokenizer.ggml.pre")?.unwrap_or("default");
    if pre::METASPACE.contains(&name) {
        return metaspace_bpe(meta);
    }
    let vocab = vocabulary(meta, Spelling::ByteLevel)?;
    let split = pre::by_name(name).ok_or_else(|| {
        origin.unsupported("metadata tokenizer.ggml.pre", format!("the pre-tokenizer {name:?}"), pre::names())
    })?;
    let merges = merges(meta, &vocab)?;
    let by_text: Vocab = vocab.ids.iter().map(|(text, id)| (text.clone(), *id)).collect();
    let builder = BpeBuilder::new().vocab_and_merges(by_text, merges).ignore_merges(split.ignore_merges);
    let model = builder.build().map_err(|e| origin.tokenizer("metadata tokenizer.ggml.merges", e))?;
    let mut inner = tokenizers::Tokenizer::new(model);
    let pre_tokenizer: PreTokenizerWrapper =
        serde_json::from_value(pre::to_json(split)).map_err(|e| origin.tokenizer("metadata tokenizer.ggml.pre", e))?;
    inner.with_pre_tokenizer(Some(pre_tokenizer));
    if meta.get_as(&format!("tokenizer.{}", to_gguf::NFC))? == Some(true) {
        let nfc = tokenizers::normalizers::unicode::NFC;
        inner.with_normalizer(Some(nfc)).map_err(|e| origin.tokenizer("metadata tokenizer.ggml.tokens", e))?;
    }
    let added = vocab.tokens.iter().zip(&vocab.kinds).filter_map(|(text, kind)| {
        let special = matches!(kind, TokenKind::Control | TokenKind::Unknown);
        (special || *kind == TokenKind::UserDefined).then(|| AddedToken::from(text.clone(), special).normalized(false))
    });
    let added: Vec<AddedToken> = added.collect();
    inner.add_tokens(added).map_err(|e| origin.tokenizer("metadata tokenizer.ggml.tokens", e))?;
    let specials = specials(meta, &vocab, [None; 3], (split.add_bos, false))?;
    finish(meta, Engine::Library(Box::new(inner)), Family::ByteLevelBpe, vocab, specials, Some(name))
}

/// The tokenizer of what has been read.
fn finish(
    meta: &Metadata,
    engine: Engine,
    family: Family,
    vocab: Vocabulary,
    specials: Specials,
    pre: Option<&str>,
) -> Result<Tokenizer> {
    let named = [
        ("bos_token", specials.bos),
        ("eos_token", specials.eos),
        ("unk_token", specials.unknown),
        ("pad_token", specials.padding),
        ("sep_token", specials.separator),
        ("cls_token", specials.classifier),
        ("mask_token", specials.mask),
    ];
    let names = named.into_iter().filter_map(|(name, id)| Some((name.to_owned(), vocab.text(id?)?.to_owned())));
    Ok(Tokenizer {
        origin: meta.origin().clone(),
        engine,
        family,
        names: names.collect(),
        vocab,
        specials,
        wraps: true,
        pre: pre.map(str::to_owned),
        chat_templates: templates(meta)?,
    })
}

/// The templates of conversations, the one without a name first.
fn templates(meta: &Metadata) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    if let Some(text) = meta.get_as::<String>("tokenizer.chat_template")? {
        all.push((super::config::DEFAULT.to_owned(), text));
    }
    // The names are listed in `tokenizer.chat_templates` too, but the keys say everything.
    for (key, _) in meta.iter() {
        if let Some(name) = key.strip_prefix("tokenizer.chat_template.") {
            all.push((name.to_owned(), meta.require(key)?));
        }
    }
    Ok(all)
}

/// The merges, in order.
fn merges(meta: &Metadata, vocab: &Vocabulary) -> Result<Vec<(String, String)>> {
    let origin = meta.origin();
    let mut merges = Vec::new();
    for (i, merge) in meta.require::<Vec<&str>>("tokenizer.ggml.merges")?.into_iter().enumerate() {
        let field = format!("metadata tokenizer.ggml.merges[{i}]");
        // The first part may itself begin with a space.
        let at = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
        let Some(at) = at else {
            return Err(origin.malformed(field, format!("{merge:?} is not two tokens with a space between")));
        };
        let (a, b) = (merge[..at].to_owned(), merge[at + 1..].to_owned());
        merges.push(document::check_merge(origin, &field, &vocab.ids, "", a, b)?);
    }
    Ok(merges)
}

/// BPE over characters, with `▁` for spaces.
fn metaspace_bpe(meta: &Metadata) -> Result<Tokenizer> {
    let vocab = vocabulary(meta, Spelling::Metaspace)?;
    let merges = merges(meta, &vocab)?;
    let specials = specials(meta, &vocab, [None; 3], (false, false))?;
    let unknown = specials.unknown.and_then(|id| vocab.text(id));
    let inner = library(meta, build::metaspace_bpe(by_text(&vocab), merges, unknown), &vocab)?;
    finish(meta, Engine::Library(inner), Family::SentencePiece, vocab, specials, meta.get_as("tokenizer.ggml.pre")?)
}

/// BERT's. GGUF marks tokens that begin a word (`▁`), tokenizers those that do not (`##`).
fn wordpiece(meta: &Metadata) -> Result<Tokenizer> {
    let mut vocab = vocabulary(meta, Spelling::WordPiece)?;
    for (text, kind) in vocab.tokens.iter_mut().zip(&vocab.kinds) {
        if *kind == TokenKind::Normal {
            *text = text.strip_prefix('▁').map_or_else(|| format!("##{text}"), str::to_owned);
        }
    }
    let vocab = Vocabulary::new(vocab.tokens, vocab.kinds, vocab.spelling);
    // BERT's own places, where the file does not say.
    let default = |id: u32| ((id as usize) < vocab.len()).then_some(id);
    let mut specials = specials(meta, &vocab, [None, None, default(100)], (true, true))?;
    specials.classifier = specials.classifier.or(specials.bos).or(default(101));
    specials.separator = specials.separator.or(specials.eos).or(default(102));
    (specials.bos, specials.eos) = (specials.classifier, specials.separator);
    (specials.add_bos, specials.add_eos) = (specials.bos.is_some(), specials.eos.is_some());
    let unknown = specials.unknown.and_then(|id| vocab.text(id)).unwrap_or("[UNK]").to_owned();
    let lowercase = meta.get_as("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
    let accents = meta.get_as("tokenizer.ggml.normalizer.strip_accents")?;
    let inner = library(meta, build::wordpiece(by_text(&vocab), &unknown, lowercase, accents), &vocab)?;
    finish(meta, Engine::Library(inner), Family::WordPiece, vocab, specials, meta.get_as("tokenizer.ggml.pre")?)
}

/// SentencePiece's unigram model, of T5 and XLM-RoBERTa.
fn unigram(meta: &Metadata) -> Result<Tokenizer> {
    let vocab = vocabulary(meta, Spelling::Metaspace)?;
    let scores = scores(meta, &vocab)?;
    let default = |id: u32| ((id as usize) < vocab.len()).then_some(id);
    let specials = specials(meta, &vocab, [None, default(1), default(2)], (false, true))?;
    let bytes = |kind: crate::gguf::ArrayRef<'_>| -> Option<Vec<u8>> {
        kind.iter()
            .map(|value| match value {
                crate::gguf::ValueRef::U8(x) => Some(x),
                crate::gguf::ValueRef::I8(x) => Some(x as u8),
                _ => None,
            })
            .collect()
    };
    let key = "tokenizer.ggml.precompiled_charsmap";
    let charsmap = match meta.get_as::<crate::gguf::ArrayRef<'_>>(key)? {
        None => None,
        Some(array) => {
            let table = bytes(array).ok_or_else(|| meta.invalid(key, "not an array of bytes".to_owned()))?;
            if let Some(problem) = charsmap::problem(&table) {
                return Err(meta.invalid(key, problem.to_owned()));
            }
            Some(BASE64.encode(table))
        }
    };
    let model = build::Unigram {
        vocab: vocab.tokens.iter().map(String::as_str).zip(scores).collect(),
        unknown: specials.unknown,
        byte_fallback: vocab.kinds.contains(&TokenKind::Byte),
        charsmap,
        add_space_prefix: meta.get_as("tokenizer.ggml.add_space_prefix")?.unwrap_or(true),
        remove_extra_whitespaces: meta.get_as("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(false),
    };
    let inner = library(meta, model.parts(), &vocab)?;
    finish(meta, Engine::Library(inner), Family::Unigram, vocab, specials, meta.get_as("tokenizer.ggml.pre")?)
}

/// RWKV's, longest match.
fn rwkv(meta: &Metadata) -> Result<Tokenizer> {
    let vocab = vocabulary(meta, Spelling::Escaped)?;
    let trie = Trie::new(meta.origin(), &vocab)?;
    let specials = specials(meta, &vocab, [None; 3], (false, false))?;
    finish(meta, Engine::Trie(Box::new(trie)), Family::Rwkv, vocab, specials, None)
}

/// The ids by text, as a `tokenizer.json` has them.
fn by_text(vocab: &Vocabulary) -> serde_json::Value {
    vocab.ids.iter().map(|(text, id)| (text.clone(), (*id).into())).collect::<serde_json::Map<_, _>>().into()
}

/// The tokenizer of the library that a document describes, with the vocabulary's special tokens.
fn library(meta: &Metadata, parts: build::Parts, vocab: &Vocabulary) -> Result<Box<tokenizers::Tokenizer>> {
    let special = |(id, (text, kind)): (usize, (&'_ String, &TokenKind))| {
        (kind.is_special() || *kind == TokenKind::UserDefined).then(|| (id as u32, text.clone(), kind.is_special()))
    };
    let added: Vec<(u32, String, bool)> =
        vocab.tokens.iter().zip(&vocab.kinds).enumerate().filter_map(special).collect();
    let added: Vec<build::Added<'_>> = added.iter().map(|(id, text, special)| (*id, text.as_str(), *special)).collect();
    Ok(Box::new(document::load(meta.origin(), &parts.document(&added))?.inner))
}

fn sentencepiece(meta: &Metadata) -> Result<Tokenizer> {
    let vocab = vocabulary(meta, Spelling::Metaspace)?;
    let scores = scores(meta, &vocab)?;
    // SentencePiece's own places, where the file does not say.
    let default = |id: u32| ((id as usize) < vocab.len()).then_some(id);
    let specials = specials(meta, &vocab, [default(1), default(2), default(0)], (true, false))?;
    let prefix = match meta.get_as("tokenizer.ggml.add_space_prefix")?.unwrap_or(true) {
        true => Prefix::Always,
        false => Prefix::Never,
    };
    let engine = SentencePiece::new(meta.origin(), &vocab, scores, prefix, specials.unknown)?;
    let engine = Engine::SentencePiece(Box::new(engine));
    finish(meta, engine, Family::SentencePiece, vocab, specials, meta.get_as("tokenizer.ggml.pre")?)
}

/// The score of each token.
fn scores(meta: &Metadata, vocab: &Vocabulary) -> Result<Vec<f32>> {
    let key = "tokenizer.ggml.scores";
    let scores: Vec<f32> = meta.require(key)?;
    same_length(meta, key, scores.len(), vocab.len())?;
    match scores.iter().position(|s| !s.is_finite()) {
        Some(i) => Err(meta.invalid(key, format!("the score of token {i} is not finite"))),
        None => Ok(scores),
    }
}

fn vocabulary(meta: &Metadata, spelling: Spelling) -> Result<Vocabulary> {
    let key = "tokenizer.ggml.tokens";
    let array: crate::gguf::ArrayRef<'_> = meta.require(key)?;
    if array.is_empty() || array.len() > MOST_TOKENS {
        return Err(meta.invalid(key, format!("{} tokens; a vocabulary has 1 to {MOST_TOKENS}", array.len())));
    }
    let mut tokens: Vec<String> = meta.require(key)?;
    for (i, token) in tokens.iter_mut().enumerate().filter(|(_, t)| t.is_empty()) {
        // Needs a text of its own, as every other: the one llama.cpp gives it.
        *token = format!("[EMPTY_{i}]");
    }
    let key = "tokenizer.ggml.token_type";
    let mut kinds = match meta.get_as::<Vec<i32>>(key)? {
        Some(numbers) => {
            same_length(meta, key, numbers.len(), tokens.len())?;
            numbers.into_iter().map(TokenKind::from_number).collect()
        }
        None => vec![TokenKind::Normal; tokens.len()],
    };
    for (kind, token) in kinds.iter_mut().zip(&tokens) {
        // Some converters marked the end of a turn as text; it never is.
        if *kind == TokenKind::Normal && token.starts_with("<|") && is_end_name(token) {
            *kind = TokenKind::Control;
        }
    }
    Ok(Vocabulary::new(tokens, kinds, spelling))
}

fn same_length(meta: &Metadata, key: &str, found: usize, tokens: usize) -> Result<()> {
    if found != tokens {
        return Err(meta.invalid(key, format!("{found} entries for the {tokens} tokens of the vocabulary")));
    }
    Ok(())
}

/// The special ids, `[bos, eos, unknown]` by default, and what is added to every text, `(bos, eos)` by default.
fn specials(meta: &Metadata, vocab: &Vocabulary, default: [Option<u32>; 3], add: (bool, bool)) -> Result<Specials> {
    let origin: &Origin = meta.origin();
    let id = |name: &str, default: Option<u32>| -> Result<Option<u32>> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        match meta.get_as::<u32>(&key)? {
            // Written for "none" by some converters.
            Some(u32::MAX) => Ok(None),
            Some(id) => vocab.check(origin, &format!("metadata {key}"), id).map(Some),
            None => Ok(default),
        }
    };
    let (bos, eos) = (id("bos", default[0])?, id("eos", default[1])?);
    let others = [id("eot", None)?, id("eom", None)?];
    let flag = |name: &str, token: Option<u32>, default: bool| -> Result<bool> {
        let key = format!("tokenizer.ggml.add_{name}_token");
        match meta.get_as::<bool>(&key)? {
            Some(true) if token.is_none() => {
                let problem = format!("true, but the file has no tokenizer.ggml.{name}_token_id; convert it again");
                Err(origin.tokenizer(format_args!("metadata {key}"), problem))
            }
            Some(flag) => Ok(flag),
            None => Ok(default && token.is_some()),
        }
    };
    Ok(Specials {
        bos,
        eos,
        unknown: id("unknown", default[2])?,
        padding: id("padding", None)?,
        separator: id("seperator", None)?,
        classifier: id("cls", None)?,
        mask: id("mask", None)?,
        ends: ends(vocab, [eos, others[0], others[1]].into_iter().flatten()),
        add_bos: flag("bos", bos, add.0)?,
        add_eos: flag("eos", eos, add.1)?,
    })
}
