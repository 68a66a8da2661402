#!/usr/bin/env python3
"""Convert Hugging Face directories to DIR/model.gguf (f32) with llama.cpp's own converter, vocabulary left out.

    python tools/reference/llama_convert.py /path/to/llama.cpp DIR... < options.json

Standard input may be empty or hold options by name of the directory: {"raw": take config.json as it is, not as
transformers completes it; "extra": more keys for the converter; "keys": integers for the GGUF}.

The converter's classes do everything except the vocabulary: the files say `tokenizer.ggml.model = no_vocab` and
`ARCH.vocab_size`. Where it fails, DIR/gguf.error holds the reason. Needs llama.cpp's source, torch, transformers.
"""

import json
import logging
import sys
from pathlib import Path


def convert(directory: Path, raw: bool, mtp: bool, option: dict) -> None:
    """Write DIR/model.gguf, from what transformers makes of config.json or from its keys as they are (raw), with layers
    for predicting further tokens or without."""
    import gguf
    import torch
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    with torch.inference_mode():
        # The keys that transformers drops and the converter wants are put back.
        plain = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        hparams = dict(plain) if raw else {**plain, **ModelBase.load_hparams(directory, False)}
        hparams.update(option.get("extra", {}))
        cls = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
        cls.no_mtp = not mtp
        out = directory / "model.gguf"
        instance = cls(directory, gguf.LlamaFileType.ALL_F32, out, hparams=dict(hparams))
        parameters = instance.set_gguf_parameters

        def parameters_without_vocabulary() -> None:
            parameters()
            writer = instance.gguf_writer
            writer.add_tokenizer_model("no_vocab")
            if not any("vocab_size" in key for part in writer.kv_data for key in part):
                writer.add_vocab_size(hparams.get("vocab_size") or hparams["text_config"]["vocab_size"])
            if hparams.get("type_vocab_size"):
                writer.add_token_type_count(hparams["type_vocab_size"])
            for key, value in option.get("keys", {}).items():
                writer.add_uint32(key, value)

        # The parameters come after the vocabulary in the original; here it is known then whether they hold its size.
        instance.set_vocab = lambda: None
        instance._get_suppress_tokens = lambda: None  # asks the tokenizer
        instance.set_gguf_parameters = parameters_without_vocabulary
        instance.write()


def attempt(directory: Path, option: dict) -> str | None:
    """Convert, trying the readings of the configuration in turn if no option names one; the first error if none does."""
    first = None
    for reading in [option["raw"]] if "raw" in option else [False, True]:
        for mtp in (True, False):
            try:
                convert(directory, reading, mtp, option)
                return None
            except Exception as error:  # noqa: BLE001 - the other way may do
                first = first or f"{type(error).__name__}: {str(error)[:300]}"
                (directory / "model.gguf").unlink(missing_ok=True)
    return first


def main() -> None:
    llama_cpp, *directories = sys.argv[1:]
    sys.path[:0] = [llama_cpp, str(Path(llama_cpp) / "gguf-py")]
    logging.disable(logging.WARNING)
    options = json.loads(sys.stdin.read() or "{}")
    for directory in map(Path, directories):
        tokenizer = directory / "tokenizer.json"
        made = not tokenizer.exists()
        if made:  # some converters count its entries
            vocab = json.loads((directory / "config.json").read_text(encoding="utf-8")).get("vocab_size", 0)
            model = {"type": "WordPiece", "vocab": {str(i): i for i in range(vocab)}}
            tokenizer.write_text(json.dumps({"model": model, "added_tokens": []}))
        error = attempt(directory, options.get(directory.name, {}))
        if error:
            (directory / "gguf.error").write_text(error + "\n")
        if made:
            tokenizer.unlink()


if __name__ == "__main__":
    main()
