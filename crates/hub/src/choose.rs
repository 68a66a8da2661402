//! Which files of a repository are the model that a name asks for.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// A file of a repository, on the hub or in the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its path in the repository.
    pub path: String,
    /// Its length, where it is known.
    pub size: Option<u64>,
    /// SHA-256 of its content, where the hub keeps it as a large file.
    pub sha256: Option<String>,
    /// SHA-1 of its content as a git object.
    pub git: Option<String>,
}

/// The files of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A GGUF file, or all parts of one, the first of which is opened.
    Gguf {
        /// The quantization as the file's name has it, upper case.
        label: Option<String>,
        /// The parts in order.
        parts: Vec<String>,
        /// Parts that there should be.
        count: usize,
    },
    /// `config.json` and what belongs to it; the folder is opened.
    Safetensors {
        /// Configuration and tokenizer, and the index if there is one.
        files: Vec<String>,
        /// The weights, where no index names them.
        weights: Vec<String>,
    },
    /// A single file that the name names.
    File(String),
}

/// Quantizations in the order in which they are taken when none is named: good for their size first.
const PREFERRED: &[&str] = &[
    "Q4_K_M",
    "Q4_K_XL",
    "Q4_K_L",
    "Q4_K_S",
    "Q4_K",
    "MXFP4",
    "MXFP4_MOE",
    "NVFP4",
    "IQ4_NL",
    "IQ4_XS",
    "Q4_0",
    "Q4_1",
    "Q5_K_M",
    "Q5_K_S",
    "Q5_K",
    "Q5_0",
    "Q5_1",
    "Q6_K",
    "Q8_0",
    "Q3_K_L",
    "Q3_K_M",
    "Q3_K_S",
    "BF16",
    "F16",
    "FP16",
    "F32",
    "FP32",
];

/// The index of a model in shards.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
const WHOLE: &str = "model.safetensors";

/// What belongs to a model besides its weights.
const COMPANIONS: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tiktoken.model",
    "qwen.tiktoken",
    "rwkv_vocab_v20230424.txt",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    // Sentence transformers: how hidden states become an embedding.
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];

impl Choice {
    /// The files that are known by name; the shards of an index come on top.
    pub fn files(&self) -> Vec<&str> {
        let files = match self {
            Choice::Gguf { parts, .. } => parts.iter().collect::<Vec<_>>(),
            Choice::Safetensors { files, weights } => files.iter().chain(weights).collect(),
            Choice::File(file) => vec![file],
        };
        files.into_iter().map(String::as_str).collect()
    }

    /// What to write after the colon of a name to get this model.
    pub fn selector(&self) -> &str {
        match self {
            Choice::Gguf { label: Some(label), .. } => label,
            Choice::Gguf { parts, .. } => parts.first().map_or("", String::as_str),
            Choice::Safetensors { .. } => "safetensors",
            Choice::File(file) => file,
        }
    }
}

/// All models of a repository: GGUF files by name, then the safetensors set.
pub fn models(entries: &[Entry]) -> Vec<Choice> {
    let mut all = gguf(entries);
    all.extend(safetensors(entries));
    all
}

/// The model that `selector` names among the files, or the sensible one without; `name` is what the user wrote.
///
/// # Errors
/// [`Error::NoSuchModel`] and [`Error::Ambiguous`], which list what there is.
pub fn choose(entries: &[Entry], name: &str, repo: &str, selector: Option<&str>) -> Result<Choice> {
    let all = models(entries);
    let names = |choices: &mut dyn Iterator<Item = &Choice>| -> Vec<String> {
        let choices: Vec<&Choice> = choices.collect();
        let once = |c: &Choice| choices.iter().filter(|o| o.selector() == c.selector()).count() == 1;
        let text = |c: &&Choice| match once(c) {
            true => format!("{repo}:{}", c.selector()),
            false => format!("{repo}:{}", c.files().first().unwrap_or(&"")),
        };
        choices.iter().map(text).collect()
    };
    let nothing = |problem: &str| {
        let mut there = names(&mut all.iter());
        if there.is_empty() {
            there = entries.iter().map(|e| e.path.clone()).collect();
        }
        Err(Error::NoSuchModel { name: name.to_owned(), problem: problem.to_owned(), there })
    };
    let Some(selector) = selector else {
        let usable =
            || all.iter().filter(|c| !matches!(c, Choice::Gguf { parts, .. } if parts.iter().all(|p| aside(p))));
        for label in PREFERRED {
            let mut found = usable().filter(|c| matches!(c, Choice::Gguf { label: Some(l), .. } if l == label));
            match (found.next(), found.next()) {
                (Some(one), None) => return Ok(one.clone()),
                (Some(_), Some(_)) => {
                    let choices = names(&mut usable().filter(|c| c.selector() == *label));
                    return Err(Error::Ambiguous { name: name.to_owned(), choices });
                }
                _ => {}
            }
        }
        let mut rest = usable().filter(|c| matches!(c, Choice::Gguf { .. }));
        return match (rest.next(), rest.next()) {
            (Some(one), None) => Ok(one.clone()),
            (Some(_), Some(_)) => Err(Error::Ambiguous { name: name.to_owned(), choices: names(&mut usable()) }),
            (None, _) => match usable().find(|c| matches!(c, Choice::Safetensors { .. })) {
                Some(set) => Ok(set.clone()),
                None => nothing(missing(entries)),
            },
        };
    };
    // A file by its path, then by its name in any folder, then a quantization.
    let path = |c: &&Choice| c.files().iter().any(|f| *f == selector || f.strip_suffix(".gguf") == Some(selector));
    if let Some(found) = all.iter().filter(|c| matches!(c, Choice::Gguf { .. })).find(path) {
        return Ok(found.clone());
    }
    if selector.eq_ignore_ascii_case("safetensors") {
        return match all.iter().find(|c| matches!(c, Choice::Safetensors { .. })) {
            Some(set) => Ok(set.clone()),
            None => nothing(missing(entries)),
        };
    }
    if entries.iter().any(|e| e.path == selector) {
        return Ok(Choice::File(selector.to_owned()));
    }
    let base = |file: &str| file.rsplit('/').next().unwrap_or(file).to_lowercase();
    let wanted = selector.to_lowercase();
    let by_name = |c: &&Choice| {
        matches!(c, Choice::Gguf { .. })
            && c.files().iter().any(|f| base(f) == wanted || base(f).strip_suffix(".gguf") == Some(&wanted))
    };
    let by_label = |c: &&Choice| matches!(c, Choice::Gguf { label: Some(l), parts, .. } if l.eq_ignore_ascii_case(selector) && !aside(&parts[0]));
    let found: Vec<&Choice> = match all.iter().filter(by_name).collect::<Vec<_>>() {
        none if none.is_empty() => all.iter().filter(by_label).collect(),
        some => some,
    };
    match found[..] {
        [] => nothing("the repository has no such file or quantization"),
        [one] => Ok(one.clone()),
        _ => Err(Error::Ambiguous { name: name.to_owned(), choices: names(&mut found.into_iter()) }),
    }
}

fn missing(entries: &[Entry]) -> &'static str {
    match entries.iter().any(|e| e.path.ends_with(".safetensors")) {
        true => "no GGUF file, and no config.json with model.safetensors beside it",
        false => "no GGUF file and no safetensors, which are the formats that are read",
    }
}

/// GGUF files that are no language model of their own: projectors of images, and statistics for quantization.
fn aside(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_lowercase();
    name.contains("mmproj") || name.contains("imatrix")
}

fn gguf(entries: &[Entry]) -> Vec<Choice> {
    // By the name without its number, so that parts come together, sorted by number.
    let mut groups: BTreeMap<(String, usize), BTreeMap<usize, String>> = BTreeMap::new();
    for entry in entries.iter().filter(|e| e.path.to_lowercase().ends_with(".gguf")) {
        let stem = &entry.path[..entry.path.len() - ".gguf".len()];
        let (key, number) = match split_name(stem) {
            Some((stem, number, count)) => ((stem.to_owned(), count), number),
            None => ((stem.to_owned(), 0), 0),
        };
        groups.entry(key).or_default().insert(number, entry.path.clone());
    }
    let choice = |((stem, count), parts): ((String, usize), BTreeMap<usize, String>)| Choice::Gguf {
        label: label(&stem),
        parts: parts.into_values().collect(),
        count: count.max(1),
    };
    groups.into_iter().map(choice).collect()
}

/// `name-00002-of-00003` is part 2 of 3 of `name`.
fn split_name(stem: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (rest, number) = rest.rsplit_once('-')?;
    let five = |text: &str| (text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?;
    let (number, count) = (five(number)?, five(count)?);
    (1..=count).contains(&number).then_some((rest, number, count))
}

/// The quantization in a file's name: the last part of the path that begins like one.
fn label(stem: &str) -> Option<String> {
    let parts = stem.rsplit(['/', '-', '.', ' ']);
    parts.map(str::to_ascii_uppercase).find_map(|part| {
        // Some join the name with an underscore: `model_Q4_K_M`.
        let starts = std::iter::once(0).chain(part.match_indices('_').map(|(at, _)| at + 1));
        starts.map(|at| &part[at..]).find(|rest| is_label(rest)).map(str::to_owned)
    })
}

fn is_label(text: &str) -> bool {
    if matches!(text, "F16" | "BF16" | "FP16" | "F32" | "FP32" | "F64" | "MXFP4" | "MXFP4_MOE" | "NVFP4") {
        return true;
    }
    let rest = ["IQ", "TQ", "Q"].iter().find_map(|kind| text.strip_prefix(kind));
    rest.is_some_and(|rest| {
        let mut rest = rest.chars();
        rest.next().is_some_and(|c| c.is_ascii_digit()) && matches!(rest.next(), None | Some('_'))
    })
}

fn safetensors(entries: &[Entry]) -> Option<Choice> {
    let has = |path: &str| entries.iter().any(|e| e.path == path);
    if !has("config.json") {
        return None;
    }
    let mut files: Vec<String> = COMPANIONS.iter().filter(|f| has(f)).map(|f| f.to_string()).collect();
    // `1_Pooling/config.json` and its kin, which modules.json names.
    let module = |path: &str| {
        let numbered = |folder: &str| folder.starts_with(|c: char| c.is_ascii_digit()) && folder.contains('_');
        matches!(path.split_once('/'), Some((folder, "config.json" | "model.safetensors")) if numbered(folder))
    };
    if has("modules.json") {
        files.extend(entries.iter().map(|e| &e.path).filter(|p| module(p)).cloned());
    }
    // As the loader does: a whole file comes before an index.
    if has(WHOLE) {
        return Some(Choice::Safetensors { files, weights: vec![WHOLE.to_owned()] });
    }
    if has(INDEX) {
        files.push(INDEX.to_owned());
        return Some(Choice::Safetensors { files, weights: Vec::new() });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(paths: &[&str]) -> Vec<Entry> {
        paths.iter().map(|p| Entry { path: p.to_string(), ..Entry::default() }).collect()
    }

    fn pick(paths: &[&str], selector: Option<&str>) -> std::result::Result<Vec<String>, String> {
        choose(&entries(paths), "n", "o/n", selector)
            .map(|c| c.files().into_iter().map(str::to_owned).collect())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn labels_are_found_where_people_put_them() {
        for (stem, want) in [
            ("Qwen3-4B-Q4_K_M", Some("Q4_K_M")),
            ("qwen2.5-7b-instruct-q5_0", Some("Q5_0")),
            ("model.IQ2_XXS", Some("IQ2_XXS")),
            ("Q8_0/model", Some("Q8_0")),
            ("model_q4_k_m", Some("Q4_K_M")),
            ("gpt-oss-20b-mxfp4", Some("MXFP4")),
            ("Llama-3-UD-Q4_K_XL", Some("Q4_K_XL")),
            ("BF16/m-bf16", Some("BF16")),
            ("Qwen3-4B", None),
            ("q-model", None),
        ] {
            assert_eq!(label(stem).as_deref(), want, "{stem}");
        }
    }

    #[test]
    fn the_default_is_q4_k_m_and_a_quantization_picks_all_its_parts() {
        let repo =
            ["m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-F16-00001-of-00002.gguf", "m-F16-00002-of-00002.gguf", "README.md"];
        assert_eq!(pick(&repo, None).unwrap(), ["m-Q4_K_M.gguf"]);
        assert_eq!(pick(&repo, Some("q8_0")).unwrap(), ["m-Q8_0.gguf"]);
        assert_eq!(pick(&repo, Some("f16")).unwrap(), repo[2..4]);
        assert_eq!(pick(&repo, Some("m-F16-00001-of-00002.gguf")).unwrap(), repo[2..4]);
        assert_eq!(pick(&repo, Some("m-q8_0")).unwrap(), ["m-Q8_0.gguf"]);
        assert_eq!(pick(&repo, Some("README.md")).unwrap(), ["README.md"]);
        let said = pick(&repo, Some("Q2_K")).unwrap_err();
        assert!(said.contains("o/n:Q4_K_M") && said.contains("o/n:F16"), "{said}");
        assert_eq!(pick(&["a-Q8_0.gguf", "mmproj-a-Q4_K_M.gguf"], None).unwrap(), ["a-Q8_0.gguf"]);
        assert_eq!(pick(&["only.gguf"], None).unwrap(), ["only.gguf"]);
        let parts = (1..=11).map(|i| format!("b-Q4_0-{i:05}-of-00011.gguf")).collect::<Vec<_>>();
        let mut shuffled: Vec<&str> = parts.iter().map(String::as_str).collect();
        shuffled.reverse();
        assert_eq!(pick(&shuffled, None).unwrap(), parts);
    }

    #[test]
    fn what_is_ambiguous_gives_a_list() {
        let repo = ["a-Q4_K_M.gguf", "b-Q4_K_M.gguf", "b-Q8_0.gguf"];
        let said = pick(&repo, None).unwrap_err();
        assert!(said.contains("o/n:a-Q4_K_M.gguf") && said.contains("o/n:b-Q4_K_M.gguf"), "{said}");
        assert!(pick(&repo, Some("Q4_K_M")).unwrap_err().contains("one of several"));
        assert_eq!(pick(&repo, Some("Q8_0")).unwrap(), ["b-Q8_0.gguf"]);
        assert!(pick(&["x.gguf", "y.gguf"], None).unwrap_err().contains("o/n:x.gguf"));
    }

    #[test]
    fn without_a_gguf_it_is_the_safetensors_set_and_nothing_else() {
        let repo = [
            "config.json",
            "tokenizer.json",
            "model.safetensors",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "README.md",
            "x/config.json",
        ];
        assert_eq!(pick(&repo, None).unwrap(), ["config.json", "tokenizer.json", "model.safetensors"]);
        let shards =
            ["config.json", "merges.txt", INDEX, "model-00001-of-00002.safetensors", "consolidated.safetensors"];
        assert_eq!(pick(&shards, None).unwrap(), ["config.json", "merges.txt", INDEX]);
        let sentence = [
            "config.json",
            "modules.json",
            "1_Pooling/config.json",
            "2_Dense/config.json",
            "onnx/config.json",
            "model.safetensors",
        ];
        assert_eq!(pick(&sentence, None).unwrap().len(), 5);
        assert!(pick(&["pytorch_model.bin", "config.json"], None).unwrap_err().contains("formats that are read"));
        let both = ["config.json", "model.safetensors", "m-Q8_0.gguf"];
        assert_eq!(pick(&both, None).unwrap(), ["m-Q8_0.gguf"]);
        assert_eq!(pick(&both, Some("safetensors")).unwrap(), both[..2]);
    }
}
