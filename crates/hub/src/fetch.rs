//! One file from the hub into the cache: resumed, checked, and whole or not there.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::choose::Entry;
use crate::client::{Attempt, Client, Head, Trouble, network, number};
use crate::{Cache, Error, Event, RepoId, Result};

const CHUNK: usize = 256 << 10;

/// The hash that a file must have.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    Sha256(String),
    /// Of a git object: a header with the length, then the content.
    Git(String),
    /// The server gives none.
    None,
}

enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
    None,
}

impl Expected {
    /// What the hub lists counts for more than the ETag, which a mirror may make up; where both are SHA-256 they agree.
    fn new(entry: &Entry, etag: &str) -> std::result::Result<Expected, String> {
        let hex = |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
        let (listed, tag) = (entry.sha256.as_deref().filter(|h| hex(h, 64)), Some(etag).filter(|h| hex(h, 64)));
        if let (Some(listed), Some(tag)) = (listed, tag)
            && !listed.eq_ignore_ascii_case(tag)
        {
            return Err(format!("{}: the list of files has the SHA-256 {listed}, the file itself {tag}", entry.path));
        }
        if let Some(hash) = listed.or(tag) {
            return Ok(Expected::Sha256(hash.to_lowercase()));
        }
        let git = entry.git.as_deref().filter(|h| hex(h, 40)).or(Some(etag).filter(|h| hex(h, 40)));
        Ok(git.map_or(Expected::None, |hash| Expected::Git(hash.to_lowercase())))
    }

    fn hasher(&self, size: u64) -> Hasher {
        match self {
            Expected::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Expected::Git(_) => Hasher::Git(Sha1::new_with_prefix(format!("blob {size}\0"))),
            Expected::None => Hasher::None,
        }
    }
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(h) => h.update(bytes),
            Hasher::Git(h) => h.update(bytes),
            Hasher::None => {}
        }
    }

    fn check(self, expected: &Expected, file: &str) -> Result<()> {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let (kind, expected, found) = match (self, expected) {
            (Hasher::Sha256(h), Expected::Sha256(e)) => ("SHA-256", e, hex(&h.finalize())),
            (Hasher::Git(h), Expected::Git(e)) => ("SHA-1 (git)", e, hex(&h.finalize())),
            _ => return Ok(()),
        };
        match found == *expected {
            true => Ok(()),
            false => Err(Error::Checksum { file: file.to_owned(), kind, expected: expected.clone(), found }),
        }
    }
}

/// Where a file comes from and goes to.
pub(crate) struct Fetch<'a> {
    pub(crate) client: &'a Client,
    pub(crate) cache: &'a Cache,
    pub(crate) repo: &'a RepoId,
    pub(crate) commit: &'a str,
    pub(crate) entry: &'a Entry,
}

impl Fetch<'_> {
    /// Brings the file into the cache and links it into the snapshot.
    pub(crate) fn run(&self, on: &mut dyn FnMut(Event)) -> Result<()> {
        let file = self.entry.path.as_str();
        let head = self.client.head(self.repo, self.commit, file, on)?;
        let wrong = |problem: String| Error::protocol(&format!("{}/{file}", self.repo), problem);
        if let Some(commit) = head.commit.as_ref().filter(|c| *c != self.commit) {
            return Err(wrong(format!("asked for commit {}, the server answers with {commit}", self.commit)));
        }
        let size = self.size(&head).map_err(wrong)?;
        let expected = Expected::new(self.entry, &head.etag).map_err(wrong)?;

        let blob = self.cache.blob(self.repo, &head.etag);
        for folder in [blob.parent(), self.cache.lock(self.repo, &head.etag).parent()].into_iter().flatten() {
            fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
        }
        let lock = self.lock(&head.etag, on)?;
        // On a system without links the content lies in the snapshot itself.
        let pointer = self.cache.snapshot(self.repo, self.commit).join(file);
        let moved = fs::symlink_metadata(&pointer).is_ok_and(|m| m.is_file() && m.len() == size);
        let cached = moved || fs::metadata(&blob).is_ok_and(|m| m.len() == size);
        if !cached {
            if expected == Expected::None {
                on(Event::Warning(format!("{file}: the server gives no checksum; only the length is checked")));
            }
            self.download(&blob, size, &expected, on)?;
        }
        if !moved {
            self.cache.link(self.repo, self.commit, file, &blob)?;
        }
        drop(lock);
        on(Event::Done { file, bytes: size, cached });
        Ok(())
    }

    fn size(&self, head: &Head) -> std::result::Result<u64, String> {
        match (head.size, self.entry.size) {
            (Some(a), Some(b)) if a != b => Err(format!("the list of files has the length {b}, the file itself {a}")),
            (Some(size), _) | (None, Some(size)) => Ok(size),
            (None, None) => Err("the server does not say how long the file is".into()),
        }
    }

    /// Holds the lock that everybody holds who writes this blob; released when the file is dropped.
    fn lock(&self, etag: &str, on: &mut dyn FnMut(Event)) -> Result<File> {
        let path = self.cache.lock(self.repo, etag);
        let open = File::options().create(true).write(true).truncate(false).open(&path);
        let file = open.map_err(|e| Error::io(&path, "open the lock", e))?;
        if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
            on(Event::Warning(format!("{}: somebody else is downloading it, waiting", self.entry.path)));
            file.lock().map_err(|e| Error::io(&path, "lock", e))?;
        }
        // A file system without locks: the checksum still keeps what is wrong out.
        Ok(file)
    }

    fn download(&self, blob: &Path, size: u64, expected: &Expected, on: &mut dyn FnMut(Event)) -> Result<()> {
        let mut name = blob.as_os_str().to_owned();
        name.push(".incomplete");
        let path = Path::new(&name);
        let io = |action| move |e| Error::io(path, action, e);
        let open = File::options().create(true).read(true).write(true).truncate(false).open(path);
        let mut file = open.map_err(io("create"))?;
        loop {
            let mut hasher = expected.hasher(size);
            let resumed = resume(&mut file, size, &mut hasher).map_err(io("read"))?;
            on(Event::Begin { file: &self.entry.path, bytes: size, from: resumed });
            let result = self.receive(&mut file, path, size, resumed, expected, &mut hasher, on);
            match result.and_then(|()| hasher.check(expected, &self.entry.path)) {
                Ok(()) => break,
                // What was there before may be what is wrong: once more from the start.
                Err(Error::Checksum { .. }) if resumed > 0 => {
                    on(Event::Warning(format!("{}: the part from before was damaged, starting anew", self.entry.path)));
                    file.set_len(0).map_err(io("write"))?;
                }
                Err(e) => {
                    if matches!(e, Error::Checksum { .. } | Error::Size { .. }) {
                        drop(file);
                        let _ = fs::remove_file(path);
                    }
                    return Err(e);
                }
            }
        }
        file.sync_all().map_err(io("write"))?;
        drop(file);
        fs::rename(path, blob).map_err(|e| Error::io(blob, "rename the download to", e))
    }

    /// Receives what is missing, over as many connections as it takes; gives up after some without a byte.
    #[allow(clippy::too_many_arguments)]
    fn receive(
        &self,
        file: &mut File,
        path: &Path,
        size: u64,
        mut at: u64,
        expected: &Expected,
        hasher: &mut Hasher,
        on: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let mut tries = 0;
        while at < size {
            let before = at;
            let result = self.connection(file, path, size, &mut at, expected, hasher, on);
            if at > before {
                tries = 0;
            }
            if let Err(trouble) = result {
                self.client.wait(trouble, &mut tries, on)?;
            }
        }
        Ok(())
    }

    /// One connection: appends what it brings, and moves `at` along.
    #[allow(clippy::too_many_arguments)]
    fn connection(
        &self,
        file: &mut File,
        path: &Path,
        size: u64,
        at: &mut u64,
        expected: &Expected,
        hasher: &mut Hasher,
        on: &mut dyn FnMut(Event),
    ) -> Attempt<()> {
        let name = self.entry.path.as_str();
        let io = |action| move |e| Error::io(path, action, e);
        let (url, response) = self.client.get(self.repo, self.commit, name, *at)?;
        let shown = url.split('?').next().unwrap_or(&url).to_owned();
        let found = match response.status().as_u16() {
            206 => {
                let range = response.headers().get("content-range").and_then(|v| v.to_str().ok());
                let (from, total) =
                    range.and_then(content_range).ok_or_else(|| Error::protocol(&shown, "no Content-Range"))?;
                if from != *at {
                    return Err(Error::protocol(&shown, format_args!("sends from byte {from}, not {at}")).into());
                }
                total
            }
            200 => {
                // A server without ranges sends everything again.
                if *at > 0 {
                    file.set_len(0).map_err(io("write"))?;
                    (*at, *hasher) = (0, expected.hasher(size));
                }
                number(response.headers(), "content-length")
            }
            status => return Err(Error::Status { url: shown, status, message: String::new() }.into()),
        };
        if let Some(found) = found.filter(|f| *f != size) {
            return Err(Error::Size { file: name.to_owned(), expected: size, found }.into());
        }
        file.seek(SeekFrom::Start(*at)).map_err(io("write"))?;
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) if *at < size => return Err(Trouble::Again(network(&shown, "the connection broke off"))),
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Trouble::Again(network(&shown, e))),
            };
            if n as u64 > size - *at {
                return Err(Error::Size { file: name.to_owned(), expected: size, found: *at + n as u64 }.into());
            }
            file.write_all(&buffer[..n]).map_err(io("write"))?;
            hasher.update(&buffer[..n]);
            *at += n as u64;
            on(Event::Progress { file: name, bytes: *at, of: size });
        }
    }
}

/// Hashes what an earlier download left, and returns its length; 0 where it is longer than the file.
fn resume(file: &mut File, size: u64, hasher: &mut Hasher) -> std::io::Result<u64> {
    let there = file.metadata()?.len();
    if there > size {
        file.set_len(0)?;
        return Ok(0);
    }
    file.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < there {
        match file.read(&mut buffer)? {
            0 => break,
            n => {
                hasher.update(&buffer[..n]);
                at += n as u64;
            }
        }
    }
    Ok(at)
}

/// First byte and whole length of `bytes 5-9/10`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let from = range.split_once('-')?.0.parse().ok()?;
    Some((from, total.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_list_or_of_the_etag() {
        let (a, b, git) = ("a".repeat(64), "b".repeat(64), "c".repeat(40));
        let entry = |sha256: Option<&str>, git: Option<&str>| Entry {
            path: "f".into(),
            sha256: sha256.map(str::to_owned),
            git: git.map(str::to_owned),
            ..Entry::default()
        };
        assert_eq!(Expected::new(&entry(None, None), &a), Ok(Expected::Sha256(a.clone())));
        assert_eq!(Expected::new(&entry(Some(&a), Some(&git)), "weak"), Ok(Expected::Sha256(a.clone())));
        assert_eq!(Expected::new(&entry(None, Some(&git)), "x"), Ok(Expected::Git(git.clone())));
        assert_eq!(Expected::new(&entry(None, None), &git), Ok(Expected::Git(git)));
        assert_eq!(Expected::new(&entry(None, None), "x"), Ok(Expected::None));
        assert!(Expected::new(&entry(Some(&a), None), &b).is_err());
    }

    #[test]
    fn a_git_object_has_its_known_hash() {
        // `printf 'hello\n' | git hash-object --stdin`
        let expected = Expected::Git("ce013625030ba8dba906f756967f9e9ca394464a".into());
        let mut hasher = expected.hasher(6);
        hasher.update(b"hello\n");
        hasher.check(&expected, "f").unwrap();
        assert!(expected.hasher(6).check(&expected, "f").is_err());
    }

    #[test]
    fn ranges() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(content_range("bytes */10"), None);
    }
}
