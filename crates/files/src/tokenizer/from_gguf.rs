//! A tokenizer from the metadata of a GGUF file.

use super::spm::SentencePiece;
use super::vocab::{Spelling, TokenKind, Vocabulary, ends, is_end_name};
use super::{Engine, Family, Specials, Tokenizer, document, pre};
use crate::Result;
use crate::error::Origin;
use crate::gguf::Metadata;
use tokenizers::models::bpe::{BpeBuilder, Vocab};
use tokenizers::{AddedToken, PreTokenizerWrapper};

/// More tokens than this are refused; the largest vocabularies have a quarter of a million.
const MOST_TOKENS: usize = 1 << 22;

pub(super) fn load(meta: &Metadata) -> Result<Tokenizer> {
    let model: &str = meta.require("tokenizer.ggml.model")?;
    match model {
        "no_vocab" | "none" => no_vocabulary(meta),
        "gpt2" => bpe(meta),
        "llama" => sentencepiece(meta),
        other => Err(meta.origin().unsupported(
            "metadata tokenizer.ggml.model",
            format!("the tokenizer {other:?}"),
            "gpt2, llama, no_vocab",
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
        chat_template: meta.get_as("tokenizer.chat_template")?,
    })
}

fn bpe(meta: &Metadata) -> Result<Tokenizer> {
    let origin = meta.origin();
    let vocab = vocabulary(meta, Spelling::ByteLevel)?;
    let name: &str = meta.get_as("tokenizer.ggml.pre")?.unwrap_or("default");
    let split = pre::by_name(name).ok_or_else(|| {
        origin.unsupported("metadata tokenizer.ggml.pre", format!("the pre-tokenizer {name:?}"), pre::names())
    })?;
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
    let by_text: Vocab = vocab.ids.iter().map(|(text, id)| (text.clone(), *id)).collect();
    let builder = BpeBuilder::new().vocab_and_merges(by_text, merges).ignore_merges(split.ignore_merges);
    let model = builder.build().map_err(|e| origin.tokenizer("metadata tokenizer.ggml.merges", e))?;
    let mut inner = tokenizers::Tokenizer::new(model);
    let pre_tokenizer: PreTokenizerWrapper =
        serde_json::from_value(pre::to_json(split)).map_err(|e| origin.tokenizer("metadata tokenizer.ggml.pre", e))?;
    inner.with_pre_tokenizer(Some(pre_tokenizer));
    let added = vocab.tokens.iter().zip(&vocab.kinds).filter_map(|(text, kind)| {
        let special = matches!(kind, TokenKind::Control | TokenKind::Unknown);
        (special || *kind == TokenKind::UserDefined).then(|| AddedToken::from(text.clone(), special).normalized(false))
    });
    let added: Vec<AddedToken> = added.collect();
    inner.add_tokens(added).map_err(|e| origin.tokenizer("metadata tokenizer.ggml.tokens", e))?;
    let specials = specials(meta, &vocab, [None; 3], (split.add_bos, false))?;
    Ok(Tokenizer {
        origin: origin.clone(),
        engine: Engine::Library(Box::new(inner)),
        family: Family::ByteLevelBpe,
        vocab,
        specials,
        wraps: true,
        pre: Some(name.to_owned()),
        chat_template: meta.get_as("tokenizer.chat_template")?,
    })
}

fn sentencepiece(meta: &Metadata) -> Result<Tokenizer> {
    let origin = meta.origin();
    let vocab = vocabulary(meta, Spelling::Metaspace)?;
    let key = "tokenizer.ggml.scores";
    let scores: Vec<f32> = meta.require(key)?;
    same_length(meta, key, scores.len(), vocab.len())?;
    if let Some(i) = scores.iter().position(|s| !s.is_finite()) {
        return Err(meta.invalid(key, format!("the score of token {i} is not finite")));
    }
    // SentencePiece's own places, where the file does not say.
    let default = |id: u32| ((id as usize) < vocab.len()).then_some(id);
    let specials = specials(meta, &vocab, [default(1), default(2), default(0)], (true, false))?;
    let add_space_prefix = meta.get_as("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let engine = SentencePiece::new(origin, &vocab, scores, add_space_prefix, specials.unknown)?;
    Ok(Tokenizer {
        origin: origin.clone(),
        engine: Engine::SentencePiece(Box::new(engine)),
        family: Family::SentencePiece,
        vocab,
        specials,
        wraps: true,
        pre: meta.get_as("tokenizer.ggml.pre")?,
        chat_template: meta.get_as("tokenizer.chat_template")?,
    })
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
        ends: ends(vocab, [eos, others[0], others[1]].into_iter().flatten()),
        add_bos: flag("bos", bos, add.0)?,
        add_eos: flag("eos", eos, add.1)?,
    })
}
