//! A mixed megabyte under one tokenizer of each kind: the ids of Hugging Face's tokenizers (and of sentencepiece for its
//! own files), and the text back. `tools/reference/tokenizer_corpus.py` writes the tokenizers and what to expect.

use imaginal_files::gguf::{Gguf, GgufWriter, Value as Meta};
use imaginal_files::{Error, Tokenizer};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const DOCUMENTS: usize = 160;
const SMALLEST: usize = 1 << 20;

static CORPUS: LazyLock<Vec<String>> = LazyLock::new(corpus);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/corpus").join(name)
}

fn read(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

/// SplitMix64, a number below `n`.
fn below(state: &mut u64, n: u64) -> usize {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (((z ^ (z >> 31)) >> 33) % n) as usize
}

/// The documents; the same as in the script.
fn corpus() -> Vec<String> {
    let fragments: Vec<String> = serde_json::from_value(read("fragments.json")).unwrap();
    let mut state = 2026;
    let mut next = |n: usize| below(&mut state, n as u64);
    let character = |code: usize| char::from_u32(code as u32).unwrap_or('\u{fffd}');
    let mut documents = Vec::new();
    for _ in 0..DOCUMENTS {
        let mut text = String::new();
        while text.len() < SMALLEST / DOCUMENTS {
            match next(16) {
                0 => text.push_str(&" ".repeat(1 + next(90))),
                1 => {
                    text.push_str(&"\n".repeat(1 + next(6)));
                    text.push_str(&"\t".repeat(next(7)));
                }
                2 => {
                    text.push(character(next(32)));
                    text.push(character(0x7f + next(0x21)));
                }
                3 => (0..1 + next(12)).for_each(|_| text.push(character(48 + next(10)))),
                4 => {
                    let most = if next(4) > 0 { 0x11000 } else { 0x110000 };
                    text.push(character(next(most)));
                }
                5 => {
                    text.push(character(65 + next(26)));
                    text.push(character(97 + next(26)));
                }
                _ => {
                    let fragment = &fragments[next(fragments.len())];
                    let count = fragment.chars().count();
                    let keep = if next(3) > 0 { count } else { next(count) };
                    text.extend(fragment.chars().take(keep));
                }
            }
        }
        documents.push(text);
    }
    documents
}

/// Requires count, hash (FNV-1a of all ids with a mark after each document) and first ids.
fn check(name: &str, tokenizer: &Tokenizer, documents: &[String], expected: &Value) {
    let (mut hash, mut count) = (0xcbf2_9ce4_8422_2325_u64, 0);
    for (i, document) in documents.iter().enumerate() {
        let ids = tokenizer.encode(document, false).unwrap();
        if i == 0 {
            let first: Vec<u32> = serde_json::from_value(expected["first"].clone()).unwrap();
            assert_eq!(ids[..first.len()], first, "{name}: {:?}", document.chars().take(60).collect::<String>());
        }
        count += ids.len();
        for byte in ids.iter().chain([&u32::MAX]).flat_map(|id| id.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    assert_eq!(expected["count"], count, "{name}: the number of ids");
    assert_eq!(expected["hash"], format!("{hash:016x}"), "{name}: some id");
}

/// Requires that ids give their text back, by the decoder and byte by byte.
fn check_back(name: &str, tokenizer: &Tokenizer, documents: &[String], lossless: bool) {
    for document in &documents[..8] {
        let ids = tokenizer.encode(document, false).unwrap();
        let back = tokenizer.decode(&ids, false).unwrap();
        let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id).unwrap()).collect();
        if lossless {
            assert_eq!(&back, document, "{name}");
            assert_eq!(String::from_utf8(bytes).unwrap().trim_start_matches(' '), document.trim_start_matches(' '));
        } else {
            // What normalising and unknown characters have lost stays lost, and nothing else does.
            let again = tokenizer.encode(&back, false).unwrap();
            assert!(!back.is_empty() && again.len() > ids.len() / 2, "{name}");
        }
    }
}

fn through_gguf(tokenizer: &Tokenizer) -> Tokenizer {
    let bytes = GgufWriter::to_memory("memory", &tokenizer.to_gguf_metadata().unwrap(), &[]).unwrap();
    Tokenizer::from_gguf(&Gguf::from_bytes("memory", bytes.into_memory().unwrap()).unwrap()).unwrap()
}

fn from_metadata(values: Vec<(&str, Meta)>) -> Tokenizer {
    let values: Vec<(String, Meta)> = values.into_iter().map(|(k, v)| (format!("tokenizer.ggml.{k}"), v)).collect();
    let bytes = GgufWriter::to_memory("memory", &values, &[]).unwrap().into_memory().unwrap();
    Tokenizer::from_gguf(&Gguf::from_bytes("memory", bytes).unwrap()).unwrap()
}

/// The tokens of a document by id, and the ids of its special ones.
fn tokens_of(document: &Value) -> (Vec<String>, Vec<usize>) {
    let vocab = document["model"]["vocab"].as_object().unwrap();
    let mut tokens = vec![String::new(); vocab.len()];
    vocab.iter().for_each(|(text, id)| tokens[id.as_u64().unwrap() as usize].clone_from(text));
    let special = document["added_tokens"].as_array().unwrap().iter().filter(|t| t["special"] == true);
    (tokens, special.map(|t| t["id"].as_u64().unwrap() as usize).collect())
}

fn merges_of(document: &Value) -> Vec<String> {
    let joined = |m: &Value| {
        m.as_str()
            .map(str::to_owned)
            .unwrap_or_else(|| format!("{} {}", m[0].as_str().unwrap(), m[1].as_str().unwrap()))
    };
    document["model"]["merges"].as_array().unwrap().iter().map(joined).collect()
}

#[test]
fn every_split_gives_the_ids_of_the_reference() {
    let base = read("byte-level.json");
    let (tokens, special) = tokens_of(&base);
    let merges = merges_of(&base);
    let kinds: Vec<i32> = (0..tokens.len()).map(|id| if special.contains(&id) { 3 } else { 1 }).collect();
    for split in read("splits.json").as_array().unwrap() {
        let name = split["name"].as_str().unwrap();
        let mut document = base.clone();
        document["normalizer"] = split["normalizer"].clone();
        document["pre_tokenizer"] = split["pre_tokenizer"].clone();
        document["model"]["ignore_merges"] = split["ignore_merges"].clone();
        let json = Tokenizer::from_json(name, document.to_string().as_bytes(), None).unwrap();
        check(name, &json, &CORPUS, split);
        let gguf = from_metadata(vec![
            ("model", "gpt2".into()),
            ("pre", name.into()),
            ("tokens", tokens.clone().into()),
            ("token_type", kinds.clone().into()),
            ("merges", merges.clone().into()),
        ]);
        // The name of a split says nothing of Qwen's composing of characters, so that other files are read without.
        if split["normalizer"].is_null() {
            check(&format!("{name} in GGUF"), &gguf, &CORPUS, split);
            check_back(name, &json, &CORPUS, true);
        } else {
            let composed: Vec<String> =
                CORPUS.iter().map(|d| json.decode(&json.encode(d, false).unwrap(), false).unwrap()).collect();
            check(&format!("{name} in GGUF"), &gguf, &composed, split);
        }
        check_back(name, &gguf, &CORPUS, true);
        // What is written is read as the same tokenizer.
        let written = through_gguf(&json);
        assert_eq!((written.pre(), json.pre().is_some()), (json.pre(), true), "{name}");
        for document in &CORPUS[..12] {
            assert_eq!(written.encode(document, false).unwrap(), json.encode(document, false).unwrap(), "{name}");
        }
    }
}

#[test]
fn wordpiece_unigram_and_characters_give_the_ids_of_the_reference() {
    let expected = read("expected.json");
    for name in ["wordpiece-uncased", "wordpiece-cased", "unigram"] {
        let json = Tokenizer::from_file(fixture(&format!("{name}.json"))).unwrap();
        check(name, &json, &CORPUS, &expected[name]);
        let gguf = through_gguf(&json);
        check(&format!("{name} in GGUF"), &gguf, &CORPUS, &expected[name]);
        check_back(name, &json, &CORPUS, false);
        let text = "Hello, world: 12 times";
        let ids = json.encode(text, true).unwrap();
        assert_eq!(gguf.encode(text, true).unwrap(), ids, "{name}: beginning and end");
        assert_eq!(gguf.decode(&ids, true).unwrap(), json.decode(&ids, true).unwrap(), "{name}");
    }
    let metaspace = Tokenizer::from_file(fixture("metaspace.json")).unwrap();
    check("metaspace", &metaspace, &CORPUS, &expected["metaspace"]);
    check_back("metaspace", &metaspace, &CORPUS, true);
    let document = read("metaspace.json");
    let (tokens, special) = tokens_of(&document);
    let kind = |(id, text): (usize, &String)| match text {
        _ if special.contains(&id) => 3,
        text if text.starts_with("<0x") => 6,
        text if document["added_tokens"].as_array().unwrap().iter().any(|t| t["content"] == *text) => 4,
        _ => 1,
    };
    let gguf = from_metadata(vec![
        ("model", "gemma4".into()),
        ("token_type", tokens.iter().enumerate().map(kind).collect::<Vec<i32>>().into()),
        ("tokens", tokens.into()),
        ("merges", merges_of(&document).into()),
        ("unknown_token_id", 0_u32.into()),
    ]);
    check("metaspace in GGUF", &gguf, &CORPUS, &expected["metaspace"]);
    check_back("metaspace in GGUF", &gguf, &CORPUS, true);
}

#[test]
fn older_directories_give_the_ids_of_the_reference() {
    let expected = read("expected.json");
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &[u8]| std::fs::write(directory.path().join(name), text).unwrap();
    let clear =
        || std::fs::read_dir(directory.path()).unwrap().for_each(|e| std::fs::remove_file(e.unwrap().path()).unwrap());
    let open = || Tokenizer::in_directory(directory.path()).unwrap().unwrap();
    assert!(Tokenizer::in_directory(directory.path()).unwrap().is_none());
    let error = Tokenizer::from_file(directory.path()).unwrap_err();
    assert!(matches!(error, Error::Tokenizer { .. }) && error.to_string().contains("tokenizer.model"), "{error}");

    // sentencepiece's own ids; its library ends a text at a zero.
    let without_zero: Vec<String> = CORPUS.iter().map(|d| d.replace('\0', "")).collect();
    for (file, name, documents, key) in [
        ("spiece.model", "unigram.model", &*CORPUS, "unigram"),
        ("tokenizer.model", "bpe.model", &without_zero, "bpe.model"),
    ] {
        clear();
        put(file, &std::fs::read(fixture(name)).unwrap());
        check(name, &open(), documents, &expected[key]);
        check(&format!("{name} in GGUF"), &through_gguf(&open()), documents, &expected[key]);
    }
    put("tokenizer_config.json", br#"{"add_bos_token": false, "add_eos_token": true, "chat_template": "x"}"#);
    let bpe = open();
    assert_eq!((bpe.adds_bos(), bpe.adds_eos(), bpe.chat_templates().len()), (false, true, 1));
    assert_eq!(bpe.encode("a", true).unwrap().last(), Some(&bpe.eos_id().unwrap()));

    clear();
    put("rwkv_vocab_v20230424.txt", &std::fs::read(fixture("rwkv_vocab.txt")).unwrap());
    let rwkv = open();
    check("rwkv", &rwkv, &CORPUS, &expected["rwkv_vocab.txt"]);
    check("rwkv in GGUF", &through_gguf(&rwkv), &CORPUS, &expected["rwkv_vocab.txt"]);
    check_back("rwkv", &rwkv, &CORPUS, true);

    // vocab.json and merges.txt are the same tokenizer as its tokenizer.json.
    clear();
    let base = read("byte-level.json");
    put("vocab.json", base["model"]["vocab"].to_string().as_bytes());
    put("merges.txt", format!("#version: 0.2\n{}\n", merges_of(&base).join("\n")).as_bytes());
    let splits = read("splits.json");
    let split = |name: &str| splits.as_array().unwrap().iter().find(|s| s["name"] == name).unwrap().clone();
    check("vocab.json", &open(), &CORPUS, &split("gpt-2"));
    put("tokenizer_config.json", br#"{"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|endoftext|>"}"#);
    let qwen = open();
    check("vocab.json of Qwen", &qwen, &CORPUS, &split("qwen2"));
    assert_eq!((qwen.eos(), qwen.encode("<|endoftext|>", false).unwrap()), (&[0][..], vec![0]));
    put("tokenizer_config.json", json!({"eos_token": "<no such>"}).to_string().as_bytes());
    assert!(Tokenizer::from_file(directory.path()).unwrap_err().to_string().contains("eos_token"));

    // BERT's vocab.txt.
    clear();
    let (tokens, _) = tokens_of(&read("wordpiece-uncased.json"));
    put("vocab.txt", (tokens.join("\n") + "\n").as_bytes());
    let bert = open();
    check("vocab.txt", &bert, &CORPUS, &expected["wordpiece-uncased"]);
    assert_eq!((bert.bos(), bert.separator(), bert.mask()), (Some(2), Some(3), Some(4)));
    put("tokenizer_config.json", br#"{"do_lower_case": false}"#);
    assert_ne!(open().encode("HELLO", false).unwrap(), bert.encode("HELLO", false).unwrap());
}

#[test]
fn tiktoken_ranks_merge_as_their_merges_do() {
    use base64::Engine as _;
    // Ranks in the order of merging: the library's own merges give the same ids.
    let tokens: Vec<Vec<u8>> = (0..=255_u8)
        .map(|b| vec![b])
        .chain(
            ["th", "he", " t", "the", " the", "in", "ing", "  ", "    ", "日", "日本"].map(|t| t.as_bytes().to_vec()),
        )
        .chain([vec![0xe6, 0x97]])
        .collect();
    let line = |(i, t): (usize, &Vec<u8>)| format!("{} {i}\n", base64::engine::general_purpose::STANDARD.encode(t));
    let directory = tempfile::tempdir().unwrap();
    let text: String = tokens.iter().enumerate().map(line).collect();
    std::fs::write(directory.path().join("tiktoken.model"), &text).unwrap();
    let config = json!({"tokenizer_class": "TikTokenTokenizer", "added_tokens_decoder": {"268": {"content": "[EOS]", "special": true}}, "eos_token": "[EOS]"});
    std::fs::write(directory.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let tokenizer = Tokenizer::from_file(directory.path()).unwrap();
    assert_eq!(tokenizer.pre(), Some("kimi-k2"));
    // " the" goes first where it is a piece; in "other" only its inside merges.
    assert_eq!(tokenizer.encode("the the[EOS]", false).unwrap(), [259, 260, 268]);
    assert_eq!(tokenizer.encode("日本ing", false).unwrap(), [266, 262]);
    assert_eq!(tokenizer.decode(&tokenizer.encode(&CORPUS[0], false).unwrap(), false).unwrap(), CORPUS[0]);
    for bad in ["AA== 0\nAA== 2\n", "?? 0\n", "AA==\n", " 0\n"] {
        std::fs::write(directory.path().join("tiktoken.model"), bad).unwrap();
        let error = Tokenizer::from_file(directory.path()).unwrap_err().to_string();
        assert!(error.contains("tiktoken.model") && error.contains("line"), "{error}");
    }
}

#[test]
fn a_damaged_table_of_characters_is_an_error_or_harmless() {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let mut document = read("unigram.json");
    let place = "/normalizer/normalizers/0/precompiled_charsmap";
    let table = base64.decode(document.pointer(place).unwrap().as_str().unwrap()).unwrap();
    let text: String = CORPUS[3].chars().chain("ﬁﬀ\u{a0}\u{3000}Å½e\u{301}o\u{308}\u{200b}".chars()).collect();
    let (mut state, mut refused, mut read_on) = (7, 0, 0);
    for round in 0..300 {
        let mut damaged = table.clone();
        match round % 3 {
            0 => damaged.truncate(below(&mut state, table.len() as u64)),
            _ => {
                for _ in 0..1 + below(&mut state, 4) {
                    let at = below(&mut state, table.len() as u64);
                    damaged[at] = below(&mut state, 256) as u8;
                }
            }
        }
        *document.pointer_mut(place).unwrap() = base64.encode(damaged).into();
        match Tokenizer::from_json("damaged", document.to_string().as_bytes(), None) {
            Ok(tokenizer) => {
                tokenizer.encode(&text, false).unwrap();
                read_on += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains("Precompiled"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 100 && read_on > 20, "{refused} refused, {read_on} read");
}
