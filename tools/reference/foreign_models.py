#!/usr/bin/env python3
"""Tiny random models of families that transformers does not implement.

    LLAMA_CPP=/path python tools/reference/foreign_models.py --out DIR [rwkv6 rwkv7 mamba3 internlm2 exaone]

Each becomes DIR/NAME with `config.json` and `model.safetensors` in the layout of published checkpoints, `model.gguf` by
llama.cpp's converter, and `expected.safetensors` with `tokens` (i64 [T]) and `logits` (f32 [T, vocab]). All who know the
family must agree on them: llama.cpp from the GGUF in one batch and step by step, transformers' llama with the same
weights where the family is llama under other names, and rwkv.py. INDEX.md in DIR lists what was made.

Needs torch, transformers, safetensors, and a llama.cpp folder built as peers.py says.
"""

import argparse
import json
import os
import re
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

import mamba3
import rwkv
from family_models import to_gguf, write_index
from peers import LlamaCpp
from tiny_models import LOGIT_STD, quiet, tokens_for

AGREES = 5e-5


def rwkv6(c: dict) -> dict[str, tuple]:
    """Shapes of the tensors of RWKV-6 as RWKV/v6-Finch-*-HF stores them."""
    h, f, shift, decay = c["hidden_size"], c["intermediate_size"], c["_shift_rank"], c["_decay_rank"]
    shapes = {"rwkv.embeddings.weight": (c["vocab_size"], h), "head.weight": (c["vocab_size"], h)}
    norms = ["rwkv.blocks.0.pre_ln", "rwkv.ln_out"]
    for i in range(c["num_hidden_layers"]):
        block = f"rwkv.blocks.{i}."
        att, ffn = block + "attention.", block + "feed_forward."
        norms += [block + "ln1", block + "ln2", att + "ln_x"]
        shapes |= {f"{att}time_maa_{x}": (1, 1, h) for x in "xwkvrg"}
        shapes |= {att + "time_maa_w1": (h, 5 * shift), att + "time_maa_w2": (5, shift, h), att + "time_decay": (1, 1, h),
                   att + "time_decay_w1": (h, decay), att + "time_decay_w2": (decay, h),
                   att + "time_faaaa": (h // c["head_size"], c["head_size"])}
        shapes |= {f"{att}{x}.weight": (h, h) for x in ("receptance", "key", "value", "gate", "output")}
        shapes |= {f"{ffn}time_maa_{x}": (1, 1, h) for x in "kr"}
        shapes |= {ffn + "key.weight": (f, h), ffn + "value.weight": (h, f), ffn + "receptance.weight": (h, h)}
    return shapes | {f"{norm}.{part}": (h,) for norm in norms for part in ("weight", "bias")}


def rwkv7(c: dict) -> dict[str, tuple]:
    """Shapes of the tensors of RWKV-7 as fla-hub/rwkv7-* stores them."""
    h, f, size = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    shapes = {"model.embeddings.weight": (c["vocab_size"], h), "lm_head.weight": (c["vocab_size"], h)}
    norms = ["model.layers.0.pre_norm", "model.norm"]
    for i in range(c["num_hidden_layers"]):
        att, ffn = f"model.layers.{i}.attn.", f"model.layers.{i}.ffn."
        norms += [f"model.layers.{i}.attn_norm", f"model.layers.{i}.ffn_norm", att + "g_norm"]
        shapes |= {f"{att}x_{x}": (1, 1, h) for x in "rwkvag"}
        shapes |= {att + "k_k": (h,), att + "k_a": (h,), att + "r_k": (h // size, size)}
        shapes |= {f"{att}{x}_proj.weight": (h, h) for x in "rkvo"}
        for x in "wag" if i == 0 else "wavg":
            rank = c[{"w": "decay", "a": "a", "v": "v", "g": "gate"}[x] + "_low_rank_dim"]
            shapes |= {f"{att}{x}_lora.lora.0.weight": (rank, h), f"{att}{x}_lora.lora.2.weight": (h, rank)}
            if x != "g":
                shapes[f"{att}{x}_lora.lora.2.bias"] = (h,)
        shapes |= {ffn + "x_k": (h,), ffn + "key.weight": (f, h), ffn + "value.weight": (h, f)}
    return shapes | {f"{norm}.{part}": (h,) for norm in norms for part in ("weight", "bias")}


def internlm2(c: dict) -> dict[str, tuple]:
    """Shapes of the tensors of InternLM2: q, k and v fused group by group."""
    h, f, heads, kv = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"], c["num_key_value_heads"]
    shapes = {"model.tok_embeddings.weight": (c["vocab_size"], h), "output.weight": (c["vocab_size"], h),
              "model.norm.weight": (h,)}
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        shapes |= {layer + "attention.wqkv.weight": (h // heads * (heads + 2 * kv), h), layer + "attention.wo.weight": (h, h),
                   layer + "attention_norm.weight": (h,), layer + "ffn_norm.weight": (h,),
                   layer + "feed_forward.w1.weight": (f, h), layer + "feed_forward.w3.weight": (f, h),
                   layer + "feed_forward.w2.weight": (h, f)}
    return shapes


def exaone(c: dict) -> dict[str, tuple]:
    """Shapes of the tensors of EXAONE 3 and 3.5."""
    h, f, size = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    q, kv = size * c["num_attention_heads"], size * c["num_key_value_heads"]
    shapes = {"transformer.wte.weight": (c["vocab_size"], h), "transformer.ln_f.weight": (h,)}
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (c["vocab_size"], h)
    for i in range(c["num_layers"]):
        layer = f"transformer.h.{i}."
        att = layer + "attn.attention."
        shapes |= {att + "q_proj.weight": (q, h), att + "k_proj.weight": (kv, h), att + "v_proj.weight": (kv, h),
                   att + "out_proj.weight": (h, q), layer + "ln_1.weight": (h,), layer + "ln_2.weight": (h,),
                   layer + "mlp.c_fc_0.weight": (f, h), layer + "mlp.c_fc_1.weight": (f, h),
                   layer + "mlp.c_proj.weight": (h, f)}
    return shapes


RWKV6 = {
    "architectures": ["Rwkv6ForCausalLM"], "model_type": "rwkv6", "vocab_size": 67, "hidden_size": 24,
    "attention_hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 3, "head_size": 8, "head_size_divisor": 8,
    "layer_norm_epsilon": 1e-6, "rescale_every": 2, "use_cache": True, "bos_token_id": 0, "eos_token_id": 0,
    "tie_word_embeddings": False, "_shift_rank": 5, "_decay_rank": 7,
    "_convert": {"keys": {"rwkv6.time_mix_extra_dim": 5, "rwkv6.time_decay_extra_dim": 7}},
}
RWKV7 = {
    "architectures": ["RWKV7ForCausalLM"], "model_type": "rwkv7", "vocab_size": 67, "hidden_size": 24, "head_dim": 8,
    "intermediate_size": 37, "num_hidden_layers": 3, "decay_low_rank_dim": 5, "gate_low_rank_dim": 9, "a_low_rank_dim": 6,
    "v_low_rank_dim": 4, "hidden_act": "sqrelu", "norm_first": True, "norm_bias": True, "norm_eps": 8e-5,
    "fuse_norm": False, "attn": None, "attn_mode": "chunk", "bos_token_id": 0, "eos_token_id": 0, "use_cache": True,
    "tie_word_embeddings": False, "_llama_cannot": True,
}
RWKV7_HEAD64 = {**RWKV7, "_llama_cannot": False, "hidden_size": 64, "head_dim": 64, "norm_eps": 1e-5, "num_hidden_layers": 2, "intermediate_size": 21}
INTERNLM2 = {
    "architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", "vocab_size": 67, "hidden_size": 32,
    "intermediate_size": 43, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "bias": False,
    "hidden_act": "silu", "max_position_embeddings": 512, "rms_norm_eps": 3e-3, "rope_theta": 700.0,
    "rope_scaling": {"type": "dynamic", "factor": 2.0}, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
}
EXAONE = {
    "architectures": ["ExaoneForCausalLM"], "model_type": "exaone", "vocab_size": 67, "hidden_size": 32,
    "intermediate_size": 43, "num_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "activation_function": "silu", "max_position_embeddings": 512, "layer_norm_epsilon": 3e-3, "rope_theta": 700.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 64}, "bos_token_id": 1, "eos_token_id": 2,
    "tie_word_embeddings": False,
    "_convert": {"extra": {"rms_norm_eps": 3e-3}},  # this converter writes the epsilon under a key nobody reads
}

MAMBA3 = {
    "d_model": 24, "d_intermediate": 0, "n_layer": 3, "vocab_size": 67, "attn_layer_idx": [], "attn_cfg": {},
    "ssm_cfg": {"layer": "Mamba3", "d_state": 12, "headdim": 8, "ngroups": 2, "A_floor": 0.1},
    "rms_norm": True, "residual_in_fp32": True, "fused_add_norm": True, "pad_vocab_size_multiple": 8,
    "tie_embeddings": True, "_seed": 20, "_gguf": "the converter does not know mamba3",
}
MAMBA3_MIMO = {
    **MAMBA3, "_seed": 21, "d_intermediate": 9, "n_layer": 2, "tie_embeddings": False,
    "ssm_cfg": {"layer": "Mamba3", "d_state": 10, "expand": 1, "headdim": 8, "rope_fraction": 1.0, "is_mimo": True,
                "mimo_rank": 2, "is_outproj_norm": True},
}

MODELS = {
    "rwkv6-plain": (rwkv6, RWKV6, "token shift by low-rank mixes, decay from data, group norm, halving every 2 layers"),
    "rwkv7-head64": (rwkv7, RWKV7_HEAD64, "one head of the published size, which llama.cpp can compute"),
    "rwkv7-plain": (rwkv7, RWKV7, "delta rule with decay from data, value residual, low-rank gates"),
    "mamba3-siso": (mamba3.shapes, MAMBA3, "one input a head, two groups, half of the state turns, tied, padded vocabulary"),
    "mamba3-mimo": (mamba3.shapes, MAMBA3_MIMO, "two inputs a head, norm before the gate, all of the state turns, gated MLP"),
    "internlm2-plain": (internlm2, INTERNLM2, "wqkv fused group by group, dynamic NTK within the length (no scaling)"),
    "exaone-llama3": (exaone, EXAONE, "EXAONE 3.5: gpt-2 style names, llama-3 RoPE scaling, untied"),
    "exaone-tied": (exaone, {**EXAONE, "rope_scaling": None, "tie_word_embeddings": True}, "EXAONE 3: tied, plain RoPE"),
}


def weights(shapes: dict[str, tuple], seed: int) -> dict[str, torch.Tensor]:
    """Random tensors: norms in U(0.5, 1.5), mixes in U(0, 1), decays over their useful range."""
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for name, shape in sorted(shapes.items()):
        normal, uniform = torch.randn(shape, generator=generator), torch.rand(shape, generator=generator)
        leaf = name.split(".")[-1]
        norm = re.search(r"(norm_f|norm2?|ln_?\w*)\.(weight|bias)$", name)
        if norm:
            result[name] = uniform + 0.5 if norm.group(2) == "weight" else 0.3 * normal
        elif re.search(r"(time_maa_|\.x_)[a-z]$", name):
            result[name] = uniform
        elif leaf == "time_decay" or "w_lora.lora.2.bias" in name:
            result[name] = 4 * uniform - 3.5
        elif leaf in ("k_k", "k_a", "D"):
            result[name] = uniform + 0.3
        elif leaf in ("B_bias", "C_bias"):
            result[name] = 1 + 0.5 * normal
        elif leaf == "dt_bias":
            result[name] = 3 * uniform - 4
        elif leaf in ("time_faaaa", "r_k") or leaf == "bias":
            result[name] = 0.5 * normal
        elif "embed" in name or "wte" in name:
            result[name] = normal
        else:
            fan_in = shape[-2] if leaf in ("time_maa_w1", "time_maa_w2", "time_decay_w1", "time_decay_w2") else shape[-1]
            result[name] = normal / fan_in**0.5
    return result


@torch.no_grad()
def llama_logits(config: dict, state: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor | None:
    """Logits of transformers' llama with the same weights; None for families that are not llama."""
    from transformers import LlamaConfig, LlamaForCausalLM

    if config["model_type"] not in ("internlm2", "exaone"):
        return None
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    renames = [("transformer.h.", "model.layers."), ("transformer.wte", "model.embed_tokens"), ("transformer.ln_f", "model.norm"),
               ("model.tok_embeddings", "model.embed_tokens"), ("attn.attention.out_proj", "self_attn.o_proj"),
               ("attn.attention.", "self_attn."), ("attention.wo", "self_attn.o_proj"), ("attention_norm", "input_layernorm"),
               ("ffn_norm", "post_attention_layernorm"), ("ln_1", "input_layernorm"), ("ln_2", "post_attention_layernorm"),
               ("feed_forward.w1", "mlp.gate_proj"), ("feed_forward.w3", "mlp.up_proj"), ("feed_forward.w2", "mlp.down_proj"),
               ("mlp.c_fc_0", "mlp.gate_proj"), ("mlp.c_fc_1", "mlp.up_proj"), ("mlp.c_proj", "mlp.down_proj")]
    mapped = {}
    for name, tensor in state.items():
        if name == "output.weight":
            name = "lm_head.weight"
        for old, new in renames:
            name = name.replace(old, new)
        if "wqkv" not in name:
            mapped[name] = tensor
            continue
        size = config["hidden_size"] // heads
        grouped = tensor.reshape(kv, heads // kv + 2, size, -1)
        prefix = name.replace("attention.wqkv.weight", "self_attn.")
        parts = (("q", grouped[:, :-2]), ("k", grouped[:, -2]), ("v", grouped[:, -1]))
        mapped |= {f"{prefix}{x}_proj.weight": part.reshape(-1, tensor.shape[1]) for x, part in parts}
    tied = config["tie_word_embeddings"]
    if tied:
        mapped["lm_head.weight"] = mapped["model.embed_tokens.weight"]
    scaling = config["rope_scaling"] if (config["rope_scaling"] or {}).get("rope_type") == "llama3" else {"rope_type": "default"}
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=config["vocab_size"], hidden_size=config["hidden_size"], intermediate_size=config["intermediate_size"],
        num_hidden_layers=config.get("num_hidden_layers", config.get("num_layers")), num_attention_heads=heads,
        num_key_value_heads=kv, rms_norm_eps=config.get("rms_norm_eps", config.get("layer_norm_epsilon")),
        rope_parameters={"rope_theta": config["rope_theta"], **scaling}, tie_word_embeddings=tied,
    )).eval()
    model.load_state_dict(mapped)
    return model(tokens[None]).logits[0]


def family(config: dict) -> str:
    """The family; files of mamba_ssm name only the kind of layer."""
    return config["model_type"] if "model_type" in config else config["ssm_cfg"]["layer"].lower()


def transcribed(config: dict, state: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor | None:
    """Logits of the NumPy transcription of the paper, for the families that have one."""
    functions = {"rwkv6": rwkv.rwkv6_logits, "rwkv7": rwkv.rwkv7_logits, "mamba3": mamba3.mamba3_logits}
    function = functions.get(family(config))
    if function is None:
        return None
    arrays = {name: tensor.double().numpy() for name, tensor in state.items()}
    return torch.from_numpy(function(arrays, config, tokens.tolist())).float()


def make(name: str, out: Path, peer: LlamaCpp) -> str:
    """Write one model and say how it was checked."""
    shapes, settings, _ = MODELS[name]
    seed = settings.get("_seed")
    if seed is None:
        seed = sorted(n for n, m in MODELS.items() if "_seed" not in m[1]).index(name)
    state = weights(shapes(settings), seed)
    tokens = tokens_for(settings["vocab_size"], seed)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    config = {key: value for key, value in settings.items() if not key.startswith("_")}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    others = [("transformers' llama", llama_logits), ("the paper", transcribed)]

    def opinions() -> dict[str, torch.Tensor]:
        """Logits of all who know the family."""
        save_file(state, out / "model.safetensors", metadata={"format": "pt"})
        if "_gguf" in settings:
            return {label: function(settings, state, tokens) for label, function in others[1:]}
        to_gguf({out: {"_convert": {"raw": True, **settings.get("_convert", {})}}})
        if (out / "gguf.error").exists():
            raise SystemExit(f"{name}: {(out / 'gguf.error').read_text()}")
        found = {label: function(settings, state, tokens) for label, function in others}
        if not settings.get("_llama_cannot"):
            found["llama.cpp"] = torch.from_numpy(peer.logits(out / "model.gguf", tokens.tolist()))
            found["llama.cpp stepwise"] = torch.from_numpy(peer.logits(out / "model.gguf", tokens.tolist(), stepwise=True))
        return {label: logits for label, logits in found.items() if logits is not None}

    head = next((n for n in ("head.weight", "lm_head.weight", "output.weight") if n in state), None)
    head = head or next(n for n in ("transformer.ln_f.weight", "backbone.norm_f.weight") if n in state)
    state[head] = state[head] * (LOGIT_STD / next(iter(opinions().values())).std())
    found = opinions()
    label, logits = next(iter(found.items()))
    differences = {other: (found[other] - logits).abs().max().item() for other in found if other != label}
    if not max(differences.values(), default=0.0) < AGREES:
        raise SystemExit(f"{name}: against {label} {differences}")
    save_file({"tokens": tokens, "logits": logits}, out / "expected.safetensors")
    checks = "".join(f", {other} {value:.0e}" for other, value in differences.items())
    return f"expectation of {label}, std {logits.std():.2f}{checks}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="families or models; without any, all")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    peer = LlamaCpp(Path(os.environ["LLAMA_CPP"]))
    lines = {}
    for name, (_, settings, about) in MODELS.items():
        if args.names and name not in args.names and family(settings) not in args.names:
            continue
        checked = make(name, args.out / name, peer)
        print(f"{name}: {checked}", flush=True)
        gguf = "yes" + (", but llama.cpp is wrong for heads of this size" if settings.get("_llama_cannot") else "")
        gguf = f"no: {settings['_gguf']}" if "_gguf" in settings else gguf
        lines[name] = {"family": family(settings), "about": about, "checked": checked, "gguf": gguf}
    write_index(args.out, lines)


if __name__ == "__main__":
    sys.exit(main())
