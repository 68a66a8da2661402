#!/usr/bin/env python3
"""Make small tokenizers of each kind, as tokenizer.json and as GGUF metadata, with the token ids to expect.

    python tools/reference/tokenizer_fixture.py --out crates/files/tests/fixtures/tokenizers [--llama-cpp DIR]

writes OUT/{gpt-2,qwen2,llama-bpe,sentencepiece}/ with tokenizer.json, vocab.gguf (metadata only, no tensors) and
expected_tokens.json: [{"text", "ids"}], ids without bos or eos, as Hugging Face's tokenizers give them. With --llama-cpp
(or $LLAMA_CPP) llama.cpp must give the same ids from vocab.gguf, else the script fails.

The three byte-level BPE kinds differ in how they split text before merging (the name of the folder is
`tokenizer.ggml.pre`); llama-bpe also takes a whole piece that is in the vocabulary without merging. The SentencePiece
kind has bytes as tokens <0x00> to <0xFF>, a space before the text, and merges whichever adjacent pair makes the token of
highest score.

Needs tokenizers, transformers, gguf, numpy.
"""

import argparse
import json
import shutil
from pathlib import Path

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from check_trained import MORE_TEXTS
from peers import LlamaCpp, llama_cpp_folder
from tiny_models import TEXTS
from to_gguf import write_tokenizer

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "qwen2": CONTRACTIONS + r"|\p{N}" + REST,
    "llama-bpe": CONTRACTIONS + r"|\p{N}{1,3}" + REST,
}


def training_texts() -> list[str]:
    """What the merges are learned from."""
    return [text for text in TEXTS + MORE_TEXTS if "<|" not in text] * 3


def byte_level(pre: str) -> Tokenizer:
    """A byte-level BPE tokenizer of 400 tokens, `<|endoftext|>` the first of them."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLITS[pre]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(training_texts(), trainer)
    return tokenizer


def sentencepiece() -> tuple[Tokenizer, list[float]]:
    """A SentencePiece-like BPE tokenizer, and the score of each token."""
    from transformers.tokenization_utils_base import generate_merges

    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    # Split before each ▁, as SentencePiece does while it learns; it does not split when it encodes.
    learner.pre_tokenizer = pre_tokenizers.Split(Regex("▁+"), behavior="merged_with_next")
    learner.train_from_iterator(training_texts(), trainers.BpeTrainer(vocab_size=360, show_progress=False))
    learned = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    # Only the commoner characters become tokens: the others, and so what is made of them, must go through their bytes.
    pieces = [piece for piece, _ in learned if all(char.isascii() or char in "▁中文混нещоа" for char in piece)]
    special = ["<unk>", "<s>", "</s>"]
    tokens = special + [f"<0x{byte:02X}>" for byte in range(256)] + pieces
    scores = [0.0] * (3 + 256) + [-float(i) for i in range(len(pieces))]
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = generate_merges(vocab, dict(zip(tokens, scores)))
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return tokenizer, scores


def write_sentencepiece(writer: gguf.GGUFWriter, tokenizer: Tokenizer, scores: list[float]) -> None:
    """Tokenizer metadata of the SentencePiece kind."""
    kind = gguf.TokenType
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    types = [kind.UNKNOWN, kind.CONTROL, kind.CONTROL] + [kind.BYTE] * 256
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types + [kind.NORMAL] * (len(tokens) - len(types)))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def make(kind: str, out: Path, llama_cpp: LlamaCpp | None) -> None:
    """Write one folder."""
    directory = out / kind
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    scores = None
    if kind == "sentencepiece":
        tokenizer, scores = sentencepiece()
    else:
        tokenizer = byte_level(kind)
        special = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
        (directory / "tokenizer_config.json").write_text(json.dumps(special, indent=1) + "\n")
    tokenizer.save(str(directory / "tokenizer.json"))

    writer = gguf.GGUFWriter(directory / "vocab.gguf", "llama")
    writer.add_name(f"{kind} vocabulary")
    if scores is None:
        write_tokenizer(writer, directory, tokenizer.get_vocab_size(), kind)
        writer.add_add_bos_token(False)
        writer.add_add_eos_token(False)
    else:
        write_sentencepiece(writer, tokenizer, scores)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    texts = TEXTS + MORE_TEXTS
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    expected = [{"text": text, "ids": i} for text, i in zip(texts, ids)]
    lines = ",\n ".join(json.dumps(entry) for entry in expected)
    (directory / "expected_tokens.json").write_text(f"[\n {lines}\n]\n")
    agreed = ""
    if llama_cpp:
        found = llama_cpp.tokenize(directory / "vocab.gguf", texts, special=True)
        wrong = [(text, a, b) for text, a, b in zip(texts, ids, found, strict=True) if a != b]
        for text, a, b in wrong:
            print(f"{kind}: {text[:50]!r}\n  tokenizers {a}\n  llama.cpp  {b}")
        if wrong:
            raise SystemExit(f"{kind}: llama.cpp differs on {len(wrong)} of {len(texts)} texts")
        agreed = ", llama.cpp agrees"
    print(f"{directory}: {tokenizer.get_vocab_size()} tokens, {len(texts)} texts{agreed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--llama-cpp", help="a built llama.cpp folder (also from $LLAMA_CPP)")
    args = parser.parse_args()
    folder = llama_cpp_folder(args.llama_cpp)
    for kind in [*SPLITS, "sentencepiece"]:
        make(kind, args.out, LlamaCpp(folder) if folder else None)


if __name__ == "__main__":
    main()
