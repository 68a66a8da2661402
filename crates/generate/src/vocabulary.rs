use imaginal_files::Tokenizer;

use crate::{Error, Result};

/// What streaming needs of a tokenizer; tests can fake it.
pub trait Vocabulary {
    /// How many tokens it has. A model may have more, which are never chosen.
    fn len(&self) -> usize;

    /// Whether it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of a token, perhaps a part of a character.
    fn bytes(&self, id: u32) -> Vec<u8>;

    /// Whether the token ends the text.
    fn is_end(&self, id: u32) -> bool;

    /// Whether the token steers the model and is no text.
    fn is_special(&self, id: u32) -> bool;
}

impl Vocabulary for Tokenizer {
    fn len(&self) -> usize {
        self.vocab_size()
    }

    fn bytes(&self, id: u32) -> Vec<u8> {
        self.token_bytes(id).unwrap_or_default()
    }

    fn is_end(&self, id: u32) -> bool {
        self.eos().contains(&id)
    }

    fn is_special(&self, id: u32) -> bool {
        self.kind(id).is_some_and(|k| k.is_special())
    }
}

/// The tokens of a prompt, with what the tokenizer begins a text with. Where that is nothing at all, the token that ends
/// a text begins one.
///
/// # Errors
/// The tokenizer cannot encode the text, or has no token to begin with.
pub fn encode_prompt(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let mut ids = tokenizer.encode(text, true)?;
    // A text that goes on must not have been ended.
    if tokenizer.adds_eos() && ids.len() > 1 && ids.last().copied() == tokenizer.eos_id() {
        ids.pop();
    }
    if ids.is_empty() {
        ids.extend(tokenizer.bos().or(tokenizer.eos_id()));
    }
    if ids.is_empty() { Err(Error::EmptyPrompt) } else { Ok(ids) }
}
