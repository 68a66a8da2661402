#!/usr/bin/env python3
"""Vectors of texts per second beside PyTorch and onnxruntime, f32, as a table.

    python tools/bench/peer_embed.py MODEL_DIR --imaginal target/release/imaginal --threads 2

Texts are ready as tokens, all of --tokens tokens, so that nobody computes padding. PyTorch runs transformers' model, with
its fastest attention; onnxruntime runs the same model exported once into --onnx. The three take turns, --rounds times;
the best and the median of each round's mean count. --lock is a program that runs its arguments undisturbed (on a shared machine).
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path


def inputs(batch: int, tokens: int):
    import torch

    ids = torch.randint(1000, 2000, (batch, tokens), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def loop(run, seconds: float, texts: int) -> float:
    """Texts per second."""
    run()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        run()
        count += 1
    return texts * count / (time.perf_counter() - start)


def peer(kind: str, args) -> None:
    """Prints texts per second for each batch size; runs in a process of its own."""
    import torch
    from transformers import AutoModel

    torch.set_num_threads(args.threads)
    speeds = []
    if kind == "torch":
        model = AutoModel.from_pretrained(args.model, dtype=torch.float32).eval()

        def encode(data):
            hidden = model(**data).last_hidden_state
            return torch.nn.functional.normalize(hidden.mean(1), dim=1)

        for batch in args.batch:
            data = inputs(batch, args.tokens)
            with torch.inference_mode():
                speeds.append(loop(lambda: encode(data), args.seconds, batch))
    else:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = args.threads
        session = onnxruntime.InferenceSession(args.onnx, options, providers=["CPUExecutionProvider"])
        names = {i.name for i in session.get_inputs()}
        for batch in args.batch:
            data = {k: v.numpy() for k, v in inputs(batch, args.tokens).items() if k in names}
            speeds.append(loop(lambda: session.run(None, data), args.seconds, batch))
    print(json.dumps(speeds))


def export(args) -> None:
    """The model with mean pooling and normalisation as ONNX."""
    import torch
    from transformers import AutoModel

    class Vectors(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = AutoModel.from_pretrained(args.model, dtype=torch.float32, attn_implementation="eager").eval()

        def forward(self, input_ids, attention_mask, token_type_ids):
            hidden = self.model(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            ).last_hidden_state
            return torch.nn.functional.normalize(hidden.mean(1), dim=1)

    data = inputs(2, 8)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    torch.onnx.export(
        Vectors(), (), args.onnx, kwargs=data, dynamo=True, dynamic_shapes={k: axes for k in data}, external_data=False
    )


def ours(args) -> list[float]:
    speeds = []
    for batch in args.batch:
        repetitions = max(5, int(args.seconds * args.guess / batch))
        command = [args.imaginal, "bench", args.model, "-p", args.tokens, "--batch", batch, "-r", min(1000, repetitions)]
        command += ["--threads", args.threads, "--json"]
        out = subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout
        speeds.append(json.loads(out)["results"][0]["tokens_per_second"] / args.tokens)
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--imaginal")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--batch", type=lambda s: [int(x) for x in s.split(",")], default=[1, 32])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--guess", type=float, default=150.0, help="texts per second, to choose how often to repeat")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--onnx", default="model.onnx")
    parser.add_argument("--lock", type=shlex.split, default=[])
    parser.add_argument("--peer", choices=["torch", "onnx"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    if args.peer:
        return peer(args.peer, args)
    if not Path(args.onnx).exists():
        export(args)
    if args.lock:
        rest = [a for a in sys.argv[1:]]
        at = rest.index("--lock")
        sys.exit(subprocess.run([*args.lock, sys.executable, __file__, *rest[:at], *rest[at + 2 :]]).returncode)
    found: dict[str, list[list[float]]] = {"ours": [], "torch": [], "onnx": []}
    for _ in range(args.rounds):
        found["ours"].append(ours(args))
        for kind in ("torch", "onnx"):
            command = [sys.executable, __file__, *sys.argv[1:], "--peer", kind]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[kind].append(json.loads(out.splitlines()[-1]))
    print(f"| batch of texts of {args.tokens} tokens | ours, texts/s | PyTorch | onnxruntime | to PyTorch | to onnxruntime |")
    print("|---|---|---|---|---|---|")
    for i, batch in enumerate(args.batch):
        median = {kind: statistics.median(row[i] for row in rows) for kind, rows in found.items()}
        a, b, c = median["ours"], median["torch"], median["onnx"]
        print(f"| {batch} | {a:.1f} | {b:.1f} | {c:.1f} | {a / b:.2f} | {a / c:.2f} |")


if __name__ == "__main__":
    main()
