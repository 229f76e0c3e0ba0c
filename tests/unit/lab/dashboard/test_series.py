"""Curves over seeds: means, bands and outcomes, also of seeds that ended early."""

import math
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedlit.lab.analysis.collection import Entry
from fedlit.lab.dashboard.series import Points, costs, curve, outcome, points_of, rounded, scored_rounds
from fedlit.store.status import RunStatus

KEY = "global/rouge_l"
SEEDS = st.lists(
    st.dictionaries(st.integers(0, 12), st.floats(-1e6, 1e6).map(lambda value: {KEY: value}), max_size=9),
    min_size=1,
    max_size=5,
)


def entry(*records: dict[str, object]) -> Entry:
    return Entry(
        name="a",
        folder=Path("a"),
        settings={"seed": 0},
        status=RunStatus(),
        config=None,
        records=records,
        partition=None,
    )


@given(SEEDS)
def test_a_curve_is_what_numpy_says_of_the_seeds_that_have_a_value(seeds: list[Points]) -> None:
    rounds = scored_rounds(seeds, [KEY])
    found = curve(seeds, rounds, KEY)
    if not rounds:
        assert found is None
        return
    assert found is not None
    table = np.array([[points.get(r, {}).get(KEY, math.nan) for points in seeds] for r in rounds])
    np.testing.assert_allclose(found.mean, np.nanmean(table, axis=1), rtol=1e-5, atol=1e-9)
    nums = (~np.isnan(table)).sum(axis=1)
    if nums.max() > 1:
        np.testing.assert_allclose(found.low, np.nanmin(table, axis=1), rtol=1e-5)
        np.testing.assert_allclose(found.high, np.nanmax(table, axis=1), rtol=1e-5)
    else:
        assert found.low is None
        assert found.high is None
    assert found.num == (list(nums) if len(set(nums)) > 1 else None)


def test_rounds_that_were_not_evaluated_have_no_point_but_cost() -> None:
    record = {"communication/uplink_bytes": 1e6, "communication/downlink_bytes": 2e6}
    run = entry({"round": 0, KEY: 0.1}, {"round": 1, **record}, {"round": 2, **record, KEY: 0.3})
    seeds = [points_of(run)]
    rounds = scored_rounds(seeds, [KEY])
    assert rounds == [0, 2]
    assert costs(seeds, rounds)["uploaded_mb"] == [0.0, 2.0]
    last = outcome(seeds, KEY)
    assert last is not None
    assert (last.seeds, last.rounds, last.traffic_mb) == ([0.3], [2], 6.0)


def test_a_cost_that_nobody_tells_is_absent() -> None:
    seeds = [points_of(entry({"round": 0, KEY: 0.1}, {"round": 1, KEY: 0.2, "time/round_s": 3.0}))]
    assert set(costs(seeds, [0, 1])) == {"wall_s"}
    last = outcome(seeds, KEY)
    assert last is not None
    assert last.traffic_mb is None


def test_epsilon_is_the_mean_of_the_seeds_that_have_one() -> None:
    """An infinite one has no point; a seed without privacy has no part in it."""
    told = ((2.0, 3.0), (4.0, math.inf), None)
    runs = []
    for epsilons in told:
        records: list[dict[str, object]] = [{"round": i, KEY: 0.1 * i} for i in range(3)]
        for record, epsilon in zip(records[1:], epsilons or (), strict=False):
            record["privacy/epsilon"] = epsilon
        runs.append(points_of(entry(*records)))
    assert costs(runs, [0, 1, 2]) == {"epsilon": [0.0, 3.0, 3.0]}


def test_what_is_not_finite_is_left_out_and_the_later_record_counts() -> None:
    time = {"time/round_s": 1.0}
    first, again = {"round": 2, KEY: 0.5, **time}, {"round": 2, KEY: 0.7, "flag": True, "text": "x", **time}
    found = points_of(entry({"round": 1, KEY: math.nan, **time}, first, again))
    assert found == {1: {"round": 1, **time, "cost/wall_s": 1}, 2: {"round": 2, KEY: 0.7, **time, "cost/wall_s": 3}}


def test_best_is_of_trained_rounds_and_in_the_scores_own_direction() -> None:
    scores = {0: 9.0, 1: 0.2, 2: 0.4, 3: 0.3}
    seeds: list[Points] = [{r: {KEY: value, "global/loss": value} for r, value in scores.items()}]
    highest, lowest = outcome(seeds, KEY, best=True), outcome(seeds, "global/loss", best=True)
    assert highest is not None
    assert lowest is not None
    assert (highest.seeds, highest.rounds) == ([0.4], [2])
    assert (lowest.seeds, lowest.rounds) == ([0.2], [1])
    assert outcome([{0: {KEY: 9.0}}], KEY) is None


def test_numbers_have_six_significant_digits() -> None:
    assert [rounded(value) for value in (math.pi, 1234567.89, 1e-9 / 3, 0.0)] == [3.14159, 1234570.0, 3.33333e-10, 0.0]


def test_what_validation_chose_is_the_best_not_the_maximum_on_the_test_set() -> None:
    on_validation = {1: 0.5, 2: 0.3, 3: 0.1}
    seeds: list[Points] = [{r: {KEY: r / 10, "validation/rouge_l": value} for r, value in on_validation.items()}]
    del seeds[0][2][KEY]  # not scored in a round that is not the best
    found = outcome(seeds, KEY, best=True, chosen_by="validation/rouge_l")
    assert found is not None
    assert (found.seeds, found.rounds) == ([0.1], [1])
    last = outcome(seeds, KEY, chosen_by="validation/rouge_l")
    assert last is not None
    assert last.rounds == [3]
