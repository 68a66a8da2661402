//! Writing safetensors.

use super::Dtype;
use crate::Result;
use crate::atomic::AtomicFile;
use crate::error::Origin;
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

/// A tensor that a [`SafeTensorsWriter`] will write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Its shape, outermost dimension first; none zero.
    pub shape: Vec<usize>,
    /// The type of its elements.
    pub dtype: Dtype,
}

/// Writes a safetensors file: the header at once, then the tensors' data as it comes.
///
/// The file appears under its name only with [`SafeTensorsWriter::finish`]; dropped before, it leaves nothing behind.
///
/// ```
/// use imaginal_files::safetensors::{Dtype, SafeTensors, SafeTensorsWriter, TensorSpec};
/// let spec = TensorSpec { name: "x".to_owned(), shape: vec![2, 3], dtype: Dtype::F32 };
/// let mut writer = SafeTensorsWriter::to_memory("example", &Default::default(), &[spec])?;
/// writer.append(&[0; 24])?;
/// let file = SafeTensors::from_bytes("example", writer.into_memory()?)?;
/// assert_eq!(file.tensor("x")?.shape, [2, 3]);
/// # Ok::<(), imaginal_files::Error>(())
/// ```
#[derive(Debug)]
pub struct SafeTensorsWriter<W: Write = BufWriter<AtomicFile>> {
    origin: Origin,
    out: W,
    left: u64,
}

impl SafeTensorsWriter {
    /// Begins the file `path` with these strings under `__metadata__` and these tensors, whose data follows in this
    /// order.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write) when a name occurs twice or a shape has a zero;
    /// [`Error::Io`](crate::Error::Io).
    pub fn create(
        path: impl AsRef<Path>,
        metadata: &BTreeMap<String, String>,
        tensors: &[TensorSpec],
    ) -> Result<SafeTensorsWriter> {
        let origin = Origin::new(&path);
        let head = head(&origin, metadata, tensors)?;
        SafeTensorsWriter::begin(origin, BufWriter::with_capacity(1 << 20, AtomicFile::create(path)?), head)
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write) when data is missing; [`Error::Io`](crate::Error::Io) when the disk is
    /// full.
    pub fn finish(self) -> Result<()> {
        self.complete()?;
        let origin = self.origin;
        self.out.into_inner().map_err(|e| origin.io("write", e.into_error()))?.commit()
    }
}

impl SafeTensorsWriter<Vec<u8>> {
    /// Begins a file in memory; `name` stands for the path in errors.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write) as for [`SafeTensorsWriter::create`].
    pub fn to_memory(
        name: &str,
        metadata: &BTreeMap<String, String>,
        tensors: &[TensorSpec],
    ) -> Result<SafeTensorsWriter<Vec<u8>>> {
        let origin = Origin::new(name);
        let head = head(&origin, metadata, tensors)?;
        SafeTensorsWriter::begin(origin, Vec::new(), head)
    }

    /// The bytes of the complete file.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write) when data is missing.
    pub fn into_memory(self) -> Result<Vec<u8>> {
        self.complete()?;
        Ok(self.out)
    }
}

impl<W: Write> SafeTensorsWriter<W> {
    fn begin(origin: Origin, mut out: W, (head, left): (Vec<u8>, u64)) -> Result<SafeTensorsWriter<W>> {
        out.write_all(&head).map_err(|e| origin.io("write", e))?;
        Ok(SafeTensorsWriter { origin, out, left })
    }

    /// Writes the next bytes of data: the tensors' bytes in the order of the specs, in pieces of any size.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write) when there are more bytes than the tensors have;
    /// [`Error::Io`](crate::Error::Io).
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            let problem = format!("{} bytes given, {} are left", bytes.len(), self.left);
            return Err(self.origin.write("data", problem));
        };
        self.out.write_all(bytes).map_err(|e| self.origin.io("write", e))?;
        self.left = left;
        Ok(())
    }

    fn complete(&self) -> Result<()> {
        if self.left > 0 {
            return Err(self.origin.write("data", format!("{} bytes were not written", self.left)));
        }
        Ok(())
    }
}

fn head(origin: &Origin, metadata: &BTreeMap<String, String>, tensors: &[TensorSpec]) -> Result<(Vec<u8>, u64)> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut offset = 0u64;
    for spec in tensors {
        let refuse = |problem: &str| origin.write(format_args!("tensor {}", spec.name), problem);
        let size = spec
            .shape
            .iter()
            .try_fold(spec.dtype.size() as u64, |n, d| n.checked_mul(*d as u64))
            .filter(|size| *size > 0)
            .and_then(|size| offset.checked_add(size));
        let end = size.ok_or_else(|| refuse("a dimension is zero, or the shape overflows"))?;
        let entry = json!({"dtype": spec.dtype.name(), "shape": spec.shape, "data_offsets": [offset, end]});
        if spec.name == "__metadata__" || header.insert(spec.name.clone(), entry).is_some() {
            return Err(refuse("the name occurs twice"));
        }
        offset = end;
    }
    let mut text = serde_json::to_vec(&header).map_err(|e| origin.write("header", e))?;
    // Padded with spaces, so that the data is aligned to 8 bytes, as the specification recommends.
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text);
    Ok((out, offset))
}
