//! GGUF: files of gguf-py (`tools/reference/files.py`), our own, and what must be refused.

use imaginal_files::gguf::{ArrayRef, Gguf, GgufWriter, Kind, TensorSpec, Value, ValueRef};
use imaginal_files::{Error, OpenOptions};
use imaginal_numeric::Format;
use std::path::PathBuf;

fn fixture(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/model").join(file)
}

fn floats(gguf: &Gguf, name: &str) -> Vec<f32> {
    let tensor = gguf.tensor(name).unwrap();
    let mut out = vec![0.0; tensor.elem_count()];
    tensor.format.decode(&tensor.bytes, &mut out).unwrap();
    out
}

fn check_model(gguf: &Gguf) {
    let meta = gguf.metadata();
    assert_eq!(meta.require::<u8>("t.u8").unwrap(), 200);
    assert_eq!(meta.get("t.i8"), Some(ValueRef::I8(-100)));
    assert_eq!(meta.require::<usize>("t.u16").unwrap(), 60000);
    assert_eq!(meta.require::<i32>("t.i16").unwrap(), -30000);
    assert_eq!(meta.require::<u32>("t.u32").unwrap(), 4_000_000_000);
    assert_eq!(meta.require::<i64>("t.i32").unwrap(), -2_000_000_000);
    assert_eq!(meta.require::<u64>("t.u64").unwrap(), 1 << 63);
    assert_eq!(meta.require::<i64>("t.i64").unwrap(), -(1 << 62));
    assert_eq!(meta.require::<f32>("t.f32").unwrap(), 0.5);
    assert_eq!(meta.require::<f64>("t.f64").unwrap(), 0.1);
    assert!(meta.require::<bool>("t.bool").unwrap());
    assert_eq!(meta.require::<&str>("t.string").unwrap(), "naïve ▁text");
    assert_eq!(meta.require::<Vec<String>>("t.strings").unwrap(), ["", "a", "é"]);
    assert_eq!(meta.require::<Vec<i32>>("t.ints").unwrap(), [1, -2, 3]);
    assert_eq!(meta.require::<Vec<f32>>("t.floats").unwrap(), [0.5, -1.5]);
    assert_eq!(meta.require::<Vec<bool>>("t.bools").unwrap(), [true, false]);
    let nested: ArrayRef<'_> = meta.require("t.nested").unwrap();
    let lens: Vec<usize> =
        nested.iter().map(|v| if let ValueRef::Array(a) = v { a.iter().count() } else { 0 }).collect();
    assert_eq!((nested.kind(), nested.len(), lens), (Kind::Array, 3, vec![2, 1, 3]));

    assert_eq!(gguf.tensors().len(), 4);
    let embed = gguf.tensor("token_embd.weight").unwrap();
    assert_eq!((embed.shape.as_slice(), embed.format), (&[3, 64][..], Format::F32));
    assert!(floats(gguf, "token_embd.weight").iter().enumerate().all(|(i, x)| *x == i as f32 / 8.0));
    assert_eq!(floats(gguf, "blk.0.norm.weight"), [-2.0, -1.0, 0.0, 1.0, 2.0]);
    let conv = gguf.tensor("conv").unwrap();
    assert_eq!((conv.shape.as_slice(), conv.format), (&[2, 3, 4][..], Format::F16));
    assert!(floats(gguf, "conv").iter().enumerate().all(|(i, x)| *x == i as f32));
    assert_eq!(gguf.tensor("packed").unwrap().format, Format::Q8_0);
    let packed = floats(gguf, "packed");
    assert!(packed.iter().enumerate().all(|(i, x)| (x - i as f32 / 8.0).abs() < 0.1));
    assert!(matches!(gguf.tensor("absent"), Err(Error::MissingTensor { .. })));
}

#[test]
fn reads_what_gguf_py_writes() {
    for mmap in [true, false] {
        let gguf = Gguf::open(fixture("plain.gguf"), OpenOptions { mmap }).unwrap();
        assert_eq!(gguf.version(), 3);
        check_model(&gguf);
    }
    check_model(&Gguf::from_bytes("memory", std::fs::read(fixture("plain.gguf")).unwrap()).unwrap());
}

#[test]
fn reads_version_2() {
    // The layouts of 2 and 3 differ in nothing but the number where the byte order is little-endian.
    let mut bytes = std::fs::read(fixture("plain.gguf")).unwrap();
    bytes[4] = 2;
    let gguf = Gguf::from_bytes("memory", bytes).unwrap();
    assert_eq!(gguf.version(), 2);
    check_model(&gguf);
}

#[test]
fn reads_split_models() {
    check_model(&Gguf::open(fixture("split-00001-of-00002.gguf"), OpenOptions::default()).unwrap());
    let part = |n| std::fs::read(fixture(&format!("split-0000{n}-of-00002.gguf"))).unwrap().into();
    check_model(&Gguf::from_parts("memory", vec![part(1), part(2)]).unwrap());
    for (parts, problem) in [
        (vec![part(2), part(1)], "this is part 2 of 2, not the first"),
        (vec![part(1)], "part 2 of 2 was not given"),
        (vec![part(1), part(1)], "split.no"),
    ] {
        let error = Gguf::from_parts("memory", parts).unwrap_err().to_string();
        assert!(error.contains("memory") && error.contains(problem), "{error}");
    }
    let directory = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| {
        let to = directory.path().join(to);
        std::fs::copy(fixture(from), &to).unwrap();
        to
    };
    let first = copy("split-00001-of-00002.gguf", "m-00001-of-00002.gguf");
    let error = Gguf::open(&first, OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("m-00002-of-00002.gguf") && error.contains("missing"), "{error}");
    let renamed = copy("split-00001-of-00002.gguf", "renamed.gguf");
    let error = Gguf::open(&renamed, OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("split.count") && error.contains("-00001-of-00002.gguf"), "{error}");
}

#[test]
fn tensors_share_the_mapping() {
    let gguf = Gguf::open(fixture("plain.gguf"), OpenOptions::default()).unwrap();
    let bytes: Vec<_> = gguf.tensors().iter().map(|t| t.bytes.clone()).collect();
    drop(gguf);
    let base = |b: &imaginal_files::Bytes| (*b.owner()).as_ref().as_ptr();
    assert!(bytes.iter().all(|b| base(b) == base(&bytes[0])));
    assert!(bytes.iter().all(|b| b.as_ptr() == base(b).wrapping_add(b.range().start)));
    assert!(bytes.iter().all(|b| (b.as_ptr() as usize).is_multiple_of(32)));
}

fn spec(name: &str, shape: &[usize], format: Format) -> TensorSpec {
    TensorSpec { name: name.to_owned(), shape: shape.to_vec(), format }
}

#[test]
fn writes_what_it_reads() {
    let original = Gguf::open(fixture("plain.gguf"), OpenOptions::default()).unwrap();
    let specs: Vec<TensorSpec> = original.tensors().iter().map(|t| spec(&t.name, &t.shape, t.format)).collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy.gguf");
    let mut writer = GgufWriter::create(&path, &original.metadata().to_values(), &specs).unwrap();
    for (i, tensor) in original.tensors().iter().enumerate() {
        if i % 2 == 0 {
            writer.tensor(&tensor.name, &tensor.bytes).unwrap();
        } else {
            tensor.bytes.chunks(7).for_each(|part| writer.append(part).unwrap());
        }
    }
    assert!(!path.exists());
    writer.finish().unwrap();
    check_model(&Gguf::open(&path, OpenOptions::default()).unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(fixture("plain.gguf")).unwrap(), "byte for byte");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing left beside it");
}

#[test]
fn an_unfinished_file_never_appears() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.gguf");
    std::fs::write(&path, "old").unwrap();
    let mut writer = GgufWriter::create(&path, &[], &[spec("a", &[4], Format::F32)]).unwrap();
    assert!(writer.tensor("b", &[0; 16]).is_err());
    assert!(writer.tensor("a", &[0; 12]).is_err());
    writer.append(&[0; 8]).unwrap();
    assert!(writer.append(&[0; 9]).is_err());
    let error = writer.finish().unwrap_err().to_string();
    assert!(error.contains("tensor a: 8 of 16 bytes"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    let error = GgufWriter::create("/nonexistent/m.gguf", &[], &[]).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("/nonexistent/m.gguf"), "{error}");
}

#[test]
fn impossible_files_are_not_begun() {
    let twice = [("a".to_owned(), Value::U8(1)), ("a".to_owned(), Value::U8(2))];
    let mixed = [("a".to_owned(), Value::Array(Kind::U8, vec![Value::Bool(true)]))];
    let align = [("general.alignment".to_owned(), Value::U32(64))];
    for meta in [&twice[..], &mixed, &align] {
        assert!(matches!(GgufWriter::to_memory("m", meta, &[]), Err(Error::Write { .. })));
    }
    for specs in [
        vec![spec("a", &[0], Format::F32)],
        vec![spec("a", &[33], Format::Q8_0)],
        vec![spec("a", &[2, 16], Format::Q4_0)],
        vec![spec("a", &[1; 5], Format::F32)],
        vec![spec("", &[1], Format::F32)],
        vec![spec(&"x".repeat(64), &[1], Format::F32)],
        vec![spec("a", &[1], Format::F32), spec("a", &[1], Format::F32)],
    ] {
        assert!(matches!(GgufWriter::to_memory("m", &[], &specs), Err(Error::Write { .. })), "{specs:?}");
    }
}

#[test]
fn getters_name_the_file_and_the_key() {
    let meta = [
        ("a".to_owned(), Value::I32(-1)),
        ("list".to_owned(), vec![1u32, 2, 3].into()),
        ("text".to_owned(), "x\u{1b}[2J".into()),
    ];
    let bytes = GgufWriter::to_memory("m", &meta, &[]).unwrap().into_memory().unwrap();
    let gguf = Gguf::from_bytes("some.gguf", bytes).unwrap();
    let meta = gguf.metadata();
    let text = |e: Error| e.to_string();
    assert_eq!(
        text(meta.require::<usize>("a").unwrap_err()),
        "some.gguf: metadata a: expected a non-negative integer, found the i32 -1; correct the field or convert the \
         file again"
    );
    assert!(text(meta.require::<usize>("b").unwrap_err()).starts_with("some.gguf: metadata b: missing"));
    assert_eq!(meta.get_as::<usize>("b").unwrap(), None);
    assert_eq!(meta.per_layer::<u32>("list", 3).unwrap(), Some(vec![1, 2, 3]));
    assert!(text(meta.per_layer::<u32>("list", 2).unwrap_err()).contains("one for each of 2 layers"));
    assert_eq!(meta.per_layer::<i32>("a", 2).unwrap(), Some(vec![-1, -1]));
    // What a file says does not reach the terminal as a command.
    assert!(!text(meta.require::<u32>("text").unwrap_err()).contains('\u{1b}'));
}
