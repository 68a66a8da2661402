//! The standard Hugging Face cache: what is in it, and how a file gets in and out.
//!
//! ```text
//! models--org--name/
//!   blobs/<etag>                       the content, named by its hash
//!   refs/<revision>                    the commit that a branch or tag stood for when it was pulled
//!   snapshots/<commit>/<path>          a link to the blob
//! .locks/models--org--name/<etag>.lock held while the blob is written
//! ```
//! Layout: <https://huggingface.co/docs/huggingface_hub/guides/manage-cache>. A reference is written only when all files
//! of a model are there, so that a pull that broke off is not taken for a model.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use imaginal_files::{safetensors, write_atomic};

use crate::choose::{Choice, Entry, INDEX, choose, models};
use crate::name::{check_file, is_commit};
use crate::{Error, RepoId, Result, Target};

/// A cache's folder, which need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    root: PathBuf,
}

/// A model in the cache.
#[derive(Clone, Debug)]
pub struct Located {
    /// What to open: the GGUF file (its first part), or the folder of the safetensors.
    pub path: PathBuf,
    /// All its files.
    pub files: Vec<PathBuf>,
    /// Their length together.
    pub bytes: u64,
    /// The repository.
    pub repo: RepoId,
    /// The branch or tag that it was found by, or the commit where none stands for it; `None` is `main`.
    pub revision: Option<String>,
    /// The commit.
    pub commit: String,
    /// Which of the repository's models it is.
    pub choice: Choice,
}

impl Located {
    /// The name by which it is found again.
    pub fn target(&self, registry: Option<&str>) -> Target {
        Target {
            registry: registry.map(str::to_owned),
            repo: self.repo.clone(),
            revision: self.revision.clone(),
            selector: Some(self.choice.selector().to_owned()),
        }
    }
}

/// What was removed.
#[derive(Clone, Debug, Default)]
pub struct Removed {
    /// Files that are gone, as the repository names them.
    pub files: Vec<String>,
    /// Bytes that are free now.
    pub bytes: u64,
}

/// Deepest folder and most files that are looked at in a snapshot.
const DEEPEST: usize = 8;
const MOST_FILES: usize = 20_000;

impl Cache {
    /// The cache in a folder.
    pub fn new(root: impl Into<PathBuf>) -> Cache {
        Cache { root: root.into() }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The cache of a registry, apart from the hub's: two hubs may have repositories of one name.
    pub(crate) fn beside(&self, registry: &str) -> Cache {
        Cache::new(self.root.parent().unwrap_or(&self.root).join("registries").join(registry))
    }

    pub(crate) fn repo_dir(&self, repo: &RepoId) -> PathBuf {
        self.root.join(repo.folder())
    }

    pub(crate) fn blob(&self, repo: &RepoId, etag: &str) -> PathBuf {
        self.repo_dir(repo).join("blobs").join(etag)
    }

    pub(crate) fn lock(&self, repo: &RepoId, etag: &str) -> PathBuf {
        self.root.join(".locks").join(repo.folder()).join(format!("{etag}.lock"))
    }

    pub(crate) fn snapshot(&self, repo: &RepoId, commit: &str) -> PathBuf {
        self.repo_dir(repo).join("snapshots").join(commit)
    }

    /// The commit that a revision stands for in the cache.
    fn commit(&self, repo: &RepoId, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return self.snapshot(repo, revision).is_dir().then(|| revision.to_owned());
        }
        let text = fs::read_to_string(self.repo_dir(repo).join("refs").join(revision)).ok()?;
        let commit = text.trim();
        // It becomes a part of a path.
        (check_file(commit).is_ok() && !commit.contains('/')).then(|| commit.to_owned())
    }

    /// The files of a snapshot that are there; a link to nothing is no file.
    fn entries(&self, repo: &RepoId, commit: &str) -> Vec<Entry> {
        let mut found = Vec::new();
        walk(&self.snapshot(repo, commit), "", DEEPEST, &mut found);
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// Finds what a target asks for, without a network.
    ///
    /// # Errors
    /// [`Error::NotCached`] where nothing, or not all of it, is there; [`Error::NoSuchModel`] and [`Error::Ambiguous`]
    /// for a selector that none or several models of the repository fit.
    pub fn find(&self, target: &Target, name: &str) -> Result<Located> {
        let not = |problem: String| Error::NotCached { name: name.to_owned(), cache: self.root.clone(), problem };
        let Some(commit) = self.commit(&target.repo, target.revision()) else {
            return Err(not(String::new()));
        };
        let entries = self.entries(&target.repo, &commit);
        let repo = Target { selector: None, ..target.clone() }.to_string();
        let choice = match choose(&entries, name, &repo, target.selector.as_deref()) {
            Err(Error::NoSuchModel { there, .. }) => {
                let there = if there.is_empty() { "nothing".to_owned() } else { there.join(", ") };
                return Err(not(format!(" (of this repository there is {there})")));
            }
            other => other?,
        };
        let revision = target.revision.clone().filter(|r| r != "main");
        self.locate(&target.repo, revision, &commit, choice).map_err(|missing| not(format!(" ({missing} is missing)")))
    }

    /// The files of a choice with all their paths, or the first that is missing.
    fn locate(
        &self,
        repo: &RepoId,
        revision: Option<String>,
        commit: &str,
        choice: Choice,
    ) -> std::result::Result<Located, String> {
        let folder = self.snapshot(repo, commit);
        if let Choice::Gguf { parts, count, .. } = &choice
            && parts.len() != *count
        {
            return Err(format!("a part of the {count}"));
        }
        let mut names: Vec<String> = choice.files().into_iter().map(str::to_owned).collect();
        if let Choice::Safetensors { weights, .. } = &choice
            && weights.is_empty()
        {
            names.extend(safetensors::shards(folder.join(INDEX)).map_err(|e| format!("the index ({e})"))?);
        }
        let mut bytes = 0;
        let mut files = Vec::with_capacity(names.len());
        for name in names {
            let path = folder.join(&name);
            bytes += fs::metadata(&path).map_err(|_| name)?.len();
            files.push(path);
        }
        let path = match &choice {
            Choice::Safetensors { .. } => folder,
            _ => files.first().cloned().unwrap_or(folder),
        };
        Ok(Located { path, files, bytes, repo: repo.clone(), revision, commit: commit.to_owned(), choice })
    }

    /// All models in the cache, by repository; those that are not whole are left out.
    pub fn scan(&self) -> Vec<Located> {
        let mut repos: Vec<RepoId> = fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| RepoId::from_folder(entry.file_name().to_str()?))
            .collect();
        repos.sort();
        let mut found = Vec::new();
        for repo in &repos {
            let refs = self.refs(repo);
            for commit in self.commits(repo) {
                let name = |wanted: &dyn Fn(&str) -> bool| refs.iter().find(|r| r.1 == commit && wanted(&r.0));
                let revision = match name(&|r| r == "main").or_else(|| name(&|_| true)) {
                    Some((name, _)) => Some(name.clone()).filter(|r| r != "main"),
                    None => Some(commit.clone()),
                };
                let choices = models(&self.entries(repo, &commit)).into_iter();
                found.extend(choices.filter_map(|c| self.locate(repo, revision.clone(), &commit, c).ok()));
            }
        }
        found
    }

    /// Branches and tags with the commits that they stand for.
    fn refs(&self, repo: &RepoId) -> Vec<(String, String)> {
        let mut names = Vec::new();
        walk(&self.repo_dir(repo).join("refs"), "", DEEPEST, &mut names);
        names.into_iter().filter_map(|e| self.commit(repo, &e.path).map(|commit| (e.path, commit))).collect()
    }

    /// The commits that have a snapshot.
    fn commits(&self, repo: &RepoId) -> Vec<String> {
        let folder = self.repo_dir(repo).join("snapshots");
        let names = fs::read_dir(folder).into_iter().flatten().flatten().filter(|e| e.path().is_dir());
        let mut names: Vec<String> = names.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Makes a snapshot's path stand for a blob.
    pub(crate) fn link(&self, repo: &RepoId, commit: &str, file: &str, blob: &Path) -> Result<PathBuf> {
        let path = self.snapshot(repo, commit).join(file);
        let parent = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(|e| Error::io(parent, "create", e))?;
        // From the file's folder up to the repository's, so that the cache can be moved.
        let up = 2 + file.split('/').count();
        let name = blob.file_name().unwrap_or_default();
        let target = (1..up).map(|_| "..").collect::<PathBuf>().join("blobs").join(name);
        if fs::read_link(&path).is_ok_and(|old| old == target) {
            return Ok(path);
        }
        // The new link is made beside the old one and renamed over it, so that a reader finds one of the two.
        let temporary = parent.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
        let _ = fs::remove_file(&temporary);
        match symlink(&target, &temporary) {
            Ok(()) => fs::rename(&temporary, &path).map_err(|e| Error::io(&path, "link", e))?,
            // A system without links: the content lies in the snapshot, as huggingface_hub has it there.
            Err(_) => fs::rename(blob, &path).map_err(|e| Error::io(&path, "move the file to", e))?,
        }
        Ok(path)
    }

    /// Remembers which commit a revision stands for.
    pub(crate) fn set_ref(&self, repo: &RepoId, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.repo_dir(repo).join("refs").join(revision);
        if fs::read_to_string(&path).is_ok_and(|old| old == commit) {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(|e| Error::io(parent, "create", e))?;
        Ok(write_atomic(&path, commit.as_bytes())?)
    }

    /// Removes what a target stands for: a model with its blobs, or, without a selector, the repository. A repository with
    /// several models is removed only with `all`.
    ///
    /// # Errors
    /// [`Error::Several`] lists the models; else as [`Cache::find`], and [`Error::File`].
    pub fn remove(&self, target: &Target, name: &str, all: bool) -> Result<Removed> {
        let repo = &target.repo;
        let folder = self.repo_dir(repo);
        if !folder.is_dir() {
            return Err(Error::NotCached { name: name.to_owned(), cache: self.root.clone(), problem: String::new() });
        }
        let mut removed = Removed::default();
        if target.selector.is_none() && target.revision.is_none() {
            let models: Vec<Located> = self.scan().into_iter().filter(|m| m.repo == *repo).collect();
            if models.len() > 1 && !all {
                let choices = models.iter().map(|m| m.target(target.registry.as_deref()).to_string()).collect();
                return Err(Error::Several { name: name.to_owned(), choices });
            }
            for commit in self.commits(repo) {
                removed.files.extend(self.entries(repo, &commit).into_iter().map(|e| e.path));
            }
            removed.files.sort();
            removed.files.dedup();
            removed.bytes = size(&folder, DEEPEST);
            fs::remove_dir_all(&folder).map_err(|e| Error::io(&folder, "remove", e))?;
            let _ = fs::remove_dir_all(self.root.join(".locks").join(repo.folder()));
            return Ok(removed);
        }
        let located = self.find(target, name)?;
        for path in &located.files {
            fs::remove_file(path).map_err(|e| Error::io(path, "remove", e))?;
            let snapshot = self.snapshot(repo, &located.commit);
            removed.files.push(path.strip_prefix(&snapshot).unwrap_or(path).to_string_lossy().into_owned());
        }
        removed.bytes = self.sweep(repo)?;
        if self.entries(repo, &located.commit).is_empty() {
            self.forget(repo, &located.commit)?;
        }
        Ok(removed)
    }

    /// Removes the blobs that no snapshot stands for any more, and returns their length.
    fn sweep(&self, repo: &RepoId) -> Result<u64> {
        let mut used = HashSet::new();
        for commit in self.commits(repo) {
            let snapshot = self.snapshot(repo, &commit);
            for entry in self.entries(repo, &commit) {
                used.extend(
                    fs::read_link(snapshot.join(&entry.path)).ok().and_then(|l| Some(l.file_name()?.to_owned())),
                );
            }
        }
        let mut freed = 0;
        for entry in fs::read_dir(self.repo_dir(repo).join("blobs")).into_iter().flatten().flatten() {
            let name = entry.file_name();
            // What is still being downloaded belongs to somebody.
            if used.contains(&name) || name.to_string_lossy().ends_with(".incomplete") {
                continue;
            }
            // Whoever holds its lock is about to link it.
            let lock = fs::File::open(self.lock(repo, &name.to_string_lossy()));
            if lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock))) {
                continue;
            }
            let path = entry.path();
            freed += fs::symlink_metadata(&path).map_or(0, |m| m.len());
            fs::remove_file(&path).map_err(|e| Error::io(&path, "remove", e))?;
        }
        Ok(freed)
    }

    /// Removes an empty snapshot and the references to it, and the repository's folder if that was all.
    fn forget(&self, repo: &RepoId, commit: &str) -> Result<()> {
        let snapshot = self.snapshot(repo, commit);
        fs::remove_dir_all(&snapshot).map_err(|e| Error::io(&snapshot, "remove", e))?;
        for (name, _) in self.refs(repo).into_iter().filter(|r| r.1 == commit) {
            let path = self.repo_dir(repo).join("refs").join(name);
            fs::remove_file(&path).map_err(|e| Error::io(&path, "remove", e))?;
        }
        if self.commits(repo).is_empty() {
            let folder = self.repo_dir(repo);
            fs::remove_dir_all(&folder).map_err(|e| Error::io(&folder, "remove", e))?;
            let _ = fs::remove_dir_all(self.root.join(".locks").join(repo.folder()));
        }
        Ok(())
    }
}

/// Files below a folder, links followed to files but not to folders.
fn walk(folder: &Path, prefix: &str, deep: usize, found: &mut Vec<Entry>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let Ok(kind) = entry.file_type() else { continue };
        let path = format!("{prefix}{name}");
        if kind.is_dir() && deep > 0 {
            walk(&entry.path(), &format!("{path}/"), deep - 1, found);
        } else if let Ok(meta) = fs::metadata(entry.path())
            && meta.is_file()
            && found.len() < MOST_FILES
        {
            found.push(Entry { path, size: Some(meta.len()), ..Entry::default() });
        }
    }
}

/// Bytes of the files below a folder, links counted as nothing.
fn size(folder: &Path, deep: usize) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() && deep > 0 => size(&entry.path(), deep - 1),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |m| m.len()),
        _ => 0,
    };
    entries.map(bytes).sum()
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}
