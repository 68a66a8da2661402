#!/usr/bin/env python3
"""Convert Hugging Face directories to DIR/model.gguf (f32) with llama.cpp's own converter, vocabulary left out.

    python tools/reference/llama_convert.py /path/to/llama.cpp DIR...

The converter's classes do everything except the vocabulary: the files say `tokenizer.ggml.model = no_vocab` and
`ARCH.vocab_size`. Where it fails, DIR/gguf.error holds the reason. Needs llama.cpp's source, torch, transformers.
"""

import json
import logging
import sys
from pathlib import Path


def convert(directory: Path, raw: bool) -> None:
    """Write DIR/model.gguf, from what transformers makes of config.json or from its keys as they are (raw)."""
    import gguf
    import torch
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    with torch.inference_mode():
        # What transformers makes of config.json, with the keys that it drops and the converter wants; or, where that
        # fills in what the converter takes from its absence, the keys as they are.
        plain = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        hparams = dict(plain) if raw else {**plain, **ModelBase.load_hparams(directory, False)}
        cls = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
        out = directory / "model.gguf"
        instance = cls(directory, gguf.LlamaFileType.ALL_F32, out, hparams=dict(hparams))

        def no_vocabulary() -> None:
            writer = instance.gguf_writer
            writer.add_tokenizer_model("no_vocab")
            vocab = instance.hparams.get("vocab_size") or instance.hparams["text_config"]["vocab_size"]
            if not any("vocab_size" in key for part in writer.kv_data for key in part):
                writer.add_vocab_size(vocab)
            if hparams.get("type_vocab_size"):
                writer.add_token_type_count(hparams["type_vocab_size"])

        # The parameters come first in the original, so that it is known whether they hold the size.
        instance.set_vocab = lambda: None
        write_vocabulary = instance.set_gguf_parameters

        def parameters() -> None:
            write_vocabulary()
            no_vocabulary()

        instance.set_gguf_parameters = parameters
        instance.write()


def main() -> None:
    llama_cpp, *directories = sys.argv[1:]
    sys.path[:0] = [llama_cpp, str(Path(llama_cpp) / "gguf-py")]
    logging.disable(logging.WARNING)
    for directory in map(Path, directories):
        (directory / "model.gguf").unlink(missing_ok=True)
        tokenizer = directory / "tokenizer.json"
        made = not tokenizer.exists()
        if made:  # some converters count its entries
            vocab = json.loads((directory / "config.json").read_text(encoding="utf-8")).get("vocab_size", 0)
            tokenizer.write_text(json.dumps({"model": {"vocab": {str(i): i for i in range(vocab)}}, "added_tokens": []}))
        try:
            try:
                convert(directory, raw=False)
            except Exception:  # noqa: BLE001 - the other reading of the configuration may do
                convert(directory, raw=True)
        except Exception as error:  # noqa: BLE001 - one of many: leave the reason beside it and go on
            (directory / "gguf.error").write_text(f"{type(error).__name__}: {str(error)[:300]}\n")
            (directory / "model.gguf").unlink(missing_ok=True)
        if made:
            tokenizer.unlink()


if __name__ == "__main__":
    main()
