#!/usr/bin/env python3
"""Prompt and generation speed of every weight format beside llama.cpp, one model file after another, as a table.

    python tools/bench/formats.py --imaginal target/release/imaginal --llama-bench llama.cpp/build/bin/llama-bench \
        --make "python random_gguf.py" --shape llama-1b --formats Q4_0,Q4_K,Q8_0

With --stream, a program that prints what a plain read of memory gives (`cargo run --release -p imaginal-kernels --example
stream`), it runs in every round too, and the table says which share of it generation reads: the weights that a token touches,
a share of stacked experts, and the cache of --depth.

--make is a program that writes a model: it is called with shape, format and the file to write. Files are written to
--folder one at a time and removed again, unless they were there before. Both engines run alternately, --rounds times; the
median of each counts, with the ratio of the medians. --depth fills the state first, --cache gives both that format of keys
and values. --lock is a program that runs its arguments undisturbed (on a shared machine).
"""

import argparse
import json
import shlex
import statistics
import subprocess
from pathlib import Path


def run(command: list) -> str:
    """Standard output of a command that must succeed."""
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout


def touched(args, model: Path) -> float:
    """Bytes that are read for a token: weights, and keys and values of --depth tokens and half of those generated."""
    about = json.loads(run([args.imaginal, "show", model, "--json"]))
    meta = {k.split(".", 1)[1]: v for k, v in about["metadata"].items() if k.startswith(about["architecture"] + ".")}
    experts = meta.get("expert_used_count", 1) / meta.get("expert_count", 1)
    names = {t["name"] for t in about["tensors"]}
    weights = 0.0
    for tensor in about["tensors"]:
        if tensor["name"] == "token_embd.weight" and "output.weight" in names:
            continue  # one row
        weights += tensor["bytes"] * (experts if "_exps." in tensor["name"] else 1)
    heads = meta.get("attention.head_count_kv", meta["attention.head_count"])
    width = meta["attention.key_length"] + meta["attention.value_length"]
    element = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32, "q4_0": 18 / 32}[args.cache or "f16"]
    return weights + (args.depth + args.generate / 2) * about["layers"] * heads * width * element


def ours(args, model: Path) -> dict[str, float]:
    """Tokens per second of `imaginal bench`."""
    command = [*args.lock, args.imaginal, "bench", model, "-p", args.prompt, "-n", args.generate, "-d", args.depth]
    command += ["-r", args.repetitions, "--threads", args.threads, "--json"]
    if args.cache:
        command += ["--cache-type", args.cache]
    return {r["kind"]: r["tokens_per_second"] for r in json.loads(run(command))["results"]}


def theirs(args, model: Path) -> dict[str, float]:
    """Tokens per second of llama-bench."""
    command = [*args.lock, args.llama_bench, "-m", model, "-p", args.prompt, "-n", args.generate, "-d", args.depth]
    command += ["-r", args.repetitions, "-t", args.threads, "-o", "json"]
    if args.cache:
        command += ["-ctk", args.cache, "-ctv", args.cache, "-fa", "1"]
    rows = json.loads(run(command))
    return {"prompt" if r["n_prompt"] else "generation": r["avg_ts"] for r in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imaginal", required=True)
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--make", type=shlex.split, required=True)
    parser.add_argument("--shape", default="llama-1b")
    parser.add_argument("--formats", default="Q4_0,Q4_K,Q5_K,Q6_K,Q8_0,IQ4_XS,MXFP4,Q2_K,Q3_K,F16,BF16")
    parser.add_argument("--folder", type=Path, default=Path("."))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=32)
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache")
    parser.add_argument("--only", choices=["prompt", "generation"])
    parser.add_argument("--stream", type=shlex.split)
    parser.add_argument("--lock", type=shlex.split, default=[])
    args = parser.parse_args()
    if args.only == "generation":
        args.prompt = 0
    if args.only == "prompt":
        args.generate = 0
    kinds = [args.only] if args.only else ["prompt", "generation"]
    heads = ["model"] + [h for kind in kinds for h in (f"{kind}, ours", "llama.cpp", "ratio")]
    if args.stream and args.generate:
        heads += ["plain read, GB/s", "read by us", "share"]
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads), flush=True)
    for format in args.formats.split(","):
        model = args.folder / f"{args.shape}-{format}.gguf"
        found = model.exists()
        if not found:
            run([*args.make, args.shape, format, model])
        try:
            results, plain = [], []
            for _ in range(args.rounds):
                results.append((ours(args, model), theirs(args, model)))
                if args.stream:
                    plain.append(float(run([*args.lock, *args.stream]).split()[0]))
            size = touched(args, model) if args.stream else 0
        finally:
            if not found:
                model.unlink()
        row = [f"{args.shape} {format}"]
        for kind in kinds:
            both = [statistics.median(r[i].get(kind, float("nan")) for r in results) for i in (0, 1)]
            row += [f"{both[0]:.1f}", f"{both[1]:.1f}", f"{both[0] / both[1]:.2f}"]
        if args.stream and args.generate:
            read = size * both[0] / 1e9
            row += [f"{statistics.median(plain):.1f}", f"{read:.1f}", f"{read / statistics.median(plain):.2f}"]
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
