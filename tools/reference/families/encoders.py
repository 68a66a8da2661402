"""Encoders: hidden states, sentence embeddings and scores of classifiers."""

SMALL = {
    "vocab_size": 67, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 37,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 64,
    "type_vocab_size": 2, "layer_norm_eps": 1e-3, "position_embedding_type": "absolute",
}
BERT = {**SMALL, "architectures": ["BertModel"], "model_type": "bert", "pad_token_id": 0, "_auto": "base",
        "_invisible": r"pooler|key\.bias"}
ROBERTA = {**SMALL, "architectures": ["RobertaModel"], "model_type": "roberta", "pad_token_id": 1, "bos_token_id": 0,
           "eos_token_id": 2, "type_vocab_size": 1, "_auto": "base", "_invisible": r"pooler|key\.bias"}
LABELS = {"id2label": {"0": "bad", "1": "fair", "2": "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}
MODERN = {
    "architectures": ["ModernBertModel"], "model_type": "modernbert", "vocab_size": 67, "hidden_size": 24,
    "intermediate_size": 19, "num_hidden_layers": 4, "num_attention_heads": 3, "hidden_activation": "gelu",
    "max_position_embeddings": 512, "norm_eps": 1e-3, "layer_norm_eps": 1e-3, "norm_bias": False, "pad_token_id": 3, "bos_token_id": 1,
    "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2, "global_rope_theta": 5000.0, "local_rope_theta": 300.0,
    "attention_bias": False, "mlp_bias": False, "global_attn_every_n_layers": 3, "local_attention": 14,
    "classifier_pooling": "mean", "classifier_activation": "gelu", "classifier_bias": False, "decoder_bias": True,
    "position_embedding_type": "absolute", "_auto": "base", "_attention": "sdpa",
}
NOMIC_KEYS = {
    "architectures": ["NomicBertModel"], "model_type": "nomic_bert", "vocab_size": 67, "n_embd": 24, "n_head": 3,
    "n_layer": 2, "n_inner": 37, "n_positions": 8192, "activation_function": "swiglu", "layer_norm_epsilon": 1e-3,
    "rotary_emb_base": 300, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None, "prenorm": False, "parallel_block": False, "qkv_proj_bias": False,
    "mlp_fc1_bias": False, "mlp_fc2_bias": False, "causal": False, "use_rms_norm": False, "type_vocab_size": 2,
    "pad_vocab_size_multiple": 1, "max_trained_positions": 2048, "scale_attn_weights": True,
}

FAMILIES = {
    "bert": {
        "base": BERT,
        "variants": {
            "plain": {"_about": "sentence encoder: names without prefix, position_ids stored, mean pooling declared",
                      "_layout": "bert_position_ids", "_pooling": "mean"},
            "masked": {"_about": "BertForMaskedLM checkpoint of 2018: prefix bert., gamma and beta, prediction head",
                       "architectures": ["BertForMaskedLM"], "_auto": "MaskedLM", "_seed": 1, "_embed": 0.4, "_layout": "bert_gamma_beta",
                       "_gguf": "GGUF has no prediction head"},
            "untied": {"_about": "BertForMaskedLM with a decoder of its own, whose bias is its own too", "tie_word_embeddings": False,
                       "architectures": ["BertForMaskedLM"], "_auto": "MaskedLM", "hidden_size": 12, "intermediate_size": 19,
                       "_invisible": r"key\.bias|predictions\.bias", "_gguf": "GGUF has no prediction head"},
            "scores": {"_about": "classifier of three labels on the pooled first token", "_auto": "SequenceClassification",
                       "architectures": ["BertForSequenceClassification"], **LABELS, "_seed": 2, "_invisible": r"key\.bias",
                       "_llama": "the converter drops the pooler"},
        },
    },
    "roberta": {
        "base": ROBERTA,
        "variants": {
            "plain": {"_about": "positions start after the padding id, cls pooling declared", "_pooling": "cls"},
            "scores": {"_about": "reranker: one label, head of two layers on the first token",
                       "_auto": "SequenceClassification", "architectures": ["RobertaForSequenceClassification"],
                       "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "_seed": 3,
                       "_gain": {"classifier.out_proj": 5.0, "classifier.dense": 0.6}},
            "xlm": {"_about": "the same as xlm-roberta", "model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"],
                    "_pooling": "cls", "_seed": 2},
            "masked": {"_about": "RobertaForMaskedLM with its head (lm_head.dense, layer_norm, bias), tied",
                       "architectures": ["RobertaForMaskedLM"], "_auto": "MaskedLM", "_seed": 3,
                       "_gguf": "GGUF has no prediction head"},
        },
    },
    "modernbert": {
        "base": MODERN,
        "variants": {
            "plain": {"_about": "gated MLP, window of 7 to each side except in every third layer, two RoPE bases, first layer "
                      "without attention norm, mean pooling declared", "_pooling": "mean"},
            "masked": {"_about": "ModernBertForMaskedLM: prediction head, decoder bias, tied; biases everywhere",
                       "architectures": ["ModernBertForMaskedLM"], "_auto": "MaskedLM", "norm_bias": True,
                       "attention_bias": True, "mlp_bias": True, "_seed": 1, "_gguf": "GGUF has no place for the biases"},
            "scores": {"_about": "classifier of three labels over the mean", **LABELS, "_auto": "SequenceClassification",
                       "architectures": ["ModernBertForSequenceClassification"], "_seed": 2},
        },
    },
    "nomic_bert": {
        "base": {**SMALL, "architectures": ["NomicBertModel"], "model_type": "nomic_bert", "hidden_act": "silu",
                 "pad_token_id": 0, "max_position_embeddings": 512, "rope_theta": 300.0, "_auto": "base",
                 "_convert": {"raw": True}, "_invisible": "pooler", "_unexpected": "pooler", "_layout": "without_pooler",
                 "_drop": ["position_embedding_type"]},
        "variants": {
            "plain": {"_about": "config.json with the keys of the original (n_embd, rotary_emb_base, swiglu), fused Wqkv, mean "
                      "pooling declared", "_final": True, "_config": NOMIC_KEYS, "_pooling": "mean"},
            "keys": {"_about": "the same with the keys of transformers", "_seed": 1, "_gguf": "the converter wants the others"},
        },
    },
}
