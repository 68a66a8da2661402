//! safetensors, the file format of Hugging Face, in one file or in shards with an index.
//!
//! Specification: <https://github.com/huggingface/safetensors>. Read strictly: the tensors' bytes cover the data
//! without gap or overlap, names occur once, the header is bounded.

mod header;
mod index;
mod writer;

pub use index::shards;
pub use writer::{SafeTensorsWriter, TensorSpec};

use crate::error::Origin;
use crate::{Bytes, OpenOptions, Result, source};
use imaginal_numeric::Format;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The element type of a tensor in a safetensors file.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
#[allow(missing_docs)]
pub enum Dtype {
    Bool,
    U8,
    I8,
    F8E5M2,
    F8E4M3,
    F8E8M0,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    F64,
    I64,
    U64,
}

/// Spelling in the file, bytes per element, and the format of `numeric` with the same bytes.
const DTYPES: &[(Dtype, &str, usize, Option<Format>)] = &[
    (Dtype::Bool, "BOOL", 1, None),
    (Dtype::U8, "U8", 1, None),
    (Dtype::I8, "I8", 1, Some(Format::I8)),
    (Dtype::F8E5M2, "F8_E5M2", 1, None),
    (Dtype::F8E4M3, "F8_E4M3", 1, None),
    (Dtype::F8E8M0, "F8_E8M0", 1, None),
    (Dtype::I16, "I16", 2, Some(Format::I16)),
    (Dtype::U16, "U16", 2, None),
    (Dtype::F16, "F16", 2, Some(Format::F16)),
    (Dtype::BF16, "BF16", 2, Some(Format::BF16)),
    (Dtype::I32, "I32", 4, Some(Format::I32)),
    (Dtype::U32, "U32", 4, None),
    (Dtype::F32, "F32", 4, Some(Format::F32)),
    (Dtype::F64, "F64", 8, Some(Format::F64)),
    (Dtype::I64, "I64", 8, Some(Format::I64)),
    (Dtype::U64, "U64", 8, None),
];

impl Dtype {
    fn row(self) -> &'static (Dtype, &'static str, usize, Option<Format>) {
        // Every variant has its row, in order; a test walks them.
        &DTYPES[self as usize]
    }

    /// The spelling in the file, for instance `"BF16"`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Bytes per element.
    pub fn size(self) -> usize {
        self.row().2
    }

    /// The format with the same bytes; `None` for bools, unsigned integers and 8-bit floats.
    pub fn format(self) -> Option<Format> {
        self.row().3
    }

    /// The type with this spelling.
    pub fn from_name(name: &str) -> Option<Dtype> {
        DTYPES.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The type with the bytes of `format`; `None` for block formats.
    pub fn from_format(format: Format) -> Option<Dtype> {
        DTYPES.iter().find(|row| row.3 == Some(format)).map(|row| row.0)
    }
}

/// One tensor of a safetensors file.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its shape, outermost dimension first. Empty for a single number.
    pub shape: Vec<usize>,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its bytes, row-major, little-endian.
    pub bytes: Bytes,
}

impl TensorInfo {
    /// The number of elements.
    pub fn elem_count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A model in safetensors: one file, or the shards of an index.
///
/// ```no_run
/// use imaginal_files::{OpenOptions, SafeTensors};
/// let file = SafeTensors::open("model.safetensors", OpenOptions::default())?;
/// let norm = file.tensor("model.norm.weight")?;
/// println!("{:?} of {}", norm.shape, norm.dtype.name());
/// # Ok::<(), imaginal_files::Error>(())
/// ```
#[derive(Debug)]
pub struct SafeTensors {
    origin: Origin,
    metadata: BTreeMap<String, String>,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

impl SafeTensors {
    /// Opens a file, or all shards of an index (`….json`).
    ///
    /// # Errors
    /// Anything in [`Error`](crate::Error) that can be wrong with the file, the index or a shard.
    pub fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<SafeTensors> {
        let origin = Origin::new(path);
        if origin.path().extension().is_some_and(|e| e == "json") {
            return index::open(origin, options);
        }
        let bytes = source::open(&origin, options)?;
        SafeTensors::read(origin, bytes)
    }

    /// Opens the model of a directory: `model.safetensors`, or the shards of `model.safetensors.index.json`.
    ///
    /// # Errors
    /// As [`SafeTensors::open`]; [`Error::Io`](crate::Error::Io) when the directory has neither.
    pub fn open_dir(directory: impl AsRef<Path>, options: OpenOptions) -> Result<SafeTensors> {
        let directory = directory.as_ref();
        let index = directory.join("model.safetensors.index.json");
        let whole = directory.join("model.safetensors");
        // As transformers does: a whole file comes before an index.
        SafeTensors::open(if !whole.exists() && index.exists() { index } else { whole }, options)
    }

    /// Reads a file from memory; `name` stands for the path in errors.
    ///
    /// # Errors
    /// As [`SafeTensors::open`].
    pub fn from_bytes(name: &str, bytes: impl Into<Bytes>) -> Result<SafeTensors> {
        SafeTensors::read(Origin::new(name), bytes.into())
    }

    /// Reads a model in shards from memory: the index, and a function that gives a shard's bytes by its name.
    ///
    /// # Errors
    /// As [`SafeTensors::open`], and whatever `shard` answers.
    pub fn from_index(name: &str, index: &[u8], mut shard: impl FnMut(&str) -> Result<Bytes>) -> Result<SafeTensors> {
        let origin = Origin::new(name);
        index::read(&origin, index, |file| SafeTensors::read(Origin::new(file), shard(file)?))
    }

    fn read(origin: Origin, bytes: Bytes) -> Result<SafeTensors> {
        let (metadata, tensors) = header::read(&origin, &bytes)?;
        Ok(SafeTensors::with(origin, metadata, tensors))
    }

    /// `tensors` have different names.
    fn with(origin: Origin, metadata: BTreeMap<String, String>, tensors: Vec<TensorInfo>) -> SafeTensors {
        let by_name = tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        SafeTensors { origin, metadata, tensors, by_name }
    }

    /// The path of the file or index, or the name given for bytes from memory.
    pub fn path(&self) -> &Path {
        self.origin.path()
    }

    /// The strings under `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// All tensors in the order of their data.
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
        self.find(name).ok_or_else(|| self.origin.missing_tensor(name))
    }

    /// An error about a tensor, for one that is well-formed and still not what a model needs (its shape, say).
    pub fn invalid_tensor(&self, name: &str, problem: impl ToString) -> crate::Error {
        self.origin.malformed(format_args!("tensor {name}"), problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dtype_has_its_row() {
        for (i, row) in DTYPES.iter().enumerate() {
            assert_eq!(row.0 as usize, i);
            assert_eq!(Dtype::from_name(row.1), Some(row.0));
            if let Some(format) = row.3 {
                assert_eq!((format.block_len(), format.block_bytes()), (1, row.2));
                assert_eq!(Dtype::from_format(format), Some(row.0));
            }
        }
        assert_eq!(DTYPES.len(), Dtype::U64 as usize + 1);
    }
}
