//! Which files are trained on.
//!
//! The list does not depend on the file system's order, on the machine's own git settings, nor on whether a folder is
//! inside a git repository: the same files give the same list, and so the same model.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use ignore::overrides::OverrideBuilder;

use crate::rng::{FNV_START, fnv1a, stable_hash};
use crate::{Error, Result};

/// What is taken from the folders.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// File name extensions without the dot; empty: every text file.
    pub extensions: Vec<String>,
    /// Globs in the syntax of .gitignore; where any are given, only files that match one are taken. A leading `!`
    /// excludes what matches.
    pub globs: Vec<String>,
    /// Larger files are left out (generated tables, lock files, dumps).
    pub max_file_bytes: u64,
}

/// One text to train on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Where to read it.
    pub path: PathBuf,
    /// Its name within the data: relative to the deepest folder that holds all of it, with `/` between the parts.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    hash: u128,
}

/// What a walk found and left out.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The texts, ordered by name.
    pub files: Vec<SourceFile>,
    /// Files left out as binary: they hold a NUL byte or are not UTF-8.
    pub binary: usize,
    /// Files left out because they are too large.
    pub too_large: usize,
    /// Files left out because an earlier one has the same content.
    pub duplicates: usize,
}

impl Found {
    /// Bytes of all texts together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }
}

/// Finds the texts under `roots` (folders, or single files, which are taken whatever their name). Hidden files, files
/// that a .gitignore or .ignore names, binaries, empty files and repeated contents are left out.
///
/// # Errors
/// A root cannot be read, a glob is wrong, or nothing is left to train on.
pub fn walk(roots: &[PathBuf], selection: &Selection) -> Result<Found> {
    let mut paths = Vec::new();
    for root in roots {
        let root = std::fs::canonicalize(root).map_err(Error::io("read", root))?;
        if root.is_file() {
            paths.push(root);
        } else {
            list(&root, selection, &mut paths)?;
        }
    }
    paths.sort_unstable();
    paths.dedup();
    let common = common_folder(&paths);
    let mut found = Found::default();
    for path in paths {
        let size = std::fs::metadata(&path).map_err(Error::io("read", &path))?.len();
        if size > selection.max_file_bytes {
            found.too_large += 1;
        } else if size > 0 {
            match read_text(&path)? {
                None => found.binary += 1,
                Some(text) => found.files.push(SourceFile {
                    name: relative_name(&path, &common),
                    bytes: text.len() as u64,
                    hash: content_hash(text.as_bytes()),
                    path,
                }),
            }
        }
    }
    // By name, not by path: `/` sorts among the other characters in a path, and differently elsewhere.
    found.files.sort_by(|a, b| a.name.split('/').cmp(b.name.split('/')));
    let mut seen = HashMap::new();
    let before = found.files.len();
    found.files.retain(|f| seen.insert(f.hash, ()).is_none());
    found.duplicates = before - found.files.len();
    if found.files.is_empty() {
        let root = roots.first().cloned().unwrap_or_default();
        let wanted = match selection.extensions.as_slice() {
            [] => "text files".to_owned(),
            list => format!("text files ending in .{}", list.join(", .")),
        };
        return Err(Error::data(
            root,
            format!(
                "no {wanted} to train on ({} binary, {} over {} bytes); check the folder, --extensions, --glob and \
                 --max-file-bytes",
                found.binary, found.too_large, selection.max_file_bytes
            ),
        ));
    }
    Ok(found)
}

/// Reads a file if it is text: UTF-8 without a NUL byte.
///
/// # Errors
/// The file cannot be read.
pub fn read_text(path: &Path) -> Result<Option<String>> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    Ok(if bytes.contains(&0) { None } else { String::from_utf8(bytes).ok() })
}

fn list(root: &Path, selection: &Selection, paths: &mut Vec<PathBuf>) -> Result<()> {
    let mut globs = OverrideBuilder::new(root);
    for glob in &selection.globs {
        globs.add(glob).map_err(|e| Error::option("glob", format!("{glob:?}: {e}")))?;
    }
    let globs = globs.build().map_err(|e| Error::option("glob", e.to_string()))?;
    let walker = WalkBuilder::new(root)
        .hidden(true)
        .require_git(false)
        // The user's own ignore file and a clone's private excludes would make runs differ between machines.
        .git_global(false)
        .git_exclude(false)
        .overrides(globs)
        .build();
    for entry in walker {
        let entry = entry.map_err(|e| Error::data(root, format!("cannot read the folder: {e}")))?;
        if !entry.file_type().is_some_and(|t| t.is_file()) {
            continue;
        }
        let extension = entry.path().extension().and_then(|e| e.to_str()).unwrap_or("");
        if selection.extensions.is_empty() || selection.extensions.iter().any(|e| e == extension) {
            paths.push(entry.into_path());
        }
    }
    Ok(())
}

/// The deepest folder that holds all paths.
fn common_folder(paths: &[PathBuf]) -> PathBuf {
    let mut folders = paths.iter().filter_map(|p| p.parent());
    let Some(first) = folders.next() else { return PathBuf::new() };
    folders.fold(first.to_path_buf(), |common, folder| {
        common.components().zip(folder.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
    })
}

fn relative_name(path: &Path, common: &Path) -> String {
    let parts = path.strip_prefix(common).unwrap_or(path).components();
    parts.map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// 128 bits from two differently seeded hashes: no two texts of a corpus collide by chance.
fn content_hash(bytes: &[u8]) -> u128 {
    let second = fnv1a(FNV_START ^ 0x5851_F42D_4C95_7F2D, bytes) ^ (bytes.len() as u64).rotate_left(32);
    (u128::from(stable_hash(bytes)) << 64) | u128::from(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection() -> Selection {
        Selection { extensions: vec![], globs: vec![], max_file_bytes: 1000 }
    }

    fn write(dir: &Path, files: &[(&str, &[u8])]) {
        for (name, bytes) in files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    fn names(found: &Found) -> Vec<&str> {
        found.files.iter().map(|f| f.name.as_str()).collect()
    }

    #[test]
    fn takes_text_and_respects_gitignore_outside_a_repository() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[
                (".gitignore", b"target/\n*.log\n"),
                ("src/b.rs", b"fn b() {}"),
                ("src/a.rs", b"fn a() {}"),
                ("src/a/z.rs", b"fn z() {}"),
                ("src/.hidden.rs", b"fn hidden() {}"),
                ("target/built.rs", b"fn built() {}"),
                ("x.log", b"noise"),
                ("picture.png", b"\x89PNG\0\0"),
                ("latin1.txt", b"caf\xe9"),
                ("big.txt", &[b'x'; 1001]),
                ("empty.txt", b""),
                ("copy.rs", b"fn a() {}"),
            ],
        );
        let found = walk(&[dir.path().to_path_buf()], &selection()).unwrap();
        assert_eq!(names(&found), ["copy.rs", "src/a/z.rs", "src/b.rs"]);
        assert_eq!((found.binary, found.too_large, found.duplicates), (2, 1, 1));
        assert_eq!(found.bytes(), 27);
    }

    #[test]
    fn extensions_globs_and_single_files() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[("a.rs", b"1"), ("b.py", b"2"), ("tests/c.rs", b"3"), ("tests/d.md", b"4")]);
        let root = [dir.path().to_path_buf()];
        let rust = Selection { extensions: vec!["rs".into()], ..selection() };
        assert_eq!(names(&walk(&root, &rust).unwrap()), ["a.rs", "tests/c.rs"]);
        let without = Selection { globs: vec!["!tests".into()], ..selection() };
        assert_eq!(names(&walk(&root, &without).unwrap()), ["a.rs", "b.py"]);
        let only = Selection { globs: vec!["tests/**".into()], ..rust.clone() };
        assert_eq!(names(&walk(&root, &only).unwrap()), ["c.rs"]);
        assert_eq!(names(&walk(&[dir.path().join("b.py"), dir.path().join("a.rs")], &rust).unwrap()), ["a.rs", "b.py"]);
    }

    #[test]
    fn says_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let error = walk(&[dir.path().join("nowhere")], &selection()).unwrap_err().to_string();
        assert!(error.contains("nowhere") && error.contains("check the path"), "{error}");
        write(dir.path(), &[("b.py", b"2")]);
        let rust = Selection { extensions: vec!["rs".into()], ..selection() };
        let error = walk(&[dir.path().to_path_buf()], &rust).unwrap_err().to_string();
        assert!(error.contains(".rs") && error.contains("--extensions"), "{error}");
        let bad = Selection { globs: vec!["a{".into()], ..selection() };
        assert!(matches!(walk(&[dir.path().to_path_buf()], &bad), Err(Error::Option { name: "glob", .. })));
    }
}
