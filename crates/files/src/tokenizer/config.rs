//! What stands beside a `tokenizer.json`: names of special tokens, the chat template, ids that end a generation.

use super::vocab::{Vocabulary, ends};
use super::{Specials, Tokenizer};
use crate::error::Origin;
use crate::{Json, Result, source};
use serde::Deserialize;

/// Largest `tokenizer_config.json` read: some repeat thousands of added tokens.
const MOST_CONFIG: u64 = 16 << 20;
/// Largest chat template read.
const MOST_TEMPLATE: u64 = 1 << 20;

/// The fields of `tokenizer_config.json` that matter here; the rest is passed over without being kept.
#[derive(Default, Deserialize)]
pub(super) struct TokenizerConfig {
    bos_token: Option<Name>,
    eos_token: Option<Name>,
    unk_token: Option<Name>,
    pad_token: Option<Name>,
    chat_template: Option<Template>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Token { content: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Template {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl Name {
    fn text(&self) -> &str {
        match self {
            Name::Text(text) => text,
            Name::Token { content } => content,
        }
    }
}

impl TokenizerConfig {
    pub(super) fn parse(origin: &Origin, bytes: &[u8]) -> Result<TokenizerConfig> {
        serde_json::from_slice(bytes).map_err(|e| origin.malformed("JSON", e))
    }

    /// The file beside `tokenizer`, or nothing.
    pub(super) fn beside(tokenizer: &Origin) -> Result<Option<(Origin, TokenizerConfig)>> {
        let origin = Origin::new(tokenizer.path().with_file_name("tokenizer_config.json"));
        if !origin.path().exists() {
            return Ok(None);
        }
        let bytes = source::read_limited(&origin, "file size", MOST_CONFIG)?;
        let config = TokenizerConfig::parse(&origin, &bytes)?;
        Ok(Some((origin, config)))
    }

    fn template(self) -> Option<String> {
        match self.chat_template? {
            Template::One(text) => Some(text),
            Template::Named(mut all) => {
                let at = all.iter().position(|t| t.name == "default").unwrap_or(0);
                (at < all.len()).then(|| all.swap_remove(at).template)
            }
        }
    }
}

/// Takes over what the configuration says. `bos` and `eos` may already be known from what the tokenizer adds.
pub(super) fn apply(tokenizer: &mut Tokenizer, origin: &Origin, config: TokenizerConfig) -> Result<()> {
    let vocab = &tokenizer.vocab;
    let id = |field: &str, name: &Option<Name>| -> Result<Option<u32>> {
        let Some(name) = name else { return Ok(None) };
        match vocab.ids.get(name.text()) {
            Some(id) => Ok(Some(*id)),
            None => {
                let problem = format!("{:?} points past the vocabulary: tokenizer.json has no such token", name.text());
                Err(origin.tokenizer(format_args!("field {field}"), problem))
            }
        }
    };
    let specials = &mut tokenizer.specials;
    specials.bos = id("bos_token", &config.bos_token)?.or(specials.bos);
    specials.eos = id("eos_token", &config.eos_token)?.or(specials.eos);
    specials.unknown = id("unk_token", &config.unk_token)?.or(specials.unknown);
    specials.padding = id("pad_token", &config.pad_token)?.or(specials.padding);
    tokenizer.chat_template = config.template();
    Ok(())
}

/// The other files of the directory: the template in a file of its own, and the ids that end a generation.
pub(super) fn apply_siblings(tokenizer: &mut Tokenizer) -> Result<Vec<u32>> {
    let path = tokenizer.origin.path().to_path_buf();
    let template = Origin::new(path.with_file_name("chat_template.jinja"));
    if template.path().exists() {
        let bytes = source::read_limited(&template, "file size", MOST_TEMPLATE)?;
        let text = String::from_utf8(bytes).map_err(|_| template.malformed("chat template", "not UTF-8"))?;
        tokenizer.chat_template = Some(text);
    }
    let mut found = Vec::new();
    for name in ["generation_config.json", "config.json"] {
        let Some(json) = Json::open_if_exists(path.with_file_name(name))? else { continue };
        // A configuration of the model may be anything; only ids are looked for, and only those that are tokens.
        let ids = |field: &str| match json.get(field) {
            Some(serde_json::Value::Array(_)) => json.get_as::<Vec<u32>>(field).ok().flatten().unwrap_or_default(),
            _ => json.get_as::<u32>(field).ok().flatten().into_iter().collect(),
        };
        let known = |id: &u32| (*id as usize) < tokenizer.vocab.len();
        let eos: Vec<u32> = ids("eos_token_id").into_iter().filter(known).collect();
        let bos = ids("bos_token_id").into_iter().find(known);
        tokenizer.specials.bos = tokenizer.specials.bos.or(bos);
        tokenizer.specials.eos = tokenizer.specials.eos.or(eos.first().copied());
        found.extend(eos);
    }
    Ok(found)
}

/// The list of ends, once everything is known.
pub(super) fn finish(specials: &mut Specials, vocab: &Vocabulary, more: Vec<u32>) {
    specials.ends = ends(vocab, specials.eos.into_iter().chain(more));
}
