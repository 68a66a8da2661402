#!/usr/bin/env python3
"""Record recurrent layers in PyTorch, values and gradients, for the tests of crates/nn.

    python tools/reference/recurrent_papers.py --out crates/nn/tests/fixtures/papers

writes OUT/LAYER.safetensors, all f32 rounded from f64:
  x, first    the input [batch, tokens, hidden]; for a later RWKV-7 layer the values of the first
  dy          by which the result is weighted to make the loss
  y           the result; for the first RWKV-7 layer also `values`, which it hands on
  p.NAME      the parameters under the names of crates/nn
  g.NAME      the gradients of sum(y * dy) by the parameters, g.x and g.first those by the inputs

Every layer is a transcription of its paper's recurrence, one token after another, in f64:
  rwkv6   Peng et al. 2024, "Eagle and Finch", sections 4.1 to 4.3
  rwkv7   Peng et al. 2025, "RWKV-7 Goose", section 4
  slstm   Beck et al. 2024, "xLSTM", equations 8 to 18, with exponential input gates and sigmoid forget gates
  mamba3  Lahoti et al. 2026, "Mamba-3", propositions 1 to 5; angles as in the authors' code (pi * tanh)
but mlstm, which is transformers' own xLSTMLayer.

Needs torch, transformers, safetensors.
"""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.set_default_dtype(torch.float64)
BATCH, TOKENS, HIDDEN = 2, 40, 16


class Parameters:
    """Random parameters, made when they are first asked for."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.all = {}

    def __call__(self, name, *shape, scale=0.5, offset=0.0):
        if name not in self.all:
            value = torch.randn(shape, generator=self.generator) * scale + offset
            # Rounded first, so that both sides compute with the same numbers.
            self.all[name] = value.float().double().requires_grad_()
        return self.all[name]


def before(x):
    """The token before each."""
    return F.pad(x, (0, 0, 1, 0))[:, :-1]


def head_norm(p, y, name, eps):
    b, t, h, d = y.shape
    y = F.layer_norm(y, (d,), eps=eps).reshape(b, t, h * d)
    return y * p(f"{name}.weight", h * d, offset=1) + p(f"{name}.bias", h * d)


def rwkv6(p, x, head=8, mix=3, rank=5):
    b, t, c = x.shape
    h = c // head
    dx = before(x) - x
    low = torch.tanh((x + dx * p("time_mix_lerp_x.weight", c)) @ p("time_mix_w1.weight", 5 * mix, c).T)
    w2, lerp = p("time_mix_w2.weight", 5, c, mix), p("time_mix_lerp_fused.weight", 5, 1, 1, c)
    xs = [x + dx * (low[..., i * mix : (i + 1) * mix] @ w2[i].T + lerp[i, 0, 0]) for i in range(5)]
    xw, xk, xv, xr, xg = xs
    r, k, v = (
        (x @ p(f"time_mix_{n}.weight", c, c).T).reshape(b, t, h, head)
        for n, x in [("receptance", xr), ("key", xk), ("value", xv)]
    )
    g = F.silu(xg @ p("time_mix_gate.weight", c, c).T)
    w = torch.tanh(xw @ p("time_mix_decay_w1.weight", rank, c).T) @ p("time_mix_decay_w2.weight", c, rank).T
    # Decays from nearly 1 to nearly 0.
    w = torch.exp(-torch.exp(w + p("time_mix_decay.weight", c, scale=2.0))).reshape(b, t, h, head)
    u = p("time_mix_first.weight", h, head)
    s, ys = torch.zeros(b, h, head, head), []
    for i in range(t):
        kv = k[:, i, :, :, None] * v[:, i, :, None, :]
        ys.append(torch.einsum("bhk,bhkv->bhv", r[:, i], s + u[..., None] * kv))
        s = w[:, i, :, :, None] * s + kv
    y = head_norm(p, torch.stack(ys, 1), "time_mix_ln", 64e-5)
    return {"y": (y * g) @ p("time_mix_output.weight", c, c).T}


def channel6(p, x, inner=24):
    c = x.shape[2]
    dx = before(x) - x
    xk, xr = (x + dx * p(f"channel_mix_lerp_{n}.weight", c) for n in "kr")
    k = torch.relu(xk @ p("channel_mix_key.weight", inner, c).T) ** 2
    r = torch.sigmoid(xr @ p("channel_mix_receptance.weight", c, c).T)
    return {"y": r * (k @ p("channel_mix_value.weight", c, inner).T)}


def channel7(p, x, inner=24):
    c = x.shape[2]
    xk = x + (before(x) - x) * p("channel_mix_lerp_k.weight", c)
    k = torch.relu(xk @ p("channel_mix_key.weight", inner, c).T) ** 2
    return {"y": k @ p("channel_mix_value.weight", c, inner).T}


def rwkv7(p, x, first=None, head=8, ranks=(3, 4, 2, 5)):
    b, t, c = x.shape
    h = c // head
    rw, ra, rv, rg = ranks
    dx = before(x) - x
    lerp = p("time_mix_lerp_fused.weight", 6, 1, 1, c)
    xr, xw, xk, xv, xa, xg = (x + dx * lerp[i, 0, 0] for i in range(6))

    def low(n, x, rank, act):
        return act(x @ p(f"time_mix_{n}1.weight", rank, c).T) @ p(f"time_mix_{n}2.weight", c, rank).T

    def same(x):
        return x

    r, k, v = (x @ p(f"time_mix_{n}.weight", c, c).T for n, x in [("receptance", xr), ("key", xk), ("value", xv)])
    w = torch.exp(-math.exp(-0.5) * torch.sigmoid(p("time_mix_w0.weight", c, scale=2.0) + low("w", xw, rw, torch.tanh)))
    values = v
    if first is not None:
        v = v + (first - v) * torch.sigmoid(p("time_mix_v0.weight", c) + low("v", xv, rv, same))
    a = torch.sigmoid(p("time_mix_a0.weight", c) + low("a", xa, ra, same))
    g = low("g", xg, rg, torch.sigmoid)
    kk = F.normalize((k * p("time_mix_k_k.weight", c, offset=1)).reshape(b, t, h, head), dim=-1)
    k = k * (1 + (a - 1) * p("time_mix_k_a.weight", c, offset=1))
    r, w, k, v, a = (x.reshape(b, t, h, head) for x in (r, w, k, v, a))
    # The paper's state is the transpose: S <- S (diag(w) - kk^T (a * kk)) + v^T k, y = S r.
    s, ys = torch.zeros(b, h, head, head), []
    for i in range(t):
        read = torch.einsum("bhvk,bhk->bhv", s, -kk[:, i])
        s = s * w[:, i, :, None, :] + read[..., None] * (kk * a)[:, i, :, None, :]
        s = s + v[:, i, :, :, None] * k[:, i, :, None, :]
        ys.append(torch.einsum("bhvk,bhk->bhv", s, r[:, i]))
    y = head_norm(p, torch.stack(ys, 1), "time_mix_ln", 64e-5)
    own = (r * k * p("time_mix_r_k.weight", c).reshape(h, head)).sum(-1, keepdim=True)
    y = (y + (own * v).reshape(b, t, c)) * g
    y = y @ p("time_mix_output.weight", c, c).T
    return {"y": y} if first is not None else {"y": y, "values": values}


def mlstm(p, x, heads=2):
    from transformers.models.xlstm.configuration_xlstm import xLSTMConfig
    from transformers.models.xlstm.modeling_xlstm import xLSTMLayer

    b, t, c = x.shape
    # Chunks of 8, a backend that keeps f64.
    config = xLSTMConfig(
        hidden_size=c,
        num_heads=heads,
        qk_dim_factor=0.5,
        v_dim_factor=1.0,
        use_bias=True,
        chunk_size=8,
        mode="train",
        norm_reduction_force_float32=False,
        gate_soft_cap=15.0,
    )
    layer = xLSTMLayer(config).double()
    names = {"q": "q", "k": "k", "v": "v", "ogate_preact": "ogate", "igate_preact": "igate", "fgate_preact": "fgate"}
    names |= {"out_proj": "out", "multihead_norm": "norm"}
    values = {}
    for name, value in layer.named_parameters():
        module, kind = name.rsplit(".", 1)
        ours = f"mlstm_{names[module]}.{kind}"
        offset = 1.0 if ours == "mlstm_norm.weight" else 0.0
        values[name] = p(ours, *value.shape, offset=offset, scale=2.0 if "igate" in ours else 0.5)
    y, _ = torch.func.functional_call(layer, values, (x,))
    return {"y": y}


def slstm(p, x, heads=2, conv=4):
    b, t, c = x.shape
    d = c // heads
    weight = p("slstm_conv1d.weight", c, conv)
    smooth = F.conv1d(F.pad(x.transpose(1, 2), (conv - 1, 0)), weight[:, None], p("slstm_conv1d.bias", c), groups=c)
    smooth = F.silu(smooth).transpose(1, 2)
    gates = []
    for pair, x in [("if", smooth), ("zo", x)]:
        w = p(f"slstm_{pair}.weight", heads, 2 * d, d).reshape(heads, 2, d, d)
        y = torch.einsum("bthd,hgod->bthgo", x.reshape(b, t, heads, d), w)
        gates += [y[..., i, :] + p(f"slstm_{n}.bias", heads, d) for i, n in enumerate(pair)]
    mix = p("slstm_mix.weight", heads, d, 4, d)
    y, c_, n = (torch.zeros(b, heads, d) for _ in range(3))
    ys = []
    for s in range(t):
        i, f, z, o = (gates[k][:, s] + torch.einsum("bhd,hdo->bho", y, mix[:, :, k]) for k in range(4))
        # f64 holds what a stabiliser would keep small.
        i, f = torch.exp(i), torch.sigmoid(f)
        c_ = f * c_ + i * torch.tanh(z)
        n = f * n + i
        y = torch.sigmoid(o) * c_ / n
        ys.append(y)
    y = F.layer_norm(torch.stack(ys, 1), (d,), eps=1e-5).reshape(b, t, c)
    return {"y": y * p("slstm_norm.weight", c, offset=1)}


def mamba3(p, x, rank=None, pairs="neighbours", angles=3, decay="heavy", norm=False, groups=1):
    b, t, c = x.shape
    h, d, n, r = 4, 4, 6, rank or 1
    widths = [h * d, h * d, r * groups * n, r * groups * n, h, h, h, angles]
    parts = torch.split(x @ p("ssm_in.weight", sum(widths), c).T, widths, dim=-1)
    z, x, bs, cs, dt, a, trapezoid, angle = parts
    dt = F.softplus(dt + p("ssm_dt.bias", h))
    rate = F.softplus(a) if decay == "softplus" else torch.where(a > 0, 1 + a, 1 / (1 - a.clamp(max=0)))
    alpha = torch.exp(-rate.clamp(min=1e-4) * dt)
    lam = torch.sigmoid(trapezoid)

    def rows(x, which):
        x = x.reshape(b, t, r, groups, n)
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * p(f"ssm_{which}_norm.weight", n, offset=1)
        x = x.repeat_interleave(h // groups, dim=3).transpose(2, 3)
        return x + p(f"ssm_{which}_bias", h, r, n, offset=1)

    ks, qs = rows(bs, "b"), rows(cs, "c")
    x, z = x.reshape(b, t, h, 1, d), z.reshape(b, t, h, 1, d)
    if rank:
        x, z = x * p("ssm_mimo_x", h, r, d), z * p("ssm_mimo_z", h, r, d)

    def turn(x, theta):
        left, right = (x[..., 0::2], x[..., 1::2]) if pairs == "neighbours" else (x[..., : n // 2], x[..., n // 2 :])
        theta = F.pad(theta, (0, n // 2 - angles))[:, :, None]
        left, right = left * theta.cos() - right * theta.sin(), left * theta.sin() + right * theta.cos()
        return torch.stack([left, right], -1 if pairs == "neighbours" else -2).reshape(x.shape)

    theta, s = torch.zeros(b, h, angles), torch.zeros(b, h, n, d)
    k, v = torch.zeros(b, h, r, n), torch.zeros(b, h, r, d)
    ys = []
    for i in range(t):
        theta = theta + math.pi * torch.tanh(angle[:, i, None]) * dt[:, i, :, None]
        al, la, de = (x[:, i, :, None, None] for x in (alpha, lam, dt))
        s = al * s + (1 - la) * de * al * (k.transpose(2, 3) @ v)
        k, v = turn(ks[:, i], theta), x[:, i]
        s = s + la * de * (k.transpose(2, 3) @ v)
        ys.append(turn(qs[:, i], theta) @ s)
    y = torch.stack(ys, 1) + p("ssm_d", h)[:, None, None] * x
    if norm:
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5)
        y = y * p("ssm_norm.weight", h * d, offset=1).reshape(h, 1, d)
    y = y * F.silu(z)
    y = (y * p("ssm_mimo_out", h, r, d)).sum(3) if rank else y.squeeze(3)
    return {"y": y.reshape(b, t, h * d) @ p("ssm_out.weight", c, h * d).T}


LAYERS = {
    "rwkv6": rwkv6,
    "rwkv6-channel": channel6,
    "rwkv7-first": rwkv7,
    "rwkv7": lambda p, x: rwkv7(p, x, p("first", *x.shape, scale=1.0)),
    "rwkv7-channel": channel7,
    "mlstm": mlstm,
    "slstm": slstm,
    "mamba3-siso": lambda p, x: mamba3(p, x, decay="softplus", groups=2),
    "mamba3-mimo": lambda p, x: mamba3(p, x, rank=2, pairs="halves", angles=2, norm=True),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for seed, (name, layer) in enumerate(LAYERS.items()):
        p = Parameters(seed)
        x = p("x", BATCH, TOKENS, HIDDEN, scale=1.0)
        results = layer(p, x)
        dy = torch.randn(results["y"].shape, generator=p.generator).float().double()
        (results["y"] * dy).sum().backward()
        tensors = {k: v.detach() for k, v in results.items()} | {"dy": dy}
        for key, value in p.all.items():
            tensors[key if key in ("x", "first") else f"p.{key}"] = value.detach()
            tensors[f"g.{key}"] = value.grad
        save_file({k: v.float().contiguous() for k, v in tensors.items()}, out / f"{name}.safetensors")
        print(f"{name}: y std {results['y'].std():.3f}, {sum(v.numel() for v in p.all.values())} numbers")


if __name__ == "__main__":
    main()
