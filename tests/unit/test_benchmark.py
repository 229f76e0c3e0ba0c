"""The benchmark of local training runs, compares loops that do the same work, and knows a worthless measurement."""

import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks its own module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def timing() -> ModuleType:
    return load("paired_timing")


@pytest.mark.slow
def test_it_runs_and_both_loops_do_the_same_work(timing: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    options = ["--shapes", "64/1/2/8", "tiny/1/8", "--pairs", "2", "--steps-per-block", "2", "--json", str(out)]
    environ = {**os.environ, **timing.PINNED, "PYTHONPATH": str(FOLDER.parents[1])}
    command = [sys.executable, str(FOLDER / "local_training.py"), *options]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 1), done.stderr  # two pairs say nothing about speed
    results = json.loads(out.read_text())["results"]
    assert [result["shape"] for result in results] == ["64/1 B2 T8", "tiny B1 T8"]
    for result in results:
        assert result["cpu_bare_step_ms"] > 0 < result["wall_fedlit_tokens_per_s"]
        assert result["cpu_fedlit_ratio"]["interval"] is None  # of two pairs
        assert result["verdict"].startswith(("met", "not met", "invalid"))
    assert all(result["shape"] in done.stdout for result in results)


@pytest.mark.slow
@pytest.mark.parametrize(("script", "num_lines"), [("aggregation", 26), ("galore", 7)])
def test_one_with_lines_runs(timing: ModuleType, script: str, num_lines: int, tmp_path: Path) -> None:
    out = tmp_path / "lines.json"
    environ = {**os.environ, **timing.PINNED, "PYTHONPATH": str(FOLDER.parents[1])}
    command = [sys.executable, str(FOLDER / f"{script}.py"), "--quick", "--json", str(out)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr  # matrices this small say nothing about speed
    content = json.loads(out.read_text())
    assert content["script"] == script
    assert len(content["lines"]) == num_lines
    assert all(line["value"] > 0 and line["what"] in done.stdout for line in content["lines"])


def test_the_command_starts_anew_unless_it_is_pinned(timing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: calls.append(arguments))
    for name in timing.PINNED:
        monkeypatch.delenv(name, raising=False)
    timing.pin()
    ((executable, command, environ),) = calls
    assert executable == sys.executable
    assert command == sys.orig_argv
    assert timing.PINNED.items() <= environ.items()
    for name, value in timing.PINNED.items():
        monkeypatch.setenv(name, value)
    timing.pin()
    assert len(calls) == 1


def test_every_turn_takes_each_variant_once_in_an_order_of_its_own(timing: ModuleType) -> None:
    calls: list[str] = []

    def variant(name: str) -> Any:
        def block() -> Any:
            calls.append(name)
            return timing.Elapsed(cpu_s=float(len(calls)), wall_s=0.0)

        return block

    timings = timing.interleave({name: variant(name) for name in "abc"}, 20, seed=0)
    turns = [calls[start : start + 3] for start in range(0, 60, 3)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len({tuple(turn) for turn in turns}) == 6
    assert [int(one.cpu_s) for one in timings["a"]] == [place + 1 for place, name in enumerate(calls) if name == "a"]


@pytest.mark.parametrize("num_values", [6, 7, 30, 101])
def test_the_interval_covers_the_median_as_often_as_it_says(timing: ModuleType, num_values: int) -> None:
    draw = random.Random(0)
    num_trials = 2000
    covered = 0
    for _ in range(num_trials):
        values = [draw.expovariate(1.0) for _ in range(num_values)]  # median log 2, skewed
        low, high = timing.median_interval(values)
        assert low <= timing.median(values) == statistics.median(values) <= high
        covered += low <= 0.6931471805599453 <= high
    assert 0.94 <= covered / num_trials <= 0.995  # order statistics are discrete: 0.984 at 7 values


def test_an_interval_needs_six_values_and_bears_thousands(timing: ModuleType) -> None:
    assert timing.median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert timing.median_interval([6.0, 1.0, 5.0, 2.0, 4.0, 3.0]) == (1.0, 6.0)
    low, high = timing.median_interval([float(value) for value in range(5001)])
    # The normal approximation: 2500 -+ 1.96 * sqrt(5001) / 2.
    assert (low, high) == pytest.approx((2430.7, 2569.3), abs=1.5)


def test_a_ratio_below_one_says_slower_and_is_judged_only_beside_an_even_control(timing: ModuleType) -> None:
    slower = timing.Ratio.of([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    assert slower.median == 0.5
    even = timing.Ratio(median=0.995, interval=None)
    assert timing.verdict(even, slower, 0.98).startswith("not met")
    assert timing.verdict(even, timing.Ratio(median=0.98, interval=None), 0.98) == "met: >= 0.98 of the bare loop"
    for uneven in (0.985, 1.015):
        reason = timing.verdict(timing.Ratio(median=uneven, interval=None), even, 0.98)
        assert reason == "invalid: null control off by more than 0.01"
