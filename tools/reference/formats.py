"""Writes crates/numeric/tests/fixtures: what gguf-py makes of the same numbers.

    python tools/reference/formats.py path/to/libggml-base.so

`input.f32` holds blocks of values (usual weights, heavy tails, extremes, subnormals, infinities, NaN);
`<format>.encoded` what gguf-py (numpy for the plain numbers gguf-py does not quantize) encodes them to, as far as they
are whole blocks; `<format>.bytes` arbitrary bytes and `<format>.decoded` the f32 they stand for.

Formats whose encoder searches are compared by their errors: `blocks.input` and `blocks.importance` (f16) are rows of
numbers and the importance of each column as in formats_iq.py, `blocks.rmse` the errors that ggml's encoders leave.
"""

import pathlib
import sys

import formats_iq
import gguf
import numpy as np

OUT = pathlib.Path(__file__).parents[2] / "crates/numeric/tests/fixtures"
PLAIN = {"f32": np.float32, "f64": np.float64, "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64}
PACKED = ["f16", "bf16", "q8_0", "q4_0"]
EXACT = ["q4_1", "q5_0", "q5_1", "mxfp4", "tq1_0", "tq2_0"]  # gguf-py encodes these
# Where the binary16 scales are.
SCALES = {
    "q4_1": [0, 2], "q5_0": [0], "q5_1": [0, 2], "q2_k": [80, 82], "q3_k": [108], "q4_k": [0, 2], "q5_k": [0, 2],
    "q6_k": [208], "iq4_nl": [0], "iq4_xs": [0], "mxfp4": [], "nvfp4": [], "tq1_0": [52], "tq2_0": [64],
}  # fmt: skip


def inputs(rng):
    rows = [rng.standard_normal(32) * 0.02 for _ in range(8)]
    rows += [rng.standard_t(2, 32) * 10.0 ** rng.integers(-6, 5) for _ in range(16)]
    rows += [np.zeros(32), np.full(32, -0.0), np.full(32, 1.0), np.linspace(-8, 8, 32)]
    rows += [np.tile([1.0, -1.0], 16), np.tile([-3.0, 3.0], 16)]  # equal magnitudes: the first decides
    rows += [np.arange(32) + 0.5, (np.arange(32) - 16) * 127 / 16]  # halves
    rows += [rng.standard_normal(32) * 1e-7, rng.standard_normal(32) * 1e-40]  # f16 and f32 subnormals
    rows += [rng.standard_normal(32) * 1e37, np.linspace(65400, 65600, 32)]  # over the top of f16
    x = np.array(rows, dtype=np.float32)
    odd = np.zeros((3, 32), dtype=np.float32)
    odd[0, 5], odd[1, 7], odd[2, 9] = np.inf, -np.inf, np.nan
    odd[:, 20] = 1.5
    bits = rng.integers(0, 1 << 32, (8, 32), dtype=np.uint32).view(np.float32)
    return np.concatenate([x, odd, bits])


def blocks():
    """The formats of SCALES."""
    rng = np.random.default_rng(3)
    x = np.fromfile(OUT / "input.f32", dtype="<f4")
    for name, scales in SCALES.items():
        kind = gguf.GGMLQuantizationType[name.upper()]
        length, size = gguf.GGML_QUANT_SIZES[kind]
        if name in EXACT:
            gguf.quants.quantize(x[None, : x.size // length * length], kind).tofile(OUT / f"{name}.encoded")
        raw = rng.integers(0, 256, (16 if length < 256 else 7, size), dtype=np.uint8)
        for row, d in zip(raw[1:], [0x7C00, 0xFE01, 0x8000, 0x0003]):
            for at in scales:
                row[at : at + 2] = d & 255, d >> 8
        if name == "nvfp4":
            raw[0, :4], raw[1, :4] = [0, 0x7F, 0x80, 0xFF], [1, 7, 8, 0x7E]
        if name == "mxfp4":
            raw[:5, 0] = [0, 1, 2, 254, 255]
        raw.tofile(OUT / f"{name}.bytes")
        gguf.quants.dequantize(raw, kind).astype("<f4").tofile(OUT / f"{name}.decoded")
    x, importance = formats_iq.inputs(rng)
    x.astype("<f2").tofile(OUT / "blocks.input")
    importance.astype("<f2").tofile(OUT / "blocks.importance")
    ggml = formats_iq.load(sys.argv[1])
    lines = []
    for name in SCALES:
        for kind, part in zip(formats_iq.KINDS, np.split(x, len(formats_iq.KINDS))):
            plain = formats_iq.rmse(part, formats_iq.requantized(ggml, name, part, None), 1.0)
            weighted = formats_iq.requantized(ggml, name, part, importance)
            weighted = formats_iq.rmse(part, weighted, importance)
            lines.append(f"{name} {kind} {plain:.6e} {weighted:.6e}\n")
    (OUT / "blocks.rmse").write_text("".join(lines))


def main():
    rng = np.random.default_rng(1)
    OUT.mkdir(parents=True, exist_ok=True)
    x = inputs(rng)
    x.astype("<f4").tofile(OUT / "input.f32")
    np.seterr(all="ignore")
    for name in PACKED:
        kind = gguf.GGMLQuantizationType[name.upper()]
        gguf.quants.quantize(x, kind).tofile(OUT / f"{name}.encoded")
        block_bytes = gguf.GGML_QUANT_SIZES[kind][1]
        raw = rng.integers(0, 256, (1, block_bytes * max(16, 512 // block_bytes)), dtype=np.uint8)
        raw.tofile(OUT / f"{name}.bytes")
        gguf.quants.dequantize(raw, kind).astype("<f4").tofile(OUT / f"{name}.decoded")
    for name, kind in PLAIN.items():
        if name.startswith("f"):
            x.astype(kind).tofile(OUT / f"{name}.encoded")
        raw = rng.integers(0, 256, 64 * np.dtype(kind).itemsize, dtype=np.uint8)
        raw.tofile(OUT / f"{name}.bytes")
        raw.view(kind).astype("<f4").tofile(OUT / f"{name}.decoded")
    blocks()


if __name__ == "__main__":
    main()
