#!/usr/bin/env python3
"""Convert a Hugging Face directory (llama, qwen2, qwen3, qwen3moe, mamba) to an f32 GGUF as llama.cpp's converter does.

    python tools/reference/to_gguf.py DIR OUT.gguf
    python tools/reference/to_gguf.py DIR OUT.gguf --compare /path/to/llama.cpp   # also run the original converter
                                                                                  # and require the same contents

Metadata keys, tensor names and layouts follow `convert_hf_to_gguf.py`: q and k rows of llama models are permuted from
the half-split to the interleaved RoPE order, llama-3 RoPE scaling becomes the tensor `rope_freqs.weight`, mamba's
A_log becomes A = -exp(A_log) and its conv1d weight loses the middle dimension; experts are stacked, layers without them refused. A tokenizer.json (byte-level BPE) is
embedded; without one the file says `tokenizer.ggml.model = no_vocab`. Biases of mamba's in_proj and out_proj have no
place in the format: such a model is refused; a missing conv bias, which llama.cpp insists on, is written as zeros.

Needs gguf, safetensors, numpy, torch; tokenizers for a directory with tokenizer.json.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import load_file


def read_weights(directory: Path) -> dict[str, np.ndarray]:
    """All tensors of the directory as f32."""
    tensors = {}
    for file in sorted(directory.glob("model*.safetensors")):
        tensors.update(load_file(file))
    if not tensors:
        raise SystemExit(f"{directory}: no model*.safetensors")
    return {name: tensor.to(torch.float32).numpy() for name, tensor in tensors.items()}


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k (weight or bias) from HF's half-split rotary order to llama.cpp's interleaved one."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def gguf_name(config: dict) -> str:
    """What GGUF calls the architecture."""
    return config["model_type"].replace("qwen3_moe", "qwen3moe")


def rope_of(config: dict) -> dict:
    """RoPE parameters from the newer spelling (rope_parameters) or the older (rope_theta, rope_scaling)."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope.setdefault("rope_type", rope.get("type", "default"))
    rope.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    return rope


def head_dim_of(config: dict) -> int:
    """Size of a head: head_dim, or hidden_size / num_attention_heads where that is absent or null."""
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def llama3_factors(rope: dict, head_dim: int) -> np.ndarray:
    """What each inverse frequency is divided by under llama-3 RoPE scaling, f32 [head_dim / 2]."""
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / head_dim)
        if wavelength < high:
            factors.append(1.0)
        elif wavelength > low:
            factors.append(rope["factor"])
        else:
            smooth = (rope["original_max_position_embeddings"] / wavelength - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def write_transformer_keys(writer: gguf.GGUFWriter, config: dict) -> None:
    """Metadata of llama, qwen2, qwen3 and qwen3moe."""
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if config["model_type"] == "qwen3_moe":
        if not config["norm_topk_prob"] or config["decoder_sparse_step"] != 1 or config["mlp_only_layers"]:
            raise SystemExit("layers without experts, and weights that are not normalised, have no place in GGUF")
        writer.add_expert_count(config.get("num_experts") or config["num_local_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    rope = rope_of(config)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif rope["rope_type"] not in ("default", "llama3"):
        raise SystemExit(f"RoPE type {rope['rope_type']!r} is not handled here")
    head_dim = head_dim_of(config)
    if config.get("head_dim") or config["model_type"] == "llama":
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if config["model_type"] == "llama":
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(head_dim)


def write_mamba_keys(writer: gguf.GGUFWriter, config: dict) -> None:
    """Metadata of mamba."""
    hidden, rank = config["hidden_size"], config["time_step_rank"]
    if config["use_bias"]:
        raise SystemExit("use_bias: GGUF has no names for the biases of mamba's in_proj and out_proj")
    if config["expand"] != 2:
        raise SystemExit(f"expand {config['expand']}: llama.cpp knows only 2")
    writer.add_context_length(2**20)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_ssm_conv_kernel(config["conv_kernel"])
    writer.add_ssm_inner_size(config["expand"] * hidden)
    writer.add_ssm_state_size(config["state_size"])
    writer.add_ssm_time_step_rank(math.ceil(hidden / 16) if rank == "auto" else rank)
    writer.add_layer_norm_rms_eps(config["layer_norm_epsilon"])
    writer.add_ssm_dt_b_c_rms(False)


def write_tokenizer(writer: gguf.GGUFWriter, directory: Path, vocab: int, pre: str) -> None:
    """Tokenizer metadata from tokenizer.json (byte-level BPE), or `no_vocab`."""
    file = directory / "tokenizer.json"
    if not file.exists():
        writer.add_tokenizer_model("no_vocab")
        return
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    tokens = {i: token for token, i in tokenizer["model"]["vocab"].items()}
    control = {added["id"]: added["content"] for added in tokenizer["added_tokens"] if added["special"]}
    tokens.update(control)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([tokens.get(i, f"[PAD{i}]") for i in range(vocab)])
    kind = gguf.TokenType
    writer.add_token_types(
        [kind.CONTROL if i in control else kind.NORMAL if i in tokens else kind.UNUSED for i in range(vocab)]
    )
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    ids = {content: i for i, content in control.items()}
    special = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    writer.add_bos_token_id(ids[special["bos_token"]])
    writer.add_eos_token_id(ids[special["eos_token"]])


def stack_experts(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights with gate_proj, up_proj and down_proj of all experts stacked, however they are stored."""
    result, experts = {}, {}
    for name, tensor in weights.items():
        prefix, _, rest = name.partition(".experts.")
        if rest == "gate_up_proj":
            gate, up = np.split(tensor, 2, axis=1)
            result.update({f"{prefix}.experts.gate_proj.weight": gate, f"{prefix}.experts.up_proj.weight": up})
        elif rest == "down_proj":
            result[f"{prefix}.experts.down_proj.weight"] = tensor
        elif rest:
            number, _, rest = rest.partition(".")
            experts.setdefault(f"{prefix}.experts.{rest}", {})[int(number)] = tensor
        else:
            result[name] = tensor
    result.update({name: np.stack([parts[i] for i in sorted(parts)]) for name, parts in experts.items()})
    return result


def tensors_of(config: dict, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors by GGUF name, in GGUF layout."""
    arch = gguf_name(config)
    model_arch = {value: key for key, value in gguf.MODEL_ARCH_NAMES.items()}[arch]
    names = gguf.get_tensor_name_map(model_arch, config["num_hidden_layers"])
    result = {}
    for name, tensor in stack_experts(weights).items():
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        mapped = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if mapped is None:
            raise SystemExit(f"{name}: no GGUF name for this tensor of {arch}")
        if arch == "llama" and name.split(".")[-2] in ("q_proj", "k_proj"):
            heads = config["num_attention_heads"] if "q_proj" in name else config["num_key_value_heads"]
            tensor = permute(tensor, heads)
        if name.endswith(".A_log"):
            tensor = -torch.exp(torch.from_numpy(tensor)).numpy()  # torch's exp, as in the original
        if "conv1d.weight" in name:
            tensor = tensor[:, 0, :]
        result[mapped] = np.ascontiguousarray(tensor)
    if arch == "mamba" and not config["use_conv_bias"]:
        for layer in range(config["num_hidden_layers"]):
            result[f"blk.{layer}.ssm_conv1d.bias"] = np.zeros(config["expand"] * config["hidden_size"], np.float32)
    if arch != "mamba" and rope_of(config)["rope_type"] == "llama3":
        result["rope_freqs.weight"] = llama3_factors(rope_of(config), head_dim_of(config))
    return result


def convert(directory: Path, out: Path, pre: str = "qwen2") -> None:
    """Write the GGUF of a Hugging Face directory. `pre` names the pre-tokenizer of its tokenizer.json."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    arch = gguf_name(config)
    writer = gguf.GGUFWriter(out, arch)
    writer.add_name(directory.name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    if arch == "mamba":
        write_mamba_keys(writer, config)
    else:
        write_transformer_keys(writer, config)
    if arch != "llama" and not (directory / "tokenizer.json").exists():
        writer.add_vocab_size(config["vocab_size"])
    write_tokenizer(writer, directory, config["vocab_size"], pre)
    for name, tensor in tensors_of(config, read_weights(directory)).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def contents(path: Path) -> tuple[dict, dict]:
    """Metadata values and tensors of a GGUF file."""
    reader = gguf.GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items()}
    return keys, {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


def compare(directory: Path, ours: Path, llama_cpp: Path, pre: str) -> None:
    """Run llama.cpp's own converter on the directory and fail unless its file says the same."""
    theirs = ours.with_suffix(".theirs.gguf")
    # Another process, because it brings its own version of the gguf package. Its table knows published tokenizers by
    # a hash of what they give for a text; ours is not published, so its name is put in.
    code = (
        "import runpy, sys; import conversion.base; "
        f"conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: {pre!r}; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    code = f"import sys; sys.argv = sys.argv[1:]; sys.path[:0] = [{str(llama_cpp)!r}, {str(llama_cpp / 'gguf-py')!r}]; {code}"
    script = str(llama_cpp / "convert_hf_to_gguf.py")
    command = [sys.executable, "-c", code, script, str(directory), "--outfile", str(theirs), "--outtype", "f32"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    (our_keys, our_tensors), (their_keys, their_tensors) = contents(ours), contents(theirs)
    theirs.unlink()
    ignored = ("GGUF.", "general.")
    wrong = []
    for key in sorted(set(our_keys) | set(their_keys)):
        if not key.startswith(ignored) and our_keys.get(key) != their_keys.get(key):
            wrong.append(f"{key}: {str(our_keys.get(key))[:80]} here, {str(their_keys.get(key))[:80]} there")
    for name in sorted(set(our_tensors) | set(their_tensors)):
        a, b = our_tensors.get(name), their_tensors.get(name)
        if a is None or b is None or not np.array_equal(a, b):
            wrong.append(f"tensor {name} differs")
    if wrong:
        raise SystemExit("\n".join(wrong))
    print(f"{ours}: same {len(our_tensors)} tensors and metadata as llama.cpp's converter")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pre", default="qwen2", help="name of the pre-tokenizer that tokenizer.json uses")
    parser.add_argument("--compare", type=Path, metavar="LLAMA_CPP", help="a llama.cpp source folder to compare with")
    args = parser.parse_args()
    convert(args.directory, args.out, args.pre)
    if args.compare:
        compare(args.directory, args.out, args.compare, args.pre)


if __name__ == "__main__":
    main()
