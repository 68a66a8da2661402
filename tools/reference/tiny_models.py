#!/usr/bin/env python3
"""Make tiny, randomly initialised llama, qwen2, qwen3, qwen3moe and mamba models with their expected logits.

Each model becomes a Hugging Face directory: `config.json` (older or newer spelling of its keys), the weights as
safetensors (f32 or bf16, one file or shards with an index), sometimes `tokenizer.json`, and `expected.safetensors`
with `tokens` (i64 [T]) and `logits` (f32 [T, vocab], what transformers computes in f32 from that very directory).
No tensor is trivial: norms lie in U(0.5, 1.5), every bias, A_log, D and dt bias is random, and the logits are scaled
to a standard deviation of 2, so a layer that drops or mixes up anything cannot agree. Sizes are odd where they may be.

    python tools/reference/tiny_models.py --list
    python tools/reference/tiny_models.py --arch llama --seed 5 --out DIR          # variant and sizes follow the seed
    python tools/reference/tiny_models.py --arch qwen3 --variant untied --seed 1 --out DIR --gguf
    python tools/reference/tiny_models.py --fixtures crates/models/tests/fixtures  # the ones kept in the repository

Needs torch, transformers, tokenizers, safetensors; `--gguf` and `--fixtures` also gguf (see to_gguf.py).
"""

import argparse
import json
import logging
import math
import random
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

TOKEN_COUNT = 41  # longer than every conv kernel, and past the wavelengths at which llama-3 RoPE scaling sets in
LOGIT_STD = 2.0

# What differs between the variants of an architecture. Keys that are not settings of the model itself:
# spelling (old or new config keys), dtype of the stored weights, shards, tokenizer, stacked (experts in one tensor, as
# transformers holds them, or in one each, as it writes them), gguf (False: the format cannot hold this variant, see
# to_gguf.py).
VARIANTS = {
    "llama": {
        "plain": {"spelling": "old", "tie": False, "theta": 10000.0, "eps": 1e-5},
        "bias-tied": {"spelling": "new", "tie": True, "theta": 1e6, "eps": 1e-6, "attention_bias": True, "mlp_bias": True},
        "llama3-rope": {"spelling": "new", "tie": False, "theta": 500000.0, "eps": 1e-5, "rope": "llama3"},
        "llama3-rope-old": {"spelling": "old", "tie": True, "theta": 10000.0, "eps": 1e-5, "rope": "llama3"},
        "linear-rope": {"spelling": "old", "tie": False, "theta": 10000.0, "eps": 3e-4, "rope": "linear", "head_dim": True},
        "tokenizer": {"spelling": "new", "tie": True, "theta": 10000.0, "eps": 1e-5, "tokenizer": True},
    },
    "qwen2": {
        "tied": {"spelling": "old", "tie": True, "theta": 1e6, "eps": 1e-6, "tokenizer": True},
        "untied-bf16": {"spelling": "new", "tie": False, "theta": 10000.0, "eps": 1e-4, "dtype": torch.bfloat16},
    },
    "qwen3": {
        "tied": {"spelling": "new", "tie": True, "theta": 1e6, "eps": 1e-6, "head_dim": True},
        "untied": {"spelling": "old", "tie": False, "theta": 10000.0, "eps": 1e-5, "head_dim": True, "shards": 3},
    },
    "qwen3moe": {
        "each": {"spelling": "old", "tie": True, "theta": 1e6, "eps": 1e-6, "head_dim": True, "shards": 2},
        "stacked": {"spelling": "new", "tie": False, "theta": 10000.0, "eps": 1e-5, "head_dim": True, "stacked": True},
        "dense-layers": {"spelling": "new", "tie": True, "theta": 1e6, "eps": 1e-6, "head_dim": True, "gguf": False,
                         "config": {"norm_topk_prob": False, "decoder_sparse_step": 2, "num_hidden_layers": 4,
                                    "mlp_only_layers": [3]}},
        "bf16": {"spelling": "new", "tie": False, "theta": 1e6, "eps": 1e-6, "head_dim": True, "dtype": torch.bfloat16},
    },
    "mamba": {
        "tied": {"spelling": "old", "tie": True, "eps": 1e-5},
        "untied": {"spelling": "new", "tie": False, "eps": 1e-4, "state": 5, "conv": 3, "rank": 5},
        "tokenizer": {"spelling": "new", "tie": True, "eps": 1e-5, "state": 8, "tokenizer": True},
        "biases": {"spelling": "new", "tie": True, "eps": 1e-5, "use_bias": True, "gguf": False},
        "no-conv-bias": {"spelling": "old", "tie": False, "eps": 1e-5, "use_conv_bias": False},
    },
}

# (name of the folder, architecture, variant, seed): the models kept in the repository.
FIXTURES = [
    ("llama-plain", "llama", "plain", 0),
    ("llama-bias-tied", "llama", "bias-tied", 1),
    ("llama-llama3-rope", "llama", "llama3-rope", 2),
    ("llama-linear-rope", "llama", "linear-rope", 3),
    ("qwen2-tied", "qwen2", "tied", 0),
    ("qwen2-untied-bf16", "qwen2", "untied-bf16", 1),
    ("qwen3-tied", "qwen3", "tied", 0),
    ("qwen3-untied", "qwen3", "untied", 1),
    ("qwen3moe-each", "qwen3moe", "each", 0),
    ("qwen3moe-stacked", "qwen3moe", "stacked", 1),
    ("qwen3moe-dense-layers", "qwen3moe", "dense-layers", 2),
    ("mamba-tied", "mamba", "tied", 0),
    ("mamba-untied", "mamba", "untied", 1),
    ("mamba-biases", "mamba", "biases", 2),
]

# Text on which the little tokenizers are trained and on which their token ids are recorded (code, scripts without
# spaces, emoji with joiners, runs of blanks, line endings, digits, combining marks).
TEXTS = [
    "Hello, world! It's 12345 o'clock; WE'LL see: don't.",
    "fn main() {\n    let mut v: Vec<u32> = (0..10).map(|x| x * 2).collect();\n\n\n\t\treturn;\n}\n",
    "import os\r\n\r\nclass A(B):\r\n    def __init__(self, *args, **kw):\r\n        super().__init__(*args)   # trailing   \r\n",
    "我想在apple工作1314151天～ 中文和 English 混排。日本語のテキスト、한국어 문장.",
    "🚀 (normal) 😶\u200d🌫️ (joined) ✅ 🦙🦙 👩\u200d👩\u200d👧\u200d👦 e\u0301 é",
    "      six spaces, then   three,  two, one \n \n  \n\t \t mixed",
    "нещо на Български ½ ² Ⅷ ٣٤٥ नमस्ते សួស្តី",
    "x=3.14159e-10;0xDEADBEEF;1_000_000; ''''''```````\"\"\"\"......!!!!!!??????",
    " leading space",
    "",
    "\n",
    "a<|endoftext|>b",
]


def build_tokenizer(path: Path, vocab_size: int) -> None:
    """Train a byte-level BPE tokenizer (Qwen2's split, GPT-2's byte alphabet) on TEXTS and write tokenizer.json."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    split = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for text in TEXTS if "<|" not in text] * 4, trainer)
    assert tokenizer.get_vocab_size() == vocab_size, tokenizer.get_vocab_size()
    tokenizer.save(str(path / "tokenizer.json"))
    special = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (path / "tokenizer_config.json").write_text(json.dumps(special, indent=1) + "\n")
    expected = [{"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids} for text in TEXTS]
    (path / "expected_tokens.json").write_text(json.dumps(expected, ensure_ascii=True, indent=1) + "\n")


def rope_settings(setting: dict) -> dict:
    """The RoPE part of config.json in the older or the newer spelling."""
    kind, theta = setting.get("rope"), setting["theta"]
    scaling = {}
    if kind == "llama3":
        # Small wavelengths, so that a head of 8 to 16 dimensions has frequencies in all three bands.
        scaling = {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    elif kind == "linear":
        scaling = {"rope_type": "linear", "factor": 2.5}
    if setting["spelling"] == "new":
        return {"rope_parameters": {"rope_theta": theta, **(scaling or {"rope_type": "default"})}}
    if kind == "linear":
        scaling["type"] = scaling.pop("rope_type")  # as files of 2023 have it
    return {"rope_theta": theta, "rope_scaling": scaling or None}


CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3moe": "Qwen3MoeForCausalLM",
}


def transformer_config(arch: str, setting: dict, rng: random.Random) -> dict:
    """config.json of a llama, qwen2, qwen3 or qwen3moe model."""
    heads, kv_heads = rng.choice([(4, 2), (4, 2), (6, 3), (3, 1), (4, 4)])
    head_dim = rng.choice([6, 8, 10])
    hidden = heads * head_dim
    if setting.get("head_dim"):
        head_dim, hidden = rng.choice([10, 12, 14]), heads * rng.choice([7, 9])
    config = {
        "architectures": [CLASSES[arch]],
        "model_type": {"qwen3moe": "qwen3_moe"}.get(arch, arch),
        "vocab_size": 300 if setting.get("tokenizer") else rng.choice([59, 67, 83]),
        "hidden_size": hidden,
        "intermediate_size": rng.choice([37, 43, 50]),
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": setting["eps"],
        "tie_word_embeddings": setting["tie"],
        **rope_settings(setting),
    }
    # Keys that real files have and that must change nothing.
    if setting.get("head_dim"):
        config["head_dim"] = head_dim
    elif arch == "llama" and setting["spelling"] == "old":
        config["head_dim"] = None
    if arch != "llama":
        config.update(use_sliding_window=False, sliding_window=7, max_window_layers=1)
        if setting["spelling"] == "new":
            config["layer_types"] = ["full_attention", "full_attention"]
    if arch == "llama":
        config["attention_bias"] = setting.get("attention_bias", False)
        config["mlp_bias"] = setting.get("mlp_bias", False)
    if arch == "qwen3moe":
        experts, used = rng.choice([(5, 2), (8, 3), (6, 1)])
        config["num_experts" if setting["spelling"] == "old" else "num_local_experts"] = experts
        config.update(num_experts_per_tok=used, moe_intermediate_size=rng.choice([13, 18, 23]))
        config.update(norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[])
    config.update(setting.get("config", {}))
    if "layer_types" in config:
        config["layer_types"] = ["full_attention"] * config["num_hidden_layers"]
    return config


def one_each(state: dict) -> dict:
    """The weights with a tensor for each expert, from the stacks of all."""
    result = {}
    for name, tensor in state.items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            result[name] = tensor
            continue
        prefix, kind = name.rsplit(".", 1)
        for i, matrix in enumerate(tensor):
            parts = zip(("gate_proj", "up_proj"), matrix.chunk(2)) if kind == "gate_up_proj" else [(kind, matrix)]
            result.update({f"{prefix}.{i}.{part}.weight": rows.contiguous() for part, rows in parts})
    return result


def mamba_config(setting: dict, rng: random.Random) -> dict:
    """config.json of a mamba model."""
    hidden = rng.choice([19, 24, 29])
    return {
        "architectures": ["MambaForCausalLM"],
        "model_type": "mamba",
        "vocab_size": 304 if setting.get("tokenizer") else rng.choice([59, 67, 83]),
        "hidden_size": hidden,
        "state_size": setting.get("state", 16),
        "num_hidden_layers": 2,
        "expand": 2,
        "intermediate_size": 2 * hidden,
        "conv_kernel": setting.get("conv", 4),
        "use_bias": setting.get("use_bias", False),
        "use_conv_bias": setting.get("use_conv_bias", True),
        "hidden_act": "silu",
        "layer_norm_epsilon": setting["eps"],
        "time_step_rank": setting.get("rank", math.ceil(hidden / 16)) if setting["spelling"] == "new" else "auto",
        "residual_in_fp32": True,
        "tie_word_embeddings": setting["tie"],
    }


@torch.no_grad()
def randomise(model: torch.nn.Module, seed: int) -> None:
    """Give every parameter a non-trivial random value whose size keeps activations near one."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.uniform_(low, high, generator=generator)

    for name, tensor in sorted(model.named_parameters()):
        if "norm" in name:
            uniform(tensor, 0.5, 1.5)
        elif name.endswith("A_log"):
            uniform(tensor, math.log(0.3), math.log(12.0))
        elif name.endswith(".D"):
            uniform(tensor, -1.5, 1.5)
        elif name.endswith("dt_proj.bias"):
            uniform(tensor, -4.0, 1.0)
        elif name.endswith("bias"):
            tensor.normal_(0.0, 0.3, generator=generator)
        elif "embed" in name:
            tensor.normal_(0.0, 1.0, generator=generator)
        elif "conv1d" in name:
            tensor.normal_(0.0, 0.6, generator=generator)
        else:
            gain = 1.5 if ("q_proj" in name or "k_proj" in name or "mlp.gate." in name) else 1.0
            tensor.normal_(0.0, gain / math.sqrt(tensor.shape[-1]), generator=generator)


def tokens_for(vocab: int, seed: int, count: int = TOKEN_COUNT) -> torch.Tensor:
    """Token ids with repetitions, the first and the last id of the vocabulary among them."""
    rng = random.Random(f"tokens-{seed}")
    ids = [rng.randrange(vocab) for _ in range(count)]
    ids[3], ids[5] = 0, vocab - 1
    ids[20:26] = ids[8:14]
    return torch.tensor(ids, dtype=torch.int64)


@torch.no_grad()
def logits_of(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Logits [T, vocab] of one pass over the tokens."""
    return model(tokens[None], use_cache=False).logits[0].contiguous()


def quiet() -> None:
    """No progress bars and no notes about optional packages from transformers."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)


def load(directory: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """The model of a directory as transformers reads it, with plain attention and experts."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="eager").eval()
    return plain_experts(model)


def plain_experts(model: torch.nn.Module) -> torch.nn.Module:
    """The model with each expert's product computed by itself: the faster ways want rows of whole vectors."""
    if hasattr(model.config, "num_experts"):
        model.set_experts_implementation("eager")
    return model


def write_weights(directory: Path, state: dict, shards: int) -> None:
    """model.safetensors, or `shards` files with model.safetensors.index.json."""
    if shards == 1:
        save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(state)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = names[shard::shards]
        save_file({name: state[name] for name in part}, directory / file, metadata={"format": "pt"})
        weight_map.update({name: file for name in part})
    total = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def make(arch: str, seed: int, out: Path, variant: str | None = None) -> dict:
    """Write the model of (arch, variant, seed) into `out` and return its setting with `variant` and `std` added.

    Without a variant the seed picks one, so that a run over seeds covers them all.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    variants = VARIANTS[arch]
    variant = variant or list(variants)[seed % len(variants)]
    setting = dict(variants[variant])
    rng = random.Random(f"{arch}-{variant}-{seed}")
    config = mamba_config(setting, rng) if arch == "mamba" else transformer_config(arch, setting, rng)
    stored = setting.get("dtype", torch.float32)
    config["torch_dtype" if setting["spelling"] == "old" else "dtype"] = str(stored).removeprefix("torch.")
    config["bos_token_id"] = 0
    config["eos_token_id"] = [0, 2] if setting.get("rope") == "llama3" else 0

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    if setting.get("tokenizer"):
        build_tokenizer(out, 300)

    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(out), dtype=torch.float32).eval()
    plain_experts(model)
    randomise(model, seed)
    tokens = tokens_for(config["vocab_size"], seed)
    # Bring the logits to their size by the last tensor before them: the head, or the final norm if the head is tied.
    head = model.get_output_embeddings().weight
    if setting["tie"]:
        head = dict(model.named_parameters())["backbone.norm_f.weight" if arch == "mamba" else "model.norm.weight"]
    with torch.no_grad():
        head *= LOGIT_STD / logits_of(model, tokens).std()

    tied = "lm_head.weight" if setting["tie"] else ""
    state = {name: tensor.to(stored).contiguous() for name, tensor in model.state_dict().items() if name != tied}
    write_weights(out, state if setting.get("stacked") else one_each(state), setting.get("shards", 1))

    # The expectation comes from the files, not from the model in memory.
    logits = logits_of(load(out), tokens)
    exact = logits_of(load(out, torch.float64), tokens)
    save_file({"tokens": tokens, "logits": logits}, out / "expected.safetensors")
    setting.update(variant=variant, std=logits.std().item(), noise=(logits - exact).abs().max().item())
    return setting


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=VARIANTS)
    parser.add_argument("--variant", help="one of --list; without it the seed picks one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--gguf", action="store_true", help="also write OUT/model.gguf where the format can hold it")
    parser.add_argument("--fixtures", type=Path, help="write the models kept in the repository below this folder")
    parser.add_argument("--list", action="store_true", help="list architectures and variants")
    args = parser.parse_args()
    quiet()

    if args.list:
        for arch, variants in VARIANTS.items():
            print(arch, *variants)
        return
    if args.fixtures:
        jobs = [(arch, seed, args.fixtures / name, variant) for name, arch, variant, seed in FIXTURES]
    elif args.arch and args.out:
        jobs = [(args.arch, args.seed, args.out, args.variant)]
    else:
        parser.error("give --arch and --out, or --fixtures, or --list")
    for arch, seed, out, variant in jobs:
        setting = make(arch, seed, out, variant)
        if (args.gguf or args.fixtures) and setting.get("gguf", True):
            import to_gguf

            to_gguf.convert(out, out / "model.gguf")
        size = sum(file.stat().st_size for file in out.iterdir())
        print(f"{out}: {arch} {setting['variant']} seed {seed}, logit std {setting['std']:.2f}, "
              f"f32 against f64 {setting['noise']:.1e}, {size} bytes")


if __name__ == "__main__":
    main()
