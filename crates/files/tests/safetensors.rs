//! safetensors: files of the reference implementation (`tools/reference/files.py`), our own, and what must be refused.

use imaginal_files::safetensors::{Dtype, SafeTensors, SafeTensorsWriter, TensorSpec};
use imaginal_files::{Error, OpenOptions};
use std::collections::BTreeMap;
use std::path::PathBuf;

fn fixture(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/model").join(file)
}

fn check_model(file: &SafeTensors) {
    assert_eq!(file.tensors().len(), 3);
    let embed = file.tensor("token_embd.weight").unwrap();
    assert_eq!((embed.shape.as_slice(), embed.dtype), (&[3, 64][..], Dtype::F32));
    let floats = embed.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
    assert!(floats.enumerate().all(|(i, x)| x == i as f32 / 8.0));
    let conv = file.tensor("conv").unwrap();
    assert_eq!((conv.shape.as_slice(), conv.dtype, conv.elem_count()), (&[2, 3, 4][..], Dtype::F16, 24));
    assert!(matches!(file.tensor("absent"), Err(Error::MissingTensor { .. })));
}

#[test]
fn reads_what_the_reference_writes() {
    for mmap in [true, false] {
        let file = SafeTensors::open(fixture("model.safetensors"), OpenOptions { mmap }).unwrap();
        assert_eq!(file.metadata().get("format").map(String::as_str), Some("pt"));
        check_model(&file);
    }
    check_model(&SafeTensors::open_dir(fixture(""), OpenOptions::default()).unwrap());
}

#[test]
fn reads_shards() {
    check_model(&SafeTensors::open_dir(fixture("sharded"), OpenOptions::default()).unwrap());
    let index = std::fs::read(fixture("sharded/model.safetensors.index.json")).unwrap();
    let shard = |name: &str| Ok(std::fs::read(fixture("sharded").join(name)).unwrap().into());
    check_model(&SafeTensors::from_index("memory", &index, shard).unwrap());
}

#[test]
fn writes_what_it_reads() {
    let original = SafeTensors::open(fixture("model.safetensors"), OpenOptions::default()).unwrap();
    let spec = |t: &imaginal_files::safetensors::TensorInfo| TensorSpec {
        name: t.name.clone(),
        shape: t.shape.clone(),
        dtype: t.dtype,
    };
    let specs: Vec<TensorSpec> = original.tensors().iter().map(spec).collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy.safetensors");
    let mut writer = SafeTensorsWriter::create(&path, original.metadata(), &specs).unwrap();
    for tensor in original.tensors() {
        tensor.bytes.chunks(100).for_each(|part| writer.append(part).unwrap());
    }
    assert!(writer.append(&[0]).is_err());
    writer.finish().unwrap();
    let copy = SafeTensors::open(&path, OpenOptions::default()).unwrap();
    check_model(&copy);
    assert_eq!(copy.metadata(), original.metadata());
}

#[test]
fn impossible_files_are_not_begun() {
    let spec =
        |name: &str, shape: &[usize]| TensorSpec { name: name.to_owned(), shape: shape.to_vec(), dtype: Dtype::F64 };
    for specs in [
        vec![spec("a", &[0])],
        vec![spec("a", &[usize::MAX, 2])],
        vec![spec("a", &[1]), spec("a", &[1])],
        vec![spec("__metadata__", &[1])],
    ] {
        let result = SafeTensorsWriter::to_memory("m", &BTreeMap::new(), &specs);
        assert!(matches!(result, Err(Error::Write { .. })), "{specs:?}");
    }
    let unfinished = SafeTensorsWriter::to_memory("m", &BTreeMap::new(), &[spec("a", &[1])]).unwrap();
    assert!(matches!(unfinished.into_memory(), Err(Error::Write { .. })));
}
