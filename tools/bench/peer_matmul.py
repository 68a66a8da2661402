#!/usr/bin/env python3
"""Times matrix products of the `gemm` example and of PyTorch in turns, shape by shape, and prints both and their ratio.

    cargo build --release -p imaginal-kernels --example gemm
    python tools/bench/peer_matmul.py target/release/examples/gemm [--rounds 5] [--threads 2] [--only TEXT] [--json FILE]

Needs PyTorch. The machine's speed drifts, so each round times both within half a second of each other; reported are the
best of each and the median over the rounds of ours divided by theirs.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import time

import torch

def shapes(example: str) -> list[str]:
    """The names of the shapes that the example knows, in its order."""
    source = os.path.join(os.path.dirname(__file__), "../../crates/kernels/examples/gemm.rs")
    found = re.findall(r'\("(\w\w)", (\d+), (\d+), (\d+), (\d+)\)', open(source).read())
    return [f"{kind} {b}x{m}x{n}x{k}" for kind, b, m, n, k in found]


def peer(name: str, seconds: float) -> float:
    """GFLOP/s of PyTorch: the best of the runs that fit in the time."""
    kind, dims = name.split()
    batch, m, n, k = map(int, dims.split("x"))
    a = torch.rand((batch, k, m) if kind[0] == "t" else (batch, m, k))
    b = torch.rand((batch, n, k) if kind[1] == "t" else (batch, k, n))
    a = a.transpose(1, 2) if kind[0] == "t" else a
    b = b.transpose(1, 2) if kind[1] == "t" else b
    if batch == 1:
        a, b, multiply, out = a[0], b[0], torch.mm, torch.empty(m, n)
    else:
        multiply, out = torch.bmm, torch.empty(batch, m, n)
    multiply(a, b, out=out)
    best, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < seconds:
        t = time.perf_counter()
        multiply(a, b, out=out)
        best = min(best, time.perf_counter() - t)
    return 2e-9 * batch * m * n * k / best


def ours(example: str, name: str, seconds: float, threads: int) -> float:
    """GFLOP/s of the example."""
    command = [example, "--only", name, "--seconds", str(seconds), "--threads", str(threads)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for line in out.splitlines():
        if line.startswith(name + " "):
            return float(line.split()[2])
    raise SystemExit(f"{example} printed no line for {name}: rebuild it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = []
    for name in shapes(args.example):
        if args.only not in name:
            continue
        pairs = []
        for _ in range(args.rounds):
            theirs = peer(name, args.seconds)
            time.sleep(0.03)  # until PyTorch's idle threads have stopped spinning
            pairs.append((ours(args.example, name, args.seconds, args.threads), theirs))
        best = [max(p[i] for p in pairs) for i in (0, 1)]
        ratio = statistics.median(o / t for o, t in pairs)
        results.append({"shape": name, "ours_gflops": best[0], "torch_gflops": best[1], "median_ratio": ratio})
        print(f"{name:24} ours {best[0]:7.1f}  torch {best[1]:7.1f} GFLOP/s  ratio {ratio:.2f}", flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"torch": torch.__version__, "threads": args.threads, "rounds": args.rounds, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
