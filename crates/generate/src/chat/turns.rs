use imaginal_files::Tokenizer;

use super::{ChatTemplate, Conversation};
use crate::{Error, Result};

/// A conversation turn by turn, as tokens that go on from what the model has seen.
///
/// A template renders the whole conversation anew each turn. Where that text goes on from the last one and its answer,
/// only what is new is turned into tokens, so that a [`Session`](crate::Session) need not be fed the rest again; where
/// the template changes what was said (some leave out what the model thought), everything is.
#[derive(Clone, Debug)]
pub struct Turns {
    template: ChatTemplate,
    conversation: Conversation,
    /// What the model has seen, as text and as tokens.
    text: String,
    ids: Vec<u32>,
}

impl Turns {
    /// A conversation to go on with; it may have messages already.
    pub fn new(template: ChatTemplate, conversation: Conversation) -> Turns {
        Turns { template, conversation, text: String::new(), ids: Vec::new() }
    }

    /// The conversation so far.
    pub fn conversation(&self) -> &Conversation {
        &self.conversation
    }

    /// The text of the last prompt.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Adds what the user says; returns the prompt's tokens, all from the beginning.
    ///
    /// # Errors
    /// The template refuses the conversation, which then is as before, or renders nothing.
    pub fn ask(&mut self, tokenizer: &Tokenizer, content: &str) -> Result<Vec<u32>> {
        self.conversation.push("user", content);
        self.conversation.add_generation_prompt = true;
        let prompt = self.template.render(&self.conversation).and_then(|text| {
            let ids = self.encode(tokenizer, &text)?;
            if ids.is_empty() { Err(Error::EmptyPrompt) } else { Ok((text, ids)) }
        });
        match prompt {
            Ok((text, ids)) => {
                (self.text, self.ids) = (text, ids.clone());
                Ok(ids)
            }
            Err(error) => {
                self.conversation.messages.pop();
                Err(error)
            }
        }
    }

    /// Adds what the model answered: its text, and the tokens without the one that ended it.
    pub fn answer(&mut self, text: &str, ids: &[u32]) {
        self.conversation.push("assistant", text);
        self.text.push_str(text);
        self.ids.extend_from_slice(ids);
    }

    /// The tokens of a prompt. Special tokens are where text can be cut without changing the tokens of either side.
    fn encode(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
        if let Some(rest) = text.strip_prefix(&self.text).filter(|_| !self.ids.is_empty()) {
            let new = tokenizer.encode(rest, false)?;
            if new.first().and_then(|id| tokenizer.kind(*id)).is_some_and(|kind| kind.is_special()) {
                return Ok([&self.ids, new.as_slice()].concat());
            }
        }
        // The template writes the beginning and the end of a text itself.
        Ok(tokenizer.encode(text, false)?)
    }
}
