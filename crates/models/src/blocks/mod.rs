//! The kinds of block a decoder is made of. Each has a row type (what of it an architecture fixes), reads its own typed
//! configuration from a file, and names its tensors.

mod attention;
mod mamba;
mod mlp;
mod moe;

pub use attention::{AttentionRow, Bias, Window};
pub use mamba::MambaRow;
pub use mlp::MlpRow;
pub use moe::MoeRow;

use imaginal_files::gguf::Value;
use imaginal_nn::{AttentionConfig, MambaConfig, MlpConfig, MoeConfig};

use crate::config::Shared;
use crate::fields::Fields;
use crate::tensors::Specs;

/// What an architecture fixes of one of its blocks.
#[derive(Copy, Clone, Debug)]
pub enum BlockRow {
    /// Attention.
    Attention(AttentionRow),
    /// A gated feed-forward network.
    Mlp(MlpRow),
    /// Experts, a gated feed-forward network each; some layers may have one such network instead.
    Moe(MoeRow),
    /// A selective state space.
    Mamba(MambaRow),
}

/// One block of one layer of a model.
#[derive(Clone, Debug, PartialEq)]
pub enum BlockConfig {
    /// Attention.
    Attention(AttentionConfig),
    /// A gated feed-forward network.
    Mlp(MlpConfig),
    /// Experts.
    Moe(MoeConfig),
    /// A selective state space.
    Mamba(MambaConfig),
}

/// Metadata under construction: keys without the architecture's prefix.
pub(crate) type Keys = Vec<(&'static str, Value)>;

impl BlockRow {
    /// Reads the block's configuration, one for each layer. `present` tells whether the file has a tensor of layer 0.
    pub(crate) fn read(&self, f: &Fields, shared: &Shared, present: &dyn Fn(&str) -> bool) -> Vec<BlockConfig> {
        match self {
            BlockRow::Attention(row) => row.read(f, shared, present).into_iter().map(BlockConfig::Attention).collect(),
            BlockRow::Mlp(row) => vec![BlockConfig::Mlp(row.read(f, shared, present)); shared.layers],
            BlockRow::Moe(row) => row.read(f, shared, present),
            BlockRow::Mamba(row) => vec![BlockConfig::Mamba(row.read(f, shared, present)); shared.layers],
        }
    }

    /// Names the tensors of one block.
    pub(crate) fn tensors(&self, config: &BlockConfig, specs: &mut Specs) {
        match (self, config) {
            (BlockRow::Attention(row), BlockConfig::Attention(c)) => row.tensors(c, specs),
            (BlockRow::Mlp(row), BlockConfig::Mlp(c)) => row.tensors(c, specs),
            (BlockRow::Moe(row), BlockConfig::Moe(c)) => row.tensors(c, specs),
            (BlockRow::Moe(row), BlockConfig::Mlp(c)) => row.dense.tensors(c, specs),
            (BlockRow::Mamba(row), BlockConfig::Mamba(c)) => row.tensors(c, specs),
            // A configuration is made from its own row (`Config` has no public constructor that mixes them).
            _ => {}
        }
    }

    /// What GGUF metadata says of this block, given the configurations of all layers.
    ///
    /// # Errors
    /// In words, what the format has no place for.
    pub(crate) fn write(&self, layers: &[&BlockConfig], keys: &mut Keys) -> Result<(), String> {
        let Some(first) = layers.first() else { return Ok(()) };
        match (self, first) {
            (BlockRow::Attention(_), BlockConfig::Attention(c)) => {
                if layers.iter().any(|l| l != first) {
                    return Err("attention windows on some layers only have no place in a GGUF file".into());
                }
                attention::write(c, keys);
                Ok(())
            }
            (BlockRow::Mlp(_), BlockConfig::Mlp(c)) => {
                mlp::write(c, keys);
                Ok(())
            }
            (BlockRow::Moe(row), _) => row.write(layers, keys),
            (BlockRow::Mamba(_), BlockConfig::Mamba(c)) => mamba::write(c, keys),
            _ => Ok(()),
        }
    }
}
