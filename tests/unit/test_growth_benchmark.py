"""The pure parts of the benchmarks of memory and growth: what a ratio, an exponent and the expected work are."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def _folder() -> None:
    sys.path.insert(0, str(FOLDER))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_an_exponent_is_of_the_work_or_of_what_is_changed() -> None:
    growth = load("growth")
    as_work = [{"value": n, "flops": 10.0 * n, "cpu_s": 0.5 * n} for n in (1, 4, 16)]
    assert growth.exponent(as_work) == pytest.approx(1)
    faster = [{"value": n, "flops": 10.0 * n, "cpu_s": 0.5 * n**2} for n in (1, 4, 16)]
    assert growth.exponent(faster) == pytest.approx(2)
    flat = [{"value": n, "flops": 10.0, "cpu_s": 0.5} for n in (8, 5000)]
    assert growth.exponent(flat) == pytest.approx(0)
    assert [line.verdict for line in growth.lines_of([{**p, "sweep": "clients", "peak_mb": 1} for p in faster])] == [
        "missed"
    ]


def test_work_grows_as_it_should() -> None:
    growth = load("growth")
    base = growth.Point()
    assert growth.changed(base, "clients", 16).flops() == pytest.approx(2 * base.flops())
    assert growth.changed(base, "clients", 16).population == 16
    assert growth.changed(base, "population", 5000).flops() == base.flops() == growth.changed(base, "rank", 8).flops()
    assert growth.changed(base, "tokens", 128).flops() > 2 * base.flops()  # attention
    assert base.flops() < growth.changed(base, "rank", 128).flops() < 16 * base.flops()


def test_a_ratio_of_peaks_is_the_median_of_the_turns() -> None:
    memory = load("memory")
    peaks = {"a": [2.0, 9.0, 4.0], "b": [1.0, 3.0, 2.0]}
    assert memory.ratio(peaks, "a", "b") == (2.0, None)
