"""Decoders with recurrent layers, alone or between layers of attention."""

from . import within
from .dense import HEADS, IDS, SMALL

MAMBA2 = {
    "architectures": ["Mamba2ForCausalLM"], "model_type": "mamba2", "vocab_size": 67, "hidden_size": 24, "state_size": 8,
    "num_hidden_layers": 2, "num_heads": 6, "head_dim": 8, "expand": 2, "n_groups": 2, "conv_kernel": 4, "chunk_size": 8,
    "use_bias": False, "use_conv_bias": True, "hidden_act": "silu", "layer_norm_epsilon": 3e-3, "norm_before_gate": False,
    "rms_norm": True, "residual_in_fp32": True, "time_step_limit": [0.0, 1e9], "time_step_rank": "auto", **IDS,
    "pad_token_id": 1, "tie_word_embeddings": False,
}
HYBRID = {
    **SMALL, **HEADS, **IDS, "pad_token_id": 0, "hidden_size": 24, "intermediate_size": 19, "num_hidden_layers": 4,
    "hidden_act": "silu", "max_position_embeddings": 512, "rms_norm_eps": 3e-3, "tie_word_embeddings": False,
}
MAMBA_IN_HYBRID = {
    "mamba_d_conv": 4, "mamba_d_state": 8, "mamba_expand": 2, "mamba_n_heads": 6, "mamba_d_head": 8, "mamba_n_groups": 2,
    "mamba_chunk_size": 8, "mamba_conv_bias": True, "mamba_proj_bias": False,
}
QWEN3_LINEAR = {
    **HYBRID, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-6, "partial_rotary_factor": 0.25, "rope_theta": 700.0,
    "attention_bias": False, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "full_attention_interval": 2,
}
NEMOTRON = {
    "architectures": ["NemotronHForCausalLM"], "model_type": "nemotron_h", **SMALL, **HEADS, **IDS, "pad_token_id": 0,
    "hidden_size": 24, "intermediate_size": 31, "num_hidden_layers": 6, "hybrid_override_pattern": "M-M*-M", "head_dim": 8,
    "attention_bias": False, "mlp_bias": False, "use_bias": False, "mlp_hidden_act": "relu2", "mamba_hidden_act": "silu",
    "mamba_num_heads": 6, "mamba_head_dim": 8, "mamba_proj_bias": False, "n_groups": 2, "ssm_state_size": 8,
    "conv_kernel": 4, "chunk_size": 8, "expand": 2, "use_conv_bias": True, "layer_norm_epsilon": 3e-3,
    "rms_norm_eps": 3e-3, "max_position_embeddings": 512, "time_step_limit": [0.0, 1e9], "residual_in_fp32": False,
    "tie_word_embeddings": False, "_convert": {"raw": True, "extra": {"mamba_d_head": 8}},
}
QWEN3_5 = {
    **QWEN3_LINEAR, "architectures": ["Qwen3_5ForCausalLM"], "model_type": "qwen3_5_text",
    "rope_parameters": {"rope_type": "default", "rope_theta": 700.0, "partial_rotary_factor": 0.25,
                        "mrope_section": [1, 1, 0], "mrope_interleaved": True},
    "_drop": ["rope_theta", "partial_rotary_factor"],
}
QWEN3_5_MOE = {
    "hidden_size": 20, "architectures": ["Qwen3_5MoeForCausalLM"], "model_type": "qwen3_5_moe_text", "num_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 7, "shared_expert_intermediate_size": 9,
}
GEMMA3N = {
    "architectures": ["Gemma3nForCausalLM"], "model_type": "gemma3n_text", **SMALL, **HEADS, **IDS,
    "pad_token_id": 0, "_embed": 0.25, "hidden_size": 16, "intermediate_size": 19, "num_hidden_layers": 6,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
    "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "sliding_window": 7,
    "layer_types": ["sliding_attention", "full_attention"] * 3, "final_logit_softcapping": 6.0,
    "vocab_size_per_layer_input": 61, "hidden_size_per_layer_input": 5, "altup_active_idx": 0,
    "altup_coef_clip": 120.0, "altup_correct_scale": True, "altup_num_inputs": 4,
    "num_kv_shared_layers": 2, "laurel_rank": 4,
    "activation_sparsity_pattern": [0.9, 0.8, 0.0, 0.0, 0.0, 0.0],
}

FAMILIES = {
    "mamba2": {
        "base": MAMBA2,
        "variants": {
            "groups": {"_about": "SSD with two groups, gated norm over each group, chunk 8"},
            "biases": {"_about": "projection biases, no conv bias, limits on dt, one group, tied, conv kernel 3",
                       "use_bias": True, "use_conv_bias": False, "time_step_limit": [0.05, 0.9], "n_groups": 1,
                       "conv_kernel": 3, "tie_word_embeddings": True, "_gguf": "GGUF has no place for biases and limits"},
        },
    },
    "falcon_mamba": {
        "base": {"architectures": ["FalconMambaForCausalLM"], "model_type": "falcon_mamba", "vocab_size": 67,
                 "hidden_size": 24, "state_size": 8, "num_hidden_layers": 2, "expand": 2, "intermediate_size": 48,
                 "conv_kernel": 4, "use_bias": False, "use_conv_bias": True, "hidden_act": "silu",
                 "layer_norm_epsilon": 1e-5, "mixer_rms_eps": 1e-5, "time_step_rank": "auto", "residual_in_fp32": True,
                 **IDS, "pad_token_id": 0, "tie_word_embeddings": False},
        "variants": {
            "plain": {"_about": "Mamba-1 with norms without weights on B, C and dt"},
            "width": {"_about": "intermediate_size that is not expand times the width, as published; eps of the class",
                      "expand": 8, "intermediate_size": 24, "hidden_size": 16, "_seed": 1,
                      "_drop": ["mixer_rms_eps", "layer_norm_epsilon", "tie_word_embeddings"]},
            "tied": {"_about": "tied, explicit rank, mixer_rms_eps of its own", "tie_word_embeddings": True,
                     "time_step_rank": 5, "mixer_rms_eps": 1e-2, "layer_norm_epsilon": 1e-4, "conv_kernel": 3,
                     "_gguf": "llama.cpp has one epsilon for all norms"},
        },
    },
    "jamba": {
        "base": {**HYBRID, "architectures": ["JambaForCausalLM"], "model_type": "jamba", "attn_layer_period": 4,
                 "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1, "num_experts": 4,
                 "num_experts_per_tok": 2, "mamba_d_conv": 4, "mamba_d_state": 8, "mamba_expand": 2, "mamba_dt_rank": 3,
                 "mamba_conv_bias": True, "mamba_proj_bias": False, "intermediate_size": 11, "_drop": []},
        "variants": {
            "moe": {"_about": "attention without RoPE in one layer of four, Mamba-1 with norms on dt, B, C, experts in every "
                    "other layer, weights of the chosen not normalised"},
            "dense": {"_about": "no experts, attention in half of the layers, tied, mamba_proj_bias", "num_experts": 1,
                      "num_experts_per_tok": 1, "attn_layer_period": 2, "tie_word_embeddings": True,
                      "mamba_proj_bias": True, "_seed": 1, "_gguf": "GGUF has no place for the biases"},
        },
    },
    "bamba": {
        "base": {**HYBRID, **MAMBA_IN_HYBRID, "architectures": ["BambaForCausalLM"], "model_type": "bamba",
                 "attn_layer_indices": [1, 3], "attn_rotary_emb": 4, "num_attention_heads": 3, "num_key_value_heads": 1,
                 "rope_theta": 700.0, "attention_bias": False, "mlp_bias": False, "_convert": {"raw": True}},
        "variants": {
            "plain": {"_about": "Mamba-2 in layers 0 and 2, attention with half of the head rotated in 1 and 3",
                      "_gguf": "the converter permutes whole heads for RoPE though half of each is rotated"},
            "biases": {"_about": "every bias, one group, tied, dt limits", "attention_bias": True, "mlp_bias": True,
                       "mamba_proj_bias": True, "mamba_n_groups": 1, "tie_word_embeddings": True,
                       "time_step_limit": [0.05, 0.9], "_gguf": "GGUF has no place for the biases"},
        },
    },
    "zamba2": {
        "base": {**SMALL, **IDS, "pad_token_id": 0, "architectures": ["Zamba2ForCausalLM"], "model_type": "zamba2",
                 "hidden_size": 16, "intermediate_size": 13, "num_hidden_layers": 6, "num_attention_heads": 2,
                 "num_key_value_heads": 2, "hidden_act": "gelu", "max_position_embeddings": 512, "rms_norm_eps": 3e-3,
                 "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid", "mamba", "hybrid"],
                 "hybrid_layer_ids": [1, 3, 5], "num_mem_blocks": 2, "mamba_d_state": 8, "mamba_d_conv": 4,
                 "mamba_expand": 2, "mamba_ngroups": 2, "n_mamba_heads": 4, "mamba_headdim": 8, "chunk_size": 8,
                 "add_bias_linear": False, "use_conv_bias": True, "use_shared_attention_adapter": True, "adapter_rank": 3,
                 "use_mem_rope": True, "rope_theta": 700.0, "use_long_context": False, "tie_word_embeddings": True, "_gain": {".": 0.6},
                 "_gguf": "the converter does not know zamba2"},
        "variants": {
            "plain": {"_about": "two shared blocks of attention and MLP used in turn, with LoRA adapters of each place, on "
                      "the stream beside the embedding; RoPE"},
            "no-rope": {"_about": "one shared block, no attention adapters, no RoPE, biases", "num_mem_blocks": 1,
                        "use_shared_attention_adapter": False, "use_mem_rope": False, "add_bias_linear": True,
                        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "hybrid_layer_ids": [1, 3],
                        "num_hidden_layers": 4},
        },
    },
    "nemotron_h": {
        "base": NEMOTRON,
        "variants": {
            "dense": {"_about": "one block a layer by pattern M-M*-M: Mamba-2, squared ReLU MLP, attention without RoPE"},
            "moe": {"_about": "pattern ME*EM: squared ReLU experts, sigmoid routing with correction bias, shared expert",
                    "hybrid_override_pattern": "ME*EM", "num_hidden_layers": 5, "n_routed_experts": 5,
                    "num_experts_per_tok": 2, "moe_intermediate_size": 9, "moe_shared_expert_intermediate_size": 13,
                    "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "norm_topk_prob": True,
                    "routed_scaling_factor": 2.5},
            "saved": {"_about": "as save_pretrained writes it: names of layers and no number of them, infinite limits; a least "
                      "step that matters, biases of MLPs, shared experts and latent projections, GELU after the convolution",
                      "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"], "n_routed_experts": 4,
                      "num_experts_per_tok": 2, "moe_intermediate_size": 7, "moe_shared_expert_intermediate_size": 9, "n_shared_experts": 1,
                      "moe_latent_size": 10, "n_group": 1, "topk_group": 1, "norm_topk_prob": True, "hidden_size": 16,
                      "intermediate_size": 11, "time_step_limit": [0.0, {"__float__": "Infinity"}], "time_step_min": 0.2,
                      "mlp_bias": True, "use_bias": True, "mamba_hidden_act": "gelu", "_seed": 2,
                      "_drop": ["hybrid_override_pattern", "num_hidden_layers", "rms_norm_eps"],
                      "_gguf": "GGUF has no place for the biases"},
            "latent": {"_about": "experts in a smaller space (moe_latent_size), two of four groups", "num_hidden_layers": 4,
                       "hybrid_override_pattern": "ME*E", "n_routed_experts": 8, "num_experts_per_tok": 3,
                       "moe_intermediate_size": 9, "moe_shared_expert_intermediate_size": 13, "n_shared_experts": 1,
                       "moe_latent_size": 10, "n_group": 4, "topk_group": 2, "norm_topk_prob": True,
                       "routed_scaling_factor": 1.5},
        },
    },
    "falcon_h1": {
        "base": {**HYBRID, **MAMBA_IN_HYBRID, "architectures": ["FalconH1ForCausalLM"], "model_type": "falcon_h1",
                 "num_hidden_layers": 2, "head_dim": 10, "mamba_d_ssm": 48, "mamba_norm_before_gate": False,
                 "mamba_rms_norm": True, "mamba_use_mlp": True, "attn_layer_indices": None, "rope_theta": 700.0,
                 "attention_bias": False, "mlp_bias": False, "projectors_bias": False, "embedding_multiplier": 3.0,
                 "lm_head_multiplier": 0.3, "mlp_multipliers": [0.8, 0.6], "key_multiplier": 0.7,
                 "attention_in_multiplier": 0.9, "attention_out_multiplier": 0.8, "ssm_in_multiplier": 1.2,
                 "ssm_out_multiplier": 0.7, "ssm_multipliers": [0.9, 0.8, 0.7, 1.1, 1.2], "_embed": 0.4},
        "variants": {
            "norm": {"_about": "attention and Mamba-2 side by side in every layer, multipliers everywhere, gated norm"},
            "silent": {"_about": "fields with the values of the class left out: norm before the gate or none, heads that "
                       "share d_ssm", "mamba_d_ssm": 40, "mamba_n_heads": 4, "mamba_d_state": 6, "mamba_rms_norm": True,
                       "hidden_size": 16, "intermediate_size": 11, "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 6, "_seed": 4,
                       "_drop": ["mamba_norm_before_gate", "mamba_d_head", "mamba_n_groups", "mamba_d_conv", "mamba_conv_bias",
                                 "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings", "rope_theta",
                                 "embedding_multiplier", "attn_layer_indices"],
                       "_gguf": "GGUF has no place for a gate after the norm"},
            "no-norm": {"_about": "gate without norm, d_ssm other than expand times hidden, tied", "mamba_rms_norm": False,
                        "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_n_groups": 1},
            "norm-first": {"_about": "mamba_norm_before_gate, biases, tied", "mamba_norm_before_gate": True,
                           "tie_word_embeddings": True,
                           "attention_bias": True, "mlp_bias": True, "projectors_bias": True, "mamba_proj_bias": True,
                           "_gguf": "GGUF has no place for the biases"},
        },
    },
    "lfm2": {
        "base": {**HYBRID, "architectures": ["Lfm2ForCausalLM"], "model_type": "lfm2", "norm_eps": 3e-3,
                 "conv_L_cache": 3, "conv_bias": False, "full_attn_idxs": [1, 3], "rope_theta": 700.0,
                 "block_dim": 24, "block_ff_dim": 37, "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": False,
                 "block_multiple_of": 8, "tie_embedding": True,
                 "_drop": ["rms_norm_eps", "intermediate_size", "tie_word_embeddings", "hidden_act"]},
        "variants": {
            "plain": {"_about": "gated short convolutions and attention with QK norm in turn; tied"},
            "adjusted": {"_about": "block_auto_adjust_ff_dim, conv biases, kernel 4, layer_types, untied",
                         "block_auto_adjust_ff_dim": True, "block_ff_dim": 31, "block_ffn_dim_multiplier": 1.3,
                         "conv_bias": True, "conv_L_cache": 4, "tie_embedding": False, "_drop": ["full_attn_idxs"],
                         "layer_types": ["conv", "full_attention", "full_attention", "conv"],
                         "_gguf": "GGUF has no place for the biases"},
            "moe": {"_about": "lfm2_moe: sigmoid experts with bias after two dense layers", "model_type": "lfm2_moe",
                    "architectures": ["Lfm2MoeForCausalLM"], "intermediate_size": 29, "moe_intermediate_size": 9,
                    "num_dense_layers": 2, "num_experts": 6, "num_experts_per_tok": 2, "norm_topk_prob": True,
                    "use_expert_bias": True, "routed_scaling_factor": 1.0, "tie_word_embeddings": True,
                    "layer_types": ["conv", "full_attention", "conv", "full_attention"],
                    "_drop": ["full_attn_idxs", "block_dim", "block_ff_dim", "block_ffn_dim_multiplier", "tie_embedding",
                              "block_auto_adjust_ff_dim", "block_multiple_of"]},
        },
    },
    "qwen3_next": {
        "base": {**QWEN3_LINEAR, "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "num_experts": 4,
                 "num_experts_per_tok": 2, "moe_intermediate_size": 7, "shared_expert_intermediate_size": 9,
                 "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [], "hidden_size": 16},
        "variants": {
            "plain": {"_about": "gated delta rule in every other layer, gated attention, (1 + w) norms, experts with a gated "
                      "shared one"},
            "dense": {"_about": "dense layers among the experts, tied, key heads of 6 and value heads of 12, layer_types, larger epsilon",
                      "linear_key_head_dim": 6, "rms_norm_eps": 3e-3,
                      "mlp_only_layers": [1], "norm_topk_prob": False, "tie_word_embeddings": True,
                      "linear_num_value_heads": 2, "linear_value_head_dim": 12, "intermediate_size": 19,
                      "_drop": ["full_attention_interval"],
                      "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
                      "_seed": 4, "_gguf": "llama.cpp has experts in every layer"},
        },
    },
    "qwen3_5": {
        "base": QWEN3_5,
        "variants": {
            "text": {"_about": "gated delta rule with separate projections, dense MLP"},
            "tied": {"_seed": 9, "_noise": 5e-5, "rms_norm_eps": 3e-3, "_about": "as many key as value heads, tied, four to one", "tie_word_embeddings": True,
                     "linear_num_key_heads": 4, "full_attention_interval": 4, "num_hidden_layers": 5, "hidden_size": 20,
                     "head_dim": 8, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0,
                                                        "partial_rotary_factor": 0.5},
                     "_gguf": "llama.cpp has one epsilon for all norms"},
            "nested": within(
                QWEN3_5, {"num_hidden_layers": 2, "_seed": 2}, "Qwen3_5ForConditionalGeneration", "qwen3_5",
                {"^model": "model.language_model"},
                {"model.visual.blocks.0.norm1.weight": (16,), "mtp.fc.weight": (24, 48), "mtp.norm.weight": (24,),
                 "mtp.layers.0.input_layernorm.weight": (24,)}),
            "moe-nested": within(
                QWEN3_5, {**QWEN3_5_MOE, "num_hidden_layers": 2, "_seed": 3, "_layout": "native"},
                "Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe", {"^model": "model.language_model"},
                {"model.visual.blocks.0.norm1.weight": (16,), "mtp.fc.weight": (20, 40)}),
            "moe": {"_about": "qwen3_5_moe_text: experts one by one in the file, gated shared expert", "_seed": 1,
                    **QWEN3_5_MOE},
        },
    },
    "kimi_linear": {
        "base": {"architectures": ["KimiLinearForCausalLM"], "model_type": "kimi_linear", **SMALL, **IDS,
                 "pad_token_id": 0, "hidden_size": 20, "intermediate_size": 19, "num_hidden_layers": 4,
                 "num_attention_heads": 3, "num_key_value_heads": 3, "hidden_act": "silu", "rms_norm_eps": 1e-6,
                 "model_max_length": 512, "tie_word_embeddings": False, "first_k_dense_replace": 1, "moe_layer_freq": 1,
                 "kv_lora_rank": 10, "q_lora_rank": None, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 7,
                 "mla_use_nope": True, "num_experts": 5, "num_experts_per_token": 2, "num_shared_experts": 1,
                 "moe_intermediate_size": 9, "moe_renormalize": True, "moe_router_activation_func": "sigmoid",
                 "num_expert_group": 1, "topk_group": 1, "use_grouped_topk": True, "routed_scaling_factor": 2.446,
                 "rope_theta": 10000.0, "rope_scaling": None,
                 "linear_attn_config": {"full_attn_layers": [2, 4], "kda_layers": [1, 3], "head_dim": 8, "num_heads": 3,
                                        "short_conv_kernel_size": 4}, "_layout": "kimi_linear"},
        "variants": {
            "saved": {"_about": "as save_pretrained writes it: layer_types, mlp_layer_types, linear_*, dense layers below "
                      "block_sparse_moe, and a head beside a tied embedding", "hidden_size": 16, "num_hidden_layers": 3, "_layout": None, "_seed": 1,
                      "layer_types": ["full_attention", "linear_attention", "linear_attention"],
                      "mlp_layer_types": ["dense", "sparse", "dense"], "linear_head_dim": 6, "linear_num_heads": 3,
                      "linear_conv_kernel_dim": 3, "tie_word_embeddings": True, "intermediate_size": 11,
                      "_drop": ["linear_attn_config", "rms_norm_eps", "first_k_dense_replace"],
                      "_gguf": "the converter knows the published keys only"},
            "plain": {"_about": "Kimi delta attention (decay for each channel) and MLA without RoPE in turn, experts as "
                      "deepseek_v3"},
        },
    },
    "granitemoehybrid": {
        "base": {**HYBRID, **MAMBA_IN_HYBRID, "architectures": ["GraniteMoeHybridForCausalLM"],
                 "model_type": "granitemoehybrid", "_embed": 0.3, "embedding_multiplier": 4.0, "logits_scaling": 3.0,
                 "residual_multiplier": 0.7, "attention_multiplier": 0.21, "position_embedding_type": "nope",
                 "rope_theta": 700.0, "attention_bias": False, "num_local_experts": 4, "num_experts_per_tok": 2,
                 "intermediate_size": 9, "shared_intermediate_size": 13, "tie_word_embeddings": True,
                 "normalization_function": "rmsnorm", "layer_types": ["mamba", "attention", "mamba", "attention"], "_convert": {"raw": True}},
        "variants": {
            "moe": {"_about": "granite 4: Mamba-2 and attention without positions, experts with a shared MLP, multipliers"},
            "dense": {"_about": "no experts (num_local_experts 0), untied, one group", "num_local_experts": 0,
                      "num_experts_per_tok": 0, "position_embedding_type": "nope", "tie_word_embeddings": False,
                      "mamba_n_groups": 1, "intermediate_size": 13},
            "rope": {"_about": "attention with RoPE (position_embedding_type rope), conv without bias, projections with",
                     "position_embedding_type": "rope", "mamba_conv_bias": False, "mamba_proj_bias": True, "_seed": 1,
                     "_gguf": "llama.cpp knows this family without RoPE only"},
            "no-mamba": {"_about": "attention everywhere, with RoPE and a dense shared MLP", "num_local_experts": 0,
                         "num_experts_per_tok": 0, "position_embedding_type": "rope", "intermediate_size": 13,
                         "layer_types": ["attention"] * 2, "num_hidden_layers": 2},
        },
    },
    "xlstm": {
        "base": {"architectures": ["xLSTMForCausalLM"], "model_type": "xlstm", "vocab_size": 67, "embedding_dim": 24,
                 "num_heads": 3, "num_blocks": 2, "use_bias": False, "norm_reduction_force_float32": True,
                 "tie_word_embeddings": False, "add_out_norm": True, "norm_eps": 1e-3, "qk_dim_factor": 0.5,
                 "v_dim_factor": 1.0, "chunkwise_kernel": "chunkwise--native_autograd",
                 "sequence_kernel": "native_sequence__native", "step_kernel": "native", "mode": "inference",
                 "chunk_size": 16, "return_last_states": True, "autocast_kernel_dtype": "float32", "eps": 1e-6,
                 "inference_state_dtype": "float32", "ffn_proj_factor": 1.5, "ffn_round_up_to_multiple_of": 4,
                 "gate_soft_cap": 4.0, "output_logit_soft_cap": 7.0, "weight_mode": "single", "hidden_size": 24,
                 "num_hidden_layers": 2, **IDS, "_gguf": "the converter does not know xlstm", "_drop": []},
        "variants": {
            "plain": {"_about": "mLSTM with soft-capped gates, multi-head norm, output gate, soft-capped logits"},
            "bias": {"_about": "biases, qk as wide as v, two heads, chunk longer than the text", "use_bias": True,
                     "qk_dim_factor": 1.0, "num_heads": 2, "chunk_size": 64, "_seed": 1},
            "fused": {"_about": "weight_mode fused, biases", "use_bias": True, "_snap": "xlstm_fused", "_seed": 3,
                      "_config": {"weight_mode": "fused"}},
        },
    },
    "gemma3n": {
        "base": GEMMA3N,
        "variants": {
            "nested": within(
                GEMMA3N, {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2, "_seed": 1,
                          "activation_sparsity_pattern": [0.9, 0.0, 0.0, 0.0]}, "Gemma3nForConditionalGeneration", "gemma3n",
                {"^model": "model.language_model"},
                {"model.vision_tower.timm_model.conv_stem.bn.weight": (16,), "model.embed_vision.embedding.weight": (5, 16),
                 "model.audio_tower.conformer.0.norm.weight": (16,)}),
            "text": {"_about": "AltUp with three streams, LAuReL, per-layer embeddings, sparse activations, the last two "
                     "layers share kv, window on every other layer", "_seed": 1, "_keep": True,
                     "_llama": "llama.cpp has many sizes of the published models built in"},
        },
    },
}
