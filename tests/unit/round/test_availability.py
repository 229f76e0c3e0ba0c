"""Who comes back and when: pure in (seed, round, client), and what each part's definition says."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlit.errors import UserError
from fedlit.options import options_of
from fedlit.round.availability import Availability
from fedlit.round.availability.bernoulli import Bernoulli
from fedlit.round.availability.buffered import Buffered
from fedlit.round.availability.deadline import Deadline
from fedlit.round.availability.devices import Device
from fedlit.round.availability.options import OPTIONS
from fedlit.round.availability.parts import AVAILABILITIES
from fedlit.round.availability.trace import Trace
from fedlit.round.plan import Poisson, RoundPlan, Schedule, weights_by_examples


@dataclass(frozen=True)
class FixedWork:
    """Every client trains on as many tokens in every round, and sends and receives as many bytes."""

    each: Mapping[int, int]
    down: int = 0
    up: int = 0

    def tokens(self, client_id: int, round_idx: int) -> int:
        return self.each[client_id]

    def downlink_bytes(self, round_idx: int) -> int:
        return self.down

    def uplink_bytes(self, round_idx: int) -> int:
        return self.up


EVEN_CLOCK: dict[str, Any] = {"tokens_per_s": 1.0, "spread": 0.0, "jitter": 0.0}


def schedule(
    availability: Availability, tokens: Mapping[int, int] | int = 10, cohort_size: int | None = None, **more: Any
) -> Schedule:
    """Clients with 1, 2, 3, ... rows, whose tokens are given, each of a second under EVEN_CLOCK."""
    each = dict.fromkeys(range(tokens), 1) if isinstance(tokens, int) else dict(tokens)
    return Schedule(
        num_examples=tuple(client + 1 for client in range(len(each))),
        cohort_size=cohort_size or len(each),
        weigh=weights_by_examples,
        trains=lambda _round_idx: frozenset(),
        availability=availability,
        **{"seed": 0, "work": FixedWork(each), **more},
    )


def plans(made: Schedule, num: int) -> list[RoundPlan]:
    return [made.plan(round_idx) for round_idx in range(num)]


# All of them


@pytest.mark.parametrize("name", AVAILABILITIES)
@given(seed=st.integers(0, 2**40), size=st.integers(1, 7), extra=st.floats(1.0, 2.0), order=st.randoms())
def test_plans_are_pure_and_make_sense(name: str, seed: int, size: int, extra: float, order: Any) -> None:
    options: dict[str, Any] = {"deadline": {"deadline_s": 1.0, "late": "use"}}.get(name, {})

    def made() -> Schedule:
        part = AVAILABILITIES[name](**options)
        over = 1.0 if name == "buffered" else extra
        return schedule(part, {c: 400 + 100 * c for c in range(9)}, size, seed=seed, over_selection=over)

    one, other = made(), made()
    rounds = list(range(8))
    order.shuffle(rounds)
    again = {round_idx: other.plan(round_idx) for round_idx in rounds}
    for round_idx in range(8):
        plan = one.plan(round_idx)
        assert plan == again[round_idx], "in whatever order somebody asks"
        assert list(plan.invited) == sorted(set(plan.invited))
        assert list(plan.arriving) == sorted(set(plan.arriving))
        assert set(plan.arriving) - plan.began.keys() <= set(plan.invited)
        assert {*plan.late, *plan.missed} <= set(plan.invited)
        assert not {*plan.late, *plan.missed} & {*plan.arriving}
        assert set(plan.training) <= set(plan.invited)
        assert plan.weights.keys() == set(plan.arriving)
        assert all(0 <= began < round_idx for began in plan.began.values())
        if plan.arriving and plan.expected is None:
            assert math.isclose(sum(plan.weights.values()), 1.0, abs_tol=1e-12)


@pytest.mark.parametrize("name", ["deadline", "buffered"])
def test_who_is_late_comes_once_and_is_not_invited_meanwhile(name: str) -> None:
    part: Availability = Buffered(concurrency=6) if name == "buffered" else Deadline(deadline_s=1.0, late="use")
    found = plans(schedule(part, {client: 200 + 400 * client for client in range(12)}, 4, seed=3), 60)
    under_way: dict[int, int] = {}
    for plan in found:
        assert not under_way.keys() & set(plan.invited)
        for client, began in plan.began.items():
            assert under_way.pop(client) == began
        under_way |= dict.fromkeys(plan.late, plan.round_idx)
    assert any(plan.staleness(client) > 1 for plan in found for client in plan.began)


PAIRS: Mapping[tuple[str, str], tuple[Any, Any, dict[str, Any]]] = {
    ("bernoulli", "dropout"): (0.1, 0.6, {}),
    ("trace", "round_s"): (10.0, 1000.0, {}),
    ("trace", "mean_on_s"): (10.0, 1000.0, {}),
    ("trace", "mean_off_s"): (10.0, 1000.0, {}),
    **{
        (name, option): (first, second, {"deadline_s": 0.3, "late": "use"} if name == "deadline" else {})
        for name in ("deadline", "buffered")
        for option, first, second in (
            *(("tokens_per_s", 10.0, 100.0), ("downlink_mbps", 0.1, 1.0), ("uplink_mbps", 0.1, 1.0)),
            *(("spread", 0.0, 0.9), ("jitter", 0.0, 0.4), ("staleness_exponent", 0.0, 1.0)),
        )
    },
    ("deadline", "deadline_s"): (0.2, 0.4, {}),
    ("deadline", "late"): ("drop", "use", {"deadline_s": 0.3}),
    ("buffered", "concurrency"): (3, 5, {}),
}
"""Two values of every option of a number or a word, and what else is given."""


@pytest.mark.parametrize(("name", "option"), [pytest.param(*pair, id="-".join(pair)) for pair in PAIRS])
def test_two_values_of_an_option_give_two_plans(name: str, option: str) -> None:
    first, second, others = PAIRS[name, option]
    work = FixedWork({client: 200 + 50 * client for client in range(9)}, 100_000, 50_000)
    found = [
        plans(schedule(AVAILABILITIES[name](**others, **{option: value}), 9, 3, work=work), 12)
        for value in (first, second)
    ]
    assert found[0] != found[1]


def test_every_option_is_looked_at() -> None:
    known = {(name, option) for name, part in OPTIONS.items() for option in options_of(part)}
    assert known == PAIRS.keys() | {("trace", "path"), ("deadline", "devices"), ("buffered", "devices")}
    assert OPTIONS.keys() == AVAILABILITIES.keys()
    assert all(issubclass(AVAILABILITIES[name], OPTIONS[name]) for name in OPTIONS if name != "always")


# Over-selection


def test_over_selection_invites_more_and_takes_as_many_as_wanted() -> None:
    made = schedule(AVAILABILITIES["always"](), 20, 5, over_selection=1.3)
    for plan in plans(made, 40):
        assert len(plan.invited) == 7  # ceil(6.5)
        assert len(plan.arriving) == 5
        assert len(plan.missed) == 2
    came = {client for plan in plans(made, 40) for client in plan.arriving}
    assert came == set(range(20)), "not the lowest numbers"


def test_over_selection_on_the_clock_takes_the_first() -> None:
    tokens = {client: 10 * (client + 1) for client in range(8)}
    made = schedule(Deadline(**EVEN_CLOCK), tokens, 4, over_selection=1.5)
    for plan in plans(made, 20):
        assert len(plan.invited) == 6
        assert plan.arriving == plan.invited[:4], "the fastest are the lowest here"
        assert plan.round_s == tokens[plan.arriving[-1]]
        assert plan.training == plan.arriving


def test_a_factor_of_one_is_no_over_selection() -> None:
    assert len(schedule(AVAILABILITIES["always"](), 20, 7, over_selection=1.0).plan(0).invited) == 7
    assert (
        len(schedule(AVAILABILITIES["always"](), 30, 10, over_selection=1.1).plan(0).invited) == 11
    )  # not ceil(11.0000001)
    assert len(schedule(AVAILABILITIES["always"](), 12, 10, over_selection=9.0).plan(0).invited) == 12


# Dropout


def test_dropout_has_its_rate_and_is_independent() -> None:
    found = plans(schedule(Bernoulli(dropout=0.3), 40), 200)
    came = np.array([[client in plan.arriving for client in range(40)] for plan in found])
    assert abs(came.mean() - 0.7) < 4 * (0.3 * 0.7 / came.size) ** 0.5
    centred = came - came.mean()
    together = centred.T @ centred / len(came) - np.diag((centred**2).mean(axis=0))
    assert abs(together).max() < 5 * 0.21 / 200**0.5
    lags = (centred[1:] * centred[:-1]).mean()
    assert abs(lags) < 5 * 0.21 / came.size**0.5
    for plan in found:
        total = sum(client + 1 for client in plan.arriving)
        assert plan.weights == {client: (client + 1) / total for client in plan.arriving}
        assert plan.round_s is None


def test_nobody_stays_away_without_dropout() -> None:
    assert schedule(Bernoulli(dropout=0.0), 9).plan(4).arriving == tuple(range(9))


# Traces


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_a_trace_from_a_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv", "client,start_s,end_s", "0,0,400", "1,50,400", "2,0,150", "0,30,100", "3,0,100", "3,100,300"
    )
    made = schedule(Trace(path=path, round_s=100.0), 5)
    # Round 0 is 0 to 100 s, and so on; after 400 s the log begins anew. Client 4 is in no line: never on.
    assert [plan.invited for plan in plans(made, 5)] == [(0, 2, 3), (0, 1, 2, 3), (0, 1, 3), (0, 1), (0, 2, 3)]
    assert [plan.arriving for plan in plans(made, 5)] == [(0, 2, 3), (0, 1, 3), (0, 1, 3), (0, 1), (0, 2, 3)]
    assert all(plan.round_s == 100 for plan in plans(made, 5))


def test_a_round_may_go_on_over_the_end_of_the_log(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "client,start_s,end_s", "0,0,100", "1,0,60", "1,90,100")
    found = plans(schedule(Trace(path=path, round_s=70.0), 2), 10)
    assert all(plan.arriving[:1] == (0,) for plan in found), "client 0 is always on"
    # Client 1 is off from 60 to 90 of every 100 s.
    for plan in found:
        moments = np.arange(plan.round_idx * 70, (plan.round_idx + 1) * 70 + 1e-9, 0.5)[:-1]
        assert (1 in plan.arriving) == all(not 60 <= moment % 100 < 90 for moment in moments)


def test_a_client_that_is_always_on_in_a_log_whose_length_is_no_binary_number(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "client,start_s,end_s", "0,0,0.1", "1,0,0.05")
    found = plans(schedule(Trace(path=path, round_s=7.3), 2), 200)
    assert all(plan.arriving == (0,) for plan in found)


def test_drawn_intervals_are_an_alternating_renewal_process() -> None:
    part = Trace(round_s=10.0, mean_on_s=300.0, mean_off_s=100.0)
    found = plans(schedule(part, 60), 400)
    on = np.array([[client in plan.invited for client in range(60)] for plan in found])
    came = np.array([[client in plan.arriving for client in range(60)] for plan in found])
    assert abs(on.mean() - 0.75) < 0.02
    assert abs(on[0].mean() - 0.75) < 0.17, "in its long-run state from the first round"
    stays = came.sum() / on.sum()
    assert abs(stays - math.exp(-10 / 300)) < 0.005, "a client that is on stays on for 10 s"
    # A client that is off at a round's begin is on at the next with the probability of the two-state chain.
    rate = 1 / 300 + 1 / 100
    wanted = 0.75 * (1 - math.exp(-10 * rate))
    found_rate = (on[1:] & ~on[:-1]).sum() / (~on[:-1]).sum()
    assert abs(found_rate - wanted) < 0.01


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (["client,start_s", "0,1"], "has no column end_s"),
        (["client,start_s,end_s"], "has no line"),
        (["client,start_s,end_s", "0,5,5"], "line 2: start_s=5 is not before end_s=5"),
        (["client,start_s,end_s", "0,5,x"], "line 2: end_s='x' is no number"),
        (["client,start_s,end_s", "0.5,5,6"], "line 2: client=0.5 is no client's number"),
        (["client,start_s,end_s", "0,1,2", "1,-1,6"], "line 3: start_s='-1' is no number"),
        (["client,start_s,end_s", "7,1,2"], "names no client of this run"),
        (["client,start_s,end_s,end_s", "0,1,2,3"], "has the column end_s twice"),
        (["client,start_s,end_s", "0,1"], "line 2 has not as many cells"),
        (["client,start_s,end_s", "0,1,2,3"], "line 2 has not as many cells"),
    ],
)
def test_a_trace_that_makes_no_sense(tmp_path: Path, lines: list[str], match: str) -> None:
    path = write(tmp_path / "t.csv", *lines)
    with pytest.raises(UserError, match=match):
        schedule(Trace(path=path), 5)


def test_intervals_far_shorter_than_a_round_are_refused() -> None:
    with pytest.raises(UserError, match="holds more than 1000 intervals"):
        schedule(Trace(mean_on_s=0.001, mean_off_s=0.001), 5)


def test_a_trace_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        Trace(path=str(tmp_path / "none.csv"))


# The clock


def test_seconds_are_those_of_the_formula() -> None:
    device = Device(tokens_per_s=50.0, downlink_mbps=8.0, uplink_mbps=2.0)
    assert device.seconds(tokens=200, down_bytes=3_000_000, up_bytes=1_000_000) == pytest.approx(3 + 4 + 4)
    made = schedule(Deadline(**EVEN_CLOCK, downlink_mbps=8.0, uplink_mbps=2.0), {0: 5, 1: 9}, work=None)
    with_bytes = schedule(
        Deadline(**EVEN_CLOCK, downlink_mbps=8.0, uplink_mbps=2.0),
        {0: 5, 1: 9},
        work=FixedWork({0: 5, 1: 9}, down=1_000_000, up=500_000),
    )
    assert with_bytes.plan(0).durations_s == pytest.approx({0: 1 + 5 + 2, 1: 1 + 9 + 2})
    assert with_bytes.plan(0).round_s == pytest.approx(12)
    with pytest.raises(AssertionError, match="a clock needs"):
        made.plan(0)


def test_devices_are_drawn_log_normal_once_and_jitter_anew() -> None:
    part = Deadline(tokens_per_s=3.0, spread=0.5, jitter=0.2)
    devices = [part.device(client, seed=1) for client in range(4000)]
    speeds = np.log([device.tokens_per_s / 3.0 for device in devices])
    links = np.log([device.uplink_mbps / 10.0 for device in devices])
    for draws in (speeds, links):
        assert abs(draws.mean()) < 4 * 0.5 / 4000**0.5
        assert abs(draws.std() - 0.5) < 0.02
    assert abs(np.corrcoef(speeds, links)[0, 1]) < 0.06
    assert all(device.downlink_mbps / 50 == pytest.approx(device.uplink_mbps / 10) for device in devices[:20])
    assert part.device(7, seed=1) == devices[7] != part.device(7, seed=2)
    made = schedule(part, dict.fromkeys(range(300), 100))
    one, other = made.plan(0).durations_s, made.plan(1).durations_s
    ratios = np.log([one[client] / other[client] for client in one])
    assert abs(ratios.std() - 0.2 * 2**0.5) < 0.04


def test_devices_from_a_file(tmp_path: Path) -> None:
    by_client = write(tmp_path / "c.csv", "client,tokens_per_s,downlink_mbps,uplink_mbps", "1,20,1,1", "0,10,1,1")
    made = schedule(Deadline(devices=by_client, jitter=0.0), {0: 10, 1: 10})
    assert made.plan(0).durations_s == pytest.approx({0: 1.0, 1: 0.5})
    shares = write(tmp_path / "s.csv", "share,tokens_per_s,downlink_mbps,uplink_mbps", "3,20,1,1", "1,10,1,1")
    part = Deadline(devices=shares)
    drawn = [part.device(client, seed=5).tokens_per_s for client in range(2000)]
    assert set(drawn) == {10.0, 20.0}
    assert abs(drawn.count(20.0) / 2000 - 0.75) < 0.04
    with pytest.raises(UserError, match="no line for client 2"):
        schedule(Deadline(devices=by_client), 3)
    for lines, match in (
        (["tokens_per_s,downlink_mbps,uplink_mbps", "1,1,1"], "neither a column client nor a column share"),
        (["client,share,tokens_per_s,downlink_mbps,uplink_mbps", "1,1,1,1,1"], "both columns"),
        (["client,tokens_per_s,downlink_mbps,uplink_mbps", "1,0,1,1"], "tokens_per_s=0 is out of range"),
        (
            ["share,tokens_per_s,downlink_mbps,uplink_mbps", "1,1,1,1e-300"],
            "line 2: uplink_mbps=1e-300 is out of range",
        ),
        (["client,tokens_per_s,downlink_mbps,uplink_mbps", "1,1,1,1", "1,1,1,1"], "line 3: client 1 has a line"),
        (["share,tokens_per_s,downlink_mbps,uplink_mbps", "0,1,1,1"], "shares sum to 0"),
    ):
        with pytest.raises(UserError, match=match):
            Deadline(devices=write(tmp_path / "bad.csv", *lines))


# Deadlines


def test_late_ones_are_dropped_and_the_round_ends_with_the_deadline() -> None:
    tokens = {0: 3, 1: 8, 2: 20, 3: 5}
    found = plans(schedule(Deadline(**EVEN_CLOCK, deadline_s=8.0), tokens), 3)
    for plan in found:
        assert (plan.arriving, plan.missed, plan.late, plan.began) == ((0, 1, 3), (2,), (), {})
        assert plan.training == (0, 1, 3)
        assert plan.round_s == 8.0
        assert plan.weights == pytest.approx({0: 1 / 7, 1: 2 / 7, 3: 4 / 7})
    assert schedule(Deadline(**EVEN_CLOCK, deadline_s=30.0), tokens).plan(0).round_s == 20.0, "nobody is waited for"
    assert schedule(Deadline(**EVEN_CLOCK), tokens).plan(0).arriving == (0, 1, 2, 3)
    nobody = schedule(Deadline(**EVEN_CLOCK, deadline_s=1.0), tokens).plan(0)
    assert (nobody.arriving, nobody.round_s) == ((), 1.0)


def test_late_ones_are_used_when_they_come_with_less_weight() -> None:
    """Client 2 needs 20 s and rounds last 8 s: invited in round 0, it comes in round 2, 2 rounds stale."""
    tokens = {0: 3, 1: 8, 2: 20, 3: 5}
    found = plans(schedule(Deadline(**EVEN_CLOCK, deadline_s=8.0, late="use", staleness_exponent=1.0), tokens), 6)
    assert [plan.invited for plan in found] == [(0, 1, 2, 3), (0, 1, 3), (0, 1, 3), (0, 1, 2, 3), (0, 1, 3), (0, 1, 3)]
    assert [plan.late for plan in found] == [(2,), (), (), (2,), (), ()]
    assert [plan.began for plan in found] == [{}, {}, {2: 0}, {}, {}, {2: 3}]
    assert [plan.arriving for plan in found][2] == (0, 1, 2, 3)
    assert found[0].training == (0, 1, 2, 3)
    assert found[2].training == (0, 1, 3)
    assert found[2].staleness(2) == 2
    assert found[2].staleness(0) == 0
    total = 1 + 2 + 3 / 3 + 4
    assert found[2].weights == pytest.approx({0: 1 / total, 1: 2 / total, 2: 1 / total, 3: 4 / total})


def test_with_everybody_under_way_the_next_one_is_waited_for() -> None:
    found = plans(schedule(Deadline(**EVEN_CLOCK, deadline_s=2.0, late="use"), {0: 5, 1: 3}), 4)
    assert [(plan.invited, plan.arriving, plan.round_s) for plan in found] == [
        ((0, 1), (), 2.0),
        ((), (1,), 1.0),
        ((1,), (0,), 2.0),
        ((0,), (1,), 2.0),  # client 0 is waited for, up to the deadline
    ]


def test_whom_an_empty_round_waits_for_comes_at_its_end() -> None:
    """Moments are sums of seconds, and rounding must not make the one who is waited for come a round later."""
    num_waited = 0
    for seed in range(200):
        availability = Deadline(tokens_per_s=1.0, spread=2.0, jitter=0.5, late="use")
        made = schedule(availability, 10, 1, seed=seed, sampling=Poisson(), over_selection=2.0)
        for plan in plans(made, 30):
            if not plan.invited and plan.round_s:
                num_waited += 1
                assert plan.arriving
    assert num_waited > 20


@dataclass(frozen=True, kw_only=True)
class Told(Availability):
    """Says of a round what it is told to."""

    coming: Any = (0, 1)
    seconds: Mapping[int, float]

    def arriving(self, invited: Sequence[int], seed: int, round_idx: int) -> tuple[int, ...]:
        return self.coming  # type: ignore[no-any-return]

    def durations_s(self, invited: Sequence[int], seed: int, round_idx: int) -> Mapping[int, float]:
        return self.seconds


@pytest.mark.parametrize(
    ("told", "match"),
    [
        (Told(coming=(1, 0), seconds={}), r"round 1: Told.arriving\(\) returned \[1, 0\] of \[0, 1, 2\]"),
        (Told(coming=(0, 3), seconds={}), r"returned \[0, 3\] of"),
        (Told(seconds={0: 1.0}), r"durations_s\(\) returned nothing for client 1"),
        (Told(seconds={0: math.nan, 1: 1.0}), "returned nan for client 0"),
        (Told(seconds={0: 1.0, 1: math.inf}), "returned inf for client 1"),
        (Told(seconds={0: -1.0, 1: 1.0}), "returned -1.0 for client 0"),
    ],
)
@pytest.mark.parametrize("size", [1, 3])
def test_a_part_of_ones_own_that_makes_no_sense_is_told_in_a_line(told: Told, match: str, size: int) -> None:
    with pytest.raises(UserError, match=match):
        schedule(told, 3, size, over_selection=3 / size).plan(0)


def test_clients_may_be_numbers_of_numpy() -> None:
    plan = schedule(Told(coming=np.array([0, 2]), seconds={0: 2.0, 2: 3.0}), 3).plan(0)
    assert (plan.arriving, plan.round_s) == ((0, 2), 3.0)
    assert all(type(client) is int for client in plan.arriving)


# FedBuff


def by_hand(
    seconds: Mapping[int, float], size: int, concurrency: int, num_rounds: int, seed: int
) -> list[set[tuple[int, int]]]:
    """FedBuff moment by moment, all clients' times being fixed: a set of (client, state it began from) a step."""
    from fedlit.seeding import numpy_generator  # noqa: PLC0415

    now, steps = 0.0, list[set[tuple[int, int]]]()
    training: dict[int, tuple[float, int]] = {}
    while len(steps) < num_rounds:
        state, buffer, begun = len(steps), set[tuple[int, int]](), set[int]()
        order = list(numpy_generator(seed, "cohort", round_idx=state).permutation(len(seconds)))
        queue = [int(client) for client in order if int(client) not in training]
        while len(buffer) < size:
            while len(training) < concurrency and queue:
                client = queue.pop(0)
                training[client] = (now + seconds[client], state)
                begun.add(client)
            client, (now, began) = min(training.items(), key=lambda item: (item[1][0], item[0]))
            del training[client]
            buffer.add((client, began))
        steps.append(buffer)
    return steps


@given(
    seconds=st.lists(st.integers(1, 40), min_size=2, max_size=9),
    data=st.data(),
    seed=st.integers(0, 1000),
)
def test_fedbuff_is_the_algorithm_moment_by_moment(seconds: list[int], data: st.DataObject, seed: int) -> None:
    size = data.draw(st.integers(1, len(seconds)))
    concurrency = data.draw(st.integers(1, len(seconds)))
    tokens = dict(enumerate(seconds))
    made = schedule(Buffered(**EVEN_CLOCK, concurrency=concurrency), tokens, size, seed=seed)
    wanted = by_hand({client: float(each) for client, each in tokens.items()}, size, concurrency, 12, seed)
    for plan, each in zip(plans(made, 12), wanted, strict=True):
        assert {(client, plan.began.get(client, plan.round_idx)) for client in plan.arriving} == each
        assert len(plan.arriving) == size
        for client in plan.arriving:
            assert plan.weights[client] == pytest.approx((1 + plan.staleness(client)) ** -0.5 / size)


def test_fedbuff_with_equal_clients_all_at_once_is_a_round() -> None:
    for plan in plans(schedule(Buffered(**EVEN_CLOCK, concurrency=4), 4, 4), 5):
        assert (plan.arriving, plan.began, plan.late) == ((0, 1, 2, 3), {}, ())
        assert plan.weights == dict.fromkeys(range(4), 0.25)
        assert plan.round_s == 1.0


def test_fedbuff_runs_on_without_gaps_on_its_clock() -> None:
    """Two slots, buffers of one: each step is the next result, whoever it is."""
    made = schedule(Buffered(**EVEN_CLOCK, concurrency=2), {0: 2, 1: 3}, 1)
    found = plans(made, 12)
    ends = np.cumsum([plan.round_s for plan in found])
    assert all(one <= other for one, other in pairwise(ends))
    assert {plan.arriving for plan in found} == {(0,), (1,)}
    assert 0 < ends[-1] <= 3 * 12
    with pytest.raises(UserError, match="concurrency=3 is more than num_clients=2"):
        schedule(Buffered(concurrency=3), 2)
