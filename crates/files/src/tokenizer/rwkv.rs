//! RWKV's "world" tokenizer: at each place the longest token that the text goes on with. Tokens are bytes, and need not
//! be UTF-8; files write them as Python does.

use super::special::{Piece, Special};
use super::vocab::{Spelling, TokenKind, Vocabulary};
use crate::Result;
use crate::error::Origin;
use aho_corasick::{AhoCorasick, MatchKind};

/// A trie of all tokens. Every byte begins with a token, so that the leftmost longest match is always at the place
/// reached.
#[derive(Clone, Debug)]
pub(super) struct Trie {
    finder: AhoCorasick,
    ids: Vec<u32>,
    special: Special,
}

impl Trie {
    pub(super) fn new(origin: &Origin, vocab: &Vocabulary) -> Result<Trie> {
        let mut tokens: Vec<(Vec<u8>, u32)> = Vec::new();
        for (id, kind) in vocab.kinds.iter().enumerate() {
            let id = id as u32;
            if matches!(kind, TokenKind::Normal | TokenKind::Byte) {
                let bytes = vocab.bytes(id).unwrap_or_default();
                if !bytes.is_empty() {
                    tokens.push((bytes, id));
                }
            }
        }
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.iter().map(|t| &t.0))
            .map_err(|e| origin.tokenizer("tokens", e))?;
        let ids = tokens.into_iter().map(|t| t.1).collect();
        Ok(Trie { finder, ids, special: Special::new(origin, vocab)? })
    }

    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) -> std::result::Result<(), String> {
        for piece in self.special.split(text) {
            let text = match piece {
                Piece::Token(id) => {
                    out.push(id);
                    continue;
                }
                Piece::Text(text) => text,
            };
            let mut at = 0;
            for found in self.finder.find_iter(text) {
                if found.start() != at {
                    break;
                }
                out.push(self.ids[found.pattern().as_usize()]);
                at = found.end();
            }
            if let Some(byte) = text.as_bytes().get(at) {
                return Err(format!("no token for the byte {byte:#04x}: the vocabulary lacks it"));
            }
        }
        Ok(())
    }
}

/// The tokens of `rwkv_vocab_v20230424.txt`: on each line an id, the token as Python writes a text or bytes, and its
/// length in bytes. Id 0, which the file leaves out, ends a text.
pub(super) fn vocabulary(origin: &Origin, text: &str) -> Result<Vocabulary> {
    let mut tokens = vec!["<s>".to_owned()];
    let mut kinds = vec![TokenKind::Control];
    for (i, line) in text.lines().enumerate() {
        let wrong = |problem: &str| origin.malformed(format_args!("line {}", i + 1), problem);
        let (id, rest) = line.split_once(' ').ok_or_else(|| wrong("no id, token and length"))?;
        let (literal, length) = rest.rsplit_once(' ').ok_or_else(|| wrong("no id, token and length"))?;
        if id.parse() != Ok(tokens.len()) {
            return Err(wrong(&format!("the id is {id}, and {} comes next", tokens.len())));
        }
        let bytes = literal_bytes(literal).ok_or_else(|| wrong("the token is no Python text or bytes"))?;
        if length.parse() != Ok(bytes.len()) {
            return Err(wrong(&format!("the token has {} bytes, not {length}", bytes.len())));
        }
        tokens.push(escape(&bytes));
        kinds.push(TokenKind::Normal);
    }
    Ok(Vocabulary::new(tokens, kinds, Spelling::Escaped))
}

/// The bytes of `'…'`, `"…"`, `b'…'` or `b"…"`.
fn literal_bytes(literal: &str) -> Option<Vec<u8>> {
    let (binary, quoted) = literal.strip_prefix('b').map_or((false, literal), |l| (true, l));
    let quote = quoted.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = quoted.strip_prefix(quote)?.strip_suffix(quote)?;
    unescape(inner, binary)
}

/// The bytes that an escaped token stands for; `None` where an escape is cut off. `\xe9` is the byte in bytes, but the
/// letter in a text.
pub(super) fn unescape(text: &str, binary: bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let (code, escaped) = match c {
            '\\' => match chars.next()? {
                't' => ('\t'.into(), true),
                'n' => ('\n'.into(), true),
                'r' => ('\r'.into(), true),
                'x' => (hex(&mut chars, 2)?, true),
                'u' if !binary => (hex(&mut chars, 4)?, true),
                'U' if !binary => (hex(&mut chars, 8)?, true),
                other => (other.into(), false),
            },
            c => (c.into(), false),
        };
        match u8::try_from(code) {
            Ok(byte) if binary && escaped => out.push(byte),
            _ => out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Some(out)
}

fn hex(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<u32> {
    (0..digits).try_fold(0, |all, _| Some(all * 16 + chars.next()?.to_digit(16)?))
}

/// Bytes as Python writes them.
fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\\"", "\"").replace("\\'", "'")
}
