//! Whole runs in temporary directories: to the end, stopped, killed, and into trouble.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use imaginal_models::{LoadOptions, Loaded};
use imaginal_train::eval::{Document, Evaluation};
use imaginal_train::metrics::Metric;
use imaginal_train::{Error, Event, Observer, Silent, TrainOptions, resume, run};

const STEPS: u64 = 30;

/// A folder of small made-up sources, the same every time.
fn corpus(folder: &Path) {
    let mut state = 7u64;
    let mut pick = |words: &[&'static str]| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        words[(state >> 33) as usize % words.len()]
    };
    for project in 0..10 {
        let dir = folder.join(format!("project-{project}"));
        std::fs::create_dir_all(&dir).unwrap();
        for file in 0..3 {
            let mut text = String::new();
            for _ in 0..40 {
                let name = pick(&["parse", "read", "write", "skip", "next"]);
                let kind = pick(&["u32", "String", "Token", "&str"]);
                text += &format!("pub fn {name}_{}(input: {kind}) -> Option<{kind}> {{\n    ", pick(&["all", "one"]));
                text += &format!("input.{name}({})\n}}\n\n", pick(&["0", "1", "\"end\"", "None"]));
            }
            std::fs::write(dir.join(format!("file{file}.rs")), text).unwrap();
        }
    }
}

fn options(data: &Path, out: &Path, arch: &str) -> TrainOptions {
    TrainOptions {
        data: vec![data.to_path_buf()],
        out: out.to_path_buf(),
        arch: arch.into(),
        hidden: Some(32),
        layers: Some(2),
        heads: Some(2),
        kv_heads: Some(1),
        ffn: Some(48),
        state: Some(4),
        vocab: Some(300),
        context: Some(24),
        batch: Some(4),
        accumulate: 2,
        steps: Some(STEPS),
        lr: Some(1e-2),
        held_out_fraction: 0.2,
        eval_every: Some(7),
        eval_bytes: 4000,
        checkpoint_every: Some(4),
        seed: 3,
        ..TrainOptions::default()
    }
}

/// Data and an undisturbed run on it.
fn undisturbed(arch: &str) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    corpus(&data);
    let out = dir.path().join("undisturbed");
    run(options(&data, &out, arch), &mut Silent).unwrap();
    let model = std::fs::read(out.join("model.gguf")).unwrap();
    (dir, data, model)
}

fn metrics(out: &Path) -> Vec<Metric> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// What a run computes, without how fast.
fn computed(out: &Path) -> Vec<Metric> {
    metrics(out).into_iter().map(|m| Metric { tokens_per_second: None, ..m }).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Stops when told to.
struct StopAt(u64, u64);

impl Observer for StopAt {
    fn event(&mut self, event: Event<'_>) {
        if let Event::Metric(m) = event {
            self.1 = m.step;
        }
    }

    fn stop(&mut self) -> bool {
        self.1 >= self.0
    }
}

#[test]
fn a_run_leaves_a_model_that_learned_and_everything_that_was_promised() {
    for arch in ["llama", "mamba"] {
        let (dir, _, _) = undisturbed(arch);
        let out = dir.path().join("undisturbed");
        assert_eq!(
            names(&out),
            [".lock", "checkpoints", "config.json", "data", "loss.png", "metrics.jsonl", "model.gguf"]
        );
        let lines = metrics(&out);
        let steps: Vec<u64> = lines.iter().map(|m| m.step).collect();
        assert_eq!(steps, (0..=STEPS).collect::<Vec<_>>());
        let held_out: Vec<f64> = lines.iter().filter_map(|m| m.held_out_bits_per_byte).collect();
        assert_eq!(held_out.len(), 6, "before, after 7, 14, 21, 28, and at the end");
        assert!(held_out[5] < 0.6 * held_out[0], "{held_out:?}");
        let checkpoints = names(&out.join("checkpoints"));
        assert!((2..=3).contains(&checkpoints.len()), "{checkpoints:?}");
        assert_eq!(checkpoints.last().unwrap(), "step-00000030.safetensors");

        // The file holds what was trained: the same text costs the same bits.
        let loaded = Loaded::open(out.join("model.gguf"), &LoadOptions::default()).unwrap();
        let tokenizer = loaded.tokenizer.unwrap();
        assert_eq!(tokenizer.pre(), Some("qwen2"));
        let text = "pub fn parse_all(input: u32) -> Option<u32> {\n    input.parse(0)\n}\n\n".repeat(8);
        let tokens = tokenizer.encode(&text, false).unwrap();
        assert_eq!(tokenizer.decode(&tokens, false).unwrap(), text);
        let document = Document { tokens, bytes: text.len() as u64 };
        let evaluation = Evaluation::new(&loaded.model, tokenizer.bos().unwrap(), 24);
        let documents = [document];
        let score = evaluation.run(&documents, &mut |_| ()).unwrap().0[0];
        assert!(score.bits_per_byte() < 2.5, "{}", score.bits_per_byte());
        // Beside itself a model diverges by nothing; a smaller stride only adds context.
        let beside = evaluation.clone().against(&loaded.model).unwrap();
        let (scores, divergence) = beside.run(&documents, &mut |_| ()).unwrap();
        assert_eq!((scores[0], divergence.nats.len() as u64), (score, score.tokens));
        assert_eq!((divergence.quantile(1.0), divergence.agreement()), (0.0, 1.0));
        assert!(evaluation.clone().stride(25).is_err());
        let closer = evaluation.stride(1).unwrap().run(&documents, &mut |_| ()).unwrap().0[0];
        assert!(closer.bits_per_byte() < score.bits_per_byte() + 0.02, "{closer:?} {score:?}");
    }
}

#[test]
fn stopped_and_continued_is_the_same_run() {
    for arch in ["llama", "mamba"] {
        let (dir, data, model) = undisturbed(arch);
        let out = dir.path().join("stopped");
        let report = run(options(&data, &out, arch), &mut StopAt(3, 0)).unwrap();
        assert_eq!((report.step, &report.model), (3, &None));
        assert_eq!(resume(&out, None, &mut StopAt(11, 0)).unwrap().step, 11);
        let report = resume(&out, None, &mut Silent).unwrap();
        assert_eq!(report.step, STEPS);
        assert!(std::fs::read(out.join("model.gguf")).unwrap() == model, "{arch}: another model");
        assert_eq!(computed(&out), computed(&dir.path().join("undisturbed")));
        // Once more, when everything is done: nothing changes.
        resume(&out, None, &mut Silent).unwrap();
        assert!(std::fs::read(out.join("model.gguf")).unwrap() == model);
    }
}

#[test]
fn a_level_run_can_be_made_shorter_and_is_the_run_that_was_that_short() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    corpus(&data);
    let make = |name: &str, steps| {
        let out = dir.path().join(name);
        let trapezoid = imaginal_train::schedule::Decay::Trapezoid;
        (TrainOptions { steps: Some(steps), decay: trapezoid, warmup: Some(2), ..options(&data, &out, "llama") }, out)
    };
    let (short, straight) = make("straight", 15);
    run(short, &mut Silent).unwrap();
    let (long, out) = make("changed", 1000);
    run(long, &mut StopAt(9, 0)).unwrap();
    let error = resume(&out, Some(10), &mut Silent).unwrap_err().to_string();
    assert!(error.contains("from step 8") && error.contains("--steps"), "{error}");
    assert_eq!(resume(&out, Some(15), &mut Silent).unwrap().step, 15);
    let model = |out: &Path| std::fs::read(out.join("model.gguf")).unwrap();
    assert!(model(&out) == model(&straight));
}

/// Not a test of its own: what the next test kills.
#[test]
fn child_that_is_killed() {
    let Some(out) = std::env::var_os("IMAGINAL_TEST_RUN").map(PathBuf::from) else { return };
    let data = PathBuf::from(std::env::var_os("IMAGINAL_TEST_DATA").unwrap());
    if out.join("config.json").exists() {
        resume(&out, None, &mut Silent).unwrap();
    } else {
        run(options(&data, &out, "llama"), &mut Silent).unwrap();
    }
}

#[test]
fn killed_at_random_moments_it_ends_in_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    corpus(&data);
    let child = |out: &Path| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_killed"])
            .env("IMAGINAL_TEST_RUN", out)
            .env("IMAGINAL_TEST_DATA", &data)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let straight = dir.path().join("straight");
    assert!(child(&straight).wait().unwrap().success());
    let out = dir.path().join("killed");
    let lines = || std::fs::read(out.join("metrics.jsonl")).map_or(0, |t| t.iter().filter(|b| **b == b'\n').count());
    let mut state = 11u64;
    for kill in 0..10 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut process = child(&out);
        // The first ones die while the data is prepared, the others a little behind a step each further on.
        let (goal, pause) = if kill < 2 { (0, 40 * (kill as u64 + 1)) } else { (2 * (kill - 1), (state >> 33) % 12) };
        while lines() < goal && process.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(pause));
        process.kill().unwrap();
        assert!(!process.wait().unwrap().success(), "it ended before it could be killed");
    }
    assert!(child(&out).wait().unwrap().success());
    let model = |out: &Path| std::fs::read(out.join("model.gguf")).unwrap();
    assert!(model(&out) == model(&straight), "killed and undisturbed runs end in different models");
    assert_eq!(computed(&out), computed(&straight));
    let hidden: Vec<String> = names(&out).into_iter().filter(|n| n.ends_with(".tmp")).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_earlier_ones() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    corpus(&data);
    let out = dir.path().join("run");
    // A folder in the place of a checkpoint: writing it fails at the last moment, when it gets its name.
    let blocked = out.join("checkpoints/step-00000012.safetensors/x");
    std::fs::create_dir_all(&blocked).unwrap();
    let options = TrainOptions { eval_every: Some(1000), ..options(&data, &out, "llama") };
    std::fs::rename(out.join("checkpoints"), dir.path().join("later")).unwrap();
    struct Block(PathBuf, PathBuf);
    impl Observer for Block {
        fn event(&mut self, event: Event<'_>) {
            if let Event::Checkpoint { step: 8 } = event {
                std::fs::rename(self.0.join("step-00000012.safetensors"), self.1.join("step-00000012.safetensors"))
                    .unwrap();
            }
        }
    }
    let error = run(options, &mut Block(dir.path().join("later"), out.join("checkpoints"))).unwrap_err();
    assert!(matches!(error, Error::Save { step: 12, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("step-00000012") && text.contains("step 8 is intact") && text.contains("--resume"), "{text}");
    assert_eq!(
        names(&out.join("checkpoints")),
        ["step-00000004.safetensors", "step-00000008.safetensors", "step-00000012.safetensors"]
    );
    std::fs::remove_dir_all(out.join("checkpoints/step-00000012.safetensors")).unwrap();
    assert_eq!(resume(&out, None, &mut Silent).unwrap().step, STEPS);
}

#[test]
fn a_loss_that_explodes_stops_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    corpus(&data);
    let out = dir.path().join("run");
    // Each step multiplies the weights by -99.
    let options = TrainOptions { lr: Some(10.0), weight_decay: 10.0, warmup: Some(1), ..options(&data, &out, "llama") };
    let error = run(options, &mut Silent).unwrap_err();
    assert!(matches!(error, Error::NotFinite { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("--lr") && text.contains("checkpoint"), "{text}");
    assert!(!out.join("model.gguf").exists());
}

#[test]
fn directories_that_are_taken_missing_or_no_directories_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    corpus(&data);
    let error = resume(&dir.path().join("nowhere"), None, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("nowhere") && error.contains("without --resume"), "{error}");
    let out = dir.path().join("run");
    run(TrainOptions { steps: Some(1), ..options(&data, &out, "llama") }, &mut Silent).unwrap();
    let error = run(options(&data, &out, "llama"), &mut Silent).unwrap_err().to_string();
    assert!(error.contains("--resume"), "{error}");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = run(options(&data, &file.join("run"), "llama"), &mut Silent).unwrap_err().to_string();
    assert!(error.contains("file/run") && error.contains("cannot create"), "{error}");

    // Held by somebody who trains there now.
    let lock = std::fs::File::options().write(true).open(out.join(".lock")).unwrap();
    lock.lock().unwrap();
    let error = resume(&out, None, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("another process"), "{error}");
}
