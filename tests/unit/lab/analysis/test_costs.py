"""Costs add up over the rounds, levels stand as they are, and what a run does not tell is left out."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.lab.analysis.costs import COSTS, cumulative_costs

KEYS = sorted(cost.key for cost in COSTS.values())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1e12), min_size=len(KEYS), max_size=len(KEYS)), max_size=12))
def test_each_cost_is_the_sum_so_far(rows: list[list[float]]) -> None:
    records = [{"round": i + 1, **dict(zip(KEYS, row, strict=True))} for i, row in enumerate(rows)]
    found = cumulative_costs(records)
    for i, costs in enumerate(found):
        assert list(costs) == [f"cost/{name}" for name in COSTS]
        for name, cost in COSTS.items():
            told = [record[cost.key] for record in records[: i + 1]]
            total = told[-1] if cost.is_level else math.fsum(told)
            assert costs[f"cost/{name}"] == pytest.approx(cost.factor * total, rel=1e-12)
    assert len(found) == len(records)


def test_the_untrained_model_costs_what_its_evaluation_took() -> None:
    records = [
        {"round": 0, "time/round_s": 5.0, "time/devices_s": 10.0},
        {"round": 1, **dict.fromkeys(KEYS, 3600)},
    ]
    first, second = cumulative_costs(records)
    assert first == {
        "cost/uploaded_mb": 0, "cost/downloaded_mb": 0, "cost/client_s": 0, "cost/tokens": 0, "cost/wall_s": 5.0,
        "cost/device_hours": 10 / 3600, "cost/simulated_s": 0, "cost/epsilon": 0,
    }  # fmt: skip
    assert (second["cost/wall_s"], second["cost/device_hours"]) == (3605.0, pytest.approx(1 + 10 / 3600))
    assert (second["cost/uploaded_mb"], second["cost/tokens"]) == (pytest.approx(0.0036), 3600)


def test_a_cost_that_one_round_does_not_tell_is_left_out_of_all() -> None:
    records = [{"round": i, **dict.fromkeys(KEYS, 1)} for i in range(3)]
    del records[2]["clients/num_tokens"]
    assert all("cost/tokens" not in costs and "cost/wall_s" in costs for costs in cumulative_costs(records))
    assert cumulative_costs([]) == []


def epsilons(*values: object) -> list[float | None]:
    """Return `cost/epsilon` of an untrained model and of rounds whose records tell these values."""
    records = [{"round": 0}, *({"round": i, "privacy/epsilon": value} for i, value in enumerate(values, start=1))]
    return [row.get("cost/epsilon") for row in cumulative_costs(records)]


def test_epsilon_is_the_level_of_its_record() -> None:
    assert epsilons(1.5, 2.0, 2.25) == [0, 1.5, 2.0, 2.25]


@pytest.mark.parametrize("nothing", [math.inf, math.nan, None])
def test_an_infinite_epsilon_has_no_place_on_the_axis(nothing: float | None) -> None:
    assert epsilons(1.5, nothing, nothing) == [0, 1.5, None, None]
    assert epsilons(nothing) == [0, None]


def test_a_run_without_privacy_has_no_epsilon_before_its_first_round_either() -> None:
    assert "cost/epsilon" not in cumulative_costs([{"round": 0}])[0]
    assert cumulative_costs([{"round": 0, "privacy/epsilon": 0.0}])[0]["cost/epsilon"] == 0
    one_round_without = [{"round": 1, "privacy/epsilon": 1.0}, {"round": 2}]
    assert all("cost/epsilon" not in row for row in cumulative_costs(one_round_without))


def test_records_that_tell_no_cost_have_none() -> None:
    assert cumulative_costs([{"round": 0}, {"round": 1}]) == [{}, {}]
