"""Plans are pure functions of names: the draws, who arrives, the weights."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlit.errors import UserError
from fedlit.round.availability import Always, Availability
from fedlit.round.plan import (
    SAMPLINGS,
    FixedSize,
    Poisson,
    Sampling,
    Schedule,
    Weigh,
    uniform_weights,
    weights_by_examples,
)

NUM_EXAMPLES = (10, 30, 20, 40, 5, 25)


def make_schedule(cohort_size: int = 4, weigh: Weigh = weights_by_examples, seed: int = 3, **parts: Any) -> Schedule:
    return Schedule(
        seed=seed,
        num_examples=NUM_EXAMPLES,
        cohort_size=cohort_size,
        weigh=weigh,
        trains=lambda round_idx: frozenset({f"of round {round_idx % 2}"}),
        **parts,
    )


def drawn(sampling: Sampling, size: int, num_rounds: int, num_clients: int = 10) -> list[tuple[int, ...]]:
    return [sampling.invited(num_clients, size, 0, round_idx) for round_idx in range(num_rounds)]


# Sampling


@pytest.mark.parametrize("sampling", [part() for part in SAMPLINGS.values()], ids=SAMPLINGS)
@given(data=st.data(), num_clients=st.integers(1, 40), seed=st.integers(0, 2**64), round_idx=st.integers(0, 10**6))
def test_a_cohort_is_a_sorted_pure_draw(
    sampling: Sampling, data: st.DataObject, num_clients: int, seed: int, round_idx: int
) -> None:
    size = data.draw(st.integers(1, num_clients))
    cohort = sampling.invited(num_clients, size, seed, round_idx)
    np.random.seed(1)  # the global generator plays no part
    sampling.invited(num_clients, size, seed, round_idx + 1)
    assert cohort == sampling.invited(num_clients, size, seed, round_idx)
    assert list(cohort) == sorted(set(cohort))
    assert set(cohort) <= set(range(num_clients))
    assert all(type(client) is int for client in cohort)
    if sampling.always_fills:
        assert len(cohort) == size


@pytest.mark.parametrize("sampling", [part() for part in SAMPLINGS.values()], ids=SAMPLINGS)
def test_every_client_is_drawn_alike(sampling: Sampling) -> None:
    """600 cohorts of 3 of 10: 180 expected of each client, standard deviation 11.2."""
    counts = Counter(client for cohort in drawn(sampling, 3, 600) for client in cohort)
    assert set(counts) == set(range(10))
    assert all(abs(count - 180) < 5 * 11.2 for count in counts.values())
    assert len(set(drawn(sampling, 3, 50))) > 25
    assert len({sampling.invited(10, 3, seed, 0) for seed in range(50)}) > 25


def test_only_a_fixed_size_always_fills() -> None:
    assert FixedSize.always_fills
    assert not Poisson.always_fills
    assert {len(cohort) for cohort in drawn(FixedSize(), 3, 200)} == {3}
    assert {0, 1, 2, 3, 4, 5, 6} <= {len(cohort) for cohort in drawn(Poisson(), 3, 600)}


@pytest.mark.parametrize("sampling", [FixedSize(), Poisson()], ids=["fixed", "poisson"])
def test_everybody_where_everybody_is_asked_for(sampling: Sampling) -> None:
    assert set(drawn(sampling, 10, 20)) == {tuple(range(10))}


def test_poisson_draws_each_client_by_itself() -> None:
    """Sizes vary as 10 independent draws do; a client's draw is the same in a larger population and at a larger share,
    and two clients come together no oftener than by chance.
    """
    cohorts = drawn(Poisson(), 3, 2000)
    sizes = np.array([len(cohort) for cohort in cohorts])
    assert sizes.mean() == pytest.approx(3, abs=5 * (2.1 / 2000) ** 0.5)
    assert sizes.var() == pytest.approx(2.1, rel=0.2)  # 0 of a fixed size
    for small, large, wide in zip(
        cohorts, drawn(Poisson(), 6, 2000), drawn(Poisson(), 6, 2000, num_clients=20), strict=True
    ):
        assert set(small) <= set(large)
        assert small == tuple(client for client in wide if client < 10)
    together = sum({1, 2} <= set(cohort) for cohort in cohorts)
    assert abs(together - 2000 * 0.09) < 5 * (2000 * 0.09 * 0.91) ** 0.5


# Availability


@dataclass(frozen=True)
class Even(Availability):
    """Even clients arrive; the clock shows 1.5 s a client."""

    def arriving(self, invited: Sequence[int], seed: int, round_idx: int) -> tuple[int, ...]:
        return tuple(client for client in invited if client % 2 == 0)

    def durations_s(self, invited: Sequence[int], seed: int, round_idx: int) -> Mapping[int, float]:
        return {client: 1.5 * client for client in invited}


@dataclass(frozen=True)
class Made(Availability):
    """Whatever a test says."""

    make: Callable[[Sequence[int]], Sequence[int]]

    def arriving(self, invited: Sequence[int], seed: int, round_idx: int) -> tuple[int, ...]:
        return tuple(self.make(invited))


def test_whoever_is_invited_comes_back() -> None:
    schedule = make_schedule()
    assert schedule.sampling == FixedSize()
    assert schedule.availability == Always()
    for round_idx in range(6):
        plan = schedule.plan(round_idx)
        assert plan.arriving == plan.invited == FixedSize().invited(6, 4, 3, round_idx)
        assert plan.durations_s == {}


def test_only_those_who_arrive_have_a_weight() -> None:
    schedule = make_schedule(availability=Even())
    for round_idx in range(20):
        plan = schedule.plan(round_idx)
        assert plan.arriving == tuple(client for client in plan.invited if client % 2 == 0) != plan.invited
        total = sum(NUM_EXAMPLES[client] for client in plan.arriving)
        assert plan.weights == {client: NUM_EXAMPLES[client] / total for client in plan.arriving}
        assert plan.durations_s == {client: 1.5 * client for client in plan.invited}


def test_a_round_in_which_nobody_arrives() -> None:
    """Whatever the weighing, which is not asked: it would divide by zero."""
    for weigh in (weights_by_examples, uniform_weights):
        plan = make_schedule(weigh=weigh, availability=Made(lambda _: ())).plan(0)
        assert len(plan.invited) == 4
        assert plan.arriving == ()
        assert plan.weights == {}
    schedule = make_schedule(cohort_size=1, sampling=Poisson())
    empty = [plan for plan in map(schedule.plan, range(50)) if not plan.invited]
    assert empty
    assert all(plan.weights == {} for plan in empty)


@pytest.mark.parametrize(
    "make",
    [
        lambda invited: [*invited, 99],
        lambda invited: tuple(reversed(invited)),
        lambda invited: [invited[0], invited[0]],
    ],
    ids=["not invited", "not sorted", "twice"],
)
def test_an_availability_that_makes_no_sense(make: Callable[[Sequence[int]], Sequence[int]]) -> None:
    with pytest.raises(UserError, match="let it return some of these, sorted, each once"):
        make_schedule(availability=Made(make)).plan(0)


# Plans


@pytest.mark.parametrize("sampling", [FixedSize(), Poisson()], ids=["fixed", "poisson"])
def test_a_plan_is_a_pure_function_of_seed_and_round(sampling: Sampling) -> None:
    """The same before and after a kill, in any order, on any process."""
    schedule = make_schedule(sampling=sampling, availability=Even())
    plans = [schedule.plan(round_idx) for round_idx in range(8)]
    again = make_schedule(sampling=sampling, availability=Even())
    assert [again.plan(round_idx) for round_idx in reversed(range(8))] == plans[::-1]
    assert [plan.round_idx for plan in plans] == list(range(8))
    assert [plan.trains for plan in plans[:3]] == [{"of round 0"}, {"of round 1"}, {"of round 0"}]
    other = make_schedule(sampling=sampling, availability=Even(), seed=4)
    assert [other.plan(round_idx).invited for round_idx in range(8)] != [plan.invited for plan in plans]


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_weights(counts: list[int]) -> None:
    weights = weights_by_examples(counts)
    assert weights == tuple(count / sum(counts) for count in counts)
    assert uniform_weights(counts) == (1 / len(counts),) * len(counts)
    assert sum(weights) == pytest.approx(1, abs=1e-12)


def test_the_share_of_the_population() -> None:
    """By examples 10 + 40 of 130; where all weigh the same, 2 of 6."""
    assert make_schedule().population_share((0, 3)) == pytest.approx(50 / 130, abs=1e-15)
    assert make_schedule(weigh=uniform_weights).population_share((0, 3)) == pytest.approx(1 / 3, abs=1e-15)
    assert make_schedule().population_share(range(6)) == pytest.approx(1, abs=1e-15)
    assert make_schedule().population_share(()) == 0
    assert make_schedule().num_clients == 6
