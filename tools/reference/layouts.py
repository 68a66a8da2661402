"""Layouts of weights that published checkpoints have and transformers' save_pretrained does not write.

Each function takes the tensors by name as saved, and the settings of the model, and returns those of the file.
"""

import torch

Tensors = dict[str, torch.Tensor]


def gpt2_original(state: Tensors, settings: dict) -> Tensors:
    """Names without `transformer.`, and the causal mask of each layer as `attn.bias`."""
    result = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    size = settings["n_positions"]
    for layer in range(settings["n_layer"]):
        result[f"h.{layer}.attn.bias"] = torch.ones(size, size).tril().reshape(1, 1, size, size)
    return result
