//! Families that mix attention with linear attention or short convolutions.

use imaginal_nn::{Activation, HeadOrder, Scores};

use super::deepseek::V3;
use super::llama::{ATTN_NORM, FFN_NORM, LLAMA, MIXTRAL};
use super::moe::QWEN_SHARED;
use super::{Arch, HfName, MixRow, NormName, Outside, SubLayer};
use crate::blocks::{
    ActivationRow, AttentionRow, Bias, BlockRow, Choice, DeltaNetRow, DenseLayers, KimiDeltaRow, LightningRow,
    Mamba2Row, MlaRow, MlpRow, MoeRow, QkNormRow, Reader, RopeRow, SHARED_LAYERS, SharedBlockRow, SharedRow,
    ShortConvRow, after_leading, by_interval, by_kv_heads, by_step, by_types,
};
use crate::fields::Key;

/// Attention of Qwen whose results pass a gate, in each fourth layer.
const fn qwen_attention(axes: bool, delta: DeltaNetRow) -> [BlockRow; 2] {
    let attention = AttentionRow {
        qkv_bias: Bias::Optional(&["attention_bias"]),
        out_bias: Bias::Optional(&["attention_bias"]),
        qk_norm: Some(QkNormRow::HEAD),
        rope: RopeRow { partial: 0.25, theta: 1e7, axes, ..RopeRow::PLAIN },
        gated: true,
        ..AttentionRow::PLAIN
    };
    [BlockRow::Attention(attention), BlockRow::DeltaNet(delta)]
}

const fn qwen_layer(of: &'static [BlockRow; 2]) -> SubLayer {
    SubLayer::new(ATTN_NORM, BlockRow::Choice(Choice { pick: |r| by_interval(r, 4), of }))
}

const QWEN_FFN_NORM: NormName = NormName::new("post_attention_norm", "post_attention_layernorm");

const QWEN_EXPERTS: MoeRow = MoeRow { normalised: [true, true], ..QWEN_SHARED };

pub(super) const QWEN3_NEXT: Arch = Arch {
    name: "qwen3next",
    doc: "Qwen 3 Next: gated delta rule, with gated attention in each fourth layer, experts beside one behind a gate",
    hf: &[HfName { model_type: "qwen3_next", class: "Qwen3NextForCausalLM" }],
    norm_less_one: true,
    context: 32768,
    layer: &[
        qwen_layer(&qwen_attention(
            false,
            DeltaNetRow { hf: "linear_attn", fused: true, gguf_order: HeadOrder::Grouped },
        )),
        SubLayer::new(
            QWEN_FFN_NORM,
            BlockRow::Choice(Choice {
                pick: by_step,
                of: &[BlockRow::Mlp(MlpRow::PLAIN), BlockRow::Moe(QWEN_EXPERTS)],
            }),
        ),
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
              "linear_key_head_dim": 6, "linear_value_head_dim": 5, "linear_conv_kernel_dim": 4, "num_experts": 5,
              "num_experts_per_tok": 2, "moe_intermediate_size": 13, "shared_expert_intermediate_size": 9}"#,
    ..LLAMA
};

const QWEN35_LAYER: SubLayer =
    qwen_layer(&qwen_attention(true, DeltaNetRow { hf: "linear_attn", fused: false, gguf_order: HeadOrder::Tiled }));

pub(super) const QWEN35: Arch = Arch {
    name: "qwen35",
    doc: "Qwen 3.5: gated delta rule, with gated attention in each fourth layer",
    hf: &[
        HfName { model_type: "qwen3_5_text", class: "Qwen3_5ForCausalLM" },
        HfName { model_type: "qwen3_5", class: "Qwen3_5ForConditionalGeneration" },
    ],
    layer: &[QWEN35_LAYER, SubLayer::new(QWEN_FFN_NORM, BlockRow::Mlp(MlpRow::PLAIN))],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 6,
              "linear_key_head_dim": 6, "linear_value_head_dim": 5, "linear_conv_kernel_dim": 4,
              "intermediate_size": 37}"#,
    ..QWEN3_NEXT
};

pub(super) const QWEN35_MOE: Arch = Arch {
    name: "qwen35moe",
    doc: "Qwen 3.5, mixture of experts: beside them one behind a gate",
    hf: &[
        HfName { model_type: "qwen3_5_moe_text", class: "Qwen3_5MoeForCausalLM" },
        HfName { model_type: "qwen3_5_moe", class: "Qwen3_5MoeForConditionalGeneration" },
    ],
    layer: &[QWEN35_LAYER, SubLayer::new(QWEN_FFN_NORM, BlockRow::Moe(QWEN_EXPERTS))],
    tiny: QWEN3_NEXT.tiny,
    ..QWEN35
};

const LFM2_MLP: MlpRow = MlpRow { hf: "feed_forward", names: ["w1", "w3", "w2"], ..MlpRow::PLAIN };

/// Attention, or gated short convolutions, by a list of either.
fn lfm2_pick(r: &Reader) -> Vec<usize> {
    const TYPES: Key = Key::new(&[], &["layer_types"]);
    const ATTENTION: Key = Key::new(&[], &["full_attn_idxs"]);
    if r.f.is_gguf() {
        return by_kv_heads(r);
    }
    if r.f.has(&TYPES) {
        return by_types(r, &TYPES, &[("conv", 0), ("full_attention", 1)]);
    }
    let attention = r.f.sizes(&ATTENTION);
    // Without the list all layers have attention.
    let all = !r.f.has(&ATTENTION);
    r.layers.iter().map(|layer| usize::from(all || attention.contains(layer))).collect()
}

const LFM2_LAYER: SubLayer = SubLayer::new(
    NormName::new("attn_norm", "operator_norm"),
    BlockRow::Choice(Choice {
        pick: lfm2_pick,
        of: &[
            BlockRow::ShortConv(ShortConvRow { hf: "conv" }),
            BlockRow::Attention(AttentionRow {
                hf_out: "out_proj",
                qk_norm: Some(QkNormRow { hf: ["q_layernorm", "k_layernorm"], ..QkNormRow::HEAD }),
                rope: RopeRow { theta: 1e6, ..RopeRow::PLAIN },
                ..AttentionRow::PLAIN
            }),
        ],
    }),
);

const LFM2_FFN_NORM: NormName = NormName::new("ffn_norm", "ffn_norm");

pub(super) const LFM2: Arch = Arch {
    name: "lfm2",
    doc: "LFM2: gated short convolutions and attention",
    hf: &[HfName { model_type: "lfm2", class: "Lfm2ForCausalLM" }],
    outside: Outside { norm: &["model.embedding_norm"], gguf_norm: "token_embd_norm", ..Outside::MODEL },
    tied: true,
    eps: 1e-5,
    context: 128_000,
    layer: &[
        LFM2_LAYER,
        SubLayer::new(
            LFM2_FFN_NORM,
            BlockRow::Mlp(MlpRow {
                inner: (Key::new(&["feed_forward_length"], &["block_ff_dim", "intermediate_size"]), None),
                adjusted: true,
                ..LFM2_MLP
            }),
        ),
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
              "num_key_value_heads": 2, "conv_L_cache": 3, "block_ff_dim": 37, "block_multiple_of": 9,
              "full_attn_idxs": [1]}"#,
    ..LLAMA
};

pub(super) const LFM2_MOE: Arch = Arch {
    name: "lfm2moe",
    doc: "LFM2, mixture of experts: chosen by sigmoid after the first layers",
    hf: &[HfName { model_type: "lfm2_moe", class: "Lfm2MoeForCausalLM" }],
    layer: &[
        LFM2_LAYER,
        SubLayer::new(
            LFM2_FFN_NORM,
            BlockRow::Choice(Choice {
                pick: after_leading,
                of: &[
                    BlockRow::Mlp(LFM2_MLP),
                    BlockRow::Moe(MoeRow {
                        hf: "feed_forward.experts",
                        names: LFM2_MLP.names,
                        hf_router: "feed_forward.gate",
                        scores: Scores::Sigmoid,
                        correction: Some(&["feed_forward.expert_bias"]),
                        normalised: [true, true],
                        dense_layers: DenseLayers::Leading,
                        ..MoeRow::QWEN
                    }),
                ],
            }),
        ),
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
              "num_key_value_heads": 2, "conv_L_cache": 3, "intermediate_size": 37, "full_attn_idxs": [1],
              "num_dense_layers": 1, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 11}"#,
    ..LFM2
};

/// Attention where a list (which counts from 1, if it is one of numbers) says so; without, in each fourth layer but the first.
fn kimi_pick(r: &Reader) -> Vec<usize> {
    const ATTENTION: Key = Key::new(&[], &["linear_attn_config.full_attn_layers"]);
    const TYPES: Key = Key::new(&[], &["layer_types"]);
    if r.f.is_gguf() {
        return by_kv_heads(r);
    }
    if r.f.texts(&TYPES).is_some() {
        return by_types(r, &TYPES, &[("linear_attention", 0), ("full_attention", 1)]);
    }
    if !r.f.has(&ATTENTION) {
        return r.layers.iter().map(|layer| usize::from(*layer > 0 && layer.is_multiple_of(4))).collect();
    }
    let attention = r.f.sizes(&ATTENTION);
    r.layers.iter().map(|layer| usize::from(attention.contains(&(layer + 1)))).collect()
}

pub(super) const KIMI_LINEAR: Arch = Arch {
    name: "kimi-linear",
    doc: "Kimi Linear: delta rule with a decay for each channel, latent attention without positions, experts",
    hf: &[HfName { model_type: "kimi_linear", class: "KimiLinearForCausalLM" }],
    context: 1 << 20,
    layer: &[
        SubLayer::new(
            ATTN_NORM,
            BlockRow::Choice(Choice {
                pick: kimi_pick,
                of: &[
                    BlockRow::KimiDelta(KimiDeltaRow { hf: "self_attn" }),
                    BlockRow::Mla(MlaRow { rope: None, ..MlaRow::DEEPSEEK }),
                ],
            }),
        ),
        SubLayer::new(
            FFN_NORM,
            BlockRow::Choice(Choice {
                pick: after_leading,
                of: &[
                    BlockRow::Mlp(MlpRow { moved: Some("block_sparse_moe"), ..MlpRow::PLAIN }),
                    BlockRow::Moe(KIMI_EXPERTS),
                ],
            }),
        ),
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3,
              "intermediate_size": 29, "first_k_dense_replace": 1, "moe_intermediate_size": 11, "num_experts": 6,
              "num_shared_experts": 1, "num_experts_per_token": 2, "kv_lora_rank": 10, "qk_nope_head_dim": 6,
              "qk_rope_head_dim": 8, "v_head_dim": 7, "routed_scaling_factor": 2.4,
              "linear_attn_config": {"full_attn_layers": [2, 4], "head_dim": 8, "num_heads": 3,
                                     "short_conv_kernel_size": 4}}"#,
    ..LLAMA
};

const KIMI_EXPERTS: MoeRow = MoeRow {
    hf: "block_sparse_moe.experts",
    names: ["w1", "w3", "w2"],
    hf_router: "block_sparse_moe.gate",
    correction: Some(&["block_sparse_moe.gate.e_score_correction_bias"]),
    normalised: [true, true],
    shared: Some(SharedRow {
        hf: "block_sparse_moe.shared_experts",
        count: Some(Key::new(&["expert_shared_count"], &["num_shared_experts", "n_shared_experts"])),
        gate: None,
        inner: None,
    }),
    ..V3
};

/// Attention where one of two lists says so; without, in each eighth layer in GGUF files, else in every other one.
fn minimax_pick(r: &Reader) -> Vec<usize> {
    const TYPES: Key = Key::new(&[], &["attn_type_list"]);
    const NAMES: Key = Key::new(&[], &["layer_types"]);
    const POST_NORM: Key = Key::new(&[], &["postnorm"]);
    if !r.f.flag(&POST_NORM, true) {
        r.f.problem(r.f.name(&POST_NORM), "only true is supported");
    }
    match r.f.flags(&TYPES, r.shared.layers) {
        Some(full) => r.pick(&full.into_iter().map(|full| usize::from(!full)).collect::<Vec<_>>()),
        None if r.f.is_gguf() || r.f.texts(&NAMES).is_some() => by_interval(r, 8),
        None => r.layers.iter().map(|layer| layer % 2).collect(),
    }
}

const fn minimax_mix(names: &'static [[&'static str; 2]; 2]) -> [Key; 2] {
    [Key::new(&["residual_scale"], &names[0]), Key::new(&[], &names[1])]
}

const FULL_MIX: [Key; 2] = minimax_mix(&[
    ["full_attn_alpha_factor", "layernorm_full_attention_alpha"],
    ["full_attn_beta_factor", "layernorm_full_attention_beta"],
]);
const LINEAR_MIX: [Key; 2] = minimax_mix(&[
    ["linear_attn_alpha_factor", "layernorm_linear_attention_alpha"],
    ["linear_attn_beta_factor", "layernorm_linear_attention_beta"],
]);
const MLP_MIX: [Key; 2] =
    minimax_mix(&[["mlp_alpha_factor", "layernorm_mlp_alpha"], ["mlp_beta_factor", "layernorm_mlp_beta"]]);

pub(super) const MINIMAX: Arch = Arch {
    name: "minimax-01",
    doc: "MiniMax Text 01: lightning attention, with full attention in each eighth layer, experts",
    hf: &[
        HfName { model_type: "minimax_text_01", class: "MiniMaxText01ForCausalLM" },
        HfName { model_type: "minimax", class: "MiniMaxForCausalLM" },
    ],
    outside: Outside { ignored: &[".slope_rate", ".query_decay", ".key_decay", ".diagonal_decay"], ..Outside::MODEL },
    context: 1 << 20,
    layer: &[
        SubLayer {
            mix: Some(MixRow { factors: &[FULL_MIX, LINEAR_MIX] }),
            ..SubLayer::new(
                ATTN_NORM,
                BlockRow::Choice(Choice {
                    pick: minimax_pick,
                    of: &[
                        BlockRow::Attention(AttentionRow {
                            rope: RopeRow { theta: 1e6, ..RopeRow::PLAIN },
                            ..AttentionRow::PLAIN
                        }),
                        BlockRow::Lightning(LightningRow { hf: "self_attn", eps: 1e-6 }),
                    ],
                }),
            )
        },
        SubLayer { mix: Some(MixRow { factors: &[MLP_MIX] }), ..SubLayer::new(FFN_NORM, BlockRow::Moe(MIXTRAL)) },
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 8, "rotary_dim": 4, "num_local_experts": 5,
              "num_experts_per_tok": 2, "intermediate_size": 13, "attn_type_list": [0, 1, 0],
              "layernorm_full_attention_alpha": 1.5, "layernorm_linear_attention_alpha": 1.5,
              "layernorm_mlp_alpha": 1.5}"#,
    ..LLAMA
};

const ZAMBA2_TYPES: [(&str, usize); 3] = [("mamba", 0), ("linear_attention", 0), ("hybrid", 1)];

/// 1 for layers with a shared block before their Mamba-2.
fn zamba2_pick(r: &Reader) -> Vec<usize> {
    const TYPES: Key = Key::new(&[], &["layers_block_type", "layer_types"]);
    if !r.f.is_gguf() {
        return by_types(r, &TYPES, &ZAMBA2_TYPES);
    }
    let flags = r.f.flags(&SHARED_LAYERS, r.shared.layers);
    if !r.f.has(&SHARED_LAYERS) {
        r.f.problem(r.f.name(&SHARED_LAYERS), "missing");
    }
    r.pick(&flags.map_or_else(|| vec![0; r.shared.layers], |flags| flags.into_iter().map(usize::from).collect()))
}

pub(super) const ZAMBA2: Arch = Arch {
    name: "zamba2",
    doc: "Zamba 2: Mamba-2, and now and then one of a few transformer blocks that layers share, with adapters",
    hf: &[HfName { model_type: "zamba2", class: "Zamba2ForCausalLM" }],
    outside: Outside { norm: &["model.final_layernorm"], left_out: &["mamba_decoder"], ..Outside::MODEL },
    tied: true,
    eps: 1e-5,
    context: 4096,
    layer: &[
        SubLayer {
            norm: None,
            aside: true,
            ..SubLayer::new(
                ATTN_NORM,
                BlockRow::Choice(Choice {
                    pick: zamba2_pick,
                    of: &[
                        BlockRow::Nothing,
                        BlockRow::Shared(SharedBlockRow {
                            hf: "shared_transformer",
                            hf_out: "linear",
                            activation: ActivationRow::Usually(Activation::GeluErf),
                            rope: RopeRow::PLAIN,
                        }),
                    ],
                }),
            )
        },
        SubLayer::new(
            ATTN_NORM,
            BlockRow::Mamba2(Mamba2Row {
                eps: Some(1e-5),
                conv_bias: Bias::Usually(&[]),
                activation: ActivationRow::Always(Activation::Silu),
                least_step: Some((Key::new(&["ssm.time_step_min"], &["time_step_min"]), 0.001)),
                ..Mamba2Row::MAMBA
            }),
        ),
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 5, "num_attention_heads": 4,
              "intermediate_size": 19, "layers_block_type": ["mamba", "hybrid", "hybrid", "hybrid", "mamba"],
              "num_mem_blocks": 2, "use_shared_attention_adapter": true, "adapter_rank": 3, "use_mem_rope": true,
              "mamba_d_state": 8, "n_mamba_heads": 6, "mamba_headdim": 8, "mamba_ngroups": 2}"#,
    ..LLAMA
};
