#!/usr/bin/env python3
"""Vectors of `imaginal embed` against those of transformers for 100 sentences of many lengths: mean pooling over the tokens
of each sentence, then normalised, which is what sentence-transformers computes for such models.

    python tools/reference/check_embed.py MODEL_DIR --imaginal target/release/imaginal

MODEL_DIR is a Hugging Face directory that declares mean pooling and Normalize (all-MiniLM-L6-v2, for instance). Prints
the smallest cosine and the largest difference of an element; fails below --least.
"""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

WORDS = (
    "the a of river mountain engine quietly runs before after tensor cat zebra jump quantum violin 42 3.14 "
    "café naïve Übermut 東京 北京 مرحبا привет 🚀 don't e-mail state-of-the-art http://example.org/x?y=1 fn main() {} "
    "pneumonoultramicroscopicsilicovolcanoconiosis unbelievable QUICK Brown fOx"
).split(" ")


def sentences() -> list[str]:
    """100 sentences, from one word to more than the model reads."""
    rng = random.Random(7)
    lengths = [1, 2, 3] + [rng.randint(4, 40) for _ in range(87)] + [rng.randint(60, 120) for _ in range(8)] + [300, 500]
    return [" ".join(rng.choice(WORDS) for _ in range(n)) for n in lengths]


def expected(folder: Path, texts: list[str]) -> torch.Tensor:
    """Vectors by transformers in f32, in padded batches of 16."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32)
    limits = folder / "sentence_bert_config.json"
    most = json.loads(limits.read_text())["max_seq_length"] if limits.exists() else model.config.max_position_embeddings
    model.eval()
    rows = []
    for i in range(0, len(texts), 16):
        batch = tokenizer(texts[i : i + 16], padding=True, truncation=True, max_length=most, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).float()
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        rows.append(torch.nn.functional.normalize(mean, dim=1))
    return torch.cat(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--imaginal", required=True)
    parser.add_argument("--least", type=float, default=0.99999)
    args = parser.parse_args()
    texts = sentences()
    command = [args.imaginal, "embed", args.model, "--json"]
    out = subprocess.run([str(c) for c in command], input="\n".join(texts), check=True, capture_output=True, text=True)
    ours = torch.tensor(json.loads(out.stdout)["embeddings"], dtype=torch.float64)
    theirs = expected(args.model, texts).double()
    cosines = torch.nn.functional.cosine_similarity(ours, theirs)
    worst = (ours - theirs).abs().max()
    print(f"{len(texts)} sentences: cosine at least {cosines.min():.8f}, elements differ by {worst:.1e} at most")
    if not cosines.min() >= args.least:
        sys.exit(f"a cosine is below {args.least}: sentence {int(cosines.argmin())}")


if __name__ == "__main__":
    main()
