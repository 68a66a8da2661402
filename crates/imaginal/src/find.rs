//! From what a user calls a model to the model: a path, or the name of the one that is built in.

use std::path::{Path, PathBuf};

use imaginal_files::{Gguf, Tokenizer};
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

/// Loads the model that `name` stands for: `default`, the path of a GGUF file or of a Hugging Face directory.
///
/// # Errors
/// There is no such model (the nearest names are given), or its files are wrong.
pub fn load(name: &str, common: &Common) -> Result<Loaded, Failure> {
    let device = device(&common.device)?;
    let loaded = if Path::new(name).exists() {
        Loaded::open(name, &LoadOptions { device, ..LoadOptions::default() })?
    } else if name == DEFAULT {
        Loaded::from_gguf_bytes("models/default/model.gguf", DEFAULT_BYTES, &device)?
    } else {
        return Err(unknown(name).into());
    };
    match common.compute {
        Compute::Auto => {}
        Compute::Fast => set_precision(Precision::Fast),
        Compute::F32 => set_precision(Precision::F32),
        Compute::Bf16 => loaded.model.morph(Format::BF16, false)?,
    }
    Ok(loaded)
}

/// The GGUF file of that name, for what looks at the file itself.
///
/// # Errors
/// There is no such file, or it is no GGUF file.
pub fn gguf(name: &str) -> Result<Gguf, Failure> {
    if Path::new(name).exists() {
        Ok(Gguf::open(name, Default::default())?)
    } else if name == DEFAULT {
        Ok(Gguf::from_bytes(DEFAULT, DEFAULT_BYTES)?)
    } else {
        Err(unknown(name).into())
    }
}

/// The tokenizer of the model that `name` stands for, without its weights.
///
/// # Errors
/// There is no such model, it has no tokenizer, or its files are wrong.
pub fn tokenizer(name: &str) -> Result<Tokenizer, Failure> {
    let found = match Path::new(name).is_dir() {
        true => Tokenizer::in_directory(name)?,
        false => Some(Tokenizer::from_gguf(&gguf(name)?)?).filter(|t| t.vocab_size() > 0),
    };
    found.ok_or_else(|| format!("{name} has no tokenizer: its files hold token ids only").into())
}

/// What to say of a name that is no model.
fn unknown(name: &str) -> String {
    let mut near: Vec<(usize, String)> = candidates(name)
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&stem(name), &stem(&c)), c))
        .filter(|(distance, c)| *distance <= name.chars().count().max(c.chars().count()) / 2)
        .collect();
    near.sort();
    let near: Vec<String> = near.into_iter().take(3).map(|(_, c)| format!("{c:?}")).collect();
    let hint = match near.as_slice() {
        [] => format!("{DEFAULT:?} is built in"),
        near => format!("did you mean {}?", near.join(" or ")),
    };
    format!(
        "{name:?} is no model: there is no such file or directory ({hint}). To give a prompt without a model, use -p"
    )
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
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten().take(10_000) {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "gguf") || path.join("config.json").is_file() {
            found.push(parent.join(entry.file_name()).to_string_lossy().into_owned());
        }
    }
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
        assert!(unknown(&name("qwen-tiny")).contains("qwen3-tiny.gguf"));
        assert!(unknown(&name("lama")).contains("/llama"));
        assert!(unknown("defualt").contains("\"default\""));
        assert!(unknown("something else entirely").contains("built in"));
    }
}
