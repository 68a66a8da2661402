#!/usr/bin/env python3
"""Make tiny models with random configurations, with what transformers computes from them, and compare.

    cargo build -p imaginal-models --example reference
    python tools/reference/fuzz_models.py target/debug/examples/reference --count 20 --seed 1 gemma2 falcon
    python tools/reference/fuzz_models.py target/debug/examples/reference --keep DIR   # failing models stay in DIR

Each family has the options of its class in transformers (`OPTIONS`); a configuration takes one value of each, or leaves
the key out, so that the default of the class has to be known. Half of the configurations are written as transformers
writes them, the others as they were drawn; weights are f32, bf16 or f16, in one file or in several. What makes the
model and its expectation is family_models.py. Prints what differs by more than --tolerance, and a count.
"""

import argparse
import json
import logging
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

import family_models
from family_models import NOISE, Unfit
from tiny_models import TOKEN_COUNT, quiet

OUT = object()  # the key is left out
ACTIVATIONS = ["silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "relu2", "quick_gelu"]
ANY_ACTIVATION = [*ACTIVATIONS, "gelu_python_tanh", "gelu_accurate", "gelu_10", "leaky_relu", "mish", "relu6", "tanh",
                  "sigmoid", "linear", "hardswish", "swish", "gelu_python"]
ACTIVATION = re.compile("(hidden_)?activation(_function)?$|hidden_act$")
BOTH = [True, False, OUT]
HEAD_SIZES = {"qwen3": 128, "gemma": 256, "gemma2": 256, "glm4": 128}  # where the key is left out


def rope(rng: random.Random, settings: dict) -> None:
    """RoPE of any type that every class takes, in the older or the newer spelling."""
    kind = rng.choice(["none", "default", "linear", "dynamic", "yarn", "llama3", "longrope"])
    options: dict = {} if kind == "none" else {"rope_type": kind}
    length = rng.choice([64, 256])
    settings["max_position_embeddings"] = rng.choice([64, 128, 512])
    if kind in ("linear", "dynamic", "yarn", "llama3"):
        options["factor"] = rng.choice([2.0, 4.0, 8])
    if kind in ("llama3", "yarn"):
        options["original_max_position_embeddings"] = rng.choice([16, 32, length])
    if kind == "llama3":
        options |= {"low_freq_factor": rng.choice([1, 1.0]), "high_freq_factor": rng.choice([2.0, 4.0])}
    if kind == "yarn":
        for key, values in {"beta_fast": [OUT, 20.0, 16], "beta_slow": [OUT, 2.0, 1], "attention_factor": [OUT, None, 1.3],
                            "truncate": [OUT, False, True], "mscale": [OUT, 1.0, 0.7], "mscale_all_dim": [OUT, 1.0, 0.6],
                            "original_max_position_embeddings": [OUT, 32, 64], "factor": [2.0, 4.0, 8.0, None]}.items():
            if (value := rng.choice(values)) is OUT:
                options.pop(key, None)
            else:
                options[key] = value
        if "original_max_position_embeddings" not in options:
            options["factor"] = 4.0
    if kind == "longrope":
        usual = settings["hidden_size"] // settings["num_attention_heads"]
        head = settings.get("head_dim") or HEAD_SIZES.get(settings["model_type"], usual)
        part = settings.get("partial_rotary_factor", settings.get("rotary_pct", settings.get("_partial", 1.0)))
        pairs = (int(head * part) + 1) // 2
        options |= {"short_factor": [1.0 + 0.1 * i for i in range(pairs)], "long_factor": [1.0 + 0.7 * i for i in range(pairs)],
                    "original_max_position_embeddings": rng.choice([16, 32, 64])}
        if rng.random() < 0.5:
            options["factor"] = rng.choice([2.0, 8.0])
        if rng.random() < 0.3:
            options["attention_factor"] = 1.2
    theta = rng.choice([OUT, 700.0, 10000, 1e6])
    spelled = "rotary_emb_base" if settings["model_type"] == "gpt_neox" else "rope_theta"
    if rng.random() < 0.5:
        if theta is not OUT:
            options["rope_theta"] = theta
        if options:
            settings["rope_parameters"] = options
    else:
        if theta is not OUT:
            settings[spelled] = theta
        if "rope_type" in options and rng.random() < 0.5:
            options["type"] = options.pop("rope_type")
        if kind != "none" or rng.random() < 0.5:
            settings["rope_scaling"] = options or None


def local_rope(rng: random.Random, settings: dict) -> None:
    """RoPE of layers with and without windows (Gemma 3, ModernBERT)."""
    settings["max_position_embeddings"] = 512
    modern = settings["model_type"] == "modernbert"
    kinds = [{}, {"rope_type": "linear", "factor": 4.0}, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
             {"rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 32, "low_freq_factor": 1.0, "high_freq_factor": 4.0}]
    if rng.random() < 0.5:
        if (theta := rng.choice([OUT, 3000.0])) is not OUT:
            settings["global_rope_theta" if modern else "rope_theta"] = theta
        if (theta := rng.choice([OUT, 300.0])) is not OUT:
            settings["local_rope_theta" if modern else "rope_local_base_freq"] = theta
        if kind := rng.choice(kinds):
            settings["rope_scaling"] = dict(kind)
    elif rng.random() < 0.9:
        nested = {}
        for layer in ("full_attention", "sliding_attention"):
            nested[layer] = {"rope_type": "default", **rng.choice(kinds)}
            if rng.random() < 0.6:
                nested[layer]["rope_theta"] = rng.choice([200.0, 5000.0])
        settings["rope_parameters"] = nested


def partial(rng: random.Random, settings: dict, key: str = "partial_rotary_factor") -> None:
    """A part of the head that is turned, and then the rest of RoPE."""
    if (value := rng.choice([OUT, 0.25, 0.5, 1.0])) is not OUT:
        settings[key] = value
    rope(rng, settings)


def phi3_rope(rng: random.Random, settings: dict) -> None:
    settings["max_position_embeddings"] = rng.choice([64, 256])
    if (theta := rng.choice([OUT, 700.0])) is not OUT:
        settings["rope_theta"] = theta
    if (value := rng.choice([OUT, 0.5, 1.0])) is not OUT:
        settings["partial_rotary_factor"] = value
    settings["original_max_position_embeddings"] = rng.choice([16, 64])
    if rng.random() < 0.7:
        size = settings["hidden_size"] // settings["num_attention_heads"]
        pairs = int(size * settings.get("partial_rotary_factor", 1.0)) // 2
        settings["rope_scaling"] = {"type": rng.choice(["longrope", "su", "yarn"]), "short_factor": [1.0 + 0.1 * i for i in range(pairs)],
                                    "long_factor": [1.0 + 0.7 * i for i in range(pairs)]}


def types(rng: random.Random, settings: dict) -> None:
    """layer_types at random, or a pattern, or neither."""
    n, kind = settings["num_hidden_layers"], rng.choice(["types", "pattern", "none"])
    if kind == "types":
        settings["layer_types"] = [rng.choice(["sliding_attention", "full_attention"]) for _ in range(n)]
    elif kind == "pattern" and settings["model_type"] in ("gemma3_text", "cohere2", "exaone4"):
        settings["sliding_window_pattern"] = rng.choice([2, 3])
    elif kind == "pattern" and settings["model_type"] == "modernbert":
        settings["global_attn_every_n_layers"] = rng.choice([1, 2, 3])


def typed_rope(rng: random.Random, settings: dict) -> None:
    types(rng, settings)
    rope(rng, settings)


def typed_local_rope(rng: random.Random, settings: dict) -> None:
    types(rng, settings)
    local_rope(rng, settings)


def qwen_window(rng: random.Random, settings: dict) -> None:
    if rng.random() < 0.6:
        settings |= {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": rng.choice([0, 1, 2])}
        if rng.random() < 0.4:
            types(rng, settings)
    elif rng.random() < 0.3:
        settings |= {"use_sliding_window": False, "sliding_window": 7, "max_window_layers": 0}
    rope(rng, settings)


def gemma3n(rng: random.Random, settings: dict) -> None:
    n = settings["num_hidden_layers"]
    kinds = ["sliding_attention", "full_attention"]
    settings["layer_types"] = kinds + [rng.choice(kinds) for _ in range(n - 2)]
    settings["num_kv_shared_layers"] = rng.choice([0, 1, n - 2])
    if rng.random() < 0.5:
        settings["activation_sparsity_pattern"] = [rng.choice([0.0, 0.5, 0.9]) for _ in range(n)]
    if rng.random() < 0.5:
        settings["intermediate_size"] = [rng.choice([19, 24]) for _ in range(n)]
    local_rope(rng, settings)


def no_rope(rng: random.Random, settings: dict) -> None:
    """No RoPE."""


COMMON = {"vocab_size": [67, 50, 131], "hidden_size": [32, 48], "intermediate_size": [43, 24], "num_hidden_layers": [1, 2, 3],
          "num_attention_heads": [4, 2], "num_key_value_heads": [1, 2, OUT], "tie_word_embeddings": BOTH,
          "hidden_act": [*ACTIVATIONS, OUT], "rms_norm_eps": [3e-3, OUT]}
ENCODER = {"vocab_size": [67, 50], "hidden_size": [24, 36], "intermediate_size": [37, 24], "num_hidden_layers": [1, 2],
           "num_attention_heads": [3, 2], "hidden_act": [*ANY_ACTIVATION, OUT], "layer_norm_eps": [1e-3, OUT], "tie_word_embeddings": BOTH,
           "type_vocab_size": [1, 2, 3, OUT], "max_position_embeddings": [64, OUT]}
HEAD_DIM = {"head_dim": [12, 16, OUT]}
LN = {"rms_norm_eps": [OUT], "layer_norm_eps": [1e-3, OUT]}
CAPS = {"final_logit_softcapping": [5.0, None, OUT], "attn_logit_softcapping": [3.0, None, OUT], "hidden_act": [OUT, "silu"],
        "hidden_activation": [*ACTIVATIONS, OUT], "query_pre_attn_scalar": [5, OUT], "sliding_window": [7, 9, OUT],
        "attention_bias": BOTH, "_embed": [0.25], "head_dim": [12, 16, OUT], "num_key_value_heads": [1, 2]}

# family: class, options beside those of COMMON, and what else is drawn.
OPTIONS = {
    "llama": ("LlamaForCausalLM", {**COMMON, **HEAD_DIM, "attention_bias": BOTH, "mlp_bias": BOTH, "pretraining_tp": [1, OUT]}, rope),
    "mistral": ("MistralForCausalLM", {**COMMON, **HEAD_DIM, "num_key_value_heads": [1, 2, 4], "sliding_window": [7, None, OUT]}, rope),
    "mistral8": ("MistralForCausalLM", {**COMMON, "model_type": ["mistral"], "num_attention_heads": [8], "hidden_size": [64], "num_key_value_heads": [OUT]}, rope),
    "qwen2": ("Qwen2ForCausalLM", {**COMMON, "num_key_value_heads": [1, 2, None]}, qwen_window),
    "qwen3": ("Qwen3ForCausalLM", {**COMMON, **HEAD_DIM, "num_key_value_heads": [1, 2, None], "attention_bias": BOTH}, qwen_window),
    "gemma": ("GemmaForCausalLM", {**COMMON, "head_dim": [12, OUT], "hidden_activation": [OUT, None, "gelu_pytorch_tanh"],
                                   "attention_bias": BOTH, "num_key_value_heads": [1, 2], "_embed": [0.25]}, rope),
    "gemma2": ("Gemma2ForCausalLM", {**COMMON, **CAPS}, typed_rope),
    "gemma3_text": ("Gemma3ForCausalLM", {**COMMON, **CAPS, "num_hidden_layers": [3, 6, 7]}, typed_local_rope),
    "gemma3n_text": ("Gemma3nForCausalLM", {
        **COMMON, **CAPS, "num_hidden_layers": [4, 5], "head_dim": [8], "attn_logit_softcapping": [OUT], "hidden_size": [24],
        "query_pre_attn_scalar": [OUT], "final_logit_softcapping": [5.0, OUT], "vocab_size_per_layer_input": [41, 67], "vocab_size": [67],
        "hidden_size_per_layer_input": [5, 8], "laurel_rank": [3, 8], "altup_num_inputs": [2, 3, OUT], "altup_active_idx": [0, 1],
        "altup_correct_scale": [True, False, OUT], "altup_coef_clip": [0.4, OUT], "sliding_window": [7], "_seed": [1]}, gemma3n),
    "phi": ("PhiForCausalLM", {**COMMON, **LN, "qk_layernorm": BOTH, "_partial": [0.5]}, partial),
    "phi3": ("Phi3ForCausalLM", {**COMMON, "sliding_window": [9, None, OUT], "pad_token_id": [3]}, phi3_rope),
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": [67, 50], "n_embd": [32, 24], "n_layer": [1, 2, 3], "n_head": [4, 2], "n_positions": [64, OUT],
                                 "n_inner": [37, None, OUT], "activation_function": [*ANY_ACTIVATION, OUT], "layer_norm_epsilon": [1e-3, OUT],
                                 "scale_attn_weights": BOTH, "scale_attn_by_inverse_layer_idx": BOTH, "reorder_and_upcast_attn": [False, OUT],
                                 "tie_word_embeddings": BOTH}, no_rope),
    "gpt_neox": ("GPTNeoXForCausalLM", {**COMMON, **LN, "num_key_value_heads": [OUT], "attention_bias": BOTH, "use_parallel_residual": BOTH,
                                        "rotary_pct": [0.25, 0.5, 1.0], "hidden_act": [*ACTIVATIONS, OUT],
                                        "hidden_size": [24, 32, 48]}, rope),
    "starcoder2": ("Starcoder2ForCausalLM", {**COMMON, "rms_norm_eps": [OUT], "norm_epsilon": [1e-3, OUT], "use_bias": BOTH,
                                             "sliding_window": [7, None, OUT]}, rope),
    "falcon": ("FalconForCausalLM", {"vocab_size": [67, 50], "hidden_size": [32, 48], "num_hidden_layers": [1, 2, 3], "num_attention_heads": [4, 2],
                                     "num_kv_heads": [1, 2, OUT], "tie_word_embeddings": BOTH, "layer_norm_epsilon": [1e-3, OUT],
                                     "alibi": BOTH, "new_decoder_architecture": BOTH, "multi_query": BOTH, "parallel_attn": BOTH, "bias": BOTH,
                                     "ffn_hidden_size": [41, OUT], "activation": [*ACTIVATIONS, OUT], "num_ln_in_parallel_attn": [1, 2, None, OUT],
                                     "_attention": ["sdpa"]}, rope),
    "olmo2": ("Olmo2ForCausalLM", {**COMMON, "attention_bias": BOTH}, rope),
    "granite": ("GraniteForCausalLM", {**COMMON, "attention_bias": BOTH, "mlp_bias": BOTH, "embedding_multiplier": [4.0, 2, OUT], "_embed": [0.4],
                                       "logits_scaling": [3.0, OUT], "residual_multiplier": [0.7, OUT], "attention_multiplier": [0.2, OUT]}, rope),
    "glm4": ("Glm4ForCausalLM", {**COMMON, "head_dim": [12, 16, OUT], "attention_bias": BOTH, "num_key_value_heads": [1, 2, OUT], "_partial": [0.5],
                                 "pad_token_id": [0]}, partial),
    "exaone4": ("Exaone4ForCausalLM", {**COMMON, **HEAD_DIM, "num_hidden_layers": [3, 4, 5], "sliding_window": [7, 9, None, OUT],
                                       "num_key_value_heads": [1, 2]}, typed_rope),
    "cohere": ("CohereForCausalLM", {**COMMON, **LN, "pad_token_id": [0], "logit_scale": [0.3, 1.0, OUT], "use_qk_norm": BOTH, "attention_bias": BOTH}, rope),
    "cohere2": ("Cohere2ForCausalLM", {**COMMON, **LN, "pad_token_id": [0], "logit_scale": [0.3, OUT], "attention_bias": BOTH,
                                       "num_hidden_layers": [3, 4, 5], "sliding_window": [7, 9, OUT]}, typed_rope),
    "bert": ("BertModel", {**ENCODER, "_head": ["base", "MaskedLM", "SequenceClassification"], "position_embedding_type": ["absolute", OUT]}, no_rope),
    "roberta": ("RobertaModel", {**ENCODER, "_head": ["base", "MaskedLM", "SequenceClassification"], "pad_token_id": [1, OUT, 3]}, no_rope),
    "xlm-roberta": ("XLMRobertaModel", {**ENCODER, "_head": ["base", "MaskedLM", "SequenceClassification"]}, no_rope),
    "camembert": ("CamembertModel", {**ENCODER, "_head": ["base", "MaskedLM", "SequenceClassification"]}, no_rope),
    "modernbert": ("ModernBertModel", {
        **ENCODER, "hidden_act": [OUT], "layer_norm_eps": [OUT], "type_vocab_size": [OUT], "num_hidden_layers": [3, 4], "pad_token_id": [3], "_head": ["base", "MaskedLM", "SequenceClassification"],
        "hidden_activation": [*ANY_ACTIVATION, OUT], "norm_eps": [1e-3, OUT], "norm_bias": BOTH, "attention_bias": BOTH, "mlp_bias": BOTH,
        "decoder_bias": BOTH, "local_attention": [14, 9, OUT], "classifier_pooling": ["mean", "cls", OUT], "classifier_bias": BOTH,
        "classifier_activation": ["gelu", "relu", "silu", OUT], "_attention": ["sdpa"]}, typed_local_rope),
    "nomic_bert": ("NomicBertModel", {**ENCODER, "hidden_act": [*ANY_ACTIVATION, OUT], "head_dim": [OUT], "tie_word_embeddings": [OUT],
                                      "rope_parameters": [{"rope_type": "default", "rope_theta": 300.0}, OUT],
                                      "_unexpected": ["pooler"], "_layout": ["without_pooler"], "_head": ["base"]}, no_rope),
}


def drawn(family: str, rng: random.Random) -> dict:
    """A configuration of the family, with the generator's own settings."""
    name, options, rest = OPTIONS[family]
    settings = {"architectures": [name], "model_type": family, "_seed": rng.randrange(1000)}
    for key, values in options.items():
        if (value := rng.choice(values)) is not OUT:
            settings[key] = value
    rest(rng, settings)
    if head := settings.pop("_head", None):
        settings["_auto"] = head
        if head != "base":
            settings["architectures"] = [re.sub("Model$", f"For{head}", name)]
        if head == "SequenceClassification" and rng.random() < 0.7:
            labels = {str(i): f"label {i}" for i in range(rng.choice([1, 3]))}
            settings |= {"id2label": labels, "label2id": {label: int(i) for i, label in labels.items()}}
    settings["_dtype"] = rng.choice(["float32", "float32", "bfloat16", "float16"])
    settings["_shards"] = rng.random() < 0.25
    settings["_written"] = rng.random() < 0.5
    return settings


def make(settings: dict, out: Path) -> None:
    """Write the model and what it computes into `out`. Raises Unfit, or whatever transformers does."""
    from transformers import AutoConfig

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "config.json").write_text(json.dumps(family_models.config_of(settings), indent=1) + "\n")
    torch.manual_seed(0)
    built = AutoConfig.from_pretrained(out)
    kind = settings.get("_attention", "eager")
    model = family_models.prepared(family_models.auto_class(settings).from_config(built, dtype=torch.float32, attn_implementation=kind))
    family_models.randomise(model, settings)
    tokens = family_models.chosen_tokens(model, settings)
    if settings.get("_auto", "CausalLM") == "CausalLM":
        family_models.scale_logits(model, tokens)
    if settings["_written"]:
        model.config.save_pretrained(out)
    state = family_models.saved_tensors(model, settings)
    state = {name: t.to(getattr(torch, settings["_dtype"])) if t.is_floating_point() else t for name, t in state.items()}
    if settings["_shards"]:
        names = sorted(state)
        parts = [names[::2], names[1::2]]
        files = [f"model-{i + 1:05}-of-00002.safetensors" for i in range(2)]
        for file, part in zip(files, parts):
            save_file({name: state[name] for name in part}, out / file, metadata={"format": "pt"})
        index = {"metadata": {}, "weight_map": {name: file for file, part in zip(files, parts) for name in part}}
        (out / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    expected, noise = family_models.expectation(out, settings)
    if not noise < NOISE:
        raise Unfit(f"f32 and f64 differ by {noise:.1e}")
    save_file({key: value.contiguous() for key, value in expected.items()}, out / "expected.safetensors")


def compared(binary: Path, directories: list[Path]) -> dict[str, str]:
    """What the comparing program says of each directory."""
    done = subprocess.run([binary, *directories], capture_output=True, text=True)
    said, at = {}, ""
    for line in done.stdout.splitlines():
        if line.startswith("  "):
            said[at] += line.strip() + "\n"
        else:
            at = Path(line).name
            said[at] = ""
    if done.returncode != 0:
        said[at] = said.get(at, "") + done.stderr[-500:]
    return said


def grows(settings: dict) -> bool:
    """Whether the text outgrows the original length of LongRoPE: read token by token, it begins with other factors."""
    options = {**(settings.get("rope_scaling") or {}), **settings.get("rope_parameters", {})}
    length = options.get("original_max_position_embeddings", settings.get("original_max_position_embeddings", TOKEN_COUNT))
    return "short_factor" in options and length < TOKEN_COUNT


def agrees(said: str, tolerance: float, batch_only: bool) -> bool:
    """Whether all that was compared is within the tolerance. What cannot be saved as GGUF does not count."""
    said = re.sub(r", not saved: .*", "", said, flags=re.S)
    if batch_only:
        said = re.sub(r", by \d+ [^,\n]*", "", said)
    numbers = re.findall(r" (\S*(?:e-?\d+|inf|NaN))(?=,|$|\n)", said)
    return bool(numbers) and "saved:" not in said and all(float(x) <= tolerance for x in numbers)


def judged_gguf(binary: Path, directory: Path, said: str, tolerance: float) -> str:
    """What was said of a directory, less what was said of its model.gguf if llama.cpp has the same to say of it."""
    part = re.search(r"gguf: .*", said, flags=re.S)
    if not part or agrees(part[0], tolerance, False):
        return said
    difference, error = family_models.compare_llama(directory)
    if error:
        return said.replace(part[0], f"llama.cpp cannot read it: {error}\n")
    if difference > family_models.AGREES:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy"
            shutil.copytree(directory, copy)
            family_models.ask_llama(copy)
            again = re.search(r"gguf: .*", compared(binary.resolve(), [copy])["copy"], flags=re.S)
        if again and agrees(again[0], family_models.AGREES, False):
            return said.replace(part[0], "")
        return said.replace(part[0], f"{part[0].strip()}\nbeside llama.cpp {again and again[0]}")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path)
    parser.add_argument("families", nargs="*")
    parser.add_argument("--count", type=int, default=10, help="models of each family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tolerance", type=float, default=2e-4)
    parser.add_argument("--gguf", action="store_true", help="also from GGUF by llama.cpp's converter ($LLAMA_CPP)")
    parser.add_argument("--keep", type=Path, help="where models that differ stay")
    args = parser.parse_args()
    quiet()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    failed = made = 0
    for family in args.families or OPTIONS:
        with tempfile.TemporaryDirectory() as folder:
            settings, unfit = {}, {}
            for i in range(args.count):
                name = f"{family}-{args.seed + i}"
                drawn_settings = drawn(family, random.Random(f"{family} {args.seed + i}"))
                if args.gguf:  # which has no place for it
                    drawn_settings = {key: value for key, value in drawn_settings.items() if not ACTIVATION.match(key)}
                try:
                    make(drawn_settings, Path(folder) / name)
                    settings[name] = drawn_settings
                except Exception as error:  # noqa: BLE001 - a configuration that transformers refuses is no test
                    unfit[name] = f"{type(error).__name__}: {str(error)[:200]}"
            if args.gguf:
                family_models.to_gguf({Path(folder) / name: {} for name in settings})
            said = compared(args.binary.resolve(), [Path(folder) / name for name in settings])
            if args.gguf:
                converted = [Path(folder) / name for name in settings if (Path(folder) / name / "model.gguf").exists()]
                alone = sum(agrees(said[path.name].partition("gguf: ")[2], args.tolerance, False) for path in converted)
                print(f"{family}: {len(converted)} converted, {alone} of them hold all of the model", flush=True)
                for path in converted:
                    said[path.name] = judged_gguf(args.binary, path, said[path.name], args.tolerance)
            made += len(settings)
            for name in settings:
                if not agrees(said.get(name, ""), args.tolerance, grows(settings[name])):
                    failed += 1
                    print(f"{name}: {said.get(name, 'nothing')}", flush=True)
                    if args.keep:
                        shutil.copytree(Path(folder) / name, args.keep / name, dirs_exist_ok=True)
            print(f"{family}: {len(settings)} made, {len(unfit)} refused", flush=True)
            for error in sorted({path.read_text() for path in Path(folder).glob("*/gguf.error")}):
                print(f"    not converted: {error.strip()}", flush=True)
            for name, why in list(unfit.items())[:4]:
                print(f"    refused {name}: {why}", flush=True)
    print(f"{failed} of {made} differ")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
