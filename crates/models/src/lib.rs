//! The table of architectures and the one decoder.
//!
//! An architecture is a row of [`ARCHS`]: which blocks make a layer and how its keys and tensors are called in GGUF
//! files and Hugging Face checkpoints. [`Config`] is such a row with its sizes, read from a file and checked; a
//! [`Model`] is a configuration with its parameters; [`Loaded::open`] does all of it.
//!
//! ```no_run
//! use imaginal_models::{LoadOptions, Loaded, Model, Rows};
//! # fn main() -> imaginal_models::Result<()> {
//! let loaded = Loaded::open("model.gguf", &LoadOptions::default())?;
//! let mut state = loaded.model.state(1)?;
//! let logits = loaded.model.forward(&Model::ids(&[1, 2, 3])?, Some(&mut state), Rows::Last)?;
//! assert_eq!(logits.shape(), [1, 1, loaded.model.config().vocab()]);
//! # Ok(())
//! # }
//! ```

pub mod arch;
mod block;
pub mod blocks;
mod config;
mod decoder;
mod encode;
mod error;
mod fields;
mod heads;
mod language;
mod load;
pub mod morph;
mod pooling;
mod recognise;
mod save;
mod state;
mod streams;
mod tensors;

pub use arch::{ARCHS, Arch};
pub use blocks::{BlockConfig, BlockRow};
pub use config::{Config, Mix, ModelScales};
pub use decoder::{Model, Rows};
pub use encode::Text;
pub use error::{Error, Problem, Result};
pub use fields::Key;
pub use heads::{DenseConfig, HeadConfig, LabelsConfig, MaskedConfig};
pub use imaginal_nn::State;
pub use language::LanguageModel;
pub use load::{LoadOptions, Loaded};
pub use pooling::{Pooling, PoolingKind};
pub use save::SaveOptions;
pub use state::ModelState;
pub use tensors::{Arrange, Map, Piece, Stored, TensorSpec, What};
