"""Names and forms of the files beside the weights, without torch."""

import json
from pathlib import Path
from typing import Any

Facts = dict[str, Any]

FACTS = "fedlit.json"
"""The facts of which the card is made."""
CARD = "README.md"
PROMPT = "prompt_template.json"
GENERATION = "generation_config.json"
ADAPTER = "adapter_config.json"
PAIR = "mixing.json"
"""Where there are two adapters, in folders of their own, and what weighs them."""


def read_facts(folder: Path) -> Facts | None:
    """Return the facts in the folder of a result; None of one of an older version, or where they are damaged."""
    try:
        content = json.loads((folder / FACTS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and {"prompt", "base", "round", "chosen"} <= content.keys() else None


def as_json(content: Any) -> str:
    """Return a value as JSON that a person reads."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def adapter_ranks(folder: Path) -> tuple[int, int] | None:
    """Return the smallest and the largest rank of an adapter's layers; None of a whole model, or of two adapters."""
    path = folder / ADAPTER
    if not path.is_file():
        return None
    described = json.loads(path.read_bytes())
    own = described.get("rank_pattern") or {}
    ranks = [*own.values(), *([described["r"]] if len(own) < len(described.get("target_modules") or "") else [])]
    return min(ranks), max(ranks)
