use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use imaginal_train::schedule::Decay;
use imaginal_train::{Event, Observer, Precision, Report, TrainOptions};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::cli::{Common, Failure};

/// Train a model on a folder of text or code
#[derive(Parser, Debug)]
#[command(
    long_about = "Train a model on a folder of text or code. The run directory gets metrics.jsonl, a picture of the loss, checkpoints, and at the end model.gguf with the tokenizer inside; a run that was stopped or killed goes on with --resume as if nothing had happened. Everything that is not given is chosen by the amount of text",
    after_help = "Examples:\n  imaginal train ~/code --extensions rs --out runs/code\n  imaginal train books --arch mamba --hidden 320 --layers 12 --steps 2000 --out runs/books\n  imaginal train --resume runs/books"
)]
pub struct Train {
    /// Folders and files to train on; .gitignore is respected, hidden and binary files are skipped
    #[arg(required_unless_present = "resume")]
    data: Vec<PathBuf>,
    /// The run directory
    #[arg(long, short, value_name = "DIR", required_unless_present = "resume")]
    out: Option<PathBuf>,
    /// Continue the run in this directory from its last checkpoint, with the options it was started with (only --steps may
    /// change, see --decay)
    #[arg(long, value_name = "DIR", conflicts_with_all = ["data", "out"])]
    resume: Option<PathBuf>,

    /// Only files with these extensions [default: all text]
    #[arg(long, value_name = "EXT", value_delimiter = ',', help_heading = "Data")]
    extensions: Vec<String>,
    /// Only files that match this glob; with a leading `!`, only others. May be repeated
    #[arg(long = "glob", short = 'g', value_name = "GLOB", help_heading = "Data")]
    globs: Vec<String>,
    /// Leave larger files out
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, help_heading = "Data")]
    max_file_bytes: u64,
    /// Hold out what matches this pattern (as in .gitignore), for instance a folder. May be repeated
    #[arg(long, value_name = "PATTERN", help_heading = "Data")]
    held_out: Vec<String>,
    /// The share of top-level folders to hold out where no pattern is given
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, help_heading = "Data")]
    held_out_fraction: f64,
    /// Tokens of the vocabulary to learn
    #[arg(long, value_name = "N", help_heading = "Data")]
    vocab: Option<usize>,
    /// Use this tokenizer.json (or the directory it is in) instead of learning one
    #[arg(long, value_name = "FILE", conflicts_with = "vocab", help_heading = "Data")]
    tokenizer: Option<PathBuf>,

    /// The architecture, see `imaginal list --architectures`
    #[arg(long, default_value = "llama", help_heading = "Model")]
    arch: String,
    /// Width of the residual stream
    #[arg(long, value_name = "N", help_heading = "Model")]
    hidden: Option<usize>,
    /// Layers
    #[arg(long, value_name = "N", help_heading = "Model")]
    layers: Option<usize>,
    /// Attention heads
    #[arg(long, value_name = "N", help_heading = "Model")]
    heads: Option<usize>,
    /// Heads of keys and values
    #[arg(long, value_name = "N", help_heading = "Model")]
    kv_heads: Option<usize>,
    /// Width of the feed-forward layers
    #[arg(long, value_name = "N", help_heading = "Model")]
    ffn: Option<usize>,
    /// Numbers of recurrent state per channel
    #[arg(long, value_name = "N", help_heading = "Model")]
    state: Option<usize>,
    /// Any other field of the model's config.json, as FIELD=VALUE. May be repeated
    #[arg(long = "set", value_name = "FIELD=VALUE", value_parser = setting, help_heading = "Model")]
    settings: Vec<(String, Value)>,
    /// The model's name, written into its file
    #[arg(long, help_heading = "Model")]
    name: Option<String>,
    /// Number format of the final model's matrices
    #[arg(long, default_value = "f32", help_heading = "Model")]
    format: String,

    /// Tokens in a sequence
    #[arg(long, value_name = "N", help_heading = "Training")]
    context: Option<usize>,
    /// Sequences computed at once
    #[arg(long, value_name = "N", help_heading = "Training")]
    batch: Option<usize>,
    /// Batches whose gradients make one step
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Training")]
    accumulate: usize,
    /// Steps
    #[arg(long, value_name = "N", help_heading = "Training")]
    steps: Option<u64>,
    /// Training tokens, instead of steps
    #[arg(long, value_name = "N", conflicts_with = "steps", help_heading = "Training")]
    tokens: Option<u64>,
    /// Highest learning rate
    #[arg(long, value_name = "RATE", help_heading = "Training")]
    lr: Option<f64>,
    /// What the learning rate ends at, as a share of the highest
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, help_heading = "Training")]
    lr_floor: f64,
    /// How the learning rate falls: cosine, over the whole run; or trapezoid, in its last fifth, so that --resume may
    /// change --steps until then
    #[arg(long, value_name = "SHAPE", default_value = "cosine", value_parser = decay, help_heading = "Training")]
    decay: Decay,
    /// Steps until the highest learning rate
    #[arg(long, value_name = "N", help_heading = "Training")]
    warmup: Option<u64>,
    /// Decay of the matrices
    #[arg(long, value_name = "RATE", default_value_t = 0.1, help_heading = "Training")]
    weight_decay: f64,
    /// Largest norm of the gradient; 0 for no limit
    #[arg(long, value_name = "NORM", default_value_t = 1.0, help_heading = "Training")]
    clip: f64,
    /// What matrix products are computed in: bf16 is about twice as fast on CPUs with AMX (parameters and everything else
    /// stay f32; other CPUs compute in f32 all the same)
    #[arg(long, value_name = "FORMAT", default_value = "f32", value_parser = precision, help_heading = "Training")]
    precision: Precision,
    /// Seed of everything random
    #[arg(long, default_value_t = 0, help_heading = "Training")]
    seed: u64,
    /// Steps between measurements on the held-out files
    #[arg(long, value_name = "N", help_heading = "Training")]
    eval_every: Option<u64>,
    /// How much held-out text is measured each time
    #[arg(long, value_name = "BYTES", default_value_t = 200_000, help_heading = "Training")]
    eval_bytes: u64,
    /// Steps between checkpoints
    #[arg(long, value_name = "N", help_heading = "Training")]
    checkpoint_every: Option<u64>,
}

fn precision(text: &str) -> Result<Precision, String> {
    match text {
        "f32" => Ok(Precision::F32),
        "bf16" => Ok(Precision::Bf16),
        _ => Err("f32 or bf16".into()),
    }
}

/// `FIELD=VALUE`, the value as JSON or else as a string.
fn setting(text: &str) -> Result<(String, Value), String> {
    let (field, value) = text.split_once('=').ok_or("write it as FIELD=VALUE")?;
    Ok((field.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()))))
}

fn decay(text: &str) -> Result<Decay, String> {
    let named = Decay::NAMED;
    let names = || format!("one of {}", named.map(|(name, _)| name).join(", "));
    named.iter().find(|(name, _)| *name == text).map(|(_, d)| *d).ok_or_else(names)
}

impl Train {
    /// Runs the verb.
    ///
    /// # Errors
    /// Options or data make no sense, the run directory cannot be used, or the training fails.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
        if common.device != "cpu" {
            return Err("training runs on the CPU only; leave --device out".into());
        }
        let mut screen = Screen::new()?;
        let report = match &self.resume {
            Some(run) => imaginal_train::resume(run, self.steps, &mut screen),
            None => imaginal_train::run(self.options(), &mut screen),
        };
        screen.bar.finish_and_clear();
        let report = report?;
        if common.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            println!("{}", summary(&report));
        }
        Ok(())
    }

    fn options(&self) -> TrainOptions {
        TrainOptions {
            data: self.data.clone(),
            out: self.out.clone().unwrap_or_default(),
            extensions: self.extensions.iter().map(|e| e.trim_start_matches('.').to_owned()).collect(),
            globs: self.globs.clone(),
            max_file_bytes: self.max_file_bytes,
            held_out: self.held_out.clone(),
            held_out_fraction: self.held_out_fraction,
            vocab: self.vocab,
            tokenizer: self.tokenizer.clone(),
            arch: self.arch.clone(),
            hidden: self.hidden,
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads,
            ffn: self.ffn,
            state: self.state,
            settings: self.settings.iter().cloned().collect(),
            context: self.context,
            batch: self.batch,
            accumulate: self.accumulate,
            steps: self.steps,
            tokens: self.tokens,
            lr: self.lr,
            lr_floor: self.lr_floor,
            decay: self.decay,
            warmup: self.warmup,
            weight_decay: self.weight_decay,
            clip: self.clip,
            precision: self.precision,
            seed: self.seed,
            eval_every: self.eval_every,
            eval_bytes: self.eval_bytes,
            checkpoint_every: self.checkpoint_every,
            format: self.format.clone(),
            name: self.name.clone(),
            ..TrainOptions::default()
        }
    }
}

fn summary(report: &Report) -> String {
    let held_out = match (report.held_out_loss, report.held_out_bits_per_byte) {
        (Some(loss), Some(bits)) => format!(", held out {loss:.4} ({bits:.4} bits per byte)"),
        _ => String::new(),
    };
    let loss = report.loss.map_or(String::new(), |l| format!(", loss {l:.4}"));
    let run = report.run.display();
    let end = match &report.model {
        Some(model) => model.display().to_string(),
        None => format!("stopped; go on with: imaginal train --resume {run}"),
    };
    let (step, tokens) = (HumanCount(report.step), HumanCount(report.tokens));
    format!("{step} steps, {tokens} tokens{loss}{held_out}\n{end}")
}

/// The progress bar on stderr. Where stderr is no terminal, a line now and then.
struct Screen {
    bar: ProgressBar,
    interrupted: Arc<AtomicBool>,
    last_line: Option<std::time::Instant>,
}

impl Screen {
    fn new() -> Result<Screen, Failure> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = interrupted.clone();
        // Once asks for a checkpoint and an end; twice ends at once.
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            eprintln!("stopping after this step; press again to stop at once");
        })?;
        Ok(Screen { bar: ProgressBar::new(0), interrupted, last_line: None })
    }

    fn line(&self, text: impl AsRef<str>) {
        if self.bar.is_hidden() { eprintln!("{}", text.as_ref()) } else { self.bar.println(text) }
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("━╸─"));
        }
    }
}

impl Observer for Screen {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Warning(text) => self.line(format!("warning: {text}")),
            Event::Found { train_files, train_bytes, held_out_files, held_out_bytes } => self.line(format!(
                "{} files to train on ({}), {} held out ({})",
                HumanCount(train_files as u64),
                HumanBytes(train_bytes),
                HumanCount(held_out_files as u64),
                HumanBytes(held_out_bytes)
            )),
            Event::TrainingTokenizer { vocab } => self.line(format!("learning a vocabulary of {vocab} tokens")),
            Event::Tokenizing { done, total } => {
                self.style("{bar:40} {percent:>3}%  turning text into tokens, {eta} left");
                self.bar.set_length(total);
                self.bar.set_position(done);
            }
            Event::Started { arch, parameters, corpus_tokens, step, steps, step_tokens } => {
                self.line(format!(
                    "{arch}, {} parameters; {} tokens of text; {} steps of {} tokens",
                    HumanCount(parameters),
                    HumanCount(corpus_tokens),
                    HumanCount(steps),
                    HumanCount(step_tokens)
                ));
                if step > 0 {
                    self.line(format!("continuing after step {step}"));
                }
                self.style("{bar:30} {pos}/{len}  {msg}  {eta} left");
                self.bar.set_length(steps);
                self.bar.set_position(step);
                self.bar.reset_eta();
            }
            Event::Metric(m) => {
                self.bar.set_position(m.step);
                if let (Some(loss), Some(speed)) = (m.loss, m.tokens_per_second) {
                    self.bar.set_message(format!("loss {loss:.3}  {speed:.0} tokens/s"));
                    let due = self.last_line.is_none_or(|t| t.elapsed().as_secs() >= 30);
                    if self.bar.is_hidden() && due {
                        self.last_line = Some(std::time::Instant::now());
                        eprintln!("step {}: loss {loss:.4}, {speed:.0} tokens/s", m.step);
                    }
                }
                if let (Some(loss), Some(bits)) = (m.held_out_loss, m.held_out_bits_per_byte) {
                    self.line(format!("step {}: held out {loss:.4}, {bits:.4} bits per byte", m.step));
                }
            }
            _ => {}
        }
    }

    fn stop(&mut self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}
