//! Every row of the table on a GPU, through the same model code, against the CPU: logits in one pass and token by token,
//! the gradients of a training step, and the parameters after it. Without an adapter the tests say so and check nothing.
#![cfg(feature = "gpu")]

use imaginal_files::Json;
use imaginal_models::{ARCHS, Config, LoadOptions, Loaded, Model, Rows, SaveOptions, Text};
use imaginal_nn::Rng;
use imaginal_numeric::Format;
use imaginal_tensor::{AdamW, Device, Tensor, no_grad};

fn gpu() -> Option<Device> {
    Device::from_name("gpu").map_err(|e| eprintln!("SKIPPED, nothing was checked: {e}")).ok()
}

fn fresh() -> impl Iterator<Item = Model> {
    ARCHS.iter().filter(|a| a.encoder.is_none()).map(|a| {
        let settings = Json::parse("settings", a.tiny.as_bytes()).unwrap();
        Model::new(&Config::build(a.name, settings.root()).unwrap(), 1, &Device::Cpu).unwrap()
    })
}

/// The same model on another device.
fn moved(model: &Model, device: &Device) -> Model {
    let bytes = model.to_gguf(None, &SaveOptions::default()).unwrap();
    let there = Loaded::from_gguf_bytes("memory", bytes, device).unwrap().model;
    there.set_trainable(true).unwrap();
    there
}

fn tokens(n: usize, vocab: usize, seed: u64) -> Vec<u32> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| (rng.next_u64() % vocab as u64) as u32).collect()
}

fn values(t: &Tensor) -> Vec<f32> {
    no_grad(|| t.to_vec::<f32>()).unwrap()
}

fn close(what: &str, got: &[f32], expected: &[f32], eps: f32) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= eps, "{what}: the devices differ by {worst}");
}

#[test]
fn logits_agree_in_one_pass_and_token_by_token() {
    let Some(device) = gpu() else { return };
    for cpu in fresh() {
        let name = cpu.config().arch().name;
        let there = moved(&cpu, &device);
        assert_eq!(there.device(), &device);
        let seen = tokens(19, cpu.config().vocab(), 5);
        let all = |m: &Model| values(&no_grad(|| m.forward(&Model::ids(&seen).unwrap(), None, Rows::All)).unwrap());
        let expected = all(&cpu);
        close(name, &all(&there), &expected, 1e-4);
        let mut state = there.state(1).unwrap();
        let mut got = values(&there.forward(&Model::ids(&seen[..7]).unwrap(), Some(&mut state), Rows::All).unwrap());
        for id in &seen[7..] {
            let ids = Model::ids(std::slice::from_ref(id)).unwrap();
            got.extend(values(&there.forward(&ids, Some(&mut state), Rows::All).unwrap()));
        }
        close(&format!("{name}, stepwise"), &got, &expected, 1e-4);
    }
}

/// Files as users have them: the reference models and the one that the command carries.
#[test]
fn models_from_files_agree() {
    let Some(device) = gpu() else { return };
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let fixtures = std::fs::read_dir(here.join("tests/fixtures")).unwrap();
    let mut paths: Vec<_> = fixtures.map(|entry| entry.unwrap().path()).collect();
    assert!(!paths.is_empty());
    paths.push(here.join("../../models/default/model.gguf"));
    for path in paths {
        let all = |device: &Device| {
            let options = LoadOptions { device: device.clone(), ..LoadOptions::default() };
            let model = match Loaded::open(&path, &options) {
                Ok(loaded) => loaded.model,
                Err(e) if e.to_string().contains("no kernel unpacks") => return None,
                Err(e) => panic!("{e}"),
            };
            let seen = tokens(16, model.config().vocab(), 7);
            let read = || match model.config().arch().encoder {
                Some(_) => model.hidden(&[Text::new(seen[..3].to_vec()), Text::new(seen[3..].to_vec())]),
                None => model.forward(&Model::ids(&seen).unwrap(), None, Rows::All),
            };
            Some(values(&no_grad(read).unwrap()))
        };
        match all(&device) {
            Some(got) => close(&path.display().to_string(), &got, &all(&Device::Cpu).unwrap(), 1e-4),
            None => assert!(path.ends_with("gpt_oss-mxfp4"), "{} does not load", path.display()),
        }
    }
}

#[test]
fn packed_models_agree() {
    let Some(device) = gpu() else { return };
    for cpu in fresh() {
        let name = cpu.config().arch().name;
        let there = moved(&cpu, &device);
        for format in [Format::F16, Format::BF16] {
            cpu.morph(format, true).unwrap();
            there.morph(format, true).unwrap();
            let seen = tokens(9, cpu.config().vocab(), 6);
            let all = |m: &Model| values(&no_grad(|| m.forward(&Model::ids(&seen).unwrap(), None, Rows::All)).unwrap());
            close(&format!("{name} in {format}"), &all(&there), &all(&cpu), 1e-4);
        }
    }
}

#[test]
fn a_training_step_agrees() {
    let Some(device) = gpu() else { return };
    for fresh in fresh() {
        // Both as files have them: a table of Gemma 3n gets rows there.
        let (cpu, there) = (moved(&fresh, &Device::Cpu), moved(&fresh, &device));
        let name = cpu.config().arch().name;
        let vocab = cpu.config().vocab();
        let step = |m: &Model| {
            let ids = Tensor::from_vec(tokens(24, vocab, 3), [2, 12], m.device()).unwrap();
            let targets = Tensor::from_vec(tokens(24, vocab, 4), 24, m.device()).unwrap();
            let logits = m.forward(&ids, None, Rows::All).unwrap().reshape([24, vocab]).unwrap();
            let loss = logits.cross_entropy(&targets, None).unwrap();
            let grads = loss.backward().unwrap();
            let mut seen = Vec::new();
            // What only takes part in the choice of experts has no gradient.
            for (name, param) in m.parameters().into_iter().filter(|p| !p.0.ends_with("exp_probs_b.bias")) {
                let value = param.get();
                let grad = grads.get(&value).unwrap_or_else(|| panic!("{name} has no gradient"));
                assert_eq!(grad.device(), m.device(), "{name}");
                // A large ε, so that gradients next to nothing do not decide by their sign alone.
                let s =
                    AdamW { lr: 0.1, beta1: 0.9, beta2: 0.95, eps: 1e-2, weight_decay: 0.1, step: 1, grad_scale: 1.0 };
                let (mut next, mut first, mut second) =
                    (value.detach(), grad.zeros_like().unwrap(), grad.zeros_like().unwrap());
                next.adamw_step(grad, &mut first, &mut second, &s).unwrap();
                seen.push((name, values(grad), values(&next)));
            }
            (values(&loss)[0], seen)
        };
        let ((loss, expected), (got_loss, got)) = (step(&cpu), step(&there));
        assert!((loss - got_loss).abs() <= 1e-5, "{name}: losses {loss} and {got_loss}");
        for ((param, grad, next), (same, got_grad, got_next)) in expected.iter().zip(&got) {
            assert_eq!(param, same);
            let size = grad.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            close(&format!("{name}: gradient of {param}"), got_grad, grad, 1e-4 * size + 1e-7);
            close(&format!("{name}: {param} after a step"), got_next, next, 1e-4);
        }
    }
}
