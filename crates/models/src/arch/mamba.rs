//! Mamba.

use super::llama::LLAMA;
use super::{Arch, HfName, NormName, Outside, SubLayer};
use crate::blocks::{BlockRow, MambaRow};

pub(super) const MAMBA: Arch = Arch {
    name: "mamba",
    doc: "Mamba: selective state spaces, no attention, constant memory per token",
    hf: &[HfName { model_type: "mamba", class: "MambaForCausalLM" }],
    outside: Outside {
        embedding: &["backbone.embeddings.weight", "backbone.embedding.weight"],
        norm: &["backbone.norm_f"],
        layers: "backbone.layers",
        ..Outside::MODEL
    },
    tied: true,
    eps: 1e-5,
    context: 1 << 20,
    layer: &[SubLayer::new(NormName::new("attn_norm", "norm"), BlockRow::Mamba(MambaRow { hf: "mixer" }))],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "state_size": 8}"#,
    ..LLAMA
};
