#![doc = include_str!("../../../README.md")]
//!
//! # The rooms
//! This crate names every room of the engine in one place, and holds the `imaginal` command.

pub use imaginal_files as files;
pub use imaginal_generate as generate;
pub use imaginal_hub as hub;
pub use imaginal_kernels as kernels;
pub use imaginal_models as models;
pub use imaginal_nn as nn;
pub use imaginal_numeric as numeric;
pub use imaginal_tensor as tensor;
pub use imaginal_train as train;

pub mod cli;
mod commands;
pub mod find;
