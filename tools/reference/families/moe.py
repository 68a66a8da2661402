"""Decoders with a mixture of experts."""

from . import within
from .dense import HEADS, IDS, LLAMA, SMALL, YARN

MOE = {**LLAMA, "hidden_size": 24, "head_dim": 8, "intermediate_size": 29}
MLA = {
    **SMALL, **IDS, "hidden_size": 24, "intermediate_size": 29, "num_hidden_layers": 3, "num_attention_heads": 3,
    "num_key_value_heads": 3, "hidden_act": "silu", "max_position_embeddings": 1024, "rms_norm_eps": 1e-6,
    "rope_theta": 1000.0, "rope_scaling": None, "attention_bias": False, "tie_word_embeddings": False,
    "first_k_dense_replace": 1, "moe_layer_freq": 1, "moe_intermediate_size": 11, "n_routed_experts": 6,
    "n_shared_experts": 2, "num_experts_per_tok": 2, "kv_lora_rank": 10, "q_lora_rank": None, "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 8, "v_head_dim": 7,
}
DEEPSEEK_V3 = {
    **MLA, "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "q_lora_rank": 13, "n_routed_experts": 8,
    "n_shared_experts": 1, "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2, "topk_method": "noaux_tc",
    "scoring_func": "sigmoid", "norm_topk_prob": True, "routed_scaling_factor": 2.5, "num_nextn_predict_layers": 0,
}
GPT_OSS = {
    "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", **SMALL, **HEADS, **IDS, "hidden_size": 24,
    "intermediate_size": 17, "num_hidden_layers": 3, "head_dim": 10, "hidden_act": "silu", "attention_bias": True,
    "max_position_embeddings": 1024, "initial_context_length": 256, "rms_norm_eps": 3e-3, "rope_theta": 1000.0,
    "rope_scaling": {**YARN, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}, "sliding_window": 7,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "num_local_experts": 5,
    "experts_per_token": 2, "num_experts_per_tok": 2, "swiglu_limit": 7.0, "tie_word_embeddings": False,
    "_gain": {"gate_up_proj$": 3.5, "gate_up_proj_bias": 3.0},
}
SMALL_TEXT01 = {
    "hidden_size": 16, "intermediate_size": 5, "num_hidden_layers": 8, "num_local_experts": 4, "head_dim": 12,
    "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-6,
}
TEXT01 = {
    "_about": "original checkpoint: model_type minimax_text_01 and its keys, seven lightning layers to one with attention",
    **SMALL_TEXT01, "full_attn_alpha_factor": 1.5, "linear_attn_alpha_factor": 1.5, "mlp_alpha_factor": 1.5,
    "full_attn_beta_factor": 1.0, "linear_attn_beta_factor": 1.0, "mlp_beta_factor": 1.0,
    "layer_types": ["linear_attention"] * 7 + ["full_attention"], "_seed": 1, "_snap": "without_constants", "_final": True,
    "_config": {
        **MOE, **SMALL_TEXT01, "architectures": ["MiniMaxText01ForCausalLM"], "model_type": "minimax_text_01",
        "num_experts_per_tok": 2, "rotary_dim": 12, "attn_type_list": [0] * 7 + [1],
        "layernorm_full_attention_alpha": 1.5, "layernorm_full_attention_beta": 1.0,
        "layernorm_linear_attention_alpha": 1.5, "layernorm_linear_attention_beta": 1.0, "layernorm_mlp_alpha": 1.5,
        "layernorm_mlp_beta": 1.0, "postnorm": True, "shared_intermediate_size": 0, "shared_moe_mode": "sigmoid",
    },
}
LLAMA4 = {
    **MOE, "architectures": ["Llama4ForCausalLM"], "model_type": "llama4_text", "num_hidden_layers": 4,
    "intermediate_size": 9, "intermediate_size_mlp": 19, "num_local_experts": 3, "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 1, "use_qk_norm": True, "no_rope_layers": [1, 1, 1, 0], "attention_chunk_size": 8,
    "attn_temperature_tuning": True, "floor_scale": 8192, "attn_scale": 0.1, "rope_theta": 5000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 64}, "_drop": ["mlp_bias"],
}

FAMILIES = {
    "mixtral": {
        "base": {**MOE, "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 5,
                 "num_experts_per_tok": 2, "intermediate_size": 13, "sliding_window": None,
                 "_drop": ["head_dim", "attention_bias", "mlp_bias"]},
        "variants": {
            "plain": {"_about": "block_sparse_moe.experts.N.w1 w2 w3, weights of the chosen add up to one"},
            "window": {"_about": "sliding window, three of seven experts, tied", "sliding_window": 7,
                       "num_local_experts": 7, "num_experts_per_tok": 3, "tie_word_embeddings": True,
                       "_llama": "llama.cpp has no window for mixtral"},
            "stacked": {"_about": "experts as transformers 5 holds them: gate_up_proj and down_proj of all in one",
                        "_layout": "native", "_seed": 1, "_gguf": "the converter knows the published layout only"},
        },
    },
    "qwen2_moe": {
        "base": {**MOE, "architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "num_experts": 5,
                 "num_experts_per_tok": 2, "moe_intermediate_size": 13, "shared_expert_intermediate_size": 19,
                 "norm_topk_prob": False, "decoder_sparse_step": 1, "mlp_only_layers": [], "use_sliding_window": False,
                 "sliding_window": 7, "max_window_layers": 1, "rope_theta": 1000.0,
                 "_drop": ["head_dim", "attention_bias", "mlp_bias"]},
        "variants": {
            "plain": {"_about": "shared expert with a gate, weights not normalised, qkv biases"},
            "alternating": {"_about": "no biases (qkv_bias), windows in every other layer before max_window_layers, fields of "
                            "the class left out", "num_hidden_layers": 4, "hidden_size": 16, "qkv_bias": False,
                            "use_sliding_window": True, "max_window_layers": 3, "num_experts": 3, "_seed": 2,
                            "_drop": ["rope_theta", "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers", "rms_norm_eps",
                                      "rope_scaling", "tie_word_embeddings", "head_dim", "attention_bias", "mlp_bias"],
                            "_gguf": "llama.cpp has neither these windows nor goes without the biases"},
            "dense-layers": {"_about": "layer 0 and 2 dense by decoder_sparse_step, norm_topk_prob, tied",
                             "num_hidden_layers": 4, "decoder_sparse_step": 2, "norm_topk_prob": True,
                             "tie_word_embeddings": True, "_gguf": "llama.cpp has experts in every layer"},
        },
    },
    "qwen3_moe": {
        "base": {**MOE, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 4, "hidden_size": 16,
                 "num_experts_per_tok": 2, "moe_intermediate_size": 7, "norm_topk_prob": True, "_drop": ["mlp_bias"]},
        "variants": {
            "window": {"_about": "a window in every layer, whatever max_window_layers says", "use_sliding_window": True,
                       "sliding_window": 7, "max_window_layers": 1, "_gguf": "llama.cpp has no window here"},
        },
    },
    "granitemoe": {
        "base": {**MOE, "architectures": ["GraniteMoeForCausalLM"], "model_type": "granitemoe", "_embed": 0.3,
                 "intermediate_size": 13, "num_local_experts": 5, "num_experts_per_tok": 2, "embedding_multiplier": 4.0,
                 "logits_scaling": 3.0, "residual_multiplier": 0.7, "attention_multiplier": 0.21,
                 "tie_word_embeddings": True, "_drop": ["head_dim", "mlp_bias"]},
        "variants": {
            "plain": {"_about": "multipliers of granite, experts fused as input_linear and output_linear"},
            "shared": {"_about": "granitemoeshared: with a shared MLP beside the experts, untied",
                       "architectures": ["GraniteMoeSharedForCausalLM"], "model_type": "granitemoeshared",
                       "shared_intermediate_size": 19, "tie_word_embeddings": False},
        },
    },
    "dbrx": {
        "base": {"architectures": ["DbrxForCausalLM"], "model_type": "dbrx", "vocab_size": 67, "d_model": 24, "n_heads": 4,
                 "n_layers": 2, "max_seq_len": 512, "tie_word_embeddings": False,
                 "attn_config": {"clip_qkv": 1.5, "kv_n_heads": 2, "rope_theta": 700.0},
                 "rope_parameters": {"rope_type": "default", "rope_theta": 700.0}, "_hidden": ["rope_parameters"],
                 "ffn_config": {"ffn_hidden_size": 13, "moe_num_experts": 5, "moe_top_k": 2, "ffn_act_fn": {"name": "silu"}}},
        "variants": {
            "plain": {"_about": "fused qkv clipped to 1.5, LayerNorm without bias, experts in one matrix each"},
            "undivided": {"_about": "weights of experts not divided by their sum (null), GELU", "_seed": 1, "d_model": 16,
                          "ffn_config": {"ffn_hidden_size": 9, "moe_num_experts": 3, "moe_top_k": 2,
                                         "ffn_act_fn": {"name": "gelu"}, "moe_normalize_expert_weights": None},
                          "_gguf": "llama.cpp divides, and has SiLU"},
        },
    },
    "llama4": {
        "base": LLAMA4,
        "variants": {
            "scout": {"_about": "experts everywhere, one of three by sigmoid on the input, shared expert, chunked attention, "
                      "L2 norm of q and k after RoPE, global layers without RoPE",
                      "_llama": "llama.cpp has chunks of 8192 built in"},
            "nested": within(
                LLAMA4, {"num_hidden_layers": 2, "no_rope_layers": [1, 0], "_seed": 2}, "Llama4ForConditionalGeneration",
                "llama4", {"^model": "language_model.model", "^lm_head": "language_model.lm_head"},
                {"vision_model.class_embedding": (16,), "vision_model.model.layers.0.mlp.fc1.bias": (16,),
                 "multi_modal_projector.linear_1.weight": (24, 16)}),
            "unchunked": {"_about": "as scout, the chunk longer than the text", "attention_chunk_size": 8192, "_seed": 1},
            "maverick": {"_about": "every other layer dense, no QK norm, temperature that sets in early (floor_scale 4), "
                         "top 2", "interleave_moe_layer_step": 2, "use_qk_norm": False, "floor_scale": 4,
                         "attn_scale": 0.4, "num_experts_per_tok": 2, "rope_scaling": None, "head_dim": 6,
                         "no_rope_layers": [], "no_rope_layer_interval": 2,
                         "_llama": "llama.cpp has floor_scale, attn_scale and the interval built in"},
        },
    },
    "deepseek_v2": {
        "base": {**MLA, "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "n_group": 1,
                 "topk_group": 1, "topk_method": "greedy", "scoring_func": "softmax", "norm_topk_prob": False,
                 "routed_scaling_factor": 1.0},
        "variants": {
            "lite": {"_about": "MLA without q_lora, greedy softmax routing, two shared experts, first layer dense",
                     "_keep": True, "_llama": "llama.cpp takes a model without q_lora only if it has 26 or 27 layers"},
            "yarn": {"_about": "q_lora, YaRN with mscale, group-limited routing, scaling factor 16", "q_lora_rank": 13,
                     "n_group": 3, "topk_group": 2, "topk_method": "group_limited_greedy", "routed_scaling_factor": 1.7,
                     "qk_rope_head_dim": 10,
                     "rope_scaling": {"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 128,
                                      "beta_fast": 32, "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707},
                     "_llama": "llama.cpp routes without groups here"},
            "divided": {"_about": "norm_topk_prob, of which the class takes no notice", "norm_topk_prob": True, "_seed": 2,
                        "num_hidden_layers": 2, "_gguf": "llama.cpp takes notice"},
            "yarn-greedy": {"_about": "YaRN with mscale in MLA, routing without groups", "q_lora_rank": 13, "_seed": 1,
                     "rope_scaling": {"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 128,
                                      "beta_fast": 32, "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707}},
        },
    },
    "deepseek_v3": {
        "base": DEEPSEEK_V3,
        "variants": {
            "plain": {"_about": "sigmoid routing with correction bias in two of four groups, normalised, factor 2.5"},
            "yarn": {"_about": "YaRN with mscale; no group limits", "n_group": 1, "topk_group": 1, "_seed": 1,
                     "rope_scaling": {"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 128,
                                      "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}},
            "mtp": {"_about": "a layer for predicting further tokens after the last: to be ignored",
                    "num_hidden_layers": 2, "num_nextn_predict_layers": 1, "_layout": "deepseek_mtp", "_seed": 2,
                    "_unexpected": r"layers\.2\."},
            "no-norm": {"_about": "norm_topk_prob false, no q_lora, attention biases, tied, halves rotated "
                        "(rope_interleave false), rms_norm_eps 3e-3 but 1e-6 in the latent norms", "norm_topk_prob": False, "q_lora_rank": None, "attention_bias": True,
                        "tie_word_embeddings": True, "rope_interleave": False, "rms_norm_eps": 3e-3, "_seed": 3,
                        "_llama": "llama.cpp has neither these biases nor this RoPE for deepseek2"},
            "fp8": {"_about": "FP8 e4m3 weights in blocks of 128 x 128 with weight_scale_inv, the rest bf16",
                    "vocab_size": 59, "hidden_size": 144, "intermediate_size": 136, "num_hidden_layers": 2,
                    "kv_lora_rank": 12, "num_experts_per_tok": 2,
                    "moe_intermediate_size": 7, "_snap": "fp8_blocks", "_seed": 4,
                    "_config": {"quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                                                        "weight_block_size": [128, 128]}}},
        },
    },
    "kimi_k2": {
        "base": {**DEEPSEEK_V3, "n_group": 1, "topk_group": 1, "routed_scaling_factor": 2.827, "rope_theta": 5000.0,
                 "_config": {"model_type": "kimi_k2"}},
        "variants": {
            "plain": {"_about": "deepseek_v3 under another model_type, one group, YaRN with betas 1", "_keep": True,
                      "_llama": "llama.cpp does not read the betas, which are in the file; with 32 and 1 it agrees",
                      "rope_scaling": {"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 128,
                                       "beta_fast": 1.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}},
        },
    },
    "gpt_oss": {
        "base": GPT_OSS,
        "variants": {
            "plain": {"_about": "sinks, window on every other layer, clamped gated unit with interleaved gate and up, biases "
                      "everywhere, YaRN without truncation", "_keep": True,
                      "_llama": "llama.cpp truncates the range of YaRN; with truncate it agrees"},
            "limit": {"_about": "swiglu_limit 2, plain RoPE", "swiglu_limit": 2.0, "rope_scaling": None, "_seed": 1,
                      "_llama": "llama.cpp has the limit of 7 built in"},
            "mxfp4": {"_about": "experts as MXFP4 blocks and scales, biases bf16", "hidden_size": 32,
                      "intermediate_size": 32, "num_hidden_layers": 2, "num_local_experts": 4, "head_dim": 8, "_seed": 2,
                      "layer_types": ["sliding_attention", "full_attention"], "_snap": "mxfp4_experts", "_keep": True,
                      "_llama": "llama.cpp rounds activations to 8 bits and truncates the range of YaRN",
                      "_config": {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": [
                          "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}}},
        },
    },
    "minimax": {
        "base": {**MOE, "architectures": ["MiniMaxForCausalLM"], "model_type": "minimax", "num_hidden_layers": 4,
                 "intermediate_size": 11, "num_local_experts": 4, "num_experts_per_tok": 2, "block_size": 8,
                 "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
                 "full_attn_alpha_factor": 1.5, "full_attn_beta_factor": 0.8, "linear_attn_alpha_factor": 1.3,
                 "linear_attn_beta_factor": 0.9, "mlp_alpha_factor": 1.2, "mlp_beta_factor": 0.7, "sliding_window": None,
                 "head_dim": 6, "partial_rotary_factor": 1.0, "_constant": "(slope_rate|_decay)$",
                 "_drop": ["attention_bias", "mlp_bias"]},
        "variants": {
            "plain": {"_about": "lightning attention in two layers of four, post-norm residual with alpha and beta, as the "
                      "-hf checkpoints have it", "_gguf": "the converter knows the original layout only"},
            "text01": TEXT01,
            "text01-partial": {
                **TEXT01, "_about": "rotary_dim half of the head, as published: transformers rotates all of it, so the "
                "expectation is llama.cpp's", "_oracle": "llama", "_seed": 2,
                "_config": {**TEXT01["_config"], "rotary_dim": 6}},
        },
    },
    "minimax_m2": {
        "base": {**MOE, "architectures": ["MiniMaxM2ForCausalLM"], "model_type": "minimax_m2", "intermediate_size": 11,
                 "num_local_experts": 6, "num_experts_per_tok": 3, "head_dim": 8, "rotary_dim": 4, "use_qk_norm": True,
                 "qk_norm_type": "per_layer", "scoring_func": "sigmoid", "use_routing_bias": True,
                 "_drop": ["attention_bias", "mlp_bias"]},
        "variants": {
            "plain": {"_about": "sigmoid routing with correction bias, QK norm over all heads, half of the head rotated"},
        },
    },
}
