import json
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb_workspaces.workspaces import interface

from fedlit.config import load_config, to_yaml
from fedlit.errors import UserError
from fedlit.lab.analysis.collection import Collection, collect
from fedlit.lab.analysis.costs import COSTS, cumulative_costs
from fedlit.lab.dashboard.workspace import build_workspace, facets, workspace_definition


def record(number: int) -> dict[str, Any]:
    trained = {cost.key: 1000.0 for cost in COSTS.values()} | {"lora/deviation": 0.1}
    return {"round": number, "global/loss": 2.0, "global/rouge_l": 0.1, "global/bleu_4": 0.0} | (
        trained if number else {"time/round_s": 1.0}
    )


def make_run(folder: Path, *words: str, num_records: int = 3) -> None:
    config = load_config(words)
    name = "-".join(word.replace("=", "-").replace("/", "-") for word in words)
    run = folder / name
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(to_yaml(config))
    if num_records:
        (run / "metrics.jsonl").write_text("".join(json.dumps(record(i)) + "\n" for i in range(num_records)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, two seeds, two numbers of clients; one of the methods at two ranks."""
    folder = tmp_path_factory.mktemp("views") / "study"
    for num_clients in (3, 10):
        for seed in (0, 1):
            make_run(folder, "method=fedit", f"num_clients={num_clients}", f"seed={seed}")
            for rank in (4, 8):
                make_run(
                    folder, "method=ffa_lora", f"method.lora_rank={rank}", f"num_clients={num_clients}", f"seed={seed}"
                )
    return folder


@pytest.fixture(scope="module")
def two_methods(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    folder = tmp_path_factory.mktemp("views") / "pair"
    for method in ("fedit", "ffa_lora"):
        for seed in (0, 1):
            make_run(folder, f"method={method}", f"seed={seed}")
    return collect([str(folder)])


def spec(collection: Collection, *arguments: Any) -> dict[str, Any]:
    """Return the definition as W&B gets it."""
    view = workspace_definition(collection, "fedlit", "team", *arguments)._to_model()
    section: dict[str, Any] = json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True))["section"]
    return section


def panels(section: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the panels with the names of their sections."""
    return [
        (part["name"], panel["config"]) for part in section["panelBankConfig"]["sections"] for panel in part["panels"]
    ]


def test_every_score_is_drawn_over_rounds_and_over_every_cost(two_methods: Collection) -> None:
    section = spec(two_methods)
    drawn = {
        (panel["xAxis"], metric)
        for _, panel in panels(section)
        for metric in panel.get("metrics", [])
        if "xAxis" in panel
    }
    axes = {"round", *(f"cost/{name}" for name in COSTS)}
    scores = {"global/rouge_l", "global/bleu_4", "global/loss"}
    assert drawn == {(axis, score) for axis in axes for score in scores} | {
        ("round", "lora/deviation"),
        *(("round", f"cost/{name}") for name in COSTS),
    }
    # What a run logs under these names (callbacks.numbers).
    logged = {key for entry in two_methods.entries for costs in cumulative_costs(entry.records) for key in costs}
    assert axes - {"round"} == logged
    names = [part["name"] for part in section["panelBankConfig"]["sections"]]
    assert names == ["Results", "ROUGE-L", "BLEU-4", "Loss", "Deviations", "Costs", "Clients' data"]
    assert [part["isOpen"] for part in section["panelBankConfig"]["sections"]] == [True, True] + [False] * 5


def test_a_line_is_the_mean_of_a_method_with_a_band(two_methods: Collection) -> None:
    section = spec(two_methods)
    curves = [panel for _, panel in panels(section) if "metrics" in panel]
    assert {(p["groupBy"], p["groupAgg"], p["groupArea"]) for p in curves} == {("method.value.name", "mean", "stddev")}
    (runset,) = section["runSets"]
    assert runset["grouping"] == [{"section": "config", "name": "method.value.name"}]
    (choice,) = runset["filters"]["filters"]
    assert choice["key"] == {"section": "run", "name": "displayName"}
    assert choice["op"] == "IN"
    assert choice["value"] == sorted(entry.folder.name for entry in two_methods.entries)
    colours = {key.split("%22value%22%3A%22")[1].split("%22")[0]: c for key, c in section["customRunColors"].items()}
    assert colours == {"fedit": "#332288", "ffa_lora": "#CC6677"}


def test_settings_that_do_not_compare_have_views_of_their_own(runs: Path) -> None:
    collection = collect([str(runs)])
    found = facets(collection)
    assert sorted(facet.label for facet in found) == ["num_clients 10", "num_clients 3"]
    names = [sorted(entry.name for entry in facet.entries) for facet in found]
    assert sorted(name for group in names for name in group) == sorted(entry.name for entry in collection.entries)
    for facet, own in zip(found, names, strict=True):
        section = spec(collection, facet)
        assert section["runSets"][0]["filters"]["filters"][0]["value"] == own
        assert all(facet.label.replace(" ", "-") in name for name in own)
    # A rank that tells lines apart, which a panel's one key would mix.
    grouping = [key["name"] for key in section["runSets"][0]["grouping"]]
    assert grouping == ["method.value.name", "method.value.lora_rank"]
    assert all("groupBy" not in panel and panel["aggregate"] for _, panel in panels(section) if "metrics" in panel)
    assert section["settings"]["maxRuns"] == 10


def test_a_panel_shows_more_lines_than_the_ten_of_wandb(tmp_path: Path) -> None:
    for seed in range(12):
        make_run(tmp_path / "many", f"seed={seed}", num_records=0)
    section = spec(collect([str(tmp_path / "many")]))
    assert section["settings"]["maxRuns"] == 12
    # Before the first record: what the configuration says the runs will log.
    assert {"global/rouge_l", "global/bleu_4", "global/loss"} <= {
        metric for _, panel in panels(section) for metric in panel.get("metrics", [])
    }


def test_epsilon_is_an_axis_of_private_runs_before_their_first_round(tmp_path: Path) -> None:
    axes = {}
    for name, words in {
        "private": ["privacy.unit=client", "privacy.clip_norm=1", "privacy.epsilon=1"],
        "plain": [],
    }.items():
        make_run(tmp_path / name, "seed=0", *words, num_records=0)
        section = spec(collect([str(tmp_path / name)]))
        axes[name] = {panel["xAxis"] for _, panel in panels(section) if "xAxis" in panel}
    assert axes["private"] == {"round", *(f"cost/{name}" for name in COSTS)}
    assert axes["private"] - axes["plain"] == {"cost/epsilon"}


def one_line(caught: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_sweep_before_its_first_run_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        build_workspace(collect(["demo"]))
    assert "no run of demo has begun" in one_line(caught)


def test_a_missing_package_is_one_line(two_methods: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(UserError) as caught:
        build_workspace(two_methods)
    assert "wandb_workspaces is not installed; pip install wandb-workspaces" in one_line(caught)


def test_a_missing_login_is_one_line(two_methods: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "login", lambda **_: False)
    with pytest.raises(UserError) as caught:
        build_workspace(two_methods)
    assert "there is no W&B login; run `wandb login`" in one_line(caught)


class FakeApi:
    default_entity = "me"


def test_every_facet_is_saved_and_the_first_is_told(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Any] = []

    def upsert(view: Any) -> dict[str, Any]:
        saved.append(view)
        return {"upsertView": {"view": {"name": f"nw-number{len(saved)}-v", "id": f"id{len(saved)}"}}}

    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setattr(wandb, "Api", FakeApi)
    monkeypatch.setattr(interface.internal, "upsert_view2", upsert)
    monkeypatch.setattr(interface, "get_app_url", lambda api: "https://wandb.example")
    url = build_workspace(collect([str(runs)]))
    assert url == "https://wandb.example/me/fedlit?nw=number1"
    assert [(view.entity, view.project) for view in saved] == [("me", "fedlit")] * 2
    assert sorted(view.display_name for view in saved) == ["study: num_clients 10", "study: num_clients 3"]
    assert build_workspace(collect([str(runs)]), project="other", entity="team").startswith(
        "https://wandb.example/team/other"
    )


@pytest.mark.parametrize("error", [wandb.errors.CommError("no way\nthrough"), ValueError("project not found")])
def test_a_server_that_refuses_is_one_line(
    two_methods: Collection, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(view: Any) -> None:
        raise error

    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setattr(wandb, "Api", FakeApi)
    monkeypatch.setattr(interface.internal, "upsert_view2", refuse)
    with pytest.raises(UserError) as caught:
        build_workspace(two_methods)
    assert "W&B does not take the dashboard of pair" in one_line(caught)


def test_runs_of_several_projects_need_one_that_is_given(tmp_path: Path) -> None:
    make_run(tmp_path / "two", "seed=0", "logging.project=one")
    make_run(tmp_path / "two", "seed=1", "logging.project=other")
    with pytest.raises(UserError, match=r"several W&B projects, \[one, other\]; give one with --project"):
        build_workspace(collect([str(tmp_path / "two")]))
