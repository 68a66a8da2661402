//! Families whose layers are attention and a feed-forward network, each arranged in its own way.

use imaginal_nn::{Activation, NormKind, Over};
use imaginal_tensor::RopeStyle;

use super::gemma::glm_layer;
use super::llama::{LLAMA, attention, mlp};
use super::{Arch, EmbeddingRow, Factor, HfName, NormName, Outside, Positions, Scales, SubLayer, Variant};
use crate::blocks::{
    ActivationRow, AttentionRow, Bias, BlockRow, Fused, MlpRow, QkNormRow, RopeRow, Scale, Turned, Window,
};
use crate::fields::Key;

/// A block whose result alone is normalised.
const fn normed_after(block: BlockRow, norm: NormName) -> SubLayer {
    SubLayer {
        norm: None,
        block,
        post_norm: Some(norm),
        sum_norm: None,
        beside: false,
        mix: None,
        aside: false,
        sum_scale: 1.0,
    }
}

pub(super) const OLMO2: Arch = Arch {
    name: "olmo2",
    doc: "OLMo 2: results of blocks are normalised, queries and keys as a whole",
    hf: &[HfName { model_type: "olmo2", class: "Olmo2ForCausalLM" }],
    layer: &[
        normed_after(
            BlockRow::Attention(AttentionRow {
                qkv_bias: Bias::Optional(&["attention_bias"]),
                out_bias: Bias::Optional(&["attention_bias"]),
                qk_norm: Some(QkNormRow { over: Over::Width, ..QkNormRow::HEAD }),
                ..AttentionRow::PLAIN
            }),
            NormName::new("post_attention_norm", "post_attention_layernorm"),
        ),
        normed_after(BlockRow::Mlp(MlpRow::PLAIN), NormName::new("post_ffw_norm", "post_feedforward_layernorm")),
    ],
    ..LLAMA
};

pub(super) const EXAONE4: Arch = Arch {
    name: "exaone4",
    doc: "EXAONE 4: results of blocks are normalised; layers with a window turn, those without tell no positions",
    hf: &[HfName { model_type: "exaone4", class: "Exaone4ForCausalLM" }],
    layer: &[
        normed_after(
            BlockRow::Attention(AttentionRow {
                qk_norm: Some(QkNormRow::HEAD),
                window: Window::Pattern { period: 4, full: 3 },
                rope: RopeRow { turned: Turned::Windowed, ..RopeRow::PLAIN },
                ..AttentionRow::PLAIN
            }),
            NormName::new("post_attention_norm", "post_attention_layernorm"),
        ),
        normed_after(BlockRow::Mlp(MlpRow::PLAIN), NormName::new("post_ffw_norm", "post_feedforward_layernorm")),
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4,
              "num_key_value_heads": 2, "intermediate_size": 37, "sliding_window": 7}"#,
    ..LLAMA
};

pub(super) const GRANITE_SCALES: Scales = Scales {
    embedding: Factor::Times(Key::new(&["embedding_scale"], &["embedding_multiplier"])),
    residual: Factor::Times(Key::new(&["residual_scale"], &["residual_multiplier"])),
    logits: Factor::Over(Key::new(&["logit_scale"], &["logits_scaling"])),
    ..Scales::ONE
};

pub(super) const GRANITE_ATTENTION: AttentionRow = AttentionRow {
    scale: Scale::Field(Key::new(&["attention.scale"], &["attention_multiplier"])),
    window: Window::Never,
    ..AttentionRow::LLAMA
};

pub(super) const GRANITE: Arch = Arch {
    name: "granite",
    doc: "Granite 3: Llama's shape with factors on embedding, residual, scores and logits",
    hf: &[HfName { model_type: "granite", class: "GraniteForCausalLM" }],
    scales: GRANITE_SCALES,
    layer: &[attention(GRANITE_ATTENTION), mlp(MlpRow::LLAMA)],
    ..LLAMA
};

pub(super) const GLM4: Arch = Arch {
    name: "glm4",
    doc: "GLM 4: norms on both sides of a block, half of a head turned",
    hf: &[HfName { model_type: "glm4", class: "Glm4ForCausalLM" }],
    eps: 1.5625e-7,
    context: 131_072,
    layer: &glm_layer(
        AttentionRow {
            gguf_rope: RopeStyle::Interleaved,
            hf_rope: RopeStyle::Interleaved,
            qkv_bias: Bias::Optional(&["attention_bias"]),
            rope: RopeRow { partial: 0.5, ..RopeRow::PLAIN },
            ..AttentionRow::PLAIN
        },
        MlpRow { hf_fused: Some("gate_up_proj"), gguf_fused: true, ..MlpRow::PLAIN },
    ),
    tiny: r#"{"vocab_size": 67, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "intermediate_size": 37, "max_position_embeddings": 512}"#,
    ..LLAMA
};

const COHERE_ATTENTION: AttentionRow = AttentionRow {
    gguf_rope: RopeStyle::Interleaved,
    hf_rope: RopeStyle::Interleaved,
    qkv_bias: Bias::Optional(&["attention_bias"]),
    out_bias: Bias::Optional(&["attention_bias"]),
    qk_norm: Some(QkNormRow {
        kind: NormKind::LayerNoBias,
        over: Over::EachHead,
        when: Bias::Optional(&["use_qk_norm"]),
        ..QkNormRow::HEAD
    }),
    ..AttentionRow::PLAIN
};

/// A block that reads what the one before it has read, through the same norm.
const fn beside(block: BlockRow) -> SubLayer {
    SubLayer {
        norm: None,
        block,
        post_norm: None,
        sum_norm: None,
        beside: true,
        mix: None,
        aside: false,
        sum_scale: 1.0,
    }
}

pub(super) const COMMAND_R: Arch = Arch {
    name: "command-r",
    doc: "Command R: attention and feed-forward side by side behind one norm",
    hf: &[HfName { model_type: "cohere", class: "CohereForCausalLM" }],
    norm: NormKind::LayerNoBias,
    tied: true,
    eps: 1e-5,
    context: 8192,
    scales: Scales { logits: Factor::Times(Key::new(&["logit_scale"], &["logit_scale"])), ..Scales::ONE },
    layer: &[attention(COHERE_ATTENTION), beside(BlockRow::Mlp(MlpRow::PLAIN))],
    ..LLAMA
};

pub(super) const COHERE2: Arch = Arch {
    name: "cohere2",
    doc: "Command R7B and A: three layers with a window that turn to one that sees everything and tells no positions",
    hf: &[HfName { model_type: "cohere2", class: "Cohere2ForCausalLM" }],
    layer: &[
        attention(AttentionRow {
            qk_norm: None,
            window: Window::Pattern { period: 4, full: 3 },
            rope: RopeRow { turned: Turned::Windowed, ..RopeRow::PLAIN },
            ..COHERE_ATTENTION
        }),
        beside(BlockRow::Mlp(MlpRow::PLAIN)),
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4,
              "num_key_value_heads": 2, "intermediate_size": 37, "sliding_window": 7, "logit_scale": 0.25}"#,
    ..COMMAND_R
};

pub(super) const INTERNLM2: Arch = Arch {
    name: "internlm2",
    doc: "InternLM 2 and 2.5: Llama's shape under other names, queries, keys and values in one matrix",
    hf: &[HfName { model_type: "internlm2", class: "InternLM2ForCausalLM" }],
    outside: Outside { embedding: &["model.tok_embeddings.weight"], head: &["output.weight"], ..Outside::MODEL },
    layer: &[
        SubLayer::new(
            NormName::new("attn_norm", "attention_norm"),
            BlockRow::Attention(AttentionRow {
                hf: "attention",
                fused: Fused::Grouped("wqkv"),
                hf_out: "wo",
                qkv_bias: Bias::Optional(&["bias"]),
                out_bias: Bias::Optional(&["bias"]),
                window: Window::Never,
                ..AttentionRow::LLAMA
            }),
        ),
        SubLayer::new(
            NormName::new("ffn_norm", "ffn_norm"),
            BlockRow::Mlp(MlpRow { hf: "feed_forward", names: ["w1", "w3", "w2"], ..MlpRow::PLAIN }),
        ),
    ],
    ..LLAMA
};

pub(super) const EXAONE: Arch = Arch {
    name: "exaone",
    doc: "EXAONE 3: Llama's shape under other names",
    hf: &[HfName { model_type: "exaone", class: "ExaoneForCausalLM" }],
    outside: Outside {
        embedding: &["transformer.wte.weight"],
        norm: &["transformer.ln_f"],
        layers: "transformer.h",
        ..Outside::MODEL
    },
    eps: 1e-5,
    layer: &[
        SubLayer::new(
            NormName::new("attn_norm", "ln_1"),
            BlockRow::Attention(AttentionRow { hf: "attn.attention", hf_out: "out_proj", ..AttentionRow::PLAIN }),
        ),
        SubLayer::new(
            NormName::new("ffn_norm", "ln_2"),
            BlockRow::Mlp(MlpRow { names: ["c_fc_0", "c_fc_1", "c_proj"], ..MlpRow::PLAIN }),
        ),
    ],
    ..LLAMA
};

pub(super) const PHI3: Arch = Arch {
    name: "phi3",
    doc: "Phi 3 and 4: Llama's shape with fused matrices, windows and LongRoPE",
    hf: &[HfName { model_type: "phi3", class: "Phi3ForCausalLM" }],
    eps: 1e-5,
    context: 4096,
    layer: &[
        attention(AttentionRow {
            fused: Fused::Joined("qkv_proj"),
            gguf_fused: true,
            window: Window::Always,
            ..AttentionRow::PLAIN
        }),
        mlp(MlpRow { hf_fused: Some("gate_up_proj"), gguf_fused: true, ..MlpRow::PLAIN }),
    ],
    ..LLAMA
};

const GELU: ActivationRow = ActivationRow::Usually(Activation::Gelu);

const PHI_MLP: MlpRow =
    MlpRow { names: ["", "fc1", "fc2"], gated: false, activation: GELU, bias: Bias::Always, ..MlpRow::LLAMA };

pub(super) const PHI2: Arch = Arch {
    name: "phi2",
    doc: "Phi 1 to 2: attention and feed-forward side by side, biases everywhere",
    hf: &[HfName { model_type: "phi", class: "PhiForCausalLM" }],
    outside: Outside { norm: &["model.final_layernorm"], head_bias: &["lm_head.bias"], ..Outside::MODEL },
    norm: NormKind::Layer,
    eps: 1e-5,
    layer: &[
        attention(AttentionRow {
            hf_out: "dense",
            gguf_fused: true,
            qkv_bias: Bias::Always,
            out_bias: Bias::Always,
            qk_norm: Some(QkNormRow {
                kind: NormKind::Layer,
                hf: ["q_layernorm", "k_layernorm"],
                when: Bias::Optional(&["qk_layernorm"]),
                ..QkNormRow::HEAD
            }),
            rope: RopeRow { partial: 0.5, ..RopeRow::PLAIN },
            ..AttentionRow::PLAIN
        }),
        beside(BlockRow::Mlp(PHI_MLP)),
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 4, "intermediate_size": 37}"#,
    ..LLAMA
};

pub(super) const STARCODER2: Arch = Arch {
    name: "starcoder2",
    doc: "StarCoder 2: biases everywhere, a plain feed-forward network, windows",
    hf: &[HfName { model_type: "starcoder2", class: "Starcoder2ForCausalLM" }],
    norm: NormKind::Layer,
    tied: true,
    eps: 1e-5,
    context: 4096,
    layer: &[
        attention(AttentionRow {
            qkv_bias: Bias::Usually(&["use_bias"]),
            out_bias: Bias::Usually(&["use_bias"]),
            window: Window::Always,
            ..AttentionRow::PLAIN
        }),
        mlp(MlpRow { names: ["", "c_fc", "c_proj"], bias: Bias::Usually(&["use_bias"]), ..PHI_MLP }),
    ],
    ..LLAMA
};

pub(super) const GPT2: Arch = Arch {
    name: "gpt2",
    doc: "GPT-2: learned positions, biases everywhere, a plain feed-forward network",
    hf: &[HfName { model_type: "gpt2", class: "GPT2LMHeadModel" }],
    outside: Outside {
        embedding: &["transformer.wte.weight"],
        norm: &["transformer.ln_f"],
        layers: "transformer.h",
        ignored: &[".attn.bias", ".attn.masked_bias"],
        ..Outside::MODEL
    },
    norm: NormKind::Layer,
    tied: true,
    eps: 1e-5,
    context: 1024,
    embedding: EmbeddingRow {
        positions: Some(Positions { hf: "transformer.wpe.weight", after_padding: false }),
        ..EmbeddingRow::PLAIN
    },
    layer: &[
        SubLayer::new(
            NormName::new("attn_norm", "ln_1"),
            BlockRow::Attention(AttentionRow {
                hf: "attn",
                fused: Fused::Joined("c_attn"),
                hf_out: "c_proj",
                transposed: true,
                gguf_fused: true,
                qkv_bias: Bias::Always,
                out_bias: Bias::Always,
                rope: RopeRow { turned: Turned::Never, ..RopeRow::PLAIN },
                scale: Scale::OverLayer {
                    off: Key::new(&[], &["scale_attn_weights"]),
                    by_layer: Key::new(&[], &["scale_attn_by_inverse_layer_idx"]),
                },
                ..AttentionRow::PLAIN
            }),
        ),
        SubLayer::new(
            NormName::new("ffn_norm", "ln_2"),
            BlockRow::Mlp(MlpRow {
                names: ["", "c_fc", "c_proj"],
                transposed: true,
                inner: (Key::new(&["feed_forward_length"], &["n_inner"]), Some(4)),
                ..PHI_MLP
            }),
        ),
    ],
    tiny: r#"{"vocab_size": 67, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 1024}"#,
    ..LLAMA
};

const NEOX_MLP: MlpRow = MlpRow {
    names: ["", "dense_h_to_4h", "dense_4h_to_h"],
    activation: ActivationRow::Usually(Activation::GeluErf),
    ..PHI_MLP
};

const NEOX_NORM: NormName = NormName::new("ffn_norm", "post_attention_layernorm");

const NEOX_ATTENTION: SubLayer = attention(AttentionRow {
    hf: "attention",
    fused: Fused::Grouped("query_key_value"),
    hf_out: "dense",
    gguf_fused: true,
    qkv_bias: Bias::Usually(&["attention_bias"]),
    out_bias: Bias::Usually(&["attention_bias"]),
    rope: RopeRow { partial: 0.25, ..RopeRow::PLAIN },
    ..AttentionRow::PLAIN
});

const PARALLEL: Key = Key::new(&["use_parallel_residual"], &["use_parallel_residual"]);

pub(super) const GPT_NEOX: Arch = Arch {
    name: "gptneox",
    doc: "GPT-NeoX, Pythia: attention and feed-forward side by side behind norms of their own",
    hf: &[HfName { model_type: "gpt_neox", class: "GPTNeoXForCausalLM" }],
    outside: Outside {
        embedding: &["gpt_neox.embed_in.weight"],
        norm: &["gpt_neox.final_layer_norm"],
        head: &["embed_out.weight"],
        layers: "gpt_neox.layers",
        ignored: &[".attention.bias", ".attention.masked_bias"],
        ..Outside::MODEL
    },
    norm: NormKind::Layer,
    eps: 1e-5,
    layer: &[NEOX_ATTENTION, SubLayer { beside: true, ..SubLayer::new(NEOX_NORM, BlockRow::Mlp(NEOX_MLP)) }],
    variants: &[Variant {
        when: |r| !r.f.flag(&PARALLEL, true),
        key: Some((PARALLEL, false)),
        layer: &[NEOX_ATTENTION, SubLayer::new(NEOX_NORM, BlockRow::Mlp(NEOX_MLP))],
    }],
    tiny: r#"{"vocab_size": 67, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
              "intermediate_size": 37}"#,
    ..LLAMA
};

const FALCON_ATTENTION: AttentionRow = AttentionRow {
    hf: "self_attention",
    fused: Fused::Grouped("query_key_value"),
    hf_out: "dense",
    gguf_fused: true,
    qkv_bias: Bias::Optional(&["bias"]),
    out_bias: Bias::Optional(&["bias"]),
    falcon_heads: true,
    alibi: Some(Key::new(&[], &["alibi"])),
    ..AttentionRow::PLAIN
};

const FALCON_MLP: MlpRow = MlpRow {
    bias: Bias::Optional(&["bias"]),
    inner: (Key::new(&["feed_forward_length"], &["ffn_hidden_size"]), Some(4)),
    ..NEOX_MLP
};

pub(super) const FALCON: Arch = Arch {
    name: "falcon",
    doc: "Falcon: attention and feed-forward side by side, few key heads",
    hf: &[HfName { model_type: "falcon", class: "FalconForCausalLM" }],
    outside: Outside {
        embedding: &["transformer.word_embeddings.weight"],
        norm: &["transformer.ln_f"],
        layers: "transformer.h",
        ..Outside::MODEL
    },
    norm: NormKind::Layer,
    tied: true,
    eps: 1e-5,
    layer: &[attention(FALCON_ATTENTION), beside(BlockRow::Mlp(FALCON_MLP))],
    variants: &[
        Variant {
            when: |r| match r.f.is_gguf() {
                true => r.present("attn_norm_2.weight"),
                false => {
                    let norms = r.f.size(&Key::new(&[], &["num_ln_in_parallel_attn"]), Some(2), 2);
                    r.f.flag(&Key::new(&[], &["new_decoder_architecture"]), false) && norms == 2
                }
            },
            key: None,
            layer: &[
                SubLayer::new(NormName::new("attn_norm_2", "ln_attn"), BlockRow::Attention(FALCON_ATTENTION)),
                SubLayer {
                    beside: true,
                    ..SubLayer::new(NormName::new("attn_norm", "ln_mlp"), BlockRow::Mlp(FALCON_MLP))
                },
            ],
        },
        Variant {
            when: |r| {
                if r.f.is_gguf() {
                    return r.present("ffn_norm.weight");
                }
                let serial = !r.f.flag(&Key::new(&[], &["parallel_attn"]), true);
                serial && !r.f.flag(&Key::new(&[], &["new_decoder_architecture"]), false)
            },
            key: None,
            layer: &[attention(FALCON_ATTENTION), mlp(FALCON_MLP)],
        },
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}"#,
    ..LLAMA
};
