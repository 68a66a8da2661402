use half::{bf16, f16};

/// The element type of a [`crate::Tensor`], a run-time value. Packed block formats are not element types: see
/// [`crate::Packed`].
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum DType {
    /// IEEE 754 double.
    F64,
    /// IEEE 754 single.
    F32,
    /// IEEE 754 half.
    F16,
    /// Brain float: the upper half of an `f32`.
    BF16,
    /// 64-bit signed.
    I64,
    /// 32-bit signed.
    I32,
    /// 32-bit unsigned; the type of token ids and indices.
    U32,
    /// 8-bit unsigned.
    U8,
    /// A truth value, stored as a byte 0 or 1.
    Bool,
}

impl DType {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::U8 | DType::Bool => 1,
        }
    }

    /// The name as PyTorch and safetensors users know it: `f32`, `bf16`, `i64`, `bool`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::U8 => "u8",
            DType::Bool => "bool",
        }
    }

    /// Whether gradients can flow through values of this type.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that elements of a tensor can be read as and written from.
///
/// `bool` has no such type because not every byte is a valid `bool`: [`DType::Bool`] is read as `u8`.
pub trait Element: bytemuck::Pod + Send + Sync + PartialOrd + std::fmt::Debug + 'static {
    /// The element type that this Rust type stands for.
    const DTYPE: DType;
    /// Nearest value of this type (floats round to nearest even, integers truncate and saturate).
    fn from_f64(x: f64) -> Self;
    /// The value as a double (inexact for large 64-bit integers).
    fn to_f64(self) -> f64;
}

macro_rules! element {
    ($t:ty, $d:ident, $from:expr, $to:expr) => {
        impl Element for $t {
            const DTYPE: DType = DType::$d;
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                ($from)(x)
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                ($to)(self)
            }
        }
    };
}
element!(f64, F64, |x| x, |x| x);
element!(f32, F32, |x| x as f32, |x| x as f64);
element!(f16, F16, f16::from_f64, f16::to_f64);
element!(bf16, BF16, bf16::from_f64, bf16::to_f64);
element!(i64, I64, |x| x as i64, |x| x as f64);
element!(i32, I32, |x| x as i32, |x| x as f64);
element!(u32, U32, |x| x as u32, |x| x as f64);
element!(u8, U8, |x| x as u8, |x| x as f64);

/// Runs `$body` with `$T` bound to the Rust type of `$dtype` (`Bool` as `u8`).
macro_rules! with_element {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F16 => {
                type $T = half::f16;
                $body
            }
            $crate::DType::BF16 => {
                type $T = half::bf16;
                $body
            }
            $crate::DType::I64 => {
                type $T = i64;
                $body
            }
            $crate::DType::I32 => {
                type $T = i32;
                $body
            }
            $crate::DType::U32 => {
                type $T = u32;
                $body
            }
            $crate::DType::U8 | $crate::DType::Bool => {
                type $T = u8;
                $body
            }
        }
    };
}
pub(crate) use with_element;
