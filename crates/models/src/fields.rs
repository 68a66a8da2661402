//! Configuration fields by their names in both kinds of files, read as untrusted input. Whatever is wrong is noted and
//! reading goes on with a harmless value, so that one error can list everything.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use imaginal_files::gguf::{Metadata, ValueRef};
use serde_json::Value as Json;

use crate::{Error, Problem, Result};

/// The names of a configuration field.
#[derive(Copy, Clone, Debug)]
pub struct Key {
    /// In GGUF metadata, after the architecture's name: `attention.head_count`. Empty where GGUF has none.
    pub gguf: &'static [&'static str],
    /// In `config.json`, newer spelling first; a dot leads into a nested object. Empty where it has none.
    pub hf: &'static [&'static str],
}

impl Key {
    /// A field with one name in each.
    pub const fn new(gguf: &'static [&'static str], hf: &'static [&'static str]) -> Self {
        Key { gguf, hf }
    }
}

/// A value as it was found.
#[derive(Clone, Debug, PartialEq)]
enum Found {
    Int(i128),
    Float(f64),
    Flag(bool),
    Text(String),
    Other(String),
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Found::Int(x) => write!(f, "{x}"),
            Found::Float(x) => write!(f, "{x}"),
            Found::Flag(x) => write!(f, "{x}"),
            Found::Text(x) => write!(f, "{:?}", x.chars().take(80).collect::<String>()),
            Found::Other(x) => f.write_str(x),
        }
    }
}

/// Where the fields stand.
pub(crate) enum Source<'a> {
    /// GGUF metadata, with the prefix of the architecture.
    Gguf(&'a Metadata, &'a str),
    /// The object of a `config.json`, and what its class takes for granted where it is silent.
    Hf(&'a Json, Option<&'static Json>),
}

/// The fields of one file.
pub(crate) struct Fields<'a> {
    source: Source<'a>,
    path: PathBuf,
    problems: RefCell<Vec<Problem>>,
    conflicts: RefCell<Vec<Problem>>,
}

impl<'a> Fields<'a> {
    pub fn new(source: Source<'a>, path: &Path) -> Self {
        Fields { source, path: path.to_path_buf(), problems: RefCell::default(), conflicts: RefCell::default() }
    }

    pub fn is_gguf(&self) -> bool {
        matches!(self.source, Source::Gguf(..))
    }

    /// Notes that something is wrong.
    pub fn problem(&self, field: impl Into<String>, what: impl Into<String>) {
        let problem = Problem { field: field.into(), what: what.into() };
        let mut all = self.problems.borrow_mut();
        if !all.contains(&problem) {
            all.push(problem);
        }
    }

    /// Notes that fields do not fit each other. Told only if no field is wrong by itself: what follows from a wrong field
    /// is not worth saying.
    pub fn conflict(&self, field: impl Into<String>, what: impl Into<String>) {
        self.conflicts.borrow_mut().push(Problem { field: field.into(), what: what.into() });
    }

    /// All that is wrong, as one error.
    pub fn finish(self) -> Result<()> {
        let mut problems = self.problems.into_inner();
        if problems.is_empty() {
            problems = self.conflicts.into_inner();
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Config { path: self.path, problems }) }
    }

    /// The name of a field as this file spells it.
    pub fn name(&self, key: &Key) -> String {
        match self.find(key) {
            Some((name, _)) => name,
            None => self.names(key).into_iter().next().unwrap_or_default(),
        }
    }

    fn names(&self, key: &Key) -> Vec<String> {
        match &self.source {
            Source::Gguf(_, prefix) => key.gguf.iter().map(|k| format!("{prefix}.{k}")).collect(),
            Source::Hf(..) => key.hf.iter().map(|k| k.to_string()).collect(),
        }
    }

    fn find(&self, key: &Key) -> Option<(String, Found)> {
        let names = self.names(key);
        let found = names.iter().find_map(|name| {
            let found = match &self.source {
                Source::Gguf(metadata, _) => from_gguf(metadata.get(name)?),
                Source::Hf(json, _) => from_json(lookup(json, name)?)?,
            };
            Some((name.clone(), found))
        });
        found.or_else(|| self.usual(&names))
    }

    /// What the class of a `config.json` takes for granted, unless the file says `null`.
    fn usual(&self, names: &[String]) -> Option<(String, Found)> {
        let Source::Hf(json, Some(usual)) = &self.source else { return None };
        if names.iter().any(|name| lookup(json, name).is_some()) {
            return None;
        }
        names.iter().find_map(|name| Some((name.clone(), from_json(lookup(usual, name)?)?)))
    }

    /// Whether the file, or else its class, has the field (a JSON `null` counts as absent).
    pub fn has(&self, key: &Key) -> bool {
        self.find(key).is_some()
    }

    /// Whether `config.json` says that there is nothing of the kind.
    pub fn is_null(&self, key: &Key) -> bool {
        matches!(&self.source, Source::Hf(json, _) if key.hf.iter().any(|k| lookup(json, k).is_some_and(Json::is_null)))
    }

    fn missing(&self, key: &Key) {
        // The other names are those of other families.
        self.problem(self.names(key).into_iter().next().unwrap_or_default(), "missing");
    }

    /// A whole number in `1 ..= most`; absent, it is the default, or a problem where there is none.
    pub fn size(&self, key: &Key, default: Option<usize>, most: usize) -> usize {
        self.size_from(key, default, 1, most)
    }

    /// A whole number in `least ..= most`.
    pub fn size_from(&self, key: &Key, default: Option<usize>, least: usize, most: usize) -> usize {
        match self.find(key) {
            Some((_, Found::Int(x))) if x >= least as i128 && x <= most as i128 => return x as usize,
            Some((name, found)) => {
                self.problem(name, format!("{found} is not a whole number from {least} to {most}"));
            }
            None => match default {
                Some(x) => return x,
                None => self.missing(key),
            },
        }
        least
    }

    /// A finite number in `least ..= most`.
    pub fn float(&self, key: &Key, default: Option<f64>, least: f64, most: f64) -> f64 {
        let x = match self.find(key) {
            Some((_, Found::Float(x))) if x >= least && x <= most => return x,
            Some((_, Found::Int(x))) if x as f64 >= least && x as f64 <= most => return x as f64,
            Some((name, found)) => {
                self.problem(name, format!("{found} is not a number from {least} to {most}"));
                None
            }
            None => {
                if default.is_none() {
                    self.missing(key);
                }
                default
            }
        };
        x.unwrap_or(least)
    }

    /// A truth value.
    pub fn flag(&self, key: &Key, default: bool) -> bool {
        match self.find(key) {
            Some((_, Found::Flag(x))) => x,
            Some((name, found)) => {
                self.problem(name, format!("{found} is neither true nor false"));
                default
            }
            None => default,
        }
    }

    /// A string.
    pub fn text(&self, key: &Key) -> Option<String> {
        match self.find(key)? {
            (_, Found::Text(x)) => Some(x),
            (name, found) => {
                self.problem(name, format!("{found} is not a string"));
                None
            }
        }
    }

    /// The field, if it is a string (for fields that are a number or a word).
    pub fn text_of(&self, key: &Key) -> Option<String> {
        match self.find(key) {
            Some((_, Found::Text(x))) => Some(x),
            _ => None,
        }
    }

    /// Whether the field is this string (for fields that are a number or a word).
    pub fn is_text(&self, key: &Key, text: &str) -> bool {
        matches!(self.find(key), Some((_, Found::Text(x))) if x == text)
    }

    /// A whole number in `least ..= most` for each of `layers`: one for all, or a list. Absent, it is the default, or a
    /// problem where there is none.
    pub fn per_layer(&self, key: &Key, default: Option<usize>, least: usize, most: usize, layers: usize) -> Vec<usize> {
        let Some((name, list)) = self.list(key) else {
            return vec![self.size_from(key, default, least, most); layers];
        };
        let number = |x: &Found| match x {
            Found::Int(x) if *x >= least as i128 && *x <= most as i128 => Some(*x as usize),
            _ => None,
        };
        let numbers: Option<Vec<usize>> = list.iter().map(number).collect();
        match numbers {
            // Lists of GGUF files may be longer than the model.
            Some(numbers) if numbers.len() >= layers => numbers[..layers].to_vec(),
            Some(numbers) => {
                self.problem(name, format!("{} entries for {layers} layers", numbers.len()));
                vec![least.max(1); layers]
            }
            None => {
                self.problem(name, format!("not a list of whole numbers from {least} to {most}"));
                vec![least.max(1); layers]
            }
        }
    }

    /// Whether the field is a list.
    pub fn is_list(&self, key: &Key) -> bool {
        self.list(key).is_some()
    }

    /// A truth value for each of `layers`, if there is such a list (numbers other than 0 are true).
    pub fn flags(&self, key: &Key, layers: usize) -> Option<Vec<bool>> {
        let (name, list) = self.list(key)?;
        let flag = |x: &Found| match x {
            Found::Flag(x) => Some(*x),
            Found::Int(x) => Some(*x != 0),
            _ => None,
        };
        let flags: Option<Vec<bool>> = list.iter().map(flag).collect();
        let flags = flags.filter(|f| f.len() >= layers);
        if flags.is_none() {
            self.problem(name, format!("not a list of truth values for {layers} layers"));
        }
        flags.map(|f| f[..layers].to_vec())
    }

    /// A list of numbers.
    pub fn floats(&self, key: &Key) -> Option<Vec<f64>> {
        self.floats_that(key, f64::is_finite)
    }

    /// A list of numbers that are as wanted.
    pub fn floats_that(&self, key: &Key, fits: impl Fn(f64) -> bool) -> Option<Vec<f64>> {
        let (name, list) = self.list(key)?;
        let number = |x: &Found| match x {
            Found::Int(x) if fits(*x as f64) => Some(*x as f64),
            Found::Float(x) if fits(*x) => Some(*x),
            _ => None,
        };
        let numbers: Option<Vec<f64>> = list.iter().map(number).collect();
        if numbers.is_none() {
            self.problem(name, "not a list of numbers");
        }
        numbers
    }

    /// A list, of either kind of file.
    fn list(&self, key: &Key) -> Option<(String, Vec<Found>)> {
        self.names(key).into_iter().find_map(|name| {
            let list = match &self.source {
                Source::Gguf(metadata, _) => match metadata.get(&name)? {
                    ValueRef::Array(x) => x.iter().map(from_gguf).collect(),
                    _ => return None,
                },
                Source::Hf(json, _) => {
                    let other = || Found::Other("null".into());
                    lookup(json, &name)?.as_array()?.iter().map(|x| from_json(x).unwrap_or_else(other)).collect()
                }
            };
            Some((name, list))
        })
    }

    /// A list of strings of `config.json`.
    pub fn texts(&self, key: &Key) -> Option<Vec<String>> {
        let Source::Hf(json, _) = &self.source else { return None };
        let (name, list) = key.hf.iter().find_map(|k| Some((*k, lookup(json, k)?)))?;
        if list.is_null() {
            return None;
        }
        let texts = list.as_array().and_then(|l| l.iter().map(|x| x.as_str().map(str::to_owned)).collect());
        if texts.is_none() {
            self.problem(name, "not a list of strings");
        }
        texts
    }

    /// A list of strings of GGUF metadata.
    pub fn strings(&self, key: &Key) -> Option<Vec<String>> {
        let (name, list) = self.list(key).filter(|_| self.is_gguf())?;
        let text = |x: Found| if let Found::Text(x) = x { Some(x) } else { None };
        let texts: Option<Vec<String>> = list.into_iter().map(text).collect();
        if texts.is_none() {
            self.problem(name, "not a list of strings");
        }
        texts
    }

    /// The names of labels, an object of `config.json` whose keys are their numbers.
    pub fn labels(&self, name: &str, most: usize) -> Vec<String> {
        let Source::Hf(json, _) = &self.source else { return Vec::new() };
        let Some(value) = lookup(json, name).filter(|x| !x.is_null()) else { return Vec::new() };
        let names = value.as_object().filter(|names| names.len() <= most).and_then(|names| {
            (0..names.len()).map(|i| Some(names.get(&i.to_string())?.as_str()?.to_owned())).collect()
        });
        names.unwrap_or_else(|| {
            self.problem(name, "not an object with a name for each number from \"0\" on");
            Vec::new()
        })
    }

    /// A truth value of `config.json` by its name there.
    pub fn hf_flag(&self, name: &str, default: bool) -> bool {
        let Source::Hf(json, _) = &self.source else { return default };
        match lookup(json, name) {
            None | Some(Json::Null) => default,
            Some(Json::Bool(x)) => *x,
            Some(other) => {
                self.problem(name, format!("{other} is neither true nor false"));
                default
            }
        }
    }

    /// A string of `config.json` by its name there.
    pub fn hf_text(&self, name: &str) -> Option<String> {
        let Source::Hf(json, _) = &self.source else { return None };
        match lookup(json, name)? {
            Json::Null => None,
            Json::String(text) => Some(text.clone()),
            _ => {
                self.problem(name, "not a string");
                None
            }
        }
    }

    /// A list of whole numbers of `config.json`, none for a field that is absent or null.
    pub fn sizes(&self, key: &Key) -> Vec<usize> {
        let Source::Hf(json, _) = &self.source else { return Vec::new() };
        let Some((name, list)) = key.hf.iter().find_map(|k| Some((*k, lookup(json, k)?))) else { return Vec::new() };
        if list.is_null() {
            return Vec::new();
        }
        let number = |x: &Json| x.as_u64().and_then(|x| usize::try_from(x).ok());
        let sizes: Option<Vec<usize>> = list.as_array().and_then(|l| l.iter().map(number).collect());
        sizes.unwrap_or_else(|| {
            self.problem(name, "not a list of whole numbers");
            Vec::new()
        })
    }

    /// Whether `config.json` has a field that is not null.
    pub fn has_hf(&self, name: &str) -> bool {
        matches!(&self.source, Source::Hf(json, _) if lookup(json, name).is_some_and(|x| !x.is_null()))
    }
}

fn lookup<'j>(json: &'j Json, path: &str) -> Option<&'j Json> {
    path.split('.').try_fold(json, |at, part| at.get(part))
}

fn from_gguf(value: ValueRef<'_>) -> Found {
    match value {
        ValueRef::U8(x) => Found::Int(x.into()),
        ValueRef::I8(x) => Found::Int(x.into()),
        ValueRef::U16(x) => Found::Int(x.into()),
        ValueRef::I16(x) => Found::Int(x.into()),
        ValueRef::U32(x) => Found::Int(x.into()),
        ValueRef::I32(x) => Found::Int(x.into()),
        ValueRef::U64(x) => Found::Int(x.into()),
        ValueRef::I64(x) => Found::Int(x.into()),
        // The shortest decimal number that is this f32: what the converter has read in config.json.
        ValueRef::F32(x) => Found::Float(x.to_string().parse().unwrap_or(f64::from(x))),
        ValueRef::F64(x) => Found::Float(x),
        ValueRef::Bool(x) => Found::Flag(x),
        ValueRef::String(x) => Found::Text(x.to_owned()),
        ValueRef::Array(x) => {
            // One value for every layer, written as a list, is that value.
            let mut values = x.iter().map(from_gguf);
            match values.next() {
                Some(first) if !matches!(first, Found::Text(_) | Found::Other(_)) && values.all(|v| v == first) => {
                    first
                }
                _ => Found::Other(format!("a list of {}", x.len())),
            }
        }
    }
}

fn from_json(value: &Json) -> Option<Found> {
    Some(match value {
        Json::Null => return None,
        Json::Bool(x) => Found::Flag(*x),
        Json::Number(x) => match (x.as_i64(), x.as_u64(), x.as_f64()) {
            (Some(i), ..) => Found::Int(i.into()),
            (_, Some(u), _) => Found::Int(u.into()),
            (.., Some(f)) => Found::Float(f),
            _ => Found::Other(x.to_string()),
        },
        Json::String(x) => Found::Text(x.clone()),
        Json::Array(x) => Found::Other(format!("a list of {}", x.len())),
        // As newer versions of transformers write numbers that JSON does not have.
        Json::Object(x) => match x.get("__float__").and_then(Json::as_str) {
            Some("Infinity") => Found::Float(f64::INFINITY),
            Some("-Infinity") => Found::Float(f64::NEG_INFINITY),
            Some("NaN") => Found::Float(f64::NAN),
            _ => Found::Other("an object".into()),
        },
    })
}
