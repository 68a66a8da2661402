//! Models from the Hugging Face hub and its mirrors, in the standard cache.
//!
//! [`find`] looks a name up in the cache and never uses the network; [`pull`] downloads what a name asks for, resumes
//! what broke off, checks sizes and hashes, and leaves either a whole model or none. The files lie where the
//! `huggingface_hub` library looks for them, and what that library downloaded is found here.
//!
//! Why not the `hf-hub` crate: its current version is made of tokio and reqwest; the last with a blocking client checks no
//! hash, knows neither `.incomplete` files nor offline mode, and leaves the token to the HTTP library on redirects.
//!
//! Everything a server says is checked before it becomes a path, a length or a request: names cannot leave their folder, a
//! file is never longer than announced, and the token goes to the endpoint alone.

mod alias;
mod cache;
mod choose;
mod client;
mod error;
mod fetch;
mod name;
mod settings;

use std::time::Duration;

pub use alias::{ALIASES, Aliases};
pub use cache::{Cache, Located, Removed};
pub use choose::{Choice, Entry, choose, models};
pub use error::{Error, Result};
pub use name::{RepoId, Target};
pub use settings::{HUB, Settings, Token};

use client::Client;
use fetch::Fetch;

/// What happens during a pull.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// It is known what will be pulled: files and, where all lengths are known, their sum.
    Plan {
        /// The commit.
        commit: &'a str,
        /// The files that are known by now; the shards of an index come later.
        files: &'a [String],
        /// Their length together.
        bytes: Option<u64>,
    },
    /// The download of a file begins.
    Begin {
        /// The file.
        file: &'a str,
        /// Its length.
        bytes: u64,
        /// Bytes that an earlier download left.
        from: u64,
    },
    /// More of a file is there.
    Progress {
        /// The file.
        file: &'a str,
        /// Bytes that are there.
        bytes: u64,
        /// Its length.
        of: u64,
    },
    /// A file is whole, checked and in its place.
    Done {
        /// The file.
        file: &'a str,
        /// Its length.
        bytes: u64,
        /// Whether it was there before.
        cached: bool,
    },
    /// A request failed and will be repeated.
    Waiting {
        /// Why.
        why: String,
        /// After how long.
        pause: Duration,
    },
    /// Something that the user should know.
    Warning(String),
}

/// Finds a model in the cache by alias or repository, without a network. `None` for a bare word that is neither an alias
/// nor a repository in the cache.
///
/// # Errors
/// [`Error::NotCached`] for a name that could be pulled; see [`Cache::find`] and [`Aliases::resolve`].
pub fn find(name: &str, aliases: &Aliases, settings: &Settings) -> Result<Option<Located>> {
    let target = match aliases.resolve(name)? {
        Some(target) => target,
        None => match Target::parse(name) {
            // A few old repositories have no organisation.
            Ok(target) if settings.cache.repo_dir(&target.repo).is_dir() => target,
            _ => return Ok(None),
        },
    };
    aliases.settings(&target, settings)?.cache.find(&target, name).map(Some)
}

/// Downloads what `target` asks for, as far as it is not in the cache, and tells `on` about it. `settings` are those of
/// the target's registry ([`Aliases::settings`]); `name` is what the user wrote.
///
/// # Errors
/// Everything in [`Error`] but the errors of aliases. What was downloaded before a network error is kept and resumed.
pub fn pull(target: &Target, name: &str, settings: &Settings, on: &mut dyn FnMut(Event)) -> Result<Located> {
    let cache = &settings.cache;
    if settings.offline {
        return cache.find(target, name).map_err(|e| match e {
            Error::NotCached { name, .. } => Error::Offline { name },
            e => e,
        });
    }
    let client = Client::new(settings)?;
    let listing = client.listing(&target.repo, target.revision(), on)?;
    if !listing.refused.is_empty() {
        on(Event::Warning(format!("names that are not used as paths: {}", listing.refused.join(", "))));
    }
    let repo = Target { selector: None, ..target.clone() }.to_string();
    let choice = choose(&listing.entries, name, &repo, target.selector.as_deref())?;
    if let Choice::Gguf { parts, count, .. } = &choice
        && parts.len() != *count
    {
        let problem = format!("the repository has {} of its {count} parts", parts.len());
        return Err(Error::NoSuchModel { name: name.to_owned(), problem, there: parts.clone() });
    }
    let mut get = |files: &[String]| {
        let entry = |file: &String| listing.entries.iter().find(|e| e.path == *file);
        let bytes = files.iter().map(|f| entry(f).and_then(|e| e.size)).sum();
        on(Event::Plan { commit: &listing.commit, files, bytes });
        files.iter().try_for_each(|file| {
            let missing = || Error::EntryNotFound { repo: target.repo.to_string(), file: file.clone() };
            let entry = entry(file).ok_or_else(missing)?;
            Fetch { client: &client, cache, repo: &target.repo, commit: &listing.commit, entry }.run(on)
        })
    };
    get(&choice.files().into_iter().map(str::to_owned).collect::<Vec<_>>())?;
    if let Choice::Safetensors { weights, .. } = &choice
        && weights.is_empty()
    {
        // The index, which is among the files, names the shards.
        let index = cache.snapshot(&target.repo, &listing.commit).join(choose::INDEX);
        get(&imaginal_files::safetensors::shards(index)?)?;
    }
    cache.set_ref(&target.repo, target.revision(), &listing.commit)?;
    // Named exactly: the cache may hold other models of the repository by now, or fewer than the hub has.
    let exact = Target { selector: Some(exact(&choice)), ..target.clone() };
    cache.find(&exact, name)
}

/// The selector that means this choice and no other.
fn exact(choice: &Choice) -> String {
    match choice {
        Choice::Gguf { parts, .. } => parts.first().cloned().unwrap_or_default(),
        other => other.selector().to_owned(),
    }
}
