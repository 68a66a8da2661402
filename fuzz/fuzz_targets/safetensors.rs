//! Any bytes as a safetensors file.
#![no_main]

use imaginal_files::SafeTensors;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = SafeTensors::from_bytes("fuzz.safetensors", data.to_vec()) else { return };
    for tensor in file.tensors() {
        assert_eq!(tensor.elem_count() * tensor.dtype.size(), tensor.bytes.len());
    }
});
