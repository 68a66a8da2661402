//! Any bytes as a GGUF file: everything in it is looked at, and its tokenizer built and used.
#![no_main]

use imaginal_files::gguf::{Gguf, GgufWriter, TensorSpec};
use imaginal_files::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(gguf) = Gguf::from_bytes("fuzz.gguf", data.to_vec()) else { return };
    let values = gguf.metadata().to_values();
    assert_eq!(values.len(), gguf.metadata().len());
    let mut specs = Vec::new();
    for tensor in gguf.tensors() {
        assert_eq!(tensor.format.bytes_for(tensor.elem_count()), Some(tensor.bytes.len()));
        let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
        specs.push(TensorSpec { name, shape, format: tensor.format });
    }
    if let Ok(tokenizer) = Tokenizer::from_gguf(&gguf) {
        let ids = tokenizer.encode("Hello <s> wörld\n\n 123", true).unwrap_or_default();
        tokenizer.decode(&ids, true).expect("ids of the tokenizer itself");
    }
    // What is read can be written, but for what the writer refuses (long names, another alignment), and reads the same.
    if let Ok(mut writer) = GgufWriter::to_memory("copy", &values, &specs) {
        gguf.tensors().iter().for_each(|t| writer.tensor(&t.name, &t.bytes).expect("the specs' tensors in order"));
        let copy = Gguf::from_bytes("copy", writer.into_memory().expect("all tensors")).expect("our own file");
        assert_eq!(copy.tensors().len(), gguf.tensors().len());
    }
});
