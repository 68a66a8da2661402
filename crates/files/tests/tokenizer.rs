//! Tokenizers against ids that Hugging Face's tokenizers and llama.cpp agreed on (`tools/reference/tokenizer_fixture.py`).

use imaginal_files::gguf::{Gguf, GgufWriter, Value};
use imaginal_files::tokenizer::TokenKind;
use imaginal_files::{OpenOptions, Tokenizer};
use std::path::PathBuf;

const KINDS: [&str; 4] = ["gpt-2", "llama-bpe", "qwen2", "sentencepiece"];

fn fixture(kind: &str, file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers").join(kind).join(file)
}

/// Texts and their ids without beginning or end.
fn expected(kind: &str) -> Vec<(String, Vec<u32>)> {
    let text = std::fs::read_to_string(fixture(kind, "expected_tokens.json")).unwrap();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ids = |v: &serde_json::Value| v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect();
    all.as_array().unwrap().iter().map(|e| (e["text"].as_str().unwrap().to_owned(), ids(&e["ids"]))).collect()
}

fn from_json(kind: &str) -> Tokenizer {
    Tokenizer::from_file(fixture(kind, "tokenizer.json")).unwrap()
}

fn from_gguf(kind: &str) -> Tokenizer {
    Tokenizer::from_gguf(&Gguf::open(fixture(kind, "vocab.gguf"), OpenOptions::default()).unwrap()).unwrap()
}

fn through_gguf(tokenizer: &Tokenizer) -> Tokenizer {
    let bytes = GgufWriter::to_memory("memory", &tokenizer.to_gguf_metadata().unwrap(), &[]).unwrap();
    Tokenizer::from_gguf(&Gguf::from_bytes("memory", bytes.into_memory().unwrap()).unwrap()).unwrap()
}

#[test]
fn ids_agree_with_the_reference() {
    for kind in KINDS {
        let (json, gguf) = (from_json(kind), from_gguf(kind));
        let written = through_gguf(&json);
        let rewritten = through_gguf(&gguf);
        for (text, ids) in expected(kind) {
            for (source, tokenizer) in
                [("json", &json), ("gguf", &gguf), ("json as gguf", &written), ("gguf again", &rewritten)]
            {
                assert_eq!(tokenizer.encode(&text, false).unwrap(), ids, "{kind} from {source}: {text:?}");
            }
        }
    }
}

#[test]
fn text_comes_back() {
    for kind in KINDS {
        for tokenizer in [from_json(kind), from_gguf(kind)] {
            for (text, ids) in expected(kind) {
                // The fixture's decoder strips one space that the text may have had itself.
                let back = tokenizer.decode(&ids, false).unwrap();
                assert_eq!(back, text, "{kind} {}", tokenizer.path().display());
                let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id).unwrap()).collect();
                let bytes = String::from_utf8(bytes).unwrap();
                let prefix =
                    if kind == "sentencepiece" && !text.starts_with('<') && !text.is_empty() { " " } else { "" };
                assert_eq!(bytes, format!("{prefix}{text}"), "{kind}: the tokens' bytes");
            }
        }
    }
}

#[test]
fn beginning_and_end_are_added_as_the_file_says() {
    let spm = from_gguf("sentencepiece");
    assert_eq!((spm.bos(), spm.eos(), spm.unknown()), (Some(1), &[2][..], Some(0)));
    let plain = spm.encode("Hello", false).unwrap();
    assert_eq!(spm.encode("Hello", true).unwrap(), [&[1], &plain[..]].concat());
    assert_eq!(spm.encode("", true).unwrap(), [1]);
    assert_eq!(spm.decode(&spm.encode("Hello", true).unwrap(), true).unwrap(), "Hello");

    let gpt2 = from_json("gpt-2");
    assert_eq!((gpt2.bos(), gpt2.eos(), gpt2.eos_id()), (Some(0), &[0][..], Some(0)));
    assert_eq!(gpt2.encode("Hello", true).unwrap(), gpt2.encode("Hello", false).unwrap());
    assert_eq!(gpt2.kind(0), Some(TokenKind::Control));
    let ids = gpt2.encode("a<|endoftext|>b", false).unwrap();
    assert_eq!(ids[1], 0);
    assert_eq!(gpt2.decode(&ids, true).unwrap(), "ab");
    assert_eq!(gpt2.decode(&ids, false).unwrap(), "a<|endoftext|>b");
}

#[test]
fn a_template_that_adds_tokens_becomes_flags() {
    let text = std::fs::read_to_string(fixture("gpt-2", "tokenizer.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}
    });
    let tokenizer = Tokenizer::from_json("t", json.to_string().as_bytes(), None).unwrap();
    assert!(tokenizer.adds_bos() && !tokenizer.adds_eos());
    let again = through_gguf(&tokenizer);
    assert!(again.adds_bos() && !again.adds_eos());
    assert_eq!(tokenizer.encode("Hi", true).unwrap()[0], 0);
    assert_eq!(tokenizer.encode("Hi", true).unwrap(), again.encode("Hi", true).unwrap());
    // An id that the vocabulary does not have.
    json["post_processor"]["special_tokens"]["<|endoftext|>"]["ids"] = serde_json::json!([400]);
    let error = Tokenizer::from_json("t", json.to_string().as_bytes(), None).unwrap_err().to_string();
    assert!(error.contains("post_processor") && error.contains("past the vocabulary of 400"), "{error}");
}

#[test]
fn metadata_says_what_llama_cpp_needs() {
    let values = from_json("qwen2").to_gguf_metadata().unwrap();
    let get = |key: &str| values.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    assert_eq!(get("tokenizer.ggml.model"), Some("gpt2".into()));
    assert_eq!(get("tokenizer.ggml.pre"), Some("qwen2".into()));
    assert_eq!(get("tokenizer.ggml.bos_token_id"), Some(Value::U32(0)));
    assert_eq!(get("tokenizer.ggml.add_bos_token"), Some(Value::Bool(false)));
    let Some(Value::Array(_, kinds)) = get("tokenizer.ggml.token_type") else { panic!() };
    assert_eq!((&kinds[0], &kinds[1], kinds.len()), (&Value::I32(3), &Value::I32(1), 400));
    let Some(Value::Array(_, merges)) = get("tokenizer.ggml.merges") else { panic!() };
    assert_eq!(merges.len(), 143);
}

#[test]
fn config_beside_the_tokenizer_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    std::fs::copy(fixture("gpt-2", "tokenizer.json"), directory.path().join("tokenizer.json")).unwrap();
    put("generation_config.json", r#"{"eos_token_id": [5, 0, 7], "bos_token_id": 3}"#);
    let tokenizer = Tokenizer::from_file(directory.path()).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(3), &[5, 0, 7][..]));
    put("tokenizer_config.json", r#"{"eos_token": {"content": "<|endoftext|>"}, "chat_template": "old", "x": [1]}"#);
    put("chat_template.jinja", "{{ messages }}");
    let tokenizer = Tokenizer::from_file(directory.path()).unwrap();
    assert_eq!((tokenizer.eos_id(), tokenizer.eos()), (Some(0), &[0, 5, 7][..]));
    assert_eq!(tokenizer.chat_templates(), [("default".to_owned(), "{{ messages }}".to_owned())]);
    put("tokenizer_config.json", r#"{"eos_token": "<|im_end|>"}"#);
    let error = Tokenizer::from_file(directory.path()).unwrap_err().to_string();
    assert!(error.contains("tokenizer_config.json") && error.contains("eos_token"), "{error}");
}

#[test]
fn ids_past_the_vocabulary_are_errors() {
    for kind in KINDS {
        let tokenizer = from_gguf(kind);
        let past = tokenizer.vocab_size() as u32;
        assert!(tokenizer.decode(&[past], true).is_err());
        assert_eq!(tokenizer.token_bytes(past), None);
        assert_eq!(tokenizer.id_to_token(past), None);
    }
}

#[test]
fn a_model_without_vocabulary_says_so() {
    let meta = [("tokenizer.ggml.model".to_owned(), Value::from("no_vocab"))];
    let bytes = GgufWriter::to_memory("m", &meta, &[]).unwrap().into_memory().unwrap();
    let tokenizer = Tokenizer::from_gguf(&Gguf::from_bytes("m", bytes).unwrap()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 0);
    assert!(tokenizer.encode("x", true).unwrap_err().to_string().contains("no vocabulary"));
    assert_eq!(tokenizer.to_gguf_metadata().unwrap(), meta);
}

#[test]
fn equal_scores_merge_from_the_left() {
    // llama.cpp merges the leftmost of equals: "aaa" is "aa" + "a", whichever token came first.
    let tokens: Vec<String> = ["<unk>", "<s>", "</s>", "a", "aa", "b", "ab"].map(str::to_owned).to_vec();
    let meta: Vec<(String, Value)> = [
        ("tokenizer.ggml.model", Value::from("llama")),
        ("tokenizer.ggml.tokens", tokens.into()),
        ("tokenizer.ggml.scores", vec![0f32; 7].into()),
        ("tokenizer.ggml.token_type", vec![2, 3, 3, 1, 1, 1, 1].into()),
        ("tokenizer.ggml.add_space_prefix", false.into()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .to_vec();
    let bytes = GgufWriter::to_memory("m", &meta, &[]).unwrap().into_memory().unwrap();
    let tokenizer = Tokenizer::from_gguf(&Gguf::from_bytes("m", bytes).unwrap()).unwrap();
    assert_eq!(tokenizer.encode("aaa", false).unwrap(), [4, 3]);
    assert_eq!(tokenizer.encode("aab", false).unwrap(), [4, 5]);
    assert_eq!(tokenizer.encode("ab</s>é", true).unwrap(), [1, 6, 2, 0]);
    assert_eq!(tokenizer.decode(&[1, 4, 2, 5], true).unwrap(), "aab");
}
