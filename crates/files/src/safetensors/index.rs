//! `model.safetensors.index.json`: which shard has which tensor.

use super::{SafeTensors, TensorInfo};
use crate::error::Origin;
use crate::{OpenOptions, Result, source};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// Largest index read.
const MOST_BYTES: u64 = 64 << 20;
/// More tensors than this are refused, as in one file.
const MOST_TENSORS: usize = 1 << 18;
/// More shards than this are refused: every one is opened.
const MOST_SHARDS: usize = 4096;
const LONGEST_NAME: usize = 1024;

#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// Shard and the tensors in it.
struct WeightMap(BTreeMap<String, HashSet<String>>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensor names and file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<WeightMap, A::Error> {
                let mut shards: BTreeMap<String, HashSet<String>> = BTreeMap::new();
                let mut count = 0;
                while let Some((tensor, shard)) = map.next_entry::<String, String>()? {
                    count += 1;
                    if count > MOST_TENSORS || tensor.len() > LONGEST_NAME || shard.len() > LONGEST_NAME {
                        let most = "more than 262144 tensors, or a name longer than 1024 bytes";
                        return Err(A::Error::custom(format!("weight_map: {most}")));
                    }
                    if !shards.contains_key(&shard) && shards.len() == MOST_SHARDS {
                        return Err(A::Error::custom(format!("weight_map: more than {MOST_SHARDS} shards")));
                    }
                    let name = tensor.clone();
                    if !shards.entry(shard).or_default().insert(tensor) {
                        return Err(A::Error::custom(format!("weight_map: tensor {name} occurs twice")));
                    }
                }
                Ok(WeightMap(shards))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

pub(super) fn open(origin: Origin, options: OpenOptions) -> Result<SafeTensors> {
    let bytes = source::read_limited(&origin, "file size", MOST_BYTES)?;
    read(&origin, &bytes, |name| {
        let path = origin.path().with_file_name(name);
        // Asked first, for an error that names the index too: the shard's own would only say "not found".
        if !path.exists() {
            return Err(origin.shard(format_args!("weight_map: shard {name}"), "the file is missing"));
        }
        let shard = Origin::new(&path);
        let bytes = source::open(&shard, options)?;
        SafeTensors::read(shard, bytes)
    })
}

/// The names of the shards of an index file, sorted; each is the name of a file in the index's directory.
///
/// # Errors
/// As for opening the index; the shards themselves are not looked at.
pub fn shards(path: impl AsRef<std::path::Path>) -> Result<Vec<String>> {
    let origin = Origin::new(path);
    let bytes = source::read_limited(&origin, "file size", MOST_BYTES)?;
    Ok(parse(&origin, &bytes)?.into_keys().collect())
}

/// The shards that an index names, all names checked, with the tensors in them.
fn parse(origin: &Origin, bytes: &[u8]) -> Result<BTreeMap<String, HashSet<String>>> {
    let index: Index = serde_json::from_slice(bytes).map_err(|e| origin.malformed("index", e))?;
    let shards = index.weight_map.0;
    for name in shards.keys() {
        check_name(origin, name)?;
    }
    Ok(shards)
}

pub(super) fn read(
    origin: &Origin,
    bytes: &[u8],
    mut open: impl FnMut(&str) -> Result<SafeTensors>,
) -> Result<SafeTensors> {
    let shards = parse(origin, bytes)?;
    let mut metadata = BTreeMap::new();
    let mut tensors: Vec<TensorInfo> = Vec::new();
    let mut names = HashSet::new();
    for (name, mut wanted) in shards {
        let shard = open(&name)?;
        metadata.extend(shard.metadata);
        for tensor in shard.tensors {
            // A shard may hold more than the index maps; what the index leaves out does not belong to the model.
            if wanted.remove(&tensor.name) {
                if !names.insert(tensor.name.clone()) {
                    let problem = "mapped to two shards";
                    return Err(origin.shard(format_args!("weight_map: tensor {}", tensor.name), problem));
                }
                tensors.push(tensor);
            }
        }
        if let Some(missing) = wanted.iter().min() {
            let problem = format!("it is not in the shard {name}");
            return Err(origin.shard(format_args!("weight_map: tensor {missing}"), problem));
        }
    }
    Ok(SafeTensors::with(origin.clone(), metadata, tensors))
}

/// A shard is a safetensors file beside the index: not another index (which could name this one), not a path that
/// leads elsewhere.
fn check_name(origin: &Origin, name: &str) -> Result<()> {
    let refuse = |problem: &str| Err(origin.shard(format_args!("weight_map: shard {name:?}"), problem));
    if name.is_empty() || name.contains(['/', '\\', ':', '\0']) || name == "." || name == ".." {
        return refuse("not the name of a file in the directory of the index");
    }
    if !name.ends_with(".safetensors") {
        return refuse("not the name of a safetensors file; an index cannot name another index");
    }
    Ok(())
}
