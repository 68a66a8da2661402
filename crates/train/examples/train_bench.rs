//! Measures training speed on random tokens and prints one line of JSON.
//!
//! ```text
//! cargo run --release -p imaginal-train --example train_bench -- [--arch llama|mamba] [--steps N] [--threads N]
//!     [--precision f32|bf16] [--set FIELD=NUMBER]... [--batch N] [--context N]
//! ```
//! Without `--set` the model is the 10-million-parameter one of its architecture that RESULTS.md compares with PyTorch.

use std::time::Instant;

use imaginal_models::{Config, Model};
use imaginal_tensor::Device;
use imaginal_train::{Batch, Optimizer, Precision, Trainer};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arch = "llama".to_owned();
    let (mut steps, mut batch, mut context) = (6usize, 8usize, 256usize);
    let mut precision = Precision::F32;
    let mut set = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().ok_or(format!("{name} needs a value"))?;
        match name.as_str() {
            "--arch" => arch = value,
            "--steps" => steps = value.parse()?,
            "--batch" => batch = value.parse()?,
            "--context" => context = value.parse()?,
            "--precision" => precision = serde_json::from_value(json!(value))?,
            "--threads" => imaginal_kernels::pool::set_threads(value.parse()?),
            "--set" => {
                let (field, number) = value.split_once('=').ok_or("--set takes FIELD=NUMBER")?;
                set.push((field.to_owned(), number.parse::<Value>()?));
            }
            _ => return Err(format!("{name} is not an option").into()),
        }
    }
    let mut settings = match arch.as_str() {
        "mamba" => json!({"vocab_size": 4096, "hidden_size": 320, "num_hidden_layers": 12, "state_size": 16}),
        _ => json!({"vocab_size": 4096, "hidden_size": 320, "num_hidden_layers": 8, "num_attention_heads": 5,
                    "intermediate_size": 864, "max_position_embeddings": context, "tie_word_embeddings": true}),
    };
    for (field, value) in set {
        settings[field] = value;
    }
    let config = Config::build(&arch, &settings)?;
    let model = Model::new(&config, 1, &Device::Cpu)?;
    let optimizer = Optimizer { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, clip: 1.0 };
    let mut trainer = Trainer::new(model, optimizer)?.with_precision(precision);
    let mut state = 1u64;
    let mut token = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % config.vocab() as u64) as u32
    };
    let mut seconds = Vec::new();
    for step in 0..=steps {
        let inputs: Vec<u32> = (0..batch * context).map(|_| token()).collect();
        let targets: Vec<u32> = (0..batch * context).map(|_| token()).collect();
        let started = Instant::now();
        trainer.step(&[Batch { inputs, targets, rows: batch }], 1e-4, step as u64 + 1)?;
        // The first step also fills the buffer pool.
        if step > 0 {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let tokens = (batch * context) as f64;
    let median = seconds[seconds.len() / 2];
    println!(
        "{}",
        json!({"engine": "imaginal", "arch": arch, "precision": precision, "parameters": config.parameters(), "batch": batch,
               "context": context, "threads": imaginal_kernels::pool::threads(), "steps": steps,
               "tokens_per_second": tokens / median, "best": tokens / seconds[0],
               "seconds_per_step": median})
    );
    Ok(())
}
