//! Why a training run cannot start or go on.

use std::path::PathBuf;

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Every refusal of this crate: what is wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option has a value that makes no sense.
    #[error("--{name}: {problem}")]
    Option {
        /// The option, as the command line spells it.
        name: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The data is not there, or not enough.
    #[error("{}: {problem}", path.display())]
    Data {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The run directory is not what it should be.
    #[error("{}: {problem}", path.display())]
    RunDir {
        /// The run directory, or the file in it.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}{}", path.display(), advice(source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done, for instance "write".
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Something could not be written in the middle of a run; what was saved before is intact.
    #[error("step {step}: {source}; {kept}")]
    Save {
        /// The step after which it happened.
        step: u64,
        /// What failed.
        #[source]
        source: Box<Error>,
        /// What is left to continue from.
        kept: String,
    },
    /// The loss or the gradient is no longer a number.
    #[error("step {step}: the {what} is {value}; {kept}. Try a lower --lr, a longer --warmup or another --seed")]
    NotFinite {
        /// The step, counted from one.
        step: u64,
        /// "loss" or "gradient norm".
        what: &'static str,
        /// Its value.
        value: f64,
        /// What is left to continue from.
        kept: String,
    },
    /// A tokenizer could not be trained or used.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A picture could not be drawn.
    #[error("{}: cannot draw: {problem}", path.display())]
    Picture {
        /// The picture.
        path: PathBuf,
        /// What the drawing code said.
        problem: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Files(#[from] imaginal_files::Error),
    /// An operation on tensors failed.
    #[error(transparent)]
    Tensor(#[from] imaginal_tensor::Error),
    /// A model could not be built, run or saved.
    #[error(transparent)]
    Model(#[from] imaginal_models::Error),
}

impl Error {
    pub(crate) fn option(name: &'static str, problem: impl Into<String>) -> Error {
        Error::Option { name, problem: problem.into() }
    }

    pub(crate) fn data(path: impl Into<PathBuf>, problem: impl Into<String>) -> Error {
        Error::Data { path: path.into(), problem: problem.into() }
    }

    pub(crate) fn run_dir(path: impl Into<PathBuf>, problem: impl Into<String>) -> Error {
        Error::RunDir { path: path.into(), problem: problem.into() }
    }

    /// For `map_err`: the system refused `action` on `path`.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { path, action, source }
    }
}

fn advice(source: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::*;
    match source.kind() {
        NotFound => "; check the path",
        PermissionDenied | ReadOnlyFilesystem => "; check the permissions, or choose another directory with --out",
        StorageFull | QuotaExceeded => "; free some space and continue with --resume",
        _ => "",
    }
}
