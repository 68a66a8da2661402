//! Who is told how a run goes.

use std::path::PathBuf;

use crate::metrics::Metric;

/// What happens in a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Something the user should know, though the run goes on.
    Warning(&'a str),
    /// The files have been found.
    Found {
        /// Files to train on.
        train_files: usize,
        /// Their bytes.
        train_bytes: u64,
        /// Files held out.
        held_out_files: usize,
        /// Their bytes.
        held_out_bytes: u64,
    },
    /// The tokenizer is being trained.
    TrainingTokenizer {
        /// Tokens it shall have.
        vocab: usize,
    },
    /// Text is being turned into tokens.
    Tokenizing {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Everything is ready; steps follow.
    Started {
        /// The architecture.
        arch: &'a str,
        /// Parameters of the model.
        parameters: u64,
        /// Tokens to train on.
        corpus_tokens: u64,
        /// Steps already done by an earlier start.
        step: u64,
        /// Steps in all.
        steps: u64,
        /// Training tokens per step.
        step_tokens: u64,
    },
    /// A step or a measurement has been done.
    Metric(&'a Metric),
    /// A checkpoint has been written.
    Checkpoint {
        /// The step it holds.
        step: u64,
    },
}

/// Hears of a run, and may stop it.
pub trait Observer {
    /// Called whenever something happens.
    fn event(&mut self, event: Event<'_>);

    /// Asked after each step: whether to write a checkpoint and stop.
    fn stop(&mut self) -> bool {
        false
    }
}

/// Hears nothing.
#[derive(Copy, Clone, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: Event<'_>) {}
}

/// How a run ended.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// The run directory.
    pub run: PathBuf,
    /// The final model; `None` if the run was stopped before its end.
    pub model: Option<PathBuf>,
    /// Steps done.
    pub step: u64,
    /// Training tokens seen.
    pub tokens: u64,
    /// Parameters of the model.
    pub parameters: u64,
    /// Mean training loss of the last fiftieth of the steps, in nats.
    pub loss: Option<f64>,
    /// The last measurement on held-out text, in nats per token.
    pub held_out_loss: Option<f64>,
    /// The same in bits per byte.
    pub held_out_bits_per_byte: Option<f64>,
    /// Median speed of the steps of this start.
    pub tokens_per_second: Option<f64>,
}
