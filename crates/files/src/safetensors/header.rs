//! The header: a length, and JSON that says where every tensor lies.

use super::{Dtype, TensorInfo};
use crate::cursor::Cursor;
use crate::error::Origin;
use crate::{Bytes, Result};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// Longest header, as in the reference implementation.
const MOST_HEADER: u64 = 100_000_000;
/// More tensors than this are refused, as in GGUF.
const MOST_TENSORS: usize = 1 << 18;
/// More strings under `__metadata__` than this are refused.
const MOST_METADATA: usize = 1 << 14;
/// More dimensions than this are refused.
const MOST_DIMS: usize = 8;
const LONGEST_NAME: usize = 1024;

pub(super) fn read(origin: &Origin, bytes: &Bytes) -> Result<(BTreeMap<String, String>, Vec<TensorInfo>)> {
    let mut cursor = Cursor::new(origin, bytes);
    let len = cursor.u64("header length")?;
    if len > MOST_HEADER {
        return Err(origin.too_large("header length", len, MOST_HEADER));
    }
    let text = cursor.take(len, "header")?;
    let text = str::from_utf8(text)
        .map_err(|e| origin.malformed("header", format!("not UTF-8 (byte {} of the file)", 8 + e.valid_up_to())))?;
    if !text.starts_with('{') {
        return Err(origin.malformed("header", "not a JSON object; this may not be a safetensors file"));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let mut seen = Header::default();
    (&mut seen).deserialize(&mut json).and_then(|()| json.end()).map_err(|e| {
        let field = if seen.at.is_empty() { "header".to_owned() } else { format!("header: {}", seen.at) };
        origin.malformed(field, e)
    })?;
    let start = cursor.pos();
    let available = cursor.left() as u64;
    Ok((seen.metadata, place(origin, bytes, start, available, seen.entries)?))
}

/// Gives every tensor its bytes, once they are known to cover the data without gap or overlap.
fn place(
    origin: &Origin,
    source: &Bytes,
    start: usize,
    available: u64,
    mut entries: Vec<Entry>,
) -> Result<Vec<TensorInfo>> {
    entries.sort_by_key(|e| e.offsets);
    let mut end = 0;
    let mut tensors = Vec::with_capacity(entries.len());
    for Entry { name, dtype, shape, offsets: [from, to] } in entries {
        let field = |what: &str| format!("tensor {name}: {what}");
        let dtype = Dtype::from_name(&dtype).ok_or_else(|| {
            let known: Vec<&str> = super::DTYPES.iter().map(|row| row.1).collect();
            origin.unsupported(field("dtype"), &dtype, known.join(", "))
        })?;
        if let Some(d) = shape.iter().position(|d| *d == 0) {
            return Err(origin.malformed(field("shape"), format!("dimension {d} is zero")));
        }
        let size = shape
            .iter()
            .try_fold(dtype.size() as u64, |n, d| n.checked_mul(*d))
            .filter(|size| *size <= isize::MAX as u64 / 2)
            .ok_or_else(|| origin.malformed(field("shape"), format!("{shape:?} overflows the memory")))?;
        if to.checked_sub(from) != Some(size) {
            let problem = format!("[{from}, {to}] is not the {size} bytes of {shape:?} {}", dtype.name());
            return Err(origin.malformed(field("data_offsets"), problem));
        }
        if from != end {
            let what = if from < end { "overlaps the tensor before it" } else { "leaves a gap behind the one before" };
            return Err(origin.malformed(field("data_offsets"), format!("[{from}, {to}] {what}, which ends at {end}")));
        }
        if to > available {
            return Err(origin.truncated(field("data_offsets"), to, available));
        }
        end = to;
        // Within the file, so that everything fits.
        let range = start + from as usize..start + to as usize;
        let bytes = source.slice(range).ok_or_else(|| origin.truncated(field("data_offsets"), to, available))?;
        let shape = shape.iter().map(|d| *d as usize).collect();
        tensors.push(TensorInfo { name, shape, dtype, bytes });
    }
    if end != available {
        let problem = format!("{} bytes of data belong to no tensor", available - end);
        return Err(origin.malformed("header: data_offsets", problem));
    }
    Ok(tensors)
}

#[derive(Default)]
struct Header {
    metadata: BTreeMap<String, String>,
    entries: Vec<Entry>,
    /// The key being read, for errors.
    at: String,
}

struct Entry {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    offsets: [u64; 2],
}

// The header is read by hand rather than derived, so that names that occur twice are seen, and counts are bounded while
// reading instead of after.

impl<'de> DeserializeSeed<'de> for &mut Header {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Header {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name.len() > LONGEST_NAME {
                return Err(A::Error::custom(format!("a name has at most {LONGEST_NAME} bytes")));
            }
            self.at.clone_from(&name);
            if !names.insert(name.clone()) {
                return Err(A::Error::custom("the name occurs twice"));
            }
            if names.len() > MOST_TENSORS {
                return Err(A::Error::custom(format!("more than {MOST_TENSORS} tensors")));
            }
            if name == "__metadata__" {
                map.next_value_seed(Strings(&mut self.metadata))?;
            } else {
                self.at = format!("tensor {name}");
                let entry = map.next_value_seed(Named(name))?;
                self.entries.push(entry);
            }
        }
        self.at.clear();
        Ok(())
    }
}

struct Strings<'a>(&'a mut BTreeMap<String, String>);

impl<'de> DeserializeSeed<'de> for Strings<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Strings<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            if self.0.len() >= MOST_METADATA {
                return Err(A::Error::custom(format!("more than {MOST_METADATA} strings")));
            }
            if self.0.insert(key, value).is_some() {
                return Err(A::Error::custom("a key occurs twice"));
            }
        }
        Ok(())
    }
}

struct Named(String);

impl<'de> DeserializeSeed<'de> for Named {
    type Value = Entry;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Entry, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Named {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entry, A::Error> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            let again = match key.as_str() {
                "dtype" => dtype.replace(map.next_value::<String>()?).is_some(),
                "shape" => shape.replace(map.next_value_seed(Dims)?).is_some(),
                "data_offsets" => offsets.replace(map.next_value::<[u64; 2]>()?).is_some(),
                _ => return Err(A::Error::custom(format!("unknown field {key}"))),
            };
            if again {
                return Err(A::Error::custom(format!("{key} occurs twice")));
            }
        }
        Ok(Entry {
            name: self.0,
            dtype: dtype.ok_or_else(|| A::Error::missing_field("dtype"))?,
            shape: shape.ok_or_else(|| A::Error::missing_field("shape"))?,
            offsets: offsets.ok_or_else(|| A::Error::missing_field("data_offsets"))?,
        })
    }
}

struct Dims;

impl<'de> DeserializeSeed<'de> for Dims {
    type Value = Vec<u64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Vec<u64>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Dims {
    type Value = Vec<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of dimensions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Vec<u64>, A::Error> {
        let mut dims = Vec::new();
        while let Some(dim) = seq.next_element()? {
            if dims.len() == MOST_DIMS {
                return Err(A::Error::custom(format!("shape: more than {MOST_DIMS} dimensions")));
            }
            dims.push(dim);
        }
        Ok(dims)
    }
}
