//! The tokens: text, kind, and the bytes each stands for.

use crate::Result;
use crate::error::Origin;
use std::collections::HashMap;

/// What a token is for. The numbers are those of `tokenizer.ggml.token_type`.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum TokenKind {
    /// Text.
    Normal = 1,
    /// Stands for text that no token fits.
    Unknown = 2,
    /// Steers the model (begin, end, roles) and stands for no text.
    Control = 3,
    /// Added by the model's makers, found in the text before anything else.
    UserDefined = 4,
    /// An id without a token.
    Unused = 5,
    /// A single byte, `<0x0A>`.
    Byte = 6,
}

impl TokenKind {
    pub(super) fn from_number(number: i32) -> TokenKind {
        match number {
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => TokenKind::Normal,
        }
    }

    /// Whether it steers the model instead of standing for text: decoding leaves it out when it skips special tokens.
    pub fn is_special(self) -> bool {
        matches!(self, TokenKind::Control | TokenKind::Unknown)
    }
}

/// How a normal token's text stands for bytes.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Spelling {
    /// GPT-2's alphabet: every byte is a printable character.
    ByteLevel,
    /// SentencePiece's: `▁` is a space.
    Metaspace,
    /// WordPiece's: `##` goes on with a word, everything else begins one.
    WordPiece,
    /// RWKV's: bytes as Python writes them, `\xe4`.
    Escaped,
    /// The text itself.
    Plain,
}

/// The tokens by id.
#[derive(Clone, Debug)]
pub(super) struct Vocabulary {
    pub(super) tokens: Vec<String>,
    pub(super) kinds: Vec<TokenKind>,
    pub(super) ids: HashMap<String, u32>,
    pub(super) spelling: Spelling,
}

impl Vocabulary {
    pub(super) fn new(tokens: Vec<String>, kinds: Vec<TokenKind>, spelling: Spelling) -> Vocabulary {
        // Where a text occurs twice the later id is the one text leads to, as in llama.cpp.
        let ids = tokens.iter().enumerate().map(|(i, t)| (t.clone(), i as u32)).collect();
        Vocabulary { tokens, kinds, ids, spelling }
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied()
    }

    pub(super) fn text(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    /// The bytes the token stands for; of a control token, its own text.
    pub(super) fn bytes(&self, id: u32) -> Option<Vec<u8>> {
        let (text, kind) = (self.text(id)?, self.kind(id)?);
        Some(match (kind, self.spelling) {
            (TokenKind::Byte, _) => byte_of(text).map_or_else(|| text.as_bytes().to_vec(), |b| vec![b]),
            (TokenKind::Unused, _) => Vec::new(),
            (TokenKind::Normal, Spelling::ByteLevel) => {
                let bytes: Option<Vec<u8>> = text.chars().map(byte_of_char).collect();
                // A text outside the alphabet (some vocabularies have them) stands for itself.
                bytes.unwrap_or_else(|| text.as_bytes().to_vec())
            }
            (TokenKind::Normal | TokenKind::UserDefined, Spelling::Metaspace) => text.replace('▁', " ").into_bytes(),
            (TokenKind::Normal, Spelling::WordPiece) => match text.strip_prefix("##") {
                Some(rest) => rest.as_bytes().to_vec(),
                None => format!(" {text}").into_bytes(),
            },
            (TokenKind::Normal, Spelling::Escaped) => {
                super::rwkv::unescape(text, true).unwrap_or_else(|| text.as_bytes().to_vec())
            }
            _ => text.as_bytes().to_vec(),
        })
    }

    /// `id`, when it is one of the vocabulary.
    pub(super) fn check(&self, origin: &Origin, field: &str, id: u32) -> Result<u32> {
        if (id as usize) < self.len() {
            return Ok(id);
        }
        let problem = format!(
            "{id} points past the vocabulary of {} tokens; convert the tokenizer again, or correct the id",
            self.len()
        );
        Err(origin.tokenizer(field, problem))
    }
}

/// The byte of `<0x0A>`.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_hexdigit())).then(|| u8::from_str_radix(hex, 16).ok()).flatten()
}

/// The byte that GPT-2's alphabet writes as `c`: printable Latin-1 stands for itself, the others for 256, 257, … in
/// order.
fn byte_of_char(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The character that GPT-2's alphabet writes `byte` as.
pub(super) fn char_of_byte(byte: u8) -> char {
    match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0..=0x20 => char::from_u32(0x100 + u32::from(byte)).unwrap_or_default(),
        0x7f..=0xa0 => char::from_u32(0x121 + u32::from(byte) - 0x7f).unwrap_or_default(),
        0xad => '\u{143}',
    }
}

/// Names that end a generation wherever they are in a vocabulary; files often name only one of them as the end.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<｜end▁of▁sentence｜>",
];

/// All ids that end a generation: those of the file, and those with a known name, `first` before the others.
pub(super) fn ends(vocab: &Vocabulary, first: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut ends: Vec<u32> = Vec::new();
    let named = ENDS.iter().filter_map(|name| vocab.ids.get(*name).copied());
    // A normal token may have such a name in a vocabulary of code; then it is text.
    let named = named.filter(|id| vocab.kind(*id) != Some(TokenKind::Normal));
    for id in first.into_iter().chain(named) {
        if !ends.contains(&id) {
            ends.push(id);
        }
    }
    // In vocabularies with calls, "<|end|>" ends a message, not the generation.
    let has = |name: &str| vocab.ids.get(name).is_some_and(|id| ends.contains(id));
    if (has("<|return|>") && has("<|call|>")) || (has("<|calls|>") && has("<|flush|>")) {
        let end = vocab.ids.get("<|end|>").copied();
        ends.retain(|id| Some(*id) != end);
    }
    ends
}

/// Whether the name is one of those that end a generation.
pub(super) fn is_end_name(text: &str) -> bool {
    ENDS.contains(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_that_of_byte_level() {
        use tokenizers::pre_tokenizers::byte_level::ByteLevel;
        let mut seen = [false; 256];
        for c in ByteLevel::alphabet() {
            let byte = byte_of_char(c).unwrap();
            assert_eq!(char_of_byte(byte), c);
            assert!(!std::mem::replace(&mut seen[byte as usize], true));
        }
        assert!(seen.iter().all(|s| *s));
        assert_eq!(byte_of_char('Ġ'), Some(b' '));
        assert_eq!(byte_of_char('Ċ'), Some(b'\n'));
        assert_eq!(byte_of_char(' '), None);
        assert_eq!(byte_of_char('ń'), None);
    }

    #[test]
    fn byte_tokens() {
        assert_eq!(byte_of("<0x0A>"), Some(10));
        assert_eq!(byte_of("<0xff>"), Some(255));
        for text in ["<0x+A>", "<0x0>", "0x0A", "<0x0AA>", "<0xé>"] {
            assert_eq!(byte_of(text), None, "{text}");
        }
    }
}
