"""Sums that hide clients: every client's integers stay within the bound, noise is of its size, nobody's draw counts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedlit.algebra.tensors import TensorDict
from fedlit.config import load_config
from fedlit.errors import UserError
from fedlit.privacy.claim import make_claim
from fedlit.round.cohort import Cohort
from fedlit.round.fixed_point import FRACTION_BITS
from fedlit.round.payload import MODEL
from fedlit.round.plan import Poisson, RoundPlan, Schedule, weights_by_examples
from fedlit.round.private_rounds import PrivateRounds
from fedlit.round.private_sums import NOISE_PIECE, AdaptiveClip, Release
from fedlit.round.rules.fedavg import FedAvg
from fedlit.round.server import ServerState

UNIT = 2.0**FRACTION_BITS


def release(**options: object) -> Release:
    given = {"seed": 5, "round_idx": 2, "expected": 4, "clip_norm": 0.5, "noise_multiplier": 0.0}
    return Release(**{**given, **options})  # type: ignore[arg-type]


def integers(made: Release, values: TensorDict, reference: TensorDict, sum_index: int = 0) -> Tensor:
    return torch.cat([*made.encoded(values, reference, 1 / made.expected, sum_index)])


def plan(arriving: Sequence[int], expected: int = 4, trains: Sequence[str] = ("a", "b")) -> RoundPlan:
    clients = tuple(arriving)
    return RoundPlan(
        round_idx=2,
        invited=clients,
        arriving=clients,
        weights=dict.fromkeys(clients, 1 / expected),
        trains=frozenset(trains),
        expected=expected,
    )


def payload(seed: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> TensorDict:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (3, 5), "b": (7,)}
    return {name: (scale * torch.randn(shape, generator=generator)).to(dtype) for name, shape in shapes.items()}


# --- the bound


@settings(deadline=None, max_examples=150)
@given(
    scale=st.floats(1e-7, 1e4),
    clip_norm=st.floats(1e-5, 100),
    expected=st.integers(1, 1000),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    seed=st.integers(0, 100),
)
def test_no_client_has_a_longer_part_than_the_noise_is_made_for(
    scale: float, clip_norm: float, expected: int, dtype: torch.dtype, seed: int
) -> None:
    """Of the integers themselves, in exact arithmetic: rounding cannot lead beyond the bound."""
    made = release(clip_norm=clip_norm, expected=expected)
    found = integers(made, payload(seed, dtype, scale), payload(seed + 1000, dtype))
    assert sum(number**2 for number in found.tolist()) <= (clip_norm / expected * UNIT) ** 2


def test_a_change_within_the_norm_stays_what_it_is() -> None:
    start, end = payload(1, torch.float64), payload(2, torch.float64)
    norm = math.sqrt(sum(float((end[name] - start[name]).square().sum()) for name in start))
    inside = integers(release(clip_norm=norm * 1.001), end, start)
    assert torch.equal(
        inside, torch.cat([((end[name] - start[name]).reshape(-1) / 4 * UNIT).round() for name in start])
    )


def test_a_longer_change_is_shortened_as_a_whole() -> None:
    """One factor for all tensors, so that the direction stays."""
    start, end = payload(1, torch.float64), payload(2, torch.float64)
    change = torch.cat([(end[name] - start[name]).reshape(-1) for name in start])
    found = integers(release(clip_norm=0.1), end, start).double() / UNIT * 4
    torch.testing.assert_close(found, change / change.norm() * 0.1, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("clip_norm", [1e-13, 1e-12, 1e-11, 1e-9])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_norm_that_rounding_alone_would_exceed_is_kept(clip_norm: float, scale: float) -> None:
    reference = {"model/a": torch.randn(160, 160, generator=torch.Generator().manual_seed(0))}
    values = {"model/a": reference["model/a"] * (1 + scale)}
    sent = integers(release(clip_norm=clip_norm), values, reference)
    assert sent.double().norm() <= clip_norm / 4 * 2.0**FRACTION_BITS


def test_a_sum_has_room_for_all_clients_and_the_noise() -> None:
    release(clip_norm=100.0, noise_multiplier=10.0).require_room(1000)
    for options in ({"clip_norm": 1e5}, {"clip_norm": 100.0, "noise_multiplier": 1e4}):
        with pytest.raises(UserError, match=r"leave the range of a sum of 4 clients; lower privacy\.clip_norm"):
            release(**options).require_room(1000)


# --- the noise


@pytest.mark.parametrize("num_processes", [2, 3, 4])
def test_the_processes_draw_one_noise(num_processes: int) -> None:
    made = release(noise_multiplier=1.0)
    sizes = [5, NOISE_PIECE, 3, 2 * NOISE_PIECE + 7]

    def drawn(num: int) -> Tensor:
        total = torch.zeros(sum(sizes), dtype=torch.int64)
        for process in range(num):
            buffer = torch.zeros_like(total)
            made.add_noise(buffer.split(sizes), 0, process, num)
            total += buffer
        return total

    assert torch.equal(drawn(num_processes), drawn(1))


def test_cutting_into_tensors_changes_no_noise() -> None:
    made = release(noise_multiplier=1.0)
    whole, cut = (torch.zeros(3 * NOISE_PIECE // 2, dtype=torch.int64) for _ in range(2))
    made.add_noise([whole], 0, 0, 1)
    made.add_noise(cut.split([1, 17, NOISE_PIECE, NOISE_PIECE // 2 - 18]), 0, 0, 1)
    assert torch.equal(whole, cut)


def test_the_noise_has_the_size_that_is_claimed() -> None:
    made = release(noise_multiplier=3.0, clip_norm=0.25, expected=8)
    buffer = torch.zeros(200_000, dtype=torch.int64)
    made.add_noise([buffer], 0, 0, 1)
    assert float(buffer.double().std()) / UNIT == pytest.approx(3.0 * 0.25 / 8, rel=0.01)
    assert made.deviation == math.ceil(3.0 * 0.25 / 8 * UNIT)


def test_sums_rounds_and_seeds_have_noise_of_their_own() -> None:
    found = []
    for options, index in (({}, 0), ({}, 1), ({"round_idx": 3}, 0), ({"seed": 6}, 0)):
        buffer = torch.zeros(1000, dtype=torch.int64)
        release(noise_multiplier=1.0, **options).add_noise([buffer], index, 0, 1)
        found.append(buffer.double())
    for place, one in enumerate(found):
        for other in found[place + 1 :]:
            assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.15


# --- a cohort


def private(clients: Sequence[int], num_sums: int = 1, **options: object) -> Cohort:
    server = {MODEL: payload(0)}
    cohort = Cohort(plan(clients), server, release=release(**options), keeps=True, num_sums=num_sums)
    for client_id in clients:
        cohort.add(client_id, {MODEL: payload(client_id + 1)})
    cohort.close(clients)
    return cohort


def test_the_mean_divides_by_the_number_that_was_expected() -> None:
    """Not by the number that came, which would tell of each client."""
    for clients in ((0,), (0, 1), range(7)):
        mean = private(clients, clip_norm=100.0).mean()
        for name, start in payload(0).items():
            change = sum(payload(client + 1)[name].double() - start.double() for client in clients) / 4
            torch.testing.assert_close(mean[name], (start.double() + change).float())


def test_a_round_without_clients_lets_out_noise_all_the_same() -> None:
    cohort = private((), noise_multiplier=1.0)
    assert not cohort.is_idle
    assert all(not torch.equal(cohort.mean()[name], start) for name, start in payload(0).items())


def test_a_lost_client_is_not_made_up_for() -> None:
    cohort = Cohort(plan([0, 1]), {MODEL: payload(0)}, release=release(clip_norm=100.0))
    cohort.add(1, {MODEL: payload(2)})
    cohort.close([1])
    change = payload(2)["b"].double() - payload(0)["b"].double()
    torch.testing.assert_close(cohort.mean()["b"], (payload(0)["b"].double() + change / 4).float())


def test_what_does_not_train_gets_no_noise_and_does_not_move() -> None:
    """Whoever knows the method knows that it stands still; a client that moves it all the same tells nothing by it."""
    cohort = Cohort(plan([0], trains=("b",)), {MODEL: payload(0)}, release=release(noise_multiplier=1.0))
    cohort.add(0, {MODEL: payload(1)})
    cohort.close([0])
    mean = cohort.mean()
    assert torch.equal(mean["a"], payload(0)["a"])
    assert not torch.equal(mean["b"], payload(0)["b"])


def test_a_second_sum_is_bounded_too_and_asked_for_in_advance() -> None:
    cohort = private((0, 1), num_sums=2, clip_norm=0.01)
    product = cohort.mean_of(lambda tensors: {"c": 100 * tensors["b"].outer(tensors["b"]).double()})
    change = product["c"] - 100 * payload(0)["b"].outer(payload(0)["b"]).double()
    assert 0 < float(change.norm()) <= 2 * 0.01 / 4 * (1 + 1e-9)
    cohort.mean()
    with pytest.raises(UserError, match=r"asks for 3 sums .* that it asks for 2.* let num_sums\(\) return 3"):
        cohort.mean_of(lambda tensors: {"c": tensors["b"]})


def test_nobody_is_looked_at_alone() -> None:
    with pytest.raises(UserError, match="looks at single clients"):
        private((0, 1)).stack(["a"])


# --- an adaptive norm


def test_the_number_below_the_norm_comes_beside_the_sum() -> None:
    """Three of five clients are below: 3/4 of those expected, and the missing ones count half."""
    adaptive = AdaptiveClip(quantile=0.5, lr=0.2, count_noise=1e-9)
    cohort = Cohort(plan(range(5)), {MODEL: payload(0)}, release=release(clip_norm=1.0, adaptive=adaptive))
    for client_id in range(5):
        near = {name: start + (0.001 if client_id < 3 else 10.0) for name, start in payload(0).items()}
        cohort.add(client_id, {MODEL: near})
    cohort.close(range(5))
    cohort.mean()
    assert cohort.share_below == pytest.approx((3 * 0.5 - 2 * 0.5) / 4 + 0.5, abs=1e-6)
    assert adaptive.next_norm(1.0, 1.0) == pytest.approx(math.exp(-0.1))


def test_the_norm_goes_to_the_quantile() -> None:
    adaptive, norms, clip_norm = AdaptiveClip(quantile=0.7, lr=0.2, count_noise=1.0), torch.rand(1000).exp(), 50.0
    for _ in range(100):
        clip_norm = adaptive.next_norm(clip_norm, float((norms <= clip_norm).double().mean()))
    assert clip_norm == pytest.approx(float(norms.quantile(0.7)), rel=0.02)


@pytest.mark.parametrize("clip_norm", [1e-13, 1e-15, 1e-300])
def test_a_norm_below_the_grid_lets_nothing_in(clip_norm: float) -> None:
    """Nor does a norm that has adapted down to there: no room is left for rounding."""
    made = release(clip_norm=clip_norm)
    for end in (payload(2), payload(1)):
        assert not integers(made, end, payload(1)).any()


def test_a_private_round_weighs_all_alike_however_many_come() -> None:
    """Whatever the weighing of the method is: 1 / cohort_size, and so is the share of the population."""
    schedule = Schedule(
        seed=0,
        num_examples=(10, 20, 30, 40),
        cohort_size=2,
        weigh=weights_by_examples,
        trains=lambda _: frozenset("a"),
        sampling=Poisson(),
        fixes_number=True,
    )
    plans = [schedule.plan(round_idx) for round_idx in range(20)]
    assert len({len(each.arriving) for each in plans}) > 2
    assert all(set(each.weights.values()) <= {0.5} and each.expected == 2 for each in plans)
    assert schedule.population_share((3,)) == 0.5


def test_noise_goes_along_the_names() -> None:
    """A server that was read from a checkpoint may hold its tensors in another order."""
    found = []
    for server in (payload(0), dict(reversed(payload(0).items()))):
        cohort = Cohort(plan(()), {MODEL: server}, release=release(noise_multiplier=1.0))
        cohort.close(())
        found.append(cohort.mean())
    assert all(torch.equal(found[0][name], found[1][name]) for name in payload(0))


# --- a round


@dataclass(frozen=True)
class Thrice(FedAvg):
    """Asks for three sums."""

    def num_sums(self, server: ServerState) -> int:
        """Return 3."""
        return 3


def one_round(rule: FedAvg, *options: str) -> Release:
    claim = ("privacy.unit=client", "privacy.clip_norm=1", "privacy.noise_multiplier=2", "num_clients=10")
    config = load_config([*claim, *options])
    rounds = PrivateRounds(config=config, rule=rule, claim=make_claim(config, (), ()))
    made = rounds.release(plan((), 10), rounds.opened(ServerState(shared=payload(0)), 10))
    assert made is not None
    return made


def test_a_round_of_several_sums_is_one_release() -> None:
    """Three sums of a third of the budget each: 3 / (3 z^2) = 1 / z^2."""
    assert one_round(FedAvg()).noise_multiplier == 2
    assert one_round(Thrice()).noise_multiplier == pytest.approx(2 * math.sqrt(3))


def test_a_count_beside_the_sum_is_paid_for() -> None:
    """1 / z_d^2 + (1/2)^2 / s^2 = 1 / z^2 (Andrew et al. 2021, theorem 1)."""
    made = one_round(FedAvg(), "privacy.clip_quantile=0.5", "privacy.clip_count_noise=3")
    assert 1 / made.noise_multiplier**2 + 0.25 / 3**2 == pytest.approx(1 / 2**2)
