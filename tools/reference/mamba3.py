"""Mamba-3 in float64 NumPy, one token after the other, from the equations of its paper (Lahoti et al. 2026, propositions 1
to 5) and, where the paper leaves them open, from the definitions in the authors' repository state-spaces/mamba: the order
of the projection's parts, angles (pi * tanh), rates of decay, and the model around the layer (MambaLMHeadModel).

Works on a checkpoint as `mamba_ssm` saves it: config.json with `ssm_cfg`, names `backbone.layers.N.mixer.*`.
"""

import numpy as np

EPS = 1e-5  # of all norms


def options(c: dict) -> dict:
    """Sizes of the layer, those that `ssm_cfg` leaves out as in the authors' code."""
    s = {"d_state": 128, "expand": 2, "headdim": 64, "ngroups": 1, "rope_fraction": 0.5, "A_floor": 1e-4,
         "is_outproj_norm": False, "is_mimo": False, "mimo_rank": 4} | c["ssm_cfg"]
    s["inner"] = int(s["expand"] * c["d_model"])
    s["heads"] = s["inner"] // s["headdim"]
    s["rank"] = s["mimo_rank"] if s["is_mimo"] else 1
    s["angles"] = int(s["d_state"] * s["rope_fraction"]) // 2
    bc = s["rank"] * s["ngroups"] * s["d_state"]
    s["widths"] = [s["inner"], s["inner"], bc, bc, s["heads"], s["heads"], s["heads"], s["angles"]]
    return s


def round_up(n: int, step: int) -> int:
    return -(-n // step) * step


def shapes(c: dict) -> dict[str, tuple]:
    """Shapes of the tensors."""
    s, h, rank = options(c), c["d_model"], options(c)["rank"]
    result = {"backbone.embedding.weight": (round_up(c["vocab_size"], c["pad_vocab_size_multiple"]), h),
              "backbone.norm_f.weight": (h,)}
    if not c["tie_embeddings"]:
        result["lm_head.weight"] = result["backbone.embedding.weight"]
    for i in range(c["n_layer"]):
        layer = f"backbone.layers.{i}."
        m = layer + "mixer."
        result |= {layer + "norm.weight": (h,), m + "in_proj.weight": (sum(s["widths"]), h), m + "dt_bias": (s["heads"],),
                   m + "D": (s["heads"],), m + "out_proj.weight": (h, s["inner"])}
        for x in "BC":
            result |= {f"{m}{x}_norm.weight": (s["d_state"],), f"{m}{x}_bias": (s["heads"], rank, s["d_state"])}
        if s["is_mimo"]:
            result |= {f"{m}mimo_{x}": (s["heads"], rank, s["headdim"]) for x in "xzo"}
        if s["is_outproj_norm"]:
            result[m + "norm.weight"] = (s["inner"],)
        if c["d_intermediate"]:
            f = round_up(c["d_intermediate"], 128)
            result |= {layer + "norm2.weight": (h,), layer + "mlp.fc1.weight": (2 * f, h), layer + "mlp.fc2.weight": (h, f)}
    return result


def rms_norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * weight


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


class Mixer:
    """One layer with its memory."""

    def __init__(self, w: dict, name: str, s: dict):
        self.w, self.name, self.s = w, name, s
        h, r, n, p = s["heads"], s["rank"], s["d_state"], s["headdim"]
        self.angle = np.zeros((h, s["angles"]))
        self.memory = np.zeros((h, n, p))
        self.key, self.value = np.zeros((h, r, n)), np.zeros((h, r, p))

    def turned(self, x: np.ndarray) -> np.ndarray:
        """x [heads, rank, state] with its pairs turned: neighbours, or with several inputs i and i + state / 2."""
        x, half = x.copy(), self.s["d_state"] // 2
        for j in range(self.s["angles"]):
            a, b = (j, j + half) if self.s["is_mimo"] else (2 * j, 2 * j + 1)
            cos, sin = np.cos(self.angle[:, j, None]), np.sin(self.angle[:, j, None])
            x[..., a], x[..., b] = x[..., a] * cos - x[..., b] * sin, x[..., a] * sin + x[..., b] * cos
        return x

    def __call__(self, x: np.ndarray) -> np.ndarray:
        s, w = self.s, {k.removeprefix(self.name): v for k, v in self.w.items() if k.startswith(self.name)}
        h, r, n, p, g = s["heads"], s["rank"], s["d_state"], s["headdim"], s["ngroups"]
        z, x, b, c, dt, a, lam, angle = np.split(w["in_proj.weight"] @ x, np.cumsum(s["widths"])[:-1])
        dt = np.log1p(np.exp(dt + w["dt_bias"]))
        rate = np.where(a > 0, 1 + a, 1 / (1 - np.minimum(a, 0)))
        decay = np.exp(-np.maximum(rate, s["A_floor"]) * dt)[:, None, None]
        lam = sigmoid(lam)[:, None, None]
        self.angle = self.angle + np.pi * np.tanh(angle) * dt[:, None]
        dt = dt[:, None, None]

        def rows(y: np.ndarray, which: str) -> np.ndarray:
            y = rms_norm(y.reshape(r, g, n), w[which + "_norm.weight"]).repeat(h // g, axis=1)
            return self.turned(y.transpose(1, 0, 2) + w[which + "_bias"])

        key, query = rows(b, "B"), rows(c, "C")
        x, z = x.reshape(h, 1, p), z.reshape(h, 1, p)
        if s["is_mimo"]:
            x, z = x * w["mimo_x"], z * w["mimo_z"]
        # The trapezoidal rule: a share of the input before, decayed, and one of this.
        before = (1 - lam) * dt * decay * np.einsum("hrn,hrp->hnp", self.key, self.value)
        self.memory = decay * self.memory + before + lam * dt * np.einsum("hrn,hrp->hnp", key, x)
        self.key, self.value = key, x
        y = np.einsum("hrn,hnp->hrp", query, self.memory) + w["D"][:, None, None] * x
        if s["is_outproj_norm"]:
            y = rms_norm(y, w["norm.weight"].reshape(h, 1, p))
        y = y * z * sigmoid(z)
        y = (y * w["mimo_o"]).sum(1) if s["is_mimo"] else y[:, 0]
        return w["out_proj.weight"] @ y.reshape(-1)


def mamba3_logits(w: dict, config: dict, tokens: list[int]) -> np.ndarray:
    """Logits [T, vocab] of a checkpoint whose tensors `w` are f64; the vocabulary is that of the padded embedding."""
    layers = [f"backbone.layers.{i}." for i in range(config["n_layer"])]
    mixers = [Mixer(w, layer + "mixer.", options(config)) for layer in layers]
    embedding = w["backbone.embedding.weight"]
    result = []
    for token in tokens:
        x = embedding[token]
        for layer, mixer in zip(layers, mixers):
            x = x + mixer(rms_norm(x, w[layer + "norm.weight"]))
            if config["d_intermediate"]:
                up, gate = np.split(w[layer + "mlp.fc1.weight"] @ rms_norm(x, w[layer + "norm2.weight"]), 2)
                x = x + w[layer + "mlp.fc2.weight"] @ (up * gate * sigmoid(gate))
        result.append(w.get("lm_head.weight", embedding) @ rms_norm(x, w["backbone.norm_f.weight"]))
    return np.stack(result)
