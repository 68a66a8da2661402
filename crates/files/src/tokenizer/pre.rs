//! How text is split before merging, by the names GGUF has for it.

use serde_json::Value;

/// One way of splitting: regular expressions, each applied to the pieces that the one before left, every match a piece
/// of its own.
pub(super) struct Split {
    /// The names in `tokenizer.ggml.pre` (llama.cpp's). The first is written.
    pub(super) names: &'static [&'static str],
    pub(super) patterns: &'static [&'static str],
    /// A piece that is in the vocabulary is one token, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Whether a beginning token is added where the file does not say.
    pub(super) add_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED_CODER: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const BAILING: &str =
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
const BLOOM: &str = r" ?[^(\s|[.,!?…。，、।۔،])]+";
const FALCON: &str = r"[\p{P}\$\+<=>\^~\|`]+";
const CJK: &str = "[一-龥぀-ゟ゠-ヿ]+";
const CJK_DEEPSEEK: &str = "[一-龥ࠀ-一가-퟿]+";
const DEEPSEEK_LETTERS: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
const DEEPSEEK_MARKS: &str = r"\s?[!-/:-~！-／：-～‘-‟　-。]+";
const DEEPSEEK_V3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

const LLAMA3_SPACES: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}";
const KIMI: &str = r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const EXAONE_MOE: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+";
const UFAKZEKA: &str = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const MINICPM5: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const YOUTU: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const YOUTU_SCRIPTS: &str = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+";
const SPARK: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"##;
const DIGIT_GROUPS: &str = r"\d{1,3}(?=(?:\d{3})*\b)";
const PUNCTUATION: &str = r"[\p{P}!-/:-@\[-`{-~]";

/// Names of splits that are none: spaces become `▁`, and bytes are tokens of their own.
pub(super) const METASPACE: &[&str] = &["gemma4", "granite-embed-multi-311m", "sarvam-moe"];

/// A row for the common case: nothing special besides the patterns.
const fn split(names: &'static [&'static str], patterns: &'static [&'static str]) -> Split {
    Split { names, patterns, ignore_merges: false, add_bos: false }
}

pub(super) static SPLITS: &[Split] = &[
    split(
        &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "exaone4",
            "modern-bert",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "trillion",
            "granite-docling",
            "roberta-bpe",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
        ],
        &[GPT2],
    ),
    Split {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
    },
    Split { names: &["glm4", "glm5"], patterns: &[LLAMA3], ignore_merges: true, add_bos: false },
    split(&["dbrx", "smaug-bpe", "chatglm-bpe"], &[LLAMA3]),
    split(
        &["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "grok-2", "solar-open", "kormo", "f2llmv2"],
        &[QWEN2],
    ),
    split(&["qwen35"], &[QWEN35]),
    split(
        &["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[r"\p{N}", GPT2],
    ),
    split(&["deepseek-llm"], &[r"[\r\n]", DEEPSEEK_LETTERS, DEEPSEEK_MARKS, r"\s+$", CJK_DEEPSEEK, r"\p{N}+"]),
    split(&["deepseek-coder"], &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK_DEEPSEEK, r"\p{N}"]),
    split(&["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], &[r"\p{N}{1,3}", CJK, DEEPSEEK_V3]),
    split(&["falcon"], &[FALCON, GPT2, "[0-9][0-9][0-9]"]),
    split(&["default"], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    Split { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, add_bos: true },
    split(&["gpt-4o", "llama4", "kanana2", "minimax-m2", "talkie"], &[GPT4O]),
    split(&["seed-coder"], &[SEED_CODER]),
    split(&["bailingmoe", "bailingmoe2", "llada-moe"], &[BAILING]),
    split(&["bloom", "poro-chat", "gpt3-finnish"], &[BLOOM]),
    split(&["viking"], &[BLOOM, r"\p{N}"]),
    Split { names: &["granite-embed-multi-97m"], patterns: &[GPT4O], ignore_merges: true, add_bos: false },
    split(&["tiny_aya", "cohere2moe"], &[DIGIT_GROUPS, GPT4O]),
    split(&["kimi-k2"], &[KIMI]),
    split(&["jais-2"], &[LLAMA3_SPACES]),
    split(&["exaone-moe"], &[EXAONE_MOE]),
    split(&["ufakzeka"], &[UFAKZEKA]),
    Split { names: &["minicpm5"], patterns: &[r"\p{N}{1,3}", MINICPM5], ignore_merges: true, add_bos: false },
    split(&["laguna"], &[r"[^\n]+|[\n]+", QWEN2]),
    split(&["spark2_5"], &[r"\p{N}{1,3}", CJK, SPARK, r"\p{N}"]),
    Split { names: &["youtu"], patterns: &[YOUTU_SCRIPTS, YOUTU], ignore_merges: true, add_bos: false },
    Split {
        names: &["chameleon"],
        patterns: &[
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            r"\p{N}",
            PUNCTUATION,
            GPT2,
        ],
        ignore_merges: false,
        add_bos: true,
    },
    split(&["superbpe"], &[r"\p{N}+", r"(?=(\d{3})+(?!\d))"]),
];

/// The row of a name.
pub(super) fn by_name(name: &str) -> Option<&'static Split> {
    SPLITS.iter().find(|s| s.names.contains(&name))
}

/// All names, for errors.
pub(super) fn names() -> String {
    SPLITS.iter().flat_map(|s| s.names.iter().copied()).collect::<Vec<_>>().join(", ")
}

/// The pre-tokenizer of a `tokenizer.json` for these patterns.
pub(super) fn to_json(split: &Split) -> Value {
    let step = |pattern: &&str| match *pattern {
        // The library's own step knows the same characters, but those of another version of Unicode.
        FALCON => serde_json::json!({"type": "Punctuation", "behavior": "Contiguous"}),
        pattern => serde_json::json!({
            "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false
        }),
    };
    let mut steps: Vec<Value> = split.patterns.iter().map(step).collect();
    steps.push(serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false
    }));
    serde_json::json!({"type": "Sequence", "pretokenizers": steps})
}

/// The name llama.cpp has for the pre-tokenizer of a `tokenizer.json`; `None` where it has none.
pub(super) fn name_of(pre_tokenizer: &Value, ignore_merges: bool) -> Option<&'static str> {
    let mut patterns = Vec::new();
    if !collect(pre_tokenizer, &mut patterns) {
        return None;
    }
    // Line ends may be written as themselves.
    let plain = |pattern: &str| pattern.replace('\r', r"\r").replace('\n', r"\n");
    let patterns: Vec<String> = patterns.into_iter().map(plain).collect();
    let same = |s: &&Split| s.patterns == patterns.as_slice();
    let mut candidates = SPLITS.iter().filter(same);
    // Where merges are ignored or not makes the difference between rows of the same patterns. A file without the flag
    // may still mean a row with it (it only saves work where every token can be merged), but not the reverse.
    candidates.find(|s| s.ignore_merges == ignore_merges).map(|s| s.names[0])
}

/// The patterns of a pre-tokenizer in order, ending with the byte-level alphabet; false where it does something else.
fn collect<'a>(value: &'a Value, patterns: &mut Vec<&'a str>) -> bool {
    let flag = |name: &str, default: bool| value.get(name).and_then(Value::as_bool).unwrap_or(default);
    match value.get("type").and_then(Value::as_str) {
        Some("Sequence") => match value.get("pretokenizers").and_then(Value::as_array) {
            Some(steps) => steps.iter().all(|step| collect(step, patterns)),
            None => false,
        },
        Some("Split") => match value.pointer("/pattern/Regex").and_then(Value::as_str) {
            Some(pattern) => {
                let isolated = value.get("behavior").and_then(Value::as_str) == Some("Isolated");
                // Everything between the matches removed is the same as the matches isolated, where all is matched.
                let inverted =
                    value.get("behavior").and_then(Value::as_str) == Some("Removed") && flag("invert", false);
                patterns.push(pattern);
                isolated || inverted
            }
            None => false,
        },
        Some("Digits") => {
            patterns.push(r"\p{N}");
            flag("individual_digits", false)
        }
        Some("Punctuation") if value.get("behavior").and_then(Value::as_str) == Some("Contiguous") => {
            patterns.push(FALCON);
            true
        }
        Some("ByteLevel") => {
            if flag("use_regex", true) {
                patterns.push(GPT2);
            }
            !flag("add_prefix_space", true)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_again() {
        let mut names = std::collections::HashSet::new();
        for split in SPLITS {
            assert!(split.names.iter().all(|n| names.insert(n)), "{:?}", split.names);
            let name = name_of(&to_json(split), split.ignore_merges).unwrap();
            let found = by_name(name).unwrap();
            assert_eq!((found.patterns, found.ignore_merges), (split.patterns, split.ignore_merges));
            for pattern in split.patterns {
                tokenizers::utils::SysRegex::new(pattern).unwrap();
            }
        }
    }

    #[test]
    fn other_pre_tokenizers_have_no_name() {
        assert_eq!(name_of(&serde_json::json!({"type": "Whitespace"}), false), None);
        assert_eq!(name_of(&serde_json::json!({"type": "ByteLevel", "add_prefix_space": true}), false), None);
        let gpt2 = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true});
        assert_eq!(name_of(&gpt2, false), Some("gpt-2"));
    }
}
