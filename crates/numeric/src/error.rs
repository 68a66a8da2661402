use crate::Format;

/// What [`Format::decode`], [`Format::encode`] and [`Format::encode_weighted`] refuse.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Error {
    /// The number of elements is not a multiple of the format's block length (or its bytes overflow).
    NotWholeBlocks {
        /// The format asked for.
        format: Format,
        /// The number of elements given.
        elems: usize,
    },
    /// The byte slice does not have the size of the elements.
    Length {
        /// The format asked for.
        format: Format,
        /// The number of elements given.
        elems: usize,
        /// Bytes these elements take.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The importance does not have one entry per element.
    Importance {
        /// The number of elements given.
        elems: usize,
        /// Entries given.
        found: usize,
    },
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Error::NotWholeBlocks { format, elems } => write!(
                f,
                "{elems} elements are not whole blocks of {format} ({} each); pad the row or keep it in f16",
                format.block_len()
            ),
            Error::Length { format, elems, expected, found } => {
                write!(f, "{elems} elements of {format} take {expected} bytes, the slice has {found}")
            }
            Error::Importance { elems, found } => {
                write!(f, "the importance has {found} entries for {elems} elements; it must have one each")
            }
        }
    }
}

impl std::error::Error for Error {}
