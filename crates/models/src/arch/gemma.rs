//! Gemma.

use imaginal_nn::Activation;

use super::llama::{ATTN_NORM, FFN_NORM, LLAMA, attention, mlp};
use super::{Arch, Factor, HfName, NormName, Outside, Scales, SubLayer};
use crate::blocks::{ActivationRow, AttentionRow, BlockRow, LocalRope, MlpRow, QkNormRow, RopeRow, Scale, Window};
use crate::fields::Key;

const FIRST_MLP: MlpRow = MlpRow { activation: ActivationRow::Approximate("hidden_act"), ..MlpRow::PLAIN };

/// Files have `hidden_act` too, which says nothing.
const ACTIVATION: ActivationRow = ActivationRow::Named("hidden_activation", Activation::Gelu);
const MLP: MlpRow = MlpRow { activation: ACTIVATION, ..MlpRow::PLAIN };

/// Llama's attention whose rows lie as in Hugging Face checkpoints.
const BIASED: AttentionRow = AttentionRow {
    qkv_bias: AttentionRow::LLAMA.qkv_bias,
    out_bias: AttentionRow::LLAMA.out_bias,
    ..AttentionRow::PLAIN
};

const CAPPED: AttentionRow = AttentionRow {
    scale: Scale::RootOf { key: Key::new(&[], &["query_pre_attn_scalar"]), wide_layers: 46 },
    softcap: Some(Key::new(&["attn_logit_softcapping"], &["attn_logit_softcapping"])),
    window: Window::Pattern { period: 2, full: 1 },
    ..BIASED
};

/// A block between two norms.
const fn between(before: NormName, block: BlockRow, after: NormName) -> SubLayer {
    SubLayer { post_norm: Some(after), ..SubLayer::new(before, block) }
}

const POST_ATTENTION: NormName = NormName::new("post_attention_norm", "post_attention_layernorm");
const GATED_MLP: SubLayer = between(
    NormName::new("ffn_norm", "pre_feedforward_layernorm"),
    BlockRow::Mlp(MLP),
    NormName::new("post_ffw_norm", "post_feedforward_layernorm"),
);

pub(super) const GEMMA: Arch = Arch {
    name: "gemma",
    doc: "Gemma: Llama's shape with wide heads, GELU, norms that add to one and scaled embeddings",
    hf: &[HfName { model_type: "gemma", class: "GemmaForCausalLM" }],
    norm_less_one: true,
    tied: true,
    context: 8192,
    scales: Scales { embedding: Factor::SqrtWidth, ..Scales::ONE },
    layer: &[attention(BIASED), mlp(FIRST_MLP)],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 37}"#,
    ..LLAMA
};

pub(super) const GEMMA2: Arch = Arch {
    name: "gemma2",
    doc: "Gemma 2: norms on both sides of a block, every other layer with a window, capped scores and logits",
    hf: &[HfName { model_type: "gemma2", class: "Gemma2ForCausalLM" }],
    scales: Scales {
        embedding: Factor::SqrtWidth,
        softcap: Some(Key::new(&["final_logit_softcapping"], &["final_logit_softcapping"])),
        ..Scales::ONE
    },
    layer: &[between(ATTN_NORM, BlockRow::Attention(CAPPED), POST_ATTENTION), GATED_MLP],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 37, "sliding_window": 7,
              "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}"#,
    ..GEMMA
};

/// Layers with a window have a base of their own.
const LOCAL_ROPE: RopeRow = RopeRow {
    theta: 1e6,
    local: Some(LocalRope {
        theta: Key::new(
            &["rope.freq_base_swa"],
            &["rope_parameters.sliding_attention.rope_theta", "rope_local_base_freq"],
        ),
        usual: 10000.0,
        alike: false,
    }),
    ..RopeRow::PLAIN
};

pub(super) const GEMMA3: Arch = Arch {
    name: "gemma3",
    doc: "Gemma 3: five layers with a window to one without, each kind with wavelengths of its own",
    hf: &[
        HfName { model_type: "gemma3_text", class: "Gemma3ForCausalLM" },
        HfName { model_type: "gemma3", class: "Gemma3ForConditionalGeneration" },
    ],
    context: 131_072,
    layer: &[
        between(
            ATTN_NORM,
            BlockRow::Attention(AttentionRow {
                scale: Scale::RootOf { key: Key::new(&[], &["query_pre_attn_scalar"]), wide_layers: 62 },
                // Files have a field for a cap, which is not used.
                softcap: None,
                qk_norm: Some(QkNormRow::HEAD),
                window: Window::Pattern { period: 6, full: 5 },
                rope: LOCAL_ROPE,
                ..CAPPED
            }),
            POST_ATTENTION,
        ),
        GATED_MLP,
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 7, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 37, "sliding_window": 7}"#,
    ..GEMMA2
};

const SHARED: AttentionRow = AttentionRow {
    scale: Scale::One,
    qk_norm: Some(QkNormRow::HEAD),
    v_norm: true,
    shared: Some(Key::new(&["attention.shared_kv_layers"], &["num_kv_shared_layers"])),
    window: Window::Pattern { period: 5, full: 4 },
    rope: LOCAL_ROPE,
    ..BIASED
};

const SPARSE_MLP: MlpRow =
    MlpRow { sparsity: Some(Key::new(&["activation_sparsity_scale"], &["activation_sparsity_pattern"])), ..MLP };

pub(super) const GEMMA3N: Arch = Arch {
    name: "gemma3n",
    doc: "Gemma 3n: four streams of which layers compute one, inputs for each layer, keys and values that layers share",
    hf: &[
        HfName { model_type: "gemma3n_text", class: "Gemma3nForCausalLM" },
        HfName { model_type: "gemma3n", class: "Gemma3nForConditionalGeneration" },
    ],
    norm_less_one: false,
    context: 32_768,
    outside: Outside { ignored: &[".altup.correct_output_scale"], ..Outside::MODEL },
    streams: true,
    layer: &[
        between(ATTN_NORM, BlockRow::Attention(SHARED), POST_ATTENTION),
        SubLayer {
            norm: None,
            beside: true,
            sum_scale: std::f64::consts::FRAC_1_SQRT_2,
            ..SubLayer::new(ATTN_NORM, BlockRow::Laurel)
        },
        SubLayer { block: BlockRow::Mlp(SPARSE_MLP), ..GATED_MLP },
    ],
    tiny: r#"{"vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 6, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 37, "sliding_window": 7,
              "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention",
                              "sliding_attention", "full_attention"],
              "vocab_size_per_layer_input": 61, "hidden_size_per_layer_input": 5, "num_kv_shared_layers": 2,
              "laurel_rank": 3, "activation_sparsity_pattern": [0.8, 0.6, 0, 0, 0, 0],
              "final_logit_softcapping": 30.0}"#,
    ..GEMMA2
};

/// GLM 4 and others with norms on both sides of a block name them in their own way.
pub(super) const fn glm_layer(row: AttentionRow, mlp: MlpRow) -> [SubLayer; 2] {
    [
        between(ATTN_NORM, BlockRow::Attention(row), NormName::new("post_attention_norm", "post_self_attn_layernorm")),
        between(FFN_NORM, BlockRow::Mlp(mlp), NormName::new("post_ffw_norm", "post_mlp_layernorm")),
    ]
}
