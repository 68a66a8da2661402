//! GGUF, safetensors, JSON configuration and tokenizers, all read as untrusted input.
//!
//! Whatever these parsers are given, they answer with a value or with an [`Error`] that names the file and the field
//! and says what to do: no panic, no allocation sized by an unchecked number, no offset followed before it is known to
//! lie in the file. Tensor data is handed out as [`Bytes`], which share the mapping (or the buffer) of the file.
//!
//! Files are written beside their destination and renamed over it ([`AtomicFile`]), so that a reader, a crash or a full
//! disk never sees half a file, and a mapped file never changes under its readers.

mod atomic;
mod bytes;
mod cursor;
mod error;
pub mod gguf;
pub mod json;
pub mod safetensors;
mod source;
pub mod tokenizer;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
mod wasm;

pub use atomic::{AtomicFile, write_atomic};
pub use bytes::Bytes;
pub use error::{Error, Result};
pub use gguf::{Gguf, GgufWriter};
pub use json::Json;
pub use safetensors::{SafeTensors, SafeTensorsWriter};
pub use source::OpenOptions;
pub use tokenizer::{Parts, Tokenizer};
