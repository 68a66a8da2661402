#!/usr/bin/env python3
"""Training speed of PyTorch (transformers' models) on this CPU, in tokens per second, as JSON.

    python tools/bench/peer_train.py                                  # llama-shaped 10M: the peer of our training
    python tools/bench/peer_train.py --arch mamba --steps 2           # transformers' mamba without its CUDA kernels
    python tools/bench/peer_train.py --compile                        # the same through torch.compile
    python tools/bench/peer_train.py --autocast                       # products in bf16 (f32 parameters)
    python tools/bench/peer_train.py --plain-malloc                   # without the allocator settings below

One step is forward, mean cross entropy, backward, clipping of the gradient norm to 1 and AdamW, on random
tokens, in f32 or with autocast. PyTorch is set up to be as fast as it gets in eager mode: scaled_dot_product_attention with is_causal, the
fused AdamW, gradients set to None, no cache, denormals flushed, and glibc's malloc told to keep freed memory (the script
starts itself again with MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ set; 13 % less CPU time per step). Warm-up steps are not counted; every other step is
timed by itself and the median counts.

Output: {"engine", "arch", "compile", "autocast", "malloc", "parameters", "batch", "length", "threads", "steps", "tokens_per_second",
"median_step_seconds", "step_seconds": [...], "loss"}.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import time

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}


def build(args: argparse.Namespace):
    """The model: llama with head size hidden / heads, or mamba with state 16; embeddings tied, default initialisation."""
    from transformers import LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    layers = args.layers or (8 if args.arch == "llama" else 12)
    if args.arch == "mamba":
        config = MambaConfig(
            vocab_size=args.vocab, hidden_size=args.hidden, num_hidden_layers=layers, state_size=16, use_cache=False
        )
        return MambaForCausalLM(config)
    config = LlamaConfig(
        vocab_size=args.vocab,
        hidden_size=args.hidden,
        intermediate_size=args.ffn,
        num_hidden_layers=layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.heads,
        max_position_embeddings=args.length,
        tie_word_embeddings=True,
        use_cache=False,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=["llama", "mamba"], default="llama")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=320)
    parser.add_argument("--layers", type=int, help="default 8 for llama, 12 for mamba")
    parser.add_argument("--heads", type=int, default=5)
    parser.add_argument("--ffn", type=int, default=864)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--autocast", action="store_true")
    parser.add_argument("--plain-malloc", action="store_true")
    args = parser.parse_args()
    if not args.plain_malloc and not KEEP_MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_MEMORY})

    import torch

    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    model = build(args).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    call = torch.compile(model) if args.compile else model
    tokens = torch.randint(args.vocab, (args.warmup + args.steps, args.batch, args.length + 1))

    seconds, loss = [], None
    for step in range(args.warmup + args.steps):
        start = time.perf_counter()
        inputs, targets = tokens[step, :, :-1].contiguous(), tokens[step, :, 1:].reshape(-1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.autocast):
            logits = call(input_ids=inputs, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.view(-1, args.vocab), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step >= args.warmup:
            seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    result = {
        "engine": f"torch {torch.__version__}",
        "arch": args.arch,
        "compile": args.compile,
        "autocast": args.autocast,
        "malloc": "plain" if args.plain_malloc else "keeps freed memory",
        "parameters": sum(p.numel() for p in parameters),
        "batch": args.batch,
        "length": args.length,
        "threads": args.threads,
        "steps": args.steps,
        "tokens_per_second": args.batch * args.length / median,
        "median_step_seconds": median,
        "step_seconds": [round(s, 4) for s in seconds],
        "loss": loss.item(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
