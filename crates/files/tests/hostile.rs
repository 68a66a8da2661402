//! Files that lie (`tools/reference/hostile.py`): each is an error that names the file and the field, within a second
//! and 50 MB.

use imaginal_files::{Gguf, Json, OpenOptions, Result, SafeTensors, Tokenizer};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Counts what the thread that asks has allocated, and the most it had at once.
struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

fn count(new: usize, old: usize) {
    // The thread may be ending, when its counters are gone.
    let now = NOW.try_with(|now| {
        now.set(now.get().wrapping_add(new).wrapping_sub(old));
        now.get() as isize
    });
    if let Ok(now) = now {
        let _ = MOST.try_with(|most| most.set(most.get().max(now.max(0) as usize)));
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile")
}

fn open_with(path: &Path, options: OpenOptions) -> Result<()> {
    let name = path.file_name().unwrap().to_str().unwrap();
    if name.ends_with(".gguf") {
        Tokenizer::from_gguf(&Gguf::open(path, options)?)?;
    } else if name.ends_with(".safetensors") || name.ends_with(".index.json") {
        SafeTensors::open(path, options)?;
    } else if name.ends_with("tokenizer.json") {
        Tokenizer::from_file(path)?;
    } else if name.ends_with("config.json") {
        Json::open(path)?.require::<usize>("hidden_size")?;
    } else {
        panic!("{name}: unknown kind");
    }
    Ok(())
}

#[test]
fn every_hostile_file_is_an_error_that_says_where() {
    let table = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    let table: BTreeMap<String, Vec<String>> = serde_json::from_str(&table).unwrap();
    assert!(table.len() > 150);
    let mut wrong = Vec::new();
    for (file, words) in &table {
        let path = folder().join(file);
        for mmap in [true, false] {
            NOW.set(0);
            MOST.set(0);
            let start = Instant::now();
            let result = open_with(&path, OpenOptions { mmap });
            let (time, memory) = (start.elapsed(), MOST.get());
            let Err(error) = result else {
                wrong.push(format!("{file} was accepted"));
                continue;
            };
            let text = error.to_string();
            let stem = path.parent().unwrap().to_str().unwrap();
            if !text.contains(stem) {
                wrong.push(format!("{file}: the file is not named: {text}"));
            }
            for word in words {
                if !word.split('|').any(|w| text.contains(w)) {
                    wrong.push(format!("{file}: no {word:?} in: {text}"));
                }
            }
            if time > Duration::from_secs(1) || memory > 50 << 20 {
                wrong.push(format!("{file}: took {time:?} and {memory} bytes"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_counter_counts() {
    MOST.set(0);
    NOW.set(0);
    drop(std::hint::black_box(vec![1u8; 60 << 20]));
    assert!(MOST.get() >= 60 << 20);
}

/// The good files of the other tests, cut at every byte.
#[test]
fn no_cut_file_is_accepted() {
    let model = |file: &str| folder().join("../fixtures/model").join(file);
    let gguf = std::fs::read(model("plain.gguf")).unwrap();
    // The last tensor's padding may be missing: 204 bytes of q8_0 are padded to 224.
    for len in 0..gguf.len() - 20 {
        let error = Gguf::from_bytes("cut.gguf", gguf[..len].to_vec()).unwrap_err().to_string();
        assert!(error.starts_with("cut.gguf: "), "{error}");
    }
    let safetensors = std::fs::read(model("model.safetensors")).unwrap();
    for len in 0..safetensors.len() {
        let error = SafeTensors::from_bytes("cut.safetensors", safetensors[..len].to_vec()).unwrap_err().to_string();
        assert!(error.starts_with("cut.safetensors: "), "{error}");
    }
}

/// The good files of the other tests, with every byte changed in several ways: whatever comes of it, it is a value or
/// an error.
#[test]
fn no_changed_byte_is_a_panic() {
    let fixtures = folder().join("../fixtures");
    let gguf = std::fs::read(fixtures.join("model/plain.gguf")).unwrap();
    let gguf_len = gguf.len();
    let vocab = std::fs::read(fixtures.join("tokenizers/sentencepiece/vocab.gguf")).unwrap();
    let safetensors = std::fs::read(fixtures.join("model/model.safetensors")).unwrap();
    for flip in [0x01, 0x80, 0xff] {
        for at in 0..gguf.len() {
            let mut bytes = gguf.clone();
            bytes[at] ^= flip;
            if let Ok(gguf) = Gguf::from_bytes("m", bytes) {
                gguf.metadata().iter().for_each(|(_, v)| drop(v.to_value()));
                gguf.tensors().iter().for_each(|t| assert!(t.bytes.len() <= gguf_len));
            }
        }
        for at in 0..safetensors.len() {
            let mut bytes = safetensors.clone();
            bytes[at] ^= flip;
            let _ = SafeTensors::from_bytes("m", bytes);
        }
        for at in (0..vocab.len()).step_by(3) {
            let mut bytes = vocab.clone();
            bytes[at] ^= flip;
            if let Ok(tokenizer) = Gguf::from_bytes("m", bytes).and_then(|gguf| Tokenizer::from_gguf(&gguf)) {
                let _ = tokenizer.encode("Hello <s> world é", true).map(|ids| tokenizer.decode(&ids, true));
            }
        }
    }
}

#[test]
fn what_is_not_a_file_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let error = Gguf::open(directory.path(), OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("is a directory"), "{error}");
    let error = SafeTensors::open(directory.path().join("x.safetensors"), OpenOptions::default()).unwrap_err();
    assert!(error.to_string().contains("check the path"), "{error}");
    #[cfg(unix)]
    {
        let error = Gguf::open("/dev/zero", OpenOptions { mmap: false }).unwrap_err().to_string();
        assert!(error.contains("/dev/zero") && error.contains("not a regular file"), "{error}");
        let looped = directory.path().join("loop.gguf");
        std::os::unix::fs::symlink(&looped, &looped).unwrap();
        assert!(Gguf::open(&looped, OpenOptions::default()).is_err());
    }
}
