//! Models of architectures that the table does not have, by what their files hold: a row whose fields are all there and
//! whose tensors are the file's, all of them and in their shapes, is what such a model is taken for.

use std::collections::HashMap;
use std::path::Path;

use imaginal_files::{Gguf, SafeTensors};
use serde_json::Value as Json;

use crate::arch::{ARCHS, Arch};
use crate::blocks::{BlockRow, Tensors};
use crate::load::{known_names, superfluous_in_safetensors};
use crate::tensors::{Stored, TensorSpec};
use crate::{Config, Error, Result};

/// The shapes of a file's tensors.
type Shapes<'a> = HashMap<&'a str, &'a [usize]>;

/// The configuration of a GGUF file whose architecture is not in the table, and is called `name`.
///
/// # Errors
/// [`Error::Architecture`] if no row fits.
pub(crate) fn from_gguf(gguf: &Gguf, name: &str) -> Result<Config> {
    let shapes: Shapes = gguf.tensors().iter().map(|t| (t.name.as_str(), &t.shape[..])).collect();
    // Which way the rows of queries and keys lie cannot be seen. Nearly all newer architectures leave them as they are.
    let (as_they_are, turned): (Vec<&'static Arch>, _) = ARCHS.iter().partition(|arch| {
        let half = |row: &BlockRow| !matches!(row, BlockRow::Attention(a) if a.gguf_rope != a.hf_rope);
        arch.layer.iter().all(|sub| half(&sub.block))
    });
    let fits = |arch: &&'static Arch| {
        let config = Config::of_gguf(arch, gguf, name).ok()?;
        let extras = config.gguf_extras();
        let left = |name: &str| !extras.iter().any(|extra| extra.name == name);
        fits(&config, |spec| &spec.gguf, &shapes, left).then_some(config)
    };
    let config = as_they_are.iter().chain(&turned).find_map(fits);
    config.map(|config| config.standing_for(name)).ok_or_else(|| unknown(gguf.path(), "general.architecture", name))
}

/// The same for a `config.json` and the weights beside it.
///
/// # Errors
/// As [`from_gguf`].
pub(crate) fn from_hf(json: &Json, path: &Path, weights: &SafeTensors, name: &str) -> Result<Config> {
    let fits = |arch: &'static Arch| {
        let shape = |name: &str| weights.tensors().iter().find(|t| t.name == name).map(|t| t.shape.clone());
        let config = Config::of_hf(arch, json, None, path, Tensors { shape: &shape, values: None }).ok()?;
        let known = known_names(&arch.outside, weights.tensors().iter().map(|t| t.name.as_str()));
        let names: Vec<String> = weights.tensors().iter().map(|t| known(&t.name)).collect();
        let shapes = names.iter().zip(weights.tensors()).map(|(name, t)| (name.as_str(), &t.shape[..])).collect();
        let left = |name: &str| !superfluous_in_safetensors(&config, name);
        fits(&config, |spec| &spec.hf, &shapes, left).then_some(config)
    };
    let config = ARCHS.iter().find_map(fits);
    config.map(|config| config.standing_for(name)).ok_or_else(|| unknown(path, "model_type", name))
}

/// Whether the file's tensors are those of the configuration; `left` tells which may not be left over.
fn fits(
    config: &Config,
    ways: impl Fn(&TensorSpec) -> &[Stored],
    shapes: &Shapes,
    left: impl Fn(&str) -> bool,
) -> bool {
    let mut unused = shapes.clone();
    for spec in config.tensors() {
        let there = |way: &&Stored| way.pieces().all(|p| shapes.get(p.name.as_str()) == Some(&&p.shape[..]));
        let Some(way) = ways(&spec).iter().find(there) else { return false };
        way.pieces().for_each(|p| {
            unused.remove(p.name.as_str());
        });
    }
    !unused.into_keys().any(left)
}

/// The error for a name that no row has.
pub(crate) fn unknown(path: &Path, field: &'static str, name: &str) -> Error {
    let known = ARCHS.iter().map(|a| a.name).collect::<Vec<_>>().join(", ");
    let name = name.chars().take(80).collect();
    Error::Architecture { path: path.to_path_buf(), field, name, known }
}
