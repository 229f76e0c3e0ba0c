"""Costs add up over the rounds, and what a run does not tell is left out."""

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
            total = math.fsum(record[cost.key] for record in records[: i + 1])
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
        "cost/device_hours": 10 / 3600,
    }  # fmt: skip
    assert (second["cost/wall_s"], second["cost/device_hours"]) == (3605.0, pytest.approx(1 + 10 / 3600))
    assert (second["cost/uploaded_mb"], second["cost/tokens"]) == (pytest.approx(0.0036), 3600)


def test_a_cost_that_one_round_does_not_tell_is_left_out_of_all() -> None:
    records = [{"round": i, **dict.fromkeys(KEYS, 1)} for i in range(3)]
    del records[2]["clients/num_tokens"]
    assert all("cost/tokens" not in costs and "cost/wall_s" in costs for costs in cumulative_costs(records))
    assert cumulative_costs([]) == []


def test_records_that_tell_no_cost_have_none() -> None:
    assert cumulative_costs([{"round": 0}, {"round": 1}]) == [{}, {}]
