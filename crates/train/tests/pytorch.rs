//! The first twenty steps of a tiny llama and a tiny mamba, and every gradient of the first, against PyTorch
//! (fixtures by tools/reference/train_fixture.py).

use std::path::{Path, PathBuf};

use imaginal_files::safetensors::SafeTensors;
use imaginal_models::{LoadOptions, Loaded, Map};
use imaginal_tensor::Tensor;
use imaginal_train::{Batch, Optimizer, Trainer};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    let info = file.tensor(name).unwrap();
    info.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

struct Fixture {
    trainer: Trainer,
    expected: SafeTensors,
    rates: Vec<f64>,
    batches: Vec<Batch>,
}

fn open(name: &str) -> Fixture {
    let dir = fixture(name);
    let model = Loaded::open(&dir, &LoadOptions::default()).unwrap().model;
    let expected = SafeTensors::open(dir.join("expected.safetensors"), Default::default()).unwrap();
    let recipe: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("recipe.json")).unwrap()).unwrap();
    let number = |v: &serde_json::Value| v.as_f64().unwrap();
    let optimizer = Optimizer {
        betas: [number(&recipe["betas"][0]), number(&recipe["betas"][1])],
        eps: number(&recipe["eps"]),
        weight_decay: number(&recipe["weight_decay"]),
        clip: number(&recipe["clip_norm"]),
    };
    let rates = recipe["learning_rates"].as_array().unwrap().iter().map(number).collect();
    let tokens = expected.tensor("tokens").unwrap();
    let [_, rows, length] = tokens.shape[..] else { panic!("tokens are [steps, batch, length + 1]") };
    let ids: Vec<u32> =
        tokens.bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
    let batches = ids
        .chunks(rows * length)
        .map(|step| Batch {
            inputs: step.chunks(length).flat_map(|row| row[..length - 1].to_vec()).collect(),
            targets: step.chunks(length).flat_map(|row| row[1..].to_vec()).collect(),
            rows,
        })
        .collect();
    Fixture { trainer: Trainer::new(model, optimizer).unwrap(), expected, rates, batches }
}

fn losses_agree(name: &str) {
    let Fixture { mut trainer, expected, rates, batches } = open(name);
    let (losses, norms) = (floats(&expected, "losses"), floats(&expected, "grad_norms"));
    assert_eq!(losses.len(), 20);
    for (i, batch) in batches.iter().enumerate() {
        let got = trainer.step(std::slice::from_ref(batch), rates[i], i as u64 + 1).unwrap();
        for (what, got, wanted) in [("loss", got.loss, losses[i]), ("gradient norm", got.grad_norm, norms[i])] {
            let error = (got / f64::from(wanted) - 1.0).abs();
            assert!(error < 1e-4, "{name}, step {i}: {what} {got} instead of {wanted} ({error:.1e} off)");
        }
    }
}

fn gradients_agree(name: &str) {
    let Fixture { trainer, expected, batches, .. } = open(name);
    let (_, gradients) = trainer.gradients(&batches[..1]).unwrap();
    let specs = trainer.model().config().tensors();
    let names: Vec<String> = trainer.model().parameters().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), expected.tensors().iter().filter(|t| t.name.starts_with("grad.")).count());
    for (name, gradient) in names.iter().zip(gradients) {
        let spec = specs.iter().find(|s| s.name == *name).unwrap();
        let wanted = spec
            .hf
            .iter()
            .flat_map(|way| way.pieces())
            .find_map(|p| expected.find(&format!("grad.{}", p.name)))
            .unwrap();
        let wanted = floats(&expected, &wanted.name);
        let got: Tensor = gradient.unwrap_or_else(|| panic!("{name} has no gradient"));
        assert!(matches!(spec.map, Map::Same | Map::NegExp));
        let got = got.to_vec::<f32>().unwrap();
        assert_eq!(got.len(), wanted.len(), "{name}");
        let scale = wanted.iter().fold(0f32, |m, x| m.max(x.abs()));
        let worst = got.iter().zip(&wanted).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale;
        assert!(worst < 1e-4, "{name}: {worst:.1e} of the largest gradient off");
    }
}

#[test]
fn llama_losses() {
    losses_agree("train-llama");
}

#[test]
fn mamba_losses() {
    losses_agree("train-mamba");
}

#[test]
fn llama_gradients() {
    gradients_agree("train-llama");
}

#[test]
fn mamba_gradients() {
    gradients_agree("train-mamba");
}
