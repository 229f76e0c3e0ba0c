"""The picture of loss against epsilon: from run folders to a table, and from the table alone to the same picture."""

import importlib
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from synthetic_runs import collection, write_folders

from fedlit.lab.analysis.collection import Collection
from fedlit.registry import snapshot

FOLDER = Path(__file__).parents[2] / "experiments" / "privacy"


@pytest.fixture(scope="module")
def curves() -> ModuleType:
    return _module("curves")


@pytest.fixture
def skewed() -> Iterator[ModuleType]:
    restore = snapshot()
    yield _module("skewed")
    restore()
    del sys.modules["skewed"]


def _module(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return importlib.import_module(name)


def two_runs(folder: Path) -> Collection:
    """Return a run with noise and one without, of two methods."""
    found = collection(folder, methods=("fedit", "ffa_lora"), num_seeds=1, num_rounds=2)
    entries = []
    for run, noise in zip(found.entries, (0.85, 0.0), strict=True):
        assert run.config is not None
        privacy = replace(run.config.privacy, unit="client", clip_norm=0.3, noise_multiplier=noise)
        spent = {"privacy/epsilon": 3.99961} if noise else {}
        last = {**run.records[-1], "privacy/noise_multiplier": noise, **spent}
        entries.append(
            replace(
                run, config=replace(run.config, privacy=privacy, num_clients=200), records=(*run.records[:-1], last)
            )
        )
    return replace(found, entries=tuple(entries))


def test_the_table_holds_what_the_picture_needs(curves: ModuleType, tmp_path: Path) -> None:
    write_folders(two_runs(tmp_path / "runs"))
    table, first, second = tmp_path / "a.csv", tmp_path / "first.png", tmp_path / "second.png"
    assert curves.main([str(tmp_path / "runs"), "--table", str(table), "--picture", str(first)]) == 0
    points = curves.read_table(table)
    assert [(one.method, one.epsilon, one.population) for one in points] == [
        ("fedit", 3.9996, 200),
        ("ffa_lora", math.inf, 200),
    ]
    assert [curves.epsilon_name(one.epsilon) for one in points] == ["4", "∞"]
    assert curves.main(["--table", str(table), "--picture", str(second)]) == 0
    assert first.read_bytes() == second.read_bytes()


def test_a_run_that_hides_nobody_is_told(
    curves: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folders(collection(tmp_path / "runs", methods=("fedit",), num_seeds=1))
    told = ["--table", str(tmp_path / "a.csv"), "--picture", str(tmp_path / "a.png")]
    assert curves.main([str(tmp_path / "runs"), *told]) == 2
    assert "no finished run with privacy.unit=client" in capsys.readouterr().err
    assert not (tmp_path / "a.csv").exists()


def test_every_row_is_dealt_and_nobody_is_left_without(skewed: ModuleType) -> None:
    labels = [f"kind {i % 7}" for i in range(900)]
    dealt = skewed.Skewed(alpha=0.1, smallest=5).deal([{}] * 900, labels, 60, np.random.default_rng(0))
    assert sorted(row for part in dealt for row in part) == list(range(900))
    sizes = [len(part) for part in dealt]
    assert min(sizes) == 5
    assert max(sizes) > 30
