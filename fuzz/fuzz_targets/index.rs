//! Any bytes as the index of a sharded model, whose shards are all the same good file.
#![no_main]

use imaginal_files::SafeTensors;
use libfuzzer_sys::fuzz_target;

const SHARD: &[u8] = include_bytes!("../../crates/files/tests/fixtures/model/model.safetensors");

fuzz_target!(|data: &[u8]| {
    let shard = |name: &str| {
        assert!(!name.contains(['/', '\\']) && name.ends_with(".safetensors"));
        Ok(SHARD.into())
    };
    let _ = SafeTensors::from_index("fuzz.index.json", data, shard);
});
