#!/usr/bin/env python3
"""Write crates/files/tests/fixtures/model: the same small model as gguf-py and safetensors write it.

    python tools/reference/files.py

plain.gguf has metadata of every type and tensors of several formats; split-0000N-of-00002.gguf the same tensors, two per
shard; big.gguf is big-endian; model.safetensors the float tensors, and sharded/ the same behind an index.

Needs gguf, numpy, safetensors.
"""

import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file

OUT = Path(__file__).parents[2] / "crates/files/tests/fixtures/model"


def tensors() -> dict[str, np.ndarray]:
    """Small tensors whose values say where they are."""
    return {
        "token_embd.weight": np.arange(3 * 64, dtype=np.float32).reshape(3, 64) / 8,
        "blk.0.norm.weight": np.arange(5, dtype=np.float32) - 2,
        "conv": np.arange(2 * 3 * 4, dtype=np.float16).reshape(2, 3, 4),
    }


def metadata(writer: gguf.GGUFWriter) -> None:
    """A value of every type."""
    writer.add_uint8("t.u8", 200)
    writer.add_int8("t.i8", -100)
    writer.add_uint16("t.u16", 60000)
    writer.add_int16("t.i16", -30000)
    writer.add_uint32("t.u32", 4000000000)
    writer.add_int32("t.i32", -2000000000)
    writer.add_uint64("t.u64", 1 << 63)
    writer.add_int64("t.i64", -(1 << 62))
    writer.add_float32("t.f32", 0.5)
    writer.add_float64("t.f64", 0.1)
    writer.add_bool("t.bool", True)
    writer.add_string("t.string", "naïve ▁text")
    writer.add_array("t.strings", ["", "a", "é"])
    writer.add_array("t.ints", [1, -2, 3])
    writer.add_array("t.floats", [0.5, -1.5])
    writer.add_array("t.bools", [True, False])
    writer.add_array("t.nested", [[1, 2], [3], [4, 5, 6]])


def write_gguf(path: Path, **options) -> None:
    """One file, or shards."""
    writer = gguf.GGUFWriter(path, "llama", **options)
    metadata(writer)
    for name, array in tensors().items():
        writer.add_tensor(name, array)
    packed = gguf.quants.quantize(tensors()["token_embd.weight"], gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("packed", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write() -> None:
    (OUT / "sharded").mkdir(parents=True, exist_ok=True)
    write_gguf(OUT / "plain.gguf")
    write_gguf(OUT / "big.gguf", endianess=gguf.GGUFEndian.BIG)
    write_gguf(OUT / "split.gguf", split_max_tensors=2)
    save_file(tensors(), OUT / "model.safetensors", metadata={"format": "pt"})
    names, weight_map = list(tensors()), {}
    for i, part in enumerate([names[:1], names[1:]], 1):
        shard = f"model-{i:05}-of-00002.safetensors"
        save_file({n: tensors()[n] for n in part}, OUT / "sharded" / shard)
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors().values())}, "weight_map": weight_map}
    (OUT / "sharded/model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    write()
