#!/usr/bin/env python3
"""What transformers' apply_chat_template makes of the chat templates in crates/generate/tests/fixtures/chat.

    python tools/reference/chat_templates.py crates/generate/tests/fixtures/chat

reads DIR/*.jinja, twenty templates written so that between them they use every construct of the families' own, and
writes DIR/expected.json: the conversations of check_templates.py, and for each template the text or the error of each.

Needs transformers, jinja2.
"""

import json
import sys
from pathlib import Path

from transformers.utils import chat_template_utils

from check_templates import CASES, NOW, SPECIAL, Clock, expected

# Enough to see every branch, without the conversations that differ in nothing these templates look at.
CHOSEN = ["plain", "no answer begun", "turns ended", "parts", "think tags", "thinking off", "two users", "unknown role",
          "tools", "call without content", "two calls", "documents", "no tools"]


def main() -> None:
    directory = Path(sys.argv[1])
    chat_template_utils.datetime = Clock
    cases = [case for case in CASES if case[0] in CHOSEN]
    results, refused = {}, 0
    for file in sorted(directory.glob("*.jinja")):
        template = file.read_text(encoding="utf-8")
        results[file.stem] = []
        for name, messages, options in cases:
            good, text = expected(template, messages, options)
            refused += not good
            results[file.stem].append({"text" if good else "error": text})
            if not good and file.stem not in ("strict", "alternating", "strings"):
                print(f"{file.stem}, {name}: {text}")
    conversations = [{"name": n, "messages": m, "options": o} for n, m, o in cases]
    document = {"now": NOW.isoformat(), "special": SPECIAL, "conversations": conversations, "expected": results}
    (directory / "expected.json").write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{len(results)} templates, {len(cases)} conversations each, {refused} of all refused")


if __name__ == "__main__":
    main()
