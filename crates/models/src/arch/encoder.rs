//! Encoders: models that read a whole text at once, every token seeing all others.

use imaginal_nn::{Activation, NormKind};

use super::llama::{LLAMA, mlp};
use super::{
    Arch, DenseRow, EmbeddingRow, EncoderRow, Fixed, HfName, LabelsRow, MaskedRow, NormName, Outside, Pooled,
    Positions, SubLayer,
};
use crate::blocks::{ActivationRow, AttentionRow, Bias, BlockRow, Fused, LocalRope, MlpRow, RopeRow, Turned, Window};
use crate::fields::Key;

/// A block after which the residual stream is normalised.
const fn normed_sum(block: BlockRow, norm: NormName) -> SubLayer {
    SubLayer { norm: None, sum_norm: Some(norm), ..SubLayer::new(norm, block) }
}

const GELU: ActivationRow = ActivationRow::Usually(Activation::GeluErf);

pub(super) const BERT: Arch = Arch {
    name: "bert",
    doc: "BERT, MiniLM, BGE, E5, GTE: encoders with learned positions, normalised after each block",
    hf: &[HfName { model_type: "bert", class: "BertModel" }],
    outside: Outside {
        embedding: &["embeddings.word_embeddings.weight"],
        norm: &[],
        head: &["cls.predictions.decoder.weight"],
        head_bias: &[],
        layers: "encoder.layer",
        // The pooler is of use to heads only.
        ignored: &[
            "embeddings.position_ids",
            "pooler.dense.weight",
            "pooler.dense.bias",
            "cls.predictions.bias",
            "cls.predictions.decoder.bias",
            "cls.seq_relationship.weight",
            "cls.seq_relationship.bias",
        ],
        ..Outside::MODEL
    },
    norm: NormKind::Layer,
    tied: true,
    eps: 1e-12,
    context: 512,
    embedding: EmbeddingRow {
        positions: Some(Positions { hf: "embeddings.position_embeddings.weight", after_padding: false }),
        types: Some("embeddings.token_type_embeddings.weight"),
        norm: Some(NormName::new("token_embd_norm", "embeddings.LayerNorm")),
    },
    layer: &[
        normed_sum(
            BlockRow::Attention(AttentionRow {
                hf: "attention",
                fused: Fused::Split(["self.query", "self.key", "self.value"]),
                hf_out: "output.dense",
                qkv_bias: Bias::Always,
                out_bias: Bias::Always,
                rope: RopeRow { turned: Turned::Never, ..RopeRow::PLAIN },
                causal: false,
                ..AttentionRow::PLAIN
            }),
            NormName::new("attn_output_norm", "attention.output.LayerNorm"),
        ),
        normed_sum(
            BlockRow::Mlp(MlpRow {
                hf: "",
                names: ["", "intermediate.dense", "output.dense"],
                gated: false,
                activation: GELU,
                bias: Bias::Always,
                ..MlpRow::LLAMA
            }),
            NormName::new("layer_output_norm", "output.LayerNorm"),
        ),
    ],
    encoder: Some(EncoderRow {
        labels: Some(LabelsRow {
            pooled: Pooled::First,
            dense: DenseRow {
                hf: "pooler.dense",
                bias: Bias::Always,
                activation: (None, Activation::Tanh),
                norm: None,
            },
            output: "classifier",
        }),
        masked: Some(MaskedRow {
            dense: DenseRow {
                hf: "cls.predictions.transform.dense",
                bias: Bias::Always,
                activation: (Some("hidden_act"), Activation::GeluErf),
                norm: Some("cls.predictions.transform.LayerNorm"),
            },
            output: "cls.predictions.decoder.weight",
            output_bias: &["cls.predictions.decoder.bias", "cls.predictions.bias"],
            bias: Bias::Always,
        }),
        fixed: &[
            ("position_embedding_type", Fixed::Text("absolute")),
            ("is_decoder", Fixed::Flag(false)),
            ("add_cross_attention", Fixed::Flag(false)),
        ],
    }),
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
              "intermediate_size": 37}"#,
    ..LLAMA
};

pub(super) const ROBERTA: Arch = Arch {
    name: "roberta",
    doc: "RoBERTa, XLM-RoBERTa, CamemBERT, multilingual E5, BGE-M3: BERT whose positions begin after the id of padding",
    gguf_as: Some("bert"),
    hf: &[
        HfName { model_type: "roberta", class: "RobertaModel" },
        HfName { model_type: "xlm-roberta", class: "XLMRobertaModel" },
        HfName { model_type: "camembert", class: "CamembertModel" },
    ],
    outside: Outside {
        head: &["lm_head.decoder.weight"],
        ignored: &[
            "embeddings.position_ids",
            "pooler.dense.weight",
            "pooler.dense.bias",
            "lm_head.bias",
            "lm_head.decoder.bias",
        ],
        ..BERT.outside
    },
    embedding: EmbeddingRow {
        positions: Some(Positions { hf: "embeddings.position_embeddings.weight", after_padding: true }),
        ..BERT.embedding
    },
    encoder: Some(EncoderRow {
        labels: Some(LabelsRow {
            pooled: Pooled::First,
            dense: DenseRow {
                hf: "classifier.dense",
                bias: Bias::Always,
                activation: (None, Activation::Tanh),
                norm: None,
            },
            output: "classifier.out_proj",
        }),
        masked: Some(MaskedRow {
            dense: DenseRow {
                hf: "lm_head.dense",
                bias: Bias::Always,
                activation: (None, Activation::GeluErf),
                norm: Some("lm_head.layer_norm"),
            },
            output: "lm_head.decoder.weight",
            output_bias: &["lm_head.decoder.bias", "lm_head.bias"],
            bias: Bias::Always,
        }),
        fixed: &[
            ("position_embedding_type", Fixed::Text("absolute")),
            ("is_decoder", Fixed::Flag(false)),
            ("add_cross_attention", Fixed::Flag(false)),
        ],
    }),
    ..BERT
};

pub(super) const MODERN_BERT: Arch = Arch {
    name: "modern-bert",
    doc: "ModernBERT, GTE ModernBERT: encoders that turn queries and keys, with windows in most layers",
    hf: &[HfName { model_type: "modernbert", class: "ModernBertModel" }],
    outside: Outside {
        embedding: &["embeddings.tok_embeddings.weight"],
        norm: &["final_norm"],
        head: &["decoder.weight"],
        head_bias: &[],
        layers: "layers",
        ignored: &[],
        ..Outside::MODEL
    },
    norm: NormKind::LayerNoBias,
    norm_bias: Some("norm_bias"),
    tied: true,
    eps: 1e-5,
    context: 8192,
    embedding: EmbeddingRow { norm: Some(NormName::new("token_embd_norm", "embeddings.norm")), ..EmbeddingRow::PLAIN },
    layer: &[
        // The embedding has just been normalised.
        SubLayer::new(
            NormName { from: 1, ..NormName::new("attn_norm", "attn_norm") },
            BlockRow::Attention(AttentionRow {
                hf: "attn",
                fused: Fused::Joined("Wqkv"),
                hf_out: "Wo",
                gguf_fused: true,
                qkv_bias: Bias::Optional(&["attention_bias"]),
                out_bias: Bias::Optional(&["attention_bias"]),
                rope: RopeRow {
                    theta: 160_000.0,
                    local: Some(LocalRope {
                        theta: Key::new(
                            &["rope.freq_base_swa"],
                            &["rope_parameters.sliding_attention.rope_theta", "local_rope_theta"],
                        ),
                        usual: 10_000.0,
                        alike: true,
                    }),
                    ..RopeRow::PLAIN
                },
                causal: false,
                window: Window::Pattern { period: 3, full: 0 },
                ..AttentionRow::PLAIN
            }),
        ),
        SubLayer::new(
            NormName::new("ffn_norm", "mlp_norm"),
            BlockRow::Mlp(MlpRow {
                names: ["", "", "Wo"],
                hf_fused: Some("Wi"),
                gguf_fused: true,
                activation: GELU,
                ..MlpRow::LLAMA
            }),
        ),
    ],
    encoder: Some(EncoderRow {
        labels: Some(LabelsRow { pooled: Pooled::Field, dense: MODERN_BERT_DENSE, output: "classifier" }),
        masked: Some(MaskedRow {
            dense: MODERN_BERT_DENSE,
            output: "decoder.weight",
            output_bias: &["decoder.bias"],
            bias: Bias::Usually(&["decoder_bias"]),
        }),
        fixed: &[],
    }),
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3,
              "intermediate_size": 19, "local_attention": 14}"#,
    ..LLAMA
};

const MODERN_BERT_DENSE: DenseRow = DenseRow {
    hf: "head.dense",
    bias: Bias::Optional(&["classifier_bias"]),
    activation: (Some("classifier_activation"), Activation::GeluErf),
    norm: Some("head.norm"),
};

pub(super) const NOMIC_BERT: Arch = Arch {
    name: "nomic-bert",
    doc: "Nomic Embed 1 and 1.5: BERT that turns queries and keys, with a gated feed-forward network",
    hf: &[HfName { model_type: "nomic_bert", class: "NomicBertModel" }],
    outside: Outside { layers: "encoder.layers", ..BERT.outside },
    context: 2048,
    embedding: EmbeddingRow {
        positions: None,
        norm: Some(NormName::new("token_embd_norm", "emb_ln")),
        ..BERT.embedding
    },
    layer: &[
        normed_sum(
            BlockRow::Attention(AttentionRow {
                hf: "attn",
                fused: Fused::Joined("Wqkv"),
                hf_out: "out_proj",
                gguf_fused: true,
                qkv_bias: Bias::Optional(&["qkv_proj_bias"]),
                out_bias: Bias::Optional(&["qkv_proj_bias"]),
                rope: RopeRow { theta: 1000.0, ..RopeRow::PLAIN },
                causal: false,
                ..AttentionRow::PLAIN
            }),
            NormName::new("attn_output_norm", "norm1"),
        ),
        SubLayer {
            norm: None,
            sum_norm: Some(NormName::new("layer_output_norm", "norm2")),
            ..mlp(MlpRow {
                names: ["fc12", "fc11", "fc2"],
                bias: Bias::Optional(&["mlp_fc1_bias"]),
                inner: (Key::new(&["feed_forward_length"], &["intermediate_size", "n_inner"]), Some(4)),
                ..MlpRow::LLAMA
            })
        },
    ],
    encoder: Some(EncoderRow {
        labels: None,
        masked: None,
        fixed: &[
            ("prenorm", Fixed::Flag(false)),
            ("parallel_block", Fixed::Flag(false)),
            ("use_rms_norm", Fixed::Flag(false)),
            ("causal", Fixed::Flag(false)),
            ("rotary_emb_interleaved", Fixed::Flag(false)),
            ("rotary_emb_scale_base", Fixed::Absent),
            ("rotary_scaling_factor", Fixed::Absent),
        ],
    }),
    ..BERT
};
