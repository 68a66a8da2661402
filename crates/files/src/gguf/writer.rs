//! Writing GGUF version 3.

use super::value::{Value, write_string};
use crate::Result;
use crate::atomic::AtomicFile;
use crate::error::Origin;
use imaginal_numeric::Format;
use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::path::Path;

/// A tensor that a [`GgufWriter`] will write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TensorSpec {
    /// Its name, at most 63 bytes (what ggml reads).
    pub name: String,
    /// Its shape, outermost dimension first; at most 4 dimensions, none zero.
    pub shape: Vec<usize>,
    /// Its format, one that GGUF has; rows (the last dimension) are whole blocks.
    pub format: Format,
}

impl TensorSpec {
    /// Bytes of the tensor's data; `None` when the shape does not suit the format.
    pub fn bytes(&self) -> Option<usize> {
        let elems = self.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
        let row = self.shape.last().copied().unwrap_or(1);
        row.is_multiple_of(self.format.block_len()).then(|| self.format.bytes_for(elems)).flatten()
    }
}

/// Writes a GGUF file: metadata and tensor table at once, then the tensors' data as it comes.
///
/// The file appears under its name only with [`GgufWriter::finish`]; dropped before, it leaves nothing behind.
///
/// ```
/// use imaginal_files::gguf::{Gguf, GgufWriter, TensorSpec, Value};
/// use imaginal_numeric::Format;
/// let meta = [("general.architecture".to_owned(), Value::from("llama"))];
/// let spec = TensorSpec { name: "x".to_owned(), shape: vec![2, 3], format: Format::F32 };
/// let mut writer = GgufWriter::to_memory("example", &meta, &[spec])?;
/// writer.tensor("x", &[0; 24])?;
/// let gguf = Gguf::from_bytes("example", writer.into_memory()?)?;
/// assert_eq!(gguf.tensor("x")?.shape, [2, 3]);
/// # Ok::<(), imaginal_files::Error>(())
/// ```
#[derive(Debug)]
pub struct GgufWriter<W: Write = BufWriter<AtomicFile>> {
    origin: Origin,
    out: W,
    tensors: Vec<Planned>,
    current: usize,
    written: u64,
}

#[derive(Debug)]
struct Planned {
    name: String,
    bytes: u64,
    padding: u64,
}

/// Alignment of every tensor, the default of the format.
const ALIGNMENT: u64 = 32;
/// ggml keeps names in 64 bytes, the last of them zero.
const LONGEST_NAME: usize = 63;

impl GgufWriter {
    /// Begins the file `path` with this metadata and these tensors, in this order.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write) when a key or name occurs twice or a tensor cannot be written as asked; [`Error::Io`](crate::Error::Io).
    pub fn create(path: impl AsRef<Path>, metadata: &[(String, Value)], tensors: &[TensorSpec]) -> Result<GgufWriter> {
        let origin = Origin::new(&path);
        // Everything that can be refused is, before a file is touched.
        let head = head(&origin, metadata, tensors)?;
        let out = BufWriter::with_capacity(1 << 20, AtomicFile::create(path)?);
        GgufWriter::begin(origin, out, head)
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write) when a tensor was not written; [`Error::Io`](crate::Error::Io) when the disk is full.
    pub fn finish(self) -> Result<()> {
        self.complete()?;
        let origin = self.origin;
        let file = self.out.into_inner().map_err(|e| origin.io("write", e.into_error()))?;
        file.commit()
    }
}

impl GgufWriter<Vec<u8>> {
    /// Begins a file in memory; `name` stands for the path in errors.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write) as for [`GgufWriter::create`].
    pub fn to_memory(name: &str, metadata: &[(String, Value)], tensors: &[TensorSpec]) -> Result<GgufWriter<Vec<u8>>> {
        let origin = Origin::new(name);
        let head = head(&origin, metadata, tensors)?;
        GgufWriter::begin(origin, Vec::new(), head)
    }

    /// The bytes of the complete file.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write) when a tensor was not written.
    pub fn into_memory(self) -> Result<Vec<u8>> {
        self.complete()?;
        Ok(self.out)
    }
}

impl<W: Write> GgufWriter<W> {
    fn begin(origin: Origin, mut out: W, (head, tensors): (Vec<u8>, Vec<Planned>)) -> Result<GgufWriter<W>> {
        out.write_all(&head).map_err(|e| origin.io("write", e))?;
        Ok(GgufWriter { origin, out, tensors, current: 0, written: 0 })
    }

    /// Writes the next tensor whole.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write) when it is not this tensor's turn or the size is another; [`Error::Io`](crate::Error::Io).
    pub fn tensor(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        match self.tensors.get(self.current) {
            Some(next) if self.written == 0 && next.name == name && next.bytes == bytes.len() as u64 => {
                self.append(bytes)
            }
            Some(next) => {
                let problem = format!(
                    "{} bytes given, where tensor {} has {} bytes to come",
                    bytes.len(),
                    next.name,
                    next.bytes - self.written
                );
                Err(self.origin.write(format_args!("tensor {name}"), problem))
            }
            None => Err(self.origin.write(format_args!("tensor {name}"), "all tensors are written")),
        }
    }

    /// Writes the next bytes of the tensor under way, and goes on to the next tensor where they complete it.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write) when there are more bytes than the tensor has; [`Error::Io`](crate::Error::Io).
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(tensor) = self.tensors.get(self.current) else {
            return Err(self.origin.write("data", "all tensors are written"));
        };
        let left = tensor.bytes - self.written;
        if bytes.len() as u64 > left {
            let problem = format!("{} bytes given, {left} of {} are left", bytes.len(), tensor.bytes);
            return Err(self.origin.write(format_args!("tensor {}", tensor.name), problem));
        }
        let io = |e| self.origin.io("write", e);
        self.out.write_all(bytes).map_err(io)?;
        self.written += bytes.len() as u64;
        if self.written == tensor.bytes {
            self.out.write_all(&[0; ALIGNMENT as usize][..tensor.padding as usize]).map_err(io)?;
            self.current += 1;
            self.written = 0;
        }
        Ok(())
    }

    fn complete(&self) -> Result<()> {
        match self.tensors.get(self.current) {
            None => Ok(()),
            Some(next) => {
                let problem = format!("{} of {} bytes were written", self.written, next.bytes);
                Err(self.origin.write(format_args!("tensor {}", next.name), problem))
            }
        }
    }
}

/// Everything before the data, and what data is to come.
fn head(origin: &Origin, metadata: &[(String, Value)], tensors: &[TensorSpec]) -> Result<(Vec<u8>, Vec<Planned>)> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    let mut keys = HashSet::new();
    for (key, value) in metadata {
        let refuse = |problem: String| origin.write(format_args!("metadata {key}"), problem);
        if key.is_empty() || !keys.insert(key) {
            return Err(refuse("a key is not empty and occurs once".to_owned()));
        }
        if key == "general.alignment" && *value != Value::U32(ALIGNMENT as u32) {
            return Err(refuse(format!("the writer aligns to {ALIGNMENT}")));
        }
        write_string(key, &mut out);
        out.extend((value.kind() as u32).to_le_bytes());
        value.write(&mut out).map_err(refuse)?;
    }
    let mut names = HashSet::new();
    let mut planned = Vec::new();
    let mut offset = 0u64;
    for spec in tensors {
        let refuse = |problem: &str| Err(origin.write(format_args!("tensor {}", spec.name), problem));
        if spec.name.is_empty() || spec.name.len() > LONGEST_NAME || !names.insert(&spec.name) {
            return refuse("a name has 1 to 63 bytes and occurs once");
        }
        if spec.shape.len() > 4 || spec.shape.contains(&0) {
            return refuse("a shape has at most 4 dimensions, none of them zero");
        }
        let Some(number) = spec.format.info().ggml_type else {
            return refuse("GGUF has no type for its format; encode it in another");
        };
        let Some(bytes) = spec.bytes() else {
            return refuse("its rows are not whole blocks of its format; encode it in another");
        };
        write_string(&spec.name, &mut out);
        out.extend((spec.shape.len() as u32).to_le_bytes());
        for dim in spec.shape.iter().rev() {
            out.extend((*dim as u64).to_le_bytes());
        }
        out.extend(number.to_le_bytes());
        out.extend(offset.to_le_bytes());
        let bytes = bytes as u64;
        let padding = bytes.next_multiple_of(ALIGNMENT) - bytes;
        offset += bytes + padding;
        planned.push(Planned { name: spec.name.clone(), bytes, padding });
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
    Ok((out, planned))
}
