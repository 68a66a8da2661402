//! Which files are held out of training to measure what the model has learned.
//!
//! Files are held out by group, a top-level folder (for a registry of crates: all versions of one crate), because the
//! files of one project repeat each other and would flatter the measurement.

use std::collections::BTreeMap;

use ignore::gitignore::GitignoreBuilder;

use crate::data::walk::SourceFile;
use crate::rng::stable_hash;
use crate::{Error, Result};

/// How the held-out files are chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum HeldOut {
    /// About this share of the groups, chosen by a hash of their names.
    Fraction(f64),
    /// The files that match one of these patterns (in the syntax of .gitignore), for instance the name of a folder.
    Patterns(Vec<String>),
}

/// The two parts of the data.
#[derive(Clone, Debug)]
pub struct Split {
    /// What is trained on, ordered by name.
    pub train: Vec<SourceFile>,
    /// What is measured on, ordered by name.
    pub held_out: Vec<SourceFile>,
}

/// Splits the files. With [`HeldOut::Fraction`] both parts get at least one group where there are two; a fraction of
/// zero holds nothing out.
///
/// # Errors
/// A pattern is wrong or matches nothing, or nothing is left to train on.
pub fn split(files: Vec<SourceFile>, held_out: &HeldOut) -> Result<Split> {
    let is_held_out: Box<dyn Fn(&SourceFile) -> bool> = match held_out {
        HeldOut::Fraction(fraction) => {
            if !(0.0..1.0).contains(fraction) {
                return Err(Error::option("held-out", format!("{fraction} is not a share from 0 to below 1")));
            }
            let (depth, chosen) = chosen_groups(&files, *fraction);
            Box::new(move |f| chosen.contains(&group(&f.name, depth)))
        }
        HeldOut::Patterns(patterns) => {
            let mut builder = GitignoreBuilder::new("");
            for pattern in patterns {
                builder.add_line(None, pattern).map_err(|e| Error::option("held-out", format!("{pattern:?}: {e}")))?;
            }
            let matcher = builder.build().map_err(|e| Error::option("held-out", e.to_string()))?;
            let matches = move |f: &SourceFile| matcher.matched_path_or_any_parents(&f.name, false).is_ignore();
            if !files.iter().any(&matches) {
                return Err(Error::option(
                    "held-out",
                    format!(
                        "{} matches no file; patterns are matched against names like {}",
                        patterns.join(", "),
                        files.first().map_or("", |f| &f.name)
                    ),
                ));
            }
            Box::new(matches)
        }
    };
    let (held_out, train): (Vec<_>, Vec<_>) = files.into_iter().partition(|f| is_held_out(f));
    if train.is_empty() {
        return Err(Error::option("held-out", "every file is held out; nothing is left to train on"));
    }
    Ok(Split { train, held_out })
}

/// The groups of the smallest hashes; and how many leading parts of a name make its group: as few as give eight groups
/// (a project with one `src` folder is split below it), or the whole name.
fn chosen_groups(files: &[SourceFile], fraction: f64) -> (usize, Vec<String>) {
    const ENOUGH: usize = 8;
    let deepest = files.iter().map(|f| f.name.split('/').count()).max().unwrap_or(1);
    let groups_at = |depth| {
        let mut groups = BTreeMap::<String, u64>::new();
        for f in files {
            let group = group(&f.name, depth);
            groups.entry(group).or_insert_with_key(|g| stable_hash(g.as_bytes()));
        }
        groups
    };
    let depth = (1..=deepest).find(|&d| groups_at(d).len() >= ENOUGH).unwrap_or(deepest);
    let mut groups: Vec<(u64, String)> = groups_at(depth).into_iter().map(|(name, hash)| (hash, name)).collect();
    groups.sort_unstable();
    let count = match (fraction * groups.len() as f64).round() as usize {
        0 if fraction > 0.0 => 1,
        n => n,
    };
    groups.truncate(count.min(groups.len().saturating_sub(1)));
    (depth, groups.into_iter().map(|(_, name)| name).collect())
}

/// The first `depth` parts of a name, a version at the end of the folder's name (`serde-1.0.219`) left off so that
/// versions of one project are never on both sides.
fn group(name: &str, depth: usize) -> String {
    let parts: Vec<&str> = name.split('/').collect();
    let is_file = parts.len() <= depth;
    let mut group = parts[..depth.min(parts.len())].to_vec();
    if let (false, Some(last)) = (is_file, group.last_mut()) {
        *last = without_version(last);
    }
    group.join("/")
}

fn without_version(folder: &str) -> &str {
    let is_version = |tail: &str| {
        let mut numbers = tail.trim_start_matches('v').splitn(3, '.');
        let is_number = |s: Option<&str>| s.is_some_and(|s| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()));
        is_number(numbers.next()) && is_number(numbers.next())
    };
    match folder.match_indices('-').find(|&(i, _)| is_version(&folder[i + 1..])) {
        Some((i, _)) if i > 0 => &folder[..i],
        _ => folder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::walk::{Selection, walk};

    fn files(names: &[&str]) -> Vec<SourceFile> {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        let all = Selection { extensions: vec![], globs: vec![], max_file_bytes: 1000 };
        walk(&[dir.path().to_path_buf()], &all).unwrap().files
    }

    fn names(files: &[SourceFile]) -> Vec<&str> {
        files.iter().map(|f| f.name.as_str()).collect()
    }

    #[test]
    fn versions_of_a_folder_are_one_group() {
        for (name, depth, expected) in [
            ("serde-1.0.219/src/lib.rs", 1, "serde"),
            ("tower-http-0.6.2/src/lib.rs", 1, "tower-http"),
            ("x-2.0.0-rc.3/a.rs", 1, "x"),
            ("utf-8-0.7.6/a.rs", 1, "utf-8"),
            ("no-version/a.rs", 1, "no-version"),
            ("notes-1.2.md", 1, "notes-1.2.md"),
            ("src/a-1.0/b.rs", 2, "src/a"),
        ] {
            assert_eq!(group(name, depth), expected);
        }
    }

    #[test]
    fn a_fraction_takes_whole_folders_and_never_all() {
        let many: Vec<String> =
            (0..40).flat_map(|i| [format!("c{i}-0.1.0/a.rs"), format!("c{i}-0.2.0/b.rs")]).collect();
        let many = files(&many.iter().map(String::as_str).collect::<Vec<_>>());
        let parts = split(many.clone(), &HeldOut::Fraction(0.1)).unwrap();
        assert_eq!((parts.held_out.len(), parts.train.len()), (8, 72));
        let crates = |f: &[SourceFile]| f.iter().map(|f| group(&f.name, 1)).collect::<std::collections::BTreeSet<_>>();
        assert!(crates(&parts.train).is_disjoint(&crates(&parts.held_out)));
        // The choice is a matter of names alone.
        let again = split(many.into_iter().rev().collect(), &HeldOut::Fraction(0.1)).unwrap();
        assert_eq!(crates(&again.held_out), crates(&parts.held_out));

        let two = split(files(&["a.txt", "b.txt"]), &HeldOut::Fraction(0.01)).unwrap();
        assert_eq!((two.train.len(), two.held_out.len()), (1, 1));
        assert_eq!(split(files(&["a.txt"]), &HeldOut::Fraction(0.5)).unwrap().train.len(), 1);
        assert!(split(files(&["a.txt", "b.txt"]), &HeldOut::Fraction(0.0)).unwrap().held_out.is_empty());
    }

    #[test]
    fn one_folder_is_split_below() {
        let names: Vec<String> = (0..20).map(|i| format!("src/m{i}.rs")).chain(["Cargo.toml".into()]).collect();
        let parts =
            split(files(&names.iter().map(String::as_str).collect::<Vec<_>>()), &HeldOut::Fraction(0.1)).unwrap();
        assert_eq!(parts.held_out.len(), 2);
    }

    #[test]
    fn patterns_choose_by_name() {
        let all = files(&["a-1.0/x.rs", "b/y.rs", "b/z.md"]);
        let pick =
            |p: &str| split(all.clone(), &HeldOut::Patterns(vec![p.into()])).map(|s| names(&s.held_out).join(" "));
        assert_eq!(pick("b").unwrap(), "b/y.rs b/z.md");
        assert_eq!(pick("*.md").unwrap(), "b/z.md");
        assert_eq!(pick("a-*/").unwrap(), "a-1.0/x.rs");
        assert!(pick("nothing").unwrap_err().to_string().contains("a-1.0/x.rs"));
        assert!(pick("*").unwrap_err().to_string().contains("nothing is left"));
    }
}
