//! Models by name: pulled from a local hub, found by every verb, listed, shown and removed.

#[path = "../../hub/tests/server/mod.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use server::{Fault, Hub};

struct Machine {
    hub: Hub,
    home: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        Machine { hub: Hub::start(), home: tempfile::tempdir().unwrap() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imaginal"));
        command.args(args).stdin(Stdio::null()).current_dir(self.home.path());
        for key in
            ["HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "XDG_CACHE_HOME", "HTTP_PROXY", "http_proxy", "ALL_PROXY"]
        {
            command.env_remove(key);
        }
        command.env("HF_HOME", self.home.path().join("hf")).env("HF_ENDPOINT", &self.hub.endpoint);
        command.env("IMAGINAL_ALIASES", self.home.path().join("config/aliases.toml"));
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> serde_json::Value {
        let out = self.run(&[args, &["--json"]].concat());
        assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    fn fails(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {}", text(&out.stdout));
        text(&out.stderr)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn names(list: &serde_json::Value) -> Vec<&str> {
    list["models"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect()
}

#[test]
fn a_pulled_model_runs_by_its_name_and_by_an_alias() {
    let m = Machine::new();
    m.hub.repo("o/n", &[("n-Q8_0.gguf", imaginal::find::default_model()), ("n-F16.gguf", b"no model")]);
    let generate = |name: &str| {
        let out = m.run(&["run", name, "pub fn parse(", "-n", "12", "--temperature", "0"]);
        (text(&out.stdout), text(&out.stderr))
    };
    let said = generate("o/n:Q8_0").1;
    assert!(said.contains("imaginal pull o/n:Q8_0") && m.hub.log().is_empty(), "{said}");
    assert!(m.fails(&["pull", "nothing"]).contains("no such alias"));
    assert!(m.fails(&["pull", "o/absent"]).contains("no repository o/absent"));

    let pulled = m.json(&["pull", "o/n:Q8_0"]);
    let path = PathBuf::from(pulled["models"][0]["path"].as_str().unwrap());
    assert!(path.starts_with(m.home.path().join("hf/hub/models--o--n/snapshots")));
    assert_eq!(pulled["models"][0]["downloaded"], imaginal::find::default_model().len());
    assert_eq!(m.json(&["pull", "o/n:Q8_0"])["models"][0]["downloaded"], 0);
    m.hub.log();

    assert!(m.run(&["alias", "mine", "o/n:Q8_0"]).status.success());
    let here = generate("default").0;
    assert!(here.len() > 10);
    for name in ["o/n:Q8_0", "o/n", "mine", "o/n:n-Q8_0.gguf"] {
        assert_eq!(generate(name).0, here, "{name}");
    }
    assert_eq!(m.json(&["show", "mine"])["path"], path.to_str().unwrap());
    assert_eq!(m.json(&["tokenize", "mine", "fn"])["count"], m.json(&["tokenize", "default", "fn"])["count"]);
    let morphed = m.run(&["morph", "mine", "q4_0", "small.gguf"]);
    assert!(morphed.status.success(), "{}", text(&morphed.stderr));

    let list = m.json(&["list"]);
    assert_eq!(names(&list), ["default", "o/n:Q8_0", "small.gguf"]);
    let row = &list["models"][1];
    assert_eq!((&row["alias"], &row["format"], &row["known"]), (&"mine".into(), &"q8_0".into(), &true.into()));
    assert!(text(&m.run(&["list"]).stdout).contains("o/n:Q8_0 (mine)"));
    assert!(m.hub.log().is_empty());

    assert!(m.json(&["rm", "mine"])["removed"][0]["bytes"].as_u64().unwrap() > 100_000);
    assert_eq!(names(&m.json(&["list"])), ["default", "small.gguf"]);
    assert!(m.fails(&["rm", "mine"]).contains("is not in"));
}

#[test]
fn a_pulled_directory_loads_and_a_broken_pull_does_not() {
    let m = Machine::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/fixtures/llama-plain");
    let files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| !p.ends_with("model.gguf"))
        .map(|p| (p.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&p).unwrap()))
        .collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
    m.hub.repo("o/tiny", &files);
    m.hub.fault("GET .safetensors?Signature", 1, Fault::Corrupt);
    assert!(m.fails(&["pull", "o/tiny"]).contains("SHA-256"));
    assert!(m.fails(&["show", "o/tiny"]).contains("imaginal pull o/tiny"));
    assert_eq!(names(&m.json(&["list"])), ["default"]);

    assert!(m.run(&["pull", "o/tiny"]).status.success());
    assert_eq!(m.json(&["show", "o/tiny"])["architecture"], "llama");
    let list = m.json(&["list"]);
    assert_eq!(names(&list), ["default", "o/tiny:safetensors"]);
    assert_eq!(list["models"][1]["architecture"], "llama");
    let out = m.home.path().join("l.safetensors");
    assert!(m.run(&["logits", "o/tiny", "--tokens", "1,2,3", "--out", out.to_str().unwrap()]).status.success());
}

#[test]
fn offline_and_a_registry_of_ones_own() {
    let m = Machine::new();
    m.hub.repo("team/n", &[("n-Q8_0.gguf", imaginal::find::default_model())]);
    m.hub.private("lab secret");
    let said = m.command(&["pull", "team/n"]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert!(text(&said.stderr).contains("HF_HUB_OFFLINE") && m.hub.log().is_empty());

    std::fs::create_dir(m.home.path().join("config")).unwrap();
    let config = format!("[registries.lab]\nendpoint = \"{}\"\ntoken_env = \"LAB_TOKEN\"\n", m.hub.endpoint);
    std::fs::write(m.home.path().join("config/aliases.toml"), config).unwrap();
    let lab = |token: &str| {
        m.command(&["pull", "lab://team/n"]).env("HF_TOKEN", "for others").env(token, "lab secret").output().unwrap()
    };
    let refused = lab("OTHER_TOKEN");
    assert!(!refused.status.success());
    assert!(m.hub.log().iter().all(|r| r.authorization.is_none()));
    let pulled = lab("LAB_TOKEN");
    assert!(pulled.status.success(), "{}", text(&pulled.stderr));
    assert_eq!(m.json(&["show", "lab://team/n"])["architecture"], m.json(&["show", "default"])["architecture"]);
    assert!(m.home.path().join("hf/registries/lab/models--team--n").is_dir());
    assert_eq!(names(&m.json(&["list"])), ["default", "lab://team/n:Q8_0"]);
    assert!(m.fails(&["pull", "other://team/n"]).contains("lab"));
}
