//! Names of repositories, revisions and files, checked before they become part of a path or an address.

use std::fmt;

use crate::{Error, Result};

/// A repository on a hub: `org/name`, or a bare `name` as the oldest ones have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoId(String);

impl RepoId {
    /// Checks a name: one or two parts of letters, digits, `-`, `_` and `.`, at most 96 characters, as the hub has them.
    ///
    /// # Errors
    /// [`Error::Name`].
    pub fn parse(name: &str) -> Result<RepoId> {
        let wrong = |problem: &str| Err(Error::Name { name: name.to_owned(), problem: problem.to_owned() });
        if name.len() > 96 {
            return wrong("longer than the 96 characters of a repository's name");
        }
        if name.split('/').count() > 2 {
            return wrong("more than one / in the name of a repository");
        }
        for part in name.split('/') {
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
                return wrong("not the name of a repository: only letters, digits, '-', '_' and '.'");
            }
            if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) || part.contains("--") || part.contains("..")
            {
                return wrong("a repository's name has no '-' or '.' at its ends, and no two of them together");
            }
        }
        Ok(RepoId(name.to_owned()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its folder in the cache: `models--org--name`.
    pub fn folder(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }

    /// The repository of a folder in the cache.
    pub fn from_folder(folder: &str) -> Option<RepoId> {
        RepoId::parse(&folder.strip_prefix("models--")?.replace("--", "/")).ok()
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a name asks for: a repository, perhaps of a registry, a revision, and a part of it.
///
/// ```
/// use imaginal_hub::Target;
/// let t = Target::parse("Qwen/Qwen3-4B-GGUF@main:Q4_K_M")?;
/// assert_eq!((t.repo.as_str(), t.revision(), t.selector.as_deref()), ("Qwen/Qwen3-4B-GGUF", "main", Some("Q4_K_M")));
/// assert_eq!(Target::parse("https://huggingface.co/org/name/blob/main/a.gguf")?.to_string(), "org/name@main:a.gguf");
/// assert_eq!(Target::parse("lab://org/name")?.registry.as_deref(), Some("lab"));
/// # Ok::<(), imaginal_hub::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name of a registry in the user's file; `None` is the hub.
    pub registry: Option<String>,
    /// The repository.
    pub repo: RepoId,
    /// A branch, tag or commit.
    pub revision: Option<String>,
    /// A file, a quantization (`Q4_K_M`) or `safetensors`.
    pub selector: Option<String>,
}

impl Target {
    /// Reads `[REGISTRY://]org/name[@revision][:file or quantization]`, or an address on the hub.
    ///
    /// # Errors
    /// [`Error::Name`].
    pub fn parse(text: &str) -> Result<Target> {
        let (mut registry, mut rest) = (None, text);
        for hub in [
            "https://huggingface.co/",
            "http://huggingface.co/",
            "https://hf.co/",
            "huggingface.co/",
            "hf.co/",
            "hf://",
        ] {
            if let Some(page) = rest.strip_prefix(hub) {
                return Target::from_page(text, page);
            }
        }
        if let Some((name, after)) = rest.split_once("://") {
            check_registry(name).map_err(|problem| Error::Name { name: text.to_owned(), problem })?;
            (registry, rest) = (Some(name.to_owned()), after);
        }
        let (rest, selector) = match rest.split_once(':') {
            Some((rest, selector)) => (rest, Some(selector)),
            None => (rest, None),
        };
        let (repo, revision) = match rest.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision)),
            None => (rest, None),
        };
        Target::new(text, registry, repo, revision, selector)
    }

    /// What comes after the host: `org/name`, perhaps with `/resolve/REVISION/FILE` as a browser has it.
    fn from_page(text: &str, page: &str) -> Result<Target> {
        let page = page.split(['?', '#']).next().unwrap_or(page).trim_end_matches('/');
        let parts: Vec<&str> = page.splitn(5, '/').collect();
        match parts[..] {
            [org, name, "resolve" | "blob" | "tree", revision, file] => {
                Target::new(text, None, &format!("{org}/{name}"), Some(revision), Some(file))
            }
            [org, name, "tree", revision] => Target::new(text, None, &format!("{org}/{name}"), Some(revision), None),
            _ => Target::parse(page),
        }
    }

    fn new(
        text: &str,
        registry: Option<String>,
        repo: &str,
        revision: Option<&str>,
        selector: Option<&str>,
    ) -> Result<Target> {
        let wrong = |problem: String| Error::Name { name: text.to_owned(), problem };
        if let Some(revision) = revision {
            check_revision(revision).map_err(wrong)?;
        }
        if let Some(selector) = selector {
            check_file(selector).map_err(wrong)?;
        }
        let repo = RepoId::parse(repo)?;
        let own = |s: Option<&str>| s.map(str::to_owned);
        Ok(Target { registry, repo, revision: own(revision), selector: own(selector) })
    }

    /// The revision, `main` if none is named.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}://")?;
        }
        write!(f, "{}", self.repo)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        match &self.selector {
            Some(selector) => write!(f, ":{selector}"),
            None => Ok(()),
        }
    }
}

/// Whether a text is a commit, the form in which revisions cannot change.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

pub(crate) fn check_registry(name: &str) -> std::result::Result<(), String> {
    match !name.is_empty() && name.len() <= 40 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    {
        true => Ok(()),
        false => Err("not the name of a registry: only letters, digits, '-' and '_'".into()),
    }
}

pub(crate) fn check_revision(text: &str) -> std::result::Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_./+".contains(c);
    match text.len() <= 200 && text.chars().all(good) && check_file(text).is_ok() && !text.ends_with(".lock") {
        true => Ok(()),
        false => Err(format!("{text:?} is not the name of a branch, tag or commit")),
    }
}

/// Whether a path stays in the folder that it is joined to, on every system.
pub(crate) fn check_file(path: &str) -> std::result::Result<(), String> {
    let strange = |c: char| c.is_control() || "\\:*?\"<>|".contains(c);
    if path.is_empty() || path.len() > 1000 || path.contains(strange) {
        return Err(format!("{:?} is not the name of a file", crate::error::printable(path)));
    }
    if path.split('/').any(|part| part.is_empty() || part == "." || part == ".." || part.len() > 255) {
        return Err(format!("{:?} is not a path inside the repository", crate::error::printable(path)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in ["", "/", "a/", "/a", "a/b/c", "../x", "a/..", "a b/c", "a/b--c", "-a/b", "a/b.", "a\\b/c", "a/b\0"]
        {
            assert!(Target::parse(bad).is_err(), "{bad:?}");
        }
        for bad in [
            "a/b:../x",
            "a/b:/etc/passwd",
            "a/b:c:\\x",
            "a/b:x//y",
            "a/b:",
            "a/b@../..",
            "a/b@",
            "a b://c/d",
            "a/b:./x",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad:?}");
        }
        let t = Target::parse("a/b@refs/pr/1:q4/x.gguf").unwrap();
        assert_eq!(t.revision(), "refs/pr/1");
        assert_eq!(t.to_string(), "a/b@refs/pr/1:q4/x.gguf");
    }

    #[test]
    fn a_folder_of_the_cache_is_the_repository() {
        let repo = RepoId::parse("org/name-1.5_x").unwrap();
        assert_eq!(repo.folder(), "models--org--name-1.5_x");
        assert_eq!(RepoId::from_folder(&repo.folder()), Some(repo));
        assert_eq!(RepoId::from_folder("models--gpt2").unwrap().as_str(), "gpt2");
        assert_eq!(RepoId::from_folder("datasets--a--b"), None);
        assert_eq!(RepoId::from_folder("models--a--b--c"), None);
    }

    #[test]
    fn addresses_from_a_browser_are_names() {
        for (address, name) in [
            ("https://huggingface.co/a/b", "a/b"),
            ("https://huggingface.co/a/b/tree/main", "a/b@main"),
            ("https://huggingface.co/a/b/resolve/v1/d/x.gguf?download=true", "a/b@v1:d/x.gguf"),
            ("hf.co/a/b:Q8_0", "a/b:Q8_0"),
            ("hf://a/b", "a/b"),
        ] {
            assert_eq!(Target::parse(address).unwrap().to_string(), name);
        }
    }
}
