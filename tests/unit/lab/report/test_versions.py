"""Cells of other task versions are marked with what differs, and neither bold nor a test goes across versions."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic_runs import collection, write_folders

from fedlit.config import DataConfig, RunConfig
from fedlit.lab.analysis.collection import Collection, collect
from fedlit.lab.analysis.versions import KNOWN, UNKNOWN, Judged, Matters, departures, matters, other_rows
from fedlit.lab.report.cells import Cell, measure_all
from fedlit.lab.report.layout import make_layout
from fedlit.lab.report.published import load_published
from fedlit.lab.report.significance import compare_all
from fedlit.lab.report.table import Table, build_table
from fedlit.lab.report.versions import comparable
from fedlit.lab.report.writing import write_report
from fedlit.store.task_version import TaskVersion

Settings = Mapping[str, Any]
Planted = Callable[[Settings], TaskVersion | None]
PARTS = {
    **{name: f"{name} 0" for name in ("task", "template", "tokenizer", "max_length_tokens", "references", "protocol")},
    **{name: f"{name} 0" for name in ("max_new_tokens", "decoding", "metrics/rouge_l", "metrics/bleu_4")},
}
METHODS = ("fedit", "ffa_lora", "flora")
RUNS = [{"method": method, "seed": seed} for method in METHODS for seed in (0, 1)]


def version(seed: int = 0, **changed: str) -> TaskVersion:
    """Return a version, rows by seed; a changed part's name has underscores for strokes."""
    rows = {"global": changed.pop("rows", f"rows {seed}"), "own": f"own {seed}"}
    return TaskVersion(
        parts={**PARTS, **{name.replace("__", "/"): value for name, value in changed.items()}}, rows=rows
    )


def scorer(settings: Settings, number: int) -> dict[str, Any]:
    height = 0.2 + 0.1 * METHODS.index(settings["method"]) + 0.01 * settings["seed"]
    return {"global/rouge_l": height, "global/loss": 3 - height, "eval/protocol": "generate"}


@pytest.fixture
def make(make_collection: Callable[..., Collection]) -> Callable[..., Collection]:
    """Return a function that makes a collection of runs with planted versions."""

    def make(planted: Planted, runs: Any = RUNS, **more: Any) -> Collection:
        found = make_collection(runs, scorer, **more)
        entries = tuple(replace(entry, version=planted(entry.settings)) for entry in found.entries)
        return replace(found, entries=entries)

    return make


def cells(table: Table) -> dict[tuple[str, str], Cell]:
    """Return the cells of a table by method and score."""
    names = [head.split(" ")[0] for head in table.heads]
    label = table.heads.index("method")
    return {(row[label].text, name): cell for row in table.cells for name, cell in zip(names, row, strict=True)}


def footnote(table: Table, cell: Cell) -> str:
    """Return what the only footnote of a cell says; '' without any."""
    if not cell.marks:
        return ""
    (mark,) = cell.marks
    (note,) = (note for note in table.notes if note.startswith(f"{mark}: "))
    return note.removeprefix(f"{mark}: ")


def warnings(table: Table) -> list[str]:
    return [note for note in table.notes if note.startswith("Warning")]


def test_equal_versions_are_printed_and_nothing_is_marked(make: Callable[..., Collection]) -> None:
    table = build_table(make(lambda s: version(s["seed"])))
    assert not any(cell.marks for row in table.cells for cell in row)
    assert warnings(table) == []
    (note,) = (note for note in table.notes if note.startswith("Task version"))
    one, other = (version(seed) for seed in (0, 1))
    assert note == f"Task version {one.protocol[:8]}; test rows {one.all_rows[:8]}, {other.all_rows[:8]}."
    assert cells(table)["flora", "ROUGE-L"].best


@pytest.mark.parametrize(
    ("changed", "marked"),
    [
        ({"template": "x"}, {"ROUGE-L", "loss"}),
        ({"max_new_tokens": "x"}, {"ROUGE-L"}),
        ({"decoding": "x", "max_new_tokens": "x"}, {"ROUGE-L"}),
        ({"tokenizer": "x"}, {"ROUGE-L", "loss"}),  # of one model the tokenizer is the same
        ({"metrics__rouge_l": "x"}, {"ROUGE-L"}),
        ({"metrics__bleu_4": "x"}, set()),
        ({"rows": "x"}, {"ROUGE-L", "loss"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_departing_method_is_marked_and_is_no_best(
    changed: dict[str, str], marked: set[str], make: Callable[..., Collection]
) -> None:
    """The planted one has the best scores; without it the second is the best."""
    table = build_table(make(lambda s: version(s["seed"], **(changed if s["method"] == "flora" else {}))))
    found = cells(table)
    names = {"rows": "other test rows"}
    parts = ", ".join(sorted(name.replace("__", "/") for name in changed))
    words = names.get(parts, f"another task version ({parts})")
    for score in ("ROUGE-L", "loss"):
        departs = score in marked
        assert footnote(table, found["flora", score]) == (words if departs else "")
        assert (found["flora", score].best, found["ffa_lora", score].best) == (not departs, departs)
        assert not found["ffa_lora", score].marks
        assert any(score in line for line in warnings(table)) == departs
    assert table.notes[: len(warnings(table))] == tuple(warnings(table))


def test_one_seed_that_departs_is_named_and_is_not_in_the_test(make: Callable[..., Collection]) -> None:
    planted = make(
        lambda s: version(s["seed"], **({"template": "x"} if (s["method"], s["seed"]) == ("flora", 1) else {}))
    )
    table = build_table(planted)
    cell = cells(table)["flora", "ROUGE-L"]
    assert footnote(table, cell) == "seed 1: another task version (template)"
    assert (cell.text, cell.best) == ("0.405 ± 0.007", False)  # as it is, all seeds
    layout = make_layout(planted, None, ())
    kept = comparable(layout, measure_all(layout, "last"))
    assert [[*row[0].values] for row in kept] == [[0, 1], [0, 1], [0]]


def test_no_pair_of_a_test_is_of_two_versions(make: Callable[..., Collection]) -> None:
    runs = [{"num_clients": num, "method": m, "seed": 0} for num in range(2, 10) for m in METHODS[:2]]
    departs = lambda s: s["num_clients"] < 5 and s["method"] == "ffa_lora"  # noqa: E731
    planted = make(lambda s: version(s["num_clients"], **({"rows": "x"} if departs(s) else {})), runs)
    layout = make_layout(planted, None, ("rouge_l",))
    measures = measure_all(layout, "last")
    assert [c.num_pairs for c in compare_all(layout, measures)] == [8]
    assert [c.num_pairs for c in compare_all(layout, comparable(layout, measures))] == [5]


def test_draws_may_have_rows_of_their_own(make: Callable[..., Collection]) -> None:
    """Rows are compared within a draw, and under equal conditions alone."""
    runs = [{"num_clients": num, **run} for num in (3, 9) for run in RUNS]
    table = build_table(make(lambda s: version(10 * s["num_clients"] + s["seed"]), runs))
    assert warnings(table) == []
    assert any("test rows 4 sets." in note for note in table.notes)


def test_models_in_one_column_have_tokenizers_of_their_own(make: Callable[..., Collection]) -> None:
    """Their losses are marked, their ROUGE is not; each model has its best."""
    runs = [{"model": model, **run} for model in ("one", "two") for run in RUNS]
    table = build_table(make(lambda s: version(s["seed"], tokenizer=s["model"]), runs))
    by_model = {(row[0].text, row[1].text): row[2:] for row in table.cells}
    heads = [head.split(" ")[0] for head in table.heads[2:]]
    for model, marked in (("one", False), ("two", True)):
        named = dict(zip(heads, by_model[model, "flora"], strict=True))
        assert named["ROUGE-L"] == Cell("0.405 ± 0.007", best=True)
        assert (footnote(table, named["loss"]), named["loss"].best) == (
            "another task version (tokenizer)" if marked else "",
            True,
        )
    (warning,) = warnings(table)
    assert "in loss (tokenizer)" in warning


def test_a_varied_setting_of_the_protocol_marks_a_column_and_each_value_has_its_best(
    make: Callable[..., Collection],
) -> None:
    runs = [{"eval.max_new_tokens": most, **run} for most in (8, 64) for run in RUNS]
    table = build_table(make(lambda s: version(s["seed"], max_new_tokens=str(s["eval.max_new_tokens"])), runs))
    found = {(row[0].text, row[1].text): row for row in table.cells}
    rouge = [head.split(" ")[0] for head in table.heads].index("ROUGE-L")
    assert [found[most, "flora"][rouge].best for most in ("8", "64")] == [True, True]
    assert [bool(found[most, "fedit"][rouge].marks) for most in ("8", "64")] == [False, True]


def test_data_sets_are_not_taken_for_one_another(make: Callable[..., Collection]) -> None:
    halves = []
    for name in ("one", "two"):
        runs = [{"data": name, **run} for run in RUNS]
        config = RunConfig(num_rounds=3, data=DataConfig(name=name))
        halves.append(make(lambda s: version(s["seed"], template=s["data"]), runs, config=config))
    whole = replace(halves[0], entries=tuple(e for half in halves for e in half.entries), varied=("data", "method"))
    assert warnings(build_table(whole)) == []


def test_runs_of_an_older_version_are_reported_as_unknown(make: Callable[..., Collection]) -> None:
    table = build_table(make(lambda s: None))
    assert "Task version unknown: all runs, begun by an older fedlit." in table.notes
    assert warnings(table) == []
    assert cells(table)["flora", "ROUGE-L"].best
    table = build_table(make(lambda s: None if s["method"] == "flora" else version(s["seed"])))
    assert footnote(table, cells(table)["flora", "ROUGE-L"]) == "task version unknown"
    assert cells(table)["ffa_lora", "ROUGE-L"].best
    assert any("2 of 6 runs" in note for note in table.notes)
    assert len(warnings(table)) == 1


def test_a_mean_over_columns_is_of_one_version(make_sweep: Callable[..., Collection]) -> None:
    """In the paper's layout a row's mean is left out of bold with any of its cells."""
    found = make_sweep("fedex_glue", lambda s, n: {"global/accuracy": 0.5, "global/mcc": 0.5, "global/pearson": 0.5})
    first = found.entries[0]
    entries = tuple(replace(e, version=version(rows="x" if e is first else "y")) for e in found.entries)
    layout = make_layout(replace(found, entries=entries), load_published("fedex_glue"), ())
    assert layout.has_average
    measures = measure_all(layout, "last")
    gone = [
        (j, {*one.values} - {*other.values})
        for before, after in zip(measures, comparable(layout, measures), strict=True)
        for j, (one, other) in enumerate(zip(before, after, strict=True))
        if one.values != other.values
    ]
    (own, seeds), average = gone
    assert seeds == {first.settings["seed"]}
    assert own < len(layout.columns)
    assert average == (len(layout.columns), seeds)


def judged(key: str = "global/loss", protocol: str | None = "generate", **changed: str) -> Judged:
    return Judged(key=key, protocol=protocol, version=version(**changed))


def test_which_part_matters_for_which_score() -> None:
    never, model, always = Matters.NEVER, Matters.ON_ONE_MODEL, Matters.ALWAYS
    kinds = [
        ("global/loss", "generate"),
        ("own/rouge_l", "generate"),
        ("global/rouge_l", "teacher_forced"),
        ("global/accuracy/boolq", "options"),
        ("global/f1_macro", None),
        ("global/loss", None),
    ]
    expected = {
        "task": [always] * 6,
        "template": [always] * 6,
        "max_length_tokens": [always] * 6,
        "tokenizer": [always, model, always, model, model, model],
        "image": [model] * 6,
        "protocol": [never, always, always, always, never, never],
        "max_new_tokens": [never, always, never, never, never, never],
        "decoding": [never, always, never, never, never, never],
        "metrics/rouge_l": [never, always, always, never, never, never],
        "metrics/accuracy": [never, never, never, always, never, never],
        "a part of a plugin's task": [always] * 6,
    }
    assert {part: [matters(part, *kind) for kind in kinds] for part in expected} == expected


def test_most_decide_and_of_equals_the_first() -> None:
    same, other = judged(), judged(template="x")
    assert departures([same, other], across_models=True) == [(), ("template",)]
    assert departures([same, other, other], across_models=True) == [("template",), (), ()]
    unknown = replace(same, version=None)
    assert departures([unknown, same], across_models=True) == [(UNKNOWN,), ()]
    assert departures([unknown, same, unknown], across_models=True) == [(), (KNOWN,), ()]
    assert departures([unknown, unknown], across_models=True) == [(), ()]
    assert departures([], across_models=True) == []
    forced = Judged(
        key="global/rouge_l",
        protocol="teacher_forced",
        version=TaskVersion(
            parts={**{k: v for k, v in PARTS.items() if k not in ("decoding", "max_new_tokens")}, "protocol": "x"},
            rows={},
        ),
    )
    assert departures([judged("global/rouge_l"), forced], across_models=True) == [(), ("protocol",)]
    assert other_rows([same, judged(rows="x"), unknown, same]) == [(), ("test rows",), (), ()]


def test_a_report_over_run_folders_tells_what_was_planted(tmp_path: Path) -> None:
    runs = collection(tmp_path / "runs", num_seeds=2)
    write_folders(runs)
    for run in runs.entries:
        changed = {"template": "x"} if run.settings["method"] == "fedex_lora" else {}
        told = {"task_version": version(run.settings["seed"], **changed).to_json()}
        (run.folder / "environment.json").write_text(json.dumps(told))
    text = write_report(collect([str(tmp_path / "runs")]), tmp_path / "report", figures=False)
    lines = text.splitlines()
    (marked,) = (line for line in lines if line.startswith("| fedex_lora"))
    assert marked.count("<sup>a</sup>") == 3
    assert "**" not in marked
    assert sum("**" in line for line in lines) >= 1
    assert any(line.startswith("- Warning: task versions differ in ROUGE-L, BLEU-4, loss (template)") for line in lines)
    assert "- <sup>a</sup> another task version (template)" in lines
    assert f"- Task versions {version().protocol[:8]} (4 runs)" in text
    assert "another task version (template)" in (tmp_path / "report" / "table.tex").read_text()
    tests = (tmp_path / "report" / "wilcoxon.csv").read_text().splitlines()
    pairs = {tuple(line.split(",")[1:3]): line.split(",")[3] for line in tests[1:] if line.startswith("ROUGE-L")}
    assert {"fedex_lora" in names: num for names, num in pairs.items()} == {True: "0", False: "1"}
