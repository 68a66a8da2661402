#!/usr/bin/env python3
"""Write crates/files/tests/hostile: files that lie, and what the error about each must say.

    python tools/reference/hostile.py

expected.json maps each file (relative path) to the words its error must have besides the name of the file. How a file
is opened follows from its name: *.gguf as a model and its tokenizer, *.safetensors, *.index.json as the index of a
sharded model, *tokenizer.json, *config.json as a configuration that must have hidden_size.

Needs nothing but Python.
"""

import json
import shutil
import struct
from pathlib import Path

OUT = Path(__file__).parents[2] / "crates/files/tests/hostile"
EXPECTED: dict[str, list[str]] = {}

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
HUGE = 1 << 63


def put(name: str, data: bytes | str, *words: str) -> None:
    """One hostile file."""
    path = OUT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    if words:
        EXPECTED[name] = list(words)


# GGUF


def u32(x: int) -> bytes:
    return struct.pack("<I", x)


def u64(x: int) -> bytes:
    return struct.pack("<Q", x)


def string(text: str | bytes, length: int | None = None) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return u64(len(data) if length is None else length) + data


def kv(key: str | bytes, kind: int, value: bytes) -> bytes:
    return string(key) + u32(kind) + value


def array(kind: int, values: list[bytes], count: int | None = None) -> bytes:
    return u32(kind) + u64(len(values) if count is None else count) + b"".join(values)


def strings(texts: list[str]) -> bytes:
    return array(STRING, [string(t) for t in texts])


def info(name: str | bytes, dims: list[int], kind: int = 0, offset: int = 0, n_dims: int | None = None) -> bytes:
    count = len(dims) if n_dims is None else n_dims
    return string(name) + u32(count) + b"".join(u64(d) for d in dims) + u32(kind) + u64(offset)


def model(
    kvs: list[bytes] = (),
    infos: list[bytes] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: bytes = u32(3),
    n_tensors: int | None = None,
    n_kvs: int | None = None,
) -> bytes:
    """A GGUF file whose counts may lie."""
    counts = u64(len(infos) if n_tensors is None else n_tensors) + u64(len(kvs) if n_kvs is None else n_kvs)
    head = magic + version + counts + b"".join(kvs) + b"".join(infos)
    return head + b"\0" * (-len(head) % 32) + data


ARCH = kv("general.architecture", STRING, string("llama"))


def gguf_files() -> None:
    good = model([ARCH], [info("a", [8, 2]), info("b", [8], offset=64)], bytes(96))
    for name, at, *words in [
        ("empty", 0, "magic", "GGUF"),
        ("in_magic", 3, "magic", "GGUF"),
        ("in_version", 6, "version", "cut off"),
        ("in_tensor_count", 12, "tensor count", "cut off"),
        ("in_key_count", 20, "metadata count", "cut off"),
        ("in_key", 40, "metadata key 0", "cut off"),
        ("in_value_type", 54, "general.architecture", "cut off"),
        ("in_value", 66, "general.architecture", "cut off"),
        ("in_name", 80, "tensors", "cut off"),
        ("in_table", 124, "tensor b", "cut off"),
        ("in_data", len(good) - 1, "tensor b", "cut off"),
        ("before_data", len(good) - 96, "tensor a", "cut off"),
    ]:
        put(f"gguf/truncated_{name}.gguf", good[:at], *words)

    put("gguf/magic.gguf", model(magic=b"GGML"), "magic", "GGML")
    put("gguf/magic_zip.gguf", b"PK\3\4" + bytes(60), "magic", "PK")
    put("gguf/version_1.gguf", model(version=u32(1)), "version", "1")
    put("gguf/version_99.gguf", model(version=u32(99)), "version", "99")
    put("gguf/version_max.gguf", model(version=u32(0xFFFFFFFF)), "version", "4294967295")
    put("gguf/big_endian.gguf", model(version=struct.pack(">I", 3)), "version", "big-endian")
    put("gguf/tensor_count.gguf", model(n_tensors=HUGE), "tensor count", str(HUGE))
    put("gguf/tensor_count_large.gguf", model([ARCH], n_tensors=200_000), "table of 200000 tensors")
    put("gguf/key_count.gguf", model(n_kvs=HUGE), "metadata count", str(HUGE))
    put("gguf/key_count_large.gguf", model([ARCH], n_kvs=60_000), "metadata key 1")

    put("gguf/key_length.gguf", model([string("k", HUGE)], n_kvs=1), "metadata key 0", "cut off")
    put("gguf/key_empty.gguf", model([kv("", U32, u32(1))]), "metadata key 0")
    put("gguf/key_utf8.gguf", model([kv(b"\xff\xfe", U32, u32(1))]), "metadata key 0", "UTF-8")
    put("gguf/key_twice.gguf", model([ARCH, ARCH]), "general.architecture", "twice")
    put("gguf/value_type.gguf", model([kv("k", 13, u32(1))]), "metadata k", "13")
    put("gguf/value_bool.gguf", model([kv("k", BOOL, b"\2")]), "metadata k", "bool")
    put("gguf/value_string_length.gguf", model([kv("k", STRING, string("x", HUGE))]), "metadata k", "cut off")
    put("gguf/value_string_utf8.gguf", model([kv("k", STRING, string(b"ab\xc3("))]), "metadata k", "UTF-8")
    put("gguf/array_count.gguf", model([kv("k", ARRAY, array(U32, [], HUGE))]), "metadata k", "array")
    put("gguf/array_count_overflow.gguf", model([kv("k", ARRAY, array(U64, [], (1 << 61) + 1))]), "metadata k", "array")
    put("gguf/array_strings_count.gguf", model([kv("k", ARRAY, array(STRING, [], 1 << 60))]), "metadata k", "array")
    put("gguf/array_type.gguf", model([kv("k", ARRAY, array(77, [u32(1)]))]), "metadata k", "77")
    put("gguf/array_string_length.gguf", model([kv("k", ARRAY, array(STRING, [string("x", 1 << 40)]))]), "metadata k[0]")
    put("gguf/array_string_utf8.gguf", model([kv("k", ARRAY, array(STRING, [string(b"\xf8")]))]), "metadata k[0]", "UTF-8")
    nested = array(U32, [u32(1)])
    for _ in range(60):
        nested = array(ARRAY, [nested])
    put("gguf/array_deep.gguf", model([kv("k", ARRAY, nested)]), "metadata k", "depth of arrays")

    align = lambda x: kv("general.alignment", U32, u32(x))  # noqa: E731
    put("gguf/alignment_zero.gguf", model([align(0)]), "general.alignment", "power of two")
    put("gguf/alignment_odd.gguf", model([align(48)]), "general.alignment", "power of two")
    put("gguf/alignment_huge.gguf", model([align(1 << 31)]), "general.alignment", "power of two")
    put("gguf/alignment_type.gguf", model([kv("general.alignment", STRING, string("32"))]), "general.alignment", "expected")

    put("gguf/tensor_name_length.gguf", model([], [string("x", HUGE) + bytes(40)]), "name of tensor 0", "cut off")
    put("gguf/tensor_name_empty.gguf", model([], [info("", [1])], bytes(32)), "name of tensor 0")
    put("gguf/tensor_name_long.gguf", model([], [info("n" * 2000, [1])], bytes(32)), "name of tensor 0")
    put("gguf/tensor_name_utf8.gguf", model([], [info(b"\xc0\x80", [1])], bytes(32)), "name of tensor 0", "UTF-8")
    put("gguf/tensor_twice.gguf", model([], [info("a", [1]), info("a", [1], offset=32)], bytes(64)), "tensor a", "twice")
    put("gguf/tensor_dims_count.gguf", model([], [info("a", [1] * 5)], bytes(32)), "tensor a", "dimensions", "5")
    put("gguf/tensor_dims_count_huge.gguf", model([], [info("a", [1], n_dims=0xFFFFFFFF)], bytes(32)), "tensor a", "dimensions")
    put("gguf/tensor_dim_zero.gguf", model([], [info("a", [4, 0])], bytes(32)), "tensor a", "zero")
    put("gguf/tensor_dim_huge.gguf", model([], [info("a", [HUGE])], bytes(32)), "tensor a", "dimension 0")
    put("gguf/tensor_dims_overflow.gguf", model([], [info("a", [1 << 32, 1 << 32])], bytes(32)), "tensor a", "overflow")
    put("gguf/tensor_dims_large.gguf", model([], [info("a", [1 << 40])], bytes(32)), "tensor a", "cut off")
    put("gguf/tensor_type.gguf", model([], [info("a", [32], kind=999)], bytes(128)), "tensor a", "type", "999")
    put("gguf/tensor_type_removed.gguf", model([], [info("a", [32], kind=4)], bytes(128)), "tensor a", "type", "4")
    put("gguf/tensor_block.gguf", model([], [info("a", [33, 32], kind=8)], bytes(4096)), "tensor a", "33", "q8_0")
    put("gguf/tensor_offset_odd.gguf", model([], [info("a", [1], offset=4)], bytes(64)), "tensor a", "offset", "alignment")
    put("gguf/tensor_offset_past.gguf", model([], [info("a", [1], offset=1 << 20)], bytes(64)), "tensor a", "cut off")
    put("gguf/tensor_offset_huge.gguf", model([], [info("a", [1], offset=(1 << 64) - 32)], bytes(64)), "tensor a", "cut off")
    infos = [info("a", [16]), info("b", [8], offset=32)]
    put("gguf/tensor_overlap.gguf", model([], infos, bytes(96)), "tensor b", "overlaps", "tensor a")
    put("gguf/tensor_same_place.gguf", model([], [info("a", [8]), info("b", [8])], bytes(32)), "overlaps")

    split = lambda n, no: [kv("split.no", 2, struct.pack("<H", no)), kv("split.count", 2, struct.pack("<H", n))]  # noqa: E731
    put("gguf/split_missing-00001-of-00003.gguf", model(split(3, 0)), "shard", "00002-of-00003.gguf", "missing")
    put("gguf/split_unnamed.gguf", model(split(3, 0)), "split.count", "-00001-of-00003.gguf")
    put("gguf/split_second-00002-of-00003.gguf", model(split(3, 1)), "split.no", "not the first")
    put("gguf/split_cyclic-00001-of-00002.gguf", model(split(2, 0), [info("a", [1])], bytes(32)), "00002-of-00002.gguf", "split.no")
    put("gguf/split_cyclic-00002-of-00002.gguf", model(split(2, 0), [info("a", [1])], bytes(32)), "split.no|split.count")
    put("gguf/split_total-00001-of-00002.gguf", model([*split(2, 0), kv("split.tensors.count", I32, struct.pack("<i", 9))]), "split.tensors.count", "9")
    put("gguf/split_total-00002-of-00002.gguf", model(split(2, 1)), "split.no", "not the first")
    put("gguf/split_count_type.gguf", model([kv("split.count", STRING, string("2"))]), "split.count", "expected")
    put("gguf/split_count_negative.gguf", model([kv("split.count", I32, struct.pack("<i", -1))]), "split.count", "expected")


# Tokenizers of GGUF


def tokenizer(kind: str = "gpt2", tokens: list[str] = ("a", "b", "ab"), more: list[bytes] = (), without: list[str] = ()) -> bytes:
    """A GGUF file with a tokenizer."""
    kvs = [kv("tokenizer.ggml.model", STRING, string(kind))]
    if "pre" not in without:
        kvs.append(kv("tokenizer.ggml.pre", STRING, string("gpt-2")))
    if "tokens" not in without:
        kvs.append(kv("tokenizer.ggml.tokens", ARRAY, strings(list(tokens))))
    if "merges" not in without and kind == "gpt2":
        kvs.append(kv("tokenizer.ggml.merges", ARRAY, strings(["a b"])))
    return model([*kvs, *more])


def gguf_tokenizers() -> None:
    ggml = "tokenizer.ggml."
    ints = lambda xs: array(I32, [struct.pack("<i", x) for x in xs])  # noqa: E731
    floats = lambda xs: array(F32, [struct.pack("<f", x) for x in xs])  # noqa: E731
    past = lambda key, x: kv(f"{ggml}{key}_token_id", U32, u32(x))  # noqa: E731
    put("gguf/tokenizer_model.gguf", tokenizer("elvish"), f"{ggml}model", "elvish")
    put("gguf/tokenizer_absent.gguf", model([ARCH]), f"{ggml}model", "missing")
    put("gguf/tokenizer_tokens_absent.gguf", tokenizer(without=["tokens"]), f"{ggml}tokens", "missing")
    put("gguf/tokenizer_merges_absent.gguf", tokenizer(without=["merges"]), f"{ggml}merges", "missing")
    put("gguf/tokenizer_pre.gguf", tokenizer(without=["pre"], more=[kv(f"{ggml}pre", STRING, string("elvish"))]), f"{ggml}pre", "elvish")
    listed = [kv(f"{ggml}model", STRING, string("gpt2")), kv(f"{ggml}tokens", ARRAY, ints([1, 2]))]
    put("gguf/tokenizer_tokens_type.gguf", model(listed), f"{ggml}tokens", "array of strings")
    for key in ["bos", "eos", "unknown", "padding", "eot"]:
        put(f"gguf/tokenizer_{key}_past.gguf", tokenizer(more=[past(key, 3)]), f"{ggml}{key}_token_id", "past the vocabulary")
    put("gguf/tokenizer_bos_missing.gguf", tokenizer(more=[kv(f"{ggml}add_bos_token", BOOL, b"\1")]), f"{ggml}add_bos_token")
    put("gguf/tokenizer_types_short.gguf", tokenizer(more=[kv(f"{ggml}token_type", ARRAY, ints([1]))]), f"{ggml}token_type", "1 entries")
    merges = kv(f"{ggml}merges", ARRAY, strings(["a b", "ab c"]))
    put("gguf/tokenizer_merge_past.gguf", tokenizer(without=["merges"], more=[merges]), f"{ggml}merges[1]", "past the vocabulary")
    merges = kv(f"{ggml}merges", ARRAY, strings(["ab ab"]))
    put("gguf/tokenizer_merge_whole.gguf", tokenizer(without=["merges"], more=[merges]), f"{ggml}merges[0]", "abab")
    merges = kv(f"{ggml}merges", ARRAY, strings(["ab"]))
    put("gguf/tokenizer_merge_one.gguf", tokenizer(without=["merges"], more=[merges]), f"{ggml}merges[0]")
    spm = ["<unk>", "<s>", "</s>", "a"]
    scores = lambda xs: kv(f"{ggml}scores", ARRAY, floats(xs))  # noqa: E731
    put("gguf/tokenizer_scores_absent.gguf", tokenizer("llama", spm), f"{ggml}scores", "missing")
    put("gguf/tokenizer_scores_short.gguf", tokenizer("llama", spm, [scores([0.0])]), f"{ggml}scores", "1 entries")
    put("gguf/tokenizer_scores_nan.gguf", tokenizer("llama", spm, [scores([0, 0, 0, float("nan")])]), f"{ggml}scores", "not finite")
    kinds = kv(f"{ggml}token_type", ARRAY, ints([2, 3, 3, 6]))
    put("gguf/tokenizer_byte.gguf", tokenizer("llama", spm, [scores([0] * 4), kinds]), f"{ggml}tokens", "byte")


# safetensors


def safetensors(header: bytes | str | dict, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(header) if isinstance(header, dict) else header
    text = text.encode() if isinstance(text, str) else text
    return u64(len(text) if length is None else length) + text + data


def entry(shape: list, offsets: list, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def safetensors_files() -> None:
    one = {"a": entry([2], [0, 8])}
    good = safetensors(one, bytes(8))
    for name, at, word in [("in_length", 5, "header length"), ("in_header", 20, "header"), ("in_data", len(good) - 1, "tensor a")]:
        put(f"safetensors/truncated_{name}.safetensors", good[:at], word, "cut off")
    put("safetensors/empty.safetensors", b"", "header length", "cut off")
    put("safetensors/header_length.safetensors", safetensors(one, length=HUGE), "header length", str(HUGE))
    put("safetensors/header_length_limit.safetensors", safetensors(one, length=90_000_000), "header", "cut off")
    put("safetensors/header_not_json.safetensors", safetensors("{]"), "header")
    put("safetensors/header_not_object.safetensors", safetensors("[1]"), "header", "object")
    put("safetensors/header_utf8.safetensors", safetensors(b'{"\xff": 1}'), "header", "UTF-8")
    put("safetensors/header_deep.safetensors", safetensors('{"a":' + "[" * 20000), "tensor a")
    put("safetensors/header_trailing.safetensors", safetensors("{} {}"), "header", "trailing")
    put("safetensors/gguf_inside.safetensors", model([ARCH]), "header length")
    put("safetensors/twice.safetensors", safetensors('{"a":%s,"a":%s}' % ((json.dumps(one["a"]),) * 2), bytes(8)), "tensor a|header: a", "twice")
    put("safetensors/dtype.safetensors", safetensors({"a": entry([2], [0, 8], "F31")}, bytes(8)), "tensor a", "dtype", "F31")
    put("safetensors/field_absent.safetensors", safetensors({"a": {"dtype": "F32", "shape": [2]}}), "tensor a", "data_offsets")
    put("safetensors/field_unknown.safetensors", safetensors({"a": one["a"] | {"stride": 1}}, bytes(8)), "tensor a", "stride")
    put("safetensors/shape_zero.safetensors", safetensors({"a": entry([2, 0], [0, 0])}), "tensor a", "zero")
    put("safetensors/shape_negative.safetensors", safetensors({"a": entry([-2], [0, 8])}, bytes(8)), "tensor a", "-2")
    put("safetensors/shape_huge.safetensors", safetensors({"a": entry([HUGE], [0, 8])}, bytes(8)), "tensor a", "shape")
    put("safetensors/shape_overflow.safetensors", safetensors({"a": entry([1 << 32, 1 << 32], [0, 8])}, bytes(8)), "tensor a", "shape")
    put("safetensors/shape_long.safetensors", safetensors({"a": entry([1] * 100, [0, 4])}, bytes(4)), "tensor a", "dimensions")
    put("safetensors/offsets_reversed.safetensors", safetensors({"a": entry([2], [8, 0])}, bytes(8)), "tensor a", "data_offsets")
    put("safetensors/offsets_size.safetensors", safetensors({"a": entry([2], [0, 12])}, bytes(12)), "tensor a", "data_offsets")
    put("safetensors/offsets_past.safetensors", safetensors({"a": entry([1 << 40], [0, 1 << 42])}, bytes(8)), "tensor a", "data_offsets")
    put("safetensors/offsets_overlap.safetensors", safetensors({"a": entry([2], [0, 8]), "b": entry([2], [4, 12])}, bytes(12)), "tensor b", "overlaps")
    put("safetensors/offsets_gap.safetensors", safetensors({"a": entry([1], [0, 4]), "b": entry([1], [8, 12])}, bytes(12)), "tensor b", "gap")
    put("safetensors/data_left_over.safetensors", safetensors(one, bytes(16)), "data_offsets", "no tensor")
    put("safetensors/metadata.safetensors", safetensors({"__metadata__": {"a": 1}}), "__metadata__")


def index_files() -> None:
    shard = safetensors({"a": entry([2], [0, 8])}, bytes(8))

    def index(name: str, weight_map, *words: str, **files: bytes) -> None:
        folder = f"index/{name}"
        for file, data in files.items():
            put(f"{folder}/{file}.safetensors", data)
        text = weight_map if isinstance(weight_map, str) else json.dumps({"metadata": {}, "weight_map": weight_map})
        put(f"{folder}/model.safetensors.index.json", text, *words)

    index("not_json", "{", "index")
    index("no_map", '{"metadata": {}}', "weight_map")
    index("map_type", '{"weight_map": [1]}', "index")
    index("twice", '{"weight_map": {"a": "x.safetensors", "a": "y.safetensors", "a": "x.safetensors"}}', "weight_map", "twice")
    index("missing_shard", {"a": "x.safetensors", "b": "y.safetensors"}, "y.safetensors", "missing", x=shard)
    index("missing_tensor", {"a": "x.safetensors", "b": "x.safetensors"}, "tensor b", "x.safetensors", x=shard)
    index("broken_shard", {"a": "x.safetensors"}, "x.safetensors", "cut off", x=shard[:-2])
    index("two_shards", {"a": "x.safetensors", "b": "y.safetensors"}, "tensor b", x=shard, y=shard)
    index("cyclic", {"a": "model.safetensors.index.json"}, "weight_map", "another index")
    for name, path in [
        ("escape_parent", "../../safetensors/dtype.safetensors"),
        ("escape_absolute", "/etc/passwd"),
        ("escape_windows", "..\\x.safetensors"),
        ("escape_dots", ".."),
        ("empty_name", ""),
    ]:
        index(name, {"a": path}, "weight_map", "directory of the index")


# tokenizer.json and config.json


def tokenizer_files() -> None:
    vocab = {"a": 0, "b": 1, "ab": 2}
    bpe = {"type": "BPE", "vocab": vocab, "merges": ["a b"]}

    def document(name: str, *words: str, model=bpe, **fields) -> None:
        text = json.dumps({"version": "1.0", "model": model} | fields)
        put(f"tokenizer/{name}.tokenizer.json", text, *words)

    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    put("tokenizer/empty.tokenizer.json", "", "JSON")
    put("tokenizer/truncated.tokenizer.json", json.dumps({"model": bpe})[:40], "JSON")
    put("tokenizer/deep.tokenizer.json", '{"normalizer":' + "[" * 20000, "JSON")
    put("tokenizer/no_model.tokenizer.json", '{"added_tokens": []}', "model")
    document("model_type", "model", model=bpe | {"type": "Elvish"})
    document("vocab_negative", "model", model=bpe | {"vocab": {"a": -1}})
    document("vocab_past", "model.vocab", "past the vocabulary", model=bpe | {"vocab": vocab | {"c": 4294967295}})
    document("vocab_twice", "model.vocab", "same id", model=bpe | {"vocab": vocab | {"c": 2}})
    document("merge_past", "model.merges[0]", "past the vocabulary", model=bpe | {"merges": ["a c"]})
    document("merge_whole", "model.merges[0]", "abab", model=bpe | {"merges": [["ab", "ab"]]})
    document("merge_one", "model.merges[0]", model=bpe | {"merges": ["ab"]})
    document("merge_prefix", "model.merges[0]", model=bpe | {"continuing_subword_prefix": "éé"})
    document("unknown_past", "model.unk_token", model=bpe | {"unk_token": "<unk>"})
    document("unigram_unknown", "model", model={"type": "Unigram", "unk_id": 7, "vocab": [["a", 0.0]]})
    document("added_past", "added_tokens", "past the vocabulary", added_tokens=[added | {"id": 99, "content": "<s>"}])
    document("added_empty", "added_tokens", added_tokens=[added | {"id": 3, "content": ""}])
    document("added_negative", "JSON", added_tokens=[added | {"id": -1, "content": "x"}])
    document("pre_tokenizer_type", "pre_tokenizer", pre_tokenizer={"type": "Elvish"})
    document("pre_tokenizer_regex", "pre_tokenizer", pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False})
    document("pre_tokenizer_length", "pre_tokenizer", "length", pre_tokenizer={"type": "FixedLength", "length": 0})
    document("decoder_strip", "decoder", "stop", decoder={"type": "Strip", "content": "a", "start": 0, "stop": 9})
    roberta = {"type": "RobertaProcessing", "sep": ["a", 0], "cls": ["z", 77], "trim_offsets": True, "add_prefix_space": False}
    document("post_processor_past", "post_processor.cls", "past the vocabulary", post_processor=roberta)
    template = {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {"z": {"id": "z", "ids": [3], "tokens": ["z"]}}}
    piece = {"Sequence": {"id": "B", "type_id": 0}}
    document("template_second", "post_processor.single", post_processor=template | {"single": [piece]})
    piece = {"SpecialToken": {"id": "y", "type_id": 0}}
    document("template_absent", "post_processor.single", post_processor=template | {"single": [piece]})
    charsmap = {"type": "Precompiled", "precompiled_charsmap": "////PwAA"}
    document("normalizer_table", "normalizer", "Precompiled", normalizer=charsmap)
    document("template_past", "post_processor.special_tokens.z.ids", "past the vocabulary", post_processor=template)


def config_files() -> None:
    put("config/empty.config.json", "", "JSON")
    put("config/truncated.config.json", '{"hidden_size": 6', "JSON")
    put("config/list.config.json", "[]", "object")
    put("config/deep.config.json", '{"a":' * 20000, "JSON")
    put("config/utf8.config.json", b'{"hidden_size": "\xff"}', "JSON")
    put("config/absent.config.json", "{}", "hidden_size", "missing")
    put("config/null.config.json", '{"hidden_size": null}', "hidden_size", "missing")
    for name, value in [("negative", -64), ("fraction", 0.5), ("text", "64"), ("infinite", 1e300), ("overflow", 1 << 65)]:
        put(f"config/{name}.config.json", json.dumps({"hidden_size": value}), "hidden_size", "expected")


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    gguf_files()
    gguf_tokenizers()
    safetensors_files()
    index_files()
    tokenizer_files()
    config_files()
    lines = ",\n ".join(f"{json.dumps(name)}: {json.dumps(words, ensure_ascii=False)}" for name, words in sorted(EXPECTED.items()))
    (OUT / "expected.json").write_text(f"{{\n {lines}\n}}\n")
    print(f"{OUT}: {len(EXPECTED)} hostile files")


if __name__ == "__main__":
    main()
