//! GGUF, the file format of ggml, versions 2 and 3, little-endian; whole or split into shards.
//!
//! Specification: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod meta;
mod part;
mod value;
mod writer;

pub use meta::{FromValue, Metadata};
pub use value::{ArrayRef, Kind, Value, ValueRef};
pub use writer::{GgufWriter, TensorSpec};

use crate::error::Origin;
use crate::{Bytes, OpenOptions, Result, source};
use imaginal_numeric::Format;
use part::Part;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A GGUF model: metadata, and tensors whose bytes share the mapping of the file.
///
/// ```no_run
/// use imaginal_files::{Gguf, OpenOptions};
/// let gguf = Gguf::open("model.gguf", OpenOptions::default())?;
/// let layers: usize = gguf.metadata().require("llama.block_count")?;
/// let norm = gguf.tensor("output_norm.weight")?;
/// println!("{layers} layers, norm {:?} in {}", norm.shape, norm.format);
/// # Ok::<(), imaginal_files::Error>(())
/// ```
#[derive(Debug)]
pub struct Gguf {
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

/// One tensor of a GGUF file.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its shape, outermost dimension first (the file has them the other way round). Empty for a single number.
    pub shape: Vec<usize>,
    /// The format of its elements. Rows (the last dimension) are whole blocks of it.
    pub format: Format,
    /// Its bytes: rows one after the other.
    pub bytes: Bytes,
}

impl TensorInfo {
    /// The number of elements.
    pub fn elem_count(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Gguf {
    /// Opens a model. Of a split model (`…-00001-of-00003.gguf`) the first shard is named, and the others are found
    /// beside it.
    ///
    /// # Errors
    /// Anything in [`Error`](crate::Error) that can be wrong with the file or one of its shards.
    pub fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<Gguf> {
        let path = path.as_ref();
        let first = Part::read(Origin::new(path), source::open(&Origin::new(path), options)?)?;
        Gguf::assemble(first, |number, count| {
            let origin = Origin::new(path);
            let sibling = shard_path(path, number, count).ok_or_else(|| {
                let want = format!("the model has {count} parts, so its name must end in -00001-of-{count:05}.gguf");
                origin.shard("metadata split.count", want)
            })?;
            let sibling_origin = Origin::new(&sibling);
            if !sibling.is_file() {
                let problem = format!("part {number} of {count} is missing");
                return Err(origin.shard(format_args!("shard {}", sibling.display()), problem));
            }
            Part::read(sibling_origin.clone(), source::open(&sibling_origin, options)?)
        })
    }

    /// Reads a model from memory; `name` stands for the path in errors.
    ///
    /// # Errors
    /// As [`Gguf::open`]. A split model is [`Error::Shard`](crate::Error::Shard): see [`Gguf::from_parts`].
    pub fn from_bytes(name: &str, bytes: impl Into<Bytes>) -> Result<Gguf> {
        Gguf::from_parts(name, vec![bytes.into()])
    }

    /// Reads a split model from memory, its parts in order.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_parts(name: &str, parts: Vec<Bytes>) -> Result<Gguf> {
        let origin = Origin::new(name);
        let mut parts = parts.into_iter();
        let first = Part::read(origin.clone(), parts.next().unwrap_or_else(|| Vec::new().into()))?;
        Gguf::assemble(first, |number, count| {
            let missing = || origin.shard("metadata split.count", format!("part {number} of {count} was not given"));
            Part::read(Origin::new(format!("{name} (part {number})")), parts.next().ok_or_else(missing)?)
        })
    }

    fn assemble(first: Part, mut next: impl FnMut(u32, u32) -> Result<Part>) -> Result<Gguf> {
        let Part { version, metadata, tensors } = first;
        let mut gguf = Gguf { version, metadata, tensors: Vec::new(), by_name: HashMap::new() };
        let origin = gguf.metadata.origin().clone();
        let count = gguf.metadata.get_as::<u16>("split.count")?.map_or(1, u32::from);
        gguf.add(&origin, tensors)?;
        if count > 1 {
            let number = gguf.metadata.require::<u16>("split.no")?;
            if number != 0 {
                let problem = format!("this is part {} of {count}, not the first", number + 1);
                return Err(origin.shard("metadata split.no", problem));
            }
            for number in 2..=count {
                let part = next(number, count)?;
                let here = part.metadata.origin();
                for (key, found, expected) in [
                    ("split.no", u32::from(part.metadata.require::<u16>("split.no")?), number - 1),
                    ("split.count", u32::from(part.metadata.require::<u16>("split.count")?), count),
                ] {
                    if found != expected {
                        let problem = format!("{found}, where the first part and the name say {expected}");
                        return Err(here.shard(format_args!("metadata {key}"), problem));
                    }
                }
                let here = here.clone();
                gguf.add(&here, part.tensors)?;
            }
            if let Some(total) = gguf.metadata.get_as::<u64>("split.tensors.count")?
                && total != gguf.tensors.len() as u64
            {
                let problem = format!("{total} tensors are announced, the parts have {}", gguf.tensors.len());
                return Err(origin.shard("metadata split.tensors.count", problem));
            }
        }
        Ok(gguf)
    }

    fn add(&mut self, origin: &Origin, tensors: Vec<TensorInfo>) -> Result<()> {
        for tensor in tensors {
            if self.by_name.insert(tensor.name.clone(), self.tensors.len()).is_some() {
                return Err(origin.malformed(format_args!("tensor {}", tensor.name), "the name occurs twice"));
            }
            self.tensors.push(tensor);
        }
        Ok(())
    }

    /// The version of the file format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The path of the (first) file, or the name given for bytes from memory.
    pub fn path(&self) -> &Path {
        self.metadata.origin().path()
    }

    /// The metadata (of the first shard).
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name, where there is one.
    pub fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).and_then(|i| self.tensors.get(*i))
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// [`Error::MissingTensor`](crate::Error::MissingTensor) when there is none.
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo> {
        self.find(name).ok_or_else(|| self.metadata.origin().missing_tensor(name))
    }

    /// An error about a tensor, for one that is well-formed and still not what a model needs (its shape, say).
    pub fn invalid_tensor(&self, name: &str, problem: impl ToString) -> crate::Error {
        self.metadata.origin().malformed(format_args!("tensor {name}"), problem)
    }
}

/// The path of part `number` of `count`, from the path of the first: `…-00001-of-00003.gguf`.
fn shard_path(first: &Path, number: u32, count: u32) -> Option<PathBuf> {
    let name = first.file_name()?.to_str()?;
    let stem = name.strip_suffix(&format!("-00001-of-{count:05}.gguf"))?;
    Some(first.with_file_name(format!("{stem}-{number:05}-of-{count:05}.gguf")))
}
