"""The benchmark of masked rounds: both sides are the same bits, and its lines say what the timings say."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.fixture(scope="module")
def masks() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        patch.delitem(sys.modules, "masks", raising=False)
        import masks  # type: ignore[import-not-found]  # noqa: PLC0415

        return masks


def test_a_line_is_of_one_round(masks: ModuleType) -> None:
    case = masks.Case(num_clients=10, num_integers=1000, lost=2, turns=6)
    turns = [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]
    line = masks.line_of(case, turns, turns, [3 * one for one in turns])
    assert (line.value, line.interval, line.null) == (3.0, (3.0, 3.0), 1.0)
    assert line.what.endswith("10 clients, 1,000 integers, complete, 2 lost")
    assert line.note == "CPU s of a round: 1.500, 4.500; ms of a client: 187.50, 562.50"


@pytest.mark.parametrize(("neighbours", "lost"), [(None, 0), (4, 1)])
def test_both_sides_are_the_same_bits(
    masks: ModuleType, neighbours: int | None, lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = masks.Case(num_clients=8, num_integers=500, neighbours=neighbours, lost=lost, turns=1)
    sides = masks.Sides(case)
    sides.require_agreement()
    monkeypatch.setattr(masks.Sides, "masked", lambda self: self.plain() + 1)
    with pytest.raises(SystemExit, match="the masked sum of 8 clients"):
        sides.require_agreement()
