"""Runs as a sweep leaves them, with scores that a test chooses and no training."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fedlit.config import Cell, RunConfig, load_config, load_sweep, to_yaml
from fedlit.errors import UserError
from fedlit.lab.analysis.collection import Collection, Entry, collect
from fedlit.store.status import RunStatus

Record = Mapping[str, Any]
Scorer = Callable[[Mapping[str, Any], int], Record | None]
"""From the settings of a cell and the number of a round, from 0, to its record; None where there is no such round."""

NUM_ROUNDS = 3


def records_of(settings: Mapping[str, Any], scorer: Scorer) -> list[dict[str, Any]]:
    found = [(number, scorer(settings, number)) for number in range(NUM_ROUNDS + 1)]
    return [{"round": number, **record} for number, record in found if record is not None]


@pytest.fixture(scope="session")
def make_collection() -> Callable[..., Collection]:
    """Return a function that makes a collection of runs with these settings, without files."""

    def make(
        all_settings: Sequence[Mapping[str, Any]],
        scorer: Scorer,
        *,
        name: str = "mine",
        state: Callable[[Mapping[str, Any]], str] = lambda settings: "done",
        config: RunConfig | None = None,
    ) -> Collection:
        config = config or RunConfig(num_rounds=NUM_ROUNDS)
        entries = []
        for i, settings in enumerate(all_settings):
            records = tuple(records_of(settings, scorer))
            status = RunStatus(state=state(settings) if records else "pending")
            entries.append(
                Entry(
                    name=f"run-{i}",
                    folder=Path(f"run-{i}"),
                    settings=settings,
                    status=status,
                    config=config if records else None,
                    records=records,
                    partition=None,
                )
            )
        keys = dict.fromkeys(key for settings in all_settings for key in settings if key != "seed")
        varied = tuple(key for key in keys if len({repr(settings.get(key)) for settings in all_settings}) > 1)
        return Collection(name=name, folder=Path(name), entries=tuple(entries), varied=varied)

    return make


@pytest.fixture(scope="session")
def make_sweep(make_collection: Callable[..., Collection]) -> Callable[..., Collection]:
    """Return a function that makes the collection of a sweep, without files."""

    def make(sweep: str, scorer: Scorer, picks: Sequence[str] = (), **more: Any) -> Collection:
        cells = load_sweep(sweep).cells(picks)
        return make_collection([cell.settings for cell in cells], scorer, name=sweep, **more)

    return make


def write_run(cell: Cell, scorer: Scorer, *, state: str = "done", overrides: Sequence[str] = ()) -> None:
    """Write the run folder of a cell."""
    records = records_of(cell.settings, scorer)
    arguments = dict(argument.split("=", 1) for argument in [*cell.arguments, f"num_rounds={NUM_ROUNDS}", *overrides])
    paths = {"data.path": __file__, "data.test_path": __file__}  # any file that is there, where one is asked for
    try:
        config = load_config([f"{key}={text}" for key, text in arguments.items()])
    except UserError:
        config = load_config([f"{key}={text}" for key, text in {**paths, **arguments}.items()])
    cell.folder.mkdir(parents=True)
    (cell.folder / "config.yaml").write_text(to_yaml(config))
    (cell.folder / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    (cell.folder / "status.json").write_text(json.dumps({"state": state, "num_rounds": config.num_rounds}))


@pytest.fixture
def write_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Collection]:
    """Return a function that writes the run folders of a sweep below the current folder and collects them."""
    monkeypatch.chdir(tmp_path)

    def write(sweep: str, scorer: Scorer, picks: Sequence[str] = (), overrides: Sequence[str] = ()) -> Collection:
        for cell in load_sweep(sweep).cells(picks):
            write_run(cell, scorer, overrides=overrides)
        return collect([sweep], [*picks, *overrides])

    return write
