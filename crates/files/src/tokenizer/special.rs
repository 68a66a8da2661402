//! Control and user-defined tokens, found in raw text before anything else.

use super::vocab::{TokenKind, Vocabulary};
use crate::Result;
use crate::error::Origin;
use aho_corasick::{AhoCorasick, MatchKind};

/// Finds the tokens, the longest where several begin.
#[derive(Clone, Debug, Default)]
pub(super) struct Special {
    /// With the id of each pattern.
    finder: Option<(AhoCorasick, Vec<u32>)>,
}

/// A stretch of text between special tokens, or one of them.
pub(super) enum Piece<'t> {
    Text(&'t str),
    Token(u32),
}

impl Special {
    pub(super) fn new(origin: &Origin, vocab: &Vocabulary) -> Result<Special> {
        let all = vocab.tokens.iter().zip(&vocab.kinds).enumerate();
        let special = |kind: TokenKind| kind.is_special() || kind == TokenKind::UserDefined;
        let patterns: Vec<(&str, u32)> = all
            .filter(|(_, (text, kind))| special(**kind) && !text.is_empty())
            .map(|(id, (text, _))| (text.as_str(), id as u32))
            .collect();
        if patterns.is_empty() {
            return Ok(Special::default());
        }
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(patterns.iter().map(|p| p.0))
            .map_err(|e| origin.tokenizer("tokens", format!("special tokens: {e}")))?;
        Ok(Special { finder: Some((finder, patterns.iter().map(|p| p.1).collect())) })
    }

    /// The text in pieces, in order; none of them is an empty text.
    pub(super) fn split<'t>(&self, text: &'t str) -> Vec<Piece<'t>> {
        let mut pieces = Vec::new();
        let mut rest = 0;
        if let Some((finder, ids)) = &self.finder {
            for found in finder.find_iter(text) {
                if found.start() > rest {
                    pieces.push(Piece::Text(&text[rest..found.start()]));
                }
                pieces.push(Piece::Token(ids[found.pattern().as_usize()]));
                rest = found.end();
            }
        }
        if rest < text.len() {
            pieces.push(Piece::Text(&text[rest..]));
        }
        pieces
    }
}
