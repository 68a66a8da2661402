//! What can go wrong between a name and a model in the cache.

use std::path::{Path, PathBuf};

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a model was not found, pulled or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that is neither an alias nor written as a repository.
    #[error(
        "{name:?}: {problem}; a model is named org/name, org/name:Q4_K_M, org/name:file.gguf, or by an alias (imaginal alias)"
    )]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A name that means several models.
    #[error("{name:?} is one of several; name one of:{}", lines(choices))]
    Ambiguous {
        /// The name.
        name: String,
        /// Names that mean one.
        choices: Vec<String>,
    },
    /// A repository without what the name asks for.
    #[error("{name:?}: {problem}; there is:{}", lines(there))]
    NoSuchModel {
        /// The name.
        name: String,
        /// What is missing.
        problem: String,
        /// What could be named instead.
        there: Vec<String>,
    },
    /// Nothing of that name is in the cache.
    #[error("{name:?} is not in {}{problem}; `imaginal pull {name}` downloads it", cache.display())]
    NotCached {
        /// The name.
        name: String,
        /// The folder that was looked in.
        cache: PathBuf,
        /// What is there of it, if anything.
        problem: String,
    },
    /// The network is needed, and switched off.
    #[error(
        "{name:?} is not whole in the cache, and the network is switched off (HF_HUB_OFFLINE); unset it to download"
    )]
    Offline {
        /// The name.
        name: String,
    },
    /// The hub does not know the repository, or does not show it.
    #[error("{endpoint}: there is no repository {repo}, or it is private; check the name{}", token_advice(*token))]
    RepositoryNotFound {
        /// The hub.
        endpoint: String,
        /// The repository.
        repo: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{repo}: there is no revision {revision:?}")]
    RevisionNotFound {
        /// The repository.
        repo: String,
        /// The branch, tag or commit.
        revision: String,
    },
    /// The repository has no such file.
    #[error("{repo}: there is no file {file:?} in this revision")]
    EntryNotFound {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
    },
    /// The authors want to be asked first.
    #[error("{endpoint}/{repo} is gated: ask for access on that page{}", token_advice(*token))]
    Gated {
        /// The hub.
        endpoint: String,
        /// The repository.
        repo: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The hub refuses the token.
    #[error("{endpoint} refuses the token of {source_of_token}; make a new one, or unset it")]
    Token {
        /// The hub.
        endpoint: String,
        /// Where the token came from.
        source_of_token: String,
    },
    /// The hub wants fewer requests.
    #[error("{url}: too many requests; the server asks to wait {seconds} seconds. What is downloaded is kept")]
    TooManyRequests {
        /// The address.
        url: String,
        /// How long it asks to wait.
        seconds: u64,
    },
    /// Any other refusal of a server.
    #[error("{url}: the server answers {status}{message}")]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the server says about it.
        message: String,
    },
    /// No answer, or one that broke off again and again.
    #[error("{url}: {problem}; check the network and HF_ENDPOINT, then pull again: what is downloaded is kept")]
    Network {
        /// The address.
        url: String,
        /// What happened.
        problem: String,
    },
    /// An answer that no hub gives.
    #[error("{url}: {problem}; this is not how a hub answers, check HF_ENDPOINT and proxies")]
    Protocol {
        /// The address.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file whose content is not what the hub says it is. It is removed.
    #[error("{file}: the {kind} is {found}, not {expected}; what was downloaded is removed, pull again")]
    Checksum {
        /// The file.
        file: String,
        /// The hash function.
        kind: &'static str,
        /// What the hub says.
        expected: String,
        /// What was received.
        found: String,
    },
    /// A file longer or shorter than the hub says it is. It is removed.
    #[error(
        "{file}: the server sends {found} bytes, not the {expected} that it announced; what was downloaded is removed"
    )]
    Size {
        /// The file.
        file: String,
        /// What the hub says.
        expected: u64,
        /// What the server sends.
        found: u64,
    },
    /// The user's file of aliases and registries cannot be used.
    #[error("{}: {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        problem: String,
    },
    /// Several models would be removed at once.
    #[error("{name:?} stands for several models; name one, or remove all with --all:{}", lines(choices))]
    Several {
        /// The name.
        name: String,
        /// The models.
        choices: Vec<String>,
    },
    /// A file that cannot be read or written.
    #[error(transparent)]
    File(#[from] imaginal_files::Error),
}

impl Error {
    pub(crate) fn io(path: &Path, action: &'static str, source: std::io::Error) -> Error {
        imaginal_files::Error::Io { path: path.to_path_buf(), action, source }.into()
    }

    pub(crate) fn protocol(url: &str, problem: impl ToString) -> Error {
        Error::Protocol { url: url.to_owned(), problem: problem.to_string() }
    }
}

/// Names on lines of their own; a repository may have very many files.
fn lines(names: &[String]) -> String {
    const MOST: usize = 40;
    let mut out: String = names.iter().take(MOST).map(|n| format!("\n  {}", printable(n))).collect();
    if names.len() > MOST {
        out.push_str(&format!("\n  and {} more", names.len() - MOST));
    }
    if names.is_empty() { "\n  nothing".into() } else { out }
}

fn token_advice(token: bool) -> &'static str {
    match token {
        true => ", or use a token that may read it",
        false => "; if it is private or gated, set HF_TOKEN (no token was found)",
    }
}

/// Text from a server, short and without codes for the terminal.
pub(crate) fn printable(text: &str) -> String {
    const MOST: usize = 300;
    let mut out = String::new();
    for c in text.chars().take(MOST) {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    if text.chars().nth(MOST).is_some() {
        out.push('…');
    }
    out
}
