#!/usr/bin/env python3
"""Record the first 20 training steps of a tiny llama and a tiny mamba in PyTorch, for the tests of crates/train.

    python tools/reference/train_fixture.py --out crates/train/tests/fixtures

writes OUT/train-llama and OUT/train-mamba, each with
  config.json, model.safetensors   the initial weights as a Hugging Face directory
  recipe.json                      optimizer settings: learning rate of every step, betas, eps, weight decay, the names
                                   it applies to, gradient clipping
  expected.safetensors             `tokens` i64 [steps, batch, T + 1] (inputs are [..., :-1], targets [..., 1:]),
                                   `losses` f32 [steps] (mean cross entropy over all targets of the step, before its
                                   update), `grad_norms` f32 [steps] (before clipping), and `grad.NAME` f32, the
                                   gradient of every parameter at the first step, before clipping

The optimizer is torch.optim.AdamW after torch.nn.utils.clip_grad_norm_ (factor max_norm / (norm + 1e-6), at most 1).
Weight decay applies to parameters of two or more dimensions except A_log. The same steps in f64 must stay within 2e-5
of the f32 losses, else the fixture would test rounding and is refused.

Needs torch, transformers, safetensors.
"""

import argparse
import json
import math
import random
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from tiny_models import load, quiet, randomise

STEPS, BATCH, LENGTH, VOCAB = 20, 2, 32, 64
BETAS, EPS, WEIGHT_DECAY, CLIP = (0.9, 0.95), 1e-8, 0.1, 1.0
PEAK_LR, WARMUP = 4e-3, 4

CONFIGS = {
    "train-llama": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 52,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "hidden_act": "silu",
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "float32",
    },
    "train-mamba": {
        "architectures": ["MambaForCausalLM"],
        "model_type": "mamba",
        "vocab_size": VOCAB,
        "hidden_size": 24,
        "state_size": 8,
        "num_hidden_layers": 2,
        "expand": 2,
        "intermediate_size": 48,
        "conv_kernel": 4,
        "use_bias": False,
        "use_conv_bias": True,
        "hidden_act": "silu",
        "layer_norm_epsilon": 1e-5,
        "time_step_rank": 2,
        "residual_in_fp32": True,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    },
}


def learning_rates() -> list[float]:
    """Linear warm-up over WARMUP steps, then a cosine to a tenth; step t counts from 0."""
    rates = []
    for step in range(STEPS):
        if step < WARMUP:
            rates.append(PEAK_LR * (step + 1) / WARMUP)
        else:
            progress = (step - WARMUP) / (STEPS - WARMUP)
            rates.append(PEAK_LR * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))))
    return rates


def batches() -> torch.Tensor:
    """Tokens [STEPS, BATCH, LENGTH + 1] of a random walk that a model can learn."""
    rng = random.Random("train-fixture")
    follow = [[rng.randrange(VOCAB) for _ in range(3)] for _ in range(VOCAB)]
    rows = []
    for _ in range(STEPS * BATCH):
        row = [rng.randrange(VOCAB)]
        while len(row) < LENGTH + 1:
            row.append(rng.choice(follow[row[-1]]) if rng.random() < 0.9 else rng.randrange(VOCAB))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.int64).reshape(STEPS, BATCH, LENGTH + 1)


def decays(name: str, tensor: torch.Tensor) -> bool:
    """Whether weight decay applies to a parameter."""
    return tensor.ndim >= 2 and not name.endswith("A_log")


def train(directory: Path, tokens: torch.Tensor, dtype: torch.dtype) -> tuple[list, list, dict]:
    """Losses, gradient norms and the first step's gradients of a run from the directory's weights."""
    model = load(directory, dtype).train()
    parameters = dict(model.named_parameters())
    groups = [
        {"params": [p for n, p in parameters.items() if decays(n, p)], "weight_decay": WEIGHT_DECAY},
        {"params": [p for n, p in parameters.items() if not decays(n, p)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LR, betas=BETAS, eps=EPS)
    losses, norms, first = [], [], {}
    for step, rate in enumerate(learning_rates()):
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = tokens[step, :, :-1], tokens[step, :, 1:]
        logits = model(inputs, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.to(dtype).reshape(-1, VOCAB), targets.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            first = {f"grad.{name}": p.grad.to(torch.float32).clone() for name, p in parameters.items()}
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP).item())
        optimizer.step()
        losses.append(loss.item())
    return losses, norms, first


def make(name: str, out: Path) -> None:
    """Write one fixture."""
    from transformers import AutoConfig, AutoModelForCausalLM

    directory = out / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    config = CONFIGS[name]
    (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory), dtype=torch.float32)
    randomise(model, seed=7)
    with torch.no_grad():
        for parameter, tensor in model.named_parameters():
            if parameter.endswith(("norm_f.weight", "model.norm.weight")):
                tensor *= 0.2  # logits small enough for a loss near ln(VOCAB)
    tied = "lm_head.weight" if config["tie_word_embeddings"] else ""
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items() if key != tied}
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})

    tokens = batches()
    losses, norms, gradients = train(directory, tokens, torch.float32)
    exact, _, exact_gradients = train(directory, tokens, torch.float64)
    worst = max(abs(a - b) / b for a, b in zip(losses, exact))
    worst_gradient = max(
        ((gradients[key] - exact_gradients[key]).abs().max() / exact_gradients[key].abs().max()).item()
        for key in gradients
    )
    if worst > 2e-5:
        raise SystemExit(f"{name}: f32 losses are {worst:.1e} from f64; choose gentler settings")
    if smallest := [key for key, value in gradients.items() if value.abs().max() < 1e-6]:
        raise SystemExit(f"{name}: no gradient to speak of for {smallest}")
    save_file(
        {"tokens": tokens, "losses": torch.tensor(losses), "grad_norms": torch.tensor(norms), **gradients},
        directory / "expected.safetensors",
    )
    recipe = {
        "learning_rates": learning_rates(),
        "betas": list(BETAS),
        "eps": EPS,
        "weight_decay": WEIGHT_DECAY,
        "decayed": sorted(n for n, p in model.named_parameters() if decays(n, p)),
        "clip_norm": CLIP,
        "clip_epsilon": 1e-6,
    }
    (directory / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")
    size = sum(file.stat().st_size for file in directory.iterdir())
    print(f"{directory}: loss {losses[0]:.4f} to {losses[-1]:.4f}, gradient norm {norms[0]:.2f} to {norms[-1]:.2f}, "
          f"f32 against f64: losses {worst:.1e}, gradients {worst_gradient:.1e}; {size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    quiet()
    for name in CONFIGS:
        make(name, args.out)


if __name__ == "__main__":
    main()
