#!/usr/bin/env python3
"""Check that `imaginal template` renders chat templates to the bytes of transformers' apply_chat_template.

    python tools/reference/check_templates.py DIR/*.jinja --imaginal target/release/imaginal

takes template files (llama.cpp's source has some seventy in models/templates) and renders each with conversations that
between them have system messages, parts of content, tool calls and their results, thoughts, documents and variables,
with tools and without, with and without the beginning of an answer. Where transformers raises, so must ours, and the
message of `raise_exception` must be the same. Prints each template's score and the first difference; fails if there is
one.

Needs transformers, jinja2.
"""

import argparse
import datetime
import difflib
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jinja2
from transformers.utils import chat_template_utils

NOW = datetime.datetime(2025, 3, 7, 14, 5, 9)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


class Clock(datetime.datetime):
    """Always the same time."""

    @classmethod
    def now(cls, tz=None):
        return NOW


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a town <now> & \"later\"; Größe in °C",
            "parameters": {
                "type": "object",
                "properties": {
                    "town": {"type": "string", "description": "Its name, e.g. \"Zürich\"", "enum": ["Zürich", "Køge"]},
                    "days": {"type": "integer", "description": "How many", "default": 1, "minimum": 0},
                    "scale": {"type": "number", "default": 1.5},
                    "fine": {"type": "boolean"},
                    "places": {"type": "array", "items": {"type": "string"}},
                    "when": {
                        "type": "object",
                        "properties": {"from": {"type": "string"}, "to": {"type": ["string", "null"]}},
                        "required": ["from"],
                    },
                },
                "required": ["town"],
            },
            "return": {"type": "string"},
        },
    },
    {
        "type": "function",
        "function": {"name": "noop", "description": "Nothing", "parameters": {"type": "object", "properties": {}}},
    },
]


def call(name: str, arguments, number: int = 1) -> dict:
    """A call as models' templates see it: arguments as an object, or as the text of one."""
    return {"id": f"call0000{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


USER = {"role": "user", "content": "What's the weather\nin \"Zürich\" <b>today</b>?  "}
ANSWER = {"role": "assistant", "content": "  Sunny, 21.5°C & dry. 😀"}
ARGUMENTS = {"town": "Zürich", "days": 2, "fine": True, "scale": 0.5, "when": {"from": "now", "to": None}}
RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "{\"t\": 21.5}"}
DOCUMENTS = [{"title": "Town", "text": "It is big."}, {"title": "Lake", "text": "It is blue."}]

# Name, messages, and what else apply_chat_template is given.
CASES = [
    ("plain", [USER], {}),
    ("no answer begun", [USER], {"add_generation_prompt": False}),
    ("system", [{"role": "system", "content": "Be brief. "}, USER], {}),
    ("turns", [USER, ANSWER, {"role": "user", "content": "And tomorrow?"}], {}),
    ("turns ended", [{"role": "system", "content": "S"}, USER, ANSWER], {"add_generation_prompt": False}),
    ("parts", [{"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]}], {}),
    ("image", [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}], {}),
    ("thought", [USER, {**ANSWER, "reasoning_content": "Hm.\nWell."}, {"role": "user", "content": "Why?"}], {}),
    ("think tags", [USER, {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nYes."}, USER], {}),
    ("thinking on", [USER], {"enable_thinking": True, "thinking": True}),
    ("thinking off", [USER], {"enable_thinking": False, "thinking": False}),
    ("two users", [USER, USER], {}),
    ("developer", [{"role": "developer", "content": "Rules"}, USER], {}),
    ("unknown role", [{"role": "wizard", "content": "Hex"}, USER], {}),
    ("tools", [USER], {"tools": TOOLS}),
    ("tools and system", [{"role": "system", "content": "Be brief."}, USER], {"tools": TOOLS[:1]}),
    ("call", [USER, {"role": "assistant", "content": "", "tool_calls": [call("get_weather", ARGUMENTS)]}, RESULT],
     {"tools": TOOLS}),
    ("call without content", [USER, {"role": "assistant", "content": None, "tool_calls": [call("noop", {})]}, RESULT],
     {"tools": TOOLS}),
    ("call as text", [USER, {"role": "assistant", "tool_calls": [call("get_weather", json.dumps(ARGUMENTS))]}, RESULT],
     {"tools": TOOLS}),
    ("two calls", [
        USER,
        {"role": "assistant", "content": "Let me see.", "reasoning_content": "Two.",
         "tool_calls": [call("get_weather", ARGUMENTS), call("noop", {}, 2)]},
        RESULT,
        {**RESULT, "tool_call_id": "call00002", "name": "noop", "content": "ok"},
        ANSWER,
        {"role": "user", "content": "Thanks"},
    ], {"tools": TOOLS}),
    ("result parts", [
        USER, {"role": "assistant", "content": "", "tool_calls": [call("noop", {})]},
        {**RESULT, "content": [{"type": "text", "text": "ok"}]},
    ], {"tools": TOOLS}),
    ("documents", [USER], {"documents": DOCUMENTS}),
    ("no tools", [USER], {"tools": []}),
    ("effort", [USER], {"reasoning_effort": "low", "builtin_tools": ["python", "browser"]}),
]


def expected(template: str, messages: list, options: dict) -> tuple[bool, str]:
    """Whether transformers renders the conversation, and the text or the error."""
    messages = [{k: v for k, v in m.items() if v is not None} for m in messages]
    options = {"add_generation_prompt": True, "tools": None, "documents": None, **SPECIAL, **options}
    try:
        rendered, _ = chat_template_utils.render_jinja_template([messages], chat_template=template, **options)
        return True, rendered[0]
    except jinja2.exceptions.TemplateError as error:
        return False, str(error)
    except Exception as error:  # A template's own mistakes surface as any error of Python's.
        return False, f"{type(error).__name__}: {error}"


def found(binary: Path, model: str, file: Path, messages: list, options: dict) -> tuple[bool, str]:
    """The same of our command."""
    options = dict(options)
    command = [binary, "template", model, "--file", file, "--now", NOW.isoformat()]
    if not options.pop("add_generation_prompt", True):
        command.append("--no-generation-prompt")
    with tempfile.TemporaryDirectory() as folder:
        for name, value in [("messages", messages), *((n, options.pop(n, None)) for n in ("tools", "documents"))]:
            if value is not None:
                path = Path(folder) / f"{name}.json"
                path.write_text(json.dumps(value), encoding="utf-8")
                command += [f"--{name}", path]
        for name, value in {**SPECIAL, **options}.items():
            command += ["--var", f"{name}={json.dumps(value)}"]
        done = subprocess.run([str(part) for part in command], capture_output=True)
    if done.returncode == 0:
        return True, done.stdout.decode()
    return False, done.stderr.decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("templates", nargs="+", type=Path)
    parser.add_argument("--imaginal", type=Path, required=True)
    parser.add_argument("--model", default="default", help="any model that the command knows: templates come from files")
    parser.add_argument("--all", action="store_true", help="print every difference, not the first of each template")
    args = parser.parse_args()
    chat_template_utils.datetime = Clock
    wrong = rendered = raised = equal_templates = 0
    for file in args.templates:
        template = file.read_text(encoding="utf-8")
        with ThreadPoolExecutor(2) as pool:
            ours = list(pool.map(lambda case: found(args.imaginal, args.model, file, case[1], case[2]), CASES))
        bad = []
        for (name, messages, options), (ok, text) in zip(CASES, ours, strict=True):
            good, reference = expected(template, messages, options)
            rendered, raised = rendered + good, raised + (not good)
            # What raise_exception says must come through; other errors have Python's words.
            same = ok == good and (text == reference if good else True)
            pythons = ("Error:", "has no attribute", "is undefined", "is unsafe", "No filter named")
            if same and not good and not any(words in reference for words in pythons):
                same = reference in text
            if not same:
                bad.append((name, good, reference, ok, text))
        wrong += len(bad)
        equal_templates += not bad
        print(f"{file.name:58} {len(CASES) - len(bad)} of {len(CASES)}")
        for name, good, reference, ok, text in bad if args.all else bad[:1]:
            print(f"  {name}: transformers {'renders' if good else 'raises'}, ours {'renders' if ok else 'raises'}")
            for line in list(difflib.unified_diff(reference.splitlines(), text.splitlines(), lineterm="", n=0))[2:14]:
                print("   ", line[:300])
    print(
        f"{equal_templates} of {len(args.templates)} templates equal in all {len(CASES)} conversations; "
        f"{rendered} rendered, {raised} refused by transformers, {wrong} differ"
    )
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
