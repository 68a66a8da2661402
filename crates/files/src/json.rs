//! JSON configuration files (`config.json` and its kin), read with bounds and typed access.

use crate::error::Origin;
use crate::{Error, Result, source};
use serde_json::Value;
use std::path::Path;

/// Largest configuration file read. Real ones have a few kilobytes; parsed JSON takes up to thirty times its text.
const MOST_BYTES: u64 = 1 << 20;

/// A JSON object from a file, with getters whose errors name the file and the field.
///
/// A field is named by its path from the root, dotted: `"rope_scaling.factor"`.
///
/// ```
/// use imaginal_files::json::Json;
/// let config = Json::parse("config.json", br#"{"hidden_size": 64, "rope": {"theta": 1e4}}"#)?;
/// assert_eq!(config.require::<usize>("hidden_size")?, 64);
/// assert_eq!(config.get_as::<f64>("rope.theta")?, Some(1e4));
/// assert!(config.require::<usize>("rope").is_err());
/// # Ok::<(), imaginal_files::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Json {
    origin: Origin,
    root: Value,
}

impl Json {
    /// Reads a configuration file of at most 1 MiB whose root is an object.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::TooLarge`], and [`Error::Malformed`] where it is not a JSON object.
    pub fn open(path: impl AsRef<Path>) -> Result<Json> {
        let origin = Origin::new(path);
        let bytes = source::read_limited(&origin, "file size", MOST_BYTES)?;
        Json::from_origin(origin, &bytes)
    }

    /// Reads a file whose root is a list.
    ///
    /// # Errors
    /// As [`Json::open`].
    pub fn open_list(path: impl AsRef<Path>) -> Result<Vec<Value>> {
        let origin = Origin::new(path);
        let bytes = source::read_limited(&origin, "file size", MOST_BYTES)?;
        match serde_json::from_slice(&bytes).map_err(|e| origin.malformed("JSON", e))? {
            Value::Array(list) => Ok(list),
            _ => Err(origin.malformed("JSON", "the root is not a list")),
        }
    }

    /// [`Json::open`], but `None` where there is no such file.
    ///
    /// # Errors
    /// As [`Json::open`].
    pub fn open_if_exists(path: impl AsRef<Path>) -> Result<Option<Json>> {
        match Json::open(path) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// Parses JSON from memory; `name` stands for the path in errors.
    ///
    /// # Errors
    /// As [`Json::open`].
    pub fn parse(name: impl AsRef<Path>, bytes: &[u8]) -> Result<Json> {
        let origin = Origin::new(name);
        if bytes.len() as u64 > MOST_BYTES {
            return Err(origin.too_large("file size", bytes.len() as u64, MOST_BYTES));
        }
        Json::from_origin(origin, bytes)
    }

    fn from_origin(origin: Origin, bytes: &[u8]) -> Result<Json> {
        let root = serde_json::from_slice(bytes).or_else(|error| {
            // Python writes numbers that JSON does not have.
            let spelt = spelt_out(bytes).ok_or(error)?;
            serde_json::from_slice::<Value>(&spelt)
        });
        let root: Value = root.map_err(|e| origin.malformed("JSON", e))?;
        if !root.is_object() {
            return Err(origin.malformed("JSON", "the root is not an object"));
        }
        Ok(Json { origin, root })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.origin.path()
    }

    /// The whole object.
    pub fn root(&self) -> &Value {
        &self.root
    }

    /// The field's value; `None` where it is absent or null.
    pub fn get(&self, field: &str) -> Option<&Value> {
        let mut value = &self.root;
        for name in field.split('.') {
            value = value.get(name)?;
        }
        (!value.is_null()).then_some(value)
    }

    /// The field as a `T`; `None` where it is absent or null.
    ///
    /// # Errors
    /// [`Error::WrongType`] when it is something else: a negative number for `usize`, a fraction for an integer.
    pub fn get_as<T: FromJson>(&self, field: &str) -> Result<Option<T>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        T::from_json(value)
            .map(Some)
            .ok_or_else(|| self.origin.wrong_type(format_args!("field {field}"), T::EXPECTED, value))
    }

    /// The field as a `T`.
    ///
    /// # Errors
    /// [`Error::MissingKey`] when it is absent or null, [`Error::WrongType`] as in [`Json::get_as`].
    pub fn require<T: FromJson>(&self, field: &str) -> Result<T> {
        self.get_as(field)?.ok_or_else(|| self.origin.missing_key(format_args!("field {field}")))
    }

    /// An error about a field, for values of the right type that still make no sense.
    pub fn invalid(&self, field: &str, problem: impl ToString) -> Error {
        self.origin.malformed(format_args!("field {field}"), problem)
    }
}

/// The text with the words that Python writes for infinite and undefined numbers as objects, `{"__float__": "Infinity"}`, which
/// is how newer versions of transformers spell them; none if it has no such word.
fn spelt_out(bytes: &[u8]) -> Option<Vec<u8>> {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    let (mut out, mut rest, mut quoted, mut found) = (Vec::with_capacity(bytes.len()), bytes, false, false);
    while let [first, after @ ..] = rest {
        let word = WORDS.iter().find(|word| !quoted && rest.starts_with(word.as_bytes()));
        if let Some(word) = word {
            out.extend_from_slice(format!("{{\"__float__\":\"{word}\"}}").as_bytes());
            (rest, found) = (&rest[word.len()..], true);
            continue;
        }
        let escaped = if quoted && *first == b'\\' { after.len().min(1) } else { 0 };
        quoted ^= *first == b'"';
        out.extend_from_slice(&rest[..1 + escaped]);
        rest = &after[escaped..];
    }
    found.then_some(out)
}

/// Types that [`Json::get_as`] converts to.
pub trait FromJson: Sized {
    /// The type in words, for errors.
    const EXPECTED: &'static str;
    /// The value as this type, where it is one.
    fn from_json(value: &Value) -> Option<Self>;
}

macro_rules! from_json {
    ($($type:ty, $name:literal, $convert:expr;)*) => {$(
        impl FromJson for $type {
            const EXPECTED: &'static str = $name;
            fn from_json(value: &Value) -> Option<Self> {
                let convert: fn(&Value) -> Option<$type> = $convert;
                convert(value)
            }
        }
    )*};
}

from_json! {
    u64, "a non-negative integer", integer;
    u32, "an integer of 0 to 2^32 - 1", |v| integer(v)?.try_into().ok();
    usize, "a non-negative integer", |v| integer(v)?.try_into().ok();
    f64, "a finite number", |v| v.as_f64().filter(|x| x.is_finite());
    f32, "a finite number", |v| v.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
    bool, "true or false", Value::as_bool;
    String, "a string", |v| v.as_str().map(str::to_owned);
}

/// A non-negative integer, also where a writer made it a float (`2048.0`).
fn integer(value: &Value) -> Option<u64> {
    let whole = |x: &f64| x.fract() == 0.0 && (0.0..9e15).contains(x);
    value.as_u64().or_else(|| value.as_f64().filter(whole).map(|x| x as u64))
}

impl<T: FromJson> FromJson for Vec<T> {
    const EXPECTED: &'static str = "a list";
    fn from_json(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(T::from_json).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_python_are_read_outside_strings() {
        let text =
            br#"{"limits": [0.0, Infinity, -Infinity], "x": NaN, "said": "no \"Infinity\" or NaN", "\\": "Infinity"}"#;
        let json = Json::parse("config.json", text).unwrap();
        let float = |word: &str| serde_json::json!({ "__float__": word });
        assert_eq!(json.get("limits.1"), None);
        assert_eq!(json.get("limits").unwrap()[1], float("Infinity"));
        assert_eq!(json.get("limits").unwrap()[2], float("-Infinity"));
        assert_eq!(json.get("x"), Some(&float("NaN")));
        assert_eq!(json.get_as::<String>("said").unwrap().unwrap(), "no \"Infinity\" or NaN");
        assert_eq!(json.get_as::<String>("\\").unwrap().unwrap(), "Infinity");
    }

    #[test]
    fn other_words_stay_errors_at_their_place() {
        for text in [r#"{"x": Inf}"#, r#"{"x": Infinity"#, r#"{"x": "NaN}"#, "{\"x\": nan}", r#"{"NaN\"#] {
            assert!(Json::parse("config.json", text.as_bytes()).is_err(), "{text}");
        }
    }
}
