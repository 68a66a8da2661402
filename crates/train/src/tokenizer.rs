//! Training a byte-level BPE tokenizer (Sennrich et al. 2016; bytes as in GPT-2).
//!
//! Text is cut with the pattern that llama.cpp and transformers know as "qwen2": words with the sign before them,
//! single digits, runs of signs, line ends, spaces. There is no normalizer, so that every text comes back byte for byte.

use std::path::Path;

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, SplitDelimiterBehavior,
    TokenizerBuilder,
};

use crate::data::walk::{SourceFile, read_text};
use crate::rng::SplitMix64;
use crate::{Error, Result};

/// The one special token: it stands before every document, and so begins and ends a text. llama.cpp and transformers
/// know it by this name.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// The smallest vocabulary: every byte, and [`END_OF_TEXT`].
pub const SMALLEST_VOCAB: usize = 257;

/// The name under which other engines know the pattern.
pub const PRE_TOKENIZER: &str = "qwen2";

const PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Longer tokens would be spent on licence headers and rulers.
const LONGEST_TOKEN: usize = 24;

/// Trains a tokenizer of at most `vocab` tokens on a sample of at most `sample_bytes` of the files and writes it to
/// `path` (tokenizer.json). The same files and seed give the same tokenizer.
///
/// # Errors
/// The vocabulary is too small, a file cannot be read, or the tokenizer cannot be written.
pub fn train_tokenizer(files: &[SourceFile], vocab: usize, sample_bytes: u64, seed: u64, path: &Path) -> Result<()> {
    if vocab < SMALLEST_VOCAB {
        return Err(Error::option(
            "vocab",
            format!("{vocab} tokens are fewer than the {SMALLEST_VOCAB} that all bytes and {END_OF_TEXT} take"),
        ));
    }
    let texts = sample(files, sample_bytes, seed)?;
    let fail = |e: tokenizers::Error| Error::Tokenizer(e.to_string());
    let byte_level = ByteLevel::new(false, true, false);
    let split =
        Split::new(SplitPattern::Regex(PATTERN.to_owned()), SplitDelimiterBehavior::Isolated, false).map_err(fail)?;
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .max_token_length(Some(LONGEST_TOKEN))
        .build();
    let mut tokenizer =
        TokenizerBuilder::<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>::new()
            .with_model(BPE::default())
            .with_normalizer(None)
            .with_pre_tokenizer(Some(Sequence::new(vec![split.into(), byte_level.into()]).into()))
            .with_post_processor(None)
            .with_decoder(Some(byte_level.into()))
            .build()
            .map_err(fail)?;
    tokenizer.train(&mut trainer, texts.into_iter()).map_err(fail)?;
    let json = tokenizer.to_string(true).map_err(fail)?;
    Ok(imaginal_files::write_atomic(path, json.as_bytes())?)
}

/// Whole files in a random order until there are enough bytes.
fn sample(files: &[SourceFile], sample_bytes: u64, seed: u64) -> Result<Vec<String>> {
    let mut order: Vec<&SourceFile> = files.iter().collect();
    SplitMix64::new(seed, u64::from_le_bytes(*b"tokenize")).shuffle(&mut order);
    let (mut texts, mut bytes) = (Vec::new(), 0);
    for file in order {
        if bytes >= sample_bytes {
            break;
        }
        if let Some(text) = read_text(&file.path)? {
            bytes += text.len() as u64;
            texts.push(text);
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::walk::{Selection, walk};

    #[test]
    fn is_deterministic_and_learns_the_words() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..20 {
            let text =
                format!("pub fn parse_{i}(input: &str) -> Result<Token> {{\n    let token = input.next();\n}}\n");
            std::fs::write(dir.path().join(format!("f{i}.rs")), text.repeat(5)).unwrap();
        }
        let all = Selection { extensions: vec![], globs: vec![], max_file_bytes: 1 << 20 };
        let files = walk(&[dir.path().to_path_buf()], &all).unwrap().files;
        let path = dir.path().join("tokenizer.json");
        train_tokenizer(&files, 300, 1 << 20, 1, &path).unwrap();
        let first = std::fs::read_to_string(&path).unwrap();
        for _ in 0..3 {
            train_tokenizer(&files, 300, 1 << 20, 1, &path).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
        }
        let tokenizer: tokenizers::Tokenizer = first.parse().unwrap();
        assert_eq!(tokenizer.get_vocab_size(true), 300);
        assert_eq!(tokenizer.token_to_id(END_OF_TEXT), Some(0));
        let ids = tokenizer.encode("pub fn input(token: &str)", false).unwrap();
        assert!(ids.get_tokens().contains(&"Ġtoken".to_string()) || ids.get_tokens().contains(&"token".to_string()));
        for text in ["\u{1F980} naïve\r\n\r\n\t x = 12345;  \n", "'S 's\u{212A}", "\u{0}\u{FEFF}"] {
            let ids = tokenizer.encode(text, false).unwrap();
            assert_eq!(tokenizer.decode(ids.get_ids(), false).unwrap(), text);
        }
    }

    #[test]
    fn refuses_less_than_all_bytes() {
        let error = train_tokenizer(&[], 256, 1, 0, Path::new("x")).unwrap_err().to_string();
        assert!(error.contains("--vocab") && error.contains("257"), "{error}");
    }
}
