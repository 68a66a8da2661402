/// What this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why text cannot be generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option outside its range.
    #[error("{name}: {what}")]
    Option {
        /// The option.
        name: &'static str,
        /// What is wrong with its value.
        what: String,
    },
    /// A prompt without tokens.
    #[error("the prompt is empty, and the tokenizer has no token to begin with; give at least one token")]
    EmptyPrompt,
    /// A prompt that leaves no room for an answer.
    #[error("the prompt has {tokens} tokens, the model has room for {context}; shorten it")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens the model was made for.
        context: usize,
    },
    /// The model computed something that is no number, or ruled every token out.
    #[error("the model's logits after {position} tokens are {what}; its weights are damaged, or training diverged")]
    Logits {
        /// How many tokens it had seen.
        position: usize,
        /// What they are.
        what: &'static str,
    },
    /// A chat template that is no Jinja, or that refuses or fails to render a conversation.
    #[error("{name}{}: {problem}", line.map(|n| format!(", line {n}")).unwrap_or_default())]
    Template {
        /// The template.
        name: String,
        /// The line of its text, counted from one.
        line: Option<usize>,
        /// What is wrong, or what the template says of the conversation.
        problem: String,
    },
    /// The model failed.
    #[error(transparent)]
    Model(#[from] imaginal_models::Error),
    /// The state failed.
    #[error(transparent)]
    State(#[from] imaginal_nn::Error),
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] imaginal_files::Error),
}
