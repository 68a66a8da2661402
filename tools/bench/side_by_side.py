#!/usr/bin/env python3
"""Run two programs in turn and compare the medians of the number that each prints.

    python tools/bench/side_by_side.py --rounds 5 \\
        --ours 'target/release/imaginal bench --train llama-10m --threads 2 --json' --ours-key tokens_per_second \\
        --peer 'python tools/bench/peer_train.py --threads 2' --peer-key tokens_per_second [--at-least 1.0] [--json]

Each program prints JSON (its last line that is JSON counts, or the whole output); the key is a dotted path into it, list
positions as numbers (`results.0.tokens_per_second`). The two alternate, so that a machine that slows down slows both,
and which goes first changes every round. Prints every value, both medians and the ratio ours / peer (with --lower, for
times: peer / ours); with --at-least the exit code is 1 below that ratio. Keep the machine otherwise idle.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys


def parse(text: str):
    """The JSON that a program printed: the whole text, or its last line that parses."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    for line in reversed(text.splitlines()):
        try:
            return json.loads(line)
        except json.JSONDecodeError:
            continue
    raise SystemExit(f"no JSON in the output:\n{text[-2000:]}")


def pick(value, path: str) -> float:
    """The number at a dotted path."""
    for part in path.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError):
            raise SystemExit(f"no {path!r} in {json.dumps(value)[:500]}") from None
    return float(value)


def measure(command: str, key: str) -> float:
    """Run a command and return its number."""
    done = subprocess.run(shlex.split(command), capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stderr[-4000:]}")
    return pick(parse(done.stdout), key)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--ours-key", default="tokens_per_second")
    parser.add_argument("--peer-key", default="tokens_per_second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lower", action="store_true", help="the numbers are times: lower is better")
    parser.add_argument("--at-least", type=float, help="exit 1 if the ratio is below")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    sides = {"ours": (args.ours, args.ours_key), "peer": (args.peer, args.peer_key)}
    values = {"ours": [], "peer": []}
    for turn in range(args.rounds):
        for side in ("ours", "peer") if turn % 2 == 0 else ("peer", "ours"):
            values[side].append(measure(*sides[side]))
            print(f"round {turn + 1} {side} {values[side][-1]:.4g}", file=sys.stderr, flush=True)
    ours, peer = statistics.median(values["ours"]), statistics.median(values["peer"])
    ratio = peer / ours if args.lower else ours / peer
    result = {
        "ours": ours,
        "peer": peer,
        "ratio": ratio,
        "rounds": values,
        "load_average": os.getloadavg()[0],
        "ours_command": args.ours,
        "peer_command": args.peer,
    }
    if args.json:
        print(json.dumps(result))
    else:
        spread = {side: f"{min(v):.4g} to {max(v):.4g}" for side, v in values.items()}
        print(f"ours median {ours:.4g} ({spread['ours']}), peer median {peer:.4g} ({spread['peer']}), ratio {ratio:.3f}")
    if args.at_least is not None and ratio < args.at_least:
        sys.exit(f"ratio {ratio:.3f} is below {args.at_least}")


if __name__ == "__main__":
    main()
