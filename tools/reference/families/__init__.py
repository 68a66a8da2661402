"""Settings of the tiny reference models: one table for all families that transformers implements.

Each module has a dictionary FAMILIES: family name -> {"base": settings, "variants": {variant: settings}}. Settings are
the keys of config.json in the spelling that published checkpoints have, plus what begins with an underscore, which is
for the generator (`family_models.py`):

    _about     what the variant exercises (goes into the index)
    _auto      class of transformers that builds the model: CausalLM (default), base, MaskedLM, SequenceClassification
    _attention implementation of attention in transformers ("eager")
    _seed      seed of the weights (0); another one where a router decision was too close to call
    _embed     standard deviation of the token embedding (1.0), so that a multiplier leaves the residual stream near one
    _gain      pattern -> factor on the standard deviation of the weights whose names it matches
    _layout    function of `layouts.py` that turns the tensors as transformers saves them into those of another file
    _snap      function of `layouts.py` that rounds and packs weights: the file has them packed
    _constant  pattern of tensors that follow from the configuration and stay as they are
    _pooling   "mean" or "cls": the directory declares this pooling as sentence-transformers does
    _unexpected pattern of tensors in the file that transformers does not take, as published
    _noise     bound on the difference between f32 and f64 where the usual one is too narrow
    _tokens    number of tokens (41)
    _drop      keys of the base that this variant does not have
    _gguf      False: do not try; a text: why not
    _oracle    "llama": the expectation is what llama.cpp computes from the converted file
    _convert   options of llama_convert.py
    _llama     why llama.cpp computes something else from the converted file, or cannot read it
    _keep      True: the converted file is good all the same. Otherwise it is removed where llama.cpp disagrees
    _config    keys that config.json has in the end but not while transformers reads it
    _final     True: and no others
    _hidden    keys that only transformers needs, not in config.json in the end
    _invisible pattern of tensors that may have no effect on the result, as in the published model
"""


def within(base: dict, variant: dict, architecture: str, model_type: str, names: dict, extra: dict) -> dict:
    """A variant of a text model as part of a published model for text and images: config.json has the text model's keys
    under `text_config`, the file other names and tensors of no use for text (see layouts.nested)."""
    text = {key: value for key, value in merged(base, variant).items() if not key.startswith("_")}
    text.pop("architectures")
    about = f"{architecture}: keys under text_config, names within the larger model, tensors of other towers"
    config = {"architectures": [architecture], "model_type": model_type, "text_config": text,
              "vision_config": {"hidden_size": 16, "num_hidden_layers": 1, "model_type": "some_vision"}}
    return {**variant, "_about": about, "_snap": "nested", "_final": True, "_config": config, "_names": names,
            "_extra": extra, "_gguf": "the tensors are those of the text model"}


def merged(base: dict, variant: dict) -> dict:
    """Settings of a variant: those of the base less what either drops, with its own over them."""
    dropped = {*base.get("_drop", ()), *variant.get("_drop", ())}
    return {**{key: value for key, value in base.items() if key not in dropped}, **variant}


def table() -> dict[str, dict]:
    """Name of each tiny model (FAMILY-VARIANT) with its settings; `_family` and `_variant` say where it is from."""
    from . import dense, encoders, moe, recurrent

    result = {}
    for module in (dense, moe, recurrent, encoders):
        for family, entry in module.FAMILIES.items():
            for variant, settings in entry["variants"].items():
                settings = merged(entry["base"], settings)
                result[f"{family}-{variant}"] = {"_family": family, "_variant": variant, **settings}
    return result
