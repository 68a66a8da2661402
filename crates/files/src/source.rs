//! Opening a file: mapped, or read.

use crate::error::Origin;
use crate::{Bytes, Result};
use std::fs::File;
use std::io::Read;

/// How model files are opened.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct OpenOptions {
    /// Map the file into memory (the default) instead of reading it. Mapped, a model starts at once, and its pages are
    /// shared with other processes and given back under pressure. Ignored where there is no mapping (WebAssembly).
    pub mmap: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions { mmap: true }
    }
}

impl Bytes {
    /// All bytes of a file of any format.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when the file cannot be opened, or is no regular file.
    pub fn open(path: impl AsRef<std::path::Path>, options: OpenOptions) -> Result<Bytes> {
        open(&Origin::new(path), options)
    }
}

/// All bytes of the file.
pub(crate) fn open(origin: &Origin, options: OpenOptions) -> Result<Bytes> {
    let (file, len) = regular(origin)?;
    if len > 0 && options.mmap && cfg!(not(target_family = "wasm")) {
        return map(origin, &file);
    }
    read(origin, file, len)
}

/// All bytes of a small file (configuration, index): never more than `limit`.
pub(crate) fn read_limited(origin: &Origin, field: &str, limit: u64) -> Result<Vec<u8>> {
    let (file, len) = regular(origin)?;
    if len > limit {
        return Err(origin.too_large(field, len, limit));
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(|e| origin.io("read", e))?;
    Ok(bytes)
}

/// Opens the file and its length. A directory, a pipe or a device has no length to trust, so only files are opened.
fn regular(origin: &Origin) -> Result<(File, u64)> {
    // Asked by name first: opening a pipe would wait for a writer.
    let kind = std::fs::metadata(origin.path()).map_err(|e| origin.io("open", e))?;
    if !kind.is_file() {
        let what = if kind.is_dir() { "is a directory" } else { "is not a regular file" };
        return Err(origin.io("open", std::io::Error::new(std::io::ErrorKind::InvalidInput, what)));
    }
    let file = File::open(origin.path()).map_err(|e| origin.io("open", e))?;
    let len = file.metadata().map_err(|e| origin.io("open", e))?.len();
    Ok((file, len))
}

fn read(origin: &Origin, file: File, len: u64) -> Result<Bytes> {
    let memory = |_| origin.io("read", std::io::Error::from(std::io::ErrorKind::OutOfMemory));
    let len = usize::try_from(len).map_err(|_| memory(()))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| memory(()))?;
    file.take(len as u64).read_to_end(&mut bytes).map_err(|e| origin.io("read", e))?;
    Ok(Bytes::from(bytes))
}

#[cfg(not(target_family = "wasm"))]
fn map(origin: &Origin, file: &File) -> Result<Bytes> {
    // SAFETY: the mapping is read-only and owned by the value made here, so that it outlives every slice of it. Its
    // content could change or shrink only if somebody edits the file in place; model files are replaced by rename
    // (every writer of this crate does), which leaves the mapped file as it is.
    let map = unsafe { memmap2::Mmap::map(file) }.map_err(|e| origin.io("map", e))?;
    Ok(Bytes::new(std::sync::Arc::new(map)))
}

#[cfg(target_family = "wasm")]
fn map(origin: &Origin, _: &File) -> Result<Bytes> {
    Err(origin.io("map", std::io::Error::from(std::io::ErrorKind::Unsupported)))
}
