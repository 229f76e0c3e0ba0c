"""Draws and seeds repeat a setting: they make no rows, and a mean is over draws of means over seeds."""

import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlit.config import PartitionConfig, RunConfig
from fedlit.lab.analysis.collection import Entry
from fedlit.lab.analysis.draws import (
    Repeat,
    by_draw,
    counted,
    draw_of,
    of_draws,
    repeat_of,
    several_draws,
    words,
)
from fedlit.store.status import RunStatus


def entry(config: RunConfig | None = None, **settings: object) -> Entry:
    found = {key.replace("__", "."): value for key, value in settings.items()}
    return Entry(
        name="run", folder=Path("run"), settings=found, status=RunStatus(), config=config, records=(), partition=None
    )


def test_a_repetition_is_the_seed_unless_draws_are_an_axis() -> None:
    assert (repeat_of(entry(seed=1)), repeat_of(entry())) == (1, None)
    assert repeat_of(entry(seed=1, partition__seed=3)) == Repeat(3, 1)
    assert repeat_of(entry(seed=1, partition__seed=None)) == Repeat(1, 1)  # null is the run's seed
    assert repeat_of(entry(partition__seed=3)) == Repeat(3, None)


def test_the_draw_is_that_of_the_axis_of_the_configuration_or_the_seed() -> None:
    fixed = RunConfig(seed=4, partition=PartitionConfig(seed=7))
    assert draw_of(entry(fixed, seed=1, partition__seed=3)) == 3
    assert draw_of(entry(fixed, seed=1)) == 7
    assert draw_of(entry(RunConfig(seed=4), seed=1)) == 1
    assert draw_of(entry(RunConfig(seed=4))) == 4
    assert draw_of(entry(None, seed=1)) == 1


def test_words_and_counts() -> None:
    assert [words(1), words(Repeat(3, 1)), words(Repeat(3, None))] == ["seed 1", "draw 3 seed 1", "draw 3"]
    assert [str(Repeat(3, 1)), str(Repeat(3, None))] == ["3/1", "3"]
    whole = [Repeat(draw, seed) for draw in range(10) for seed in range(2)]
    assert counted([whole, whole]) == "10 draws x 2 seeds"
    assert counted([whole, whole[:-1], []]) == "10 draws x 1 to 2 seeds"
    assert counted([[Repeat(draw, 0) for draw in range(9)], whole[::2]]) == "9 to 10 draws x 1 seed"
    assert counted([[Repeat(draw, None) for draw in range(3)]]) == "3 draws"
    assert counted([[0, 1, 2], [0]]) == "1 to 3 seeds"
    assert counted([whole[:2]]) == "2 seeds"  # of one draw


def test_several_draws_are_an_axis_with_two_values() -> None:
    assert several_draws([entry(seed=0, partition__seed=0), entry(seed=0, partition__seed=1)])
    assert not several_draws([entry(seed=0, partition__seed=0), entry(seed=1, partition__seed=0)])
    assert not several_draws([entry(seed=0), entry(seed=1)])


@given(st.dictionaries(st.tuples(st.integers(0, 4), st.integers(0, 2)), st.floats(-5, 5), min_size=1))
def test_every_draw_counts_once_however_many_seeds_it_has(values: dict[tuple[int, int], float]) -> None:
    repeats = {Repeat(*key): value for key, value in values.items()}
    draws = {draw: [value for key, value in values.items() if key[0] == draw] for draw, _ in values}
    assert sorted(map(sorted, by_draw(repeats))) == sorted(map(sorted, draws.values()))
    if len(draws) > 1:
        assert sorted(of_draws(repeats)) == pytest.approx(sorted(statistics.fmean(found) for found in draws.values()))
    else:
        assert sorted(of_draws(repeats)) == sorted(values.values())
    seeds = dict(enumerate(values.values()))
    assert of_draws(seeds) == list(values.values())
