//! Families that mix state spaces of heads with attention.

use imaginal_nn::{Activation, Scores};

use super::llama::{ATTN_NORM, LLAMA};
use super::{Arch, Factor, HfName, NormName, Outside, Scales, SubLayer};
use crate::blocks::{
    ActivationRow, AttentionRow, Bias, BlockRow, Choice, DenseLayers, GatedNormRow, GroupScore, Mamba2Row, MlpRow,
    MoeRow, Reader, RopeRow, SharedRow, Turned, by_kv_heads,
};
use crate::config::TIED;
use crate::fields::{Fields, Key};

const OUTSIDE: Outside = Outside { norm: &["model.final_layernorm"], ..Outside::MODEL };

const FEED_FORWARD: SubLayer = SubLayer::new(
    NormName::new("ffn_norm", "pre_ff_layernorm"),
    BlockRow::Mlp(MlpRow { hf: "feed_forward", ..MlpRow::LLAMA }),
);

const ATTENTION: AttentionRow = AttentionRow {
    qkv_bias: Bias::Optional(&["attention_bias"]),
    out_bias: Bias::Optional(&["attention_bias"]),
    ..AttentionRow::PLAIN
};

pub(super) const BAMBA: Arch = Arch {
    name: "bamba",
    doc: "Bamba: Mamba-2 with a layer of attention now and then",
    hf: &[HfName { model_type: "bamba", class: "BambaForCausalLM" }],
    outside: OUTSIDE,
    eps: 1e-5,
    context: 262_144,
    layer: &[
        SubLayer::new(
            ATTN_NORM,
            BlockRow::Choice(Choice {
                pick: |r| match r.f.is_gguf() {
                    true => by_kv_heads(r),
                    false => {
                        let attention = r.f.sizes(&Key::new(&[], &["attn_layer_indices"]));
                        r.layers.iter().map(|layer| usize::from(attention.contains(layer))).collect()
                    }
                },
                of: &[
                    BlockRow::Mamba2(Mamba2Row::MAMBA),
                    BlockRow::Attention(AttentionRow { rope: RopeRow { partial: 0.5, ..RopeRow::PLAIN }, ..ATTENTION }),
                ],
            }),
        ),
        FEED_FORWARD,
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
              "num_key_value_heads": 1, "intermediate_size": 19, "attn_layer_indices": [1], "mamba_d_state": 8,
              "mamba_n_heads": 6, "mamba_d_head": 8, "mamba_n_groups": 2}"#,
    ..LLAMA
};

/// The kinds of Nemotron-H's layers, by the letter and by the names that `config.json` has for them.
const KINDS: [(char, [&str; 2]); 4] = [
    ('M', ["mamba", "linear_attention"]),
    ('-', ["mlp"; 2]),
    ('*', ["attention", "full_attention"]),
    ('E', ["moe"; 2]),
];

fn kinds(r: &Reader) -> Vec<usize> {
    if r.f.is_gguf() {
        let inner = Key::new(&["feed_forward_length"], &[]);
        let inner = r.pick(&r.f.per_layer(&inner, Some(0), 0, 1 << 24, r.shared.layers));
        let kind = |((&layer, attention), inner): ((&usize, usize), usize)| match (attention, inner) {
            (1, _) => 2,
            (_, 0) => 0,
            _ if r.shape(layer, "ffn_gate_inp.weight").is_some() => 3,
            _ => 1,
        };
        return r.layers.iter().zip(by_kv_heads(r)).zip(inner).map(kind).collect();
    }
    let pattern = Key::new(&[], &["hybrid_override_pattern"]);
    let names = Key::new(&[], &["layers_block_type", "layer_types"]);
    let all: Vec<Option<usize>> = match r.f.text(&pattern) {
        Some(letters) => letters.chars().map(|c| KINDS.iter().position(|k| k.0 == c)).collect(),
        None => {
            let names = r.f.texts(&names).unwrap_or_default();
            names.iter().map(|name| KINDS.iter().position(|k| k.1.contains(&name.as_str()))).collect()
        }
    };
    if all.len() != r.shared.layers || all.contains(&None) {
        let what = format!("{} layers of M, -, * and E are needed", r.shared.layers);
        r.f.problem("hybrid_override_pattern", what);
        return vec![0; r.layers.len()];
    }
    r.pick(&all.into_iter().flatten().collect::<Vec<_>>())
}

const SQUARED: ActivationRow = ActivationRow::Usually(Activation::Relu2);

pub(super) const NEMOTRON_H: Arch = Arch {
    name: "nemotron_h",
    doc: "Nemotron-H: one block a layer: Mamba-2, a feed-forward network of squared ReLU, or attention without positions",
    hf: &[HfName { model_type: "nemotron_h", class: "NemotronHForCausalLM" }],
    outside: Outside {
        embedding: &["backbone.embeddings.weight", "backbone.embedding.weight"],
        norm: &["backbone.norm_f"],
        layers: "backbone.layers",
        ..Outside::MODEL
    },
    eps: 1e-5,
    context: 1 << 20,
    layer: &[SubLayer::new(
        NormName::new("attn_norm", "norm"),
        BlockRow::Choice(Choice {
            pick: kinds,
            of: &[
                BlockRow::Mamba2(Mamba2Row {
                    hf: "mixer",
                    bias: &["use_bias"],
                    least_step: Some((Key::new(&["ssm.time_step_min"], &["time_step_min", "mamba_dt_min"]), 0.001)),
                    activation: ActivationRow::Named("mamba_hidden_act", Activation::Silu),
                    ..Mamba2Row::MAMBA
                }),
                BlockRow::Mlp(MlpRow { hf: "mixer", gated: false, activation: SQUARED, ..MlpRow::LLAMA }),
                BlockRow::Attention(AttentionRow {
                    hf: "mixer",
                    // Checkpoints have none, whatever `attention_bias` says.
                    qkv_bias: Bias::Optional(&[]),
                    out_bias: Bias::Optional(&[]),
                    rope: RopeRow { turned: Turned::Never, ..RopeRow::PLAIN },
                    ..ATTENTION
                }),
                BlockRow::Moe(MoeRow {
                    hf: "mixer.experts",
                    hf_router: "mixer.gate",
                    gated: false,
                    activation: SQUARED,
                    scores: Scores::Sigmoid,
                    correction: Some(&["mixer.gate.e_score_correction_bias"]),
                    groups: Some(GroupScore::BestTwo),
                    normalised: [true, false],
                    outer_bias: Bias::Optional(&["mlp_bias"]),
                    shared: Some(SharedRow {
                        hf: "mixer.shared_experts",
                        gate: None,
                        count: None,
                        inner: Some(Key::new(
                            &["expert_shared_feed_forward_length"],
                            &["moe_shared_expert_intermediate_size"],
                        )),
                    }),
                    dense_layers: DenseLayers::Anywhere,
                    ..MoeRow::QWEN
                }),
            ],
        }),
    )],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 8, "hybrid_override_pattern": "M-*M", "intermediate_size": 31,
              "mamba_num_heads": 6, "mamba_head_dim": 8, "n_groups": 2, "ssm_state_size": 8}"#,
    ..LLAMA
};

/// GGUF files have another name for the same with experts.
pub(super) const NEMOTRON_H_MOE: Arch = Arch {
    name: "nemotron_h_moe",
    doc: "Nemotron 3 and Nemotron-H with experts, perhaps in a narrower space",
    hf_when: Some(|json| {
        let letters = json.get("hybrid_override_pattern").and_then(|p| p.as_str()).is_some_and(|p| p.contains('E'));
        let names = json.get("layers_block_type").and_then(|p| p.as_array());
        letters || names.is_some_and(|names| names.iter().any(|name| name == "moe"))
    }),
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 8, "hybrid_override_pattern": "ME*E", "n_routed_experts": 5,
              "num_experts_per_tok": 2, "moe_intermediate_size": 9, "moe_shared_expert_intermediate_size": 13,
              "mamba_num_heads": 6, "mamba_head_dim": 8, "n_groups": 2, "ssm_state_size": 8}"#,
    ..NEMOTRON_H
};

const EMBEDDING: Key = Key::new(&[], &["embedding_multiplier"]);
const HEAD: Key = Key::new(&[], &["lm_head_multiplier"]);

/// The multipliers of Falcon-H1, which GGUF files have in the weights.
fn multipliers(f: &Fields) -> Vec<(&'static str, Vec<f64>)> {
    let one = |name: &'static [&'static str]| f.float(&Key::new(&[], name), Some(1.0), -1e6, 1e6);
    let list = |name: &'static [&'static str], n: usize| {
        let list = f.floats(&Key::new(&[], name)).unwrap_or_else(|| vec![1.0; n]);
        if list.len() != n {
            f.problem(name[0], format!("{} numbers, not {n}", list.len()));
        }
        list.into_iter().chain(std::iter::repeat(1.0)).take(n).collect::<Vec<_>>()
    };
    let (input, key, out) =
        (one(&["attention_in_multiplier"]), one(&["key_multiplier"]), one(&["attention_out_multiplier"]));
    let (parts, mlp) = (list(&["ssm_multipliers"], 5), list(&["mlp_multipliers"], 2));
    let (ssm_in, ssm_out) = (one(&["ssm_in_multiplier"]), one(&["ssm_out_multiplier"]));
    let outer = |key| if f.flag(&TIED, false) { 1.0 } else { f.float(&key, Some(1.0), -1e6, 1e6) };
    vec![
        ("token_embd.weight", vec![outer(EMBEDDING)]),
        ("output.weight", vec![outer(HEAD)]),
        ("attn_q.weight", vec![input]),
        ("attn_k.weight", vec![input * key]),
        ("attn_k.bias", vec![key]),
        ("attn_v.weight", vec![input]),
        ("attn_output.weight", vec![out]),
        ("attn_output.bias", vec![out]),
        ("ffn_gate.weight", vec![mlp[0]]),
        ("ffn_gate.bias", vec![mlp[0]]),
        ("ffn_down.weight", vec![mlp[1]]),
        ("ffn_down.bias", vec![mlp[1]]),
        ("ssm_in.weight", parts.iter().map(|part| part * ssm_in).collect()),
        ("ssm_in.bias", parts),
        ("ssm_out.weight", vec![ssm_out]),
        ("ssm_out.bias", vec![ssm_out]),
    ]
}

pub(super) const FALCON_H1: Arch = Arch {
    name: "falcon-h1",
    doc: "Falcon-H1: Mamba-2 and attention side by side in every layer",
    hf: &[HfName { model_type: "falcon_h1", class: "FalconH1ForCausalLM" }],
    outside: OUTSIDE,
    eps: 1e-5,
    context: 8192,
    scales: Scales { embedding: Factor::IfTied(EMBEDDING), logits: Factor::IfTied(HEAD), ..Scales::ONE },
    layer: &[
        SubLayer::new(ATTN_NORM, BlockRow::Mamba2(Mamba2Row { norm: GatedNormRow::Flags, ..Mamba2Row::MAMBA })),
        SubLayer { norm: None, beside: true, ..SubLayer::new(ATTN_NORM, BlockRow::Attention(ATTENTION)) },
        FEED_FORWARD,
    ],
    hf_factors: Some(multipliers),
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 10, "intermediate_size": 19, "mamba_d_state": 8,
              "mamba_n_heads": 6, "mamba_d_head": 8, "mamba_n_groups": 2}"#,
    ..LLAMA
};
