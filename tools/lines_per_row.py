#!/usr/bin/env python3
"""Count what an architecture costs: the lines of its row in crates/models/src/arch, and their median.

A row is the constant of type `Arch`. What a family shares besides (constants and functions of its file) is told per file:
it is divided by the rows of the file in the last column, and in the second median.

    python tools/lines_per_row.py
"""

import re
import statistics
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "crates" / "models" / "src" / "arch"
ROW = re.compile(r"^pub\(super\) const (\w+): Arch = Arch \{\n(.*?)^\};$", re.MULTILINE | re.DOTALL)


def code_lines(text: str) -> int:
    """Lines that are neither empty nor comments."""
    return sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith("//"))


def main() -> None:
    """Print a line for each row and the medians."""
    own, shared = [], []
    for path in sorted(FOLDER.glob("*.rs")):
        if path.name == "mod.rs":
            continue
        text = path.read_text()
        rows = [(match.group(1), code_lines(match.group(0))) for match in ROW.finditer(text)]
        rest = code_lines(ROW.sub("", text))
        for name, lines in rows:
            each = lines + rest / len(rows)
            own.append(lines)
            shared.append(each)
            print(f"{path.name:16} {name:18} {lines:4} lines, {each:6.1f} with its part of the file's {rest}")
    print(f"{len(own)} rows, median {statistics.median(own):g} lines, with shared lines {statistics.median(shared):g}")


if __name__ == "__main__":
    main()
