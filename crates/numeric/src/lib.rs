//! Number formats: how a tensor's elements are laid out in bytes.
//!
//! Every format is one file under `formats/` (encode, decode, sizes asserted at compile time) and one row of
//! [`FORMATS`], from which names, sizes, documentation, command-line lists and tests derive. A format is named by the
//! small value [`Format`]; nothing is generic over it, so that a layer may change its format while it runs.
//!
//! The layouts are those of GGUF, little-endian on every machine, and agree bit for bit with the reference
//! implementation `gguf-py` (NaN by class: a NaN stays a NaN, its payload is not promised).
//!
//! ```
//! use imaginal_numeric::Format;
//! let format = Format::from_name("Q8_0").unwrap();
//! assert_eq!(format.bytes_for(64), Some(68));
//! let mut packed = vec![0; 34];
//! format.encode(&[1.0; 32], &mut packed).unwrap();
//! let mut back = [0.0; 32];
//! format.decode(&packed, &mut back).unwrap();
//! assert!(back.iter().all(|x| (x - 1.0).abs() < 1e-3));
//! ```
#![forbid(unsafe_code)]

mod error;
mod formats;
pub mod half;

pub use error::{Error, Result};
pub use formats::{FORMATS, tables};

/// A number format: an index into [`FORMATS`].
///
/// The associated constants name the rows. The value is stable within one build only; files store
/// [`FormatInfo::name`] or [`FormatInfo::ggml_type`].
#[derive(Copy, Clone, Eq, PartialEq, Hash, PartialOrd, Ord)]
pub struct Format(u8);

/// One row of [`FORMATS`]: everything the engine knows about a format.
#[derive(Debug)]
pub struct FormatInfo {
    /// Canonical lower-case name, for instance `"q8_0"`.
    pub name: &'static str,
    /// Other names [`Format::from_name`] accepts (safetensors and PyTorch spellings), lower case.
    pub aliases: &'static [&'static str],
    /// The tensor type number in a GGUF file, `None` for formats GGUF does not have.
    pub ggml_type: Option<u32>,
    /// Elements per block (1 for plain numbers).
    pub block_len: usize,
    /// Bytes per block.
    pub block_bytes: usize,
    /// One sentence for lists and documentation.
    pub doc: &'static str,
    /// Turns whole blocks into f32. Lengths are the caller's duty ([`Format::decode`] checks them); blocks beyond the
    /// shorter of the two slices are left alone.
    pub decode: fn(&[u8], &mut [f32]),
    /// Turns f32 into whole blocks, with an optional importance of each element (as many as elements). Lengths as in
    /// `decode`; [`Format::encode_weighted`] checks them.
    pub encode: fn(&[f32], Option<&[f32]>, &mut [u8]),
}

impl Format {
    /// The row of this format.
    pub fn info(self) -> &'static FormatInfo {
        // Only the constants and the lookups below make a `Format`, so that the index is always a row.
        &FORMATS[self.0 as usize]
    }

    /// The canonical name, for instance `"q8_0"`.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// Every format, in the order of the table.
    pub fn all() -> impl ExactSizeIterator<Item = Format> {
        (0..FORMATS.len()).map(|i| Format(i as u8))
    }

    /// Finds a format by name or alias, in any letter case. `None` where no row has the name.
    pub fn from_name(name: &str) -> Option<Format> {
        Format::all().find(|f| {
            let info = f.info();
            info.name.eq_ignore_ascii_case(name) || info.aliases.iter().any(|a| a.eq_ignore_ascii_case(name))
        })
    }

    /// Finds a format by the tensor type number of a GGUF file. `None` where no row has the number.
    pub fn from_ggml(number: u32) -> Option<Format> {
        Format::all().find(|f| f.info().ggml_type == Some(number))
    }

    /// Elements per block.
    pub fn block_len(self) -> usize {
        self.info().block_len
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        self.info().block_bytes
    }

    /// Bytes that `elems` elements take; `None` when they are not whole blocks or the product overflows.
    pub fn bytes_for(self, elems: usize) -> Option<usize> {
        let info = self.info();
        if !elems.is_multiple_of(info.block_len) {
            return None;
        }
        (elems / info.block_len).checked_mul(info.block_bytes)
    }

    /// Decodes `src` into `dst`.
    ///
    /// # Errors
    /// [`Error::NotWholeBlocks`] when `dst` is not whole blocks, [`Error::Length`] when `src` is not exactly the bytes
    /// of `dst`'s elements.
    pub fn decode(self, src: &[u8], dst: &mut [f32]) -> Result<()> {
        self.check(dst.len(), src.len())?;
        (self.info().decode)(src, dst);
        Ok(())
    }

    /// Encodes `src` into `dst`, rounding as the format's file says.
    ///
    /// # Errors
    /// [`Error::NotWholeBlocks`] when `src` is not whole blocks, [`Error::Length`] when `dst` is not exactly the bytes
    /// of `src`'s elements.
    pub fn encode(self, src: &[f32], dst: &mut [u8]) -> Result<()> {
        self.encode_weighted(src, None, dst)
    }

    /// Encodes `src` into `dst` so that the squared errors, each times the element's `importance`, become small.
    ///
    /// For a weight matrix the importance of an element is the mean square of the activation its column meets (an
    /// importance matrix), repeated for every row. Entries that are not finite or not positive count as zero; formats
    /// without a choice to make (plain numbers, `q8_0`) ignore it, and `None` is [`Format::encode`].
    ///
    /// # Errors
    /// As [`Format::encode`], and [`Error::Importance`] when `importance` does not have as many entries as `src`.
    pub fn encode_weighted(self, src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) -> Result<()> {
        self.check(src.len(), dst.len())?;
        if let Some(w) = importance.filter(|w| w.len() != src.len()) {
            return Err(Error::Importance { elems: src.len(), found: w.len() });
        }
        (self.info().encode)(src, importance, dst);
        Ok(())
    }

    fn check(self, elems: usize, bytes: usize) -> Result<()> {
        let expected = self.bytes_for(elems).ok_or(Error::NotWholeBlocks { format: self, elems })?;
        if bytes != expected {
            return Err(Error::Length { format: self, elems, expected, found: bytes });
        }
        Ok(())
    }
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Format({})", self.name())
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
