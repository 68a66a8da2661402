"""Decoders with attention and one feed-forward network in every layer."""

from . import within

SMALL = {"vocab_size": 67, "hidden_size": 32, "intermediate_size": 43, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
IDS = {"bos_token_id": 1, "eos_token_id": 2}

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", **SMALL, **HEADS, **IDS, "hidden_act": "silu",
    "max_position_embeddings": 1024, "rms_norm_eps": 3e-3, "rope_theta": 1000.0, "rope_scaling": None, "head_dim": 16,
    "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
GEMMA3 = {
    "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", **SMALL, **HEADS, **IDS, "_embed": 0.25,
    "hidden_size": 24, "intermediate_size": 29, "num_hidden_layers": 6, "head_dim": 8,
    "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 512, "rms_norm_eps": 3e-3, "rope_theta": 5000.0,
    "rope_local_base_freq": 100.0, "sliding_window": 7, "sliding_window_pattern": 3, "query_pre_attn_scalar": 6,
    "attn_logit_softcapping": None, "final_logit_softcapping": None,
}
SHORT_FACTORS = [1.0, 1.1, 1.3, 1.45, 1.7, 2.1, 2.6, 3.0]
LONG_FACTORS = [1.0, 1.25, 1.9, 2.8, 4.5, 7.0, 11.5, 16.0]
LONGROPE = {"type": "longrope", "short_factor": SHORT_FACTORS, "long_factor": LONG_FACTORS}

FAMILIES = {
    "llama": {
        "base": LLAMA,
        "variants": {
            "yarn": {"_about": "YaRN, attention factor from the scaling factor", "rope_scaling": YARN},
            "yarn-options": {
                "_about": "YaRN with beta_fast, beta_slow, attention_factor and no truncation, new spelling",
                "_drop": ["rope_theta", "rope_scaling"],
                "rope_parameters": {**YARN, "rope_theta": 1000.0, "beta_fast": 20.0, "beta_slow": 2.0,
                                    "attention_factor": 1.3, "truncate": False},
                "_llama": "the converter drops beta_slow, attention_factor and truncate of llama",
            },
            "yarn-mscale": {"_about": "YaRN with mscale and mscale_all_dim",
                            "rope_scaling": {**YARN, "mscale": 1.2, "mscale_all_dim": 0.7},
                            "_llama": "the converter drops mscale of llama"},
            "longrope-short": {
                "_about": "LongRoPE within the original length: short factors",
                "rope_scaling": {**LONGROPE, "original_max_position_embeddings": 64},
                "_gguf": "the converter writes no LongRoPE for llama",
            },
            "longrope-long": {
                "_about": "LongRoPE past the original length: long factors",
                "_gguf": "the converter writes no LongRoPE for llama",
                "rope_scaling": {**LONGROPE, "original_max_position_embeddings": 16, "factor": 8.0},
            },
            "dynamic": {"_about": "dynamic NTK within max_position_embeddings: no scaling at all",
                        "rope_scaling": {"type": "dynamic", "factor": 3.0}, "max_position_embeddings": 64},
            "mha": {"_about": "no head_dim, no num_key_value_heads, hidden_act gelu, tied", "num_attention_heads": 4,
                    "hidden_act": "gelu", "tie_word_embeddings": True, "_drop": ["num_key_value_heads", "head_dim"],
                    "_llama": "llama.cpp computes SiLU whatever hidden_act says"},
        },
    },
    "mistral": {
        "base": {**LLAMA, "architectures": ["MistralForCausalLM"], "model_type": "mistral", "head_dim": 12,
                 "sliding_window": 7, "_drop": ["attention_bias", "mlp_bias"]},
        "variants": {
            "window": {"_about": "sliding window on every layer, explicit head_dim",
                       "_llama": "llama.cpp has no window for mistral"},
            "full": {"_about": "sliding_window null, tied", "sliding_window": None, "tie_word_embeddings": True,
                     "_drop": ["head_dim"]},
        },
    },
    "qwen2": {
        "base": {**LLAMA, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_hidden_layers": 4,
                 "hidden_size": 24, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2,
                 "_drop": ["head_dim", "attention_bias", "mlp_bias"]},
        "variants": {
            "window": {"_about": "the last two of four layers have a window", "_llama": "llama.cpp has no window for qwen2"},
            "yarn": {"_about": "YaRN in the old spelling (type), no window", "use_sliding_window": False,
                     "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
                     "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}},
        },
    },
    "gemma": {
        "base": {"architectures": ["GemmaForCausalLM"], "model_type": "gemma", **SMALL, **IDS, "_embed": 0.25,
                 "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 12, "hidden_act": "gelu",
                 "hidden_activation": None, "max_position_embeddings": 512, "rms_norm_eps": 3e-3, "rope_theta": 10000.0},
        "variants": {
            "mqa": {"_about": "(1 + w) norms, embedding times sqrt(hidden), one kv head, tied without saying so"},
            "mha": {"_about": "all kv heads, hidden_activation", "num_key_value_heads": 4, "head_dim": 8,
                    "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"},
        },
    },
    "gemma2": {
        "base": {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", **SMALL, **HEADS, **IDS, "_embed": 0.25,
                 "hidden_size": 28, "intermediate_size": 31, "num_hidden_layers": 4, "head_dim": 8,
                 "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
                 "max_position_embeddings": 512, "rms_norm_eps": 3e-3, "rope_theta": 10000.0, "sliding_window": 7,
                 "query_pre_attn_scalar": 8, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 6.0},
        "variants": {
            "caps": {"_about": "alternating window, post norms, soft-caps on scores and logits"},
            "silent": {"_about": "caps and factor of the scores as the class has them, SiLU beside a hidden_act without effect, "
                       "biases", "num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1,
                       "hidden_act": "gelu", "hidden_activation": "silu", "attention_bias": True, "_gain": {"q_proj|k_proj": 6.0},
                       "_drop": ["query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping", "sliding_window"],
                       "_invisible": r"k_proj\.bias", "_gguf": "GGUF has no place for it"},
            "no-caps": {"_about": "no soft-caps, layer_types in another order, query_pre_attn_scalar other than head_dim",
                        "query_pre_attn_scalar": 5, "attn_logit_softcapping": None,
                        "final_logit_softcapping": None,
                        "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
                        "_llama": "llama.cpp has its own window pattern and always a cap"},
        },
    },
    "gemma3": {
        "base": GEMMA3,
        "variants": {
            "llama3": {"_about": "RoPE of llama3 on the global layers, the first is none", "num_hidden_layers": 2, "hidden_size": 16,
                       "num_attention_heads": 2, "num_key_value_heads": 1, "layer_types": ["sliding_attention", "full_attention"],
                       "rope_theta": 1000.0, "_drop": ["sliding_window_pattern"], "_gguf": "the converter writes no such factors for gemma3",
                       "rope_scaling": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                        "original_max_position_embeddings": 32}},
            "local-linear": {"_about": "wavelengths of layers with a window stretched too, newer spelling; biases; a cap that "
                             "transformers does not use", "num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "_seed": 3,
                             "num_key_value_heads": 1, "attention_bias": True, "attn_logit_softcapping": 2.0,
                             "layer_types": ["sliding_attention", "full_attention"],
                             "_drop": ["rope_theta", "rope_local_base_freq", "sliding_window_pattern"],
                             "rope_parameters": {
                                 "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0},
                                 "sliding_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}},
                             "_gguf": "GGUF has no place for it", "_invisible": r"k_proj\.bias"},
            "text": {"_about": "window on two of three layers with a RoPE base of their own, QK norm",
                     "_llama": "llama.cpp has the pattern of six layers built in"},
            "linear": {"_about": "linear RoPE scaling on the global layers only, final cap, four layers",
                       "num_hidden_layers": 4, "sliding_window_pattern": 2, "rope_theta": 1000.0,
                       "rope_scaling": {"rope_type": "linear", "factor": 4.0}, "final_logit_softcapping": 6.0,
                       "_llama": "llama.cpp has the pattern of six layers built in"},
            "nested": within(
                GEMMA3, {"num_hidden_layers": 3, "_seed": 2}, "Gemma3ForConditionalGeneration", "gemma3",
                {"^model": "language_model.model"},
                {"vision_tower.vision_model.encoder.layers.0.layer_norm1.weight": (16,),
                 "multi_modal_projector.mm_soft_emb_norm.weight": (16,),
                 "multi_modal_projector.mm_input_projection_weight": (16, 24)}),
            "pattern6": {"_about": "the pattern of published models: five windows, one global layer", "hidden_size": 16,
                         "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 7,
                         "sliding_window_pattern": 6, "query_pre_attn_scalar": 8, "rope_local_base_freq": 10000.0},
        },
    },
    "phi": {
        "base": {"architectures": ["PhiForCausalLM"], "model_type": "phi", **SMALL, **IDS, "hidden_size": 24,
                 "intermediate_size": 96, "num_attention_heads": 3, "num_key_value_heads": 3, "hidden_act": "gelu_new", "max_position_embeddings": 512,
                 "layer_norm_eps": 3e-3, "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "qk_layernorm": False,
                 "tie_word_embeddings": False},
        "variants": {
            "plain": {"_about": "parallel residual, LayerNorm, biases everywhere (head too), partial rotary 0.5"},
            "qk-norm": {"_about": "qk_layernorm, grouped kv heads, rotary part 0.4 of 10", "qk_layernorm": True,
                        "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 40, "intermediate_size": 43, "partial_rotary_factor": 0.4,
                        "_gguf": "GGUF has no place for the norms"},
        },
    },
    "phi3": {
        "base": {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", **SMALL, **HEADS, **IDS, "pad_token_id": 3,
                 "hidden_size": 48, "hidden_act": "silu", "max_position_embeddings": 256,
                 "original_max_position_embeddings": 256, "rms_norm_eps": 3e-3, "rope_theta": 700.0,
                 "rope_scaling": None, "sliding_window": 9, "attention_bias": False, "tie_word_embeddings": False},
        "variants": {
            "window": {"_about": "fused qkv and gate_up, sliding window", "_keep": True, "_llama": "llama.cpp ignores the window of phi3, which is in the file"},
            "longrope-long": {
                "_about": "LongRoPE past the original length; partial rotary 0.75 of 16; tied",
                "hidden_size": 64, "intermediate_size": 24, "partial_rotary_factor": 0.75, "sliding_window": 300,
                "original_max_position_embeddings": 16, "tie_word_embeddings": True,
                "rope_scaling": {"type": "longrope", "short_factor": SHORT_FACTORS[:6], "long_factor": LONG_FACTORS[:6]},
            },
            "longrope-short": {
                "_about": "LongRoPE within the original length", "original_max_position_embeddings": 64,
                "sliding_window": None,
                "rope_scaling": {"type": "longrope", "short_factor": SHORT_FACTORS[:6], "long_factor": LONG_FACTORS[:6]},
                "_keep": True,
                "_llama": "llama.cpp chooses the factors by the size of the context; both are in the file",
            },
        },
    },
    "gpt2": {
        "base": {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 67, "n_embd": 32, "n_layer": 2,
                 "n_head": 4, "n_ctx": 64, "n_positions": 64, "activation_function": "gelu_new",
                 "layer_norm_epsilon": 3e-3, "bos_token_id": 1, "eos_token_id": 1},
        "variants": {
            "plain": {"_about": "learned positions, fused qkv, weights stored [in, out]; transformer. before each name"},
            "original": {"_about": "names of the first checkpoints: no prefix, causal masks stored as attn.bias",
                         "_layout": "gpt2_original", "_seed": 1},
            "options": {"_about": "n_inner, scores divided by the layer number, relu, untied", "n_inner": 37,
                        "scale_attn_by_inverse_layer_idx": True, "activation_function": "relu",
                        "tie_word_embeddings": False, "_llama": "llama.cpp knows neither option"},
        },
    },
    "gpt_neox": {
        "base": {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", **SMALL, **IDS,
                 "num_attention_heads": 4, "hidden_act": "gelu", "max_position_embeddings": 512, "layer_norm_eps": 3e-3,
                 "rotary_pct": 0.5, "rotary_emb_base": 10000, "use_parallel_residual": True, "tie_word_embeddings": False},
        "variants": {
            "parallel": {"_about": "parallel residual, qkv fused head by head, rotary_pct, embed_out"},
            "odd": {"_about": "a quarter of heads of 12: four elements turn with wavelengths of three, whose share is left to the class",
                    "hidden_size": 24, "intermediate_size": 19, "num_attention_heads": 2, "_drop": ["rotary_pct"],
                    "_gguf": "GGUF has no place for it"},
            "serial": {"_about": "use_parallel_residual false, full rotary, no attention bias; causal masks and "
                       "frequencies stored, as in older checkpoints",
                       "_layout": "neox_buffers",
                       "_unexpected": r"attention\.(bias|masked_bias|rotary_emb)",
                       "use_parallel_residual": False, "rotary_pct": 1.0, "rotary_emb_base": 500,
                       "attention_bias": False, "_llama": "llama.cpp wants attention biases"},
        },
    },
    "starcoder2": {
        "base": {"architectures": ["Starcoder2ForCausalLM"], "model_type": "starcoder2", **SMALL, **HEADS, **IDS,
                 "hidden_act": "gelu_pytorch_tanh", "max_position_embeddings": 512, "norm_epsilon": 3e-3,
                 "norm_type": "layer_norm", "rope_theta": 700.0, "sliding_window": 7, "use_bias": True},
        "variants": {
            "window": {"_about": "LayerNorm, biases, plain MLP (c_fc, c_proj), window, tied without saying so",
                       "_llama": "llama.cpp has no window for starcoder2"},
            "full": {"_about": "no window", "sliding_window": None, "_seed": 1},
            "no-bias": {"_about": "use_bias false, no window, untied", "use_bias": False, "sliding_window": None,
                        "tie_word_embeddings": False, "_llama": "llama.cpp wants biases"},
        },
    },
    "falcon": {
        "base": {"architectures": ["FalconForCausalLM"], "model_type": "falcon", "vocab_size": 67, "hidden_size": 32,
                 "num_hidden_layers": 2, "num_attention_heads": 4, "layer_norm_epsilon": 3e-3, "alibi": False,
                 "bias": False, "multi_query": True, "new_decoder_architecture": False, "parallel_attn": True, **IDS},
        "variants": {
            "multi-query": {"_about": "7b style: one kv head, one norm for attention and MLP in parallel"},
            "new-decoder": {"_about": "40b style: grouped fused qkv, ln_attn and ln_mlp", "num_kv_heads": 2,
                            "new_decoder_architecture": True, "hidden_size": 24},
            "one-norm": {"_about": "11b style: new decoder with one norm, ffn_hidden_size, bias, untied",
                         "num_kv_heads": 2, "new_decoder_architecture": True, "num_ln_in_parallel_attn": 1,
                         "ffn_hidden_size": 49, "bias": True, "tie_word_embeddings": False,
                         "_llama": "llama.cpp has no biases for falcon"},
            "serial": {"_about": "serial residual with RoPE", "parallel_attn": False, "hidden_size": 16,
                       "_gguf": "llama.cpp knows the parallel ones"},
            "quick-gelu": {"_about": "another activation", "activation": "quick_gelu", "hidden_size": 16, "_gguf": "GGUF has no place for it"},
            # transformers adds the biases twice in eager attention: to the scores and in the mask.
            "alibi": {"_about": "falcon-rw style: ALiBi (6 heads), biases, serial residual, all heads have their kv",
                      "_attention": "sdpa", "alibi": True, "bias": True, "multi_query": False, "parallel_attn": False, "hidden_size": 24,
                      "num_attention_heads": 6, "_gguf": "llama.cpp knows falcon only with RoPE"},
        },
    },
    "olmo2": {
        "base": {**LLAMA, "architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2", "rope_theta": 500000.0,
                 "_drop": ["head_dim", "mlp_bias"]},
        "variants": {
            "gqa": {"_about": "norms after attention and MLP only, QK norm over all heads at once, grouped kv"},
            "mha": {"_about": "every head its kv, tied", "num_key_value_heads": 4, "tie_word_embeddings": True, "_keep": True,
                    "_llama": "llama.cpp wants an output tensor"},
        },
    },
    "granite": {
        "base": {**LLAMA, "architectures": ["GraniteForCausalLM"], "model_type": "granite", "_embed": 0.3,
                 "embedding_multiplier": 4.0, "logits_scaling": 3.0, "residual_multiplier": 0.7,
                 "attention_multiplier": 0.21, "tie_word_embeddings": True, "_drop": ["head_dim"]},
        "variants": {
            "tied": {"_about": "multipliers on embedding, residual, scores and logits; tied"},
            "bias": {"_about": "attention and MLP biases, untied", "attention_bias": True, "mlp_bias": True,
                     "tie_word_embeddings": False},
        },
    },
    "cohere": {
        "base": {"architectures": ["CohereForCausalLM"], "model_type": "cohere", **SMALL, **HEADS, "bos_token_id": 5,
                 "eos_token_id": 6, "pad_token_id": 0, "hidden_act": "silu", "max_position_embeddings": 512,
                 "layer_norm_eps": 3e-3, "logit_scale": 0.1, "rope_theta": 700.0, "use_qk_norm": False,
                 "attention_bias": False},
        "variants": {
            "plain": {"_about": "LayerNorm without bias, parallel residual, interleaved RoPE, logit_scale, tied"},
            "silent": {"_about": "logit_scale and rope_theta as the class has them", "hidden_size": 16, "_drop": ["rope_theta", "logit_scale"],
                       "_gguf": "it is as plain"},
            "qk-norm": {"_about": "QK norm with weights for each head, attention biases", "use_qk_norm": True,
                        "attention_bias": True, "logit_scale": 0.8, "_gguf": "llama.cpp has no biases for it"},
            "plus": {"_about": "QK norm with weights for each head, as in command-r-plus", "use_qk_norm": True,
                     "logit_scale": 0.8, "_keep": True, "_llama": "llama.cpp has QK norms only for 64 layers and more"},
        },
    },
    "cohere2": {
        "base": {"architectures": ["Cohere2ForCausalLM"], "model_type": "cohere2", **SMALL, **HEADS, "bos_token_id": 5,
                 "eos_token_id": 6, "pad_token_id": 0, "hidden_act": "silu", "max_position_embeddings": 512,
                 "layer_norm_eps": 3e-3, "logit_scale": 0.25, "rope_theta": 50000.0, "sliding_window": 7,
                 "sliding_window_pattern": 4, "rotary_pct": 1.0, "hidden_size": 24, "intermediate_size": 29, "num_hidden_layers": 5},
        "variants": {
            "pattern": {"_about": "three windowed layers with RoPE, then a global one without"},
            "types": {"_about": "layer_types in place of the pattern, biases", "attention_bias": True, "num_hidden_layers": 3,
                      "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
                      "_drop": ["sliding_window_pattern"], "_invisible": r"layers\.1\.self_attn\.k_proj\.bias",
                      "_llama": "llama.cpp has the pattern of four built in"},
        },
    },
    "glm4": {
        "base": {"architectures": ["Glm4ForCausalLM"], "model_type": "glm4", "pad_token_id": 0, **SMALL, **HEADS, **IDS, "head_dim": 12,
                 "hidden_act": "silu", "max_position_embeddings": 512, "rms_norm_eps": 3e-3, "rope_theta": 700.0,
                 "partial_rotary_factor": 0.5, "attention_bias": True, "tie_word_embeddings": False},
        "variants": {
            "bias": {"_about": "norms before and after, fused gate_up, half of the head rotated, interleaved; qkv biases"},
            "no-bias": {"_about": "no biases, rotary part 4 of 10", "attention_bias": False, "head_dim": 10,
                        "partial_rotary_factor": 0.4},
        },
    },
    "exaone4": {
        "base": {**LLAMA, "architectures": ["Exaone4ForCausalLM"], "model_type": "exaone4", "head_dim": 8,
                 "hidden_size": 32, "intermediate_size": 23, "num_hidden_layers": 4, "sliding_window": 7,
                 "sliding_window_pattern": "LLLG",
                 "layer_types": ["sliding_attention"] * 3 + ["full_attention"], "_drop": ["attention_bias", "mlp_bias"]},
        "variants": {
            "hybrid": {"_about": "32b style: window with RoPE on three layers of four, the fourth global without RoPE; "
                       "QK norm, norms after", "_keep": True,
                       "_llama": "llama.cpp takes the window only from models of 64 layers; it is in the file",
                       "rope_scaling": {
                           "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                           "original_max_position_embeddings": 64}},
            "no-rope": {"_about": "a window that no layer has: none turns", "num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2,
                        "num_key_value_heads": 1, "layer_types": ["full_attention"] * 2, "_gguf": "GGUF has no place for it"},
            "global": {"_about": "1.2b style: no window, RoPE everywhere, tied", "sliding_window": None,
                       "sliding_window_pattern": None, "num_hidden_layers": 2, "layer_types": ["full_attention"] * 2, "tie_word_embeddings": True},
            "head-dim": {"_about": "heads of another size than hidden / heads", "sliding_window": None, "head_dim": 12,
                         "sliding_window_pattern": None, "num_hidden_layers": 2, "layer_types": ["full_attention"] * 2,
                         "_keep": True, "_llama": "llama.cpp wants hidden = heads * head size"},
        },
    },
}
