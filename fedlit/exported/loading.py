"""The model of a run's result, as the run evaluated it."""

import json
from dataclasses import replace
from typing import Any

from fedlit.adapters.pair_files import load_pair
from fedlit.adapters.peft_files import load_peft_adapter
from fedlit.cards.files import PAIR
from fedlit.data.json_files import read_json_file
from fedlit.errors import UserError
from fedlit.exported.found import Result
from fedlit.models import Backbone, Purpose, load_backbone


def load_base(result: Result) -> Backbone:
    """Return the pretrained backbone under an adapter, as the run loaded it, with the tokenizer beside the adapter: the
    one that it was trained with. An older run's adapter has none.
    """
    model = result.config.model
    if (result.folder / "tokenizer_config.json").is_file():
        model = replace(model, tokenizer=str(result.folder.absolute()))
    described = json.loads((result.folder / PAIR).read_bytes()) if result.is_pair else {}
    return load_backbone(model, _purpose(result, described))


def load_whole(result: Result, *, dtype: str | None = None) -> Backbone:
    """Return a result that is a whole model.

    dtype: `float32` or `bfloat16`; None for the type of its files.
    """
    described = read_json_file(result.folder / "config.json", "result", "the configuration of a model is expected")
    if not isinstance(described, dict):
        raise UserError(f"{result.folder / 'config.json'} is no object; export the run again")
    stored = described.get("dtype", described.get("torch_dtype"))
    model = replace(
        result.config.model,
        path=str(result.folder.absolute()),
        tokenizer=None,
        weights="pretrained",
        quantization=None,
        dtype=dtype or ("bfloat16" if stored == "bfloat16" else "float32"),
    )
    return load_backbone(model, _purpose(result, described))


def load_model(result: Result) -> Backbone:
    """Return the run's model with its result in it: whole, or the backbone with peft's layers around it."""
    if not (result.is_adapter or result.is_pair):
        return load_whole(result)
    backbone = load_base(result)
    if result.is_pair:
        load_pair(backbone.model, result.folder)
        return backbone
    load_peft_adapter(backbone.model, result.folder)
    backbone.model.requires_grad_(False)
    return backbone


def _purpose(result: Result, described: dict[str, Any]) -> Purpose:
    """Return what the model is loaded for; the classes are those that a whole model's files name."""
    data = result.config.data
    names = {} if data.regression else described.get("id2label") or {}
    try:
        classes = tuple(names[key] for key in sorted(names, key=int))
    except (TypeError, ValueError):
        raise UserError(
            f"{result.folder / 'config.json'}: id2label={json.dumps(names)[:80]}; export it again"
        ) from None
    purpose = Purpose(task=data.task, regression=data.regression, seed=result.config.seed)
    return replace(purpose, classes=classes) if purpose.spec.has_head else purpose
