"""RWKV-6 and RWKV-7 in float64 NumPy, one token after the other, from the equations of their papers.

Papers: Eagle and Finch (arXiv 2404.05892, section 4) and RWKV-7 Goose (arXiv 2503.14456, section 4). Both functions take
the tensors of a published Hugging Face checkpoint by name (as f64), its config.json and the token ids [T], and return the
logits [T, vocab]. llama.cpp's RWKV-7 kernel reads and writes past heads that are shorter than its vectors, so small
models need this; foreign_models.py compares both where llama.cpp is right.
"""

import numpy as np

GROUP_EPS = 64e-5  # of the norm of each head: 1e-5 times 64, in RWKV-7 the head size times the epsilon of the norms


def layer_norm(x: np.ndarray, w: dict, name: str, eps: float) -> np.ndarray:
    """LayerNorm with weight and bias."""
    return (x - x.mean()) / np.sqrt(x.var() + eps) * w[name + ".weight"] + w[name + ".bias"]


def head_norm(x: np.ndarray, w: dict, name: str, eps: float) -> np.ndarray:
    """Norm of each head [heads, size] with weight and bias over all of them [heads * size]."""
    normed = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + eps)
    return normed.reshape(-1) * w[name + ".weight"] + w[name + ".bias"]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def rwkv6_logits(w: dict, config: dict, tokens: list[int]) -> np.ndarray:
    """Logits of an RWKV-6 checkpoint. Halving the residual stream every so many layers, which only keeps f16 in range,
    is left out: it changes nothing but the weight of the norms' epsilon."""
    eps, size, layers = config["layer_norm_epsilon"], config["head_size"], config["num_hidden_layers"]
    heads = config["hidden_size"] // size
    shift = np.zeros((layers, 2, config["hidden_size"]))
    memory = np.zeros((layers, heads, size, size))
    result = []
    for token in tokens:
        x = layer_norm(w["rwkv.embeddings.weight"][token], w, "rwkv.blocks.0.pre_ln", eps)
        for i in range(layers):
            block = f"rwkv.blocks.{i}."
            att, ffn = block + "attention.", block + "feed_forward."
            now = layer_norm(x, w, block + "ln1", eps)
            before, shift[i, 0] = shift[i, 0] - now, now
            low = np.tanh((now + before * w[att + "time_maa_x"].ravel()) @ w[att + "time_maa_w1"]).reshape(5, -1)
            mixed = {}
            for j, part in enumerate("wkvrg"):
                mix = w[f"{att}time_maa_{part}"].ravel() + low[j] @ w[att + "time_maa_w2"][j]
                mixed[part] = now + before * mix
            decay = np.tanh(mixed["w"] @ w[att + "time_decay_w1"]) @ w[att + "time_decay_w2"]
            decay = np.exp(-np.exp(w[att + "time_decay"].ravel() + decay)).reshape(heads, size)
            r, k, v = ((w[f"{att}{n}.weight"] @ mixed[m]).reshape(heads, size)
                       for n, m in (("receptance", "r"), ("key", "k"), ("value", "v")))
            gate = w[att + "gate.weight"] @ mixed["g"]
            pair = k[:, :, None] * v[:, None, :]
            out = np.einsum("hi,hij->hj", r, memory[i] + w[att + "time_faaaa"][:, :, None] * pair)
            memory[i] = decay[:, :, None] * memory[i] + pair
            x = x + w[att + "output.weight"] @ (head_norm(out, w, att + "ln_x", GROUP_EPS) * gate * sigmoid(gate))
            now = layer_norm(x, w, block + "ln2", eps)
            before, shift[i, 1] = shift[i, 1] - now, now
            k = w[ffn + "key.weight"] @ (now + before * w[ffn + "time_maa_k"].ravel())
            r = sigmoid(w[ffn + "receptance.weight"] @ (now + before * w[ffn + "time_maa_r"].ravel()))
            x = x + r * (w[ffn + "value.weight"] @ np.maximum(k, 0) ** 2)
        result.append(w["head.weight"] @ layer_norm(x, w, "rwkv.ln_out", eps))
    return np.stack(result)


def rwkv7_logits(w: dict, config: dict, tokens: list[int]) -> np.ndarray:
    """Logits of an RWKV-7 checkpoint."""
    eps, size, layers = config["norm_eps"], config["head_dim"], config["num_hidden_layers"]
    heads = config["hidden_size"] // size
    shift = np.zeros((layers, 2, config["hidden_size"]))
    memory = np.zeros((layers, heads, size, size))  # value by key
    result = []

    def low_rank(x: np.ndarray, name: str, inner) -> np.ndarray:
        return w[name + ".lora.2.weight"] @ inner(w[name + ".lora.0.weight"] @ x) + w.get(name + ".lora.2.bias", 0.0)

    for token in tokens:
        x = layer_norm(w["model.embeddings.weight"][token], w, "model.layers.0.pre_norm", eps)
        first_value = None
        for i in range(layers):
            layer = f"model.layers.{i}."
            att, ffn = layer + "attn.", layer + "ffn."
            now = layer_norm(x, w, layer + "attn_norm", eps)
            before, shift[i, 0] = shift[i, 0] - now, now
            mixed = {part: now + before * w[f"{att}x_{part}"].ravel() for part in "rwkvag"}
            r, k, v = (w[f"{att}{part}_proj.weight"] @ mixed[part] for part in "rkv")
            decay = np.exp(-np.exp(-0.5) * sigmoid(low_rank(mixed["w"], att + "w_lora", np.tanh)))
            if first_value is None:
                first_value = v
            else:
                v = v + (first_value - v) * sigmoid(low_rank(mixed["v"], att + "v_lora", lambda y: y))
            rate = sigmoid(low_rank(mixed["a"], att + "a_lora", lambda y: y))
            gate = low_rank(mixed["g"], att + "g_lora", sigmoid)
            removal = (k * w[att + "k_k"]).reshape(heads, size)
            removal = removal / np.maximum(np.linalg.norm(removal, axis=1, keepdims=True), 1e-12)
            k = k * (1 + (rate - 1) * w[att + "k_a"])
            r, k, v, decay, rate = (y.reshape(heads, size) for y in (r, k, v, decay, rate))
            removed = np.einsum("hvk,hk->hv", memory[i], removal)
            memory[i] = (memory[i] * decay[:, None, :] - removed[:, :, None] * (removal * rate)[:, None, :]
                         + v[:, :, None] * k[:, None, :])
            out = head_norm(np.einsum("hvk,hk->hv", memory[i], r), w, att + "g_norm", size * eps)
            bonus = (r * k * w[att + "r_k"]).sum(1, keepdims=True) * v
            x = x + w[att + "o_proj.weight"] @ ((out + bonus.reshape(-1)) * gate)
            now = layer_norm(x, w, layer + "ffn_norm", eps)
            before, shift[i, 1] = shift[i, 1] - now, now
            k = w[ffn + "key.weight"] @ (now + before * w[ffn + "x_k"])
            x = x + w[ffn + "value.weight"] @ np.maximum(k, 0) ** 2
        result.append(w["lm_head.weight"] @ layer_norm(x, w, "model.norm", eps))
    return np.stack(result)
