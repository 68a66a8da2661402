//! SentencePiece's BPE as GGUF stores it: pieces with scores and no list of merges.

use super::special::{Piece, Special};
use super::vocab::{TokenKind, Vocabulary, byte_of};
use crate::Result;
use crate::error::Origin;
use std::collections::BinaryHeap;

/// Encodes by merging whichever adjacent pair makes the piece of highest score, the leftmost of equals, until no pair
/// makes a piece; what is no piece then becomes its bytes.
#[derive(Clone, Debug)]
pub(super) struct SentencePiece {
    pub(super) scores: Vec<f32>,
    pub(super) prefix: Prefix,
    bytes: Box<[Option<u32>; 256]>,
    unknown: Option<u32>,
    special: Special,
}

/// Where a space is put before text.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Prefix {
    Never,
    /// At the beginning only.
    First,
    /// At the beginning, and behind each special token.
    Always,
}

/// A stretch of text that may still merge with its neighbours. `len` is zero once it was merged into its left.
struct Symbol {
    start: usize,
    len: usize,
    previous: usize,
    next: usize,
}

const NONE: usize = usize::MAX;

/// Two neighbours that would make a piece.
#[derive(PartialEq)]
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Their length when the pair was found: it is out of date when they have another now.
    len: usize,
}

impl Eq for Pair {}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The greatest is merged first: highest score, then leftmost.
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl SentencePiece {
    /// `scores` has one finite number per token.
    pub(super) fn new(
        origin: &Origin,
        vocab: &Vocabulary,
        scores: Vec<f32>,
        prefix: Prefix,
        unknown: Option<u32>,
    ) -> Result<SentencePiece> {
        let mut bytes = Box::new([None; 256]);
        for (id, (text, kind)) in vocab.tokens.iter().zip(&vocab.kinds).enumerate() {
            let id = id as u32;
            if *kind == TokenKind::Byte {
                let byte = byte_of(text).ok_or_else(|| {
                    let problem = format!("token {id} is of the byte kind, but {text:?} is not <0x00> to <0xFF>");
                    origin.tokenizer("metadata tokenizer.ggml.tokens", problem)
                })?;
                bytes[byte as usize] = Some(id);
            }
        }
        // A vocabulary without kinds still has its bytes.
        for (byte, id) in bytes.iter_mut().enumerate() {
            *id = id.or_else(|| vocab.ids.get(&format!("<0x{byte:02X}>")).copied());
        }
        Ok(SentencePiece { scores, prefix, bytes, unknown, special: Special::new(origin, vocab)? })
    }

    pub(super) fn encode(&self, vocab: &Vocabulary, text: &str, out: &mut Vec<u32>) -> std::result::Result<(), String> {
        for (i, piece) in self.special.split(text).into_iter().enumerate() {
            match piece {
                Piece::Token(id) => out.push(id),
                Piece::Text(text) => {
                    let space = self.prefix == Prefix::Always || (self.prefix == Prefix::First && i == 0);
                    self.encode_plain(vocab, text, space, out)?;
                }
            }
        }
        Ok(())
    }

    /// Text without special tokens.
    fn encode_plain(
        &self,
        vocab: &Vocabulary,
        text: &str,
        space: bool,
        out: &mut Vec<u32>,
    ) -> std::result::Result<(), String> {
        let prefix = if space { "▁" } else { "" };
        let text = format!("{prefix}{}", text.replace(' ', "▁"));
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(i, (start, c))| Symbol { start, len: c.len_utf8(), previous: i.wrapping_sub(1), next: i + 1 })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = NONE;
        }
        let mut queue = BinaryHeap::new();
        let propose = |symbols: &[Symbol], left: usize, right: usize, queue: &mut BinaryHeap<Pair>| {
            if left == NONE || right == NONE {
                return;
            }
            let len = symbols[left].len + symbols[right].len;
            let start = symbols[left].start;
            if let Some(id) = vocab.ids.get(&text[start..start + len]) {
                queue.push(Pair { score: self.scores[*id as usize], left, right, len });
            }
        };
        for right in 1..symbols.len() {
            propose(&symbols, right - 1, right, &mut queue);
        }
        while let Some(Pair { left, right, len, .. }) = queue.pop() {
            let (l, r) = (symbols[left].len, symbols[right].len);
            if l == 0 || r == 0 || l + r != len {
                continue;
            }
            symbols[left].len = len;
            symbols[right].len = 0;
            let next = symbols[right].next;
            symbols[left].next = next;
            if next != NONE {
                symbols[next].previous = left;
            }
            propose(&symbols, symbols[left].previous, left, &mut queue);
            propose(&symbols, left, next, &mut queue);
        }
        for symbol in symbols.iter().filter(|s| s.len > 0) {
            let piece = &text[symbol.start..symbol.start + symbol.len];
            match vocab.ids.get(piece) {
                Some(id) => out.push(*id),
                None => self.encode_bytes(piece, out)?,
            }
        }
        Ok(())
    }

    fn encode_bytes(&self, piece: &str, out: &mut Vec<u32>) -> std::result::Result<(), String> {
        let bytes: Option<Vec<u32>> = piece.bytes().map(|b| self.bytes[b as usize]).collect();
        match (bytes, self.unknown) {
            (Some(bytes), _) => out.extend(bytes),
            (None, Some(unknown)) => out.push(unknown),
            (None, None) => {
                return Err(format!(
                    "no token for {piece:?}: the vocabulary has neither its bytes nor an unknown token"
                ));
            }
        }
        Ok(())
    }
}
