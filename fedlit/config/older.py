"""Stored configurations of older versions, brought to the meaning that their keys have today."""

from collections.abc import Mapping
from typing import Any


def modern(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored configuration in which keys that have a new meaning stand as today.

    `data.text` was `[text]` under every task; since it may name plain text for causal_lm, it is null there.
    """
    data = content.get("data")
    if not isinstance(data, Mapping) or "messages" in data or data.get("task", "causal_lm") != "causal_lm":
        return dict(content)
    return {**content, "data": {**data, "text": None}}
