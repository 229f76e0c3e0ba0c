"""Client-level privacy in whole federations: the claim, its noise and its ledger, and what would void it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_federations import Builder, assert_equal, results

from fedlit.config import load_config, privacy_warnings
from fedlit.errors import UserError
from fedlit.round.ledger import Ledger
from fedlit.round.loop import Federation

PRIVATE = (
    *("method=fedit", "method.weighting=uniform", "num_clients=6", "cohort_size=2", "cohort.sampling=poisson"),
    *("privacy.unit=client", "privacy.clip_norm=0.05", "num_rounds=3", "analysis=[]"),
)
NOISE = "privacy.noise_multiplier=1"


def private(*changes: str) -> list[str]:
    """Return the options of a private run with changes: of a key that is given twice the last."""
    given = {option.split("=", 1)[0]: option for option in (*PRIVATE, *changes)}
    return [*given.values()]


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    torch.set_num_threads(1)
    return Builder(tmp_path, num_layers=1)


def records(federation: Federation) -> list[dict[str, object]]:
    return federation.folder.records()


def test_every_record_tells_what_has_been_spent(builder: Builder) -> None:
    found = records(builder.run("one", *PRIVATE, NOISE))
    assert [record["privacy/unit"] for record in found] == ["client"] * 4
    spent = [record["privacy/epsilon"] for record in found]
    assert spent[0] == 0.0
    assert spent == sorted(spent) and len(set(spent)) == 4
    assert {record["privacy/noise_multiplier"] for record in found} == {1.0}
    assert {record["privacy/delta"] for record in found} == {1e-5}
    assert "simulation only" in str(found[0]["privacy/not_covered"])


def test_an_epsilon_makes_the_noise_that_it_needs(builder: Builder) -> None:
    last = records(builder.run("one", *PRIVATE, "privacy.epsilon=3"))[-1]
    assert 2.99 < last["privacy/epsilon"] <= 3  # type: ignore[operator]


def test_a_run_ends_before_the_round_that_would_spend_too_much(builder: Builder) -> None:
    free = records(builder.run("free", *PRIVATE, NOISE))
    limit = (free[2]["privacy/epsilon"] + free[3]["privacy/epsilon"]) / 2  # type: ignore[operator]
    held = builder.run("held", *private(NOISE, f"privacy.epsilon={limit}", "eval.every=5"))
    assert [record["round"] for record in records(held)] == [0, 1, 2]
    assert "global/loss" in records(held)[-1]  # the last round is scored, whichever it is
    assert builder("held", *private(NOISE, f"privacy.epsilon={limit}", "eval.every=5"))._is_last  # resumed, too


def test_a_resumed_run_remembers_what_it_has_spent_and_draws_the_same_noise(builder: Builder) -> None:
    whole = builder.run("whole", *PRIVATE, NOISE)
    half = builder("half", *PRIVATE, NOISE)
    half.config.num_rounds = 2
    half.run()
    resumed = builder("half", *PRIVATE, NOISE)
    assert Ledger.of(resumed.server).releases == 2
    resumed.run()
    assert_equal(results(resumed), results(whole))
    assert Ledger.of(resumed.server) == Ledger.of(whole.server)
    assert [record["privacy/epsilon"] for record in records(resumed)] == [
        record["privacy/epsilon"] for record in records(whole)
    ]


def test_the_ledger_counts_who_took_part(builder: Builder) -> None:
    federation = builder.run("one", *PRIVATE, NOISE)
    drawn = [federation.schedule.plan(round_idx).arriving for round_idx in range(3)]
    assert list(Ledger.of(federation.server).rounds) == [sum(client in each for each in drawn) for client in range(6)]


def test_an_empty_round_is_a_round_with_noise(builder: Builder) -> None:
    """Standing still would tell that nobody was drawn."""
    one_of_many = ("cohort_size=1", "num_clients=12", "partition.min_test_rows=1", "partition.name=iid")
    federation = builder("one", *private(NOISE, *one_of_many, "data.label=null"))
    plans = {round_idx: federation.schedule.plan(round_idx) for round_idx in range(60)}
    empty = next(round_idx for round_idx, plan in plans.items() if not plan.arriving)
    federation.server = replace(federation.server, round_idx=empty)
    federation.config.num_rounds = empty + 1
    before = federation.server.shared
    federation.run()
    assert records(federation)[-1]["aggregation/num_clients"] == 0
    assert records(federation)[-1]["privacy/releases"] == 1
    assert all(not torch.equal(before[name], tensor) for name, tensor in federation.server.shared.items())


def test_without_noise_and_clipping_it_is_the_plain_federation(builder: Builder) -> None:
    """All clients in every round, equal weights: the divisor is the number that comes."""
    plain = ["method=fedit", "method.weighting=uniform", "num_clients=4", "analysis=[]"]
    private = ["privacy.unit=client", "privacy.clip_norm=1000", "privacy.noise_multiplier=0"]
    assert_equal(results(builder.run("private", *plain, *private)), results(builder.run("plain", *plain)))
    assert "privacy/epsilon" not in records(builder("private", *plain, *private))[-1]  # infinite


def test_a_factor_that_does_not_train_gets_no_noise(builder: Builder) -> None:
    federation = builder("one", *private(NOISE, "method=rolora"))
    before = dict(federation.server.shared)
    federation.config.num_rounds = 1
    federation.run()
    trained = federation.schedule.plan(0).trains
    moved = {name for name, tensor in federation.server.shared.items() if not torch.equal(tensor, before[name])}
    assert moved == trained & before.keys() != before.keys()


@pytest.mark.parametrize(
    "options",
    [
        ["method=ffa_lora"],
        ["method=fedsvd"],
        ["method=fed_sb", "method.init=weights"],
        ["method=fedsa_lora"],
        ["method=scl"],
        ["method=ravan"],
        ["method=fedask"],
        ["method=fedask", "method.adapter=lora_train_b_receive_a"],
    ],
)
def test_recipes_of_sums_run_under_it(builder: Builder, options: Sequence[str]) -> None:
    federation = builder.run("one", *private(NOISE, *options))
    assert records(federation)[-1]["privacy/releases"] == 3
    assert "init/loss_before" not in records(federation)[0]  # measured on clients' rows


def test_an_adaptive_norm_stands_in_the_record_and_is_resumed(builder: Builder) -> None:
    adaptive = private(NOISE, "privacy.clip_quantile=0.5", "privacy.clip_count_noise=2")
    whole = builder.run("whole", *adaptive)
    norms = [record["privacy/clip_norm"] for record in records(whole)[1:]]
    assert norms[0] == 0.05 and len(set(norms)) == 3
    half = builder("half", *adaptive)
    half.config.num_rounds = 1
    half.run()
    resumed = builder.run("half", *adaptive)
    assert_equal(results(resumed), results(whole))


def test_a_larger_deployment_gives_less_noise(builder: Builder) -> None:
    """pfl's convention: the noise of a round of 200 clients, simulated with 2."""
    deployed = private(NOISE, "privacy.noise_cohort_size=200", "privacy.population=600")
    small = private(NOISE)
    far, near = (records(builder.run(name, *o))[-1] for name, o in (("far", deployed), ("near", small)))
    assert far["aggregation/update_norm"] < near["aggregation/update_norm"] / 30  # type: ignore[operator]
    assert far["privacy/epsilon"] == near["privacy/epsilon"]  # the same rate, 1/3
    told = [str(records(builder(name, *o))[0]["privacy/mechanism"]) for name, o in (("far", deployed), ("near", small))]
    assert told[0].startswith("200 of 600 clients a round, each by itself; a deployment that 2 of 6 clients simulate")
    assert told[1] == "2 of 6 clients a round, each by itself"


# --- what would void the claim

REFUSED = {
    "clip": (["privacy.clip_norm=null"], r"privacy\.clip_norm=null .* give privacy\.clip_norm="),
    "nothing": (["privacy.noise_multiplier=null"], r"privacy\.epsilon=null .* give it, or privacy\.noise_multiplier"),
    "weights": (["method.weighting=num_examples"], r"weighting=num_examples .* give method\.weighting=uniform"),
    "stack": (["method=fedex_lora"], r"privacy\.unit=client shows sums alone.* give method\.aggregate_by=sums"),
    "pooled": (["method=centralized"], "nothing travels"),
    "alone": (["method=local_only"], "nothing travels"),
    "pld": (["cohort.sampling=fixed", "privacy.accountant=pld"], r"draws without replacement; give cohort\.sampling"),
    "moments": (["method=fedgalore"], r"far above the moments that .*galore_shared shares; choose method\.optimizer="),
    "rows": (["method=scl", "method.init=whitened"], r"init=whitened .* computed from clients' rows.* method\.init"),
    "count": (["privacy.clip_quantile=0.5", "privacy.clip_count_noise=0.2"], "leaves nothing of a noise multiplier"),
    "several": (
        ["method=flexlora", "method.aggregate_by=sums", "method.sketch_width=8", "privacy.clip_quantile=0.5"],
        "asks for several",
    ),
    "width": (["method=flexlora", "method.aggregate_by=sums"], r"sketch_width=null .* give a number"),
    "quantile": (["privacy.clip_quantile=0"], "fall to 0"),
    "small": (["privacy.noise_cohort_size=9"], r"cohort of 9 in a population of 6; give more"),
    "free": (["privacy.noise_multiplier=0", "privacy.epsilon=1"], "whose epsilon is infinite"),
    "large": (["privacy.clip_norm=1e6"], r"leave the range of a sum of 2 clients; lower privacy\.clip_norm"),
    "tiny": (["privacy.clip_norm=1e-12"], r"clip_norm=1e-12 is lost in the rounding of a sum of .* give a larger one"),
    "no round": (["privacy.epsilon=0.1"], r"epsilon=0\.1 is less than one round spends, .* give more noise"),
    "dropout": (["cohort.availability=bernoulli"], r"which no epsilon is of; give cohort\.availability=always"),
    "over-selection": (["cohort.over_selection=1.5"], r"over_selection=1\.5 .* than the accountant counts"),
    "canaries": (["privacy.canaries=4", "cohort.sampling=fixed"], "drawn by themselves"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_void_the_claim_is_refused_with_its_reason(builder: Builder, case: str) -> None:
    options, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as told:
        builder("one", *private(NOISE, *options))
    assert "\n" not in str(told.value)


def test_what_a_claim_does_not_cover_is_warned_of() -> None:
    base = ["privacy.unit=client", "privacy.clip_norm=1", "privacy.epsilon=1", "num_clients=10"]
    assert privacy_warnings(load_config(base)) == []
    for option, words in (
        ("privacy.delta=0.1", "is not below 1 / 10 clients"),
        ("run.result=best", "not counted in epsilon"),
        ("privacy.canaries=3", "good for `fedlit audit` alone"),
    ):
        (line,) = privacy_warnings(load_config([*base, "cohort.sampling=poisson", "eval.choose_on=test", option]))
        assert words in line


def test_texts_of_rows_are_kept_only_where_they_are_asked_for(builder: Builder) -> None:
    """Under example-level privacy the rows are what is hidden."""
    base = ["method=fedit", "privacy.unit=example", "privacy.clip_norm=1", "privacy.noise_multiplier=1", "num_rounds=1"]
    quiet = builder.run("quiet", *base)
    assert not (quiet.folder.path / "samples.jsonl").exists()
    assert not [*quiet.folder.path.glob("examples/*")]  # predictions, which are texts too
    loud = builder.run("loud", *base, "logging.samples_kept=2")
    lines = (loud.folder.path / "samples.jsonl").read_text().splitlines()
    assert len(json.loads(lines[0])) > 0
    (line,) = privacy_warnings(loud.config)
    assert "logging.samples_kept=2 writes texts" in line
