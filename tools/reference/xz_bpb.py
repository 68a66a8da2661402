#!/usr/bin/env python3
"""Bits per byte of `xz -9e` over a list of files, each compressed alone.

    python tools/reference/xz_bpb.py LIST [--json]      LIST: a text file with one path per line ("-" for stdin);
                                                        relative paths start at the list's folder

Prints total compressed bits / total bytes: the number that the default model's held-out bits per byte is compared with.
The compressed size is that of the whole .xz file, as the command `xz -9e --stdout FILE` writes it (CRC64 check), which
Python's lzma produces byte for byte in length.
"""

import argparse
import json
import lzma
import sys
from pathlib import Path


def compressed_size(data: bytes) -> int:
    """Bytes of the .xz file that `xz -9e` makes of the data."""
    return len(lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=9 | lzma.PRESET_EXTREME))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    text = sys.stdin.read() if args.list == "-" else Path(args.list).read_text(encoding="utf-8")
    folder = Path.cwd() if args.list == "-" else Path(args.list).resolve().parent
    paths = [folder / line for line in text.splitlines() if line.strip()]
    if not paths:
        raise SystemExit(f"{args.list}: no paths")
    total = compressed = 0
    for path in paths:
        data = path.read_bytes()
        total += len(data)
        compressed += compressed_size(data)
    if total == 0:
        raise SystemExit(f"{args.list}: all files are empty")
    result = {"files": len(paths), "bytes": total, "compressed": compressed, "bits_per_byte": 8 * compressed / total}
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{result['files']} files, {total} bytes, {compressed} compressed, {result['bits_per_byte']:.4f} bits per byte")


if __name__ == "__main__":
    main()
