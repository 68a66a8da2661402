//! Sampling, sessions and streaming text.
//!
//! A [`Session`] holds a model's state and the tokens that it has seen. [`Session::stream`] feeds a prompt (what the
//! state has seen already is not fed again) and yields text as it comes: always whole characters, never a part of a
//! stop string. Nothing here needs threads or a clock, so that it runs in a browser.
//!
//! ```no_run
//! use imaginal_generate::{Event, GenerateOptions, Session, encode_prompt};
//! use imaginal_models::{LoadOptions, Loaded};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let Loaded { model, tokenizer, .. } = Loaded::open("model.gguf", &LoadOptions::default())?;
//! let tokenizer = tokenizer.ok_or("the model has no tokenizer")?;
//! let mut session = Session::new(&model)?;
//! let prompt = encode_prompt(&tokenizer, "pub fn parse(")?;
//! for event in session.stream(&prompt, Some(&tokenizer), GenerateOptions::default())? {
//!     match event? {
//!         Event::Prompt { .. } => {}
//!         Event::Token { text, .. } => print!("{text}"),
//!         Event::End { text, summary } => println!("{text}\n{} tokens", summary.generated_tokens),
//!     }
//! }
//! # Ok(())
//! # }
//! ```

pub mod chat;
mod clock;
mod error;
mod sampler;
mod session;
mod stop;
mod utf8;
mod vocabulary;

pub use chat::{ChatTemplate, Conversation};
pub use error::{Error, Result};
pub use imaginal_models::LanguageModel;
pub use sampler::{Sampler, SamplerOptions};
pub use session::{Cancel, Event, Finish, GenerateOptions, Session, Stream, Summary};
pub use stop::StopStrings;
pub use utf8::Utf8Stream;
pub use vocabulary::{Vocabulary, encode_prompt};
