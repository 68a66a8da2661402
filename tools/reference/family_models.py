#!/usr/bin/env python3
"""Make tiny random models of every family in families/, with what transformers computes from them.

    python tools/reference/family_models.py --list
    python tools/reference/family_models.py --out DIR gemma2 llama-yarn      # families or single models; none means all
    python tools/reference/family_models.py --out DIR --keys gemma2          # also say which config keys have no effect
    LLAMA_CPP=/path python tools/reference/family_models.py --out DIR --gguf gemma2   # and model.gguf by its converter

Each model becomes DIR/NAME with `config.json`, `model.safetensors` (f32, in the layout of published checkpoints) and
`expected.safetensors`: `tokens` (i64 [T]) with `logits` (f32 [T, vocab]) for decoders; `hidden` (f32 [T, hidden]) for
encoders, with `batch_tokens`, `batch_mask` (i64 [2, T]) and `batch_hidden` (f32 [2, T, hidden], only where the mask is
one) for a batch with padding and, where the directory declares a pooling, `batch_embedding` (f32 [2, hidden]); `scores`
(f32 [2, classes], of that batch) for classifiers.

No tensor is trivial, and that each one matters is checked: every tensor in turn is changed, and the result must move.
The expectation comes from the written files; the same model in float64 shows how far rounding (and a router's close
call) can carry it, and a model whose noise is large is refused. INDEX.md in DIR lists what was made.

Needs torch, transformers, safetensors; --gguf a llama.cpp folder built as peers.py says.
"""

import argparse
import json
import logging
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import families
import layouts
from tiny_models import LOGIT_STD, TOKEN_COUNT, quiet, tokens_for

NOISE = 3e-5  # largest difference between f32 and f64 that a fixture may have
AGREES = 2e-2  # of llama.cpp, whose GELU is a table of f16
VISIBLE = 5e-3  # least change of some output when a tensor is changed
FINAL_NORM = re.compile(r"(^|\.)(norm|final_layernorm|final_layer_norm|final_norm|ln_f|norm_f|out_norm|embedding_norm)$")


class Unfit(Exception):
    """A model that cannot serve as a reference, with the reason."""


def auto_class(settings: dict):
    """The Auto class of transformers that reads the model."""
    import transformers

    kind = settings.get("_auto", "CausalLM")
    return transformers.AutoModel if kind == "base" else getattr(transformers, f"AutoModelFor{kind}")


def config_of(settings: dict) -> dict:
    """config.json: the settings that are not the generator's own."""
    return {key: value for key, value in settings.items() if not key.startswith("_")}


def prepared(model: torch.nn.Module) -> torch.nn.Module:
    """The model in evaluation mode, each expert's product computed by itself."""
    try:
        model.set_experts_implementation("eager")
    except (AttributeError, ValueError):
        pass  # no experts, or only one way to compute them
    return model.eval()


def load(directory: Path, settings: dict, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """The model of a directory; Unfit if a tensor of the file or of the model has no partner."""
    options = settings.get("_load", {})
    model, info = auto_class(settings).from_pretrained(
        directory, dtype=dtype, attn_implementation=settings.get("_attention", "eager"), output_loading_info=True, **options
    )
    allowed = settings.get("_unexpected")
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = [name for name in info[problem] if not (allowed and re.search(allowed, str(name)))]
        if names:
            raise Unfit(f"{problem} {sorted(map(str, names))[:8]}")
    return prepared(model)


@torch.no_grad()
def randomise(model: torch.nn.Module, settings: dict) -> None:
    """Give every tensor of the state a random value that keeps activations near one. What a tensor is follows from its
    name, from the module that owns it and from how transformers initialises it (ones, or zeros for norms with 1 + w)."""
    generator = torch.Generator().manual_seed(settings.get("_seed", 0))
    modules = dict(model.named_modules())
    seen = set()
    gains, constant = settings.get("_gain", {}), settings.get("_constant", "^$")

    def normal(tensor, std):
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)

    def uniform(tensor, low, high):
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for name, tensor in sorted(model.state_dict().items()):
        if tensor.data_ptr() in seen or not tensor.is_floating_point() or re.search(constant, name):
            continue
        seen.add(tensor.data_ptr())
        owner_name, _, leaf = name.rpartition(".")
        owner = type(modules[owner_name]).__name__ if owner_name in modules else ""
        gain = next((g for pattern, g in gains.items() if re.search(pattern, name)), 1.0)
        ones, zeros = bool((tensor == 1).all()), bool((tensor == 0).all())
        if leaf in ("A_log", "A_logs"):
            uniform(tensor, math.log(0.3), math.log(8.0))
        elif leaf == "D":
            uniform(tensor, -1.5, 1.5)
        elif leaf == "dt_bias" or name.endswith("dt_proj.bias"):
            uniform(tensor, -3.0, 1.0)
        elif leaf == "sinks":
            normal(tensor, 1.0)
        elif leaf == "weight" and tensor.dim() == 1 and ("norm" in owner.lower() or "norm" in name or "ln_" in name):
            uniform(tensor, -0.5 if zeros else 0.5, 0.5 if zeros else 1.5)
        elif tensor.dim() <= 2 and ("norm" in owner.lower()) and leaf == "weight":
            uniform(tensor, 0.5, 1.5)
        elif tensor.dim() == 1 and (ones or leaf in ("scale", "scalar")):
            uniform(tensor, 0.5, 1.5)
        elif "bias" in leaf:
            normal(tensor, 0.3 * gain)
        elif isinstance(modules.get(owner_name), torch.nn.Embedding):
            token = tensor.shape[0] == model.config.get_text_config().vocab_size
            normal(tensor, (settings.get("_embed", 1.0) if token else 0.7) * gain)
        elif owner == "Conv1d":
            normal(tensor, gain / math.sqrt(tensor.shape[-1]))
        else:
            fan_in = tensor.shape[0] if owner == "Conv1D" or tensor.dim() == 1 else tensor.shape[-1]
            query_or_key = re.search(r"(q_proj|k_proj|query|key|Wqkv|qkv|q_b_proj|q_a_proj|c_attn)", name)
            router = re.search(r"(mlp\.gate\.|router|feed_forward\.gate|block_sparse_moe\.gate|moe\.gate)", name)
            normal(tensor, (1.4 if query_or_key or router else 1.0) * gain / math.sqrt(fan_in))


@torch.no_grad()
def outputs(model: torch.nn.Module, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Logits or hidden states [B, T, n] of tokens [B, T], or scores [B, classes] of a classifier."""
    options = {"use_cache": False} if getattr(model.config.get_text_config(), "use_cache", None) is not None else {}
    if mask is not None:
        options["attention_mask"] = mask
    result = model(input_ids=tokens, **options)
    return (result.logits if "logits" in result else result.last_hidden_state).float().contiguous()


@torch.no_grad()
def scale_logits(model: torch.nn.Module, tokens: torch.Tensor) -> None:
    """Bring the logits to their size by the last tensors before them: the head, or the final norm if the head is tied."""
    head = model.get_output_embeddings()
    tied = head is None or head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    norm = [module for name, module in model.named_modules() if FINAL_NORM.search(name) and "layers." not in name][-1]
    parts = [p for p in ((norm if tied else head).weight, getattr(norm if tied else head, "bias", None)) if p is not None]
    one_plus = tied and bool(norm.weight.min() < 0)
    for _ in range(6):
        factor = LOGIT_STD / outputs(model, tokens[None]).std()
        for part in parts:
            part.copy_((part + 1) * factor - 1 if one_plus else part * factor)


def saved_tensors(model: torch.nn.Module, settings: dict) -> dict[str, torch.Tensor]:
    """The tensors as published checkpoints have them: as save_pretrained writes them, through `_layout`."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        state = load_file(Path(folder) / "model.safetensors")
    layout = settings.get("_layout")
    if layout == "native":
        head = "lm_head.weight" if config_of(settings).get("tie_word_embeddings") else ""
        state = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items() if name != head}
    elif layout:
        state = getattr(layouts, layout)(state, settings)
    return state


@torch.no_grad()
def least_visible(model: torch.nn.Module, tokens: torch.Tensor, settings: dict) -> tuple[float, str]:
    """The tensor of least effect and the largest change it made: each one is mixed up in turn."""
    reference = outputs(model, tokens)
    generator = torch.Generator().manual_seed(1)
    least, seen = (math.inf, ""), set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen or not tensor.is_floating_point():
            continue
        seen.add(tensor.data_ptr())
        if re.search(settings.get("_invisible", "^$"), name) or re.search(settings.get("_constant", "^$"), name):
            continue
        before = tensor.clone()
        noise = torch.randn(tensor.shape, generator=generator)
        tensor.add_(noise * 0.5 * tensor.std() if tensor.numel() > 1 else 0.5 * tensor.abs())
        change = (outputs(model, tokens) - reference).abs().max().item()
        tensor.copy_(before)
        least = min(least, (change, name))
    return least


def idle_keys(directory: Path, settings: dict, tokens: torch.Tensor, expected: torch.Tensor) -> list[str]:
    """Keys of config.json without which transformers computes the same."""
    idle = []
    config = config_of(settings)
    for key in config:
        with tempfile.TemporaryDirectory() as folder:
            rest = {k: v for k, v in config.items() if k != key}
            (Path(folder) / "config.json").write_text(json.dumps(rest))
            shutil.copy(directory / "model.safetensors", folder)
            try:
                if (outputs(load(Path(folder), settings), tokens) - expected).abs().max() < 1e-6:
                    idle.append(key)
            except Exception:  # noqa: BLE001 - without the key there is no model: it is not idle
                pass
    return idle


def padding(model: torch.nn.Module) -> int:
    """The id that encoders are padded with."""
    return model.config.pad_token_id or 0


def chosen_tokens(model: torch.nn.Module, settings: dict) -> torch.Tensor:
    """The tokens of the expectation; padding is not among those of an encoder."""
    vocab = model.config.get_text_config().vocab_size
    tokens = tokens_for(vocab, settings.get("_seed", 0), settings.get("_tokens", TOKEN_COUNT))
    if settings.get("_auto", "CausalLM") != "CausalLM":
        tokens[tokens == padding(model)] = padding(model) + 5
    return tokens


@torch.no_grad()
def declare_pooling(directory: Path, kind: str, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Write the files by which a sentence-transformers model declares its pooling ("mean" or "cls") and normalisation;
    the embeddings [B, hidden] of hidden states [B, T, hidden]."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
              for i, (path, name) in enumerate(modules)]
    (directory / "modules.json").write_text(json.dumps(listed, indent=1) + "\n")
    (directory / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": hidden.shape[-1], "pooling_mode_cls_token": kind == "cls",
               "pooling_mode_mean_tokens": kind == "mean", "pooling_mode_max_tokens": False,
               "pooling_mode_mean_sqrt_len_tokens": False}
    (directory / "1_Pooling/config.json").write_text(json.dumps(pooling, indent=1) + "\n")
    weight = mask[..., None].float()
    pooled = hidden[:, 0] if kind == "cls" else (hidden * weight).sum(1) / weight.sum(1)
    return torch.nn.functional.normalize(pooled, dim=-1)


def expectation(directory: Path, settings: dict) -> tuple[dict[str, torch.Tensor], float]:
    """What the model of the directory computes in f32, and how far that is from f64."""
    kind = settings.get("_auto", "CausalLM")
    model, exact = load(directory, settings), load(directory, settings, torch.float64)
    tokens = chosen_tokens(model, settings)
    if kind in ("CausalLM", "MaskedLM"):
        logits = outputs(model, tokens[None])
        return {"tokens": tokens, "logits": logits[0]}, (logits - outputs(exact, tokens[None])).abs().max().item()
    half, pad = tokens.numel() // 2 + 3, padding(model)
    batch = torch.stack([tokens, tokens.flip(0)])
    batch[1, half:] = pad
    mask = torch.ones_like(batch)
    mask[1, half:] = 0
    result = {"tokens": tokens, "batch_tokens": batch, "batch_mask": mask}
    found, best = outputs(model, batch, mask), outputs(exact, batch, mask)
    if kind == "SequenceClassification":
        result["scores"] = found
    else:
        result["hidden"] = outputs(model, tokens[None])[0]
        result["batch_hidden"] = found * mask[..., None]
        if "_pooling" in settings:
            result["batch_embedding"] = declare_pooling(directory, settings["_pooling"], found, mask)
        found, best = result["batch_hidden"], best * mask[..., None]
    return result, (found - best).abs().max().item()


def make(name: str, settings: dict, out: Path, keys: bool = False) -> str:
    """Write the model into `out` and return a line about it. Raises Unfit."""
    from transformers import AutoConfig

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    config = config_of(settings)
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    torch.manual_seed(0)
    built, attention = AutoConfig.from_pretrained(out), settings.get("_attention", "eager")
    model = prepared(auto_class(settings).from_config(built, dtype=torch.float32, attn_implementation=attention))
    randomise(model, settings)
    tokens = chosen_tokens(model, settings)
    if settings.get("_auto", "CausalLM") == "CausalLM":
        scale_logits(model, tokens)
    in_memory, state, packed = outputs(model, tokens[None]), saved_tensors(model, settings), None
    if "_snap" in settings:
        packed, state = getattr(layouts, settings["_snap"])(state, settings)
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})

    expected, noise = expectation(out, settings)
    again = load(out, settings)
    reload = (outputs(again, tokens[None]) - in_memory).abs().max().item()
    if packed is None and not reload < 1e-5:
        raise Unfit(f"read back from disk it differs by {reload:.1e}")
    if not noise < settings.get("_noise", NOISE):
        raise Unfit(f"f32 and f64 differ by {noise:.1e}")
    change, tensor = least_visible(again, tokens[None], settings)
    if not change > VISIBLE:
        raise Unfit(f"{tensor} changes the result by {change:.1e} only")
    save_file({key: value.contiguous() for key, value in expected.items()}, out / "expected.safetensors")
    if packed is not None:
        save_file(packed, out / "model.safetensors", metadata={"format": "pt"})
    kept = {} if settings.get("_final") else {k: v for k, v in config.items() if k not in settings.get("_hidden", ())}
    (out / "config.json").write_text(json.dumps({**kept, **settings.get("_config", {})}, indent=1) + "\n")
    size = (out / "model.safetensors").stat().st_size
    std = next(expected[key] for key in ("logits", "hidden", "scores") if key in expected).std().item()
    line = f"std {std:.2f}, noise {noise:.0e}, least {change:.0e} {tensor}, {size // 1024} KiB"
    if keys:
        line += f"; idle keys: {' '.join(idle_keys(out, settings, tokens[None], outputs(again, tokens[None])))}"
    return line


def to_gguf(jobs: dict[Path, dict]) -> None:
    """Run llama.cpp's converter on directories, in a process of its own because it brings its own gguf package."""
    command = [sys.executable, Path(__file__).with_name("llama_convert.py"), os.environ["LLAMA_CPP"], *jobs]
    options = {path.name: settings.get("_convert", {}) for path, settings in jobs.items()}
    done = subprocess.run(command, input=json.dumps(options), capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"llama_convert.py: {done.stderr[-2000:]}")


def compare_llama(directory: Path) -> tuple[float, str]:
    """How far llama.cpp's result from model.gguf is from the expectation, and its error if it has none."""
    from peers import LlamaCpp, PeerError

    expected = load_file(directory / "expected.safetensors")
    peer = LlamaCpp(Path(os.environ["LLAMA_CPP"]))
    try:
        mode = next(key for key in ("logits", "hidden", "scores") if key in expected)
        found = torch.from_numpy(peer.logits(directory / "model.gguf", expected["tokens"].tolist(), mode=mode))
        found = found.reshape(expected[mode].shape) if mode != "scores" else found.reshape(-1)
        expected["scores"] = expected.get("scores", found)[:1].reshape(-1)
    except PeerError as error:
        lines = [line for line in str(error).splitlines() if "error" in line] or str(error).splitlines()
        return math.inf, lines[0].split("error loading model: ")[-1][:150]
    return (found - expected[mode]).abs().max().item(), ""


def ask_llama(directory: Path) -> None:
    """Replace the expected logits by those of llama.cpp."""
    from peers import LlamaCpp

    expected = load_file(directory / "expected.safetensors")
    peer = LlamaCpp(Path(os.environ["LLAMA_CPP"]))
    logits = torch.from_numpy(peer.logits(directory / "model.gguf", expected["tokens"].tolist()))
    save_file({"tokens": expected["tokens"], "logits": logits}, directory / "expected.safetensors")


def judged(directory: Path, settings: dict) -> str:
    """What the index says about model.gguf, which is removed where it cannot give the expected result."""
    if settings.get("_oracle") == "llama":
        ask_llama(directory)
        return "yes, the expectation is llama.cpp's"
    difference, error = compare_llama(directory)
    found = error or f"llama.cpp differs by {difference:.1e}"
    if note := settings.get("_llama"):
        found += f" ({note})"
    if difference < AGREES or settings.get("_keep"):
        return "yes, " + found
    (directory / "model.gguf").unlink()
    return "no, removed: " + found


def write_index(out: Path, lines: dict[str, dict]) -> None:
    """INDEX.md: a row for each model, those of earlier runs kept."""
    store = out / "index.json"
    known = json.loads(store.read_text()) if store.exists() else {}
    known.update(lines)
    order = {name: i for i, name in enumerate(families.table())}
    known = {name: known[name] for name in sorted(known, key=lambda n: order.get(n, 10**6)) if (out / name).is_dir()}
    store.write_text(json.dumps(known, indent=1))
    rows = ["# Tiny reference models", "", "std and noise: standard deviation of the expected values, their distance from "
            "float64; least: how much the least important tensor changes them. \"gguf no, removed\": llama.cpp's converter "
            "wrote a file, but it does not hold what the result needs.", ""]
    rows += ["| name | family | exercises | checked | gguf |", "|---|---|---|---|---|"]
    rows += [f"| {n} | {e['family']} | {e['about']} | {e['checked']} | {e['gguf']} |" for n, e in known.items()]
    (out / "INDEX.md").write_text("\n".join(rows) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="families or models; without any, all")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--gguf", action="store_true", help="also convert with llama.cpp's converter and compare")
    parser.add_argument("--keys", action="store_true", help="name the keys of config.json without effect")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    quiet()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    table = families.table()
    wanted = [n for n, s in table.items() if not args.names or n in args.names or s["_family"] in args.names]
    unknown = set(args.names) - set(wanted) - {s["_family"] for s in table.values()}
    if unknown:
        parser.error(f"neither a family nor a model: {' '.join(sorted(unknown))}")
    if args.list or not args.out:
        print("\n".join(f"{name}: {table[name].get('_about', '')}" for name in wanted))
        return
    lines, failed = {}, 0
    for name in wanted:
        settings = table[name]
        try:
            checked = make(name, settings, args.out / name, args.keys)
        except Exception as error:  # noqa: BLE001 - one model of many: say which and go on
            failed += 1
            print(f"{name}: FAILED {type(error).__name__}: {str(error)[:600]}", flush=True)
            shutil.rmtree(args.out / name)
            continue
        print(f"{name}: {checked}", flush=True)
        lines[name] = {"family": settings["_family"], "about": settings.get("_about", ""), "checked": checked, "gguf": ""}
    convertible = [name for name in lines if settings_gguf(table[name]) is None]
    if args.gguf and convertible:
        to_gguf({args.out / name: table[name] for name in convertible})
    for name, line in lines.items():
        settings, path = table[name], args.out / name
        why = settings_gguf(settings)
        if why is not None:
            line["gguf"] = f"no: {why}"
        elif (path / "gguf.error").exists():
            line["gguf"] = "no: " + (path / "gguf.error").read_text().strip()
            (path / "gguf.error").unlink()
        elif (path / "model.gguf").exists():
            line["gguf"] = judged(path, settings)
        print(f"{name}: gguf {line['gguf']}", flush=True)
    write_index(args.out, lines)
    sys.exit(1 if failed else 0)


def settings_gguf(settings: dict) -> str | None:
    """Why the model is not converted, or None if it is."""
    why = settings.get("_gguf")
    return None if why is None else (why or "the converter has no place for it")


if __name__ == "__main__":
    main()
