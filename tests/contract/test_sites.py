"""Sites and a centre, with bytes between them, give the aggregate and the curve of `fedlit run` to the last bit, for
every recipe in the table that real sites can have.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from site_federations import Sites, of_sites, run_sites, timeless
from test_recipes import on_push
from tiny_federations import ROWS, Builder, assert_equal

import fedlit
from fedlit.algebra.tensors import checksum
from fedlit.config import load_config
from fedlit.errors import UserError
from fedlit.methods import build_method
from fedlit.recipes import RECIPES
from fedlit.round.payload import flat
from fedlit.sites.center import open_center
from fedlit.sites.driving import run_all
from fedlit.sites.fitness import why_not
from fedlit.sites.kept import Kept
from fedlit.sites.messages import Message
from fedlit.sites.site import open_site
from fedlit.store.records import read_records
from fedlit.store.status import read_status

OPTIONS = ("analysis=[]", "logging.loggers=[]", "eval.every=1", "num_rounds=3", "compute.accelerator=cpu")

HELD = ROWS[90:]
"""Rows that no site has."""

REFUSED = {
    "centralized": "pools all rows",
    "local_only": "sends nothing",
    "fed_sb": "from rows of all clients",
}
"""Recipes that real sites cannot have, and what of the reason."""
INSTEAD = {"fed_sb": ["method.init=weights"], "hetlora": ["method.lora_rank=[2,4,8]"]}

VARIANTS = (
    ["method=fedex_lora", "method.assignment=keep"],
    ["method=fedex_lora", "method.aggregate_by=sums"],
    ["method=fedex_lora", "cohort_size=2"],
    ["method=flexlora", "method.lora_rank=[2,4,8]"],
    ["method=fedsa_lora", "eval.on=both", "cohort_size=2"],
    ["method=fedit", "eval.on=clients", "partition.validation_fraction=0.2", "eval.choose_on=validation"],
    ["method=fedit", "method.optimizer=sgd", "local.scaffold=true"],
    ["method=fedit", "local.optimizer_state=keep", "server.optimizer=fedadam", "server.lr=0.01"],
    [
        "method=fedit",
        "local.prox_mu=0.1",
        "local.schedule=cosine",
        "local.schedule_over=run",
        "method.lora_dropout=0.2",
    ],
    ["method=rolora", "model.dtype=bfloat16"],
)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    torch.set_num_threads(1)
    return Builder(tmp_path_factory.mktemp("runs"), num_layers=2)


def compare(builder: Builder, name: str, options: list[str]) -> None:
    federation = builder.run(f"{name}-run", *OPTIONS, *options)
    results = builder.folder / f"{name}-sites" / "adapter"
    center, _ = run_sites(builder, f"{name}-sites", *OPTIONS, *options, order=len(name), results=results)
    assert_equal(center.server.parts(), federation.server.parts())
    told = [timeless(read_records(builder.folder / f"{name}-{kind}")) for kind in ("run", "sites")]
    assert told[1] == told[0]
    assert [record.get("aggregation/checksum") for record in told[0]][-1] == checksum(flat(center.server.parts()))[:16]


@pytest.mark.parametrize("recipe", on_push())
def test_every_recipe(builder: Builder, recipe: str) -> None:
    if recipe in REFUSED:
        config = load_config([f"method={recipe}"])
        assert REFUSED[recipe] in str(why_not(config, build_method(config)))
    if recipe not in REFUSED or recipe in INSTEAD:
        compare(builder, recipe, [f"method={recipe}", *INSTEAD.get(recipe, [])])


@pytest.mark.parametrize("method", ["fedit", "fedsa_lora", "fedalt"])
def test_results_are_those_of_a_run(builder: Builder, method: str) -> None:
    """The centre writes everybody's model, each site its own."""
    options = (*OPTIONS, f"method={method}", "num_clients=2")
    federation = builder.run(f"result-{method}-run", *options)
    federation.export()
    here = builder.folder / f"result-{method}-sites"
    run_sites(builder, here.name, *options, results=here / "adapter")
    there = federation.folder.adapter
    files = {path.relative_to(there) for path in there.rglob("*.safetensors")}
    assert read_status(here).state == "done"
    assert len(files) == {"fedit": 1, "fedsa_lora": 2, "fedalt": 6}[method]
    for path in files:
        assert (here / "adapter" / path).read_bytes() == (there / path).read_bytes()


@pytest.mark.parametrize("options", VARIANTS, ids=" ".join)
def test_what_else_a_federation_may_have(builder: Builder, options: list[str]) -> None:
    compare(builder, f"variant-{VARIANTS.index(options)}", options)


def test_the_table_of_refused_recipes_is_the_code_s() -> None:
    found = {}
    for name in RECIPES:
        config = load_config([f"method={name}"])
        if (reason := why_not(config, build_method(config))) is not None:
            found[name] = reason
    assert found.keys() == REFUSED.keys()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            ["privacy.unit=client", "privacy.clip_norm=1", "privacy.noise_multiplier=1", "method.weighting=uniform"],
            "privacy.unit=client",
        ),
        (["privacy.secure_aggregation=true"], "privacy.secure_aggregation=true"),
        (["cohort.availability=bernoulli", "cohort.options={dropout: 0.2}"], "cohort.availability=bernoulli"),
        (["cohort.over_selection=1.5", "cohort_size=2"], "cohort.over_selection=1.5"),
    ],
)
def test_what_a_simulation_alone_can_have_is_refused(options: list[str], reason: str) -> None:
    config = load_config([*options, "num_clients=3"])
    assert reason in str(why_not(config, build_method(config)))


def test_only_what_trains_travels(builder: Builder) -> None:
    """RoLoRA's B in one round and its A in the next; of FedSA nothing but A; of folds factors, never a weight."""
    for options, shape in ((["method=rolora"], {"B"}), (["method=fedsa_lora"], {"A"})):
        _, sites = run_sites(builder, f"travels-{options[0][7:]}", *OPTIONS, *options)
        first = Message.from_bytes(sites.sent["up", "train"][0]).tensors
        assert {"A" if "lora_A" in name else "B" for name in first} == shape
    center, sites = run_sites(builder, "travels-fedex", *OPTIONS, "method=fedex_lora", "method.lora_rank=1")
    second = Message.from_bytes(sites.sent["down", "train"][3])
    folded = {name: tensor.shape for name, tensor in second.tensors.items() if name.startswith("fold/")}
    assert len(folded) == 2 * len(center.server.layers)
    assert {name.rpartition("/")[2] for name in folded} == {"left", "right"}
    assert all(min(shape) == 2 for shape in folded.values()), "(n - 1) r"


@pytest.mark.parametrize(("method", "rank"), [("fedex_lora", 1), ("flora", 4)])
def test_a_site_that_was_away_gets_the_folds_that_it_missed(builder: Builder, method: str, rank: int) -> None:
    """Client 1 does not answer in rounds 1 and 2; what it has then is what the centre has, to the last bit."""
    options = [f"method={method}", f"method.lora_rank={rank}", "num_rounds=6", *OPTIONS]
    options.remove("num_rounds=3")
    center, sites = of_sites(builder, f"away-{method}", *options, away={1: (1,), 2: (1,)})
    center.finish()
    while not center.done:
        before = center.server
        record = sites.round(center)
        assert record.get("clients/lost") == ([1] if before.round_idx in (1, 2) else None)
        for client in set(sites.sites) - set(sites.away.get(before.round_idx, ())):
            kept = Kept.from_bytes(sites.states[client])
            assert kept.round_idx == before.round_idx
            assert_equal(kept.frozen, before.frozen)
    assert any(name.endswith("/rest") for name in center.server.frozen) == (method == "flora"), (
        "one outgrows its factors"
    )


def test_a_site_that_lost_its_state_is_left_out_once_and_gets_all(builder: Builder) -> None:
    center, sites = of_sites(builder, "stale", *OPTIONS, "method=fedex_lora", "num_clients=3")
    center.finish()
    assert "clients/lost" not in sites.round(center)
    sites.states.pop(2)
    sites.round(center)  # nothing was folded before the round that it missed
    sites.states.pop(2)
    assert sites.round(center)["clients/lost"] == [2]


def test_answers_that_do_not_belong_are_refused(builder: Builder) -> None:
    center, sites = of_sites(builder, "strangers", *OPTIONS, "method=fedit")
    with pytest.raises(UserError, match="another configuration"):
        center.join(replace(sites.sites[0], told={**sites.sites[0].told, "local.lr": 7.0}).join())
    other = sites.sites[0].join()
    with pytest.raises(UserError, match="another model"):
        center.join(replace(other, tensors={"sample": other.tensors["sample"] + 1}))
    with pytest.raises(UserError, match="comes again with"):
        center.join(replace(other, facts={**other.facts, "num_rows": [1, 1, 0]}))
    center.finish()
    invited = center.invite()
    answer, _ = sites.sites[0].train(invited[0])
    with pytest.raises(UserError, match="not asked"):
        center.take(1, answer)
    name = next(iter(answer.tensors))
    for tensors, reason in (
        ({name: answer.tensors[name][:1]}, "of shape"),
        ({name: answer.tensors[name].double()}, "float64"),
        ({"group/model/other": torch.ones(1)}, "none of the model"),
        ({name: answer.tensors[name] * torch.nan}, "nan"),
    ):
        with pytest.raises(UserError, match=reason):
            center.take(0, replace(answer, tensors=tensors))
    assert not center.take(0, replace(answer, facts={**answer.facts, "round_idx": 7})), "of another round"
    assert center.take(0, answer)
    with pytest.raises(UserError, match="twice"):
        center.take(0, answer)


def test_a_loss_that_is_not_finite_leaves_a_site_out_or_ends_the_run(builder: Builder) -> None:
    for failures in ("stop", "drop"):
        center, sites = of_sites(
            builder, f"diverged-{failures}", *OPTIONS, "method=fedit", f"cohort.failures={failures}"
        )
        center.finish()
        invited = center.invite()
        bad = {name: tensor * torch.nan for name, tensor in invited[1].tensors.items()}
        answer, _ = sites.sites[1].train(replace(invited[1], tensors=bad))
        assert not answer.tensors
        if failures == "stop":
            with pytest.raises(UserError, match="loss"):
                center.take(1, answer)
        else:
            assert not center.take(1, answer)


def test_a_centre_goes_on_where_its_folder_stands(builder: Builder) -> None:
    """Stopped after a round, it resumes; sites that kept their state give the bits of a run that was not."""
    options = (*OPTIONS, "method=fedex_lora")
    whole, _ = run_sites(builder, "whole", *options)
    center, sites = of_sites(builder, "resumed", *options)
    center.finish()
    sites.round(center)
    center.close()
    again, later = of_sites(builder, "resumed", *options, states=sites.states)
    assert (again.round_idx, again.unscored) == (1, False)
    run_all(again, later.exchange)
    assert_equal(again.server.parts(), whole.server.parts())
    records = [timeless(read_records(builder.folder / name)) for name in ("whole", "resumed")]
    assert records[0] == records[1]


def test_real_sites_have_the_rows_of_their_files(tmp_path: Path) -> None:
    """Each site its file, the centre a test set: as `fedlit run` with partition.name=files."""
    for client in range(3):
        rows = ROWS[client:90:3] if client else ROWS[:60:3]
        (tmp_path / f"site_{client}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in HELD))
    words = [
        "data=jsonl",
        f"data.test_path={tmp_path}/test.jsonl",
        "num_clients=3",
        "local.steps=2",
        "local.batch_size=2",
    ]
    words += [
        "eval.max_new_tokens=2",
        "logging.wandb=disabled",
        f"run.dir={tmp_path}",
        "partition.name=files",
        *OPTIONS,
    ]
    federation = fedlit.run([*words, f"data.path={tmp_path}/site_*.jsonl", "run.name=run"])
    config = load_config([*words, f"data.path={tmp_path}/site_*.jsonl", "run.name=sites"])
    center = open_center(config)
    sites = Sites(
        {client: open_site(config, client, own={"data.path": f"{tmp_path}/site_{client}.jsonl"}) for client in range(3)}
    )
    sites.join(center)
    run_all(center, sites.exchange)
    assert_equal(center.server.parts(), federation.server.parts())
    assert timeless(read_records(tmp_path / "sites")) == timeless(federation.records)
    environments = [json.loads((tmp_path / name / "environment.json").read_text()) for name in ("run", "sites")]
    assert environments[0]["task_version"] == environments[1]["task_version"]
    with pytest.raises(UserError, match="may not differ"):
        open_site(config, 0, own={"data.path": "rows.jsonl", "local.lr": 1.0})
    with pytest.raises(UserError, match="missing"):
        open_site(config, 0, own={})
    with pytest.raises(UserError, match="none of num_clients=3"):
        open_site(config, 3)


def test_real_sites_score_their_own_parts(tmp_path: Path) -> None:
    """Nobody but a site has its rows: the centre has none."""
    for client in range(2):
        (tmp_path / f"site_{client}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[client::2]))
    words = ["data=jsonl", "num_clients=2", "local.steps=2", "local.batch_size=2", "eval.max_new_tokens=2"]
    words += [f"run.dir={tmp_path}", "run.name=sites", "partition.name=iid", "partition.min_test_rows=3", *OPTIONS]
    with pytest.raises(UserError, match="needs a test set at the centre"):
        config = load_config([*words, "data.path=nowhere.jsonl"], checked=False)
        sites = Sites({i: open_site(config, i, own={"data.path": f"{tmp_path}/site_{i}.jsonl"}) for i in range(2)})
        sites.join(open_center(config))
    config = load_config([*words, "data.path=nowhere.jsonl", "eval.on=clients"], checked=False)
    sites = Sites({i: open_site(config, i, own={"data.path": f"{tmp_path}/site_{i}.jsonl"}) for i in range(2)})
    center = open_center(config)
    sites.join(center)
    run_all(center, sites.exchange)
    last = read_records(tmp_path / "sites")[-1]
    assert last["own/loss"] == pytest.approx((last["client/0/own/loss"] + last["client/1/own/loss"]) / 2)
