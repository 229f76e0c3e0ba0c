"""Cells of a sweep that no file describes, with run folders as runs leave them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedlit.config import Cell
from fedlit.lab.sweeps.cells import CellRun
from fedlit.store.status import RunStatus


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., CellRun]:
    """Return a function that makes a cell, with status.json and records if it is told of them."""

    def make(index: int, state: str = "pending", records: list[dict[str, Any]] | None = None, **status: Any) -> CellRun:
        name = f"cell{index}"
        folder = tmp_path / name
        if records is not None:
            folder.mkdir()
            (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        known = RunStatus(state=state, num_finished_rounds=max(len(records or []) - 1, 0), **status)
        arguments = ["experiment=demo", f"seed={index}", f"run.name={name}"]
        return CellRun(index=index, cell=Cell(name, arguments, {"seed": index}, folder), status=known)

    return make
