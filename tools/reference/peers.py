"""The other engines as functions: llama.cpp through llama_peer.cpp, and our own command.

`LLAMA_CPP` in the environment (or --llama-cpp of the scripts) names a llama.cpp source folder built into its `build/`
with shared libraries (`cmake -B build -G Ninja && ninja -C build llama`); llama_peer is compiled there when needed.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


class PeerError(Exception):
    """A program that we asked ended with an error; the message holds its standard error."""


def output_of(command: list, **options) -> bytes:
    """Standard output of a command, or PeerError with its standard error."""
    done = subprocess.run([str(part) for part in command], capture_output=True, **options)
    if done.returncode != 0:
        raise PeerError(f"{command[0]} {command[1]}: exit code {done.returncode}\n{done.stderr.decode(errors='replace')}")
    return done.stdout


def llama_cpp_folder(argument: str | None) -> Path | None:
    """The llama.cpp folder from an argument or the environment."""
    folder = argument or os.environ.get("LLAMA_CPP")
    return Path(folder) if folder else None


class LlamaCpp:
    """llama.cpp, by its libllama in FOLDER/build/bin."""

    def __init__(self, folder: Path):
        self.peer = folder / "build" / "llama_peer"
        source = HERE / "llama_peer.cpp"
        if not self.peer.exists() or self.peer.stat().st_mtime < source.stat().st_mtime:
            libraries = folder / "build" / "bin"
            flags = ["-O1", "-std=c++17", f"-I{folder}/include", f"-I{folder}/ggml/include", source, f"-L{libraries}"]
            flags += ["-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{libraries}", "-o", self.peer]
            output_of(["g++", *flags])

    def logits(self, model: Path, tokens: list[int], stepwise: bool = False, mode: str = "logits") -> np.ndarray:
        """Logits [T, vocab] of a GGUF file; mode "hidden": the hidden states [T, hidden] of an encoder;
        mode "scores": the scores of a classifier for the whole text."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "logits.f32"
            output_of([self.peer, "stepwise" if stepwise else mode, model, out, *tokens])
            rows = np.fromfile(out, dtype="<f4")
            return rows if mode == "scores" else rows.reshape(len(tokens), -1)

    def tokenize(self, model: Path, texts: list[str], special: bool = False) -> list[list[int]]:
        """Token ids of each text, no bos or eos added."""
        data = b"".join(text.encode("utf-8") + b"\0" for text in texts)
        lines = output_of([self.peer, "tokenize", model, "special" if special else "plain"], input=data)
        return [[int(i) for i in line.split()] for line in lines.decode().splitlines()]


class Imaginal:
    """Our command. `extra` goes behind every call, for example ["--threads", "2"]."""

    def __init__(self, binary: Path, extra: list[str] | None = None):
        self.binary, self.extra = binary, extra or []

    def logits(self, model: Path, tokens: list[int], stepwise: bool = False) -> np.ndarray:
        """Logits [T, vocab] by `imaginal logits`."""
        from safetensors.numpy import load_file

        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "logits.safetensors"
            ids = ",".join(str(i) for i in tokens)
            command = [self.binary, "logits", model, "--tokens", ids, "--out", out, *self.extra]
            output_of(command + (["--stepwise"] if stepwise else []))
            return load_file(out)["logits"]

    def tokenize(self, model: Path, text: str) -> list[int]:
        """Token ids of one text by `imaginal tokenize MODEL TEXT --json`."""
        answer = json.loads(output_of([self.binary, "tokenize", model, "--json", "--", text]))
        ids = answer.get("ids", answer.get("tokens")) if isinstance(answer, dict) else answer
        return [token["id"] if isinstance(token, dict) else int(token) for token in ids]
