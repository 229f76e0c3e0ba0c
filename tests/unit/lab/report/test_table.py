"""Our cells are what the runs reached, the published ones stand beside them and never in their place."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.config import DataConfig, EvalConfig, RunConfig
from fedlit.errors import UserError
from fedlit.lab.analysis.collection import Collection
from fedlit.lab.report.cells import MISSING, Cell, measure_all
from fedlit.lab.report.layout import make_layout
from fedlit.lab.report.published import load_published
from fedlit.lab.report.render import markdown
from fedlit.lab.report.table import Table, build_table, table_of

Settings = Mapping[str, Any]
METHODS = [{"method": method, "seed": seed} for method in ("fedit", "ffa_lora") for seed in (0, 1, 2)]


def row(table: Table, *labels: str) -> dict[str, Cell]:
    """Return the cells of a row by their heads."""
    (found,) = (cells for cells in table.cells if tuple(c.text for c in cells[: len(labels)]) == labels)
    return dict(zip(table.heads, found, strict=True))


def reached(settings: Settings) -> float:
    return 0.2 + 0.1 * (settings["method"] == "ffa_lora") + 0.01 * settings["seed"] ** 2


def test_a_cell_is_mean_and_sample_deviation_over_seeds(make_collection: Callable[..., Collection]) -> None:
    table = build_table(make_collection(METHODS, lambda s, number: {"global/rouge_l": number / 3 * reached(s)}))
    values = [0.2, 0.21, 0.24]
    assert row(table, "fedit")["ROUGE-L ↑"].text == f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"
    assert "over 3 seeds" in table.caption
    assert (row(table, "fedit")["ROUGE-L ↑"].best, row(table, "ffa_lora")["ROUGE-L ↑"].best) == (False, True)


def test_one_seed_has_no_deviation(make_collection: Callable[..., Collection]) -> None:
    table = build_table(make_collection(METHODS[::3], lambda s, number: {"global/rouge_l": 0.25}))
    assert row(table, "fedit")["ROUGE-L ↑"] == Cell("0.250")
    assert "One seed" in table.caption


def test_a_low_loss_is_the_best_and_equal_looks_are_no_best(make_collection: Callable[..., Collection]) -> None:
    def scorer(s: Settings, number: int) -> dict[str, float]:
        return {"global/loss": 3 - reached(s), "global/rouge_l": 0.5 + 1e-9 * reached(s)}

    table = build_table(make_collection(METHODS, scorer))
    assert row(table, "ffa_lora")["loss ↓"].best
    assert not any(row(table, name)["ROUGE-L ↑"].best for name in ("fedit", "ffa_lora"))


def test_the_best_round_is_the_one_of_the_deciding_score(make_collection: Callable[..., Collection]) -> None:
    """Every score is read in that round, not each at its own maximum."""
    curve = {"global/rouge_l": [0.9, 0.2, 0.4, 0.3], "global/bleu_4": [0.9, 0.7, 0.5, 0.6]}
    collection = make_collection(METHODS, lambda s, number: {key: values[number] for key, values in curve.items()})
    for which, texts in {"last": ("0.300", "0.600"), "best": ("0.400", "0.500")}.items():
        cells = row(build_table(collection, which=which), "fedit")
        assert (cells["ROUGE-L ↑"].text[:5], cells["BLEU-4 ↑"].text[:5]) == texts
    by_bleu = RunConfig(num_rounds=3, eval=EvalConfig(score="bleu_4"))
    collection = make_collection(
        METHODS, lambda s, number: {key: values[number] for key, values in curve.items()}, config=by_bleu
    )
    table = build_table(collection, which="best")
    assert row(table, "fedit")["ROUGE-L ↑"].text.startswith("0.200")
    assert "best round by global/bleu_4" in table.caption


def test_rounds_without_evaluation_are_passed_over(make_collection: Callable[..., Collection]) -> None:
    collection = make_collection(METHODS, lambda s, number: {"global/rouge_l": 0.1 * number} if number % 2 == 0 else {})
    assert row(build_table(collection), "fedit")["ROUGE-L ↑"].text.startswith("0.200")


def test_a_run_that_is_not_done_is_marked_and_not_averaged(make_collection: Callable[..., Collection]) -> None:
    def scorer(s: Settings, number: int) -> dict[str, float] | None:
        late = (s["method"], s["seed"]) in {("ffa_lora", 2)} and number > 1
        return None if late else {"global/rouge_l": reached(s) * (1 + number)}

    def state(s: Settings) -> str:
        return "out_of_memory" if (s["method"], s["seed"]) == ("ffa_lora", 2) else "done"

    table = build_table(make_collection(METHODS, scorer, state=state))
    cell = row(table, "ffa_lora")["ROUGE-L ↑"]
    assert cell.text == f"{statistics.mean([1.2, 1.24]):.3f} ± {statistics.stdev([1.2, 1.24]):.3f}"
    assert cell.marks == ("a",)
    assert "a: 2 of 3 seeds; seed 2: out of memory, round 1 of 3" in table.notes
    assert "1 of 6 runs are not done: 1 out of memory." in table.notes
    assert not cell.best


def test_the_best_is_one_of_those_that_are_complete(make_collection: Callable[..., Collection]) -> None:
    """A run that is not done may be ahead for now, and takes no mark from those that are."""
    values = {"fedit": 0.2, "ffa_lora": 0.3, "full": 0.4}
    table = build_table(
        make_collection(
            [{"method": method} for method in values],
            lambda s, number: {"global/rouge_l": values[s["method"]]},
            state=lambda s: "killed" if s["method"] == "full" else "done",
        )
    )
    assert [row(table, method)["ROUGE-L ↑"].best for method in values] == [False, True, False]


def test_where_no_run_is_done_the_values_so_far_are_marked(make_collection: Callable[..., Collection]) -> None:
    table = build_table(
        make_collection(
            METHODS[:1] + METHODS[3:],
            lambda s, number: {"global/rouge_l": 0.9 if s["method"] == "fedit" else 0.1 * s["seed"]},
            state=lambda s: "running" if s["method"] == "fedit" else "done",
        )
    )
    cell = row(table, "fedit")["ROUGE-L ↑"]
    assert (cell.text, cell.marks, cell.best) == ("0.900", ("a",), False)
    assert "a: running, round 3 of 3" in table.notes


def test_the_untrained_model_is_no_result(make_collection: Callable[..., Collection]) -> None:
    collection = make_collection(METHODS, lambda s, number: {"global/rouge_l": 0.5} if number == 0 else None)
    assert row(build_table(collection), "fedit")["ROUGE-L ↑"].text == MISSING


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_value_that_is_no_number_is_missing_and_told(
    value: float | None, make_collection: Callable[..., Collection]
) -> None:
    collection = make_collection(
        METHODS[:2], lambda s, number: {"global/rouge_l": value if s["seed"] == 1 and number == 3 else 0.5}
    )
    table = build_table(collection)
    cell = table.cells[0][1]
    assert (cell.text, cell.marks) == ("0.500", ("a",))
    assert "a: 1 of 2 seeds; seed 1: not a finite number" in table.notes


def test_a_run_without_a_score_is_told(make_collection: Callable[..., Collection]) -> None:
    collection = make_collection(
        METHODS, lambda s, number: {"global/bleu_4": 0.5} | ({"global/rouge_l": 0.4} if s["method"] == "fedit" else {})
    )
    table = build_table(collection)
    assert row(table, "ffa_lora")["ROUGE-L ↑"] == Cell(MISSING, ("a",))
    assert "a: not in the record" in table.notes
    assert not row(table, "ffa_lora")["BLEU-4 ↑"].marks


def test_a_score_that_the_data_set_does_not_have_needs_no_word(make_collection: Callable[..., Collection]) -> None:
    cells = [{"method": "fedit", "data": data} for data in ("cola", "rte")]
    scores = {"cola": "mcc", "rte": "accuracy"}
    collection = make_collection(cells, lambda s, number: {f"global/{scores[s['data']]}": 0.5})
    entries = [
        replace(entry, config=RunConfig(num_rounds=3, data=DataConfig(scores=[scores[entry.settings["data"]]])))
        for entry in collection.entries
    ]
    table = build_table(replace(collection, entries=tuple(entries)))
    assert [[cell.text for cell in cells] for cells in table.cells] == [
        ["cola", "0.500", MISSING],
        ["rte", MISSING, "0.500"],
    ]
    assert not any(cell.marks for cells in table.cells for cell in cells)


def test_scores_of_mixed_protocols_are_warned_of(make_collection: Callable[..., Collection]) -> None:
    def scorer(s: Settings, number: int) -> dict[str, Any]:
        forced = s["method"] == "ffa_lora" and s["seed"] == 2
        return {"eval/protocol": "teacher_forced" if forced else "generate", "global/rouge_l": 0.4}

    table = build_table(make_collection(METHODS, scorer))
    assert "Warning: ROUGE-L mixes scores of generate and teacher_forced." in table.notes
    assert "a: answers by teacher_forced" in table.notes
    assert (row(table, "fedit")["ROUGE-L ↑"].marks, row(table, "ffa_lora")["ROUGE-L ↑"].marks) == ((), ("a",))


def test_the_global_set_goes_before_the_clients_own(make_collection: Callable[..., Collection]) -> None:
    def scorer(s: Settings, number: int) -> dict[str, float]:
        on_own = {"own/rouge_l": 0.7, "own/rouge_l_std": 0.1, "own/rouge_l_worst": 0.2}
        return on_own if s["method"] == "ffa_lora" else {**on_own, "global/rouge_l": 0.4, "global/rouge_l_std": 0.1}

    table = build_table(make_collection(METHODS, scorer))
    assert row(table, "fedit")["ROUGE-L ↑"].text.startswith("0.400")
    assert row(table, "ffa_lora")["ROUGE-L ↑"].text.startswith("0.700")
    notes = " ".join(table.notes)
    assert "means over clients on their own test rows" in notes
    assert "mean over the clients' models on the global test set" in notes


def test_an_unknown_score_is_one_line_with_the_nearest(make_collection: Callable[..., Collection]) -> None:
    collection = make_collection(METHODS, lambda s, number: {"global/rouge_l": 0.4, "global/loss": 2.0})
    with pytest.raises(UserError, match=r"--score=rouge_1 is in no record of mine; did you mean 'rouge_l'\?") as error:
        build_table(collection, ["rouge_1"])
    assert "\n" not in str(error.value)


def test_rows_are_grouped_by_what_is_compared(make_collection: Callable[..., Collection]) -> None:
    cells = [{"method": m, "num_clients": n} for m in ("fedit", "ffa_lora") for n in (3, 4)]
    table = build_table(make_collection(cells, lambda s, number: {"global/rouge_l": 0.1 * s["num_clients"]}))
    assert [tuple(c.text for c in cells[:2]) for cells in table.cells] == [
        ("3", "fedit"),
        ("3", "ffa_lora"),
        ("4", "fedit"),
        ("4", "ffa_lora"),
    ]
    assert (table.heads[:2], table.num_labels, table.breaks) == (("num_clients", "method"), 2, (2,))
    assert not any(cell.best for cells in table.cells for cell in cells)


# published ones beside ours


def percent(s: Settings, number: int) -> dict[str, float]:
    return dict.fromkeys(("global/mcc", "global/accuracy", "global/pearson"), 0.5)


def test_ours_are_in_the_papers_unit_and_the_mean_is_over_all_tasks(make_sweep: Callable[..., Collection]) -> None:
    picks = ["model=roberta-base", "local.epochs=3", "method.lora_rank=4", "method=[fedit, fedex_lora]"]

    def scorer(s: Settings, number: int) -> dict[str, float] | None:
        missing = s["method"] == "fedit" and s["data"] == "glue/rte"
        value = 0.5 + 0.01 * s["seed"] + 0.1 * (s["data"] == "glue/cola")
        return None if missing else dict.fromkeys(percent(s, number), value)

    table = build_table(make_sweep("fedex_glue", scorer, picks))
    ours, theirs = (row(table, "3", "RoBERTa-base", "4", "FedEx-LoRA", whose) for whose in ("ours", "published"))
    assert ours["CoLA MCC"].text == "61.00 ± 1.00"
    assert ours["mean"].text == f"{51 + 10 / 6:.2f} ± 1.00"
    assert (theirs["CoLA MCC"].text, theirs["mean"].text) == ("62.82", "84.39")
    ours, theirs = (row(table, "3", "RoBERTa-base", "4", "FedIT", whose) for whose in ("ours", "published"))
    assert (ours["RTE"].text, ours["mean"].text) == (MISSING, MISSING)
    assert (theirs["RTE"].text, theirs["mean"].text) == ("73.64", "83.42")
    assert "Ours are given in the paper's unit: times 100." in table.notes


def test_only_what_is_picked_is_shown(make_sweep: Callable[..., Collection]) -> None:
    picks = ["model=roberta-base", "local.epochs=3", "method=fedit", "data=[glue/cola, glue/rte]"]
    table = build_table(make_sweep("fedex_glue", percent, picks))
    assert table.heads[-4:] == ("CoLA MCC", "CoLA MCC, published", "RTE", "RTE, published")
    assert [[cell.text for cell in cells[:4]] for cells in table.cells] == [
        ["3", "RoBERTa-base", rank, "FedIT"] for rank in ("4", "1")
    ]


def test_doubts_stand_beside_the_numbers(make_sweep: Callable[..., Collection]) -> None:
    table = build_table(make_sweep("fedex_rank", percent))
    published = row(table, "FedIT", "published")
    assert (published["r = 1"].marks, published["r = 2"].marks) == (("‡",), ())
    assert any(note.startswith("‡: the value of 10 local epochs") for note in table.notes)


@pytest.mark.parametrize(("sweep", "which", "warned"), [("fedex_rank", "last", True), ("fedex_rank", "best", False)])
def test_another_round_than_the_papers_is_warned_of(
    sweep: str, which: str, warned: bool, make_sweep: Callable[..., Collection]
) -> None:
    notes = build_table(make_sweep(sweep, percent), which=which).notes
    assert any("published ones of the best" in note for note in notes) == warned


def test_another_protocol_than_the_papers_is_warned_of(make_sweep: Callable[..., Collection]) -> None:
    def scorer(s: Settings, number: int) -> dict[str, Any]:
        return {"eval/protocol": "generate", "global/rouge_l": 0.4, "global/bleu_4": 0.2}

    table = build_table(make_sweep("scl_table2", scorer))
    assert "Warning: ours are of generate, the published ones teacher_forced." in table.notes


def test_either_score_of_commonsense_is_shown(make_sweep: Callable[..., Collection]) -> None:
    tasks = ("boolq", "piqa", "siqa", "hellaswag", "winogrande", "arc_e", "arc_c", "obqa")
    config = RunConfig(data=DataConfig(scores=["accuracy", "exact_match"]))
    for score in ("exact_match", "accuracy"):
        collection = make_sweep(
            "fedex_commonsense", lambda s, number, of=score: {f"global/{of}/{t}": 0.5 for t in tasks}, config=config
        )
        assert {cell.text for cell in row(build_table(collection), "FedIT", "ours").values()} >= {"50.00 ± 0.00"}


def test_what_runs_differ_in_from_the_published_protocol_is_told(write_sweep: Callable[..., Collection]) -> None:
    picks = ["method=fedit", "method.lora_rank=[1, 2]", "seed=0"]
    table = build_table(write_sweep("fedex_rank", percent, picks, ["num_rounds=3", "local.lr=0.5"]))
    (warning,) = (note for note in table.notes if "differ from the protocol" in note)
    assert "num_rounds is 3, not 50" in warning
    assert "local.lr is 0.5, not 0.001" in warning
    assert "path" not in warning


def test_cells_that_the_paper_does_not_have_are_rows_too(make_sweep: Callable[..., Collection]) -> None:
    collection = make_sweep(
        "scl_table1", lambda s, number: {"global/f1_macro": 0.3}, ["num_clients=[3, 7]", "method=scl"]
    )
    table = build_table(collection)
    assert [[cell.text for cell in cells] for cells in table.cells] == [
        ["3", "SCL", "0.3000", "0.481"],
        ["7", "SCL", "0.3000", MISSING],
    ]


@given(st.sets(st.integers(0, 23)))
@settings(max_examples=12, deadline=None)
def test_a_published_number_never_stands_where_ours_should(
    make_sweep: Callable[..., Collection], present: set[int]
) -> None:
    """Ours are there exactly where a run is, and do not depend on what is published."""
    cells = [repr(entry.settings) for entry in make_sweep("scl_table2", lambda s, number: None).entries]

    def scorer(s: Settings, number: int) -> dict[str, float] | None:
        here = cells.index(repr(s)) in present
        return {"global/rouge_l": 0.77, "global/bleu_4": 0.66} if here else None

    collection = make_sweep("scl_table2", scorer)
    published = load_published("scl_table2")
    assert published is not None
    blank = replace(published, rows=tuple(replace(row, values=("0.99", None)) for row in published.rows))
    columns = []
    for numbers in (published, blank):
        layout = make_layout(collection, numbers, [])
        table = table_of(collection, layout, measure_all(layout, "last"), "last")
        ours = [i for i, head in enumerate(table.heads) if "published" not in head]
        columns.append([[cells[i].text for i in ours] for cells in table.cells])
        assert not any(cell.published for cells in table.cells for i, cell in enumerate(cells) if i in ours)
        assert not any(cell.best for cells in table.cells for cell in cells if cell.published)
    assert columns[0] == columns[1]
    assert sum(texts[-2:] == ["0.6600", "0.7700"] for texts in columns[0]) == len(present)
    assert sum(texts[-2:] == [MISSING, MISSING] for texts in columns[0]) == 24 - len(present)


@pytest.mark.parametrize("choose_on", ["validation", "test"])
def test_a_round_that_the_test_set_chose_is_marked(make_collection: Callable[..., Collection], choose_on: str) -> None:
    """With a validation set the test scores are those of the round it chose, never the best of their own."""
    curve = {"global/rouge_l": [0.1, 0.2, 0.6, 0.4], "validation/rouge_l": [0.1, 0.5, 0.3, 0.2]}

    def scorer(_: Settings, number: int) -> dict[str, float]:
        every = {key: values[number] for key, values in curve.items()}
        if choose_on == "validation" and number == 2:
            del every["global/rouge_l"]  # as eval.test=chosen leaves it out
        return every

    config = RunConfig(num_rounds=3, eval=EvalConfig(choose_on=choose_on))
    table = build_table(make_collection(METHODS, scorer, config=config), which="best")
    cell = row(table, "fedit")["ROUGE-L ↑"]
    legend = "†: chosen on the test set, which flatters"
    if choose_on == "test":
        assert (cell.text[:5], cell.marks, legend in table.notes) == ("0.600", ("†",), True)
        assert "best round by global/rouge_l" in table.caption
        assert "<sup>†</sup> |" in markdown(table)
    else:
        assert (cell.text[:5], cell.marks, legend in table.notes) == ("0.200", (), False)
        assert "best round by validation/rouge_l" in table.caption
    assert not row(build_table(make_collection(METHODS, scorer, config=config)), "fedit")["ROUGE-L ↑"].marks
