"""Writes the iq formats' part of crates/numeric/tests/fixtures, with gguf-py and ggml's own encoders.

    python tools/reference/formats_iq.py path/to/libggml-base.so

`<format>.bytes` and `<format>.decoded` are as in formats.py. `iq.input` holds rows of numbers (f16), a third each
Gaussian, heavy-tailed and as in a trained network; `iq.importance` the importance of each column (f16); `iq.rmse` the
root mean squared errors that ggml's encoders leave on each third: `format kind plain weighted`, the first encoded
without an importance (with one of ones where the encoder insists) and the second with it, and weighted by it.
"""

import ctypes
import pathlib
import sys

import gguf
import numpy as np

OUT = pathlib.Path(__file__).parents[2] / "crates/numeric/tests/fixtures"
FORMATS = ["iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s"]
INSIST = ["iq1_s", "iq2_xxs", "iq2_xs"]
KINDS = ["gaussian", "heavy", "trained"]
ROWS, COLUMNS = 4, 1024


def kind_of(name):
    return gguf.GGMLQuantizationType[name.upper()]


def arbitrary_blocks(rng, name):
    """Random bytes under ordinary scales and those of an infinity, a NaN, a negative zero and a subnormal."""
    raw = rng.integers(0, 256, (6, gguf.GGML_QUANT_SIZES[kind_of(name)][1]), dtype=np.uint8)
    raw[0, 1] = 0x3C
    for row, d in zip(raw[2:], [0x7C00, 0xFE01, 0x8000, 0x0003]):
        if name == "iq1_m":  # four bits each in the high ends of four words
            for i in range(4):
                row[-7 + 2 * i] = row[-7 + 2 * i] & 15 | (d >> 4 * i & 15) << 4
        else:
            row[:2] = d & 255, d >> 8
    return raw


def inputs(rng, rows=ROWS):
    gaussian = rng.standard_normal((rows, COLUMNS)) * 0.03
    heavy = np.clip(rng.standard_t(3, (rows, COLUMNS)), -30, 30) * 0.02
    # Rows and columns of different magnitude, a few large columns, tails between Gaussian's and Laplace's.
    trained = rng.laplace(size=(rows, COLUMNS)) * 0.5 + rng.standard_normal((rows, COLUMNS))
    columns = np.exp(rng.standard_normal(COLUMNS) * 0.4)
    columns[rng.integers(0, COLUMNS, 8)] *= 6
    trained *= 0.02 * columns * np.exp(rng.standard_normal((rows, 1)) * 0.3)
    importance = np.exp(rng.standard_normal(COLUMNS) * 1.2)
    return np.concatenate([gaussian, heavy, trained]).astype(np.float16), importance.astype(np.float16)


def load(path):
    ggml = ctypes.CDLL(path)
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    return ggml


def requantized(ggml, name, x, importance):
    """What x becomes."""
    kind = kind_of(name)
    x = np.ascontiguousarray(x, dtype=np.float32)
    rows, columns = x.shape
    if importance is None and name in INSIST:
        importance = np.ones(columns)
    if importance is not None:
        importance = np.ascontiguousarray(importance, dtype=np.float32)
    length, size = gguf.GGML_QUANT_SIZES[kind]
    out = np.zeros((rows, columns // length * size), dtype=np.uint8)
    ggml.ggml_quantize_init(int(kind))
    weights = None if importance is None else importance.ctypes.data
    ggml.ggml_quantize_chunk(int(kind), x.ctypes.data, out.ctypes.data, 0, rows, columns, weights)
    return gguf.quants.dequantize(out, kind)


def rmse(x, y, weights):
    weights = np.broadcast_to(weights, x.shape).astype(np.float64)
    return np.sqrt((weights * (x.astype(np.float64) - y) ** 2).sum() / weights.sum())


def main():
    rng = np.random.default_rng(2)
    np.seterr(all="ignore")
    for name in FORMATS:
        raw = arbitrary_blocks(rng, name)
        raw.tofile(OUT / f"{name}.bytes")
        gguf.quants.dequantize(raw, kind_of(name)).astype("<f4").tofile(OUT / f"{name}.decoded")
    x, importance = inputs(rng)
    x.astype("<f2").tofile(OUT / "iq.input")
    importance.astype("<f2").tofile(OUT / "iq.importance")
    ggml = load(sys.argv[1])
    lines = []
    for name in FORMATS:
        for kind, part in zip(KINDS, np.split(x, len(KINDS))):
            plain = rmse(part, requantized(ggml, name, part, None), 1.0)
            weighted = rmse(part, requantized(ggml, name, part, importance), importance)
            lines.append(f"{name} {kind} {plain:.6e} {weighted:.6e}\n")
    (OUT / "iq.rmse").write_text("".join(lines))


if __name__ == "__main__":
    main()
