"""What a tokenizer or an image processor does, as plain values: not where it lies, nor what it was used for last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_OF_USE = frozenset({"version", "truncation", "padding"})
"""Of a tokenizer's own text: its form, and how it cut and filled up the last texts it was given."""
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "cls_token", "mask_token")
_SETTINGS = ("clean_up_tokenization_spaces", "split_special_tokens", "add_bos_token", "add_eos_token")
_PASSING = frozenset(
    {"name_or_path", "_name_or_path", "image_processor_type", "feature_extractor_type", "processor_class"}
    | {"_processor_class", "transformers_version", "return_tensors", "device", "input_data_format", "data_format"}
)
"""Of an image processor: what it is called, where it came from, and how it gives its result."""


def tokenizer_content(tokenizer: Any) -> dict[str, Any]:
    """Return vocabulary, merges, normaliser and the like, and special tokens.

    The token of padding is left out: what is padded is never read. So is the chat template, which not all rows are
    written by.
    """
    content: dict[str, Any] = {name: _text(getattr(tokenizer, name, None)) for name in _SPECIAL}
    content |= {name: bool(getattr(tokenizer, name, False)) for name in _SETTINGS}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        whole = json.loads(backend.to_str())
        return content | {key: _without_defaults(value) for key, value in whole.items() if key not in _OF_USE}
    content["kind"] = type(tokenizer).__name__
    content["vocabulary"] = sorted((str(token), int(number)) for token, number in tokenizer.get_vocab().items())
    pieces = getattr(getattr(tokenizer, "sp_model", None), "serialized_model_proto", None)
    if pieces is not None:  # of sentencepiece, whose scores decide between tokens
        content["model"] = pieces().hex()
    return content


def image_processor_content(processor: Any) -> dict[str, Any]:
    """Return size, crop, scaling, means and deviations, and whatever else a processor does to pixels."""
    found = processor.to_dict() if hasattr(processor, "to_dict") else {"kind": type(processor).__name__}
    return {key: _without_defaults(_plain(value)) for key, value in found.items() if key not in _PASSING}


def _plain(value: Any) -> Any:
    """Return sizes, which have classes of their own, and enumerations as mappings and numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)  # a kind of resampling is a number with a name
    return value if isinstance(value, float) else str(value)


def _without_defaults(value: Any) -> Any:
    """Return a value without what is null or false, which a newer version of a library may have added."""
    if isinstance(value, dict):
        kept = {key: _without_defaults(each) for key, each in value.items()}
        return {key: each for key, each in kept.items() if each is not None and each is not False}
    return value


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
