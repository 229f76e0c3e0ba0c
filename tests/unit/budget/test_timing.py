"""Times scaled from finished runs, with invented ones whose seconds are known."""

from pathlib import Path

import pytest

from fedlit.budget.measured import Times
from fedlit.budget.passes import Cost
from fedlit.budget.timing import ASSUMED_SPREAD, Measured, forecast, makespan, spread_of
from fedlit.budget.work import Work


def work(train: float = 100, operations: float = 10, evaluate: float = 50, rounds: int = 5, units: int = 4) -> Work:
    return Work(
        num_rounds=rounds,
        num_steps=1,
        train=Cost(flops=train, operations=operations),
        evaluate=Cost(flops=evaluate, operations=5),
        train_units=units,
        evaluate_units=units,
    )


def times(train_s: float = 40.0, outside_s: float | None = 3.0, processes: int = 1) -> Times:
    return Times(
        folder=Path("run"),
        num_rounds=5,
        train_s=train_s,
        evaluate_s=20.0,
        between_s=5.0,
        outside_s=outside_s,
        num_processes=processes,
        device="cpu",
    )


def measured(kind: int | None = 0, **named: float) -> Measured:
    return Measured(work=work(), times=times(**named), kind=kind)


def test_a_cell_of_the_measured_kind_takes_as_long() -> None:
    found = forecast(0, work(), [measured()], num_processes=1, start_s=2.0)
    assert found.seconds.estimate == pytest.approx(70)
    assert (found.own, found.scaled, found.far) == (1, 0, False)
    assert found.seconds.high / found.seconds.estimate == pytest.approx(ASSUMED_SPREAD)
    assert found.seconds.estimate / found.seconds.low == pytest.approx(ASSUMED_SPREAD)


def test_another_kind_lies_between_its_arithmetic_and_its_operations() -> None:
    found = forecast(1, work(train=400, operations=10), [measured()], num_processes=1, start_s=None)
    low, high = 40 + 28, 160 + 28
    assert found.seconds.low == pytest.approx(low / ASSUMED_SPREAD)
    assert found.seconds.high == pytest.approx(high * ASSUMED_SPREAD)
    assert found.seconds.estimate == pytest.approx(80 + 28), "40 s times the root of 4 and 1"
    assert (found.own, found.scaled) == (0, 1)


def test_rounds_go_with_what_is_between_them() -> None:
    found = forecast(1, work(rounds=10), [measured()], num_processes=1, start_s=None)
    assert found.seconds.estimate == pytest.approx(68 + 5)


def test_processes_share_training_and_evaluation_alone() -> None:
    found = forecast(0, work(), [measured()], num_processes=2, start_s=None)
    assert found.seconds.estimate == pytest.approx(60 / 2 + 8)
    back = forecast(0, work(), [measured(processes=2)], num_processes=1, start_s=None)
    assert back.seconds.estimate == pytest.approx(60 * 2 + 8)


def test_the_nearest_work_is_scaled_and_a_far_one_is_told() -> None:
    near = Measured(work=work(train=900), times=times(train_s=100.0), kind=3)
    found = forecast(1, work(train=1000), [measured(), near], num_processes=1, start_s=None)
    assert found.scaled == 1
    assert 100 < found.seconds.estimate < 200
    assert not found.far
    assert forecast(1, work(train=1e6), [measured(), near], num_processes=1, start_s=None).far


def test_runs_of_one_kind_tell_the_spread() -> None:
    runs = [measured(train_s=32.0), measured(train_s=52.0)]
    assert spread_of(runs) == pytest.approx(70 / 60)
    assert spread_of(runs[:1]) is None
    assert spread_of([measured(kind=None), measured(kind=None)]) is None
    found = forecast(0, work(), runs, num_processes=1, start_s=None)
    assert found.seconds.estimate == pytest.approx(70)
    assert found.seconds.low == pytest.approx(60)


@pytest.mark.parametrize(("jobs", "end"), [(1, 15.0), (2, 9.0), (3, 7.0), (9, 5.0)])
def test_cells_side_by_side(jobs: int, end: float) -> None:
    assert makespan([1.0, 2.0, 3.0, 4.0, 5.0], jobs) == end
    assert makespan([], jobs) == 0
