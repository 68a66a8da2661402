//! Any bytes as a `tokenizer.json`: built, used, and written as GGUF.
#![no_main]

use imaginal_files::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_json("tokenizer.json", data, None) else { return };
    for text in ["", "Hello <s> wörld\n\n 123", "  aab \u{10ffff}\u{0}"] {
        if let Ok(ids) = tokenizer.encode(text, true) {
            assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
            let _ = tokenizer.decode(&ids, true);
        }
    }
    let _ = tokenizer.to_gguf_metadata();
});
