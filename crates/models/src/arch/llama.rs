//! Llama and what has its shape. Most other families begin with these rows.

use imaginal_nn::NormKind;

use super::{Arch, EmbeddingRow, HfName, NormName, Outside, Scales, SubLayer};
use crate::blocks::{AttentionRow, BlockRow, Choice, DenseLayers, MlpRow, MoeRow, if_any};
use crate::fields::Key;

pub(super) const ATTN_NORM: NormName = NormName::new("attn_norm", "input_layernorm");
pub(super) const FFN_NORM: NormName = NormName::new("ffn_norm", "post_attention_layernorm");

pub(super) const fn attention(row: AttentionRow) -> SubLayer {
    SubLayer::new(ATTN_NORM, BlockRow::Attention(row))
}

pub(super) const fn mlp(row: MlpRow) -> SubLayer {
    SubLayer::new(FFN_NORM, BlockRow::Mlp(row))
}

/// Experts of Mixtral.
pub(super) const MIXTRAL: MoeRow = MoeRow {
    hf: "block_sparse_moe.experts",
    names: ["w1", "w3", "w2"],
    hf_router: "block_sparse_moe.gate",
    moved: Some(["mlp.experts", "mlp.gate"]),
    inner: Key::new(&["expert_feed_forward_length", "feed_forward_length"], &["intermediate_size"]),
    normalised: [true, true],
    dense_layers: DenseLayers::AllOrNone,
    ..MoeRow::QWEN
};

/// GGUF files have no other name for Mixtral.
const DENSE_OR_MIXTRAL: BlockRow =
    BlockRow::Choice(Choice { pick: if_any, of: &[BlockRow::Mlp(MlpRow::LLAMA), BlockRow::Moe(MIXTRAL)] });

pub(super) const LLAMA: Arch = Arch {
    name: "llama",
    doc: "Llama 1 to 3, Mistral, Mixtral, TinyLlama, SmolLM and others of the same shape",
    gguf: &[],
    gguf_as: None,
    hf: &[
        HfName { model_type: "llama", class: "LlamaForCausalLM" },
        HfName { model_type: "mistral", class: "MistralForCausalLM" },
        HfName { model_type: "mixtral", class: "MixtralForCausalLM" },
    ],
    outside: Outside::MODEL,
    norm: NormKind::Rms,
    norm_bias: None,
    norm_less_one: false,
    tied: false,
    eps: 1e-6,
    context: 2048,
    embedding: EmbeddingRow::PLAIN,
    scales: Scales::ONE,
    layer: &[attention(AttentionRow::LLAMA), SubLayer::new(FFN_NORM, DENSE_OR_MIXTRAL)],
    hf_when: None,
    hf_factors: None,
    encoder: None,
    variants: &[],
    streams: false,
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "intermediate_size": 37, "max_position_embeddings": 512, "rms_norm_eps": 1e-5}"#,
};
