//! What can be wrong with somebody else's bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Every refusal of this crate: which file, which field, what is wrong, what to do.
///
/// `path` is the name the caller gave where the bytes came from memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}{}", path.display(), io_advice(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done, for instance "open".
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is something else than it was opened as.
    #[error("{}: magic: not a {expected} file (it begins with {found}); check the path, or download it again", path.display())]
    Magic {
        /// The file.
        path: PathBuf,
        /// The format it was opened as.
        expected: &'static str,
        /// Its first bytes, printable.
        found: String,
    },
    /// A version this build does not read.
    #[error("{}: version: {found} is not one of 2, 3; convert the model again with a current converter", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// A file for big-endian machines.
    #[error(
        "{}: version: the file is big-endian, which is not supported; convert it with gguf-convert-endian, or take the \
         little-endian file", path.display()
    )]
    BigEndian {
        /// The file.
        path: PathBuf,
    },
    /// The file ends inside a field.
    #[error("{}: {field}: needs {need} bytes, but {have} are left; the file is cut off or damaged, download it again", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The field that does not fit.
        field: String,
        /// Bytes the field asks for.
        need: u64,
        /// Bytes that are left.
        have: u64,
    },
    /// A field has a value that the format does not allow.
    #[error("{}: {field}: {problem}; the file is damaged or wrongly written, download or convert it again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The field, key or tensor.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A number beyond what any real file has.
    #[error("{}: {field}: {found} is more than the limit of {limit}; the file is damaged or hostile, take it from another source", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// The value found.
        found: u64,
        /// The largest value read.
        limit: u64,
    },
    /// A field holds something this build does not know.
    #[error("{}: {field}: {found} is not known; known: {known}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// The value found.
        found: String,
        /// What would be read.
        known: String,
    },
    /// A metadata key or configuration field that is needed is absent.
    #[error("{}: {key}: missing; the file is incomplete, convert or download it again", path.display())]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The absent key.
        key: String,
    },
    /// A metadata key or configuration field has another type than is needed.
    #[error("{}: {key}: expected {expected}, found {found}; correct the field or convert the file again", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The type or range needed.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A tensor that is needed is absent.
    #[error("{}: tensor {name}: missing; the file is incomplete or of another architecture", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The absent tensor.
        name: String,
    },
    /// The parts of a split model do not make a whole.
    #[error("{}: {field}: {problem}; put all parts of one download into one directory and open the first", path.display())]
    Shard {
        /// The file that names the part.
        path: PathBuf,
        /// The part, or the field about parts.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// A tokenizer that cannot be built or used.
    #[error("{}: {field}: {problem}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The caller asked a writer for something that would not be a valid file.
    #[error("{}: {field}: {problem}", path.display())]
    Write {
        /// The file being written.
        path: PathBuf,
        /// The tensor or key.
        field: String,
        /// What is wrong.
        problem: String,
    },
}

fn io_advice(source: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::*;
    match source.kind() {
        NotFound => "; check the path",
        PermissionDenied | ReadOnlyFilesystem => "; check the permissions of the file and its directory",
        StorageFull | QuotaExceeded => "; free some space or choose another directory",
        OutOfMemory => "; open it with mapping, or on a machine with more memory",
        _ => "",
    }
}

impl Error {
    /// The file the error is about.
    pub fn path(&self) -> &Path {
        match self {
            Error::Io { path, .. }
            | Error::Magic { path, .. }
            | Error::Version { path, .. }
            | Error::BigEndian { path }
            | Error::Truncated { path, .. }
            | Error::Malformed { path, .. }
            | Error::TooLarge { path, .. }
            | Error::Unsupported { path, .. }
            | Error::MissingKey { path, .. }
            | Error::WrongType { path, .. }
            | Error::MissingTensor { path, .. }
            | Error::Shard { path, .. }
            | Error::Tokenizer { path, .. }
            | Error::Write { path, .. } => path,
        }
    }
}

/// Where bytes came from; makes errors that say so.
#[derive(Clone, Debug)]
pub(crate) struct Origin(Arc<Path>);

impl Origin {
    pub(crate) fn new(path: impl AsRef<Path>) -> Origin {
        Origin(path.as_ref().into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn buf(&self) -> PathBuf {
        self.0.to_path_buf()
    }

    pub(crate) fn io(&self, action: &'static str, source: std::io::Error) -> Error {
        Error::Io { path: self.buf(), action, source }
    }

    pub(crate) fn truncated(&self, field: impl ToString, need: u64, have: u64) -> Error {
        Error::Truncated { path: self.buf(), field: short(field), need, have }
    }

    pub(crate) fn malformed(&self, field: impl ToString, problem: impl ToString) -> Error {
        Error::Malformed { path: self.buf(), field: short(field), problem: short(problem) }
    }

    pub(crate) fn too_large(&self, field: impl ToString, found: u64, limit: u64) -> Error {
        Error::TooLarge { path: self.buf(), field: short(field), found, limit }
    }

    pub(crate) fn unsupported(&self, field: impl ToString, found: impl ToString, known: impl ToString) -> Error {
        Error::Unsupported { path: self.buf(), field: short(field), found: short(found), known: known.to_string() }
    }

    pub(crate) fn missing_key(&self, key: impl ToString) -> Error {
        Error::MissingKey { path: self.buf(), key: short(key) }
    }

    pub(crate) fn wrong_type(&self, key: impl ToString, expected: impl ToString, found: impl ToString) -> Error {
        Error::WrongType { path: self.buf(), key: short(key), expected: expected.to_string(), found: short(found) }
    }

    pub(crate) fn missing_tensor(&self, name: &str) -> Error {
        Error::MissingTensor { path: self.buf(), name: short(name) }
    }

    pub(crate) fn shard(&self, field: impl ToString, problem: impl ToString) -> Error {
        Error::Shard { path: self.buf(), field: short(field), problem: short(problem) }
    }

    pub(crate) fn tokenizer(&self, field: impl ToString, problem: impl ToString) -> Error {
        Error::Tokenizer { path: self.buf(), field: short(field), problem: short(problem) }
    }

    pub(crate) fn write(&self, field: impl ToString, problem: impl ToString) -> Error {
        Error::Write { path: self.buf(), field: short(field), problem: short(problem) }
    }
}

/// Text from a file goes into messages shortened and without control characters: it may be megabytes, or escape codes
/// for the terminal.
fn short(text: impl ToString) -> String {
    const MOST: usize = 300;
    let text = text.to_string();
    let mut out = String::with_capacity(text.len().min(MOST + 8));
    for c in text.chars() {
        if out.len() >= MOST {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}
