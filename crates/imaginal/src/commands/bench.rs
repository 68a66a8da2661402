use std::time::Instant;

use clap::Parser;
use imaginal_models::{LanguageModel, Model, Rows, Text};
use imaginal_nn::State;
use imaginal_tensor::no_grad;
use serde::Serialize;
use serde_json::json;

use crate::cli::{CacheArgs, Common, Failure};
use crate::find;

/// Measure tokens per second
#[derive(Parser, Debug)]
#[command(
    after_help = "Examples:\n  imaginal bench default\n  imaginal bench ./all-MiniLM-L6-v2 -p 32 --batch 8\n  imaginal bench model-q4_k.gguf model-q8_0.gguf -p 512 -n 128 -d 4096 --threads 2 --json"
)]
pub struct Bench {
    /// GGUF files, Hugging Face directories, or `default`; each is loaded and measured alone
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
    /// Tokens of the prompt that is processed in one batch, or of each text for models that read whole texts (those are
    /// made into vectors); 0 leaves this out
    #[arg(short = 'p', long, default_value_t = 512, value_name = "TOKENS")]
    prompt: usize,
    /// Tokens that are generated one after another; 0 leaves this out
    #[arg(short = 'n', long, default_value_t = 128, value_name = "TOKENS")]
    generate: usize,
    /// Tokens that are in the state before either begins
    #[arg(short = 'd', long, default_value_t = 0, value_name = "TOKENS")]
    depth: usize,
    /// Texts at once, for models that read whole texts
    #[arg(long, default_value_t = 1, value_name = "TEXTS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// Repetitions, after one that does not count
    #[arg(short = 'r', long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,
    #[command(flatten)]
    cache: CacheArgs,
}

/// One line of the table.
#[derive(Serialize, Debug)]
struct Row {
    model: String,
    kind: &'static str,
    tokens: usize,
    depth: usize,
    threads: usize,
    tokens_per_second: f64,
    stddev: f64,
}

impl Bench {
    /// Runs the verb.
    ///
    /// # Errors
    /// The model cannot be loaded or run.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
        let mut rows = Vec::new();
        if !common.json {
            println!("{:30} {:10} {:>7} {:>7} {:>7} {:>18}", "model", "kind", "tokens", "depth", "threads", "tokens/s");
        }
        for name in &self.models {
            let mut loaded = find::load(name, common)?;
            self.cache.apply(&mut loaded.model)?;
            let kinds = match loaded.model.config().arch().encoder {
                Some(_) => vec![("texts", self.prompt * self.batch as usize)],
                None => vec![("prompt", self.prompt), ("generation", self.generate)],
            };
            for (kind, tokens) in kinds {
                if tokens == 0 {
                    continue;
                }
                let row = self.measure(name, &loaded.model, kind, tokens)?;
                if !common.json {
                    // At once, since the next may take a while.
                    let Row { model, kind, tokens, depth, threads, .. } = &row;
                    let speed = format!("{:.2} ± {:.2}", row.tokens_per_second, row.stddev);
                    println!("{model:30} {kind:10} {tokens:>7} {depth:>7} {threads:>7} {speed:>18}");
                }
                rows.push(row);
            }
        }
        if common.json {
            println!("{}", json!({ "results": rows }));
        }
        Ok(())
    }

    fn measure(&self, name: &str, model: &Model, kind: &'static str, tokens: usize) -> Result<Row, Failure> {
        let vocab = model.config().vocab() as u64;
        // Any tokens do; these differ, so that no cache makes the embedding cheaper than it is.
        let token = |i: usize| ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as u32 % vocab as u32;
        let mut speeds = Vec::new();
        if kind == "texts" {
            let text = |i: usize| Text::new((0..self.prompt).map(|t| token(i * self.prompt + t)).collect());
            let texts: Vec<Text> = (0..self.batch as usize).map(text).collect();
            for repetition in 0..=self.repetitions {
                let start = Instant::now();
                no_grad(|| model.embed(&texts)?.to_vec::<f32>().map_err(imaginal_models::Error::from))?;
                if repetition > 0 {
                    speeds.push(tokens as f64 / start.elapsed().as_secs_f64());
                }
            }
        } else {
            self.measure_decoder(model, kind, tokens, &token, &mut speeds)?;
        }
        let n = speeds.len() as f64;
        let mean = speeds.iter().sum::<f64>() / n;
        let variance = speeds.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        Ok(Row {
            model: name.into(),
            kind,
            tokens,
            depth: self.depth,
            threads: imaginal_kernels::pool::threads(),
            tokens_per_second: mean,
            stddev: variance.sqrt(),
        })
    }

    fn measure_decoder(
        &self,
        model: &Model,
        kind: &str,
        tokens: usize,
        token: &dyn Fn(usize) -> u32,
        speeds: &mut Vec<f64>,
    ) -> Result<(), Failure> {
        let mut state = model.state(1)?;
        no_grad(|| -> Result<(), Failure> {
            for at in (0..self.depth).step_by(512) {
                let ids: Vec<u32> = (at..self.depth.min(at + 512)).map(token).collect();
                model.forward(&Model::ids(&ids)?, Some(&mut state), Rows::Last)?;
            }
            // Every repetition begins here again.
            state.mark();
            for repetition in 0..=self.repetitions {
                state.rewind(self.depth)?;
                let start = Instant::now();
                if kind == "prompt" {
                    let ids: Vec<u32> = (0..tokens).map(|i| token(self.depth + i)).collect();
                    for chunk in ids.chunks(512) {
                        model.next(chunk, &mut state)?;
                    }
                } else {
                    for i in 0..tokens {
                        model.next(&[token(self.depth + i)], &mut state)?;
                    }
                }
                if repetition > 0 {
                    speeds.push(tokens as f64 / start.elapsed().as_secs_f64());
                }
            }
            Ok(())
        })
    }
}
