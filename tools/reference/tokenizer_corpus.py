#!/usr/bin/env python3
"""Token ids of a mixed megabyte under one tokenizer of each kind, as Hugging Face's tokenizers give them.

    python tools/reference/tokenizer_corpus.py --out crates/files/tests/fixtures/corpus [--llama-cpp DIR]

The megabyte (code, many scripts, emoji, control characters, long runs of blanks) is made from a seed and from
fragments.json, by `corpus` here and by the same steps in crates/files/tests/corpus.rs; only counts, hashes and the first
ids are written. OUT gets

- fragments.json, what the megabyte is made of;
- byte-level.json: one vocabulary of bytes with its merges, learned across words so that every split changes the ids;
- splits.json: for each way of splitting text that GGUF has a name for, the normalizer and pre_tokenizer as a
  tokenizer.json of that family has them, and what to expect;
- wordpiece-*.json, unigram.json, metaspace.json: a tokenizer.json of each other kind; expected.json: what to expect of them;
- rwkv_vocab.txt: a vocabulary for RWKV's greedy match; unigram.model and bpe.model: SentencePiece's own files, whose ids
  are those of the sentencepiece library.

With --llama-cpp the same ids are asked of llama.cpp, for byte-level splits, from GGUF metadata; where it differs it is
printed, since it normalises nothing and has its own idea of some splits.

Needs tokenizers, sentencepiece, transformers, gguf.
"""

import argparse
import json
import tempfile
from pathlib import Path

import gguf
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from peers import LlamaCpp, llama_cpp_folder

MASK = (1 << 64) - 1
DOCUMENTS = 160
SMALLEST = 1 << 20

FRAGMENTS = [
    "pub fn parse<'a>(input: &'a str) -> Result<Vec<u8>, Error> {\n    let n = input.len();\n",
    "        for i in 0..n {\n            out.push(bytes[i] ^ 0xFFu8);\n        }\n    Ok(out)\n}\n\n",
    "def f(x, *args, **kw):\n\treturn {k: v for k, v in kw.items() if v is not None}\n",
    "#include <stdio.h>\r\nint main(void) { printf(\"%d\\n\", 1 << 10); return 0; }\r\n",
    "SELECT id, COUNT(*) FROM t WHERE name LIKE '%ab%' GROUP BY id HAVING COUNT(*) >= 12;\n",
    "The quick brown fox can't jump; I'M SURE YOU'LL SEE he'd've we're they'Re 'tis 's. ",
    "It was the best of times, it was the worst of times, said 3 of the 1234 people in 1859. ",
    "https://example.org/a/b?c=1&d=%20#e user@example.com C:\\path\\to\\file.txt ",
    "1 12 123 1234 12345 1,234.56 1e10 0b1010 0xDEADBEEF 1_000_000 ½⅔ ²³ ൧൨൩ ٣٤٥ ",
    "我想在apple工作1314151天～ 中文和 English 混排，标点。「引号」《书名》、顿号；",
    "日本語のテキスト、カタカナとひらがな。ｶﾀｶﾅ ー 〜 々 〇 ",
    "한국어 문장입니다. 띄어쓰기가 있어요! ㄱㄴㄷ ㅏㅑ ",
    "مرحبا بالعالم، كيف حالك؟ ١٢٣ النص العَرَبِيُّ مُشَكَّل. ",
    "שלום עולם, מה שלומך? עִבְרִית ",
    "नमस्ते दुनिया, कैसे हो? বাংলা ভাষা தமிழ் తెలుగు ",
    "ไทยไม่มีวรรคระหว่างคำ ລາວ ខ្មែរ မြန်မာ ",
    "нещо на Български; Съешь ещё этих мягких французских булок. ",
    "Ελληνικά: Ἐν ἀρχῇ ἦν ὁ λόγος. ქართული ᚠᚢᚦ Հայերեն ",
    "Größe façade naïve Ångström Å Å ǆ ß ẞ İi ﬁ ﬀ e\u0301 é o\u0308 Zürich's ",
    "🚀 😶\u200d🌫️ ✅ 🦙🦙 👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 👨🏽\u200d💻 🇩🇪🇯🇵 1️⃣ ☺︎ ♥️ ",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𐐷 𠮷 😀 \U000f0000 \ue000 ",
    "a\u00a0b\u2003c\u200bd\u3000e\ufefff \u2028line\u2029para\u0085next\u180e.",
    "''''''```````\"\"\"\"......!!!!!!??????-----=====+++++~~~~~^^^^^|||||$$$$$ ",
    "{\"key\": [1, 2.5, null, true], \"nested\": {\"a\": \"b\\u00e9\"}}\n",
    "<html><body class=\"x\">&nbsp;<br/></body></html>\n<!-- c -->\n",
    "## Heading\n\n* item **bold** _it_ `code`\n\n> quote\n\n| a | b |\n|---|---|\n",
    "\\frac{1}{2} \\sum_{i=0}^{n} x_i^2 \\leq \\infty ∑∫√∞≈≠≤≥→⇒∀∃ ",
]


class Numbers:
    """SplitMix64 (Steele, Lea, Flood 2014)."""

    def __init__(self, seed: int):
        self.state = seed

    def below(self, n: int) -> int:
        """A number from 0 to n - 1."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return ((z ^ (z >> 31)) >> 33) % n


def corpus() -> list[str]:
    """The documents; the same as in crates/files/tests/corpus.rs."""
    numbers = Numbers(2026)
    documents = []
    for _ in range(DOCUMENTS):
        text = ""
        while len(text.encode()) < SMALLEST // DOCUMENTS:
            kind = numbers.below(16)
            if kind == 0:
                text += " " * (1 + numbers.below(90))
            elif kind == 1:
                text += "\n" * (1 + numbers.below(6)) + "\t" * numbers.below(7)
            elif kind == 2:
                text += chr(numbers.below(32)) + chr(0x7F + numbers.below(0x21))
            elif kind == 3:
                text += "".join(str(numbers.below(10)) for _ in range(1 + numbers.below(12)))
            elif kind == 4:
                # Any character but the surrogates.
                code = numbers.below(0x11000) if numbers.below(4) else numbers.below(0x110000)
                text += chr(code if not 0xD800 <= code < 0xE000 else 0xFFFD)
            elif kind == 5:
                text += chr(97 + numbers.below(26)).upper() + chr(97 + numbers.below(26))
            else:
                fragment = FRAGMENTS[numbers.below(len(FRAGMENTS))]
                # Whole, or cut anywhere.
                text += fragment if numbers.below(3) else fragment[: numbers.below(len(fragment))]
        documents.append(text)
    return documents


def summary(ids: list[list[int]]) -> dict:
    """How many ids, a hash (FNV-1a) of all with a mark after each document, and the first ones."""
    value = 0xCBF29CE484222325
    for document in ids:
        for number in [*document, 0xFFFFFFFF]:
            for byte in number.to_bytes(4, "little"):
                value = ((value ^ byte) * 0x100000001B3) & MASK
    return {"count": sum(map(len, ids)), "hash": f"{value:016x}", "first": ids[0][:40]}


GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BYTES = {**GPT2, "use_regex": False}


def regex(pattern: str, behavior: str = "Isolated", invert: bool = False) -> dict:
    """A Split step."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


def sequence(*steps: dict) -> dict:
    """Steps one after the other."""
    return {"type": "Sequence", "pretokenizers": list(steps)}


WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
END = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = WORDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + END
QWEN2 = WORDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + END
CASES = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
)
GPT4O = CASES % (WORDS + "?", WORDS + "?") + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + END
HAN = CASES.replace(r"\p{M}]", r"\p{M}&&[^\p{Han}]]") % (WORDS + "?", WORDS + "?")
DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"""
    + END
)
CJK = "[一-龥\u3040-ゟ゠-ヿ]+"
CJK_OLD = "[一-龥ࠀ-一가-\ud7ff]+"

# What a tokenizer.json of each family has: normalizer, pre_tokenizer, and whether whole pieces go before merges.
SPLITS = {
    "gpt-2": (None, GPT2, False),
    "llama-bpe": (None, sequence(regex(LLAMA3), BYTES), True),
    "dbrx": (None, sequence(regex(LLAMA3), BYTES), False),
    "qwen2": ({"type": "NFC"}, sequence(regex(QWEN2), BYTES), False),
    "qwen35": (
        {"type": "NFC"},
        sequence(
            regex(WORDS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + END), BYTES
        ),
        False,
    ),
    "starcoder": (None, sequence({"type": "Digits", "individual_digits": True}, GPT2), False),
    "deepseek-coder": (
        None,
        sequence(regex("[\r\n]"), regex(r"\s?\p{L}+"), regex(r"\s?\p{P}+"), regex(CJK_OLD), regex(r"\p{N}"), BYTES),
        False,
    ),
    "deepseek-v3": (None, sequence(regex(r"\p{N}{1,3}"), regex(CJK), regex(DEEPSEEK3), BYTES), False),
    "falcon": (
        None,
        sequence({"type": "Punctuation", "behavior": "Contiguous"}, GPT2, regex("[0-9][0-9][0-9]")),
        False,
    ),
    "tekken": (
        None,
        sequence(regex(CASES % ("", "") + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + END), BYTES),
        True,
    ),
    "gpt-4o": (None, sequence(regex(GPT4O), BYTES), False),
    "kimi-k2": (
        None,
        sequence(regex(r"[\p{Han}]+|" + HAN + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + END), BYTES),
        False,
    ),
    "exaone-moe": (
        None,
        sequence(
            regex(
                WORDS + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?"
                r"|\s*[\r\n]|\s+(?!\S)|\s+"
            ),
            BYTES,
        ),
        False,
    ),
    "tiny_aya": (None, sequence(regex(r"\d{1,3}(?=(?:\d{3})*\b)"), regex(GPT4O), BYTES), False),
    "bloom": (None, sequence(regex(r" ?[^(\s|[.,!?…。，、।۔،])]+"), BYTES), False),
    "seed-coder": (
        None,
        sequence(
            regex(WORDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+" + END), BYTES
        ),
        False,
    ),
    "bailingmoe": (
        None,
        sequence(
            regex(
                r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]"
                r"|\s+(?!\S)|\s+"
            ),
            BYTES,
        ),
        False,
    ),
    "jais-2": (
        None,
        sequence(
            regex(
                WORDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)"
                r"|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)"
                r"|\s{1,2}(?!\S)|\s{1}"
            ),
            BYTES,
        ),
        False,
    ),
    "minicpm5": (
        None,
        sequence(
            regex(r"\p{N}{1,3}"),
            regex(WORDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*" + END),
            BYTES,
        ),
        True,
    ),
}


def learned(documents: list[str]) -> Tokenizer:
    """A byte-level vocabulary whose tokens cross words, digits and scripts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n\n\n\n", behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    pieces = [document[i : i + 24] for document in documents[:40] for i in range(0, len(document), 24)]
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(pieces, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, documents: list[str]) -> list[list[int]]:
    """Ids of each document, nothing added."""
    return [e.ids for e in tokenizer.encode_batch(documents, add_special_tokens=False)]


def wordpiece(documents: list[str], lowercase: bool) -> Tokenizer:
    """BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=900, special_tokens=special, limit_alphabet=300, show_progress=False
    )
    tokenizer.train_from_iterator(documents[:40], trainer)
    from tokenizers.processors import TemplateProcessing

    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    return tokenizer


def sentencepiece_model(out: Path, kind: str) -> Path:
    """A model of the sentencepiece library; unigram with a small table of normalised characters."""
    import sentencepiece

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        text = folder / "text"
        clean = [line for fragment in FRAGMENTS for line in fragment.splitlines() if line.strip()] * 4
        text.write_text("\n".join(clean), encoding="utf-8")
        rules = folder / "rules.tsv"
        # From and to, as hexadecimal code points: ligatures, wide letters, blanks; and what is left out.
        rows = ["FB01\t66 69", "FB00\t66 66", "A0\t20", "3000\t20", "9\t20", "A\t20", "D\t20", "212B\tC5", "1E9E\t53 53",
                "65 301\tE9", "6F 308\tF6", "200B\t", "FEFF\t", "BD\t31 2F 32", "FF5E\t7E"]
        rules.write_text("\n".join(rows) + "\n")
        options = {"normalization_rule_tsv": str(rules)} if kind == "unigram" else {"normalization_rule_name": "identity"}
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=str(folder / "m"), model_type=kind, vocab_size=480 if kind == "unigram" else 740, character_coverage=0.98,
            byte_fallback=kind == "bpe", user_defined_symbols=["<sep>", "<tool>"], control_symbols=["<ctl>"],
            remove_extra_whitespaces=kind == "unigram", minloglevel=2, num_threads=1, **options,
        )
        path = out / f"{kind}.model"
        path.write_bytes(bare((folder / "m.model").read_bytes()))
        return path


def bare(data: bytes) -> bytes:
    """A model without what the trainer was told, so that the same command writes the same bytes everywhere."""
    from transformers.convert_slow_tokenizer import import_protobuf

    model = import_protobuf().ModelProto()
    model.ParseFromString(data)
    for field in ("input", "model_prefix", "self_test_sample_size"):
        model.trainer_spec.ClearField(field)
    model.normalizer_spec.ClearField("normalization_rule_tsv")
    return model.SerializeToString()


def unigram_json(path: Path) -> Tokenizer:
    """The tokenizer.json that transformers' converter makes of a unigram model."""
    from transformers.convert_slow_tokenizer import import_protobuf

    model = import_protobuf().ModelProto()
    model.ParseFromString(path.read_bytes())
    tokenizer = Tokenizer(models.Unigram([(p.piece, p.score) for p in model.pieces], unk_id=model.trainer_spec.unk_id))
    added = [AddedToken(p.piece, normalized=False, special=p.type != 4) for p in model.pieces if p.type in (2, 3, 4)]
    tokenizer.add_tokens(added)
    from tokenizers import Regex

    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap),
            normalizers.Strip(left=False, right=True),
            normalizers.Replace(Regex(" {2,}"), "▁"),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    return tokenizer


def metaspace_bpe(path: Path) -> Tokenizer:
    """Gemma 4's kind: the merges of a SentencePiece model over the whole text, without a space before it."""
    from transformers.convert_slow_tokenizer import import_protobuf
    from transformers.tokenization_utils_base import generate_merges

    model = import_protobuf().ModelProto()
    model.ParseFromString(path.read_bytes())
    vocab = {p.piece: i for i, p in enumerate(model.pieces)}
    # Runs of newlines are tokens there.
    for n in range(1, 5):
        vocab.setdefault("\n" * n, len(vocab))
    merges = generate_merges(vocab, {p.piece: p.score for p in model.pieces} | {"\n" * n: -5000.0 - n for n in range(1, 5)})
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    added = [AddedToken(p.piece, normalized=False, special=p.type != 4) for p in model.pieces if p.type in (2, 3, 4)]
    tokenizer.add_tokens(added)
    return tokenizer


def rwkv(out: Path, documents: list[str]) -> list[list[int]]:
    """A vocabulary of RWKV's form, and the ids of its greedy match."""
    tokens = [bytes([i]) for i in range(256)]
    seen = set(tokens)
    for fragment in FRAGMENTS:
        data = fragment.encode()
        for size in (2, 3, 5, 9):
            for start in range(0, len(data) - size, size + 2):
                if data[start : start + size] not in seen:
                    seen.add(data[start : start + size])
                    tokens.append(data[start : start + size])
    lines = []
    for i, token in enumerate(tokens, 1):
        try:
            literal = repr(token.decode())
        except UnicodeDecodeError:
            literal = repr(token)
        lines.append(f"{i} {literal} {len(token)}\n")
    (out / "rwkv_vocab.txt").write_text("".join(lines), encoding="utf-8")
    by_bytes = {token: i for i, token in enumerate(tokens, 1)}
    all_ids = []
    for document in documents:
        data, at, ids = document.encode(), 0, []
        while at < len(data):
            size = next(n for n in range(9, 0, -1) if data[at : at + n] in by_bytes and at + n <= len(data))
            ids.append(by_bytes[data[at : at + size]])
            at += size
        all_ids.append(ids)
    return all_ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--llama-cpp", help="a built llama.cpp folder (also from $LLAMA_CPP)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write = lambda name, value: (args.out / name).write_text(  # noqa: E731
        json.dumps(value, ensure_ascii=True, indent=1) + "\n"
    )
    documents = corpus()
    write("fragments.json", FRAGMENTS)
    print(f"{len(documents)} documents, {sum(len(d.encode()) for d in documents)} bytes")

    base = json.loads(learned(documents).to_str())
    # Tokens that no merges lead to: found only where whole pieces are looked up first.
    for word in ("Ġtimes", "Ġquick", "ĠEnglish", "Ġ1859", "Ġquote", "Result"):
        base["model"]["vocab"].setdefault(word, len(base["model"]["vocab"]))
    base["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    (args.out / "byte-level.json").write_text(json.dumps(base, ensure_ascii=False) + "\n", encoding="utf-8")
    splits = []
    hashes = {}
    for name, (normalizer, pre, ignore) in SPLITS.items():
        document = json.loads(json.dumps(base))
        document["normalizer"], document["pre_tokenizer"] = normalizer, pre
        document["model"]["ignore_merges"] = ignore
        tokenizer = Tokenizer.from_str(json.dumps(document))
        ids = encode(tokenizer, documents)
        found = summary(ids)
        print(f"{name:16} {found['count']} ids, {found['hash']}{agreement(args, base, name, ids, documents)}")
        other = hashes.setdefault(found["hash"], name)
        if other != name:
            raise SystemExit(f"{name} and {other} give the same ids: the corpus does not tell them apart")
        splits.append({"name": name, "normalizer": normalizer, "pre_tokenizer": pre, "ignore_merges": ignore, **found})
    write("splits.json", splits)

    expected = {}
    unigram, bpe = (sentencepiece_model(args.out, kind) for kind in ("unigram", "bpe"))
    for name, tokenizer in {
        "wordpiece-uncased": wordpiece(documents, True),
        "wordpiece-cased": wordpiece(documents, False),
        "unigram": unigram_json(unigram),
        "metaspace": metaspace_bpe(bpe),
    }.items():
        (args.out / f"{name}.json").write_text(
            json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False) + "\n", encoding="utf-8"
        )
        expected[name] = summary(encode(tokenizer, documents))
    import sentencepiece

    # The library would end a text at a zero. Where two ways of cutting are equally probable, its unigram takes another
    # one than tokenizers, which is what counts.
    texts = [d.replace("\0", "") for d in documents]
    model = sentencepiece.SentencePieceProcessor(model_file=str(bpe))
    expected[bpe.name] = summary([model.encode(text) for text in texts])
    model = sentencepiece.SentencePieceProcessor(model_file=str(unigram))
    pairs = zip(encode(unigram_json(unigram), texts), map(model.encode, texts), strict=True)
    print(f"unigram: sentencepiece agrees on {sum(a == b for a, b in pairs)} of {len(texts)} documents")
    expected["rwkv_vocab.txt"] = summary(rwkv(args.out, documents))
    write("expected.json", expected)
    for name, found in expected.items():
        print(f"{name:18} {found['count']} ids, {found['hash']}")


def agreement(args: argparse.Namespace, base: dict, name: str, ids: list[list[int]], documents: list[str]) -> str:
    """In how many documents llama.cpp agrees."""
    folder = llama_cpp_folder(args.llama_cpp)
    if not folder:
        return ""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "vocab.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        vocab = sorted(base["model"]["vocab"].items(), key=lambda item: item[1])
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(name)
        writer.add_token_list([token for token, _ in vocab])
        writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(vocab) - 1))
        writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in base["model"]["merges"]])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(0)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        # Texts go through the pipe ended by zeros, and answers by newlines.
        texts = [d.replace("\0", "") for d in documents]
        tokenizer_ids = ids if texts == documents else None
        found = LlamaCpp(folder).tokenize(path, texts)
        if tokenizer_ids is None:
            same = sum(a == b for a, b, t, d in zip(ids, found, texts, documents, strict=True) if t == d)
            return f"; llama.cpp agrees on {same} of {sum(t == d for t, d in zip(texts, documents))} documents"
        return f"; llama.cpp agrees on {sum(a == b for a, b in zip(ids, found, strict=True))} of {len(ids)} documents"


if __name__ == "__main__":
    main()
