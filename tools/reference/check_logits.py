#!/usr/bin/env python3
"""Check `imaginal logits` against transformers on fresh random models that the project has never seen.

    python tools/reference/check_logits.py target/release/imaginal --models 4 --seed 1000
    python tools/reference/check_logits.py target/release/imaginal --arch mamba --models 10 --llama-cpp /path/to/llama.cpp

For each architecture and seed a model of tiny_models.py is made (the seed picks variant and sizes), then asked for as a
GGUF file and as a Hugging Face directory, in one batch and with --stepwise. Prints the largest absolute difference of
each and fails above --tolerance (2e-4, at logits of standard deviation 2). With --llama-cpp its logits of the GGUF are
compared too. Without --seed the clock chooses one; it is printed, so a failure can be repeated.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

import tiny_models
import to_gguf
from peers import Imaginal, LlamaCpp, PeerError, llama_cpp_folder


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference; infinite if the shape is wrong or a value is not finite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max())


def check_model(arch: str, seed: int, imaginal: Imaginal, llama_cpp: LlamaCpp | None, tolerance: float) -> list[str]:
    """Make one model, print its row and return what failed."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / f"{arch}-{seed}"
        setting = tiny_models.make(arch, seed, directory)
        expected = load_file(directory / "expected.safetensors")
        tokens, logits = expected["tokens"].tolist(), expected["logits"]
        gguf = directory / "model.gguf"
        has_gguf = setting.get("gguf", True)
        if has_gguf:
            to_gguf.convert(directory, gguf)
        asked = [("hf", directory, False), ("hf stepwise", directory, True)]
        if has_gguf:
            asked += [("gguf", gguf, False), ("gguf stepwise", gguf, True)]
        row, failures = [], []
        calls = [(label, imaginal, path, stepwise) for label, path, stepwise in asked]
        if llama_cpp and has_gguf:
            calls.append(("llama.cpp", llama_cpp, gguf, False))
        for label, engine, path, stepwise in calls:
            try:
                worst = difference(engine.logits(path, tokens, stepwise), logits)
            except PeerError as error:
                failures.append(f"{arch} seed {seed} ({setting['variant']}) {label}: {error}")
                row.append(f"{label} failed")
                continue
            row.append(f"{label} {worst:.1e}")
            if worst > tolerance:
                failures.append(f"{arch} seed {seed} ({setting['variant']}) {label}: {worst:.3e} > {tolerance:.0e}")
        print(f"{arch:6} seed {seed} {setting['variant']:16} std {setting['std']:.2f}  " + "  ".join(row), flush=True)
        return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path)
    parser.add_argument("--arch", choices=tiny_models.VARIANTS, action="append", help="may be repeated; default all")
    parser.add_argument("--models", type=int, default=3, help="models per architecture")
    parser.add_argument("--seed", type=int, help="first seed")
    parser.add_argument("--tolerance", type=float, default=2e-4)
    parser.add_argument("--llama-cpp", help="a built llama.cpp folder (also from $LLAMA_CPP)")
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="more arguments for imaginal, last")
    args = parser.parse_args()
    tiny_models.quiet()
    seed = args.seed if args.seed is not None else int(time.time()) % 1_000_000
    print(f"first seed {seed}")
    folder = llama_cpp_folder(args.llama_cpp)
    llama_cpp = LlamaCpp(folder) if folder else None
    imaginal = Imaginal(args.binary.resolve(), args.extra)
    failures = []
    for arch in args.arch or tiny_models.VARIANTS:
        for offset in range(args.models):
            failures += check_model(arch, seed + offset, imaginal, llama_cpp, args.tolerance)
    for failure in failures:
        print("FAILED", failure)
    print(f"{len(failures)} failures")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
