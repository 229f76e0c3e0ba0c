"""What the page is told: factors, states, scores and the results that are compared."""

from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_runs import collection, entry, write_folders

from fedlit.config import load_config
from fedlit.lab.analysis.collection import Collection, by_seed, collect
from fedlit.lab.dashboard.data import page_data, run_line
from fedlit.store.status import RunStatus

FOLDER = Path("runs/demo")


def of_settings(settings: list[dict[str, object]]) -> Collection:
    """Return finished runs with these settings."""
    base = load_config([])
    entries = tuple(entry(FOLDER, {**values, "seed": 0}, base, num_rounds=2) for values in settings)
    keys = dict.fromkeys(key for values in settings for key in values)
    varied = tuple(key for key in keys if len({repr(values.get(key)) for values in settings}) > 1)
    return Collection(name="demo", folder=FOLDER, entries=entries, varied=varied)


def factors_of(settings: list[dict[str, object]]) -> list[tuple[str, list[str]]]:
    return [(factor.name, factor.values) for factor in page_data(of_settings(settings)).factors]


def test_lines_are_methods_and_panels_all_else() -> None:
    page = page_data(collection(FOLDER, datas=("medquad", "dolly"), num_clients=(4, 8)))
    assert [(factor.name, factor.values) for factor in page.factors] == [
        ("method", ["fedit", "ffa_lora", "fedex_lora"]),
        ("data", ["medquad", "dolly"]),
        ("num_clients", ["4 clients", "8 clients"]),
    ]
    assert [group.values for group in page.groups[:4]] == [[0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 0, 1]]
    assert len(page.groups) == 12
    assert [group.scale for group in page.groups] == ["medquad"] * 6 + ["dolly"] * 6


def test_keys_that_say_nothing_new_make_no_panels() -> None:
    models = [{"model": "small", "num_rounds": 50}, {"model": "large", "num_rounds": 15}]
    settings = [{**model, "method": method} for model in models for method in ("a", "b")]
    assert factors_of(settings) == [("method", ["a", "b"]), ("model", ["small", "large"])]


def test_an_option_of_one_method_belongs_to_its_lines() -> None:
    settings = [
        {"method": "fedit"},
        *({"method": "fedex_lora", "method.assignment": name} for name in ("keep", "average")),
    ]
    assert factors_of(settings) == [("method", ["fedit", "fedex_lora, keep", "fedex_lora, average"])]


def test_an_option_of_all_methods_makes_panels() -> None:
    settings = [{"method": name, "method.lora_rank": rank} for rank in (1, 4) for name in ("a", "b")]
    assert factors_of(settings) == [("method", ["a", "b"]), ("lora_rank", ["lora_rank 1", "lora_rank 4"])]


def test_without_methods_to_compare_what_is_neither_data_nor_model_makes_the_lines() -> None:
    settings = [{"method": "a", "data": data, "local.lr": lr} for data in ("x", "y") for lr in (0.1, 0.2)]
    assert factors_of(settings) == [("lr", ["lr 0.1", "lr 0.2"]), ("data", ["x", "y"])]
    assert factors_of([{"method": "a", "data": "x"}]) == [("method", ["a"])]


def test_groups_are_told_apart_by_their_values() -> None:
    settings = [{"method": m, "data": d, "x.a": a, "x.b": a * 2} for m in "pq" for d in "de" for a in (1, 2, 3)]
    found = of_settings(settings)
    values = [tuple(group.values) for group in page_data(found).groups]
    assert len(set(values)) == len(values) == len(by_seed(found))


def test_states_are_counted_and_every_run_is_listed() -> None:
    found = collection(FOLDER, states={0: "running", 1: "failed", 2: "pending", 3: "pending"})
    page = page_data(found)
    assert dict(page.states) == {"done": 2, "running": 1, "failed": 1, "pending": 2}
    assert [run.rounds for run in page.runs] == ["5 of 10", "5 of 10", "", "", "10 of 10", "10 of 10"]
    assert page.warnings == []
    assert dict(page.facts)["evaluated by"] == "generate"


@pytest.mark.parametrize(("num_rounds", "state"), [(2, "done"), (5, "unknown")])
def test_a_folder_without_status_is_judged_by_its_record(num_rounds: int, state: str) -> None:
    (run,) = of_settings([{"method": "a"}]).entries
    assert run.config is not None
    run.config.num_rounds = num_rounds
    line = run_line(replace(run, status=RunStatus()))
    assert (line.state, line.rounds) == (state, f"2 of {num_rounds}")
    assert bool(line.reason) == (state == "unknown")


def test_seeds_on_their_way_are_compared_only_where_none_is_done() -> None:
    page = page_data(collection(FOLDER, states={0: "running", 2: "running", 3: "failed", 5: "pending"}))
    fedit, ffa_lora, fedex_lora = page.groups
    assert (fedit.num_seeds, fedit.num_done, fedit.last["global/loss"].rounds) == (2, 1, [10])
    assert (ffa_lora.num_done, ffa_lora.last["global/loss"].rounds) == (0, [5, 5])
    assert (fedex_lora.num_seeds, fedex_lora.num_done, len(fedex_lora.last["global/loss"].seeds)) == (2, 1, 1)
    assert fedit.curves["global/loss"].num == [2] * 6 + [1] * 5


def test_the_main_score_comes_first_and_of_each_data_set_its_own() -> None:
    found = collection(FOLDER, datas=("medquad", "dolly"), methods=("fedit",))
    for run in found.entries[2:]:
        assert run.config is not None
        run.config.data.scores = ["bleu_4"]
    page = page_data(found)
    assert [score.key for score in page.scores] == ["global/rouge_l", "global/bleu_4", "global/loss"]
    assert [group.main for group in page.groups] == [0, 1]
    assert [score.lower_is_better for score in page.scores] == [False, False, True]


def test_scores_of_other_places_and_parts_have_their_units() -> None:
    (run,) = of_settings([{"method": "a"}]).entries
    values = {
        "own/f1_macro": 0.5,
        "own/f1_macro_worst": 0.1,
        "global/accuracy/boolq": 0.3,
        "global/accuracy_macro": 0.2,
    }
    records = tuple({"round": i, **values, "own/f1_macro_std": 0.1, "time/round_s": 1.0} for i in range(3))
    found = Collection(name="x", folder=FOLDER, entries=(replace(run, records=records),), varied=())
    assert {score.key: score.unit for score in page_data(found).scores} == {
        "own/f1_macro": "F1",
        "own/f1_macro_worst": "F1",
        "global/accuracy/boolq": "share",
        "global/accuracy_macro": "share",
    }


def test_different_protocols_are_a_warning() -> None:
    found = collection(FOLDER)
    for record in found.entries[0].records:
        record["eval/protocol"] = "teacher_forced"
    (warning,) = page_data(found).warnings
    assert "teacher_forced" in warning
    assert "generate" in warning


def test_no_run_at_all_is_told() -> None:
    page = page_data(collection(FOLDER, states=dict.fromkeys(range(6), "pending")))
    assert page.states == [("pending", 6)]
    assert len(page.warnings) == 1
    assert page.scores == page.costs == page.labels == []


def test_run_folders_and_synthetic_entries_are_read_alike(tmp_path: Path) -> None:

    made = collection(tmp_path / "demo", num_seeds=1)
    write_folders(made)
    page = page_data(collect([str(tmp_path / "demo")]))
    assert {f.name: set(f.values) for f in page.factors} == {"method": {"fedit", "ffa_lora", "fedex_lora"}}
    assert dict(page.states) == {"done": 3}
