//! Any bytes as a `config.json` and as a `tokenizer_config.json`.
#![no_main]

use imaginal_files::{Json, Tokenizer};
use libfuzzer_sys::fuzz_target;

const TOKENIZER: &[u8] = br#"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}"#;

fuzz_target!(|data: &[u8]| {
    let _ = Tokenizer::from_json("tokenizer.json", TOKENIZER, Some(data));
    let Ok(json) = Json::parse("config.json", data) else { return };
    for field in ["hidden_size", "rope_scaling.factor", "eos_token_id"] {
        let _ = (json.get_as::<usize>(field), json.get_as::<f64>(field), json.get_as::<Vec<u32>>(field));
    }
});
