//! Training with products in bf16 follows training in f32.

use imaginal_kernels::isa::{Isa, isa};
use imaginal_models::{Config, Model};
use imaginal_tensor::Device;
use imaginal_train::{Batch, Optimizer, Precision, Trainer};
use serde_json::json;

fn trainer(arch: &str, precision: Precision) -> Trainer {
    let settings = match arch {
        "mamba" => json!({"vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8}),
        _ => json!({"vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                    "intermediate_size": 160, "max_position_embeddings": 64, "tie_word_embeddings": true}),
    };
    let model = Model::new(&Config::build(arch, &settings).unwrap(), 3, &Device::Cpu).unwrap();
    let optimizer = Optimizer { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, clip: 1.0 };
    Trainer::new(model, optimizer).unwrap().with_precision(precision)
}

/// A text that can be learnt: the next token is the last one's successor in a fixed order.
fn batch(step: u32) -> Batch {
    let tokens: Vec<u32> = (0..8 * 65).map(|i| (i / 65 * 29 + i % 65 * 7 + step) % 256).collect();
    let part = |from: usize| tokens.chunks(65).flat_map(|row| row[from..from + 64].to_vec()).collect();
    Batch { inputs: part(0), targets: part(1), rows: 8 }
}

#[test]
fn gradients_of_bf16_point_where_those_of_f32_do() {
    for arch in ["llama", "mamba"] {
        let gradients = |p| trainer(arch, p).gradients(&[batch(0)]).unwrap();
        let ((exact_loss, exact), (loss, rounded)) = (gradients(Precision::F32), gradients(Precision::Bf16));
        assert!((loss - exact_loss).abs() < 2e-3 * exact_loss, "{arch}: {loss} {exact_loss}");
        let mut differ = false;
        for (a, b) in exact.into_iter().zip(rounded) {
            let (a, b) = (a.unwrap().to_vec::<f32>().unwrap(), b.unwrap().to_vec::<f32>().unwrap());
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let cosine = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
            assert!(cosine > 0.999, "{arch}: cosine {cosine} over {} elements", a.len());
            differ |= a != b;
        }
        assert_eq!(differ, isa() == Isa::Amx, "{arch}: whether bf16 was used");
    }
}

#[test]
fn losses_fall_as_in_f32() {
    for arch in ["llama", "mamba"] {
        let run = |precision| {
            let mut trainer = trainer(arch, precision);
            (0..30).map(|i| trainer.step(&[batch(i)], 3e-3, u64::from(i) + 1).unwrap().loss).last().unwrap()
        };
        let (exact, rounded) = (run(Precision::F32), run(Precision::Bf16));
        assert!(exact < 3.0 && (rounded - exact).abs() < 0.05 * exact, "{arch}: {rounded} instead of {exact}");
    }
}
