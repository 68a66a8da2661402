//! Documents like `tokenizer.json` for tokenizers that come in other files, so that one place reads and checks all.

use serde_json::{Value, json};

/// A token found in the text before anything else: text, and whether it steers the model.
pub(super) type Added<'a> = (u32, &'a str, bool);

/// The parts of a document.
pub(super) struct Parts {
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    pub(super) decoder: Value,
    pub(super) model: Value,
}

impl Parts {
    /// The document as the bytes of a file.
    pub(super) fn document(self, added: &[Added<'_>]) -> Vec<u8> {
        let added = added.iter().map(|(id, content, special)| {
            json!({
                "id": id, "content": content, "special": special,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false
            })
        });
        let document = json!({
            "version": "1.0",
            "added_tokens": added.collect::<Vec<_>>(),
            "normalizer": self.normalizer,
            "pre_tokenizer": self.pre_tokenizer,
            "post_processor": null,
            "decoder": self.decoder,
            "model": self.model,
        });
        document.to_string().into_bytes()
    }
}

/// BERT's: words are split into the longest tokens from the left, `##` before those inside of a word.
pub(super) fn wordpiece(vocab: Value, unknown: &str, lowercase: bool, strip_accents: Option<bool>) -> Parts {
    Parts {
        normalizer: json!({
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": strip_accents, "lowercase": lowercase
        }),
        pre_tokenizer: json!({"type": "BertPreTokenizer"}),
        decoder: json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        model: json!({
            "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab
        }),
    }
}

/// SentencePiece's unigram model.
pub(super) struct Unigram<'a> {
    /// Tokens and their scores.
    pub(super) vocab: Vec<(&'a str, f32)>,
    pub(super) unknown: Option<u32>,
    pub(super) byte_fallback: bool,
    /// The table of normalised characters, in base64.
    pub(super) charsmap: Option<String>,
    pub(super) add_space_prefix: bool,
    /// Runs of spaces become one, and those at the end none.
    pub(super) remove_extra_whitespaces: bool,
}

impl Unigram<'_> {
    pub(super) fn parts(self) -> Parts {
        let mut steps: Vec<Value> = Vec::new();
        if let Some(table) = self.charsmap {
            steps.push(json!({"type": "Precompiled", "precompiled_charsmap": table}));
        }
        if self.remove_extra_whitespaces {
            steps.push(json!({"type": "Strip", "strip_left": false, "strip_right": true}));
            steps.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}));
        }
        let scheme = if self.add_space_prefix { "always" } else { "never" };
        let space = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
        Parts {
            normalizer: json!({"type": "Sequence", "normalizers": steps}),
            pre_tokenizer: space.clone(),
            decoder: match self.byte_fallback {
                true => metaspace_decoder(self.add_space_prefix),
                false => space,
            },
            model: json!({
                "type": "Unigram", "unk_id": self.unknown, "vocab": self.vocab, "byte_fallback": self.byte_fallback
            }),
        }
    }
}

/// BPE over characters with `▁` for spaces and bytes for what has no token, without a split (Gemma 4, Sarvam).
pub(super) fn metaspace_bpe(vocab: Value, merges: Vec<(String, String)>, unknown: Option<&str>) -> Parts {
    Parts {
        normalizer: json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
        pre_tokenizer: Value::Null,
        decoder: metaspace_decoder(false),
        model: json!({
            "type": "BPE", "vocab": vocab, "merges": merges, "unk_token": unknown, "fuse_unk": true,
            "byte_fallback": true
        }),
    }
}

fn metaspace_decoder(strip: bool) -> Value {
    let mut steps = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if strip {
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": steps})
}

/// BPE over GPT-2's alphabet of bytes.
pub(super) fn byte_level(
    vocab: Value,
    merges: Vec<(String, String)>,
    pre_tokenizer: Value,
    compose: bool,
    ignore_merges: bool,
) -> Parts {
    Parts {
        normalizer: if compose { json!({"type": "NFC"}) } else { Value::Null },
        pre_tokenizer,
        decoder: json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        model: json!({"type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": ignore_merges}),
    }
}
