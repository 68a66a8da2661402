//! From what a user calls a model to the model: a path, the name of the one that is built in, an alias, or a repository of
//! the hub that is in the cache. Nothing here uses the network.

use std::path::{Path, PathBuf};

use imaginal_files::{Gguf, Tokenizer};
use imaginal_hub::{Aliases, Error as HubError, Settings};
use imaginal_kernels::packed::{Precision, set_precision};
use imaginal_models::{LoadOptions, Loaded};
use imaginal_numeric::Format;
use imaginal_tensor::Device;

use crate::cli::{Common, Compute, Failure};

/// The model that runs when none is named; its file is part of the program.
pub const DEFAULT: &str = "default";

static DEFAULT_BYTES: &[u8] = include_bytes!("../../../models/default/model.gguf");

/// The GGUF file of the default model.
pub fn default_model() -> &'static [u8] {
    DEFAULT_BYTES
}

/// The device that `--device` names.
///
/// # Errors
/// There is no such device, or this build has no support for it.
pub fn device(name: &str) -> Result<Device, Failure> {
    Ok(Device::from_name(name)?)
}

/// Where a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the program itself.
    BuiltIn,
    /// In this GGUF file or Hugging Face directory.
    Path(PathBuf),
}

impl Place {
    /// The path, where there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Place::BuiltIn => None,
            Place::Path(path) => Some(path),
        }
    }
}

/// Finds the model that `name` stands for: a path, `default`, an alias, or `org/name[:file or quantization]` in the cache,
/// in this order.
///
/// # Errors
/// There is no such model (the nearest names are given), or it has to be pulled first.
pub fn place(name: &str) -> Result<Place, Failure> {
    if Path::new(name).exists() {
        return Ok(Place::Path(name.into()));
    }
    if name == DEFAULT {
        return Ok(Place::BuiltIn);
    }
    if is_path(name) {
        return Err(unknown(name, None).into());
    }
    let settings = Settings::from_env()?;
    let aliases = Aliases::open(&settings.aliases)?;
    match imaginal_hub::find(name, &aliases, &settings) {
        Ok(Some(located)) => Ok(Place::Path(located.path)),
        Ok(None) | Err(HubError::Name { .. }) => Err(unknown(name, Some(&aliases)).into()),
        Err(e) => Err(e.into()),
    }
}

/// Whether a name can only be meant as a path.
fn is_path(name: &str) -> bool {
    let file = [".gguf", ".safetensors", ".json"].iter().any(|end| name.ends_with(end)) && !name.contains(':');
    file || name.starts_with(['.', '/', '~']) || name.contains('\\') || name.ends_with('/')
}

/// Loads the model that `name` stands for, see [`place`].
///
/// # Errors
/// As for [`place`], or the model's files are wrong.
pub fn load(name: &str, common: &Common) -> Result<Loaded, Failure> {
    let device = device(&common.device)?;
    let loaded = match place(name)? {
        Place::BuiltIn => Loaded::from_gguf_bytes("models/default/model.gguf", DEFAULT_BYTES, &device)?,
        Place::Path(path) => Loaded::open(path, &LoadOptions { device, ..LoadOptions::default() })?,
    };
    let config = loaded.model.config();
    if let Some(unknown) = config.stands_for() {
        let known = config.arch().name;
        eprintln!(
            "note: architecture {unknown:?} is not known; its fields and tensors are those of {known}, as which it runs"
        );
    }
    for note in &loaded.notes {
        eprintln!("note: {note}");
    }
    match common.compute {
        Compute::Auto => {}
        Compute::Fast => set_precision(Precision::Fast),
        Compute::F32 => set_precision(Precision::F32),
        Compute::Bf16 => loaded.model.morph(Format::BF16, false)?,
    }
    Ok(loaded)
}

/// The GGUF file of a place, for what looks at the file itself.
///
/// # Errors
/// It is no GGUF file.
pub fn gguf(place: &Place) -> Result<Gguf, Failure> {
    match place {
        Place::BuiltIn => Ok(Gguf::from_bytes(DEFAULT, DEFAULT_BYTES)?),
        Place::Path(path) => Ok(Gguf::open(path, Default::default())?),
    }
}

/// The tokenizer of the model that `name` stands for, without its weights.
///
/// # Errors
/// There is no such model, it has no tokenizer, or its files are wrong.
pub fn tokenizer(name: &str) -> Result<Tokenizer, Failure> {
    let place = place(name)?;
    let found = match place.path() {
        Some(path) if path.is_dir() => Tokenizer::in_directory(path)?,
        Some(path) if path.extension().is_some_and(|e| e == "safetensors") => {
            Tokenizer::in_directory(path.parent().unwrap_or(path))?
        }
        _ => Some(Tokenizer::from_gguf(&gguf(&place)?)?).filter(|t| t.vocab_size() > 0),
    };
    found.ok_or_else(|| format!("{name} has no tokenizer: its files hold token ids only").into())
}

/// What to say of a name that is no model.
fn unknown(name: &str, aliases: Option<&Aliases>) -> String {
    let mut near: Vec<(usize, String)> = candidates(name)
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&stem(name), &stem(&c)), c))
        .filter(|(distance, c)| *distance <= name.chars().count().max(c.chars().count()) / 2)
        .collect();
    near.sort();
    let mut near: Vec<String> = near.into_iter().map(|(_, c)| c).collect();
    near.extend(aliases.into_iter().flat_map(|a| a.near(name)));
    let near: Vec<String> = near.into_iter().take(3).map(|c| format!("{c:?}")).collect();
    let hint = match near.as_slice() {
        [] => format!("{DEFAULT:?} is built in"),
        near => format!("did you mean {}?", near.join(" or ")),
    };
    let what = match aliases {
        Some(_) => "there is no such file or directory, alias or repository in the cache",
        None => "there is no such file or directory",
    };
    format!("{name:?} is no model: {what} ({hint}). To give a prompt without a model, use -p")
}

/// The part of a name that people remember.
fn stem(name: &str) -> String {
    let base = Path::new(name).file_name().map_or_else(|| name.to_owned(), |f| f.to_string_lossy().into_owned());
    base.trim_end_matches(".gguf").to_lowercase()
}

/// Names of models where the user seems to be looking.
fn candidates(name: &str) -> Vec<String> {
    let parent = Path::new(name).parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { &parent };
    let mut found = vec![DEFAULT.to_owned()];
    found.extend(here(folder).into_iter().map(|(name, _)| parent.join(name).to_string_lossy().into_owned()));
    found
}

/// The models of a folder: names of GGUF files and of Hugging Face directories in it, with their paths.
pub(crate) fn here(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(10_000);
    let model = |path: &PathBuf| path.extension().is_some_and(|e| e == "gguf") || path.join("config.json").is_file();
    let mut found: Vec<(String, PathBuf)> = entries
        .filter(|entry| model(&entry.path()))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_gets_the_nearest_ones() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("qwen3-tiny.gguf"), b"").unwrap();
        std::fs::create_dir(dir.path().join("llama")).unwrap();
        std::fs::write(dir.path().join("llama/config.json"), b"{}").unwrap();
        let name = |n: &str| dir.path().join(n).to_string_lossy().into_owned();
        assert!(unknown(&name("qwen-tiny"), None).contains("qwen3-tiny.gguf"));
        assert!(unknown(&name("lama"), None).contains("/llama"));
        assert!(unknown("defualt", None).contains("\"default\""));
        assert!(unknown("something else entirely", None).contains("built in"));
        let aliases = Aliases::open(&dir.path().join("none.toml")).unwrap();
        assert!(unknown("quen3:8b", Some(&aliases)).contains("\"qwen3:8b\""));
    }

    #[test]
    fn a_path_is_told_from_a_repository() {
        for path in ["./a/b", "/a/b", "../b", "~/b", "models/x.gguf", "a\\b", "a/"] {
            assert!(is_path(path), "{path}");
        }
        for name in ["a/b", "a/b:x.gguf", "qwen3:4b", "lab://a/b"] {
            assert!(!is_path(name), "{name}");
        }
    }
}
