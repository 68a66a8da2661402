//! Text to token ids and back, from a `tokenizer.json` or from GGUF metadata.
//!
//! BPE runs in Hugging Face's `tokenizers`, whichever file it came from; SentencePiece as GGUF stores it (scores, no
//! merges) is encoded as llama.cpp does.

mod build;
mod charsmap;
mod config;
mod directory;
mod document;
mod from_gguf;
mod pre;
mod proto;
mod ranks;
mod rwkv;
mod special;
mod spm;
mod to_gguf;
mod vocab;

pub use vocab::TokenKind;

use crate::error::Origin;
use crate::gguf::{Gguf, Metadata, Value};
use crate::{Result, source};
use config::TokenizerConfig;
use rwkv::Trie;
use spm::{Prefix, SentencePiece};
use std::path::Path;
use tokenizers::{PostProcessor, TruncationDirection};
use vocab::{Spelling, Vocabulary};

/// Largest `tokenizer.json` read; the largest real ones have about 40 MB.
const MOST_BYTES: u64 = 128 << 20;

/// Turns text into token ids and ids into text.
///
/// ```
/// use imaginal_files::Tokenizer;
/// let json = br#"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}"#;
/// let tokenizer = Tokenizer::from_json("tokenizer.json", json, None)?;
/// assert_eq!(tokenizer.encode("abb", false)?, [2, 1]);
/// # Ok::<(), imaginal_files::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tokenizer {
    origin: Origin,
    engine: Engine,
    family: Family,
    vocab: Vocabulary,
    specials: Specials,
    /// Whether beginning and end are added here, as the flags say (GGUF), and not by the library's post-processor.
    wraps: bool,
    /// llama.cpp's name of the way text is split.
    pre: Option<String>,
    /// The special tokens under the names that templates know them by, `bos_token` and so on.
    names: Vec<(String, String)>,
    /// Name and text.
    chat_templates: Vec<(String, String)>,
}

/// One or two texts as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The ids.
    pub ids: Vec<u32>,
    /// For each of them, the number of its part that the tokenizer gives it: 0 or 1.
    pub types: Vec<u32>,
    /// How many tokens were cut off.
    pub cut: usize,
}

#[derive(Clone, Debug)]
enum Engine {
    Library(Box<tokenizers::Tokenizer>),
    SentencePiece(Box<SentencePiece>),
    Trie(Box<Trie>),
    None,
}

/// What GGUF calls the tokenizer's model.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Family {
    ByteLevelBpe,
    SentencePiece,
    WordPiece,
    Unigram,
    Rwkv,
    None,
    Other,
}

#[derive(Clone, Debug, Default)]
struct Specials {
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    padding: Option<u32>,
    separator: Option<u32>,
    classifier: Option<u32>,
    mask: Option<u32>,
    ends: Vec<u32>,
    add_bos: bool,
    add_eos: bool,
}

impl Tokenizer {
    /// Opens a `tokenizer.json`, or the one of a directory, with what the files beside it say about it
    /// (`tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json`, `config.json`,
    /// `chat_template.jinja` and its kin). A directory without one may have the files of older tokenizers:
    /// SentencePiece's `tokenizer.model`, tiktoken's, `vocab.json` with `merges.txt`, `vocab.txt`, RWKV's vocabulary.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::Malformed`](crate::Error::Malformed), and
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) where an id or a merge points past the vocabulary.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Tokenizer> {
        let path = path.as_ref();
        if path.is_dir() && !path.join("tokenizer.json").exists() {
            return directory::open(path);
        }
        let origin = Origin::new(if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() });
        let bytes = source::read_limited(&origin, "file size", MOST_BYTES)?;
        let mut tokenizer = Tokenizer::parse(&origin, &bytes)?;
        if let Some((from, config)) = TokenizerConfig::beside(&origin)? {
            config::apply(&mut tokenizer, &from, config)?;
        }
        let more = config::apply_siblings(&mut tokenizer)?;
        tokenizer.finish(more)
    }

    /// [`Tokenizer::from_file`] for a directory, or `None` where it has no file of a tokenizer.
    ///
    /// # Errors
    /// As [`Tokenizer::from_file`].
    pub fn in_directory(path: impl AsRef<Path>) -> Result<Option<Tokenizer>> {
        let path = path.as_ref();
        let any = path.join("tokenizer.json").is_file() || directory::has_any(path);
        if any { Tokenizer::from_file(path).map(Some) } else { Ok(None) }
    }

    /// Reads a `tokenizer.json` from memory, with its `tokenizer_config.json` where there is one; `name` stands for
    /// the path in errors.
    ///
    /// # Errors
    /// As [`Tokenizer::from_file`].
    pub fn from_json(name: &str, tokenizer: &[u8], config: Option<&[u8]>) -> Result<Tokenizer> {
        let origin = Origin::new(name);
        let mut tokenizer = Tokenizer::parse(&origin, tokenizer)?;
        if let Some(bytes) = config {
            let from = Origin::new(format!("{name} (tokenizer_config.json)"));
            config::apply(&mut tokenizer, &from, TokenizerConfig::parse(&from, bytes)?)?;
        }
        tokenizer.finish(Vec::new())
    }

    /// Builds the tokenizer of a GGUF file from its metadata.
    ///
    /// # Errors
    /// [`Error::MissingKey`](crate::Error::MissingKey) and [`Error::WrongType`](crate::Error::WrongType) where the
    /// metadata is incomplete, [`Error::Unsupported`](crate::Error::Unsupported) for a kind of tokenizer or
    /// pre-tokenizer this build does not know, [`Error::Tokenizer`](crate::Error::Tokenizer) where an id or a merge
    /// points past the vocabulary.
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer> {
        Tokenizer::from_metadata(gguf.metadata())
    }

    /// [`Tokenizer::from_gguf`], from the metadata alone.
    ///
    /// # Errors
    /// As [`Tokenizer::from_gguf`].
    pub fn from_metadata(metadata: &Metadata) -> Result<Tokenizer> {
        from_gguf::load(metadata)
    }

    fn parse(origin: &Origin, bytes: &[u8]) -> Result<Tokenizer> {
        let loaded = document::load(origin, bytes)?;
        let family = match (loaded.bpe, loaded.vocab.spelling) {
            (true, Spelling::ByteLevel) => Family::ByteLevelBpe,
            (_, Spelling::WordPiece) => Family::WordPiece,
            _ if loaded.unigram => Family::Unigram,
            (true, spelling) if to_gguf::is_sentencepiece(spelling, &loaded.vocab.tokens) => Family::SentencePiece,
            _ => Family::Other,
        };
        // NFC is the one normalizer that byte-level BPE is used with.
        let plain = loaded.normalizer.is_null() || loaded.normalizer.get("type").is_some_and(|t| t == "NFC");
        let pre = match family {
            Family::ByteLevelBpe if plain => pre::name_of(&loaded.pre_tokenizer, loaded.ignore_merges),
            _ => None,
        };
        Ok(Tokenizer {
            origin: origin.clone(),
            engine: Engine::Library(Box::new(loaded.inner)),
            family,
            vocab: loaded.vocab,
            specials: Specials { unknown: loaded.unknown, ..Specials::default() },
            wraps: false,
            pre: pre.map(str::to_owned),
            names: Vec::new(),
            chat_templates: Vec::new(),
        })
    }

    /// Finds out what a tokenizer of the library adds to a text, and with it what nothing else has said.
    fn finish(mut self, ends: Vec<u32>) -> Result<Tokenizer> {
        // A vocabulary that has no token for the probe tells nothing, and is none the worse.
        let probe = |add| self.library("a", add).unwrap_or_default();
        let (plain, with) = (probe(false), probe(true));
        let added = with.len().saturating_sub(plain.len());
        let before = (0..=added).find(|n| with[*n..].starts_with(&plain)).unwrap_or(0);
        let (first, last) = (&with[..before], &with[(before + plain.len()).min(with.len())..]);
        let specials = &mut self.specials;
        if specials.bos.is_none() && first.len() == 1 {
            specials.bos = first.first().copied();
        }
        if specials.eos.is_none() && last.len() == 1 {
            specials.eos = last.first().copied();
        }
        specials.add_bos = specials.bos.is_some_and(|bos| first == [bos]);
        specials.add_eos = specials.eos.is_some_and(|eos| last == [eos]);
        config::finish(&mut self.specials, &self.vocab, ends);
        Ok(self)
    }

    fn library(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let Engine::Library(inner) = &self.engine else { return Ok(Vec::new()) };
        let encoding = inner.encode_fast(text, add_special).map_err(|e| self.origin.tokenizer("text", e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of a text. Special tokens written in it become their ids; with `add_special`, the tokenizer's beginning
    /// and end are added where it has them.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) where the vocabulary has no token for some of the text, or the
    /// model has no vocabulary at all.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let wraps = add_special && self.wraps;
        if wraps && self.specials.add_bos {
            ids.extend(self.specials.bos);
        }
        match &self.engine {
            Engine::Library(_) => ids.extend(self.library(text, add_special)?),
            Engine::SentencePiece(engine) => {
                engine.encode(&self.vocab, text, &mut ids).map_err(|problem| self.origin.tokenizer("text", problem))?
            }
            Engine::Trie(trie) => {
                trie.encode(text, &mut ids).map_err(|problem| self.origin.tokenizer("text", problem))?
            }
            Engine::None => return Err(self.origin.tokenizer("text", NO_VOCABULARY)),
        }
        if wraps && self.specials.add_eos {
            ids.extend(self.specials.eos);
        }
        Ok(ids)
    }

    /// The ids of a text, or of two that a model reads together, with what the tokenizer adds at beginning, end and between;
    /// at most `most` of them. Of a pair the longer text is cut first.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; or there are two texts and the file does not say how they are joined; or `most` leaves no
    /// place for a text.
    pub fn encode_parts(&self, text: &str, second: Option<&str>, most: usize) -> Result<Parts> {
        let Engine::Library(inner) = &self.engine else { return self.encode_alone(text, second, most) };
        if self.wraps {
            return self.encode_alone(text, second, most);
        }
        let failed = |e: tokenizers::Error| self.origin.tokenizer("text", e);
        let added = inner.get_post_processor().map_or(0, |p| p.added_tokens(second.is_some()));
        if most <= added {
            return Err(self.origin.tokenizer("text", format!("a limit of {most} tokens leaves no place for a text")));
        }
        let mut first = inner.encode_fast(text, false).map_err(failed)?;
        let mut second = second.map(|second| inner.encode_fast(second, false)).transpose().map_err(failed)?;
        let (of_first, of_second) = shares(first.len(), second.as_ref().map_or(0, |s| s.len()), most - added);
        let mut cut = first.len() - of_first;
        first.truncate(of_first, 0, TruncationDirection::Right);
        if let Some(second) = &mut second {
            cut += second.len() - of_second;
            second.truncate(of_second, 0, TruncationDirection::Right);
            second.set_type_ids(vec![1; second.len()]);
        }
        let both = inner.post_process(first, second, true).map_err(failed)?;
        Ok(Parts { ids: both.get_ids().to_vec(), types: both.get_type_ids().to_vec(), cut })
    }

    /// The same for tokenizers that add a beginning and an end here.
    fn encode_alone(&self, text: &str, second: Option<&str>, most: usize) -> Result<Parts> {
        let Specials { bos, eos, separator, add_bos, add_eos, .. } = self.specials;
        let (start, end) = (bos.filter(|_| add_bos), eos.filter(|_| add_eos));
        // BERT has one token between the texts of a pair, RoBERTa two.
        let between: Vec<u32> = match (self.family, separator) {
            _ if second.is_none() => Vec::new(),
            (Family::WordPiece, Some(separator)) => vec![separator],
            (_, Some(separator)) => end.into_iter().chain([separator]).collect(),
            (_, None) => {
                let problem = "the file has no token between two texts; use the Hugging Face directory of the model";
                return Err(self.origin.tokenizer("text", problem));
            }
        };
        let added = usize::from(start.is_some()) + usize::from(end.is_some()) + between.len();
        if most <= added {
            return Err(self.origin.tokenizer("text", format!("a limit of {most} tokens leaves no place for a text")));
        }
        let first = self.encode(text, false)?;
        let second = second.map_or(Ok(Vec::new()), |second| self.encode(second, false))?;
        let (of_first, of_second) = shares(first.len(), second.len(), most - added);
        let mut ids: Vec<u32> = start.into_iter().chain(first[..of_first].iter().copied()).chain(between).collect();
        let part = u32::from(self.family == Family::WordPiece && !second.is_empty());
        let mut types = vec![0; ids.len()];
        ids.extend(second[..of_second].iter().copied().chain(end));
        types.resize(ids.len(), part);
        Ok(Parts { ids, types, cut: first.len() + second.len() - of_first - of_second })
    }

    /// The text of ids. Bytes that are not UTF-8 (a character cut in two) become `\u{fffd}`; with `skip_special`,
    /// tokens that steer the model are left out.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) where an id is not of the vocabulary.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        if let Engine::None = self.engine {
            return Err(self.origin.tokenizer("ids", NO_VOCABULARY));
        }
        for id in ids {
            self.vocab.check(&self.origin, "ids", *id)?;
        }
        if let Engine::Library(inner) = &self.engine
            && inner.get_decoder().is_some()
        {
            return inner.decode(ids, skip_special).map_err(|e| self.origin.tokenizer("ids", e));
        }
        let mut bytes = Vec::new();
        // The space that encoding put before the text is not part of it.
        let mut prefixed = matches!(&self.engine, Engine::SentencePiece(engine) if engine.prefix != Prefix::Never);
        for id in ids {
            let special = self.vocab.kind(*id).is_some_and(TokenKind::is_special);
            if special && skip_special {
                continue;
            }
            let piece = self.vocab.bytes(*id).unwrap_or_default();
            let skip = usize::from(prefixed && !special && piece.first() == Some(&b' '));
            bytes.extend_from_slice(&piece[skip..]);
            prefixed &= special;
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The bytes a token stands for, of a control token its name; `None` where the id is not of the vocabulary.
    /// A token may be a part of a character: collect bytes until they are UTF-8.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        self.vocab.bytes(id)
    }

    /// The token as the vocabulary spells it.
    pub fn id_to_token(&self, id: u32) -> Option<&str> {
        self.vocab.text(id)
    }

    /// The id of a token as the vocabulary spells it.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.vocab.ids.get(token).copied()
    }

    /// What the token is for.
    pub fn kind(&self, id: u32) -> Option<TokenKind> {
        self.vocab.kind(id)
    }

    /// One more than the largest id. A model may have more rows than this, never fewer.
    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.specials.bos
    }

    /// All tokens that end a generation, the tokenizer's own end first.
    pub fn eos(&self) -> &[u32] {
        &self.specials.ends
    }

    /// The token that ends a text, the one added behind texts and between documents.
    pub fn eos_id(&self) -> Option<u32> {
        self.specials.eos
    }

    /// The token for text that has none.
    pub fn unknown(&self) -> Option<u32> {
        self.specials.unknown
    }

    /// The token that fills up batches.
    pub fn padding(&self) -> Option<u32> {
        self.specials.padding
    }

    /// Whether `encode` with `add_special` begins with [`Tokenizer::bos`].
    pub fn adds_bos(&self) -> bool {
        self.specials.add_bos
    }

    /// Whether `encode` with `add_special` ends with [`Tokenizer::eos_id`].
    pub fn adds_eos(&self) -> bool {
        self.specials.add_eos
    }

    /// The templates of conversations, as they are in the files: names and texts. Where there is only one, its name is
    /// `default`; models with several have for instance `tool_use` and `rag` too.
    pub fn chat_templates(&self) -> &[(String, String)] {
        &self.chat_templates
    }

    /// The special tokens under the names that templates and configurations know them by: `bos_token`, `eos_token`.
    pub fn special_tokens(&self) -> impl Iterator<Item = (&str, &str)> {
        self.names.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// The token between two texts, of models that read pairs.
    pub fn separator(&self) -> Option<u32> {
        self.specials.separator
    }

    /// The token that stands for one to be guessed.
    pub fn mask(&self) -> Option<u32> {
        self.specials.mask
    }

    /// The name GGUF has for the way text is split (`tokenizer.ggml.pre`), where it has one.
    pub fn pre(&self) -> Option<&str> {
        self.pre.as_deref()
    }

    /// The tokenizer as metadata of a GGUF file, keys and values.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) where GGUF cannot express it, so that another engine would see
    /// other ids.
    pub fn to_gguf_metadata(&self) -> Result<Vec<(String, Value)>> {
        to_gguf::metadata(self)
    }

    /// The path of the file, or the name given for bytes from memory.
    pub fn path(&self) -> &Path {
        self.origin.path()
    }
}

/// How many tokens of two texts fit among `most`: of the longer one fewer.
fn shares(first: usize, second: usize, most: usize) -> (usize, usize) {
    let half = most / 2;
    let of_second = if first <= most - half { second.min(most - first.min(most)) } else { second.min(half) };
    (first.min(most - of_second), of_second)
}

const NO_VOCABULARY: &str = "the model has no vocabulary; give it ids instead of text";
