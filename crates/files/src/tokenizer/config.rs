//! What stands beside a `tokenizer.json`: names of special tokens, the chat template, ids that end a generation.

use super::vocab::{Vocabulary, ends};
use super::{Specials, Tokenizer};
use crate::error::Origin;
use crate::{Json, Result, source};
use serde::Deserialize;
use std::collections::BTreeMap;

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
    sep_token: Option<Name>,
    cls_token: Option<Name>,
    mask_token: Option<Name>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    tokenizer_class: Option<String>,
    do_lower_case: Option<bool>,
    add_prefix_space: Option<bool>,
    legacy: Option<bool>,
    chat_template: Option<Template>,
    /// Names of a family's own, such as `image_token`.
    extra_special_tokens: Option<Extra>,
    #[serde(default)]
    added_tokens_decoder: BTreeMap<u32, Added>,
}

/// A special token by its text, or with the settings it has as an added token.
#[derive(Clone, Deserialize)]
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

/// A map from names to tokens; newer files have a list of tokens without names, which nothing here asks for.
#[derive(Deserialize)]
#[serde(untagged)]
enum Extra {
    Named(BTreeMap<String, Name>),
    Other(serde::de::IgnoredAny),
}

/// An entry of `added_tokens_decoder`.
#[derive(Clone, Deserialize)]
pub(super) struct Added {
    pub(super) content: String,
    #[serde(default)]
    pub(super) special: bool,
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

    /// The file beside `tokenizer`, with the names of special tokens that only `special_tokens_map.json` has; or
    /// nothing where there is neither.
    pub(super) fn beside(tokenizer: &Origin) -> Result<Option<(Origin, TokenizerConfig)>> {
        let read = |name: &str| -> Result<Option<(Origin, TokenizerConfig)>> {
            let origin = Origin::new(tokenizer.path().with_file_name(name));
            if !origin.path().exists() {
                return Ok(None);
            }
            let bytes = source::read_limited(&origin, "file size", MOST_CONFIG)?;
            let config = TokenizerConfig::parse(&origin, &bytes)?;
            Ok(Some((origin, config)))
        };
        let map = read("special_tokens_map.json")?;
        let Some((origin, mut config)) = read("tokenizer_config.json")? else { return Ok(map) };
        if let Some((_, map)) = map {
            for (to, from) in config.names_mut().into_iter().zip(map.names()) {
                *to = to.take().or_else(|| from.1.clone());
            }
        }
        Ok(Some((origin, config)))
    }

    /// The special tokens under the names they have in templates.
    fn names(&self) -> [(&'static str, &Option<Name>); 7] {
        [
            ("bos_token", &self.bos_token),
            ("eos_token", &self.eos_token),
            ("unk_token", &self.unk_token),
            ("pad_token", &self.pad_token),
            ("sep_token", &self.sep_token),
            ("cls_token", &self.cls_token),
            ("mask_token", &self.mask_token),
        ]
    }

    fn names_mut(&mut self) -> [&mut Option<Name>; 7] {
        [
            &mut self.bos_token,
            &mut self.eos_token,
            &mut self.unk_token,
            &mut self.pad_token,
            &mut self.sep_token,
            &mut self.cls_token,
            &mut self.mask_token,
        ]
    }

    /// The texts of all special tokens.
    pub(super) fn special_texts(&self) -> impl Iterator<Item = &str> {
        self.names().into_iter().filter_map(|(_, name)| name.as_ref().map(Name::text))
    }

    /// The class of transformers that a vocabulary without `tokenizer.json` is for, without "Fast".
    pub(super) fn class(&self) -> Option<&str> {
        self.tokenizer_class.as_deref().map(|c| c.strip_suffix("Fast").unwrap_or(c))
    }

    pub(super) fn lower_case(&self) -> Option<bool> {
        self.do_lower_case
    }

    pub(super) fn prefix_space(&self) -> Option<bool> {
        self.add_prefix_space
    }

    /// Whether SentencePiece's old habit is wanted: a space before the text after each special token.
    pub(super) fn legacy(&self) -> bool {
        self.legacy.unwrap_or(false)
    }

    /// Whether a beginning and an end are added to each text; a `tokenizer.json` says so itself.
    pub(super) fn adds(&self) -> (Option<bool>, Option<bool>) {
        (self.add_bos_token, self.add_eos_token)
    }

    /// The tokens added to the vocabulary, by id.
    pub(super) fn added(&self) -> &BTreeMap<u32, Added> {
        &self.added_tokens_decoder
    }

    fn templates(&mut self) -> Vec<(String, String)> {
        match self.chat_template.take() {
            None => Vec::new(),
            Some(Template::One(text)) => vec![(DEFAULT.to_owned(), text)],
            Some(Template::Named(all)) => all.into_iter().map(|t| (t.name, t.template)).collect(),
        }
    }
}

/// The name of the template that is taken when none is named.
pub(super) const DEFAULT: &str = "default";

/// Takes over what the configuration says. `bos` and `eos` may already be known from what the tokenizer adds.
pub(super) fn apply(tokenizer: &mut Tokenizer, origin: &Origin, mut config: TokenizerConfig) -> Result<()> {
    let vocab = &tokenizer.vocab;
    let id = |field: &str, name: &Option<Name>| -> Result<Option<u32>> {
        let Some(name) = name else { return Ok(None) };
        match vocab.ids.get(name.text()) {
            Some(id) => Ok(Some(*id)),
            // A class's own default, which the vocabulary never had: some files carry it along.
            None if matches!(field, "unk_token" | "pad_token" | "sep_token" | "cls_token" | "mask_token") => Ok(None),
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
    specials.separator = id("sep_token", &config.sep_token)?.or(specials.separator);
    specials.classifier = id("cls_token", &config.cls_token)?.or(specials.classifier);
    specials.mask = id("mask_token", &config.mask_token)?.or(specials.mask);
    let extra = match &config.extra_special_tokens {
        Some(Extra::Named(map)) => map.iter().map(|(k, v)| (k.as_str(), v)).collect(),
        Some(Extra::Other(_)) | None => Vec::new(),
    };
    let named = config.names().into_iter().filter_map(|(k, v)| v.as_ref().map(|v| (k, v)));
    tokenizer.names = named.chain(extra).map(|(k, v)| (k.to_owned(), v.text().to_owned())).collect();
    tokenizer.chat_templates = config.templates();
    Ok(())
}

/// The other files of the directory: templates in files of their own, and the ids that end a generation.
pub(super) fn apply_siblings(tokenizer: &mut Tokenizer) -> Result<Vec<u32>> {
    let path = tokenizer.origin.path().to_path_buf();
    let read = |origin: Origin| -> Result<String> {
        let bytes = source::read_limited(&origin, "file size", MOST_TEMPLATE)?;
        String::from_utf8(bytes).map_err(|_| origin.malformed("chat template", "not UTF-8"))
    };
    let mut found: Vec<(String, String)> = Vec::new();
    // Older multi-modal models have their template there, and it is the newer of the two.
    if let Some(json) = Json::open_if_exists(path.with_file_name("chat_template.json"))?
        && let Some(text) = json.get_as::<String>("chat_template")?
    {
        found.push((DEFAULT.to_owned(), text));
    }
    let template = Origin::new(path.with_file_name("chat_template.jinja"));
    if template.path().exists() {
        found = vec![(DEFAULT.to_owned(), read(template)?)];
    }
    let mut more: Vec<_> = std::fs::read_dir(path.with_file_name("additional_chat_templates"))
        .map(|entries| entries.flatten().map(|e| e.path()).collect())
        .unwrap_or_default();
    more.retain(|p: &std::path::PathBuf| p.extension().is_some_and(|e| e == "jinja"));
    more.sort();
    for file in more {
        let name = file.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        found.push((name, read(Origin::new(file))?));
    }
    for (name, text) in found {
        tokenizer.chat_templates.retain(|(n, _)| *n != name);
        tokenizer.chat_templates.push((name, text));
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
