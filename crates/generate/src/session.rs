use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use imaginal_models::LanguageModel;
use imaginal_nn::State;
use imaginal_tensor::Tensor;

use crate::clock::Clock;
use crate::{Error, Result, Sampler, SamplerOptions, StopStrings, Utf8Stream, Vocabulary};

/// What to generate, and when to stop.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// At most this many tokens; `None` goes on until something else ends the text.
    pub max_tokens: Option<usize>,
    /// Strings that end the text; they are not part of it.
    pub stop: Vec<String>,
    /// Go on after tokens that end the text.
    pub ignore_end: bool,
    /// Show tokens that steer the model.
    pub special: bool,
    /// How many tokens of the prompt are fed at once.
    pub chunk: usize,
    /// How tokens are chosen.
    pub sampler: SamplerOptions,
    /// Lets somebody else end the text.
    pub cancel: Cancel,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        GenerateOptions {
            max_tokens: None,
            stop: Vec::new(),
            ignore_end: false,
            special: false,
            chunk: 512,
            sampler: SamplerOptions::default(),
            cancel: Cancel::default(),
        }
    }
}

/// A switch that ends a text under way. Clones are the same switch.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends the text before its next token.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has been used.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What happens while text is generated.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A part of the prompt has been fed.
    Prompt {
        /// Tokens of the prompt that the state has seen.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token was chosen.
    Token {
        /// The token.
        id: u32,
        /// The text that is certain now: whole characters, nothing of a stop string. Often empty.
        text: String,
    },
    /// The text has ended. The last event.
    End {
        /// Text that had been held back.
        text: String,
        /// How it went.
        summary: Summary,
    },
}

/// Why a text ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, with this token.
    End(u32),
    /// It has as many tokens as asked for.
    Length,
    /// It came to this string.
    Stop(String),
    /// The model has no room for more.
    Context,
    /// Somebody cancelled it.
    Cancelled,
}

/// How it went.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Why the text ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that the state had seen before and that were not fed again.
    pub reused_tokens: usize,
    /// Tokens generated, one that ended the text not among them.
    pub generated_tokens: usize,
    /// Time to feed the prompt; `None` where there is no clock.
    pub prompt_time: Option<Duration>,
    /// Time to generate; `None` where there is no clock.
    pub generation_time: Option<Duration>,
}

/// A model's state and the tokens it has seen.
#[derive(Debug)]
pub struct Session<'m, M: LanguageModel> {
    model: &'m M,
    state: M::State,
    tokens: Vec<u32>,
}

impl<'m, M: LanguageModel> Session<'m, M> {
    /// A session that has seen nothing.
    ///
    /// # Errors
    /// The state does not fit in memory.
    pub fn new(model: &'m M) -> Result<Self> {
        Ok(Session { model, state: model.state()?, tokens: Vec::new() })
    }

    /// The tokens that the state has seen.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// An independent session that goes on from here.
    pub fn fork(&self) -> Session<'m, M> {
        Session { model: self.model, state: self.state.clone(), tokens: self.tokens.clone() }
    }

    /// Feeds tokens and returns the logits of the token after the last, as [`LanguageModel::next`] has them.
    ///
    /// # Errors
    /// There are none, one is not in the vocabulary, or the device fails; the session has seen them up to a failure.
    pub fn feed(&mut self, tokens: &[u32], chunk: usize) -> Result<Tensor> {
        let mut logits = None;
        for part in tokens.chunks(chunk.max(1)) {
            logits = Some(self.model.next(part, &mut self.state)?);
            self.tokens.extend_from_slice(part);
        }
        logits.ok_or(Error::EmptyPrompt)
    }

    /// Goes back to the first `n` tokens, feeding again those that the state could not keep.
    ///
    /// # Errors
    /// It has not seen as many, or the device fails.
    pub fn rewind(&mut self, n: usize) -> Result<()> {
        let again = self.tokens.get(..n).map(<[u32]>::to_vec).ok_or_else(|| Error::Option {
            name: "rewind",
            what: format!("{n} is more than the {} tokens of the session", self.tokens.len()),
        })?;
        let at = self.back_to(n)?;
        if at < n {
            self.feed(&again[at..], 512)?;
        }
        Ok(())
    }

    /// Goes back to at most `n` tokens, as near as the state can.
    fn back_to(&mut self, n: usize) -> Result<usize> {
        let at = self.state.rewind_point(n);
        self.state.rewind(at)?;
        self.tokens.truncate(at);
        Ok(at)
    }

    /// Generates text after `prompt`. Whatever the session has seen that the prompt begins with is kept, the rest is
    /// forgotten. Without a vocabulary tokens have no text and none of them ends it.
    ///
    /// Nothing is computed before the stream is asked for its first event; it may be dropped at any time.
    ///
    /// # Errors
    /// An option out of range, an empty prompt, or one that fills the model's context.
    pub fn stream<'s>(
        &'s mut self,
        prompt: &[u32],
        vocabulary: Option<&'s dyn Vocabulary>,
        options: GenerateOptions,
    ) -> Result<Stream<'s, 'm, M>> {
        let mut sampler = Sampler::new(options.sampler.clone())?;
        if prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if let Some(context) = self.model.context()
            && prompt.len() >= context
        {
            return Err(Error::PromptTooLong { tokens: prompt.len(), context });
        }
        prompt.iter().for_each(|&t| sampler.accept(t));
        // The last token is always fed, for the logits after it.
        let shared = self.tokens.iter().zip(&prompt[..prompt.len() - 1]).take_while(|(a, b)| a == b).count();
        let reused = self.back_to(shared)?;
        Ok(Stream {
            session: self,
            vocabulary,
            prompt: prompt.to_vec(),
            sampler,
            utf8: Utf8Stream::default(),
            stops: StopStrings::new(&options.stop),
            options,
            logits: None,
            pending: None,
            reused,
            generated: 0,
            clock: Clock::start(),
            prompt_time: None,
            done: false,
        })
    }

    /// Generates the whole text at once.
    ///
    /// # Errors
    /// As [`Session::stream`], or the device fails.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        vocabulary: Option<&dyn Vocabulary>,
        options: GenerateOptions,
    ) -> Result<(String, Vec<u32>, Summary)> {
        let (mut all, mut ids) = (String::new(), Vec::new());
        let mut last = None;
        for event in self.stream(prompt, vocabulary, options)? {
            match event? {
                Event::Prompt { .. } => {}
                Event::Token { id, text } => {
                    ids.push(id);
                    all.push_str(&text);
                }
                Event::End { text, summary } => {
                    all.push_str(&text);
                    last = Some(summary);
                }
            }
        }
        // A stream ends with its summary or with an error, which has been returned.
        last.map(|summary| (all, ids, summary)).ok_or(Error::EmptyPrompt)
    }
}

/// A text under way; see [`Session::stream`]. Ends with [`Event::End`] or an error.
pub struct Stream<'s, 'm, M: LanguageModel> {
    session: &'s mut Session<'m, M>,
    vocabulary: Option<&'s dyn Vocabulary>,
    options: GenerateOptions,
    prompt: Vec<u32>,
    sampler: Sampler,
    utf8: Utf8Stream,
    stops: StopStrings,
    /// After the last token fed, when the prompt is through.
    logits: Option<Tensor>,
    /// Chosen, not fed yet.
    pending: Option<u32>,
    reused: usize,
    generated: usize,
    clock: Clock,
    prompt_time: Option<Duration>,
    done: bool,
}

impl<M: LanguageModel> Stream<'_, '_, M> {
    fn end(&mut self, finish: Finish, mut text: String) -> Event {
        self.done = true;
        if !matches!(finish, Finish::Stop(_)) {
            // What is held back may still complete a stop string together with what UTF-8 held back.
            let (more, _) = self.stops.push(&self.utf8.finish());
            text.push_str(&more);
            text.push_str(&self.stops.finish());
        }
        let total = self.clock.elapsed();
        let summary = Summary {
            finish,
            prompt_tokens: self.prompt.len(),
            reused_tokens: self.reused,
            generated_tokens: self.generated,
            prompt_time: self.prompt_time.or(total),
            generation_time: total.zip(self.prompt_time).map(|(all, prompt)| all.saturating_sub(prompt)),
        };
        Event::End { text, summary }
    }

    fn step(&mut self) -> Result<Event> {
        if self.options.cancel.is_cancelled() {
            return Ok(self.end(Finish::Cancelled, String::new()));
        }
        let seen = self.session.tokens.len();
        if seen < self.prompt.len() {
            let end = (seen + self.options.chunk.max(1)).min(self.prompt.len());
            self.logits = Some(self.session.feed(&self.prompt[seen..end], self.options.chunk)?);
            if end == self.prompt.len() {
                // A chat goes on from its prompt again and again: keep the way back to here.
                self.session.state.mark();
                self.prompt_time = self.clock.elapsed();
            }
            return Ok(Event::Prompt { done: end, total: self.prompt.len() });
        }
        if self.options.max_tokens.is_some_and(|most| self.generated >= most) {
            return Ok(self.end(Finish::Length, String::new()));
        }
        if self.session.model.context().is_some_and(|c| self.prompt.len() + self.generated >= c) {
            return Ok(self.end(Finish::Context, String::new()));
        }
        if let Some(token) = self.pending.take() {
            self.logits = Some(self.session.feed(&[token], 1)?);
        }
        let logits = self.logits.as_ref().ok_or(Error::EmptyPrompt)?.as_slice::<f32>()?;
        let known = self.vocabulary.map_or(logits.len(), |v| v.len().min(logits.len()));
        let id = self.sampler.sample(&logits[..known])?;
        self.sampler.accept(id);
        let Some(vocabulary) = self.vocabulary else {
            self.generated += 1;
            self.pending = Some(id);
            return Ok(Event::Token { id, text: String::new() });
        };
        if vocabulary.is_end(id) && !self.options.ignore_end {
            return Ok(self.end(Finish::End(id), String::new()));
        }
        self.generated += 1;
        self.pending = Some(id);
        if vocabulary.is_special(id) && !self.options.special {
            return Ok(Event::Token { id, text: String::new() });
        }
        let (text, stop) = self.stops.push(&self.utf8.push(&vocabulary.bytes(id)));
        Ok(match stop {
            Some(stop) => self.end(Finish::Stop(stop), text),
            None => Event::Token { id, text },
        })
    }
}

impl<M: LanguageModel> Iterator for Stream<'_, '_, M> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let event = self.step();
        self.done |= event.is_err();
        Some(event)
    }
}

#[cfg(test)]
mod tests;
