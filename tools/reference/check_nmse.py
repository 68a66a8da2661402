#!/usr/bin/env python3
"""What computing on packed weights costs, beside llama.cpp: the error of logits against the same file in exact f32.

    python tools/reference/check_nmse.py MODEL.gguf --imaginal target/release/imaginal --llama-cpp /path/to/llama.cpp
    python tools/reference/check_nmse.py MODEL.gguf ... --formats q4_k,q8_0 --tokens 64

MODEL is a trained f32 GGUF. For each format it is written by `imaginal morph` and loaded by both engines. The logits of
`--tokens` tokens, in one batch and one by one, are compared with those of `imaginal logits --compute f32` on the same
file: NMSE = Σ(x - exact)² / Σ(exact - mean)². Ours are computed with `--compute fast`, so that small matrices round as
large ones do. Prints a table, and fails where ours is more than --factor (1.2) times llama.cpp's.

Formats whose blocks do not divide a matrix's rows are left out (`imaginal morph` says so). Needs numpy, safetensors and a
built llama.cpp (see peers.py).
"""

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from peers import Imaginal, LlamaCpp, PeerError, llama_cpp_folder

FORMATS = (
    "q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k q5_k q6_k iq4_nl iq4_xs mxfp4 nvfp4 tq1_0 tq2_0 "
    "iq1_s iq1_m iq2_xxs iq2_xs iq2_s iq3_xxs iq3_s f16 bf16"
).split()


def nmse(x: np.ndarray, exact: np.ndarray) -> float:
    """The error's energy as a share of the logits'."""
    x, exact = x.astype(np.float64), exact.astype(np.float64)
    return float(((x - exact) ** 2).sum() / ((exact - exact.mean(axis=-1, keepdims=True)) ** 2).sum())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--imaginal", type=Path, required=True)
    parser.add_argument("--llama-cpp", help="a built llama.cpp folder (also from $LLAMA_CPP)")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--vocab", type=int, default=512, help="ids are drawn below this")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--extra", default=[], type=str.split, help="further arguments for ours: \"--cache-type f32\"")
    parser.add_argument("--factor", type=float, default=1.2)
    parser.add_argument("--stepwise", type=int, default=64, help="tokens of the run one by one")
    args = parser.parse_args()
    folder = llama_cpp_folder(args.llama_cpp)
    llama_cpp = LlamaCpp(folder) if folder else None
    exact = Imaginal(args.imaginal, ["--compute", "f32"])
    fast = Imaginal(args.imaginal, ["--compute", "fast", *args.extra])
    rng = random.Random(args.seed)
    ids = [rng.randrange(args.vocab) for _ in range(args.tokens)]
    failed = []
    print(f"{'format':8} {'batch':>10} {'llama.cpp':>10} {'ratio':>6}   {'one by one':>10} {'llama.cpp':>10} {'ratio':>6}")
    for format in args.formats.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "model.gguf"
            done = subprocess.run([args.imaginal, "morph", args.model, format, path], capture_output=True, text=True)
            if done.returncode != 0:
                print(f"{format:8} left out: {done.stderr.strip().splitlines()[-1][:100]}")
                continue
            columns = []
            for tokens, stepwise in [(ids, False), (ids[: args.stepwise], True)]:
                reference = exact.logits(path, tokens)
                ours = nmse(fast.logits(path, tokens, stepwise), reference)
                theirs = float("nan")
                if llama_cpp:
                    try:
                        theirs = nmse(llama_cpp.logits(path, tokens, stepwise), reference)
                    except PeerError as e:
                        failed.append(f"{format}: llama.cpp does not load it: {str(e).splitlines()[-1]}")
                columns += [ours, theirs]
                if ours > args.factor * theirs:
                    failed.append(f"{format}{', one by one' if stepwise else ''}: {ours:.2e} against {theirs:.2e}")
            a, b, c, d = columns
            print(f"{format:8} {a:10.2e} {b:10.2e} {a / b:6.2f}   {c:10.2e} {d:10.2e} {c / d:6.2f}", flush=True)
    print("\n".join(failed) if failed else "no format is worse than it may be")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
