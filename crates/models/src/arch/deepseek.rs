//! DeepSeek and others with multi-head latent attention.

use imaginal_nn::Scores;

use super::llama::{ATTN_NORM, FFN_NORM, LLAMA};
use super::{Arch, HfName, SubLayer, Variant};
use crate::blocks::{
    BlockRow, Choice, DenseLayers, GroupScore, MlaRow, MlpRow, MoeRow, SharedRow, after_leading, is_softmax,
};
use crate::fields::Key;

/// Chosen by softmax, groups compared by their best.
const V2: MoeRow = MoeRow {
    groups: Some(GroupScore::Best),
    normalised: [false, false],
    never_normalised: true,
    shared: Some(SharedRow {
        hf: "mlp.shared_experts",
        gate: None,
        count: Some(Key::new(&["expert_shared_count"], &["n_shared_experts"])),
        inner: None,
    }),
    dense_layers: DenseLayers::Leading,
    ..MoeRow::QWEN
};

/// Chosen by sigmoid and a correction, groups compared by their two best.
pub(super) const V3: MoeRow = MoeRow {
    scores: Scores::Sigmoid,
    groups: Some(GroupScore::BestTwo),
    correction: Some(&["mlp.gate.e_score_correction_bias"]),
    normalised: [true, false],
    never_normalised: false,
    ..V2
};

const ATTENTION: SubLayer = SubLayer::new(ATTN_NORM, BlockRow::Mla(MlaRow::DEEPSEEK));

const fn experts(of: &'static [BlockRow]) -> SubLayer {
    SubLayer::new(FFN_NORM, BlockRow::Choice(Choice { pick: after_leading, of }))
}

pub(super) const DEEPSEEK2: Arch = Arch {
    name: "deepseek2",
    doc: "DeepSeek V2, V3 and R1, Kimi K2: latent attention, many small experts beside some that all tokens use",
    hf: &[
        HfName { model_type: "deepseek_v3", class: "DeepseekV3ForCausalLM" },
        HfName { model_type: "deepseek_v2", class: "DeepseekV2ForCausalLM" },
        HfName { model_type: "kimi_k2", class: "DeepseekV3ForCausalLM" },
    ],
    context: 4096,
    layer: &[ATTENTION, experts(&[BlockRow::Mlp(MlpRow::PLAIN), BlockRow::Moe(V3)])],
    variants: &[Variant {
        when: |r| is_softmax(r, &["deepseek_v2"]),
        key: None,
        layer: &[ATTENTION, experts(&[BlockRow::Mlp(MlpRow::PLAIN), BlockRow::Moe(V2)])],
    }],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3,
              "intermediate_size": 29, "first_k_dense_replace": 1, "moe_intermediate_size": 11, "n_routed_experts": 8,
              "n_shared_experts": 1, "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2, "kv_lora_rank": 10,
              "q_lora_rank": 13, "qk_nope_head_dim": 6, "qk_rope_head_dim": 8, "v_head_dim": 7,
              "routed_scaling_factor": 2.5}"#,
    ..LLAMA
};
