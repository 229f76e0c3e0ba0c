"""Any edits of a sweep: no run of another configuration is counted or shown, and none of the cell's own is stale."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fedlit.config import Cell, RunConfig, load_config, load_sweep, load_yaml, to_yaml
from fedlit.config.record import fingerprint
from fedlit.lab.analysis.collection import collect
from fedlit.lab.sweeps.cells import CellRun, cell_runs
from fedlit.lab.sweeps.cleaning import leftovers
from fedlit.lab.sweeps.local import local_runs

SEEDS = st.lists(st.integers(0, 2), min_size=1, max_size=2, unique=True)
AXES = st.fixed_dictionaries(
    {"seed": SEEDS},
    optional={
        "method": st.sampled_from([["fedit"], ["fedit", "ffa_lora"], ["scl"]]),
        "local.lr": st.sampled_from([[0.1], [0.2], [0.1, 0.2]]),
    },
)
FIXED = st.fixed_dictionaries(
    {},
    optional={
        "local.lr": st.sampled_from([0.1, 0.2]),
        "local.batch_size": st.sampled_from([4, 8]),
        "num_rounds": st.sampled_from([1, 2, 3]),
        "eval.every": st.sampled_from([1, 2]),
        "method": st.sampled_from(["fedit", "ffa_lora"]),
        "logging.tags": st.just(["a"]),
        "compute.precision": st.sampled_from(["32-true", "bf16-mixed"]),
    },
)
EDITS = st.lists(st.tuples(AXES, FIXED, st.sets(st.integers(0, 7), max_size=4)), min_size=2, max_size=4)


def finish(cell: Cell, config: RunConfig, num: int) -> None:
    cell.folder.mkdir(parents=True, exist_ok=True)
    (cell.folder / "config.yaml").write_text(to_yaml(config))
    (cell.folder / "status.json").write_text(json.dumps({"state": "done", "num_rounds": config.num_rounds}))
    lines = [json.dumps({"round": i, "global/loss": float(num)}) for i in range(config.num_rounds + 1)]
    (cell.folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (cell.folder / "checkpoints" / f"round-{config.num_rounds:04d}").mkdir(parents=True, exist_ok=True)


def stored(folder: Path) -> RunConfig | None:
    path = folder / "config.yaml"
    return load_yaml(path.read_text()) if path.is_file() else None


def is_same(run: RunConfig | None, asked: RunConfig) -> bool:
    return run is not None and fingerprint(run) == fingerprint(asked)


def check(runs: list[CellRun], asked: dict[str, RunConfig]) -> None:
    """Compare with what the folders hold, read by another way than the code under test."""
    for run in runs:
        wanted, run_there = asked[run.name], stored(run.cell.folder)
        under_its_name = [stored(path) for path in Path("runs/own").glob(f"{run.name}*") if path.is_dir()]
        if run.status.state == "done":
            assert is_same(run_there, wanted)
        elif run.status.state == "stopped":
            assert run_there is not None and run_there.num_rounds < wanted.num_rounds
            assert is_same(replace(run_there, num_rounds=wanted.num_rounds), wanted)
        else:
            assert run.status.state in ("stale", "pending")
            assert not any(is_same(each, wanted) for each in under_its_name), "its own run is called stale"
        assert not any(is_same(stored(other.folder), wanted) for other in run.others)
    for each in leftovers(runs):
        assert (each.kind == "stale") != (each.kind in ("done", "stopped"))
        if each.kind == "stale":
            assert not is_same(stored(each.folder), asked[runs[each.cell].name])
    for entry, run in zip(collect(["own.yaml"]).entries, runs, strict=True):
        assert entry.status.state == run.status.state
        assert bool(entry.records) == (run.status.state in ("done", "stopped"))


@settings(
    max_examples=15,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(edits=EDITS)
def test_any_edit(
    edits: list[tuple[dict[str, Any], dict[str, Any], set[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as folder, monkeypatch.context() as patched:
        patched.chdir(folder)
        for axes, fixed, finished in edits:
            base = {key: value for key, value in fixed.items() if key not in axes}
            Path("own.yaml").write_text(yaml.safe_dump({"experiment": "demo", "overrides": base, "axes": axes}))
            sweep = load_sweep("own.yaml")
            asked = {cell.name: load_config(cell.arguments) for cell in sweep.cells()}
            runs = cell_runs(sweep)
            assert [run.name for run in runs] == [cell.name for cell in sweep.cells()]
            check(runs, asked)
            for run in (run for run in runs if run.index in finished):
                (local,) = local_runs([run.cell])
                assert local.is_done() == (run.status.state == "done")
                finish(run.cell, asked[run.name], run.index)
            check(cell_runs(sweep), asked)
