#!/usr/bin/env python3
"""Run the recurrent layers of transformers, forward and backward, for the tests of crates/nn.

    python tools/reference/recurrent_layers.py --out crates/nn/tests/fixtures/recurrent.safetensors

writes for each case CASE.x (inputs [batch, time, width]), CASE.y (outputs), CASE.dy (the weights of the loss Σ y·dy),
CASE.dx (its gradient by x), and for every parameter CASE.param.NAME and CASE.grad.NAME, f32, under the names and in the
shapes of crates/nn. Every parameter is random, also those that start as ones or zeros. The same in f64 must stay within
1e-5 of it, else the fixture would test rounding and is refused.

Needs torch, transformers, safetensors.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.models.bamba.modeling_bamba import BambaConfig, BambaMixer
from transformers.models.falcon_h1.modeling_falcon_h1 import FalconH1Config, FalconH1Mixer, compute_mup_vector
from transformers.models.falcon_mamba.modeling_falcon_mamba import FalconMambaConfig, FalconMambaMixer
from transformers.models.granitemoehybrid.modeling_granitemoehybrid import (
    GraniteMoeHybridConfig,
    GraniteMoeHybridMambaLayer,
)
from transformers.models.jamba.modeling_jamba import JambaConfig, JambaMambaMixer
from transformers.models.kimi_linear.modeling_kimi_linear import KimiLinearConfig, KimiLinearDeltaAttention
from transformers.models.lfm2.modeling_lfm2 import Lfm2Config, Lfm2ShortConv
from transformers.models.mamba2.modeling_mamba2 import Mamba2Config, Mamba2Mixer
from transformers.models.minimax.modeling_minimax import MiniMaxConfig, MiniMaxLightningAttention
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHConfig, NemotronHMamba2Mixer
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet, Qwen3_5TextConfig
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextConfig, Qwen3NextGatedDeltaNet
from transformers.models.zamba2.modeling_zamba2 import Zamba2Config, Zamba2MambaMixer

# Longer than the longest chunk of either side.
BATCH, TIME, WIDTH = 2, 70, 12

MAMBA = {
    "in_proj.weight": "ssm_in.weight",
    "in_proj.bias": "ssm_in.bias",
    "conv1d.weight": "ssm_conv1d.weight",
    "conv1d.bias": "ssm_conv1d.bias",
    "x_proj.weight": "ssm_x.weight",
    "dt_proj.weight": "ssm_dt.weight",
    "dt_proj.bias": "ssm_dt.bias",
    "dt_layernorm.weight": "ssm_dt_norm.weight",
    "b_layernorm.weight": "ssm_b_norm.weight",
    "c_layernorm.weight": "ssm_c_norm.weight",
    "dt_bias": "ssm_dt.bias",
    "A_log": "ssm_a_log",
    "D": "ssm_d",
    "norm.weight": "ssm_norm.weight",
    "out_proj.weight": "ssm_out.weight",
    "out_proj.bias": "ssm_out.bias",
}
DELTA = MAMBA | {
    "in_proj_qkvz.weight": "ssm_in.weight",
    "in_proj_ba.weight": "ssm_ba.weight",
    "in_proj_qkv.weight": "attn_qkv.weight",
    "in_proj_z.weight": "attn_gate.weight",
    "in_proj_b.weight": "ssm_beta.weight",
    "in_proj_a.weight": "ssm_alpha.weight",
}
KIMI = {
    "q_proj.weight": "attn_q.weight",
    "k_proj.weight": "attn_k.weight",
    "v_proj.weight": "attn_v.weight",
    "forget_gate.f_a_proj.weight": "ssm_f_a.weight",
    "forget_gate.f_b_proj.weight": "ssm_f_b.weight",
    "forget_gate.dt_bias": "ssm_dt.bias",
    "forget_gate.A_log": "ssm_a_log",
    "b_proj.weight": "ssm_beta.weight",
    "g_a_proj.weight": "ssm_g_a.weight",
    "g_b_proj.weight": "ssm_g_b.weight",
    "o_norm.weight": "ssm_norm.weight",
    "o_proj.weight": "attn_output.weight",
}
LIGHTNING = {
    "qkv_proj.weight": "attn_qkv.weight",
    "norm.weight": "attn_norm_2.weight",
    "output_gate.weight": "attn_gate.weight",
    "out_proj.weight": "attn_output.weight",
}
SHORT_CONV = {
    f"{theirs}.{kind}": f"shortconv.{ours}.{kind}"
    for theirs, ours in [("in_proj", "in_proj"), ("conv", "conv"), ("out_proj", "out_proj")]
    for kind in ["weight", "bias"]
}

HYBRID = dict(hidden_size=WIDTH, mamba_d_state=8, mamba_d_conv=4, mamba_expand=2, mamba_n_heads=6, mamba_d_head=4)
LINEAR = dict(
    hidden_size=WIDTH,
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=6,
    linear_value_head_dim=5,
    linear_conv_kernel_dim=4,
    num_hidden_layers=1,
    layer_types=["linear_attention"],
    rms_norm_eps=1e-5,
)


def mamba2_shapes(groups):
    return {"ssm_a_log": (-1, 1), "ssm_d": (-1, 1), "ssm_norm.weight": (groups, -1)}


def falcon_h1(**options):
    config = FalconH1Config(
        **(HYBRID | options),
        num_hidden_layers=1,
        mamba_d_ssm=24,
        mamba_n_groups=2,
        mamba_conv_bias=True,
        mamba_proj_bias=True,
        projectors_bias=True,
        ssm_in_multiplier=0.7,
        ssm_multipliers=[0.9, 1.3, 0.6, 1.4, 0.8],
        time_step_limit=(0.0, float("inf")),
    )
    mixer = FalconH1Mixer(config, 0)
    mixer.register_buffer("mup_vector", compute_mup_vector(config))
    return mixer


def cases():
    """Name, module, names of its parameters, shapes that differ."""
    jamba = dict(hidden_size=WIDTH, num_hidden_layers=1, mamba_d_state=8, mamba_dt_rank=3, num_attention_heads=2)
    jamba |= dict(num_key_value_heads=1, use_mamba_kernels=False, mamba_proj_bias=True, rms_norm_eps=1e-5)
    yield "jamba", JambaMambaMixer(JambaConfig(**jamba), 0), MAMBA, {}
    falcon = FalconMambaConfig(hidden_size=WIDTH, state_size=8, time_step_rank=3, num_hidden_layers=1)
    yield "falcon-mamba", FalconMambaMixer(falcon, 0, initialize_mixer_weights=False), MAMBA, {}

    config = Mamba2Config(
        hidden_size=WIDTH, num_heads=6, head_dim=4, state_size=8, n_groups=2, num_hidden_layers=1, chunk_size=16
    )
    config.time_step_limit = (0.3, 1.1)
    yield "mamba2", Mamba2Mixer(config, 0), MAMBA, mamba2_shapes(2)
    options = dict(mamba_n_groups=1, mamba_conv_bias=False, mamba_proj_bias=True)
    options |= dict(num_hidden_layers=1, attn_layer_indices=[])
    yield "bamba", BambaMixer(BambaConfig(**HYBRID, **options), 0), MAMBA, mamba2_shapes(1)
    config = Zamba2Config(
        hidden_size=WIDTH,
        n_mamba_heads=6,
        mamba_headdim=4,
        mamba_d_state=8,
        mamba_ngroups=3,
        mamba_expand=2,
        time_step_min=0.4,
        num_hidden_layers=1,
        layers_block_type=["mamba"],
        num_attention_heads=2,
    )
    yield "zamba2", Zamba2MambaMixer(config, 0), MAMBA, mamba2_shapes(3)
    config = NemotronHConfig(
        hidden_size=WIDTH,
        mamba_num_heads=4,
        mamba_head_dim=5,
        ssm_state_size=8,
        n_groups=2,
        use_bias=False,
        use_conv_bias=True,
        time_step_min=0.4,
    )
    yield "nemotron-h", NemotronHMamba2Mixer(config, 0), MAMBA, mamba2_shapes(2)
    config = GraniteMoeHybridConfig(
        **HYBRID,
        mamba_n_groups=1,
        mamba_conv_bias=True,
        mamba_proj_bias=False,
        num_hidden_layers=1,
        layer_types=["mamba"],
    )
    yield "granite-hybrid", GraniteMoeHybridMambaLayer(config, 0), MAMBA, mamba2_shapes(1)
    yield "falcon-h1", falcon_h1(mamba_rms_norm=True, mamba_norm_before_gate=True), MAMBA, mamba2_shapes(2)
    yield "falcon-h1-gate-first", falcon_h1(mamba_rms_norm=True, mamba_norm_before_gate=False), MAMBA, mamba2_shapes(2)
    yield "falcon-h1-no-norm", falcon_h1(mamba_rms_norm=False), MAMBA, mamba2_shapes(2)

    yield "qwen3next", Qwen3NextGatedDeltaNet(Qwen3NextConfig(**LINEAR), 0), DELTA, {}
    yield "qwen3.5", Qwen3_5GatedDeltaNet(Qwen3_5TextConfig(**LINEAR), 0), DELTA, {}
    config = KimiLinearConfig(hidden_size=WIDTH, num_hidden_layers=1, rms_norm_eps=1e-5)
    config.linear_num_heads, config.linear_head_dim, config.linear_conv_kernel_dim = 3, 6, 4
    config.layer_types = ["linear_attention"]
    yield "kimi-linear", KimiLinearDeltaAttention(config, 0), KIMI, {"ssm_a_log": (-1, 1)}
    config = MiniMaxConfig(hidden_size=WIDTH, num_attention_heads=3, head_dim=6, num_hidden_layers=4, block_size=16)
    config.layer_types = ["linear_attention"] * 4
    yield "minimax", MiniMaxLightningAttention(config, 1), LIGHTNING, {}
    config = Lfm2Config(hidden_size=WIDTH, conv_L_cache=3, conv_bias=True, num_hidden_layers=1, layer_types=["conv"])
    yield "lfm2", Lfm2ShortConv(config, 0), SHORT_CONV, {}


def randomise(module, generator):
    """Parameters of the size that trained ones have, none of them equal to its initial value."""
    for name, p in module.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        with torch.no_grad():
            if name.endswith("A_log"):
                p.copy_(0.5 * noise)
            elif "norm" in name or name == "D":
                p.copy_(1 + 0.3 * noise)
            elif p.ndim == 1:
                p.copy_(0.3 * noise)
            elif p.ndim == 3:
                p.copy_(0.6 * noise)
            else:
                p.copy_(noise / p.shape[-1] ** 0.5)


def run(module, x, dy):
    module.zero_grad()
    x = x.clone().requires_grad_()
    if isinstance(module, MiniMaxLightningAttention):
        y = module(x, None, None)[0]
    else:
        y = module(x)
    (y * dy).sum().backward()
    # Clones, because changing the type of a module changes the gradients that it holds.
    return [y.detach(), x.grad] + [p.grad.clone() for p in module.parameters()]


def pieces(name, names, value):
    """A parameter under our names: one piece, but for the convolution that Kimi's three are joined in."""
    if name == "conv1d.weight" and name not in names:
        return [(f"ssm_conv1d_{part}.weight", v) for part, v in zip("qkv", value.chunk(3))]
    return [(names[name], value)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(7)
    out = {}
    for case, module, names, shapes in cases():
        module = module.float().eval()
        randomise(module, generator)
        x = torch.randn(BATCH, TIME, WIDTH, generator=generator)
        dy = torch.randn(BATCH, TIME, WIDTH, generator=generator)
        y, dx, *grads = run(module, x, dy)
        parameters = [(name, p.detach().clone()) for name, p in module.named_parameters()]
        # Some of the layers compute in f32 whatever they are given; then this only shows that they repeat.
        wide = [t.float() for t in run(module.double(), x.double(), dy.double())]
        for a, b in zip([y, dx, *grads], wide):
            worst = ((a - b).abs().max() / b.abs().max().clamp(min=1)).item()
            assert worst < 1e-5, f"{case}: f32 and f64 differ by {worst}"
        out |= {f"{case}.x": x, f"{case}.y": y, f"{case}.dy": dy, f"{case}.dx": dx}
        for (name, p), g in zip(parameters, grads):
            assert g.abs().max() > 1e-4, f"{case}: {name} does not matter"
            for kind, value in [("param", p), ("grad", g)]:
                for ours, part in pieces(name, names, value):
                    if part.ndim == 3:
                        part = part.squeeze(1)
                    if ours in shapes:
                        part = part.reshape(shapes[ours])
                    out[f"{case}.{kind}.{ours}"] = part.contiguous()
        print(f"{case}: std {y.std().item():.3f}, {len(grads)} parameters")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(out, args.out)


if __name__ == "__main__":
    main()
