use imaginal_numeric::Format;

use crate::{Bytes, Error, Result};

/// A matrix of weights in a packed number format, rows one after another as GGUF files hold them, never expanded.
/// Cheap to clone; the bytes are usually a mapped file.
#[derive(Clone, Debug)]
pub struct Packed {
    format: Format,
    rows: usize,
    cols: usize,
    bytes: Bytes,
}

impl Packed {
    /// `rows` × `cols` weights in `format`.
    ///
    /// # Errors
    /// A row is not a whole number of blocks, or the bytes are not as many as that takes.
    pub fn new(format: Format, rows: usize, cols: usize, bytes: Bytes) -> Result<Self> {
        let wrong = |what: String| Err(Error::argument("packed", what));
        let Some(row) = format.bytes_for(cols) else {
            return wrong(format!("{cols} columns are no whole number of {} blocks", format.name()));
        };
        match row.checked_mul(rows) {
            Some(n) if n == bytes.len() => Ok(Packed { format, rows, cols, bytes }),
            n => wrong(format!("{rows}×{cols} in {} takes {n:?} bytes, not {}", format.name(), bytes.len())),
        }
    }

    /// The number format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Rows: output features, or entries of an embedding.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The packed rows, one after another.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}
