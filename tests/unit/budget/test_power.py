"""What planned draws can show: what is counted as a comparison, as a draw, and what finished runs tell of both."""

import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedlit.budget.power import Power, Repeated, power_of, repeated
from fedlit.config import load_config
from fedlit.lab.analysis.collection import Collection, Entry
from fedlit.statistics.planning import detectable_difference
from fedlit.store.status import RunStatus


def entry(settings: Mapping[str, Any], loss: float | None = None) -> Entry:
    config = load_config(["data=pydoc"])
    config = replace(config, seed=settings.get("seed", 0))
    config = replace(config, partition=replace(config.partition, seed=settings.get("partition.seed")))
    records = [] if loss is None else [{"round": 0}, {"round": 1, "global/loss": loss}]
    return Entry(
        name="",
        folder=Path("run"),
        settings=settings,
        status=RunStatus(state="pending" if loss is None else "done"),
        config=config,
        records=tuple(records),
        partition=None,
    )


def grid(methods: str, draws: int, seeds: int = 1, **more: Any) -> list[dict[str, Any]]:
    return [
        {"method": method, "partition.seed": draw, "seed": seed, **more}
        for method in methods
        for draw in range(draws)
        for seed in range(seeds)
    ]


def collection(entries: list[Entry], best: tuple[str, ...] = ()) -> Collection:
    varied = [key for key in ("method", "data", "local.lr") if len({e.settings.get(key) for e in entries}) > 1]
    return Collection(name="own", folder=Path(), entries=tuple(entries), varied=tuple(varied), best=best)


def power(cells: list[dict[str, Any]], seen: list[Entry] | None = None, best: tuple[str, ...] = ()) -> Power:
    planned = collection([entry(settings) for settings in cells], best)
    runs = [repeated(settings, None, 0) for settings in cells]
    return power_of(runs, planned, planned if seen is None else collection(seen))


def test_pairs_of_methods_under_each_condition() -> None:
    found = power(grid("abc", 10, 2, data="x") + grid("abc", 10, 2, data="y"))
    assert (found.num_contenders, found.num_conditions, found.comparisons) == (3, 2, 6)
    assert (found.num_draws, found.num_seeds) == (10, 2)
    assert found.one == pytest.approx(detectable_difference(1.0, 10))
    assert found.all == pytest.approx(detectable_difference(1.0, 10, alpha=0.05 / 6))
    assert found.one is not None
    assert found.all is not None
    assert found.one < found.all


def test_an_axis_of_which_the_best_is_shown_makes_no_comparisons() -> None:
    cells = grid("ab", 8, **{"local.lr": 0.1}) + grid("ab", 8, **{"local.lr": 0.2})
    assert power(cells).comparisons == 2
    assert power(cells, best=("local.lr",)).comparisons == 1


def test_a_draw_is_the_seed_where_none_is_given() -> None:
    assert repeated({"seed": 3}, None, 0) == Repeated(settings={"seed": 3}, draw=3, seed=3)
    assert repeated({"seed": 3}, 7, 0).draw == 7
    assert repeated({"seed": 3, "partition.seed": None}, 7, 0).draw == 3
    assert repeated({"partition.seed": 4}, None, 5) == Repeated(settings={"partition.seed": 4}, draw=4, seed=5)


def test_the_comparison_with_the_fewest_common_draws_counts() -> None:
    cells = [*grid("ab", 9), *grid("c", 7)]
    found = power(cells)
    assert (found.num_draws, found.num_draws_most) == (7, 9)


@pytest.mark.parametrize("draws", [1, 5])
def test_too_few_draws_show_nothing(draws: int) -> None:
    found = power(grid("ab", draws))
    assert (found.one, found.all) == (None, None)
    assert found.min_draws == 6


def test_holm_asks_for_more_draws() -> None:
    found = power(grid("abcd", 6))
    assert found.one is not None
    assert found.all is None, "2 / 2**6 is above 0.05 / 6"
    assert found.min_draws_holm == 8


def test_one_method_has_nothing_to_compare() -> None:
    found = power(grid("a", 10))
    assert (found.comparisons, found.num_draws, found.observed) == (0, 10, ())


def test_finished_runs_give_the_unit_of_the_score() -> None:
    """Differences of means over seeds, draw by draw."""
    losses = {("a", 0): [1.0, 1.2], ("a", 1): [2.0, 2.0], ("a", 2): [3.0, 3.4]}
    losses |= {("b", 0): [0.9, 0.9], ("b", 1): [2.5, 2.5], ("b", 2): [2.0, 3.0]}
    seen = [
        entry({"method": method, "partition.seed": draw, "seed": seed}, loss)
        for (method, draw), values in losses.items()
        for seed, loss in enumerate(values)
    ]
    found = power(grid("ab", 10), seen)
    std = statistics.stdev([1.1 - 0.9, 2.0 - 2.5, 3.2 - 2.5])
    (observed,) = found.observed
    assert observed.score == "loss"
    assert observed.std == observed.std_low == observed.std_high == pytest.approx(std)
    assert observed.one == pytest.approx(detectable_difference(std, 10))
