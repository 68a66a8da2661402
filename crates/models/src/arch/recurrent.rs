//! Families without attention that are not Mamba 1 or 2: RWKV, xLSTM, Mamba-3.

use imaginal_nn::NormKind;

use super::llama::LLAMA;
use super::{Arch, EmbeddingRow, HfName, NormName, Outside, Scales, SubLayer, Variant};
use crate::blocks::{
    ActivationRow, Bias, BlockRow, ChannelMixRow, Mamba3Row, MlpRow, MlstmRow, Reader, Rwkv6Row, Rwkv7Row,
};
use crate::config::WIDTH;
use crate::fields::Key;

pub(super) const RWKV6: Arch = Arch {
    name: "rwkv6",
    doc: "RWKV-6 (Finch): linear attention with decays from the data, blends with the token before",
    hf: &[HfName { model_type: "rwkv6", class: "Rwkv6ForCausalLM" }],
    outside: Outside {
        embedding: &["rwkv.embeddings.weight"],
        norm: &["rwkv.ln_out"],
        head: &["head.weight"],
        layers: "rwkv.blocks",
        ..Outside::MODEL
    },
    norm: NormKind::Layer,
    eps: 1e-5,
    context: 1 << 20,
    embedding: EmbeddingRow {
        norm: Some(NormName::new("token_embd_norm", "rwkv.blocks.0.pre_ln")),
        ..EmbeddingRow::PLAIN
    },
    scales: Scales { halved: Some(Key::new(&["rescale_every_n_layers"], &[])), ..Scales::ONE },
    layer: &[
        SubLayer::new(NormName::new("attn_norm", "ln1"), BlockRow::Rwkv6(Rwkv6Row { hf: "attention" })),
        SubLayer::new(
            NormName::new("attn_norm_2", "ln2"),
            BlockRow::ChannelMix(ChannelMixRow {
                hf: "feed_forward",
                blends: ["time_maa_k", "time_maa_r"],
                receptance: true,
                usual: |r| r.shared.hidden * 7 / 2 / 32 * 32,
            }),
        ),
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 3, "head_size": 8, "intermediate_size": 37,
              "time_mix_extra_dim": 5, "time_decay_extra_dim": 7}"#,
    ..LLAMA
};

pub(super) const RWKV7: Arch = Arch {
    name: "rwkv7",
    doc: "RWKV-7 (Goose): linear attention corrected by a delta rule, blends with the token before",
    hf: &[HfName { model_type: "rwkv7", class: "RWKV7ForCausalLM" }],
    outside: Outside {
        embedding: &["model.embeddings.weight"],
        // Some checkpoints have a share of the first layer's values in the first layer.
        ignored: &[
            "layers.0.attn.v_lora.lora.0.weight",
            "layers.0.attn.v_lora.lora.2.weight",
            "layers.0.attn.v_lora.lora.2.bias",
        ],
        ..Outside::MODEL
    },
    embedding: EmbeddingRow {
        norm: Some(NormName::new("token_embd_norm", "model.layers.0.pre_norm")),
        ..EmbeddingRow::PLAIN
    },
    scales: Scales::ONE,
    layer: &[
        SubLayer::new(NormName::new("attn_norm", "attn_norm"), BlockRow::Rwkv7(Rwkv7Row { hf: "attn" })),
        SubLayer::new(
            NormName::new("attn_norm_2", "ffn_norm"),
            BlockRow::ChannelMix(ChannelMixRow {
                hf: "ffn",
                blends: ["x_k", ""],
                receptance: false,
                usual: |r| {
                    let ratio = r.f.float(&Key::new(&[], &["hidden_ratio"]), Some(4.0), 0.0, 1024.0);
                    ((r.shared.hidden as f64 * ratio) as usize).min(WIDTH).next_multiple_of(32)
                },
            }),
        ),
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 3, "head_dim": 8, "intermediate_size": 37,
              "decay_low_rank_dim": 5, "a_low_rank_dim": 6, "v_low_rank_dim": 4, "gate_low_rank_dim": 9,
              "norm_eps": 8e-5}"#,
    ..RWKV6
};

/// A layer of xLSTM with norms of this kind.
const fn memory_and_mlp(kind: Option<NormKind>) -> [SubLayer; 2] {
    [
        SubLayer::new(
            NormName { kind, ..NormName::new("attn_norm", "norm_mlstm") },
            BlockRow::Mlstm(MlstmRow { hf: "mlstm_layer" }),
        ),
        SubLayer::new(
            NormName { kind, ..NormName::new("ffn_norm", "norm_ffn") },
            BlockRow::Mlp(MlpRow {
                hf: "ffn",
                names: ["proj_up_gate", "proj_up", "proj_down"],
                hf_or_fused: Some("proj_up_gate_z"),
                bias: Bias::Optional(&["use_bias"]),
                hf_inner: Some(|r| {
                    let factor = r.f.float(&Key::new(&[], &["ffn_proj_factor"]), Some(2.667), 0.0, 1024.0);
                    let step = r.f.size(&Key::new(&[], &["ffn_round_up_to_multiple_of"]), Some(64), 1 << 20);
                    ((r.shared.hidden as f64 * factor) as usize).clamp(1, WIDTH).next_multiple_of(step)
                }),
                ..MlpRow::LLAMA
            }),
        ),
    ]
}

pub(super) const XLSTM: Arch = Arch {
    name: "xlstm",
    doc: "xLSTM as xLSTM-7B has it: a matrix memory for each head behind exponential gates",
    hf: &[HfName { model_type: "xlstm", class: "xLSTMForCausalLM" }],
    outside: Outside {
        embedding: &["backbone.embeddings.weight"],
        norm: &["backbone.out_norm"],
        layers: "backbone.blocks",
        ..Outside::MODEL
    },
    eps: 1e-6,
    context: 1 << 20,
    scales: Scales {
        softcap: Some(Key::new(&["final_logit_softcapping"], &["output_logit_soft_cap"])),
        usual_softcap: Some(30.0),
        ..Scales::ONE
    },
    layer: &memory_and_mlp(None),
    variants: &[Variant {
        when: |r| r.bias(Bias::Optional(&["use_bias"]), "attn_norm.bias"),
        key: None,
        layer: &memory_and_mlp(Some(NormKind::RmsBias)),
    }],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "num_heads": 3, "ffn_proj_factor": 1.5,
              "ffn_round_up_to_multiple_of": 4, "output_logit_soft_cap": 7.0}"#,
    ..LLAMA
};

const TURNING: SubLayer =
    SubLayer::new(NormName::new("attn_norm", "norm"), BlockRow::Mamba3(Mamba3Row { hf: "mixer" }));

const INNER: Key = Key::new(&[], &["d_intermediate"]);

/// Notes what `mamba_ssm` can build and this row cannot.
fn has_mlp(r: &Reader) -> bool {
    let f = r.f;
    if !f.flag(&Key::new(&[], &["rms_norm"]), true) {
        f.problem("rms_norm", "only true is supported");
    }
    if !f.sizes(&Key::new(&[], &["attn_layer_idx"])).is_empty() {
        f.problem("attn_layer_idx", "layers of attention are not supported here");
    }
    if f.is_gguf() { r.present("ffn_down.weight") } else { f.size_from(&INNER, Some(0), 0, WIDTH) > 0 }
}

pub(super) const MAMBA3: Arch = Arch {
    name: "mamba3",
    doc: "Mamba-3 in the layout of mamba_ssm: state spaces of heads that turn, with several inputs to each or one",
    hf: &[HfName { model_type: "mamba3", class: "Mamba3" }],
    outside: Outside {
        embedding: &["backbone.embedding.weight"],
        norm: &["backbone.norm_f"],
        layers: "backbone.layers",
        ..Outside::MODEL
    },
    tied: true,
    eps: 1e-5,
    context: 1 << 20,
    layer: &[TURNING],
    variants: &[Variant {
        when: has_mlp,
        key: None,
        layer: &[
            TURNING,
            SubLayer::new(
                NormName::new("ffn_norm", "norm2"),
                BlockRow::Mlp(MlpRow {
                    names: ["", "", "fc2"],
                    hf_fused: Some("fc1"),
                    up_first: true,
                    activation: ActivationRow::Always(imaginal_nn::Activation::Silu),
                    hf_inner: Some(|r| r.f.size_from(&INNER, Some(0), 0, WIDTH).max(1).next_multiple_of(128)),
                    ..MlpRow::PLAIN
                }),
            ),
        ],
    }],
    tiny: r#"{"vocab_size": 67, "d_model": 24, "n_layer": 2, "ssm_cfg": {"layer": "Mamba3", "d_state": 12, "headdim": 8,
              "is_mimo": true, "mimo_rank": 2}}"#,
    ..LLAMA
};
