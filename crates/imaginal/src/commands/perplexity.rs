use std::path::PathBuf;

use clap::Parser;
use imaginal_train::eval::{Divergence, Document, Evaluation, Score};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::tokenize::tokenizer;
use crate::cli::{CacheArgs, Common, Failure};
use crate::find;

/// Measure the bits per byte that a model needs for text files
#[derive(Parser, Debug)]
#[command(
    long_about = "Measure the bits per byte that a model needs for text files. Every file is measured alone, from an empty context, and every byte counts; a model with attention reads long files through a window that moves by half its length",
    after_help = "Examples:\n  imaginal perplexity default src/main.rs\n  imaginal perplexity model.gguf --list held-out.txt --json\n  imaginal perplexity model-q4_k.gguf notes.txt --kl-against model-f16.gguf"
)]
pub struct Perplexity {
    /// A GGUF file, a Hugging Face directory, `default`, or the name of a pulled model
    model: String,
    /// Text files
    #[arg(required_unless_present = "list")]
    files: Vec<PathBuf>,
    /// A file that names one text file a line; relative names start at its folder
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Most tokens that attention sees [default: the model's context]
    #[arg(long, value_name = "TOKENS")]
    window: Option<usize>,
    /// Tokens that this window moves by: fewer give every token more context, and take longer; recurrent
    /// models have none [default: half the window]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    stride: Option<u32>,
    /// Also say how far the predictions lie from those of this model: the mean Kullback-Leibler divergence per token
    #[arg(long, value_name = "MODEL")]
    kl_against: Option<String>,
    #[command(flatten)]
    cache: CacheArgs,
}

impl Perplexity {
    /// Runs the verb.
    ///
    /// # Errors
    /// The model cannot be loaded or has no tokenizer, or a file cannot be read or is no UTF-8.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
        let mut loaded = find::load(&self.model, common)?;
        self.cache.apply(&mut loaded.model)?;
        let mut other = self.kl_against.as_ref().map(|name| find::load(name, common)).transpose()?;
        if let Some(other) = &mut other {
            self.cache.apply(&mut other.model)?;
        }
        let tokenizer = tokenizer(&self.model, loaded.tokenizer.as_ref())?;
        let first = tokenizer
            .bos()
            .or(tokenizer.eos_id())
            .ok_or("the model has no token that begins a text (bos or eos), which the first token is predicted from")?;
        let mut paths = self.files.clone();
        if let Some(list) = &self.list {
            let folder = list.parent().unwrap_or(std::path::Path::new(""));
            let names = std::fs::read_to_string(list).map_err(|e| format!("{}: {e}", list.display()))?;
            paths.extend(names.lines().filter(|l| !l.trim().is_empty()).map(|l| folder.join(l)));
        }
        let mut documents = Vec::with_capacity(paths.len());
        for path in &paths {
            let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            documents.push(Document { tokens: tokenizer.encode(&text, false)?, bytes: text.len() as u64 });
        }
        // Numbers of one vocabulary's size may still stand for other tokens.
        if let (Some(name), Some(other)) = (&self.kl_against, other.as_ref().and_then(|o| o.tokenizer.as_ref())) {
            for (path, document) in paths.iter().zip(&documents) {
                if other.encode(&std::fs::read_to_string(path)?, false)? != document.tokens {
                    return Err(format!(
                        "{name} tokenizes {} differently; only models with one tokenizer can be compared",
                        path.display()
                    )
                    .into());
                }
            }
        }
        let bar = ProgressBar::new(documents.iter().map(|d| d.tokens.len() as u64).sum());
        bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} tokens, {eta} left")?);
        let window = self.window.unwrap_or(loaded.model.config().context());
        let mut evaluation = Evaluation::new(&loaded.model, first, window);
        if let Some(stride) = self.stride {
            evaluation = evaluation.stride(stride as usize)?;
        }
        if let Some(other) = &other {
            evaluation = evaluation.against(&other.model)?;
        }
        let (scores, divergence) = evaluation.run(&documents, &mut |done| bar.set_position(done))?;
        bar.finish_and_clear();
        let mut total = Score::default();
        scores.iter().for_each(|s| total += *s);
        let value = |s: &Score| json!({ "bytes": s.bytes, "tokens": s.tokens, "bits_per_byte": s.bits_per_byte(), "perplexity": s.perplexity(), "loss": s.loss() });
        if common.json {
            let files: Vec<_> = paths
                .iter()
                .zip(&scores)
                .map(|(p, s)| {
                    let mut v = value(s);
                    v["file"] = json!(p);
                    v
                })
                .collect();
            let mut v = value(&total);
            v["files"] = json!(files);
            if let Some(name) = &self.kl_against {
                v["kl"] = kl(name, &divergence);
            }
            println!("{}", serde_json::to_string_pretty(&v)?);
            return Ok(());
        }
        if paths.len() > 1 {
            for (path, s) in paths.iter().zip(&scores) {
                println!("{:8.4} bits/byte  {:>8} bytes  {}", s.bits_per_byte(), s.bytes, path.display());
            }
        }
        println!(
            "{:.4} bits per byte, perplexity {:.3} per token, over {} bytes in {} files",
            total.bits_per_byte(),
            total.perplexity(),
            total.bytes,
            paths.len()
        );
        if let Some(name) = &self.kl_against {
            println!(
                "{:.3e} nats per token of Kullback-Leibler divergence from {name}, {:.3e} for 99 % of them, {:.3e} at most; {:.2} % have the same likeliest token",
                divergence.mean(),
                divergence.quantile(0.99),
                divergence.quantile(1.0),
                100.0 * divergence.agreement()
            );
        }
        Ok(())
    }
}

fn kl(name: &str, d: &Divergence) -> serde_json::Value {
    json!({
        "against": name, "mean": d.mean(), "median": d.quantile(0.5), "p99": d.quantile(0.99),
        "max": d.quantile(1.0), "same_top": d.agreement(),
    })
}
