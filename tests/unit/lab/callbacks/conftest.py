"""Runs of callbacks without a model, and nothing of the tester's own W&B."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import NUM_ROUNDS, MadeUpRun

from fedlit.config import DataConfig, LoggingConfig, MethodConfig, RunConfig
from fedlit.lab.callbacks import Callback


@pytest.fixture
def made_up(tmp_path: Path) -> Callable[..., MadeUpRun]:
    """Return a function that makes a run of these callbacks; names are of `logging.*`."""

    def make(
        make_callbacks: Callable[[MadeUpRun], list[Callback]], task: str = "causal_lm", **logging: Any
    ) -> MadeUpRun:
        config = RunConfig(
            data=DataConfig(task=task),
            method=MethodConfig(name="fedit", options={"lora_rank": 8}),
            num_rounds=NUM_ROUNDS,
            logging=LoggingConfig(**{"wandb": "offline", "samples_every": 3, **logging}),
        )
        return MadeUpRun(tmp_path / "runs" / "mine", config, make_callbacks)

    return make


@pytest.fixture(autouse=True)
def nothing_of_wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave nothing of the tester's own W&B, nor any host to ask."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    yield
