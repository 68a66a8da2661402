//! The models on this machine: the built-in one, those in the cache, and those in the current folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use imaginal_files::{Json, SafeTensors};
use imaginal_hub::{Aliases, Located, Settings};
use imaginal_models::Arch;
use indicatif::DecimalBytes;
use serde_json::{Value, json};

use crate::cli::Failure;
use crate::find::{self, Place};

/// A model on this machine.
pub(crate) struct Row {
    /// What every verb takes as MODEL.
    name: String,
    /// A shorter name.
    alias: Option<String>,
    path: Option<PathBuf>,
    bytes: u64,
    /// `built in`, `cache`, the name of a registry, or `here`.
    source: String,
    about: Result<About, Failure>,
}

/// What a file's header says.
struct About {
    architecture: String,
    /// Whether this build has it.
    known: bool,
    /// The format that most bytes are in.
    format: String,
}

/// All models that can be named.
///
/// # Errors
/// The user's file of aliases cannot be read. A damaged model is a row that says so.
pub(crate) fn rows() -> Result<Vec<Row>, Failure> {
    let mut rows = vec![Row {
        name: find::DEFAULT.to_owned(),
        alias: None,
        path: None,
        bytes: find::default_model().len() as u64,
        source: "built in".to_owned(),
        about: about(&Place::BuiltIn),
    }];
    let settings = Settings::from_env()?;
    let aliases = Aliases::open(&settings.aliases)?;
    for (registry, cache) in aliases.caches(&settings) {
        rows.extend(cache.scan().into_iter().map(|model| Row {
            name: model.target(registry.as_deref()).to_string(),
            alias: alias(&aliases, &model, registry.as_deref()),
            path: Some(model.path.clone()),
            bytes: model.bytes,
            source: registry.clone().unwrap_or_else(|| "cache".to_owned()),
            about: about(&Place::Path(model.path)),
        }));
    }
    for (name, path) in find::here(Path::new(".")) {
        rows.push(Row {
            name,
            alias: None,
            bytes: size(&path),
            source: "here".to_owned(),
            about: about(&Place::Path(path.clone())),
            path: Some(path),
        });
    }
    Ok(rows)
}

impl Row {
    pub(crate) fn json(&self) -> Value {
        let about = self.about.as_ref();
        json!({
            "name": self.name,
            "alias": self.alias,
            "path": self.path,
            "bytes": self.bytes,
            "source": self.source,
            "architecture": about.map(|a| &a.architecture).ok(),
            "known": about.map(|a| a.known).unwrap_or(false),
            "format": about.map(|a| &a.format).ok(),
            "error": about.err().map(|e| e.to_string()),
        })
    }

    /// Name, size, format, source, architecture.
    pub(crate) fn cells(&self) -> [String; 5] {
        let name = match &self.alias {
            Some(alias) => format!("{} ({alias})", self.name),
            None => self.name.clone(),
        };
        let (format, architecture) = match &self.about {
            Ok(a) if a.known => (a.format.clone(), a.architecture.clone()),
            Ok(a) => (a.format.clone(), format!("{} (unknown)", a.architecture)),
            Err(e) => ("?".to_owned(), e.to_string().lines().next().unwrap_or_default().to_owned()),
        };
        [name, DecimalBytes(self.bytes).to_string(), format, self.source.clone(), architecture]
    }
}

/// The alias that means this model.
fn alias(aliases: &Aliases, model: &Located, registry: Option<&str>) -> Option<String> {
    if model.revision.is_some() {
        return None;
    }
    let means = |name: &str| {
        let target = aliases.resolve(name).ok().flatten()?;
        let selector = target.selector.as_deref().is_none_or(|s| s.eq_ignore_ascii_case(model.choice.selector()));
        (target.repo == model.repo && target.registry.as_deref() == registry && selector && target.revision.is_none())
            .then_some(())
    };
    aliases.iter().find(|(name, ..)| means(name).is_some()).map(|(name, ..)| name.to_owned())
}

fn about(place: &Place) -> Result<About, Failure> {
    let folder = place.path().filter(|path| path.is_dir());
    let mut formats: BTreeMap<&str, u64> = BTreeMap::new();
    let architecture = if let Some(folder) = folder {
        let weights = SafeTensors::open_dir(folder, Default::default())?;
        for t in weights.tensors() {
            *formats.entry(t.dtype.name()).or_default() += t.bytes.len() as u64;
        }
        let config = Json::open(folder.join("config.json"))?;
        let class = config.root()["architectures"][0].as_str().unwrap_or("");
        let kind = config.root()["model_type"].as_str().unwrap_or("");
        let row = Arch::by_hf(class, config.root()).or_else(|| Arch::by_hf(kind, config.root()));
        let name = row.map_or(if kind.is_empty() { class } else { kind }, |a| a.name);
        return Ok(About { architecture: name.to_owned(), known: row.is_some(), format: most(&formats) });
    } else {
        let gguf = find::gguf(place)?;
        for t in gguf.tensors() {
            *formats.entry(t.format.name()).or_default() += t.bytes.len() as u64;
        }
        gguf.metadata().get_as::<String>("general.architecture")?.unwrap_or_else(|| "none named".to_owned())
    };
    let known = Arch::by_name(&architecture).is_some();
    Ok(About { architecture, known, format: most(&formats) })
}

/// The key with the most bytes.
fn most(formats: &BTreeMap<&str, u64>) -> String {
    formats.iter().max_by_key(|(_, bytes)| **bytes).map_or_else(|| "none".to_owned(), |(name, _)| name.to_lowercase())
}

/// Bytes of a file, or of the files of a folder.
fn size(path: &Path) -> u64 {
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|e| e.path()).filter(|p| p.is_file()).map(|p| length(&p)).sum(),
        Err(_) => length(path),
    }
}
