//! The command line: one definition from which parsing, `--help`, shell completions and man pages derive.
//!
//! Text that a verb produces goes to stdout, everything else to stderr. The exit code is 0, 1 for an error, 2 for wrong
//! usage.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use imaginal_models::Model;
use imaginal_numeric::Format;

use crate::commands;

/// A local engine for neural models that change form.
#[derive(Parser, Debug)]
#[command(name = "imaginal", version, propagate_version = true, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

/// What every verb understands.
#[derive(Args, Debug, Clone)]
pub struct Common {
    /// Where to compute: cpu, or gpu in a build with the `gpu` feature
    #[arg(long, global = true, default_value = "cpu", value_name = "DEVICE")]
    pub device: String,
    /// Threads to compute with [default: one per CPU that this process may use]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// What to compute with: auto keeps the file's weights and multiplies them in what is fastest (f32 weights and small
    /// matrices in f32), fast does so with small matrices too, f32 computes exactly in f32, bf16 rounds matrices to bf16
    #[arg(long, global = true, value_enum, default_value_t = Compute::Auto)]
    pub compute: Compute,
    /// Print one JSON document on stdout instead of text
    #[arg(long, global = true)]
    pub json: bool,
}

/// In what format the verbs that run a model keep keys and values.
#[derive(Args, Debug, Clone, Copy)]
pub struct CacheArgs {
    /// Number format of attention's keys and values [default: f16, or f32 where the model computes in f32]
    #[arg(long, value_enum, value_name = "FORMAT")]
    cache_type: Option<CacheType>,
}

impl CacheArgs {
    /// Has the model's states use the format.
    ///
    /// # Errors
    /// The model or its device cannot.
    pub fn apply(&self, model: &mut Model) -> Result<(), Failure> {
        let format = match self.cache_type {
            None => return Ok(()),
            Some(CacheType::F32) => Format::F32,
            Some(CacheType::F16) => Format::F16,
            Some(CacheType::Bf16) => Format::BF16,
            Some(CacheType::Q8_0) => Format::Q8_0,
            Some(CacheType::Q4_0) => Format::Q4_0,
        };
        Ok(model.set_cache_format(format)?)
    }
}

/// A format of keys and values.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[value(rename_all = "snake_case")]
enum CacheType {
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q4_0")]
    Q4_0,
}

/// Precision of the weights that a model computes with.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compute {
    /// Weights as the file has them, `f32` exactly; large packed matrices meet operands rounded to bf16 or 8 bits.
    Auto,
    /// As auto, with small matrices too.
    Fast,
    /// Weights as the file has them, all products in `f32`.
    F32,
    /// Float matrices rounded to `bf16`: half the memory traffic, about three decimal digits.
    Bf16,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Generate text from a prompt, or hold a conversation with a terminal
    Run(commands::run::Run),
    /// Train a model on a folder of text or code
    Train(Box<commands::train::Train>),
    /// Download a model into the Hugging Face cache
    Pull(commands::pull::Pull),
    /// Remove a pulled model from the cache
    Rm(commands::rm::Rm),
    /// List, set or remove short names of models
    Alias(commands::alias::Alias),
    /// Say what a model file holds
    Show(commands::show::Show),
    /// Turn text into token ids
    Tokenize(commands::tokenize::Tokenize),
    /// Print a conversation as the text that a chat model is given
    Template(commands::template::Template),
    /// Turn texts into vectors whose dot product says how alike they are
    Embed(commands::texts::Embed),
    /// Score texts with the labels of a classifier
    Classify(commands::texts::Classify),
    /// Put texts in the order in which they answer a question
    Rerank(commands::texts::Rerank),
    /// Write the logits of given tokens to a safetensors file
    Logits(commands::logits::Logits),
    /// Measure the bits per byte that a model needs for text files
    Perplexity(commands::perplexity::Perplexity),
    /// Write a model file with its weights in another number format
    Morph(commands::morph::Morph),
    /// List the number formats: bits, error, and the kernels this CPU uses
    Formats(commands::formats::Formats),
    /// List the models on this machine, or the architectures that this build knows
    List(commands::list::List),
    /// Measure tokens per second
    Bench(commands::bench::Bench),
    /// Print shell completions, or write man pages
    #[command(hide = true)]
    Generate(commands::reference::Generate),
}

/// Why a command failed; printed on one line each, causes below.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Parses the arguments of the process and runs the verb.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version arrive here too, with code 0; wrong usage has code 2.
            let _ = e.print();
            return ExitCode::from(e.exit_code() as u8);
        }
    };
    if let Some(warning) = &imaginal_kernels::isa::choice().warning {
        eprintln!("warning: {warning}");
    }
    imaginal_kernels::pool::set_threads(cli.common.threads.unwrap_or(0) as usize);
    let c = &cli.common;
    let result = match &cli.command {
        Command::Run(v) => v.run(c),
        Command::Train(v) => v.run(c),
        Command::Pull(v) => v.run(c),
        Command::Rm(v) => v.run(c),
        Command::Alias(v) => v.run(c),
        Command::Show(v) => v.run(c),
        Command::Tokenize(v) => v.run(c),
        Command::Template(v) => v.run(c),
        Command::Embed(v) => v.run(c),
        Command::Classify(v) => v.run(c),
        Command::Rerank(v) => v.run(c),
        Command::Logits(v) => v.run(c),
        Command::Perplexity(v) => v.run(c),
        Command::Morph(v) => v.run(c),
        Command::Formats(v) => v.run(c),
        Command::List(v) => v.run(c),
        Command::Bench(v) => v.run(c),
        Command::Generate(v) => v.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // A reader that has seen enough (`imaginal run … | head`) is no error.
            if let Some(io) = e.downcast_ref::<std::io::Error>()
                && io.kind() == std::io::ErrorKind::BrokenPipe
            {
                return ExitCode::SUCCESS;
            }
            eprintln!("error: {e}");
            let mut shown = e.to_string();
            let mut cause = e.source();
            while let Some(c) = cause {
                let text = c.to_string();
                // A cause whose text its effect repeats would say everything twice.
                if !shown.contains(&text) {
                    eprintln!("  because: {text}");
                }
                shown = text;
                cause = c.source();
            }
            ExitCode::FAILURE
        }
    }
}
