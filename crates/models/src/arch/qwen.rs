//! Qwen.

use imaginal_tensor::RopeStyle;

use super::llama::{FFN_NORM, LLAMA, attention, mlp};
use super::{Arch, HfName, SubLayer};
use crate::blocks::{AttentionRow, Bias, BlockRow, Choice, MlpRow, MoeRow, QkNormRow, Window, by_step};

const ATTENTION: AttentionRow = AttentionRow {
    gguf_rope: RopeStyle::Half,
    qkv_bias: Bias::Optional(&["attention_bias"]),
    qk_norm: Some(QkNormRow::HEAD),
    window: Window::FromLayer,
    ..AttentionRow::LLAMA
};

pub(super) const QWEN2_ATTENTION: AttentionRow =
    AttentionRow { qkv_bias: Bias::Always, out_bias: Bias::Never, qk_norm: None, ..ATTENTION };

/// With a field for the biases, and other windows.
pub(super) const QWEN2_MOE_ATTENTION: AttentionRow =
    AttentionRow { qkv_bias: Bias::Usually(&["qkv_bias"]), window: Window::Alternating, ..QWEN2_ATTENTION };

pub(super) const QWEN2: Arch = Arch {
    name: "qwen2",
    doc: "Qwen 2 and 2.5: Llama's shape with biases on queries, keys and values",
    hf: &[HfName { model_type: "qwen2", class: "Qwen2ForCausalLM" }],
    context: 32768,
    layer: &[attention(QWEN2_ATTENTION), mlp(MlpRow::PLAIN)],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "intermediate_size": 37, "max_position_embeddings": 512,
              "tie_word_embeddings": true, "rope_theta": 1000000.0}"#,
    ..LLAMA
};

pub(super) const QWEN3: Arch = Arch {
    name: "qwen3",
    doc: "Qwen 3, dense: heads of their own size, queries and keys normalised",
    hf: &[HfName { model_type: "qwen3", class: "Qwen3ForCausalLM" }],
    context: 32768,
    layer: &[attention(ATTENTION), mlp(MlpRow::PLAIN)],
    tiny: r#"{"vocab_size": 67, "hidden_size": 28, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 10, "intermediate_size": 37, "max_position_embeddings": 512,
              "rope_theta": 1000000.0}"#,
    ..LLAMA
};

const DENSE_OR_EXPERTS: BlockRow =
    BlockRow::Choice(Choice { pick: by_step, of: &[BlockRow::Mlp(MlpRow::PLAIN), BlockRow::Moe(MoeRow::QWEN)] });

pub(super) const QWEN3_MOE: Arch = Arch {
    name: "qwen3moe",
    doc: "Qwen 3, mixture of experts",
    hf: &[HfName { model_type: "qwen3_moe", class: "Qwen3MoeForCausalLM" }],
    context: 32768,
    layer: &[
        attention(AttentionRow { window: Window::IfUsed, ..ATTENTION }),
        SubLayer::new(FFN_NORM, DENSE_OR_EXPERTS),
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 28, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 10, "num_experts": 5, "num_experts_per_tok": 2,
              "moe_intermediate_size": 13, "norm_topk_prob": true, "max_position_embeddings": 512,
              "rope_theta": 1000000.0}"#,
    ..LLAMA
};
