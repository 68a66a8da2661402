//! The command as a user meets it: what it prints where, and how it ends.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn imaginal(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_imaginal")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_default_model_runs_and_a_seed_repeats_its_text() {
    let run = |seed: &str| imaginal(&["run", "-p", "pub fn parse(", "-n", "30", "--seed", seed]);
    let (a, b, c) = (run("1"), run("1"), run("2"));
    assert!(a.status.success());
    assert!(a.stdout.len() > 30 && text(&a.stderr).contains("generated at"));
    assert_eq!(a.stdout, b.stdout);
    assert_ne!(a.stdout, c.stdout);
    let named = imaginal(&["run", "default", "pub fn parse(", "-n", "30", "--seed", "1"]);
    assert_eq!(named.stdout, a.stdout);
    let j = json(&imaginal(&["run", "-p", "let x", "-n", "5", "--temperature", "0", "--json"]));
    assert_eq!(j["generated_tokens"], 5);
    assert_eq!(j["finish"], "length");
}

#[test]
fn a_name_that_is_no_model_is_an_error_and_not_a_prompt() {
    let out = imaginal(&["run", "defautl", "hello"]);
    assert_eq!(out.status.code(), Some(1));
    let said = text(&out.stderr);
    assert!(
        out.stdout.is_empty() && said.contains("\"defautl\" is no model") && said.contains("\"default\""),
        "{said}"
    );
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    assert_eq!(imaginal(&["run", "--no-such-option"]).status.code(), Some(2));
    assert_eq!(imaginal(&["logits", "default"]).status.code(), Some(2));
    assert_eq!(imaginal(&["train", "--help"]).status.code(), Some(0));
    let device = imaginal(&["run", "-p", "x", "--device", "abacus"]);
    assert_eq!(device.status.code(), Some(1));
    assert!(text(&device.stderr).contains("abacus"));
}

#[test]
fn logits_of_a_batch_and_of_single_steps_agree() {
    let dir = tempfile::tempdir().unwrap();
    let logits = |name: &str, more: &[&str]| -> Vec<f32> {
        let file = dir.path().join(name);
        let mut args = vec!["logits", "default", "--tokens", "5,700,9,1000,3", "--out", file.to_str().unwrap()];
        args.extend(more);
        assert!(imaginal(&args).status.success());
        let file = imaginal::files::SafeTensors::open(&file, Default::default()).unwrap();
        let t = file.tensor("logits").unwrap();
        assert_eq!(t.shape[0], 5);
        t.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let (a, b) = (logits("batch", &[]), logits("steps", &["--stepwise"]));
    assert!(a.iter().zip(&b).all(|(x, y)| (x - y).abs() < 2e-4));
    let bad = imaginal(&["logits", "default", "--tokens", "999999", "--out", "/dev/null"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stderr).contains("999999"));
}

#[test]
fn tokens_come_back_as_the_text() {
    let j = json(&imaginal(&["tokenize", "default", "fn naïve() -> 日本 {}", "--json"]));
    let ids: Vec<u32> = serde_json::from_value(j["ids"].clone()).unwrap();
    assert_eq!(j["count"], ids.len());
    let loaded = imaginal::models::Loaded::from_gguf_bytes(
        "default",
        imaginal::find::default_model().to_vec(),
        &Default::default(),
    )
    .unwrap();
    assert_eq!(loaded.tokenizer.unwrap().decode(&ids, true).unwrap(), "fn naïve() -> 日本 {}");
}

#[test]
fn show_list_bench_and_perplexity_speak_json() {
    let j = json(&imaginal(&["show", "default", "--json"]));
    assert_eq!(j["architecture"], j["metadata"]["general.architecture"]);
    assert!(j["tensors"].as_array().unwrap().len() > 10);
    let j = json(&imaginal(&["list", "--architectures", "--json"]));
    assert!(j["architectures"].as_array().unwrap().iter().any(|a| a["name"] == "mamba"));
    let j = json(&imaginal(&["bench", "default", "-p", "16", "-n", "4", "-r", "2", "--json"]));
    let kinds: Vec<_> = j["results"].as_array().unwrap().iter().map(|r| r["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["prompt", "generation"]);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs");
    let j = json(&imaginal(&["perplexity", "default", source.to_str().unwrap(), "--json"]));
    let bits = j["bits_per_byte"].as_f64().unwrap();
    assert!(bits > 0.1 && bits < 8.0, "{bits}");
    assert_eq!(j["bytes"], std::fs::metadata(source).unwrap().len());
}

#[test]
fn completions_and_man_pages_come_from_the_same_definition() {
    let out = imaginal(&["generate", "--completions", "bash"]);
    assert!(text(&out.stdout).contains("perplexity"));
    let dir = tempfile::tempdir().unwrap();
    assert!(imaginal(&["generate", "--man", dir.path().to_str().unwrap()]).status.success());
    assert!(std::fs::read_to_string(dir.path().join("imaginal-run.1")).unwrap().contains("temperature"));
}

#[test]
fn a_morphed_model_runs_and_formats_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let out = path("q5.gguf");
    let told = json(&imaginal(&["morph", "default", "q5_1", &out, "--json"]));
    assert!(told["bits_per_weight"].as_f64().unwrap() < 8.0, "{told}");
    assert!(told["tensors"].as_array().unwrap().iter().any(|t| t["to"] == "q5_1" && t["from"] == "q8_0"));
    let ran = imaginal(&["run", &out, "-p", "pub fn parse(", "-n", "20", "--temperature", "0"]);
    assert!(ran.status.success() && ran.stdout.len() > 20);

    // A model is not destroyed by being written over itself, nor does an unknown format make a file.
    let before = std::fs::read(&out).unwrap();
    assert_eq!(imaginal(&["morph", &out, "f16", &out]).status.code(), Some(1));
    assert_eq!(std::fs::read(&out).unwrap(), before);
    let unknown = imaginal(&["morph", "default", "q9", &path("q9.gguf")]);
    assert!(unknown.status.code() == Some(1) && text(&unknown.stderr).contains("q4_k_m"));
    assert!(!dir.path().join("q9.gguf").exists());

    let formats = json(&imaginal(&["formats", "--json"]));
    let row = |name: &str| formats["formats"].as_array().unwrap().iter().find(|f| f["name"] == name).unwrap().clone();
    assert_eq!(row("q4_k")["bits"], 4.5);
    assert!(row("q4_k")["relative_rmse"].as_f64().unwrap() < row("q3_k")["relative_rmse"].as_f64().unwrap());
}

#[test]
fn a_conversation_is_rendered_by_the_template_that_is_named_or_brought() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).to_string_lossy().into_owned()
    };
    let messages = file("m.json", r#"[{"role": "user", "content": "Hi"}]"#);
    let tools = file("t.json", r#"[{"z": 1, "a": "é"}]"#);
    let chatml = imaginal(&["template", "default", "--template", "chatml", "--messages", &messages]);
    assert_eq!(text(&chatml.stdout), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    let own = file("own.jinja", "{{ tools | tojson }}{{ x + 1 }} {{ strftime_now('%Y') }}{{ word }}");
    let args = ["template", "default", "--messages", &messages, "--tools", &tools, "--file", &own, "--var", "x=2"];
    let more = ["--var", "word=plain", "--now", "2031-02-03T04:05"];
    assert_eq!(text(&imaginal(&[&args[..], &more[..]].concat()).stdout), "[{\"z\": 1, \"a\": \"é\"}]3 2031plain");

    // The default model brings no template: a conversation with it needs a name, and then has that format.
    let none = imaginal(&["template", "default", "--messages", &messages]);
    assert!(none.status.code() == Some(1) && text(&none.stderr).contains("chatml"), "{}", text(&none.stderr));
    assert_eq!(imaginal(&["run", "-p", "Hi", "--chat"]).status.code(), Some(1));
    let run = |more: &[&str]| json(&imaginal(&[&["run", "-p", "Hi", "-n", "3", "--json"], more].concat()));
    let prompt = run(&["--template", "chatml", "--system", "Be brief."])["prompt"].clone();
    let expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(prompt, expected);
    assert_eq!(run(&["--raw"])["prompt"], "Hi");
}

/// A tiny encoder of `crates/models` with a WordPiece tokenizer of letters.
fn encoder(name: &str) -> tempfile::TempDir {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/fixtures").join(name);
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(source.join(file), dir.path().join(file)).unwrap();
    }
    let letters = ('a'..='z').flat_map(|c| [c.to_string(), format!("##{c}")]);
    let vocab: serde_json::Map<String, serde_json::Value> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        .map(String::from)
        .into_iter()
        .chain(letters)
        .enumerate()
        .map(|(i, token)| (token, i.into()))
        .collect();
    let special = |id: u32, content: &str| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let piece = |id: &str, part: u32| serde_json::json!({"SpecialToken": {"id": id, "type_id": part}});
    let text = |id: &str, part: u32| serde_json::json!({"Sequence": {"id": id, "type_id": part}});
    let tokenizer = serde_json::json!({
        "version": "1.0",
        // Both must be ignored.
        "truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [special(0, "[PAD]"), special(1, "[UNK]"), special(2, "[CLS]"), special(3, "[SEP]")],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [piece("[CLS]", 0), text("A", 0), piece("[SEP]", 0)],
            "pair": [piece("[CLS]", 0), text("A", 0), piece("[SEP]", 0), text("B", 1), piece("[SEP]", 1)],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    });
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    dir
}

#[test]
fn texts_become_vectors_that_do_not_depend_on_their_neighbours() {
    let dir = encoder("bert-plain");
    let model = dir.path().to_str().unwrap();
    let both = json(&imaginal(&["embed", model, "a cat", "the zebra jumps", "--json"]));
    assert_eq!((both["dimensions"].as_u64(), both["tokens"][0].as_u64()), (Some(24), Some(6)));
    let alone = imaginal(&["embed", model, "the zebra jumps"]);
    let alone: Vec<f64> = text(&alone.stdout).split_whitespace().map(|x| x.parse().unwrap()).collect();
    let beside: Vec<f64> = both["embeddings"][1].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert_eq!(alone.len(), 24);
    assert!(alone.iter().zip(&beside).all(|(a, b)| (a - b).abs() < 1e-5));
    assert!((alone.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5);
    // More than the 64 positions of the model are cut, and it is said.
    let long = imaginal(&["embed", model, &"x".repeat(90)]);
    assert!(long.status.success() && text(&long.stderr).contains("text 1: the last 28 tokens are left out"));
    let run = imaginal(&["run", model, "a cat"]);
    assert!(!run.status.success() && text(&run.stderr).contains("imaginal embed"), "{}", text(&run.stderr));
    let score = imaginal(&["classify", model, "a cat"]);
    assert!(text(&score.stderr).contains("no head that scores labels"));
}

#[test]
fn classifiers_score_labels_and_rerankers_put_texts_in_order() {
    let dir = encoder("bert-scores");
    let model = dir.path().to_str().unwrap();
    let found = json(&imaginal(&["classify", model, "a cat", "dog", "--json"]));
    assert_eq!(found["labels"], serde_json::json!(["bad", "fair", "good"]));
    assert_eq!(found["results"][1]["scores"].as_array().unwrap().len(), 3);
    let several = imaginal(&["rerank", model, "cat", "dog"]);
    assert!(text(&several.stderr).contains("use `imaginal classify`"));

    let dir = encoder("roberta-scores");
    let model = dir.path().to_str().unwrap();
    let found = json(&imaginal(&["rerank", model, "what", "a cat", "dog", "zebra", "--json"]));
    let scores: Vec<f64> = found["results"].as_array().unwrap().iter().map(|r| r["score"].as_f64().unwrap()).collect();
    assert!(scores.len() == 3 && scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    let lines = imaginal(&["rerank", model, "what", "zebra", "dog", "a cat"]);
    let first = found["results"][0]["text"].as_str().unwrap();
    assert!(text(&lines.stdout).lines().next().unwrap().ends_with(first));
}
