//! Metadata values: owned for writing, borrowed from the file for reading.

use crate::Result;
use crate::cursor::Cursor;
use std::fmt::Display;

/// The type of a metadata value, numbered as in the GGUF specification.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Kind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl Kind {
    const ALL: [Kind; 13] = [
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::Bool,
        Kind::String,
        Kind::Array,
        Kind::U64,
        Kind::I64,
        Kind::F64,
    ];

    /// The kind with this number in the file.
    pub fn from_number(number: u32) -> Option<Kind> {
        Kind::ALL.get(number as usize).copied()
    }

    /// Bytes of one value; `None` for strings and arrays.
    fn size(self) -> Option<usize> {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => Some(1),
            Kind::U16 | Kind::I16 => Some(2),
            Kind::U32 | Kind::I32 | Kind::F32 => Some(4),
            Kind::U64 | Kind::I64 | Kind::F64 => Some(8),
            Kind::String | Kind::Array => None,
        }
    }

    /// The fewest bytes one value takes: what a count of them must fit into.
    fn least(self) -> u64 {
        match self {
            Kind::String => 8,
            Kind::Array => 12,
            other => other.size().unwrap_or(1) as u64,
        }
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::U8 => "u8",
            Kind::I8 => "i8",
            Kind::U16 => "u16",
            Kind::I16 => "i16",
            Kind::U32 => "u32",
            Kind::I32 => "i32",
            Kind::F32 => "f32",
            Kind::Bool => "bool",
            Kind::String => "string",
            Kind::Array => "array",
            Kind::U64 => "u64",
            Kind::I64 => "i64",
            Kind::F64 => "f64",
        })
    }
}

/// A metadata value for [`GgufWriter`](crate::GgufWriter).
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    /// Elements of one kind, which is written even when there are none.
    Array(Kind, Vec<Value>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// The kind the value is written as.
    pub fn kind(&self) -> Kind {
        match self {
            Value::U8(_) => Kind::U8,
            Value::I8(_) => Kind::I8,
            Value::U16(_) => Kind::U16,
            Value::I16(_) => Kind::I16,
            Value::U32(_) => Kind::U32,
            Value::I32(_) => Kind::I32,
            Value::F32(_) => Kind::F32,
            Value::Bool(_) => Kind::Bool,
            Value::String(_) => Kind::String,
            Value::Array(..) => Kind::Array,
            Value::U64(_) => Kind::U64,
            Value::I64(_) => Kind::I64,
            Value::F64(_) => Kind::F64,
        }
    }

    /// Appends the value's bytes (without its kind); an array with elements of another kind is refused.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> std::result::Result<(), String> {
        match self {
            Value::U8(x) => out.push(*x),
            Value::I8(x) => out.extend(x.to_le_bytes()),
            Value::U16(x) => out.extend(x.to_le_bytes()),
            Value::I16(x) => out.extend(x.to_le_bytes()),
            Value::U32(x) => out.extend(x.to_le_bytes()),
            Value::I32(x) => out.extend(x.to_le_bytes()),
            Value::F32(x) => out.extend(x.to_le_bytes()),
            Value::Bool(x) => out.push(u8::from(*x)),
            Value::String(x) => write_string(x, out),
            Value::Array(kind, values) => {
                out.extend((*kind as u32).to_le_bytes());
                out.extend((values.len() as u64).to_le_bytes());
                for value in values {
                    if value.kind() != *kind {
                        return Err(format!("an array of {kind} holds a {}", value.kind()));
                    }
                    value.write(out)?;
                }
            }
            Value::U64(x) => out.extend(x.to_le_bytes()),
            Value::I64(x) => out.extend(x.to_le_bytes()),
            Value::F64(x) => out.extend(x.to_le_bytes()),
        }
        Ok(())
    }
}

pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

macro_rules! value_from {
    ($($type:ty => $kind:ident;)*) => {$(
        impl From<$type> for Value {
            fn from(x: $type) -> Value { Value::$kind(x) }
        }

        impl From<Vec<$type>> for Value {
            fn from(x: Vec<$type>) -> Value {
                Value::Array(Kind::$kind, x.into_iter().map(Value::$kind).collect())
            }
        }
    )*};
}

value_from! {
    u8 => U8; i8 => I8; u16 => U16; i16 => I16; u32 => U32; i32 => I32; f32 => F32; bool => Bool; String => String;
    u64 => U64; i64 => I64; f64 => F64;
}

impl From<&str> for Value {
    fn from(x: &str) -> Value {
        Value::String(x.to_owned())
    }
}

/// A metadata value where it lies in the file.
#[derive(Copy, Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum ValueRef<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(&'a str),
    Array(ArrayRef<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// A metadata array where it lies in the file: its elements are read when they are asked for, so that an array costs
/// nothing until then.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct ArrayRef<'a> {
    kind: Kind,
    len: usize,
    data: &'a [u8],
}

/// Arrays nested deeper than this are refused.
const DEEPEST: u32 = 8;

impl<'a> ValueRef<'a> {
    /// Reads a value, walking all of it: every length and string has been checked when this returns.
    pub(super) fn read(
        cursor: &mut Cursor<'_, 'a>,
        kind: Kind,
        field: &dyn Display,
        depth: u32,
    ) -> Result<ValueRef<'a>> {
        Ok(match kind {
            Kind::String => ValueRef::String(cursor.string(field)?),
            Kind::Array => ValueRef::Array(ArrayRef::read(cursor, field, depth)?),
            _ => {
                let bytes = cursor.take(kind.size().unwrap_or(1) as u64, field)?;
                if kind == Kind::Bool && bytes[0] > 1 {
                    let problem = format!("a bool is 0 or 1, not {}", bytes[0]);
                    return Err(cursor.origin.malformed(field, problem));
                }
                ValueRef::scalar(kind, bytes)
            }
        })
    }

    /// A number or bool from exactly its bytes.
    fn scalar(kind: Kind, bytes: &[u8]) -> ValueRef<'a> {
        let mut wide = [0u8; 8];
        wide[..bytes.len().min(8)].copy_from_slice(&bytes[..bytes.len().min(8)]);
        let bits = u64::from_le_bytes(wide);
        match kind {
            Kind::U8 => ValueRef::U8(bits as u8),
            Kind::I8 => ValueRef::I8(bits as i8),
            Kind::U16 => ValueRef::U16(bits as u16),
            Kind::I16 => ValueRef::I16(bits as i16),
            Kind::U32 => ValueRef::U32(bits as u32),
            Kind::I32 => ValueRef::I32(bits as i32),
            Kind::F32 => ValueRef::F32(f32::from_bits(bits as u32)),
            Kind::U64 => ValueRef::U64(bits),
            Kind::I64 => ValueRef::I64(bits as i64),
            Kind::F64 => ValueRef::F64(f64::from_bits(bits)),
            Kind::Bool | Kind::String | Kind::Array => ValueRef::Bool(bits & 1 == 1),
        }
    }

    /// The kind of the value.
    pub fn kind(&self) -> Kind {
        match self {
            ValueRef::U8(_) => Kind::U8,
            ValueRef::I8(_) => Kind::I8,
            ValueRef::U16(_) => Kind::U16,
            ValueRef::I16(_) => Kind::I16,
            ValueRef::U32(_) => Kind::U32,
            ValueRef::I32(_) => Kind::I32,
            ValueRef::F32(_) => Kind::F32,
            ValueRef::Bool(_) => Kind::Bool,
            ValueRef::String(_) => Kind::String,
            ValueRef::Array(_) => Kind::Array,
            ValueRef::U64(_) => Kind::U64,
            ValueRef::I64(_) => Kind::I64,
            ValueRef::F64(_) => Kind::F64,
        }
    }

    /// A copy that owns its bytes, ready to be written to another file.
    pub fn to_value(&self) -> Value {
        match *self {
            ValueRef::U8(x) => Value::U8(x),
            ValueRef::I8(x) => Value::I8(x),
            ValueRef::U16(x) => Value::U16(x),
            ValueRef::I16(x) => Value::I16(x),
            ValueRef::U32(x) => Value::U32(x),
            ValueRef::I32(x) => Value::I32(x),
            ValueRef::F32(x) => Value::F32(x),
            ValueRef::Bool(x) => Value::Bool(x),
            ValueRef::String(x) => Value::String(x.to_owned()),
            ValueRef::Array(x) => Value::Array(x.kind, x.iter().map(|v| v.to_value()).collect()),
            ValueRef::U64(x) => Value::U64(x),
            ValueRef::I64(x) => Value::I64(x),
            ValueRef::F64(x) => Value::F64(x),
        }
    }

    /// The value where it is an integer of any width.
    pub(super) fn integer(&self) -> Option<i128> {
        Some(match *self {
            ValueRef::U8(x) => x.into(),
            ValueRef::I8(x) => x.into(),
            ValueRef::U16(x) => x.into(),
            ValueRef::I16(x) => x.into(),
            ValueRef::U32(x) => x.into(),
            ValueRef::I32(x) => x.into(),
            ValueRef::U64(x) => x.into(),
            ValueRef::I64(x) => x.into(),
            _ => return None,
        })
    }
}

impl<'a> ArrayRef<'a> {
    fn read(cursor: &mut Cursor<'_, 'a>, field: &dyn Display, depth: u32) -> Result<ArrayRef<'a>> {
        let number = cursor.u32(field)?;
        let kind = Kind::from_number(number).ok_or_else(|| unknown_kind(cursor, field, number))?;
        let len = cursor.u64(field)?;
        if depth >= DEEPEST {
            return Err(cursor.origin.too_large(
                format_args!("{field}: depth of arrays"),
                depth.into(),
                DEEPEST.into(),
            ));
        }
        // Checked before anything is walked: a count of 2^63 fits no file.
        let need = len.saturating_mul(kind.least());
        let left = cursor.left() as u64;
        if need > left {
            return Err(cursor.origin.truncated(format_args!("{field}: array of {len} × {kind}"), need, left));
        }
        let start = cursor.pos();
        match kind.size() {
            Some(size) => {
                let bytes = cursor.take(len * size as u64, field)?;
                if let (Kind::Bool, Some(i)) = (kind, bytes.iter().position(|b| *b > 1)) {
                    let problem = format!("a bool is 0 or 1, not {}", bytes[i]);
                    return Err(cursor.origin.malformed(format_args!("{field}[{i}]"), problem));
                }
            }
            None => {
                for i in 0..len {
                    ValueRef::read(cursor, kind, &format_args!("{field}[{i}]"), depth + 1)?;
                }
            }
        }
        // `len` is at most the bytes that were left, so that it fits.
        Ok(ArrayRef { kind, len: len as usize, data: cursor.since(start) })
    }

    /// The kind of the elements.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = ValueRef<'a>> + use<'a> {
        let kind = self.kind;
        let origin = crate::error::Origin::new("");
        let (mut data, len) = (self.data, self.len);
        // Everything was walked when the file was opened; should a mapped file have changed since, the array ends.
        (0..len).map_while(move |_| {
            let mut cursor = Cursor::new(&origin, data);
            let value = ValueRef::read(&mut cursor, kind, &"", 0).ok()?;
            data = cursor.rest();
            Some(value)
        })
    }
}

pub(super) fn unknown_kind(cursor: &Cursor<'_, '_>, field: &dyn Display, number: u32) -> crate::Error {
    cursor.origin.unsupported(format_args!("{field}: value type"), number, "0 (u8) to 12 (f64)")
}
