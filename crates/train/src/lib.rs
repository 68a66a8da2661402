//! Training: folders of text to a tokenizer, batches, an optimizer, a run directory that survives a kill, and a GGUF.

mod checkpoint;
pub mod curve;
pub mod data;
mod error;
pub mod eval;
pub mod metrics;
mod observer;
mod options;
mod prepare;
mod rng;
mod run;
pub mod schedule;
pub mod tokenizer;
mod trainer;

pub use error::{Error, Result};
pub use observer::{Event, Observer, Report, Silent};
pub use options::{Plan, Precision, TrainOptions};
pub use prepare::PlainText;
pub use run::{Environment, resume, run};
pub use trainer::{Batch, Optimizer, StepResult, Trainer, decays};
