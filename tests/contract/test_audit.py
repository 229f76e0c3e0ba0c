"""The audit's canaries show less than a run claims, and more than it claims once the claim is broken."""

import json
from pathlib import Path

import pytest
import torch
from tiny_federations import Builder, assert_equal, results

from fedlit.commands import audit
from fedlit.errors import UserError
from fedlit.privacy.audit import best_bound
from fedlit.round import private_sums
from fedlit.round.loop import Federation

AUDITED = (
    *("method=fedit", "method.weighting=uniform", "privacy.unit=client", "privacy.clip_norm=0.5", "num_rounds=2"),
    *("privacy.canaries=150", "local.steps=1", "analysis=[]", "eval.max_examples=1"),
)
CLAIM = "privacy.noise_multiplier=2"
"""Epsilon is 3.0 after two rounds."""


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    torch.set_num_threads(1)
    return Builder(tmp_path, num_layers=1)


def shown(federation: Federation) -> tuple[float, float]:
    """Return what the canaries show, and what the run claims."""
    told = audit.read_audit(federation.folder.path)
    return best_bound(told["scores"], told["in"], told["delta"], 0.95).epsilon, told["epsilon"] or float("inf")


def test_the_canaries_show_less_than_the_claim(builder: Builder) -> None:
    bound, claimed = shown(builder.run("one", *AUDITED, CLAIM))
    assert 2.5 < claimed < 3.5
    assert bound <= claimed


def test_without_noise_nearly_all_coins_are_seen(builder: Builder) -> None:
    bound, claimed = shown(builder.run("one", *AUDITED, "privacy.noise_multiplier=0"))
    assert claimed == float("inf")
    assert bound > 3


def test_a_canary_that_is_out_is_not_there(builder: Builder) -> None:
    federation = builder.run("one", *AUDITED, CLAIM)
    told = json.loads((federation.folder.path / "audit.json").read_text())
    num_clients = federation.config.num_clients
    coming = federation.schedule.plan(0).arriving
    assert [client in coming for client in range(num_clients, num_clients + 150)] == told["in"]
    assert 50 < sum(told["in"]) < 100
    assert federation.folder.records()[1]["aggregation/num_clients"] == num_clients + sum(told["in"])


def test_a_resumed_audit_goes_on(builder: Builder) -> None:
    whole = builder.run("whole", *AUDITED, CLAIM)
    half = builder("half", *AUDITED, CLAIM)
    half.config.num_rounds = 1
    half.run()
    resumed = builder.run("half", *AUDITED, CLAIM)
    assert_equal(results(resumed), results(whole))
    assert shown(resumed) == shown(whole)


@pytest.mark.parametrize("fault", ["no clipping", "a hundredth of the noise"])
def test_a_broken_claim_is_seen(builder: Builder, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """A client's change is twice the clip norm, and the noise is made for one: what the audit is there for."""
    if fault == "no clipping":
        monkeypatch.setattr("fedlit.round.canaries.OVERSHOOT", 40.0)
        monkeypatch.setattr("fedlit.client.trainers.canaries.OVERSHOOT", 40.0)
        monkeypatch.setattr(private_sums.Release, "encoded", _without_clipping)
    else:
        real = private_sums.Release._drawn
        monkeypatch.setattr(
            private_sums.Release, "_drawn", lambda release, deviation, *rest: real(release, deviation // 100, *rest)
        )
    bound, claimed = shown(builder.run("one", *AUDITED, "privacy.noise_multiplier=4"))
    assert claimed < 1.5
    assert bound > claimed


def _without_clipping(
    release: private_sums.Release, values: object, reference: object, weight: float, _: int
) -> object:
    return private_sums.encode(values, reference, weight)  # type: ignore[arg-type]


def test_the_command_tells_the_verdict(builder: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    folder = builder.run("one", *AUDITED, CLAIM).folder.path
    assert audit.main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert "holds      the canaries show no more than the run claims" in out
    told = json.loads((folder / "audit.json").read_text())
    (folder / "audit.json").write_text(json.dumps({**told, "epsilon": 0.01, "scores": [float(x) for x in told["in"]]}))
    assert audit.main([str(folder)]) == 1
    assert "BROKEN" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"), [(None, "cannot be read"), ("{", "is damaged"), ('{"scores": [], "in": []}', "is damaged")]
)
def test_a_folder_without_an_audit_is_told(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "audit.json").write_text(text)
    with pytest.raises(UserError, match=message):
        audit.read_audit(tmp_path)


def test_clients_that_keep_something_have_no_canaries(builder: Builder) -> None:
    with pytest.raises(UserError, match="needs clients that keep nothing"):
        builder("one", *AUDITED, CLAIM, "local.optimizer_state=keep")
