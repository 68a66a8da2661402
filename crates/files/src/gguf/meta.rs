//! The metadata of a GGUF file: keys, and values of the type that is asked for.

use super::value::{ArrayRef, Kind, Value, ValueRef, unknown_kind};
use crate::cursor::Cursor;
use crate::error::Origin;
use crate::{Bytes, Error, Result};
use std::collections::HashMap;

/// More keys than this are refused: real files have below a hundred, and every key costs memory.
const MOST_KEYS: u64 = 1 << 16;
/// Longest key, as in the specification.
const LONGEST_KEY: usize = (1 << 16) - 1;

/// The metadata of a GGUF file.
///
/// Everything has been checked against the file when it was opened; values stay in the file and are read when they are
/// asked for.
#[derive(Debug)]
pub struct Metadata {
    origin: Origin,
    source: Bytes,
    entries: Vec<Entry>,
    by_key: HashMap<String, usize>,
}

#[derive(Debug)]
struct Entry {
    key: String,
    kind: Kind,
    at: usize,
}

impl Metadata {
    /// Reads `count` keys at the cursor, which reads all of `source`.
    pub(super) fn read(cursor: &mut Cursor<'_, '_>, source: &Bytes, count: u64) -> Result<Metadata> {
        let origin = cursor.origin;
        if count > MOST_KEYS {
            return Err(origin.too_large("metadata count", count, MOST_KEYS));
        }
        let mut meta =
            Metadata { origin: origin.clone(), source: source.clone(), entries: Vec::new(), by_key: HashMap::new() };
        for i in 0..count {
            let key = cursor.string(format_args!("metadata key {i}"))?;
            if key.is_empty() || key.len() > LONGEST_KEY {
                let problem = format!("a key has 1 to {LONGEST_KEY} bytes, this one {}", key.len());
                return Err(origin.malformed(format_args!("metadata key {i}"), problem));
            }
            let field = format_args!("metadata {key}");
            let number = cursor.u32(field)?;
            let kind = Kind::from_number(number).ok_or_else(|| unknown_kind(cursor, &field, number))?;
            let at = cursor.pos();
            ValueRef::read(cursor, kind, &field, 0)?;
            if meta.by_key.insert(key.to_owned(), meta.entries.len()).is_some() {
                return Err(origin.malformed(field, "the key occurs twice"));
            }
            meta.entries.push(Entry { key: key.to_owned(), kind, at });
        }
        Ok(meta)
    }

    fn value(&self, entry: &Entry) -> Result<ValueRef<'_>> {
        let bytes = self.source.get(entry.at..).unwrap_or(&[]);
        ValueRef::read(&mut Cursor::new(&self.origin, bytes), entry.kind, &format_args!("metadata {}", entry.key), 0)
    }

    /// The value of `key` as it is in the file.
    pub fn get(&self, key: &str) -> Option<ValueRef<'_>> {
        self.value(self.entries.get(*self.by_key.get(key)?)?).ok()
    }

    /// Whether `key` is there.
    pub fn contains(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// All keys and values in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, ValueRef<'_>)> {
        self.entries.iter().filter_map(|e| Some((e.key.as_str(), self.value(e).ok()?)))
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All keys and values, owned, in the order of the file: what [`GgufWriter`](crate::GgufWriter) takes.
    pub fn to_values(&self) -> Vec<(String, Value)> {
        self.iter().map(|(k, v)| (k.to_owned(), v.to_value())).collect()
    }

    /// The value of `key` as a `T`, or `None` where the key is absent.
    ///
    /// Integers of any width convert where they fit; floats of either width; `Vec<T>` wants an array.
    ///
    /// # Errors
    /// [`Error::WrongType`] when the value is something else or does not fit.
    pub fn get_as<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>> {
        let Some(entry) = self.by_key.get(key).and_then(|i| self.entries.get(*i)) else { return Ok(None) };
        let value = self.value(entry)?;
        T::from_value(value)
            .map(Some)
            .ok_or_else(|| self.origin.wrong_type(format_args!("metadata {key}"), T::EXPECTED, describe(&value)))
    }

    /// The value of `key` as a `T`.
    ///
    /// # Errors
    /// [`Error::MissingKey`] when the key is absent, [`Error::WrongType`] as in [`Metadata::get_as`].
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T> {
        self.get_as(key)?.ok_or_else(|| self.origin.missing_key(format_args!("metadata {key}")))
    }

    /// One `T` for each of `n` layers: an array of `n`, or a single value for all; `None` where the key is absent.
    ///
    /// # Errors
    /// [`Error::WrongType`] when an element is not a `T` or the array has another length.
    pub fn per_layer<'a, T: FromValue<'a> + Clone>(&'a self, key: &str, n: usize) -> Result<Option<Vec<T>>> {
        match self.get(key) {
            Some(ValueRef::Array(array)) if array.len() != n => Err(self.origin.wrong_type(
                format_args!("metadata {key}"),
                format!("one value, or one for each of {n} layers"),
                format!("{} values", array.len()),
            )),
            Some(ValueRef::Array(array)) => collect(array).map(Some).ok_or_else(|| {
                let found = format!("an array of {}", array.kind());
                self.origin.wrong_type(format_args!("metadata {key}"), format!("array of {}", T::EXPECTED), found)
            }),
            _ => Ok(self.get_as::<T>(key)?.map(|x| vec![x; n])),
        }
    }

    /// An error about `key`, for values that have the right type and still make no sense.
    pub fn invalid(&self, key: &str, problem: impl ToString) -> Error {
        self.origin.malformed(format_args!("metadata {key}"), problem)
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }
}

fn describe(value: &ValueRef<'_>) -> String {
    match value {
        ValueRef::String(text) => format!("the string {text:?}"),
        ValueRef::Array(array) => format!("an array of {} × {}", array.len(), array.kind()),
        other => match other.integer() {
            Some(number) => format!("the {} {number}", other.kind()),
            None => format!("{other:?}"),
        },
    }
}

/// Types that [`Metadata::get_as`] converts to.
pub trait FromValue<'a>: Sized {
    /// The type in words, for errors.
    const EXPECTED: &'static str;
    /// The value as this type, where it is one.
    fn from_value(value: ValueRef<'a>) -> Option<Self>;
}

macro_rules! from_integer {
    ($($type:ty, $name:literal, $list:literal;)*) => {$(
        impl<'a> FromValue<'a> for $type {
            const EXPECTED: &'static str = $name;
            fn from_value(value: ValueRef<'a>) -> Option<Self> {
                value.integer()?.try_into().ok()
            }
        }

        from_array!($type, $list);
    )*};
}

macro_rules! from_array {
    ($type:ty, $name:literal) => {
        impl<'a> FromValue<'a> for Vec<$type> {
            const EXPECTED: &'static str = $name;
            fn from_value(value: ValueRef<'a>) -> Option<Self> {
                let ValueRef::Array(array) = value else { return None };
                collect(array)
            }
        }
    };
}

/// All elements as `T`; `None` when one is not.
fn collect<'a, T: FromValue<'a>>(array: ArrayRef<'a>) -> Option<Vec<T>> {
    let all: Vec<T> = array.iter().map(T::from_value).collect::<Option<_>>()?;
    (all.len() == array.len()).then_some(all)
}

from_integer! {
    u8, "an integer of 0 to 255", "an array of integers of 0 to 255";
    u16, "an integer of 0 to 65535", "an array of integers of 0 to 65535";
    u32, "an integer of 0 to 2^32 - 1", "an array of integers of 0 to 2^32 - 1";
    u64, "a non-negative integer", "an array of non-negative integers";
    usize, "a non-negative integer", "an array of non-negative integers";
    i32, "an integer of 32 bits", "an array of integers of 32 bits";
    i64, "an integer of 64 bits", "an array of integers of 64 bits";
}

from_array!(f32, "an array of numbers");
from_array!(bool, "an array of bools");
from_array!(String, "an array of strings");
from_array!(&'a str, "an array of strings");

impl<'a> FromValue<'a> for f64 {
    const EXPECTED: &'static str = "a number";
    fn from_value(value: ValueRef<'a>) -> Option<Self> {
        match value {
            ValueRef::F32(x) => Some(x.into()),
            ValueRef::F64(x) => Some(x),
            other => other.integer().map(|x| x as f64),
        }
    }
}

impl<'a> FromValue<'a> for f32 {
    const EXPECTED: &'static str = "a number";
    fn from_value(value: ValueRef<'a>) -> Option<Self> {
        f64::from_value(value).map(|x| x as f32)
    }
}

impl<'a> FromValue<'a> for bool {
    const EXPECTED: &'static str = "a bool";
    fn from_value(value: ValueRef<'a>) -> Option<Self> {
        if let ValueRef::Bool(x) = value { Some(x) } else { None }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const EXPECTED: &'static str = "a string";
    fn from_value(value: ValueRef<'a>) -> Option<Self> {
        if let ValueRef::String(x) = value { Some(x) } else { None }
    }
}

impl<'a> FromValue<'a> for String {
    const EXPECTED: &'static str = "a string";
    fn from_value(value: ValueRef<'a>) -> Option<Self> {
        <&str>::from_value(value).map(str::to_owned)
    }
}

impl<'a> FromValue<'a> for ArrayRef<'a> {
    const EXPECTED: &'static str = "an array";
    fn from_value(value: ValueRef<'a>) -> Option<Self> {
        if let ValueRef::Array(x) = value { Some(x) } else { None }
    }
}
