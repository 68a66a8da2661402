//! Pulls from a local hub: what arrives, what is asked for, and what happens when everything breaks.

mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use imaginal_hub::{Aliases, Cache, Error, Event, Located, Result, Settings, Target, Token, find, pull};
use server::{Fault, Hub, git, sha256};

struct Place {
    hub: Hub,
    dir: tempfile::TempDir,
    settings: Settings,
}

fn place() -> Place {
    let (hub, dir) = (Hub::start(), tempfile::tempdir().unwrap());
    let mut settings = Settings::from(Some(dir.path().into()), |_| None).unwrap();
    settings.endpoint = hub.endpoint.clone();
    settings.cache = Cache::new(dir.path().join("hub"));
    settings.pause = Duration::from_millis(1);
    settings.timeout = Duration::from_secs(5);
    Place { hub, dir, settings }
}

impl Place {
    fn pull(&self, name: &str) -> Result<Located> {
        self.events(name).0
    }

    fn events(&self, name: &str) -> (Result<Located>, Vec<String>) {
        let mut events = Vec::new();
        let result = pull(&Target::parse(name).unwrap(), name, &self.settings, &mut |e| match e {
            Event::Progress { .. } => {}
            e => events.push(format!("{e:?}")),
        });
        (result, events)
    }

    fn find(&self, name: &str) -> Result<Option<Located>> {
        let aliases = Aliases::open(&self.settings.aliases).unwrap();
        find(name, &aliases, &self.settings)
    }

    fn repo(&self) -> PathBuf {
        self.settings.cache.root().join("models--o--n")
    }

    /// Everything below the folder, as paths.
    fn all(&self) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => walk(&entry.path(), found),
                    false => found.push(entry.path().to_string_lossy().into_owned()),
                }
            }
        }
        let mut found = Vec::new();
        walk(self.dir.path(), &mut found);
        found
    }

    fn incomplete(&self) -> Vec<String> {
        self.all().into_iter().filter(|p| p.ends_with(".incomplete")).collect()
    }
}

/// Content that no two offsets share.
fn content(length: usize, seed: u32) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(2654435761).wrapping_add(seed) >> 13) as u8).collect()
}

#[test]
fn a_pull_makes_the_standard_layout_and_is_found_without_a_network() {
    let p = place();
    let (a, b) = (content(300_000, 1), content(1000, 2));
    let commit = p.hub.repo("o/n", &[("n-Q8_0.gguf", &b), ("n-Q4_K_M.gguf", &a), ("README.md", b"hi")]);
    let located = p.pull("o/n").unwrap();
    assert_eq!(std::fs::read(&located.path).unwrap(), a);
    assert_eq!((located.bytes, located.commit.as_str()), (300_000, commit.as_str()));

    let link = p.repo().join("snapshots").join(&commit).join("n-Q4_K_M.gguf");
    assert_eq!(located.path, link);
    assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("../../blobs").join(sha256(&a)));
    assert_eq!(std::fs::read_to_string(p.repo().join("refs/main")).unwrap(), commit);
    assert!(p.settings.cache.root().join(".locks/models--o--n").join(format!("{}.lock", sha256(&a))).exists());
    assert!(p.incomplete().is_empty() && p.all().iter().all(|f| !f.contains("README")));

    // The hub stays silent from here on.
    p.hub.log();
    for name in ["o/n", "o/n:Q4_K_M", "o/n:n-Q4_K_M.gguf", "o/n@main", &format!("o/n@{commit}")] {
        assert_eq!(p.find(name).unwrap().unwrap().path, link, "{name}");
    }
    assert!(matches!(p.find("o/n:Q8_0"), Err(Error::NotCached { .. })));
    assert!(matches!(p.find("o/m"), Err(Error::NotCached { .. })));
    assert!(p.find("n").unwrap().is_none() && p.hub.log().is_empty());

    // Again: asked, but not downloaded.
    let (again, events) = p.events("o/n");
    assert_eq!(again.unwrap().path, link);
    assert!(events.iter().any(|e| e.contains("cached: true")), "{events:?}");
    assert!(p.hub.log().iter().all(|r| !r.cdn));
}

#[test]
fn a_folder_of_the_repository_and_a_link_into_it() {
    let p = place();
    let parts = [content(10, 1), content(20, 2)];
    let name = |i: usize| format!("F16/n with space-F16-{i:05}-of-00002.gguf");
    let (first, second) = (name(1), name(2));
    p.hub.repo("o/n", &[(&second, &parts[1]), (&first, &parts[0]), ("n-Q4_0.gguf", b"q")]);
    let located = p.pull("o/n:f16").unwrap();
    assert_eq!(located.files.len(), 2);
    assert!(located.path.ends_with(&first) && std::fs::read(&located.path).unwrap() == parts[0]);
    assert!(std::fs::read_link(&located.path).unwrap().starts_with("../../../blobs"));
    // A part that is lost makes the model one that is not there.
    std::fs::remove_file(&located.files[1]).unwrap();
    assert!(matches!(p.find("o/n:F16"), Err(Error::NotCached { .. })));
    assert_eq!(p.settings.cache.scan().len(), 0);
}

#[test]
fn a_repository_of_safetensors_gives_its_set_and_nothing_else() {
    let p = place();
    let index = br#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#;
    let (one, two) = (content(500, 1), content(600, 2));
    let commit = p.hub.repo(
        "o/n",
        &[
            ("pytorch_model.bin", b"no"),
            ("config.json", br#"{"model_type":"llama"}"#),
            ("model-00001-of-00002.safetensors", &one),
            ("model-00002-of-00002.safetensors", &two),
            ("model.safetensors.index.json", index),
            ("onnx/config.json", b"no"),
            ("tokenizer.json", b"{}"),
        ],
    );
    let located = p.pull("o/n").unwrap();
    assert_eq!(located.path, p.repo().join("snapshots").join(&commit));
    assert_eq!(std::fs::read(located.path.join("model-00002-of-00002.safetensors")).unwrap(), two);
    // Small files are named by git's hash.
    assert!(p.repo().join("blobs").join(git(index)).is_file());
    assert_eq!(std::fs::read_dir(p.repo().join("blobs")).unwrap().count(), 5);
    assert_eq!(p.find("o/n").unwrap().unwrap().files.len(), 5);
}

#[test]
fn a_cut_connection_is_resumed_where_it_broke() {
    let p = place();
    let bytes = content(2_000_000, 3);
    p.hub.repo("o/n", &[("n.gguf", &bytes)]);
    p.hub.fault("GET n.gguf?Signature", 1, Fault::Cut(700_000));
    p.hub.fault("GET n.gguf?Signature", 1, Fault::Cut(600_000));
    let (result, events) = p.events("o/n");
    assert_eq!(std::fs::read(result.unwrap().path).unwrap(), bytes);
    assert_eq!(events.iter().filter(|e| e.starts_with("Waiting")).count(), 2, "{events:?}");
    let ranges: Vec<String> = p.hub.log().into_iter().filter(|r| r.cdn).map(|r| r.range.unwrap()).collect();
    assert_eq!(ranges, ["bytes=0-", "bytes=700000-", "bytes=1300000-"]);
}

#[test]
fn a_pull_that_broke_off_leaves_no_model_and_goes_on_later() {
    let p = place();
    let bytes = content(1_000_000, 4);
    p.hub.repo("o/n", &[("n.gguf", &bytes)]);
    p.hub.fault("GET n.gguf?Signature", 1, Fault::Cut(400_000));
    p.hub.fault("GET n.gguf?Signature", 20, Fault::Status(503, vec![]));
    assert!(matches!(p.pull("o/n"), Err(Error::Status { status: 503, .. })));
    assert_eq!(p.incomplete().len(), 1);
    assert!(!p.repo().join("blobs").join(sha256(&bytes)).exists() && !p.repo().join("refs").exists());
    assert!(matches!(p.find("o/n"), Err(Error::NotCached { .. })) && p.settings.cache.scan().is_empty());

    let p = Place { hub: Hub::start(), ..p };
    let mut settings = p.settings.clone();
    settings.endpoint = p.hub.endpoint.clone();
    p.hub.repo("o/n", &[("n.gguf", &bytes)]);
    let p = Place { settings, ..p };
    let (result, events) = p.events("o/n");
    assert_eq!(std::fs::read(result.unwrap().path).unwrap(), bytes);
    assert!(events.iter().any(|e| e.contains("from: 400000")), "{events:?}");
    assert!(p.hub.log().iter().any(|r| r.cdn && r.range.as_deref() == Some("bytes=400000-")));
    assert!(p.incomplete().is_empty());
}

#[test]
fn a_wrong_checksum_is_an_error_and_leaves_nothing() {
    let p = place();
    let bytes = content(5000, 5);
    p.hub.repo("o/n", &[("n.gguf", &bytes), ("config.json", b"{}"), ("model.safetensors", b"w")]);
    p.hub.fault("GET n.gguf?Signature", 1, Fault::Corrupt);
    let e = p.pull("o/n").unwrap_err();
    assert!(matches!(&e, Error::Checksum { kind: "SHA-256", expected, .. } if *expected == sha256(&bytes)), "{e}");
    // Small files have git's hash.
    p.hub.fault("GET /kept/", 1, Fault::Corrupt);
    assert!(matches!(p.pull("o/n:safetensors"), Err(Error::Checksum { kind: "SHA-1 (git)", .. })));
    assert_eq!(std::fs::read_dir(p.repo().join("blobs")).unwrap().count(), 0);
    assert!(matches!(p.find("o/n"), Err(Error::NotCached { .. })));
    assert_eq!(std::fs::read(p.pull("o/n").unwrap().path).unwrap(), bytes);
}

#[test]
fn what_an_earlier_download_left_damaged_is_downloaded_anew() {
    let p = place();
    let bytes = content(5000, 6);
    p.hub.repo("o/n", &[("n.gguf", &bytes)]);
    let blobs = p.repo().join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let incomplete = blobs.join(format!("{}.incomplete", sha256(&bytes)));
    for left in [vec![0; 2000], vec![0; 5000], vec![0; 9000]] {
        std::fs::write(&incomplete, &left).unwrap();
        assert_eq!(std::fs::read(p.pull("o/n").unwrap().path).unwrap(), bytes);
        std::fs::remove_dir_all(p.repo().join("snapshots")).unwrap();
        std::fs::remove_file(blobs.join(sha256(&bytes))).unwrap();
    }
    // A blob cut short by somebody else is no blob.
    std::fs::write(blobs.join(sha256(&bytes)), &bytes[..100]).unwrap();
    assert_eq!(std::fs::read(p.pull("o/n").unwrap().path).unwrap(), bytes);
}

#[test]
fn a_wrong_length_is_an_error_and_leaves_nothing() {
    for fault in [Fault::Longer(10), Fault::Endless] {
        let p = place();
        let bytes = content(5000, 7);
        p.hub.repo("o/n", &[("n.gguf", &bytes)]);
        p.hub.fault("GET n.gguf?Signature", 1, fault.clone());
        let e = p.pull("o/n").unwrap_err();
        assert!(matches!(e, Error::Size { expected: 5000, .. }), "{fault:?}: {e}");
        assert!(p.incomplete().is_empty() && matches!(p.find("o/n"), Err(Error::NotCached { .. })));
    }
    let p = place();
    p.hub.repo("o/n", &[("n.gguf", &content(5000, 7))]);
    p.hub.fault("HEAD n.gguf", 1, Fault::Header("X-Linked-Size", "4000".into()));
    assert!(matches!(p.pull("o/n"), Err(Error::Protocol { .. })));
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    let p = place();
    let bytes = content(900_000, 8);
    p.hub.repo("o/n", &[("n.gguf", &bytes)]);
    p.hub.fault("nowhere", 1, Fault::NoRange(500_000));
    p.hub.fault("nowhere", 1, Fault::NoRange(usize::MAX));
    let (result, events) = p.events("o/n");
    assert_eq!(std::fs::read(result.unwrap().path).unwrap(), bytes);
    assert_eq!(events.iter().filter(|e| e.starts_with("Waiting")).count(), 1);
    assert_eq!(p.hub.log().iter().filter(|r| r.cdn).count(), 2);
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let mut p = place();
    p.hub.repo("o/n", &[("n.gguf", b"weights"), ("config.json", b"{}")]);
    p.hub.private("secret");
    let e = p.pull("o/n").unwrap_err();
    assert!(matches!(e, Error::RepositoryNotFound { token: false, .. }) && e.to_string().contains("HF_TOKEN"), "{e}");
    p.settings.token = Token::new("other", "HF_TOKEN");
    let e = p.pull("o/n").unwrap_err();
    assert!(
        matches!(e, Error::Token { .. }) && e.to_string().contains("HF_TOKEN") && !e.to_string().contains("other"),
        "{e}"
    );
    p.hub.log();
    p.settings.token = Token::new("secret", "HF_TOKEN");
    p.pull("o/n").unwrap();
    let log = p.hub.log();
    assert!(log.iter().any(|r| r.cdn) && log.iter().filter(|r| r.cdn).all(|r| r.authorization.is_none()));
    assert!(log.iter().filter(|r| !r.cdn).all(|r| r.authorization.as_deref() == Some("Bearer secret")));
}

#[test]
fn refusals_have_names() {
    let p = place();
    p.hub.repo("o/n", &[("n.gguf", b"weights")]);
    assert!(matches!(p.pull("o/m"), Err(Error::RepositoryNotFound { .. })));
    assert!(matches!(p.pull("o/n@v9"), Err(Error::RevisionNotFound { .. })));
    assert!(matches!(p.pull("o/n:x.gguf"), Err(Error::NoSuchModel { .. })));
    p.hub.list(&["ghost.txt"]);
    assert!(matches!(p.pull("o/n:ghost.txt"), Err(Error::EntryNotFound { .. })));
    assert!(p.pull("o/n@refs/pr/1").is_ok());
    assert!(p.repo().join("refs/refs/pr/1").is_file());
    p.hub.gated();
    let e = p.pull("o/n").unwrap_err();
    assert!(matches!(e, Error::Gated { .. }) && e.to_string().contains("/o/n is gated"), "{e}");
    let nobody = Settings { endpoint: "http://127.0.0.1:1".into(), ..p.settings.clone() };
    let e = pull(&Target::parse("o/n").unwrap(), "o/n", &nobody, &mut |_| {}).unwrap_err();
    assert!(matches!(e, Error::Network { .. }), "{e}");
}

#[test]
fn a_server_that_asks_to_wait_is_waited_for_within_reason() {
    let p = place();
    p.hub.repo("o/n", &[("n.gguf", b"weights")]);
    let asks = |seconds: &str| Fault::Status(429, vec![("Retry-After", seconds.to_owned())]);
    p.hub.fault("/api/models", 2, asks("0"));
    p.hub.fault("GET n.gguf?", 1, Fault::Status(500, vec![]));
    let start = std::time::Instant::now();
    p.hub.fault("HEAD n.gguf", 1, asks("1"));
    let (result, events) = p.events("o/n");
    result.unwrap();
    assert_eq!(events.iter().filter(|e| e.starts_with("Waiting")).count(), 4, "{events:?}");
    assert!(start.elapsed() >= Duration::from_secs(1));
    p.hub.fault("/api/models", 1, asks("86400"));
    assert!(matches!(p.pull("o/n"), Err(Error::TooManyRequests { seconds: 86400, .. })));
    p.hub.fault("/api/models", 99, Fault::Status(502, vec![]));
    assert!(matches!(p.pull("o/n"), Err(Error::Status { status: 502, .. })));
}

#[test]
fn offline_asks_nobody() {
    let mut p = place();
    p.hub.repo("o/n", &[("n.gguf", b"weights")]);
    p.settings.offline = true;
    let e = p.pull("o/n").unwrap_err();
    assert!(matches!(e, Error::Offline { .. }) && e.to_string().contains("HF_HUB_OFFLINE"), "{e}");
    assert!(p.hub.log().is_empty());
    p.settings.offline = false;
    let path = p.pull("o/n").unwrap().path;
    p.hub.log();
    p.settings.offline = true;
    assert_eq!(p.pull("o/n").unwrap().path, path);
    assert!(p.hub.log().is_empty());
}

#[test]
fn names_from_the_server_stay_in_the_cache() {
    let p = place();
    p.hub.repo("o/n", &[("config.json", b"{}"), ("n-Q8_0.gguf", b"weights")]);
    p.hub.list(&[
        "../../../../evil-Q4_K_M.gguf",
        "/tmp/evil-Q4_K_M.gguf",
        "a\\..\\evil-Q4_K_M.gguf",
        "a/../evil-Q4_K_M.gguf",
    ]);
    let (result, events) = p.events("o/n");
    assert!(result.unwrap().path.ends_with("n-Q8_0.gguf"));
    assert!(events.iter().any(|e| e.contains("not used as paths")), "{events:?}");
    for (path, header, value) in [
        ("HEAD resolve", "X-Linked-Etag", "\"../../evil\""),
        ("HEAD resolve", "X-Linked-Etag", ""),
        ("HEAD resolve", "X-Repo-Commit", "../../evil"),
        ("HEAD resolve", "Location", "file:///etc/passwd"),
    ] {
        p.hub.fault(path, 1, Fault::Header(header, value.into()));
        let e = p.pull("o/n:Q8_0").unwrap_err();
        assert!(matches!(e, Error::Protocol { .. }), "{header} {value}: {e}");
    }
    for body in
        [r#"{"sha":"../../evil","siblings":[]}"#, "<html>", r#"{"siblings":[]}"#, r#"{"sha":"0","siblings":[1]}"#]
    {
        p.hub.fault("/api/models", 1, Fault::Body(body));
        let e = p.pull("o/n").unwrap_err();
        assert!(matches!(e, Error::Protocol { .. }), "{body}: {e}");
    }
    let index = br#"{"weight_map":{"a":"../../../../evil.safetensors"}}"#;
    p.hub.repo("o/s", &[("config.json", b"{}"), ("model.safetensors.index.json", index)]);
    let e = p.pull("o/s").unwrap_err().to_string();
    assert!(e.contains("evil"), "{e}");
    assert!(matches!(p.find("o/s"), Err(Error::NotCached { .. })));
    assert!(p.all().iter().all(|f| !f.contains("evil")), "{:?}", p.all());
}

#[test]
fn a_renamed_repository_is_followed() {
    let p = place();
    p.hub.repo("new/n", &[("n.gguf", b"weights"), ("config.json", b"{}")]);
    p.hub.rename("o/n", "new/n");
    assert_eq!(std::fs::read(p.pull("o/n").unwrap().path).unwrap(), b"weights");
    assert!(p.find("o/n").unwrap().is_some());
}

#[test]
fn two_who_pull_the_same_download_it_once() {
    let p = place();
    let bytes = content(3_000_000, 9);
    p.hub.repo("o/n", &[("n.gguf", &bytes)]);
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..3).map(|_| scope.spawn(|| p.pull("o/n").unwrap().path)).collect();
        for path in pulls.into_iter().map(|t| t.join().unwrap()) {
            assert_eq!(std::fs::read(path).unwrap(), bytes);
        }
    });
    assert_eq!(p.hub.log().iter().filter(|r| r.cdn).count(), 1);
}

#[test]
fn a_new_commit_replaces_the_old_one_and_both_are_listed() {
    let p = place();
    let old = p.hub.repo("o/n", &[("n.gguf", b"old weights")]);
    p.pull("o/n").unwrap();
    let new = p.hub.repo("o/n", &[("n.gguf", b"new weights")]);
    assert_eq!(std::fs::read(p.pull("o/n").unwrap().path).unwrap(), b"new weights");
    assert_eq!(std::fs::read(p.find(&format!("o/n@{old}")).unwrap().unwrap().path).unwrap(), b"old weights");
    let mut names: Vec<String> = p.settings.cache.scan().iter().map(|m| m.target(None).to_string()).collect();
    names.sort();
    assert_eq!(names, ["o/n:n.gguf".to_owned(), format!("o/n@{old}:n.gguf")]);
    assert_ne!(old, new);
}

#[test]
fn removing_a_model_leaves_the_others_whole() {
    let p = place();
    let (a, b) = (content(4000, 1), content(5000, 2));
    // The same content under two names is one blob.
    p.hub.repo("o/n", &[("n-Q4_0.gguf", &a), ("n-Q8_0.gguf", &b), ("copy-F16.gguf", &a)]);
    for quantization in ["Q4_0", "Q8_0", "F16"] {
        p.pull(&format!("o/n:{quantization}")).unwrap();
    }
    let remove = |name: &str, all: bool| p.settings.cache.remove(&Target::parse(name).unwrap(), name, all);
    let e = remove("o/n", false).unwrap_err();
    assert!(matches!(&e, Error::Several { choices, .. } if choices.len() == 3), "{e}");
    let removed = remove("o/n:Q4_0", false).unwrap();
    assert_eq!((removed.bytes, removed.files), (0, vec!["n-Q4_0.gguf".to_owned()]));
    assert_eq!(remove("o/n:Q8_0", false).unwrap().bytes, 5000);
    assert!(matches!(remove("o/n:Q8_0", false), Err(Error::NotCached { .. })));
    assert_eq!(std::fs::read(p.find("o/n").unwrap().unwrap().path).unwrap(), a);
    assert_eq!(remove("o/n:F16", false).unwrap().bytes, 4000);
    assert!(!p.repo().exists());

    p.pull("o/n:Q4_0").unwrap();
    p.pull("o/n:Q8_0").unwrap();
    assert!(remove("o/n", true).unwrap().bytes >= 9000);
    assert!(!p.repo().exists() && p.all().iter().all(|f| !f.contains("models--o--n")));
}
