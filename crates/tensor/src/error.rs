use crate::DType;

/// What an operation of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation could not be done. Every variant names the operation.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two shapes do not fit each other.
    #[error("{op}: shapes {lhs:?} and {rhs:?} do not fit each other")]
    ShapeMismatch {
        /// The operation.
        op: &'static str,
        /// Shape of the first operand.
        lhs: Vec<usize>,
        /// Shape of the second operand, or the shape wanted.
        rhs: Vec<usize>,
    },
    /// A tensor has the wrong number of dimensions.
    #[error("{op}: expected {expected} dimensions, got shape {shape:?}")]
    Rank {
        /// The operation.
        op: &'static str,
        /// How many dimensions it takes.
        expected: usize,
        /// What it was given.
        shape: Vec<usize>,
    },
    /// A dimension, index or range lies outside the tensor.
    #[error("{op}: {what} {index} is out of range for {bound}")]
    OutOfRange {
        /// The operation.
        op: &'static str,
        /// What the number is: "dimension", "index", "end of range".
        what: &'static str,
        /// The number.
        index: usize,
        /// What it must stay below (for an end of range: not exceed).
        bound: usize,
    },
    /// The element type is not the one that the operation takes.
    #[error("{op}: element type {got} where {expected} is needed")]
    DType {
        /// The operation.
        op: &'static str,
        /// The type it was given.
        got: DType,
        /// What it takes.
        expected: String,
    },
    /// Operands live on different devices; move one with `to_device`.
    #[error("{op}: operands are on {lhs} and {rhs}; move one of them with to_device")]
    DeviceMismatch {
        /// The operation.
        op: &'static str,
        /// Device of the first operand.
        lhs: String,
        /// Device of the second operand.
        rhs: String,
    },
    /// There is no kernel for this operation with this type on this device.
    #[error("{op}: no kernel for {dtype} on {device}")]
    Unsupported {
        /// The operation.
        op: &'static str,
        /// The element type.
        dtype: DType,
        /// The device.
        device: String,
    },
    /// An argument has a value that makes no sense.
    #[error("{op}: {what}")]
    Argument {
        /// The operation.
        op: &'static str,
        /// What is wrong with which argument.
        what: String,
    },
    /// The device refused: no adapter, out of memory, a kernel that failed to build.
    #[error("device {device}: {what}")]
    Device {
        /// The device.
        device: String,
        /// What it said.
        what: String,
    },
    /// A number format refused its bytes.
    #[error("{op}: {source}")]
    Format {
        /// The operation.
        op: &'static str,
        /// What the format said.
        source: imaginal_numeric::Error,
    },
}

impl Error {
    /// An [`Error::Argument`].
    pub fn argument(op: &'static str, what: impl Into<String>) -> Self {
        Error::Argument { op, what: what.into() }
    }

    /// An [`Error::ShapeMismatch`].
    pub fn shapes(op: &'static str, lhs: &[usize], rhs: &[usize]) -> Self {
        Error::ShapeMismatch { op, lhs: lhs.to_vec(), rhs: rhs.to_vec() }
    }
}
