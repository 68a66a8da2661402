//! Families that are attention and experts.

use imaginal_nn::{NormKind, Over, Scores, Yarn};
use imaginal_tensor::RopeStyle;

use super::dense::{GRANITE, GRANITE_ATTENTION};
use super::llama::{ATTN_NORM, FFN_NORM, LLAMA, attention};
use super::qwen::QWEN2_MOE_ATTENTION;
use super::{Arch, HfName, NormName, Outside, SubLayer};
use crate::blocks::{
    ActivationRow, AttentionRow, Bias, BlockRow, Choice, DenseLayers, EXPERTS, Fused, Mamba2Row, MlpRow, MoeRow,
    QkNormRow, RopeRow, SharedRow, Stacks, Turned, Window, by_interleave, by_kv_heads, by_step, by_types, if_any,
};
use crate::fields::Key;

const fn experts(row: MoeRow) -> SubLayer {
    SubLayer::new(FFN_NORM, BlockRow::Moe(row))
}

/// Experts of Qwen beside one that every token uses, behind a gate.
pub(super) const QWEN_SHARED: MoeRow = MoeRow {
    normalised: [false, false],
    shared: Some(SharedRow {
        hf: "mlp.shared_expert",
        gate: Some("mlp.shared_expert_gate"),
        count: None,
        inner: Some(Key::new(
            &["expert_shared_feed_forward_length", "feed_forward_length"],
            &["shared_expert_intermediate_size"],
        )),
    }),
    ..MoeRow::QWEN
};

pub(super) const QWEN2_MOE: Arch = Arch {
    name: "qwen2moe",
    doc: "Qwen 1.5 and 2, mixture of experts: one that every token uses, behind a gate",
    hf: &[HfName { model_type: "qwen2_moe", class: "Qwen2MoeForCausalLM" }],
    context: 32768,
    layer: &[
        attention(QWEN2_MOE_ATTENTION),
        SubLayer::new(
            FFN_NORM,
            BlockRow::Choice(Choice { pick: by_step, of: &[BlockRow::Mlp(MlpRow::PLAIN), BlockRow::Moe(QWEN_SHARED)] }),
        ),
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 13,
              "shared_expert_intermediate_size": 19}"#,
    ..LLAMA
};

const GRANITE_EXPERTS: MoeRow = MoeRow {
    hf: "block_sparse_moe",
    hf_router: "block_sparse_moe.router.layer",
    stacks: Stacks::Rows(["input_linear.weight", "output_linear.weight"]),
    inner: Key::new(&["expert_feed_forward_length", "feed_forward_length"], &["intermediate_size"]),
    scores: Scores::SoftmaxChosen,
    normalised: [false, false],
    dense_layers: DenseLayers::AllOrNone,
    shared: Some(SharedRow {
        hf: "shared_mlp",
        gate: None,
        count: None,
        inner: Some(Key::new(&["expert_shared_feed_forward_length"], &["shared_intermediate_size"])),
    }),
    shared_fused: Some(["input_linear", "output_linear"]),
    ..MoeRow::QWEN
};

pub(super) const GRANITE_MOE: Arch = Arch {
    name: "granitemoe",
    doc: "Granite 3, mixture of experts, perhaps with one that every token uses",
    hf: &[
        HfName { model_type: "granitemoe", class: "GraniteMoeForCausalLM" },
        HfName { model_type: "granitemoeshared", class: "GraniteMoeSharedForCausalLM" },
    ],
    layer: &[attention(GRANITE_ATTENTION), experts(GRANITE_EXPERTS)],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 13,
              "shared_intermediate_size": 19, "embedding_multiplier": 4.0, "residual_multiplier": 0.7}"#,
    ..GRANITE
};

pub(super) const GRANITE_HYBRID: Arch = Arch {
    name: "granitehybrid",
    doc: "Granite 4: Mamba-2 with a layer of attention now and then, mostly without positions, with or without experts",
    hf: &[HfName { model_type: "granitemoehybrid", class: "GraniteMoeHybridForCausalLM" }],
    tied: true,
    layer: &[
        SubLayer::new(
            ATTN_NORM,
            BlockRow::Choice(Choice {
                pick: |r| match r.f.is_gguf() {
                    true => by_kv_heads(r),
                    // Without the list no layer has attention.
                    false if r.f.texts(&LAYER_TYPES).is_none() => vec![0; r.layers.len()],
                    false => by_types(r, &LAYER_TYPES, &GRANITE_TYPES),
                },
                of: &[
                    BlockRow::Mamba2(Mamba2Row::MAMBA),
                    BlockRow::Attention(AttentionRow {
                        rope: RopeRow { turned: Turned::Named, ..RopeRow::PLAIN },
                        ..GRANITE_ATTENTION
                    }),
                ],
            }),
        ),
        SubLayer::new(
            FFN_NORM,
            BlockRow::Choice(Choice {
                pick: if_any,
                of: &[
                    BlockRow::Mlp(MlpRow {
                        hf: "shared_mlp",
                        hf_fused: Some("input_linear"),
                        names: ["", "", "output_linear"],
                        inner: (Key::new(&["feed_forward_length"], &["shared_intermediate_size"]), None),
                        ..MlpRow::PLAIN
                    }),
                    BlockRow::Moe(GRANITE_EXPERTS),
                ],
            }),
        ),
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
              "num_key_value_heads": 2, "layer_types": ["mamba", "attention", "mamba"], "mamba_d_state": 8,
              "mamba_n_heads": 6, "mamba_d_head": 8, "mamba_n_groups": 2, "num_local_experts": 5,
              "num_experts_per_tok": 2, "intermediate_size": 13, "shared_intermediate_size": 19,
              "residual_multiplier": 0.7}"#,
    ..GRANITE
};

const LAYER_TYPES: Key = Key::new(&[], &["layer_types"]);
const GRANITE_TYPES: [(&str, usize); 4] =
    [("mamba", 0), ("linear_attention", 0), ("attention", 1), ("full_attention", 1)];

pub(super) const MINIMAX_M2: Arch = Arch {
    name: "minimax-m2",
    doc: "MiniMax M2: half of a head turned, queries and keys normalised as a whole, experts chosen by sigmoid",
    hf: &[HfName { model_type: "minimax_m2", class: "MiniMaxM2ForCausalLM" }],
    context: 196_608,
    layer: &[
        attention(AttentionRow {
            qk_norm: Some(QkNormRow { over: Over::Width, ..QkNormRow::HEAD }),
            rope: RopeRow { theta: 5e6, ..RopeRow::PLAIN },
            ..AttentionRow::PLAIN
        }),
        experts(MoeRow {
            hf: "block_sparse_moe.experts",
            names: ["w1", "w3", "w2"],
            hf_router: "block_sparse_moe.gate",
            moved: Some(["mlp.experts", "mlp.gate"]),
            inner: Key::new(&["expert_feed_forward_length"], &["intermediate_size"]),
            scores: Scores::Sigmoid,
            correction: Some(&["block_sparse_moe.e_score_correction_bias", "mlp.e_score_correction_bias"]),
            normalised: [true, true],
            ..MoeRow::QWEN
        }),
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 8, "rotary_dim": 4, "num_local_experts": 6,
              "num_experts_per_tok": 3, "intermediate_size": 11}"#,
    ..LLAMA
};

/// Where no field speaks of YaRN.
const GPT_OSS_YARN: Yarn = Yarn {
    factor: 32.0,
    original: 4096,
    beta_fast: 32.0,
    beta_slow: 1.0,
    truncate: false,
    amplitude: 1.346_573_590_279_972_7,
};

pub(super) const GPT_OSS: Arch = Arch {
    name: "gpt-oss",
    doc: "GPT-OSS: sinks, a window in every other layer, experts with biases and a bounded unit",
    hf: &[HfName { model_type: "gpt_oss", class: "GptOssForCausalLM" }],
    eps: 1e-5,
    context: 131_072,
    layer: &[
        attention(AttentionRow {
            qkv_bias: Bias::Usually(&["attention_bias"]),
            out_bias: Bias::Usually(&["attention_bias"]),
            rope: RopeRow { theta: 150_000.0, truncate: false, usual: Some(&GPT_OSS_YARN), ..RopeRow::PLAIN },
            sinks: Some("sinks"),
            window: Window::Pattern { period: 2, full: 1 },
            ..AttentionRow::PLAIN
        }),
        SubLayer::new(
            NormName::new("post_attention_norm", "post_attention_layernorm"),
            BlockRow::Moe(MoeRow {
                hf_router: "mlp.router",
                stacks: Stacks::InTurn(["gate_up_proj", "down_proj"]),
                inner: Key::new(&["expert_feed_forward_length"], &["intermediate_size"]),
                activation: ActivationRow::Clamped(
                    Key::new(&["swiglu_clamp_exp"], &["swiglu_limit"]),
                    Key::new(&[], &["swiglu_alpha"]),
                ),
                bias: true,
                router_bias: true,
                scores: Scores::SoftmaxChosen,
                normalised: [false, false],
                ..MoeRow::QWEN
            }),
        ),
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 10, "num_local_experts": 5, "num_experts_per_tok": 2,
              "intermediate_size": 17, "sliding_window": 7, "swiglu_limit": 3.0}"#,
    ..LLAMA
};

pub(super) const DBRX: Arch = Arch {
    name: "dbrx",
    doc: "DBRX: bounded queries, keys and values, experts in one matrix",
    hf: &[HfName { model_type: "dbrx", class: "DbrxForCausalLM" }],
    outside: Outside {
        embedding: &["transformer.wte.weight"],
        norm: &["transformer.norm_f"],
        layers: "transformer.blocks",
        ..Outside::MODEL
    },
    norm: NormKind::LayerNoBias,
    eps: 1e-5,
    layer: &[
        SubLayer::new(
            NormName::new("attn_norm", "norm_attn_norm.norm_1"),
            BlockRow::Attention(AttentionRow {
                hf: "norm_attn_norm.attn",
                fused: Fused::Joined("Wqkv"),
                hf_out: "out_proj",
                gguf_fused: true,
                clip: Some(Key::new(&["attention.clamp_kqv"], &["attn_config.clip_qkv"])),
                ..AttentionRow::PLAIN
            }),
        ),
        SubLayer::new(
            NormName::new("attn_output_norm", "norm_attn_norm.norm_2"),
            BlockRow::Moe(MoeRow {
                hf: "ffn.experts.mlp",
                hf_router: "ffn.router.layer",
                stacks: Stacks::Below(["w1", "v1", "w2"]),
                inner: Key::new(
                    &["expert_feed_forward_length", "feed_forward_length"],
                    &["ffn_config.ffn_hidden_size"],
                ),
                normalised: [true, true],
                norm_order: Some(Key::new(&[], &["ffn_config.moe_normalize_expert_weights"])),
                ..MoeRow::QWEN
            }),
        ),
    ],
    tiny: r#"{"vocab_size": 67, "d_model": 24, "n_layers": 2, "n_heads": 4, "max_seq_len": 512,
              "attn_config": {"clip_qkv": 0.02, "kv_n_heads": 2, "rope_theta": 700.0},
              "ffn_config": {"ffn_hidden_size": 13, "moe_num_experts": 5, "moe_top_k": 2}}"#,
    ..LLAMA
};

/// Experts that get tokens multiplied by their weights, beside one that all tokens use.
const LLAMA4_EXPERTS: MoeRow = MoeRow {
    hf: "feed_forward.experts",
    hf_router: "feed_forward.router",
    stacks: Stacks::Columns(["gate_up_proj", "down_proj"]),
    inner: Key::new(&["expert_feed_forward_length"], &["intermediate_size"]),
    scores: Scores::Sigmoid,
    normalised: [false, false],
    shared: Some(SharedRow { hf: "feed_forward.shared_expert", gate: None, count: None, inner: None }),
    on_input: true,
    dense_layers: DenseLayers::Interleaved,
    ..MoeRow::QWEN
};

pub(super) const LLAMA4: Arch = Arch {
    name: "llama4",
    doc: "Llama 4: chunks of attention, every fourth layer without positions, experts in every or every other layer",
    hf: &[
        HfName { model_type: "llama4_text", class: "Llama4ForCausalLM" },
        HfName { model_type: "llama4", class: "Llama4ForConditionalGeneration" },
    ],
    eps: 1e-5,
    context: 131_072,
    layer: &[
        attention(AttentionRow {
            qk_norm: Some(QkNormRow {
                kind: NormKind::RmsUnit,
                after_rope: true,
                when: Bias::Usually(&["use_qk_norm"]),
                only_turned: true,
                // Files do not say; those of Maverick, with 128 experts, are without.
                gguf: Some(|r| r.f.size(&EXPERTS, Some(1), 1 << 12) != 128),
                ..QkNormRow::HEAD
            }),
            hf_rope: RopeStyle::Interleaved,
            rope: RopeRow { turned: Turned::AllButEach(4), theta: 500_000.0, ..RopeRow::PLAIN },
            window: Window::Chunked,
            temperature: true,
            ..AttentionRow::LLAMA
        }),
        SubLayer::new(
            FFN_NORM,
            BlockRow::Choice(Choice {
                pick: by_interleave,
                of: &[
                    BlockRow::Mlp(MlpRow {
                        hf: "feed_forward",
                        inner: (Key::new(&["feed_forward_length"], &["intermediate_size_mlp"]), None),
                        ..MlpRow::PLAIN
                    }),
                    BlockRow::Moe(LLAMA4_EXPERTS),
                ],
            }),
        ),
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 9, "intermediate_size_mlp": 19,
              "num_local_experts": 3, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2,
              "attention_chunk_size": 50, "floor_scale": 40}"#,
    ..LLAMA
};
