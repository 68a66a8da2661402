//! Good and hostile files, cut, spliced and changed at random: whatever comes of it, it is a value or an error.
//!
//! The coverage-guided search is `tools/fuzz`; this is the part of it that every test run can afford.
//! `IMAGINAL_MUTATIONS=100000` makes it longer.

use imaginal_files::{Gguf, Json, SafeTensors, Tokenizer};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Marsaglia's xorshift of 64 bits: the same mutations in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Numbers, names and settings that parsers stumble over.
const WORDS: &[&str] = &[
    "0",
    "-1",
    "1",
    "255",
    "65536",
    "4294967295",
    "18446744073709551615",
    "1e999",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"a\"",
    "\"▁\"",
    "\"Sequence\"",
    "\"Split\"",
    "\"Regex\"",
    "\"Removed\"",
    "\"MergedWithNext\"",
    "\"Replace\"",
    "\"Metaspace\"",
    "\"Unigram\"",
    "\"WordPiece\"",
    "\"WordLevel\"",
    "\"BPE\"",
    "\"Strip\"",
    "\"Prepend\"",
    "\"NFKC\"",
    "\"Lowercase\"",
    "\"BertNormalizer\"",
    "\"ByteFallback\"",
    "\"Fuse\"",
    "\"CTC\"",
    "\"Punctuation\"",
    "\"Digits\"",
    "\"UnicodeScripts\"",
    "\"\\\\s*\"",
    "\"(a|b)*?$\"",
    "\"(?!a)\"",
];

fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(16)).min(bytes.len());
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            2 => drop(bytes.drain(at..end)),
            3 => {
                let copy = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            4 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                let part = &other[from..(from + random.below(64)).min(other.len())];
                bytes.splice(at..end, part.iter().copied());
            }
            5 => {
                // A whole word of JSON for another.
                let word = |b: &u8| b"[]{},:".contains(b);
                let start = bytes[..at].iter().rposition(word).map_or(0, |i| i + 1);
                let end = bytes[at..].iter().position(word).map_or(bytes.len(), |i| at + i);
                bytes.splice(start..end, WORDS[random.below(WORDS.len())].bytes());
            }
            _ => {
                let number = match random.below(3) {
                    0 => 1u64 << random.below(64),
                    1 => random.next(),
                    _ => u64::MAX - random.below(64) as u64,
                };
                let end = (at + 8).min(bytes.len());
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
        }
    }
    bytes
}

fn find(folder: &Path, suffix: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, suffix, found);
        } else if path.to_str().unwrap().ends_with(suffix) {
            found.push(path);
        }
    }
}

fn run(suffix: &str, seed: u64, use_it: impl Fn(Vec<u8>)) {
    let mut paths = Vec::new();
    find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), suffix, &mut paths);
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|p| std::fs::read(p).unwrap()).collect();
    assert!(!seeds.is_empty());
    let count = std::env::var("IMAGINAL_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let mut random = Random(seed);
    for _ in 0..count {
        let bytes = mutate(&mut random, &seeds);
        let start = Instant::now();
        let copy = bytes.clone();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| use_it(bytes)));
        if result.is_err() || start.elapsed() > Duration::from_secs(5) {
            let kept = std::env::temp_dir().join(format!("imaginal-mutation{suffix}"));
            std::fs::write(&kept, copy).unwrap();
            panic!("panicked, or took {:?}: {}", start.elapsed(), kept.display());
        }
    }
}

#[test]
fn gguf() {
    run(".gguf", 1, |bytes| {
        let Ok(gguf) = Gguf::from_bytes("m", bytes) else { return };
        gguf.metadata().iter().for_each(|(_, v)| drop(v.to_value()));
        assert!(gguf.tensors().iter().all(|t| t.format.bytes_for(t.elem_count()) == Some(t.bytes.len())));
        if let Ok(tokenizer) = Tokenizer::from_gguf(&gguf) {
            let ids = tokenizer.encode("Hello <s> wörld\n\n 123", true).unwrap_or_default();
            tokenizer.decode(&ids, true).unwrap();
        }
    });
}

#[test]
fn safetensors() {
    run(".safetensors", 2, |bytes| {
        let Ok(file) = SafeTensors::from_bytes("m", bytes) else { return };
        assert!(file.tensors().iter().all(|t| t.elem_count() * t.dtype.size() == t.bytes.len()));
    });
}

#[test]
fn index() {
    run(".index.json", 3, |bytes| {
        let shard = |name: &str| {
            assert!(!name.contains(['/', '\\']));
            Ok(include_bytes!("fixtures/model/model.safetensors").as_slice().into())
        };
        let _ = SafeTensors::from_index("m", &bytes, shard);
    });
}

#[test]
fn tokenizer_json() {
    run("tokenizer.json", 4, |bytes| {
        let Ok(tokenizer) = Tokenizer::from_json("m", &bytes, None) else { return };
        for text in ["", "Hello <s> wörld\n\n 123", "  aab \u{10ffff}\u{0}"] {
            let Ok(ids) = tokenizer.encode(text, true) else { continue };
            assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
            let _ = tokenizer.decode(&ids, true);
        }
        let _ = tokenizer.to_gguf_metadata();
    });
}

#[test]
fn config() {
    run("config.json", 5, |bytes| {
        let Ok(json) = Json::parse("m", &bytes) else { return };
        let _ = (json.get_as::<usize>("hidden_size"), json.get_as::<Vec<u32>>("eos_token_id"));
    });
}
