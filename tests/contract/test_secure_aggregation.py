"""Masked rounds in whole federations: the same bits as plain ones, lost clients, void rounds, bytes in the record."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tiny_federations import Builder, assert_equal, results

from fedlit.errors import UserError
from fedlit.round.loop import Federation

FIVE = ("num_clients=5", "partition.alpha=1", "analysis=[]")
MASKED = "privacy.secure_aggregation=true"
CLAIM = ("method.weighting=uniform", "privacy.unit=client", "privacy.clip_norm=1", "privacy.noise_multiplier=1")
CASES = {
    "fedit": [],
    "fedit by rows": ["partition.name=quantity"],
    "a head and SCAFFOLD": ["method.optimizer=sgd", "local.scaffold=true"],
    "a few neighbours": ["privacy.neighbours=3"],
    "two sums": ["method=fedex_lora", "method.aggregate_by=sums"],
    "rolora": ["method=rolora"],
}


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    torch.set_num_threads(1)
    return Builder(tmp_path, num_layers=1)


def options(*changes: str) -> list[str]:
    """Return the options of five clients with changes: of a key that is given twice the last."""
    return [*{option.split("=", 1)[0]: option for option in ("method=fedit", *FIVE, *changes)}.values()]


def plain(changes: Sequence[str]) -> list[str]:
    return [option for option in changes if not option.startswith("privacy.")]


def losses(federation: Federation) -> list[object]:
    return [record.get("global/loss") for record in federation.folder.records()]


@pytest.mark.parametrize("case", CASES)
def test_masks_change_no_bit(builder: Builder, case: str) -> None:
    masked = builder.run("masked", *options(MASKED, *CASES[case]))
    bare = builder.run("plain", *options(*plain(CASES[case])))
    assert_equal(results(masked), results(bare))
    assert losses(masked) == losses(bare)
    assert not any("secure/void" in record for record in masked.folder.records())


def test_clients_that_vanish_before_unmasking_change_no_bit(builder: Builder) -> None:
    masked = builder.run("masked", *options(MASKED, "privacy.unmask_dropout=0.2", "privacy.threshold=0.55", "seed=3"))
    assert not any("secure/void" in record for record in masked.folder.records())
    assert_equal(results(masked), results(builder.run("plain", *options("seed=3"))))


def test_a_round_whose_masks_stay_on_is_void_and_nothing_is_lost(builder: Builder) -> None:
    federation = builder("masked", *options(MASKED, "privacy.unmask_dropout=0.9"))
    before = dict(federation.server.shared)
    federation.run()
    records = federation.folder.records()
    assert all("cannot be taken off" in record["secure/void"] for record in records[1:])
    assert all(torch.equal(before[name], tensor) for name, tensor in federation.server.shared.items())
    assert federation.server.round_idx == 2
    num = sum(tensor.numel() for tensor in before.values())
    assert records[1]["secure/vectors_bytes"] == 5 * 8 * num  # sent before it was known
    assert records[-1]["aggregation/update_norm"] == 0


def test_bytes_are_those_of_masked_integers(builder: Builder) -> None:
    """Each of 5 clients sends 8 bytes a number, its keys and a share to each of the 4 others."""
    federation = builder.run("masked", *options(MASKED))
    record = federation.folder.records()[-1]
    num = sum(tensor.numel() for tensor in federation.server.shared.values())
    assert record["secure/vectors_bytes"] == 5 * 8 * num
    assert record["secure/keys_bytes"] == 5 * 72 * (1 + 4)
    up = record["communication/uplink_bytes"]
    assert up == 5 * (8 * num + 72 + 4 * 98 + 5 * 42)
    plain_record = builder.run("plain", *options()).folder.records()[-1]
    assert record["communication/downlink_bytes"] > plain_record["communication/downlink_bytes"]


def test_a_void_round_counts_as_a_release(builder: Builder) -> None:
    """It tells how many came."""
    federation = builder.run("masked", *options(MASKED, "privacy.unmask_dropout=0.9", *CLAIM))
    assert [record.get("privacy/releases") for record in federation.folder.records()] == [None, 1, 2]


def test_it_goes_with_client_level_noise(builder: Builder) -> None:
    masked, bare = (builder.run(name, *options(*CLAIM, *more)) for name, more in (("m", [MASKED]), ("p", [])))
    assert_equal(results(masked), results(bare))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["method=fedex_lora"], r"shows sums alone.* give method\.aggregate_by=sums"),
        (["method=local_only"], "nothing travels"),
        (
            [*CLAIM, "cohort.sampling=poisson", "cohort_size=4"],
            "tells how many came, and with cohort_size=4 that happens with probability 0.1",
        ),
        (["cohort_size=2"], "take cohort_size=3 or more"),
        (["privacy.threshold=0.5"], "take more than 0.5"),
        (["privacy.neighbours=1"], "take 2 or more"),
    ],
)
def test_what_masks_cannot_hide_is_refused(builder: Builder, changes: Sequence[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        builder("masked", *options(MASKED, *changes))
