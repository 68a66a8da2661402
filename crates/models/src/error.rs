use std::path::PathBuf;

/// What this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// One thing that is wrong with a file: where, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The configuration key or the tensor.
    pub field: String,
    /// What is wrong with it.
    pub what: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.what)
    }
}

/// Why a model cannot be built, loaded, run or saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration makes no model. All that is wrong is listed.
    #[error("{}: its configuration cannot be used:{}", path.display(), list(problems))]
    Config {
        /// The file.
        path: PathBuf,
        /// Everything wrong with it.
        problems: Vec<Problem>,
    },
    /// The tensors are not those of the configuration. All differences are listed.
    #[error("{}: its tensors are not those of its configuration:{}", path.display(), list(problems))]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Everything wrong with them.
        problems: Vec<Problem>,
    },
    /// No row of the table of architectures has this name.
    #[error(
        "{}: {field}: architecture {name:?} is not known; known: {known}", path.display()
    )]
    Architecture {
        /// The file.
        path: PathBuf,
        /// The key that names it.
        field: &'static str,
        /// The name.
        name: String,
        /// The names of the table.
        known: String,
    },
    /// A path that is neither a GGUF file nor a directory with a model.
    #[error("{}: {what}", path.display())]
    NotAModel {
        /// The path.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// A token that is not in the vocabulary.
    #[error("token {id} at position {position} is not below the vocabulary size {vocab}")]
    Token {
        /// The token.
        id: u32,
        /// Where it stands in its sequence.
        position: usize,
        /// The model's vocabulary size.
        vocab: usize,
    },
    /// An argument that makes no sense.
    #[error("{0}")]
    Argument(String),
    /// A file that cannot be read or written.
    #[error(transparent)]
    File(#[from] imaginal_files::Error),
    /// An operation that failed.
    #[error(transparent)]
    Tensor(#[from] imaginal_tensor::Error),
}

/// The problems on lines of their own; a hostile file may have very many.
fn list(problems: &[Problem]) -> String {
    const MOST: usize = 20;
    let mut out: String = problems.iter().take(MOST).map(|p| format!("\n  {p}")).collect();
    if problems.len() > MOST {
        out.push_str(&format!("\n  and {} more", problems.len() - MOST));
    }
    out
}
