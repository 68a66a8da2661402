//! Mamba and what mixes it with attention.

use super::llama::LLAMA;
use super::{Arch, HfName, NormName, Outside, SubLayer};
use crate::blocks::{
    AttentionRow, BlockRow, Choice, DenseLayers, EXPERTS, InnerNormsRow, Mamba2Row, MambaRow, MlpRow, MoeRow, Reader,
    RopeRow, Turned, by_kv_heads,
};
use crate::fields::Key;

/// Falcon Mamba 7B has an `expand` that says something else.
const INNER: Option<Key> = Some(Key::new(&[], &["intermediate_size"]));

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
    layer: &[SubLayer::new(
        NormName::new("attn_norm", "norm"),
        BlockRow::Mamba(MambaRow { hf: "mixer", norms: InnerNormsRow::Never, inner: INNER }),
    )],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "state_size": 8}"#,
    ..LLAMA
};

pub(super) const FALCON_MAMBA: Arch = Arch {
    name: "falcon-mamba",
    doc: "Falcon Mamba: Mamba with norms of step sizes, B and C",
    hf: &[HfName { model_type: "falcon_mamba", class: "FalconMambaForCausalLM" }],
    tied: false,
    layer: &[SubLayer::new(
        NormName::new("attn_norm", "norm"),
        BlockRow::Mamba(MambaRow { hf: "mixer", norms: InnerNormsRow::Bare, inner: INNER }),
    )],
    ..MAMBA
};

pub(super) const MAMBA2: Arch = Arch {
    name: "mamba2",
    doc: "Mamba-2: state spaces of heads, no attention, constant memory per token",
    hf: &[HfName { model_type: "mamba2", class: "Mamba2ForCausalLM" }],
    tied: false,
    layer: &[SubLayer::new(
        NormName::new("attn_norm", "norm"),
        BlockRow::Mamba2(Mamba2Row { hf: "mixer", head_dim: Key::new(&[], &["head_dim"]), ..Mamba2Row::MAMBA }),
    )],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "state_size": 8, "num_heads": 6,
              "head_dim": 8, "n_groups": 2}"#,
    ..MAMBA
};

/// 1 for layers whose number leaves the rest `offset` after division by `period`.
fn periodic(r: &Reader, [period, offset]: [&Key; 2], default: [usize; 2]) -> Vec<usize> {
    let period = r.f.size(period, Some(default[0]), 1 << 12);
    let offset = r.f.size_from(offset, Some(default[1]), 0, 1 << 12);
    r.layers.iter().map(|layer| usize::from(layer % period == offset)).collect()
}

const ATTENTION_EACH: [&Key; 2] = [&Key::new(&[], &["attn_layer_period"]), &Key::new(&[], &["attn_layer_offset"])];
const EXPERTS_EACH: [&Key; 2] = [&Key::new(&[], &["expert_layer_period"]), &Key::new(&[], &["expert_layer_offset"])];

const JAMBA_MLP: MlpRow = MlpRow { hf: "feed_forward", ..MlpRow::PLAIN };

pub(super) const JAMBA: Arch = Arch {
    name: "jamba",
    doc: "Jamba: Mamba with norms and a layer of attention now and then, experts in every other layer",
    hf: &[HfName { model_type: "jamba", class: "JambaForCausalLM" }],
    outside: Outside { norm: &["model.final_layernorm"], ..Outside::MODEL },
    tied: false,
    eps: 1e-6,
    context: 262_144,
    layer: &[
        SubLayer::new(
            NormName::new("attn_norm", "input_layernorm"),
            BlockRow::Choice(Choice {
                pick: |r| if r.f.is_gguf() { by_kv_heads(r) } else { periodic(r, ATTENTION_EACH, [8, 4]) },
                of: &[
                    BlockRow::Mamba(MambaRow { hf: "mamba", norms: InnerNormsRow::Gains, inner: None }),
                    BlockRow::Attention(AttentionRow {
                        rope: RopeRow { turned: Turned::Never, ..RopeRow::PLAIN },
                        ..AttentionRow::PLAIN
                    }),
                ],
            }),
        ),
        SubLayer::new(
            NormName::new("ffn_norm", "pre_ff_layernorm"),
            BlockRow::Choice(Choice {
                pick: |r| match r.f.is_gguf() {
                    true => {
                        r.layers.iter().map(|&i| usize::from(r.shape(i, "ffn_gate_inp.weight").is_some())).collect()
                    }
                    false if r.f.size(&EXPERTS, Some(16), 1 << 12) > 1 => periodic(r, EXPERTS_EACH, [2, 1]),
                    false => vec![0; r.layers.len()],
                },
                of: &[
                    BlockRow::Mlp(JAMBA_MLP),
                    BlockRow::Moe(MoeRow {
                        hf: "feed_forward.experts",
                        hf_router: "feed_forward.router",
                        inner: Key::new(&["expert_feed_forward_length", "feed_forward_length"], &["intermediate_size"]),
                        normalised: [false, false],
                        dense_layers: DenseLayers::Anywhere,
                        ..MoeRow::QWEN
                    }),
                ],
            }),
        ),
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4,
              "num_key_value_heads": 2, "intermediate_size": 37, "attn_layer_period": 2, "attn_layer_offset": 1,
              "num_experts": 3, "num_experts_per_tok": 2, "mamba_d_state": 8, "mamba_dt_rank": 3}"#,
    ..MAMBA
};
