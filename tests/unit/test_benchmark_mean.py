"""The benchmark of the mean: its payloads have the sizes it names, and its lines say what the timings say."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.fixture(scope="module")
def mean() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        patch.delitem(sys.modules, "mean", raising=False)
        import mean  # type: ignore[import-not-found]  # noqa: PLC0415

        return mean


def test_the_factors_are_tinyllama_s(mean: ModuleType) -> None:
    shapes = mean.factors(2048, 256, 22, 8)
    assert len(shapes) == 132
    case = mean.Case(name="", shapes=shapes, repeats=1, turns=1)
    assert case.num_scalars == 22 * 8 * (4 * 2048 + 2 * 256)


def test_the_lines_are_of_all_processes_together(mean: ModuleType) -> None:
    case = mean.Case(name="a", shapes={"x": (2, 3)}, repeats=1, turns=6)
    turns = [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]
    seconds = {"plain": turns, "plain again": turns, "fixed": [3 * one for one in turns], "steps": [500.0] * 2}
    slower = {**seconds, "fixed": [5 * one for one in turns]}
    processes = [{"cpu_s": one, "wall_s": one} for one in (seconds, slower)]
    ratio, share = mean.lines_of(case, 2, processes)
    assert (ratio.value, ratio.interval, ratio.null, ratio.verdict) == (4.0, (4.0, 4.0), 1.0, "met")
    # 8 s and 16 s of two clients a process, each of 1,000 s on both processes.
    assert share.value == pytest.approx(100 * (8 / 2000 + 16 / 2000) / 2)
    assert share.verdict == "met"
