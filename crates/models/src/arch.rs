//! The table of architectures. An architecture is a row of data: what it is called in files, which blocks make a layer,
//! and how the tensors are named. Nothing outside this file knows an architecture's name.

use imaginal_nn::Scores;
use imaginal_tensor::RopeStyle;

use crate::blocks::{AttentionRow, Bias, BlockRow, MambaRow, MlpRow, MoeRow, Window};

/// A row of [`ARCHS`].
#[derive(Debug)]
pub struct Arch {
    /// `general.architecture` in GGUF files, and the name of the row.
    pub name: &'static str,
    /// One line for lists.
    pub doc: &'static str,
    /// What `config.json` may call it, the name first that is written.
    pub hf: &'static [HfName],
    /// Names outside the layers in a Hugging Face checkpoint, each with its alternatives.
    pub hf_embedding: &'static [&'static str],
    /// The final norm.
    pub hf_norm: &'static [&'static str],
    /// The output head.
    pub hf_head: &'static [&'static str],
    /// What comes before a layer's number.
    pub hf_layers: &'static str,
    /// Whether the head is the embedding where `config.json` does not say.
    pub tied: bool,
    /// Epsilon of the norms where `config.json` does not say.
    pub eps: f64,
    /// Context length where `config.json` has no field for it.
    pub context: usize,
    /// The blocks of a layer, in order; each adds its result to the residual stream.
    pub layer: &'static [SubLayer],
    /// Settings (as in `config.json`) of a tiny model for tests.
    pub tiny: &'static str,
}

/// A name of an architecture in `config.json`.
#[derive(Debug)]
pub struct HfName {
    /// `model_type`.
    pub model_type: &'static str,
    /// The entry of `architectures`.
    pub class: &'static str,
}

/// A norm and a block.
#[derive(Debug)]
pub struct SubLayer {
    /// The norm before the block, in GGUF files.
    pub norm: &'static str,
    /// The same in a Hugging Face checkpoint.
    pub hf_norm: &'static str,
    /// The block.
    pub block: BlockRow,
}

impl Arch {
    /// The row of this GGUF name.
    pub fn by_name(name: &str) -> Option<&'static Arch> {
        ARCHS.iter().find(|a| a.name == name)
    }

    /// The row of a `model_type`, or of a class name.
    pub fn by_hf(name: &str) -> Option<&'static Arch> {
        ARCHS.iter().find(|a| a.hf.iter().any(|h| h.model_type == name || h.class == name))
    }
}

const LLAMA_MLP: SubLayer = SubLayer {
    norm: "ffn_norm",
    hf_norm: "post_attention_layernorm",
    block: BlockRow::Mlp(MlpRow { hf: "mlp", bias: Bias::Optional(&["mlp_bias"]) }),
};

const PLAIN_MLP_ROW: MlpRow = MlpRow { hf: "mlp", bias: Bias::Never };

const PLAIN_MLP: SubLayer = SubLayer { block: BlockRow::Mlp(PLAIN_MLP_ROW), ..LLAMA_MLP };

const LLAMA_ATTENTION: AttentionRow = AttentionRow {
    hf: "self_attn",
    gguf_rope: RopeStyle::Interleaved,
    qkv_bias: Bias::Optional(&["attention_bias"]),
    out_bias: Bias::Optional(&["attention_bias"]),
    qk_norm: false,
    window: Window::Types(&["mistral"]),
};

const QWEN3_ATTENTION: AttentionRow =
    AttentionRow { gguf_rope: RopeStyle::Half, qk_norm: true, window: Window::FromLayer, ..LLAMA_ATTENTION };

const fn attention(row: AttentionRow) -> SubLayer {
    SubLayer { norm: "attn_norm", hf_norm: "input_layernorm", block: BlockRow::Attention(row) }
}

const LLAMA: Arch = Arch {
    name: "llama",
    doc: "Llama 1 to 3, Mistral 7B, TinyLlama, SmolLM and others of the same shape",
    hf: &[
        HfName { model_type: "llama", class: "LlamaForCausalLM" },
        HfName { model_type: "mistral", class: "MistralForCausalLM" },
    ],
    hf_embedding: &["model.embed_tokens.weight"],
    hf_norm: &["model.norm.weight"],
    hf_head: &["lm_head.weight"],
    hf_layers: "model.layers",
    tied: false,
    eps: 1e-6,
    context: 2048,
    layer: &[attention(LLAMA_ATTENTION), LLAMA_MLP],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "intermediate_size": 37, "max_position_embeddings": 512, "rms_norm_eps": 1e-5}"#,
};

/// Every architecture, in the order of lists.
pub static ARCHS: &[Arch] = &[
    LLAMA,
    Arch {
        name: "qwen2",
        doc: "Qwen 2 and 2.5: Llama's shape with biases on queries, keys and values",
        hf: &[HfName { model_type: "qwen2", class: "Qwen2ForCausalLM" }],
        context: 32768,
        layer: &[
            attention(AttentionRow {
                gguf_rope: RopeStyle::Half,
                qkv_bias: Bias::Always,
                out_bias: Bias::Never,
                window: Window::FromLayer,
                ..LLAMA_ATTENTION
            }),
            PLAIN_MLP,
        ],
        tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
                  "num_key_value_heads": 2, "intermediate_size": 37, "max_position_embeddings": 512,
                  "tie_word_embeddings": true, "rope_theta": 1000000.0}"#,
        ..LLAMA
    },
    Arch {
        name: "qwen3",
        doc: "Qwen 3, dense: heads of their own size, queries and keys normalised",
        hf: &[HfName { model_type: "qwen3", class: "Qwen3ForCausalLM" }],
        context: 32768,
        layer: &[attention(QWEN3_ATTENTION), PLAIN_MLP],
        tiny: r#"{"vocab_size": 67, "hidden_size": 28, "num_hidden_layers": 2, "num_attention_heads": 4,
                  "num_key_value_heads": 2, "head_dim": 10, "intermediate_size": 37, "max_position_embeddings": 512,
                  "rope_theta": 1000000.0}"#,
        ..LLAMA
    },
    Arch {
        name: "qwen3moe",
        doc: "Qwen 3, mixture of experts",
        hf: &[HfName { model_type: "qwen3_moe", class: "Qwen3MoeForCausalLM" }],
        context: 32768,
        layer: &[
            attention(QWEN3_ATTENTION),
            SubLayer {
                block: BlockRow::Moe(MoeRow {
                    hf: "mlp.experts",
                    hf_router: "mlp.gate",
                    scores: Scores::Softmax,
                    gguf_normalised: true,
                    dense: PLAIN_MLP_ROW,
                }),
                ..LLAMA_MLP
            },
        ],
        tiny: r#"{"vocab_size": 67, "hidden_size": 28, "num_hidden_layers": 2, "num_attention_heads": 4,
                  "num_key_value_heads": 2, "head_dim": 10, "num_experts": 5, "num_experts_per_tok": 2,
                  "moe_intermediate_size": 13, "norm_topk_prob": true, "max_position_embeddings": 512,
                  "rope_theta": 1000000.0}"#,
        ..LLAMA
    },
    Arch {
        name: "mamba",
        doc: "Mamba: selective state spaces, no attention, constant memory per token",
        hf: &[HfName { model_type: "mamba", class: "MambaForCausalLM" }],
        hf_embedding: &["backbone.embeddings.weight", "backbone.embedding.weight"],
        hf_norm: &["backbone.norm_f.weight"],
        hf_head: &["lm_head.weight"],
        hf_layers: "backbone.layers",
        tied: true,
        eps: 1e-5,
        context: 1 << 20,
        layer: &[SubLayer { norm: "attn_norm", hf_norm: "norm", block: BlockRow::Mamba(MambaRow { hf: "mixer" }) }],
        tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "state_size": 8}"#,
    },
];
