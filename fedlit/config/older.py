"""Stored configurations of older versions, brought to the meaning that their keys have today."""

from collections.abc import Mapping
from typing import Any


def modern(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored configuration in which keys that have a new meaning stand as today.

    `data.text` was `[text]` under every task; since it may name plain text, it is null where no text is classified.
    `eval.choose_on` was not there, and rounds and rates were chosen on the test set.
    `analysis` was not there, and `eval.deviation`, true or false, was all that could be measured.
    """
    content = {**content}
    data, evaluation = content.get("data"), content.get("eval")
    if isinstance(data, Mapping) and "messages" not in data and data.get("task") != "sequence_classification":
        content["data"] = {**data, "text": None}
    if isinstance(evaluation, Mapping):
        kept = {name: value for name, value in evaluation.items() if name != "deviation"}
        kept.setdefault("choose_on", "test")
        content["eval"] = kept
        content.setdefault("analysis", ["deviation"] if evaluation.get("deviation", True) else [])
    return content
