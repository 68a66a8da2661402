//! Tokenizer metadata of a right form and any content: lines of tokens, merges and scores, and a text.
#![no_main]

use imaginal_files::gguf::{Gguf, GgufWriter, Value};
use imaginal_files::Tokenizer;
use libfuzzer_sys::fuzz_target;

const PRES: [&str; 6] = ["gpt-2", "llama-bpe", "default", "deepseek-llm", "tekken", "superbpe"];

fuzz_target!(|data: (u8, &str, &str, Vec<u8>, Vec<i8>, [u16; 3], &str)| {
    let (flags, tokens, merges, kinds, scores, ids, text) = data;
    let tokens: Vec<String> = tokens.split('\n').map(str::to_owned).collect();
    let count = tokens.len();
    let mut kinds: Vec<i32> = kinds.into_iter().map(i32::from).collect();
    let mut scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
    if flags & 1 == 0 {
        kinds.resize(count, 1);
        scores.resize(count, 0.0);
    }
    let model = if flags & 2 == 0 { "gpt2" } else { "llama" };
    let merges: Vec<String> = merges.split('\n').filter(|m| !m.is_empty()).map(str::to_owned).collect();
    let mut meta: Vec<(String, Value)> = Vec::new();
    let mut put = |key: &str, value: Value| meta.push((format!("tokenizer.ggml.{key}"), value));
    put("model", model.into());
    put("pre", PRES[usize::from(flags >> 5) % PRES.len()].into());
    put("tokens", tokens.into());
    put("merges", merges.into());
    put("token_type", kinds.into());
    put("scores", scores.into());
    for (name, id) in ["bos", "eos", "unknown"].iter().zip(ids) {
        if id < 0x8000 {
            put(&format!("{name}_token_id"), u32::from(id).into());
        }
    }
    put("add_bos_token", (flags & 4 == 0).into());
    put("add_space_prefix", (flags & 8 == 0).into());
    let bytes = GgufWriter::to_memory("fuzz", &meta, &[]).and_then(GgufWriter::into_memory).expect("well-formed");
    let Ok(tokenizer) = Tokenizer::from_gguf(&Gguf::from_bytes("fuzz", bytes).expect("well-formed")) else { return };
    let Ok(ids) = tokenizer.encode(text, true) else { return };
    assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
    tokenizer.decode(&ids, true).expect("ids of the tokenizer itself");
    let _ = tokenizer.to_gguf_metadata();
});
