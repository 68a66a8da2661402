"""Layouts of weights that published checkpoints have and transformers' save_pretrained does not write.

Each function takes the tensors by name as saved, and the settings of the model, and returns those of the file; those
that round (for `_snap`) return the packed tensors and the same unpacked, from which the expectation is computed.
"""

import re

import torch

Tensors = dict[str, torch.Tensor]


def gpt2_original(state: Tensors, settings: dict) -> Tensors:
    """Names without `transformer.`, and the causal mask of each layer as `attn.bias`."""
    result = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    size = settings["n_positions"]
    for layer in range(settings["n_layer"]):
        result[f"h.{layer}.attn.bias"] = torch.ones(size, size).tril().reshape(1, 1, size, size)
    return result


def neox_buffers(state: Tensors, settings: dict) -> Tensors:
    """With the buffers of older versions of transformers: causal masks and RoPE frequencies."""
    result, size = dict(state), settings["hidden_size"] // settings["num_attention_heads"]
    for layer in range(settings["num_hidden_layers"]):
        prefix = f"gpt_neox.layers.{layer}.attention."
        result[prefix + "bias"] = torch.ones(1, 1, 48, 48, dtype=torch.uint8).tril()
        result[prefix + "masked_bias"] = torch.tensor(-1e9)
        result[prefix + "rotary_emb.inv_freq"] = settings["rotary_emb_base"] ** (-torch.arange(0, size, 2) / size)
    return result


def nested(state: Tensors, settings: dict) -> tuple[Tensors, Tensors]:
    """Names of the text model within a model for text and images (`_names`: pattern -> replacement), with tensors that are
    of no use for text (`_extra`: name -> shape); and the tensors as the text model alone has them."""
    packed = {}
    for name, tensor in state.items():
        for pattern, replacement in settings["_names"].items():
            name = re.sub(pattern, replacement, name)
        packed[name] = tensor
    generator = torch.Generator().manual_seed(7)
    return packed | {n: torch.randn(shape, generator=generator) for n, shape in settings["_extra"].items()}, state


def bert_position_ids(state: Tensors, settings: dict) -> Tensors:
    """With the position ids that older versions of transformers stored."""
    return {**state, "embeddings.position_ids": torch.arange(settings["max_position_embeddings"])[None]}


def bert_gamma_beta(state: Tensors, settings: dict) -> Tensors:
    """LayerNorm parameters by their TensorFlow names, and the tied decoder stored too."""
    result = {}
    for name, tensor in state.items():
        if "LayerNorm" in name:
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        result[name] = tensor
    result["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"].clone()
    return result


def without_pooler(state: Tensors, settings: dict) -> Tensors:
    """Without a pooler that is not published."""
    return {name: tensor for name, tensor in state.items() if "pooler" not in name}


def kimi_linear(state: Tensors, settings: dict) -> Tensors:
    """`mlp` in the layers without experts; save_pretrained says `block_sparse_moe` everywhere."""
    dense = re.compile(r"block_sparse_moe\.((?:gate|up|down)_proj\.)")
    return {dense.sub(r"mlp.\1", name): tensor for name, tensor in state.items()}


def without_constants(state: Tensors, settings: dict) -> tuple[Tensors, Tensors]:
    """Without the buffers that follow from the configuration; and with them."""
    return {name: tensor for name, tensor in state.items() if not re.search(settings["_constant"], name)}, state


def deepseek_mtp(state: Tensors, settings: dict) -> Tensors:
    """With a layer after the last one for predicting the token after the next, as published V3 checkpoints have it: its
    own norms, the projection of both inputs, and parts of a layer."""
    layer, hidden = settings["num_hidden_layers"], settings["hidden_size"]
    prefix, generator = f"model.layers.{layer}.", torch.Generator().manual_seed(7)
    result = dict(state)
    last = f"model.layers.{layer - 1}."
    for name in [name for name in state if name.startswith(last) and "experts" not in name]:
        result[prefix + name.removeprefix(last)] = torch.randn(state[name].shape, generator=generator)
    for norm in ("enorm", "hnorm", "shared_head.norm"):
        result[f"{prefix}{norm}.weight"] = torch.rand(hidden, generator=generator)
    result[prefix + "eh_proj.weight"] = torch.randn(hidden, 2 * hidden, generator=generator)
    return result


def fp8_blocks(state: Tensors, settings: dict) -> tuple[Tensors, Tensors]:
    """Projections as FP8 (e4m3) with an f32 factor for every block of 128 x 128, all else as bf16; and what they mean."""
    packed, plain = {}, {}
    for name, tensor in state.items():
        if not re.search(r"_proj(_with_mqa)?\.weight$", name):
            packed[name] = tensor if "correction_bias" in name else tensor.to(torch.bfloat16)
            plain[name] = packed[name].float()
            continue
        rows, columns = tensor.shape
        factors = torch.empty(-(-rows // 128), -(-columns // 128))
        eight, dense = torch.empty(rows, columns, dtype=torch.float8_e4m3fn), torch.empty(rows, columns)
        for i in range(factors.shape[0]):
            for j in range(factors.shape[1]):
                part = (slice(i * 128, (i + 1) * 128), slice(j * 128, (j + 1) * 128))
                factors[i, j] = tensor[part].abs().max() / 448
                eight[part] = (tensor[part] / factors[i, j]).to(torch.float8_e4m3fn)
                dense[part] = eight[part].float() * factors[i, j]
        packed[name], packed[name + "_scale_inv"], plain[name] = eight, factors, dense
    return packed, plain


def xlstm_fused(state: Tensors, settings: dict) -> tuple[Tensors, Tensors]:
    """As `weight_mode: fused` has it, which transformers reads but cannot make: its initial values are for `single`."""
    packed = dict(state)
    for fused, parts in {"mlstm_layer.qkv_opreact": ["q", "k", "v", "ogate_preact"],
                         "mlstm_layer.ifgate_preact": ["igate_preact", "fgate_preact"],
                         "ffn.proj_up_gate_z": ["proj_up_gate", "proj_up"]}.items():
        module = fused.split(".")[0]
        for name in [n for n in state if f".{module}.{parts[0]}." in n]:
            names = [name.replace(f".{parts[0]}.", f".{part}.") for part in parts]
            packed[name.replace(f"{module}.{parts[0]}", fused)] = torch.cat([packed.pop(n) for n in names])
    return packed, state


FP4 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])


def mxfp4_experts(state: Tensors, settings: dict) -> tuple[Tensors, Tensors]:
    """Experts' matrices [E, in, out] as MXFP4 `_blocks` [E, out, in / 32, 16] (two values to a byte, the first in the low
    half) and `_scales` [E, out, in / 32] (exponents with bias 127), all else as bf16; and what they mean."""
    packed, plain = {}, {}
    for name, tensor in state.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            packed[name] = tensor.to(torch.bfloat16)
            plain[name] = packed[name].float()
            continue
        blocks = tensor.transpose(1, 2).reshape(tensor.shape[0], tensor.shape[2], -1, 32)
        exponents = torch.floor(torch.log2(blocks.abs().amax(-1))) - 2
        scaled = blocks / torch.exp2(exponents)[..., None]
        codes = (scaled[..., None] - FP4).abs().argmin(-1)
        pairs = codes.reshape(*codes.shape[:-1], 16, 2)
        packed[name + "_blocks"] = (pairs[..., 0] + 16 * pairs[..., 1]).to(torch.uint8)
        packed[name + "_scales"] = (exponents + 127).to(torch.uint8)
        dense = FP4[codes] * torch.exp2(exponents)[..., None]
        plain[name] = dense.reshape(tensor.shape[0], tensor.shape[2], tensor.shape[1]).transpose(1, 2).contiguous()
    return packed, plain
