//! Short names: a table of well-known ones, and the user's own, with registries besides the hub.

use std::path::{Path, PathBuf};

use imaginal_files::write_atomic;
use toml_edit::{DocumentMut, Item, Table, value};

use crate::name::check_registry;
use crate::settings::{Token, endpoint};
use crate::{Cache, Error, Result, Settings, Target};

/// Well-known models: alias and repository. The part after the colon is the size, as people write it.
pub const ALIASES: &[(&str, &str)] = &[
    ("qwen3:0.6b", "Qwen/Qwen3-0.6B-GGUF"),
    ("qwen3:1.7b", "Qwen/Qwen3-1.7B-GGUF"),
    ("qwen3:4b", "Qwen/Qwen3-4B-GGUF:Q4_K_M"),
    ("qwen3:8b", "Qwen/Qwen3-8B-GGUF:Q4_K_M"),
    ("qwen3:14b", "Qwen/Qwen3-14B-GGUF:Q4_K_M"),
    ("qwen3:32b", "Qwen/Qwen3-32B-GGUF:Q4_K_M"),
    ("qwen3:30b-a3b", "Qwen/Qwen3-30B-A3B-GGUF:Q4_K_M"),
    ("qwen2.5:0.5b", "Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M"),
    ("qwen2.5:1.5b", "Qwen/Qwen2.5-1.5B-Instruct-GGUF:Q4_K_M"),
    ("qwen2.5:3b", "Qwen/Qwen2.5-3B-Instruct-GGUF:Q4_K_M"),
    ("qwen2.5:7b", "Qwen/Qwen2.5-7B-Instruct-GGUF:Q4_K_M"),
    ("qwen2.5:14b", "Qwen/Qwen2.5-14B-Instruct-GGUF:Q4_K_M"),
    ("qwen2.5:32b", "Qwen/Qwen2.5-32B-Instruct-GGUF:Q4_K_M"),
    ("qwen2.5-coder:0.5b", "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF:Q4_K_M"),
    ("qwen2.5-coder:1.5b", "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF:Q4_K_M"),
    ("qwen2.5-coder:3b", "Qwen/Qwen2.5-Coder-3B-Instruct-GGUF:Q4_K_M"),
    ("qwen2.5-coder:7b", "Qwen/Qwen2.5-Coder-7B-Instruct-GGUF:Q4_K_M"),
    ("qwen2.5-coder:32b", "Qwen/Qwen2.5-Coder-32B-Instruct-GGUF:Q4_K_M"),
    ("llama3.1:8b", "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF:Q4_K_M"),
    ("llama3.2:1b", "bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M"),
    ("llama3.2:3b", "bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M"),
    ("llama3.3:70b", "bartowski/Llama-3.3-70B-Instruct-GGUF:Q4_K_M"),
    ("tinyllama:1.1b", "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF:Q4_K_M"),
    ("gemma2:2b", "bartowski/gemma-2-2b-it-GGUF:Q4_K_M"),
    ("gemma2:9b", "bartowski/gemma-2-9b-it-GGUF:Q4_K_M"),
    ("gemma3:1b", "ggml-org/gemma-3-1b-it-GGUF:Q4_K_M"),
    ("gemma3:4b", "ggml-org/gemma-3-4b-it-GGUF:Q4_K_M"),
    ("gemma3:12b", "ggml-org/gemma-3-12b-it-GGUF:Q4_K_M"),
    ("gemma3:27b", "ggml-org/gemma-3-27b-it-GGUF:Q4_K_M"),
    ("mistral:7b", "bartowski/Mistral-7B-Instruct-v0.3-GGUF:Q4_K_M"),
    ("mistral-nemo:12b", "bartowski/Mistral-Nemo-Instruct-2407-GGUF:Q4_K_M"),
    ("phi3.5:3.8b", "bartowski/Phi-3.5-mini-instruct-GGUF:Q4_K_M"),
    ("phi4:14b", "bartowski/phi-4-GGUF:Q4_K_M"),
    ("gpt-oss:20b", "ggml-org/gpt-oss-20b-GGUF"),
    ("gpt-oss:120b", "ggml-org/gpt-oss-120b-GGUF"),
    ("smollm2:135m", "bartowski/SmolLM2-135M-Instruct-GGUF:Q8_0"),
    ("smollm2:360m", "bartowski/SmolLM2-360M-Instruct-GGUF:Q8_0"),
    ("smollm2:1.7b", "bartowski/SmolLM2-1.7B-Instruct-GGUF:Q4_K_M"),
    ("smollm3:3b", "ggml-org/SmolLM3-3B-GGUF:Q4_K_M"),
    ("deepseek-r1:1.5b", "bartowski/DeepSeek-R1-Distill-Qwen-1.5B-GGUF:Q4_K_M"),
    ("deepseek-r1:7b", "bartowski/DeepSeek-R1-Distill-Qwen-7B-GGUF:Q4_K_M"),
    ("deepseek-r1:8b", "bartowski/DeepSeek-R1-Distill-Llama-8B-GGUF:Q4_K_M"),
    ("lfm2:350m", "LiquidAI/LFM2-350M-GGUF"),
    ("lfm2:1.2b", "LiquidAI/LFM2-1.2B-GGUF"),
    ("mamba:130m", "state-spaces/mamba-130m-hf"),
    ("all-minilm:l6", "sentence-transformers/all-MiniLM-L6-v2:safetensors"),
    ("bge:small-en", "BAAI/bge-small-en-v1.5:safetensors"),
];

/// A hub besides the usual one.
#[derive(Clone, Debug)]
struct Registry {
    endpoint: String,
    token_env: Option<String>,
    cache: Option<PathBuf>,
}

/// The user's aliases and registries, and the built-in ones behind them.
///
/// ```toml
/// [aliases]
/// helper = "Qwen/Qwen3-4B-GGUF:Q8_0"
/// ours = "lab://team/model"
///
/// [registries.lab]
/// endpoint = "https://models.lab.example"
/// token_env = "LAB_TOKEN"      # the variable with the token; HF_TOKEN is never sent there
/// cache = "/data/lab"          # default: registries/lab beside the hub's cache
/// ```
#[derive(Debug)]
pub struct Aliases {
    path: PathBuf,
    document: DocumentMut,
    own: Vec<(String, String)>,
    registries: Vec<(String, Registry)>,
}

impl Aliases {
    /// Reads the user's file; without one there are the built-in aliases.
    ///
    /// # Errors
    /// [`Error::Config`] names what is wrong in it.
    pub fn open(path: &Path) -> Result<Aliases> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io(path, "read", e)),
        };
        let wrong = |problem: String| Error::Config { path: path.to_path_buf(), problem };
        let document: DocumentMut = text.parse().map_err(|e| wrong(format!("{e}")))?;
        let (mut own, mut registries) = (Vec::new(), Vec::new());
        for (key, item) in document.iter() {
            let table = item.as_table_like().ok_or_else(|| wrong(format!("{key}: must be a table")))?;
            match key {
                "aliases" => {
                    for (alias, target) in table.iter() {
                        let target =
                            target.as_str().ok_or_else(|| wrong(format!("aliases.{alias}: must be a text")))?;
                        check_alias(alias).map_err(|p| wrong(format!("aliases.{alias}: {p}")))?;
                        Target::parse(target).map_err(|e| wrong(format!("aliases.{alias}: {e}")))?;
                        own.push((alias.to_owned(), target.to_owned()));
                    }
                }
                "registries" => {
                    for (name, item) in table.iter() {
                        let registry = registry(name, item).map_err(|p| wrong(format!("registries.{name}{p}")))?;
                        registries.push((name.to_owned(), registry));
                    }
                }
                _ => return Err(wrong(format!("{key}: not known; there are [aliases] and [registries.NAME]"))),
            }
        }
        Ok(Aliases { path: path.to_path_buf(), document, own, registries })
    }

    /// The user's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All aliases: the user's, then the built-in ones that they do not replace. The last value says whose it is.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, bool)> {
        let built_in = ALIASES.iter().filter(|(alias, _)| !self.own.iter().any(|o| o.0 == *alias));
        let own = self.own.iter().map(|(alias, target)| (alias.as_str(), target.as_str(), true));
        own.chain(built_in.map(|(alias, target)| (*alias, *target, false)))
    }

    /// What a name asks for: an alias (with `:QUANTIZATION` after it if need be), or a repository as it is written.
    /// `None` for a bare word that is no alias, which may still be a repository in the cache.
    ///
    /// # Errors
    /// [`Error::Name`]; [`Error::Ambiguous`] for an alias without the size that it needs.
    pub fn resolve(&self, name: &str) -> Result<Option<Target>> {
        let find =
            |wanted: &str| self.iter().find(|(alias, ..)| alias.eq_ignore_ascii_case(wanted)).map(|found| found.1);
        if let Some(target) = find(name) {
            return Target::parse(target).map(Some);
        }
        if let Some((alias, selector)) = name.rsplit_once(':')
            && let Some(target) = find(alias)
        {
            let target = Target { selector: None, ..Target::parse(target)? };
            return Target::parse(&format!("{target}:{selector}")).map(Some);
        }
        if name.contains('/') {
            return Target::parse(name).map(Some);
        }
        let family = name.split(':').next().unwrap_or(name);
        let sizes: Vec<String> = self
            .iter()
            .filter(|(alias, ..)| alias.split_once(':').is_some_and(|(f, _)| f.eq_ignore_ascii_case(family)))
            .map(|(alias, ..)| alias.to_owned())
            .collect();
        match sizes.is_empty() {
            true => Ok(None),
            false => Err(Error::Ambiguous { name: name.to_owned(), choices: sizes }),
        }
    }

    /// Aliases that are nearly `name`.
    pub fn near(&self, name: &str) -> Vec<String> {
        let mut near: Vec<(usize, &str)> = self
            .iter()
            .map(|(alias, ..)| (strsim::damerau_levenshtein(&name.to_lowercase(), alias), alias))
            .filter(|(distance, alias)| *distance <= name.len().max(alias.len()) / 3)
            .collect();
        near.sort();
        near.into_iter().take(3).map(|(_, alias)| alias.to_owned()).collect()
    }

    /// The settings for what a target asks for: those of its registry, or the given ones.
    ///
    /// # Errors
    /// [`Error::Name`] for a registry that the user's file does not have.
    pub fn settings(&self, target: &Target, settings: &Settings) -> Result<Settings> {
        let Some(name) = &target.registry else { return Ok(settings.clone()) };
        let Some((_, registry)) = self.registries.iter().find(|r| r.0 == *name) else {
            let known: Vec<&str> = self.registries.iter().map(|r| r.0.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let problem = format!("there is no registry {name:?} in {} (there: {known})", self.path.display());
            return Err(Error::Name { name: target.to_string(), problem });
        };
        let token = registry.token_env.as_ref().and_then(|key| Token::new(&std::env::var(key).ok()?, key));
        let cache = registry.cache.clone().map_or_else(|| settings.cache.beside(name), Cache::new);
        Ok(Settings { endpoint: registry.endpoint.clone(), token, cache, ..settings.clone() })
    }

    /// The hub and all registries, as the prefix of their names and their caches.
    pub fn caches(&self, settings: &Settings) -> Vec<(Option<String>, Cache)> {
        let mut caches = vec![(None, settings.cache.clone())];
        for (name, registry) in &self.registries {
            let cache = registry.cache.clone().map_or_else(|| settings.cache.beside(name), Cache::new);
            caches.push((Some(name.clone()), cache));
        }
        caches
    }

    /// Writes an alias to the user's file, which keeps its comments. Without a target the alias is removed; returns
    /// whether there was one.
    ///
    /// # Errors
    /// [`Error::Name`] for a name that cannot be an alias or a target that cannot be read, [`Error::File`].
    pub fn set(&mut self, alias: &str, target: Option<&str>) -> Result<bool> {
        check_alias(alias).map_err(|problem| Error::Name { name: alias.to_owned(), problem })?;
        if let Some(target) = target {
            Target::parse(target)?;
        }
        let table = self.document.entry("aliases").or_insert(Item::Table(Table::new()));
        let Some(table) = table.as_table_like_mut() else { return Ok(false) };
        let before = match target {
            Some(target) => table.insert(alias, value(target)).is_some(),
            None => table.remove(alias).is_some(),
        };
        if target.is_none() && !before {
            return Ok(false);
        }
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
        }
        write_atomic(&self.path, self.document.to_string().as_bytes())?;
        *self = Aliases::open(&self.path)?;
        Ok(before)
    }
}

fn registry(name: &str, item: &Item) -> std::result::Result<Registry, String> {
    check_registry(name).map_err(|p| format!(": {p}"))?;
    let table = item.as_table_like().ok_or(": must be a table")?;
    let mut registry = Registry { endpoint: String::new(), token_env: None, cache: None };
    for (key, item) in table.iter() {
        let text = item.as_str().ok_or_else(|| format!(".{key}: must be a text"))?;
        match key {
            "endpoint" => registry.endpoint = endpoint(text, "endpoint").map_err(|e| format!(": {e}"))?,
            "token_env" => registry.token_env = Some(text.to_owned()),
            "cache" => registry.cache = Some(PathBuf::from(text)),
            _ => return Err(format!(".{key}: not known; there are endpoint, token_env and cache")),
        }
    }
    match registry.endpoint.is_empty() {
        true => Err(".endpoint: missing".into()),
        false => Ok(registry),
    }
}

fn check_alias(alias: &str) -> std::result::Result<(), String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    match !alias.is_empty() && alias.len() <= 60 && alias.bytes().all(good) && !alias.starts_with(['-', '.', ':']) {
        true => Ok(()),
        false => Err("not an alias: letters, digits, '-', '_', '.' and ':', without a '/'".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/aliases.toml");
        std::fs::create_dir(dir.path().join("deep")).unwrap();
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn the_table_has_good_names_once() {
        for (i, (alias, target)) in ALIASES.iter().enumerate() {
            check_alias(alias).unwrap();
            assert_eq!(Target::parse(target).unwrap().to_string(), *target);
            assert!(alias.contains(':') && *alias == alias.to_lowercase(), "{alias}");
            assert!(ALIASES[..i].iter().all(|other| other.0 != *alias), "{alias} twice");
        }
    }

    #[test]
    fn a_name_is_an_alias_or_a_repository() {
        let (_dir, path) = write("[aliases]\nmine = \"a/b:Q8_0\"\n'qwen3:4b' = \"c/d\"\n");
        let aliases = Aliases::open(&path).unwrap();
        let resolve = |name: &str| aliases.resolve(name).unwrap().map(|t| t.to_string());
        assert_eq!(resolve("mine").unwrap(), "a/b:Q8_0");
        assert_eq!(resolve("mine:F16").unwrap(), "a/b:F16");
        assert_eq!(resolve("qwen3:4b").unwrap(), "c/d");
        assert_eq!(resolve("Qwen3:8B").unwrap(), "Qwen/Qwen3-8B-GGUF:Q4_K_M");
        assert_eq!(resolve("x/y:Q4_0").unwrap(), "x/y:Q4_0");
        assert_eq!(resolve("gpt2"), None);
        let said = aliases.resolve("qwen3").unwrap_err().to_string();
        assert!(said.contains("qwen3:8b") && !said.contains("qwen2.5"), "{said}");
        assert_eq!(aliases.near("quen3:8b")[0], "qwen3:8b");
        assert!(aliases.near("something else").is_empty());
    }

    #[test]
    fn the_users_file_keeps_its_comments_and_its_errors_have_a_place() {
        let (_dir, path) = write("# my models\n[aliases]\na = \"o/n\" # the best\n");
        let mut aliases = Aliases::open(&path).unwrap();
        assert!(!aliases.set("b", Some("o/m:Q4_0")).unwrap());
        assert!(aliases.set("a", Some("o/l")).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("# my models") && text.contains("b = \"o/m:Q4_0\""), "{text}");
        assert!(aliases.set("b", None).unwrap() && !aliases.set("b", None).unwrap());
        assert!(aliases.set("c/d", Some("o/n")).is_err() && aliases.set("c", Some("../x")).is_err());
        for (text, said) in [
            ("aliases = 3", "aliases: must be"),
            ("[aliases]\nx = 3", "aliases.x"),
            ("[aliases]\nx = \"a/b/c\"", "aliases.x"),
            ("[other]\n", "other: not known"),
            ("[registries.lab]\n", "registries.lab.endpoint: missing"),
            ("[registries.lab]\nendpoint = \"lab\"", "registries.lab"),
            ("[registries.lab]\nport = \"1\"", "registries.lab.port"),
            ("[aliases", "line 1"),
        ] {
            let (_dir, path) = write(text);
            let e = Aliases::open(&path).unwrap_err().to_string();
            assert!(e.contains(said) && e.contains("aliases.toml"), "{e}");
        }
    }

    #[test]
    fn a_registry_has_its_own_endpoint_cache_and_token() {
        let (_dir, path) = write(
            "[registries.lab]\nendpoint = \"http://lab:80/\"\n[registries.l2]\nendpoint = \"https://l2\"\ncache = \"/l2\"\n",
        );
        let aliases = Aliases::open(&path).unwrap();
        let env = |key: &str| {
            Some(
                match key {
                    "HF_TOKEN" => "hush",
                    "HF_HOME" => "/hf",
                    _ => return None,
                }
                .to_owned(),
            )
        };
        let settings = Settings::from(None, env).unwrap();
        let lab = aliases.settings(&Target::parse("lab://a/b").unwrap(), &settings).unwrap();
        assert_eq!((lab.endpoint.as_str(), lab.token), ("http://lab:80", None));
        assert_eq!(lab.cache.root(), Path::new("/hf/registries/lab"));
        let l2 = aliases.settings(&Target::parse("l2://a/b").unwrap(), &settings).unwrap();
        assert_eq!(l2.cache.root(), Path::new("/l2"));
        assert!(aliases.settings(&Target::parse("a/b").unwrap(), &settings).unwrap().token.is_some());
        assert!(
            aliases
                .settings(&Target::parse("other://a/b").unwrap(), &settings)
                .unwrap_err()
                .to_string()
                .contains("lab")
        );
    }
}
