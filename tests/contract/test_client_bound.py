"""No client puts more into a private sum than the noise is made for, whatever the recipe does with what it sends."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_federations import Builder, assert_equal, results
from torch import Tensor

from fedlit import registry
from fedlit.client.trainers.serial import SerialTrainer
from fedlit.config import load_config, privacy_warnings
from fedlit.config.record import why_no_more_rounds
from fedlit.errors import DivergenceError, UserError
from fedlit.round.fixed_point import FRACTION_BITS, FixedPointSum
from fedlit.round.jobs import ClientResult
from fedlit.round.ledger import Ledger
from fedlit.round.plan import Availability

CLIP_NORM, COHORT = 0.003, 3
PRIVATE = (
    *("method.weighting=uniform", "privacy.unit=client", f"privacy.clip_norm={CLIP_NORM}", "num_clients=3"),
    *("privacy.noise_multiplier=1", "analysis=[]"),
)
CASES: dict[str, list[str]] = {
    "factors": ["method=fedit"],
    "clients of several ranks": ["method=hetlora", "method.lora_rank=[2,4,3]"],
    "rotated factors": ["method=fedrot_lora"],
    "control variates": ["method=fedit", "method.optimizer=sgd", "local.scaffold=true", "local.lr=1"],
    "private factors": ["method=fedsa_lora"],
    "a server optimizer": ["method=fedit", "server.optimizer=fedadam", "server.lr=0.01"],
    "three sums": ["method=fedex_lora", "method.aggregate_by=sums", "method.sketch_width=8"],
    "products": ["method=flexlora", "method.aggregate_by=sums", "method.sketch_width=8"],
    "products by energy": ["method=florist", "method.aggregate_by=sums", "method.sketch_width=8"],
    "means and what they miss": ["method=lora_fair", "method.aggregate_by=sums"],
    "a norm that adapts": ["method=fedit", "privacy.clip_quantile=0.5", "privacy.clip_count_noise=2"],
}


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    torch.set_num_threads(1)
    return Builder(tmp_path, num_layers=1)


@pytest.mark.parametrize("case", CASES)
def test_every_clients_integers_are_within_the_norm(
    builder: Builder, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All groups together, after what the recipe's transforms do; in exact arithmetic."""
    found: list[int] = []
    real, adapts = FixedPointSum.add, case == "a norm that adapts"

    def seen(total: FixedPointSum, encoded: Iterator[Tensor]) -> None:
        pieces = list(encoded)
        numbers = torch.cat(pieces).tolist()
        if adapts:  # beside the change stands whether it was below the norm
            assert abs(abs(numbers.pop()) - 2.0**FRACTION_BITS / 2 / COHORT) <= 1
        found.append(sum(number**2 for number in numbers))
        real(total, pieces)

    monkeypatch.setattr(FixedPointSum, "add", seen)
    federation = builder.run("one", *PRIVATE, *CASES[case])
    norms = [record["privacy/clip_norm"] for record in federation.folder.records()[1:]]
    each = len(found) // len(norms)
    assert each in (COHORT, 2 * COHORT, 3 * COHORT)
    clipped = 0
    for place, squared in enumerate(found):
        most = (norms[place // each] / COHORT * 2.0**FRACTION_BITS) ** 2
        assert squared <= most
        clipped += squared > 0.999 * most
    assert clipped >= len(norms)


def broken(monkeypatch: pytest.MonkeyPatch, client_id: int) -> None:
    """Let one client's training fail."""
    real = SerialTrainer.train

    def train(trainer: SerialTrainer, jobs: object) -> Iterator[ClientResult]:
        for result in real(trainer, jobs):  # type: ignore[arg-type]
            if result.client_id != client_id:
                yield result
                continue
            failure = DivergenceError(what="the loss", round_number=1, client_id=client_id)
            yield ClientResult(client_id=client_id, payload=None, failure=failure, seconds=0.0)

    monkeypatch.setattr(SerialTrainer, "train", train)


def test_a_client_that_fails_takes_away_its_own_part_alone(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody makes up for it, so that the sum changes by no more than its norm."""
    options = ["method=fedit", *PRIVATE, "cohort.failures=drop", "num_rounds=1"]
    whole = builder.run("whole", *options).server.shared
    broken(monkeypatch, 1)
    without = builder.run("without", *options).server.shared
    squared = sum(float((whole[name].double() - without[name].double()).square().sum()) for name in whole)
    assert 0 < squared**0.5 <= CLIP_NORM / COHORT * 1.001


def test_steps_of_a_void_round_are_counted_where_an_example_is_hidden(builder: Builder) -> None:
    """Clients keep what they have trained, and it comes out in a later round."""
    hidden = ["privacy.unit=example", "privacy.clip_norm=1", "privacy.noise_multiplier=1", "num_clients=5"]
    masked = ["privacy.secure_aggregation=true", "privacy.unmask_dropout=0.9", "partition.alpha=1"]
    federation = builder.run("one", "method=fedsa_lora", "analysis=[]", *hidden, *masked)
    records = federation.folder.records()[1:]
    assert all("secure/void" in record for record in records)
    taken = [sum(record[f"client/{client}/num_steps"] for record in records) for client in range(5)]
    assert list(Ledger.of(federation.server).steps) == taken
    assert min(taken) > 0


@pytest.mark.parametrize("unit", ["client", "example"])
def test_a_run_whose_noise_is_made_to_fit_is_given_no_more_rounds(unit: str) -> None:
    """The rounds that are done had the noise of the shorter run, which spends more than the longer one would claim."""
    fits = load_config([f"privacy.unit={unit}", "privacy.clip_norm=1", "privacy.epsilon=8", "num_rounds=2"])
    reason = why_no_more_rounds(fits, 4, reached_last=False)
    assert reason is not None
    assert "made for privacy.epsilon=8.0 in num_rounds=2" in reason
    given = load_config([f"privacy.unit={unit}", "privacy.clip_norm=1", "privacy.noise_multiplier=2", "num_rounds=2"])
    assert why_no_more_rounds(given, 4, reached_last=False) is None


def test_masks_that_stay_on_by_how_many_came_are_refused(builder: Builder) -> None:
    options = (
        *("cohort.sampling=poisson", "privacy.secure_aggregation=true", "privacy.unmask_dropout=0.1"),
        *("num_clients=8", "cohort_size=7", "partition.min_test_rows=1", "partition.name=iid", "data.label=null"),
    )
    given = {option.split("=", 1)[0]: option for option in ("method=fedit", *PRIVATE, *options)}
    with pytest.raises(UserError, match="leaves rounds void by how many come"):
        builder("one", *given.values())


def test_an_availability_that_sees_all_who_are_invited_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two of those drawn, say: one client more sends another one home."""

    @dataclass(frozen=True)
    class FirstTwo(Availability):
        """A plugin's."""

        def arriving(self, invited: Sequence[int], seed: int, round_idx: int) -> tuple[int, ...]:
            """Return two."""
            return tuple(invited[:2])

    monkeypatch.setitem(registry._registered["availability"], "first_two", FirstTwo)
    options = ["privacy.unit=client", "privacy.clip_norm=1", "privacy.epsilon=8", "cohort.availability=first_two"]
    with pytest.raises(UserError, match=r"one client decide whether others come.* give cohort\.availability=always"):
        load_config(options)


def test_last_bits_of_a_joint_pass_are_warned_of() -> None:
    options = ["privacy.unit=client", "privacy.clip_norm=1", "privacy.epsilon=8", "local.clients_per_batch=2"]
    (line,) = privacy_warnings(load_config([*options, "num_clients=10"]))
    assert "who shares its pass" in line


def test_it_is_the_same_run_again(builder: Builder) -> None:
    """Noise and cohorts are of names: a run that is repeated spends nothing more."""
    options = ["method=fedit", *PRIVATE]
    assert_equal(results(builder.run("one", *options)), results(builder.run("two", *options)))
