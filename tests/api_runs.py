"""Small federations from Python that train for a second or two, and what they leave."""

from pathlib import Path
from typing import Any

import torch

import fedlit

ROWS = [{"prompt": f"{number} + 1 =", "response": f"it is {number + 1}"} for number in range(24)]
SMALL: dict[str, Any] = {
    "method": "fedit",
    "num_clients": 2,
    "num_rounds": 2,
    "local": {"steps": 2, "batch_size": 2, "lr": 0.01},
    "partition.min_test_rows": 2,
    "eval": {"max_examples": 2, "max_new_tokens": 2},
    "logging": {"wandb": "disabled"},
}


def small_run(folder: Path, name: str = "run", **given: Any) -> "fedlit.Result":
    """Return the result of a small run in the folder `name`, of ROWS unless rows are given."""
    given = {"rows": ROWS, **given}
    where = {"dir": str(folder), "name": name, **given.pop("run", {})}
    return fedlit.run({**SMALL, **given.pop("config", {})}, run=where, **given)


def timeless(result: "fedlit.Result") -> list[dict[str, Any]]:
    """Return the records without their times."""
    return [{key: value for key, value in record.items() if not key.startswith("time/")} for record in result.records]


def same_tensors(left: "fedlit.Result", right: "fedlit.Result") -> bool:
    """Tell whether two runs ended with the same bits."""
    one, other = left.server.shared, right.server.shared
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
