#!/usr/bin/env python3
"""Check that other engines read a GGUF that `imaginal train` wrote as we do: same logits, same token ids.

    python tools/reference/check_trained.py MODEL.gguf --imaginal target/release/imaginal --llama-cpp /path/to/llama.cpp
    python tools/reference/check_trained.py MODEL.gguf --llama-cpp /path/to/llama.cpp     # the two others, without ours

The file is loaded by llama.cpp and by transformers (`from_pretrained(folder, gguf_file=...)`, which knows llama, qwen2,
qwen3 and mamba). A corpus of code, Chinese, emoji, runs of blanks, line endings and digits (and, with --corpus, files of
your own) is tokenized by all; then the logits of every position of the longest text (at most --tokens of them), and of
random ids, are compared, ours in one batch and stepwise. Prints each difference; fails on any differing token id, above
--tolerance (2e-4, for an f32 file; with quantized weights the engines round differently, so raise it), or if an engine
cannot load the file.

Needs torch, transformers, gguf, tokenizers, numpy, safetensors and a built llama.cpp (see peers.py).
"""

import argparse
import random
import sys
from pathlib import Path

import numpy as np

from peers import Imaginal, LlamaCpp, PeerError, llama_cpp_folder
from tiny_models import TEXTS, quiet

# What only a corpus of many lines shows: mixed scripts next to code, long runs, every printable ASCII character.
MORE_TEXTS = [
    "".join(chr(c) for c in range(32, 127)),
    "pub fn parse<'a, T: Iterator<Item = &'a str>>(input: T) -> Result<Vec<u8>, Box<dyn std::error::Error>> {\n"
    "    // 注释：解析输入 🚀\n    let n = input.map(|s| s.len()).sum::<usize>();\n        Ok(vec![0xFFu8; n])\n}\n",
    "def f(x):\n\treturn x if x else None\n\n\n\nclass C: pass\n" + " " * 37 + "#" + "-" * 70 + "\n" + "\t" * 9 + "end",
    "The quick brown fox can't jump; I'M SURE YOU'LL SEE he'd've we're they'Re 'tis 's",
    "a\u00a0b\u2003c\u200bd\u3000e\ufefff \u2028line\u2029para\x0b\x0c\x85.",
    "مرحبا بالعالم שלום עולם ไทยไม่มีวรรค ქართული ᚠᚢᚦ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 ﬁ Å Å ǆ ß ẞ İi",
    "🏳️‍🌈👨🏽‍💻🇩🇪🇯🇵 1️⃣ ☺︎ ♥️",
    "1 12 123 1234 12345 1,234.56 1e10 0b1010 ½⅔ ²³ ൧൨൩ 一二三",
]


class Transformers:
    """transformers, reading the GGUF file itself."""

    def __init__(self, path: Path):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch = torch
        where = {"gguf_file": path.name}
        self.tokenizer = AutoTokenizer.from_pretrained(path.parent, **where)
        self.model = AutoModelForCausalLM.from_pretrained(
            path.parent, dtype=torch.float32, attn_implementation="eager", **where
        ).eval()

    def logits(self, tokens: list[int]) -> np.ndarray:
        """Logits [T, vocab]."""
        with self.torch.no_grad():
            return self.model(self.torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()

    def tokenize(self, text: str) -> list[int]:
        """Token ids, no bos or eos added."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def check_tokens(texts: list[str], engines: dict) -> tuple[list[list[int]], list[str]]:
    """Token ids by the first engine, and what the others say differently."""
    ids = {name: ask(texts) for name, ask in engines.items()}
    (first, expected), *others = ids.items()
    failures = []
    for name, found in others:
        same = 0
        for text, a, b in zip(texts, expected, found, strict=True):
            if a == b:
                same += 1
                continue
            at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
            failures.append(f"{text[:40]!r}: from position {at} {first} has {a[at:at + 6]}, {name} {b[at:at + 6]}")
        print(f"tokens: {first} and {name} agree on {same} of {len(texts)} texts")
    return expected, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--imaginal", type=Path, help="our binary")
    parser.add_argument("--llama-cpp", help="a built llama.cpp folder (also from $LLAMA_CPP)")
    parser.add_argument("--corpus", type=Path, nargs="*", default=[], help="more text files")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--tolerance", type=float, default=2e-4)
    parser.add_argument("--no-transformers", action="store_true")
    args = parser.parse_args()
    quiet()
    model = args.model.resolve()

    token_engines, logit_engines = {}, {}
    if args.imaginal:
        ours = Imaginal(args.imaginal.resolve())
        token_engines["imaginal"] = lambda texts: [ours.tokenize(model, text) for text in texts]
        logit_engines["imaginal"] = lambda ids: ours.logits(model, ids)
        logit_engines["imaginal stepwise"] = lambda ids: ours.logits(model, ids, stepwise=True)
    if folder := llama_cpp_folder(args.llama_cpp):
        llama_cpp = LlamaCpp(folder)
        token_engines["llama.cpp"] = lambda texts: llama_cpp.tokenize(model, texts)
        logit_engines["llama.cpp"] = lambda ids: llama_cpp.logits(model, ids)
    if not args.no_transformers:
        hf = Transformers(model)
        token_engines["transformers"] = lambda texts: [hf.tokenize(text) for text in texts]
        logit_engines["transformers"] = hf.logits
    if len(token_engines) < 2:
        parser.error("nothing to compare: give --imaginal and --llama-cpp, or leave transformers in")

    # Control tokens in a text are a matter of each engine's option, so they are left out here.
    texts = [text for text in TEXTS + MORE_TEXTS if "<|" not in text]
    texts += [path.read_text(encoding="utf-8") for path in args.corpus]
    try:
        ids, failures = check_tokens(texts, token_engines)
        longest = max(ids, key=len)[: args.tokens]
        rng = random.Random(0)
        samples = {"text": longest, "random": [rng.randrange(max(longest) + 1) for _ in range(args.tokens)]}
        for label, tokens in samples.items():
            logits = {name: ask(tokens) for name, ask in logit_engines.items()}
            (first, expected), *others = logits.items()
            print(f"logits of {len(tokens)} {label} tokens, standard deviation {expected.std():.2f}")
            for name, found in others:
                worst = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
                print(f"  {first} and {name}: {worst:.2e}")
                if not worst <= args.tolerance:
                    failures.append(f"logits of {label} tokens: {first} and {name} differ by {worst:.3e}")
    except PeerError as error:
        failures = [str(error)]
    for failure in failures:
        print("FAILED", failure)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
