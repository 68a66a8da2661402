#!/usr/bin/env python3
"""Write what transformers' classes of configurations take for granted where config.json is silent.

    python tools/reference/class_defaults.py > crates/models/src/arch/defaults.json

For each `model_type` in docs/architectures.md that transformers knows: the fields with a default that is a number, a
truth value or a word and that some file in crates/models/src names. Sizes that every model has of its own are left out,
so that their absence is an error; so is what only training, generation or tokenizers need.
"""

import dataclasses
import json
import re
from pathlib import Path

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

ROOT = Path(__file__).resolve().parents[2]
OWN = {"vocab_size", "hidden_size", "d_model", "n_embd", "embedding_dim", "num_hidden_layers", "n_layer", "n_layers", "num_blocks",
       "num_attention_heads", "n_head", "n_heads", "intermediate_size", "moe_intermediate_size",
       "intermediate_size_mlp", "ffn_hidden_size", "model_type"}


def plain(value: object) -> bool:
    return isinstance(value, (bool, int, float, str)) and value != ""


def defaults(cls: type, known: set[str]) -> dict:
    """The defaults of one class, those of its parts as objects."""
    found = {f.name: f.default for f in dataclasses.fields(cls) if plain(f.default)}
    for name, part in getattr(cls, "sub_configs", {}).items():
        if name in ("attn_config", "ffn_config"):
            found[name] = {f.name: f.default for f in dataclasses.fields(part) if plain(f.default) and f"{name}.{f.name}" in known and f.name not in OWN}
    if plain(getattr(cls, "default_theta", None)):
        found["rope_theta"] = cls.default_theta
    return {k: v for k, v in found.items() if (k in known or isinstance(v, dict)) and k not in OWN}


def main() -> None:
    page = (ROOT / "docs/architectures.md").read_text(encoding="utf-8")
    rows = [line.split("|")[3] for line in page.splitlines() if line.startswith("| `")]
    names = [name for cell in rows for name in re.findall(r"`([^`]+)`", cell)]
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "crates/models/src").rglob("*.rs"))
    known = set(re.findall(r'"([A-Za-z0-9_.]+)"', sources))
    table = {}
    for name in names:
        if name not in CONFIG_MAPPING:
            continue
        cls = CONFIG_MAPPING[name]
        inner = getattr(cls, "sub_configs", {}).get("text_config")
        table[name] = defaults(inner if isinstance(inner, type) and dataclasses.is_dataclass(inner) else cls, known)
    table["kimi_linear"]["first_k_dense_replace"] = 1  # its class has no field for it
    rows = [f" {json.dumps(name)}: {json.dumps(table[name], sort_keys=True)}" for name in table]
    print("{\n" + ",\n".join(rows) + "\n}")


if __name__ == "__main__":
    main()
