//! Logits of tiny random models against those of transformers: from the Hugging Face directory and from GGUF, in one
//! batch, in chunks and token by token, and after a round through our own files.

use std::path::{Path, PathBuf};

use imaginal_files::{OpenOptions, SafeTensors};
use imaginal_models::{ARCHS, LoadOptions, Loaded, Model, Rows, SaveOptions, State};
use imaginal_numeric::Format;
use imaginal_tensor::{Device, Tensor, no_grad};

const TOLERANCE: f32 = 2e-4;

/// The models that say how a text goes on.
fn fixtures() -> Vec<PathBuf> {
    let decodes = |dir: &PathBuf| load(dir).model.config().arch().encoder.is_none();
    all_fixtures().into_iter().filter(decodes).collect()
}

fn all_fixtures() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    // More of them, for instance fresh ones of tools/reference/tiny_models.py.
    let more = std::env::var_os("IMAGINAL_REFERENCE_MODELS").map(PathBuf::from);
    let list = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    let mut all: Vec<PathBuf> = [Some(dir), more].iter().flatten().flat_map(|d| list(d)).collect();
    all.retain(|p| p.join("expected.safetensors").exists());
    all.sort();
    assert!(all.len() >= 10);
    all
}

#[test]
fn every_row_of_the_table_has_a_reference() {
    let files = |dir: PathBuf| [dir.join("model.gguf"), dir];
    let paths = all_fixtures().into_iter().flat_map(files).filter(|path| path.exists());
    let rows: Vec<&str> = paths.map(|path| load(&path).model.config().arch().name).collect();
    for arch in ARCHS {
        assert!(rows.contains(&arch.name), "{} has no model in tests/fixtures", arch.name);
    }
}

struct Expected {
    tokens: Vec<u32>,
    logits: Vec<f32>,
    /// How many tokens of a growing text have logits of a short one, where LongRoPE has other factors for long ones.
    short: usize,
}

fn expected(dir: &Path) -> Expected {
    let file = SafeTensors::open(dir.join("expected.safetensors"), OpenOptions::default()).unwrap();
    let tokens = file.tensor("tokens").unwrap().bytes.as_chunks::<8>().0.iter();
    let logits = file.tensor("logits").unwrap().bytes.as_chunks::<4>().0.iter();
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
    let scaling = &config["rope_scaling"];
    let long = scaling["type"] == "longrope" || scaling["rope_type"] == "longrope";
    let short = if long { config["original_max_position_embeddings"].as_u64().unwrap() as usize } else { 0 };
    Expected {
        short,
        tokens: tokens.map(|&b| i64::from_le_bytes(b) as u32).collect(),
        logits: logits.map(|&b| f32::from_le_bytes(b)).collect(),
    }
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(x, y)| (x - y).abs())
        .fold(0.0, |m: f32, d| if d.is_nan() || m.is_nan() { f32::NAN } else { m.max(d) })
}

/// Of a wrong model it is about 3. Rounding makes routers choose other experts now and then.
fn rms_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    (a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f32>() / a.len() as f32).sqrt()
}

fn batch(model: &Model, tokens: &[u32]) -> Vec<f32> {
    no_grad(|| model.forward(&Model::ids(tokens).unwrap(), None, Rows::All)).unwrap().to_vec().unwrap()
}

fn pieces(model: &Model, tokens: &[u32], piece: usize) -> Vec<f32> {
    let mut state = model.state(1).unwrap();
    let mut all = Vec::new();
    for part in tokens.chunks(piece) {
        let logits = model.forward(&Model::ids(part).unwrap(), Some(&mut state), Rows::All).unwrap();
        all.extend(logits.to_vec::<f32>().unwrap());
    }
    assert_eq!(state.len(), tokens.len());
    all
}

fn check(model: &Model, want: &Expected, what: &str) {
    let vocab = model.config().vocab();
    let near = |got: Vec<f32>, how: &str| {
        let from = if how == "batch" { 0 } else { want.short * vocab };
        let d = difference(&got[from..], &want.logits[from..]);
        assert!(d <= TOLERANCE, "{what}, {how}: {d}");
        println!("{what}, {how}: {d:.1e}");
    };
    near(batch(model, &want.tokens), "batch");
    near(pieces(model, &want.tokens, 1), "stepwise");
    near(pieces(model, &want.tokens, 7), "chunks");
    let last = no_grad(|| model.forward(&Model::ids(&want.tokens).unwrap(), None, Rows::Last)).unwrap();
    assert_eq!(last.shape(), [1, 1, vocab]);
    let d = difference(&last.to_vec::<f32>().unwrap(), &want.logits[want.logits.len() - vocab..]);
    assert!(d <= TOLERANCE, "{what}, last row: {d}");
}

fn load(path: &Path) -> Loaded {
    Loaded::open(path, &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn hugging_face_directories_agree_with_transformers() {
    for dir in fixtures() {
        check(&load(&dir).model, &expected(&dir), &dir.display().to_string());
    }
}

#[test]
fn gguf_files_agree_with_transformers() {
    for dir in fixtures() {
        let path = dir.join("model.gguf");
        if path.exists() {
            check(&load(&path).model, &expected(&dir), &path.display().to_string());
        }
    }
}

#[test]
fn two_sequences_side_by_side_do_not_mix() {
    for dir in fixtures() {
        let model = load(&dir).model;
        let want = expected(&dir);
        let t = want.tokens.len();
        let mut both = want.tokens.clone();
        both.extend(want.tokens.iter().rev());
        let ids = Tensor::from_vec(both, [2, t], &Device::Cpu).unwrap();
        let logits = no_grad(|| model.forward(&ids, None, Rows::All)).unwrap().to_vec::<f32>().unwrap();
        assert!(difference(&logits[..want.logits.len()], &want.logits) <= TOLERANCE);
        let reversed: Vec<u32> = want.tokens.iter().rev().copied().collect();
        assert!(difference(&logits[want.logits.len()..], &batch(&model, &reversed)) <= 1e-5);
    }
}

#[test]
fn a_saved_model_is_the_same_model() {
    let scratch = tempfile::tempdir().unwrap();
    for dir in fixtures() {
        let Loaded { model, tokenizer, .. } = load(&dir);
        let want = expected(&dir);
        let path = scratch.path().join("model.gguf");
        let result = model.save_gguf(&path, tokenizer.as_ref(), &SaveOptions::default());
        if let Err(error) = result {
            // Then the reference converter refuses this model too, or what it writes is not this model.
            let refused = !dir.join("model.gguf").exists() && error.to_string().contains("no place");
            assert!(refused, "{}: {error}", dir.display());
            continue;
        }
        let again = load(&path);
        check(&again.model, &want, &format!("{} saved", dir.display()));
        if let (Some(a), Some(b)) = (&tokenizer, &again.tokenizer) {
            let text = "fn main() {\n    let x = 12345; // é 🚀\n}";
            assert_eq!(a.encode(text, false).unwrap(), b.encode(text, false).unwrap());
        }
        assert_eq!(tokenizer.is_some(), again.tokenizer.is_some());
        assert_eq!(model.config().layers().len(), again.model.config().layers().len());

        // Loaded from GGUF and saved again: the same bytes.
        let copy = scratch.path().join("copy.gguf");
        again.model.save_gguf(&copy, again.tokenizer.as_ref(), &SaveOptions::default()).unwrap();
        let (a, b) = (load(&path), load(&copy));
        assert!(difference(&batch(&a.model, &want.tokens), &batch(&b.model, &want.tokens)) <= 1e-6);
    }
}

#[test]
fn lower_precision_files_come_near() {
    for dir in fixtures() {
        let Loaded { model, tokenizer, .. } = load(&dir);
        if !dir.join("model.gguf").exists() {
            continue;
        }
        let want = expected(&dir);
        for (format, bound) in [(Format::F16, 0.1), (Format::BF16, 0.5), (Format::Q8_0, 0.5)] {
            let options = SaveOptions { format, ..SaveOptions::default() };
            let bytes = model.to_gguf(tokenizer.as_ref(), &options).unwrap();
            let small = Loaded::from_gguf_bytes("memory", bytes, &Device::Cpu).unwrap().model;
            let d = rms_difference(&batch(&small, &want.tokens), &want.logits);
            assert!(d <= bound && d > 0.0 || dir.to_string_lossy().contains("bf16"), "{} {format}: {d}", dir.display());
            let from = want.short * small.config().vocab();
            let (steps, all) = (pieces(&small, &want.tokens, 1), batch(&small, &want.tokens));
            let stepwise = difference(&steps[from..], &all[from..]);
            assert!(stepwise <= TOLERANCE, "{} {format}: stepwise differs by {stepwise}", dir.display());
        }
    }
}
