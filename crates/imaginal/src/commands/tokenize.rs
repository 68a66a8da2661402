use std::io::Read;

use clap::Parser;
use imaginal_files::Tokenizer;
use serde_json::json;

use crate::cli::{Common, Failure};
use crate::find;

/// Turn text into token ids
#[derive(Parser, Debug)]
#[command(
    after_help = "Examples:\n  imaginal tokenize default 'fn main() {}'\n  imaginal tokenize model.gguf --json < notes.txt"
)]
pub struct Tokenize {
    /// A GGUF file, a Hugging Face directory, `default`, or the name of a pulled model
    model: String,
    /// The text; read from standard input if there is none
    text: Option<String>,
    /// Add the tokens that the model wants at the beginning and the end of a text
    #[arg(long)]
    special: bool,
}

/// The tokenizer of a model, or why there is none.
pub(crate) fn tokenizer<'a>(model: &str, tokenizer: Option<&'a Tokenizer>) -> Result<&'a Tokenizer, Failure> {
    tokenizer.ok_or_else(|| format!("{model} has no tokenizer: its file holds token ids only (no_vocab)").into())
}

impl Tokenize {
    /// Runs the verb.
    ///
    /// # Errors
    /// There is no such model, it has no tokenizer, or standard input is no UTF-8.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
        let tokenizer = find::tokenizer(&self.model)?;
        let text = match &self.text {
            Some(text) => text.clone(),
            None => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                text
            }
        };
        let ids = tokenizer.encode(&text, self.special)?;
        let piece = |id: u32| String::from_utf8_lossy(&tokenizer.token_bytes(id).unwrap_or_default()).into_owned();
        if common.json {
            let tokens: Vec<_> = ids.iter().map(|&id| json!({ "id": id, "text": piece(id) })).collect();
            println!("{}", json!({ "count": ids.len(), "ids": ids, "tokens": tokens }));
        } else {
            ids.iter().for_each(|&id| println!("{id:>8}  {:?}", piece(id)));
        }
        Ok(())
    }
}
