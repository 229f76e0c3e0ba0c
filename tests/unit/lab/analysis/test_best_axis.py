"""The best value of an axis is chosen on validation, over seeds, and its runs are read in the round of the choice."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic_runs import entry

from fedlit.config import load_config
from fedlit.errors import UserError
from fedlit.lab.analysis.best_axis import at_best, best_over, chosen_score
from fedlit.lab.analysis.collection import Collection, Entry, varied_keys

BASE = load_config(["data=medquad"])


def run(
    settings: Mapping[str, Any], validation: Sequence[float], test: Sequence[float] = (), state: str = "done"
) -> Entry:
    """Return a run with a score on the validation set and one on the test set in each round from 1."""
    made = entry(Path("runs"), settings, BASE, num_rounds=len(validation) or 1, state=state)
    test = test or [0.5] * len(validation)
    scores = [
        {"validation/rouge_l": chosen, "global/rouge_l": shown} for chosen, shown in zip(validation, test, strict=True)
    ]
    if made.config is None:
        return made
    return replace(made, records=tuple({"round": i, **score} for i, score in enumerate([{}, *scores])))


def sweep(scores: Mapping[tuple[str, float, int], Sequence[float]]) -> list[Entry]:
    return [
        run({"method": method, "local.lr": lr, "seed": seed}, found) for (method, lr, seed), found in scores.items()
    ]


def test_the_value_is_chosen_on_validation_and_the_test_score_is_of_the_same_round() -> None:
    runs = [
        run({"local.lr": 0.1, "seed": 0}, [0.3, 0.6, 0.2], [0.9, 0.1, 0.9]),
        run({"local.lr": 0.2, "seed": 0}, [0.5, 0.5, 0.5], [0.8, 0.8, 0.8]),
    ]
    (best,) = best_over(runs, "local.lr")
    assert (best.value, best.score, best.key, best.chosen_on) == (0.1, 0.6, "validation/rouge_l", "validation")
    assert best.rounds == {0: 2}
    (last,) = best_over(runs, "local.lr", "last")
    assert (last.value, last.rounds) == (0.2, {0: 3})


def test_seeds_are_averaged_before_values_are_compared() -> None:
    runs = sweep({("a", 0.1, 0): [0.9], ("a", 0.1, 1): [0.1], ("a", 0.2, 0): [0.6], ("a", 0.2, 1): [0.6]})
    (best,) = best_over(runs, "local.lr")
    assert (best.value, best.score, best.rounds) == (0.2, 0.6, {0: 1, 1: 1})
    assert [entry.settings["seed"] for entry in best.entries] == [0, 1]


def test_of_equals_the_first_of_the_axis_counts_whatever_the_order_of_the_cells() -> None:
    runs = sweep({("a", 0.2, 0): [0.5], ("a", 0.1, 0): [0.5], ("b", 0.1, 0): [0.5], ("b", 0.2, 0): [0.5]})
    assert [best.value for best in best_over(runs, "local.lr")] == [0.2, 0.2]


def test_a_loss_is_the_better_the_lower() -> None:
    runs = [
        replace(entry(Path("runs"), {"local.lr": lr, "seed": 0}, BASE), records=({"round": 1, "global/loss": loss},))
        for lr, loss in ((0.1, 2.0), (0.2, 1.0))
    ]
    (best,) = best_over(runs, "local.lr")
    assert (best.value, best.key, best.chosen_on) == (0.2, "global/loss", "test")


def test_only_values_with_all_seeds_take_part_and_the_others_are_told() -> None:
    runs = sweep({("a", 0.1, 0): [0.5], ("a", 0.1, 1): [0.5], ("a", 0.2, 0): [0.9], ("a", 0.2, 1): [0.9]})
    runs[3] = replace(runs[3], status=replace(runs[3].status, state="diverged"))
    (best,) = best_over(runs, "local.lr")
    assert (best.value, best.remark) == (0.1, "lr 0.2: seed 1 diverged")
    assert [candidate.score for candidate in best.candidates] == [0.5, None]
    (alone,) = best_over([runs[0], *runs[2:]], "local.lr")
    assert (alone.value, alone.values) == (None, {}), "seed 1 of 0.1 has no run, that of 0.2 diverged"
    assert alone.remark == "lr 0.1: seed 1 no run; lr 0.2: seed 1 diverged"


@pytest.mark.parametrize("state", ["stale", "pending", "failed", "running", "unknown"])
def test_no_run_that_is_not_done_decides(state: str) -> None:
    runs = sweep({("a", 0.1, 0): [0.5], ("a", 0.2, 0): [0.9]})
    runs[1] = replace(runs[1], status=replace(runs[1].status, state=state))
    (best,) = best_over(runs, "local.lr")
    assert (best.value, best.remark) == (0.1, f"lr 0.2: {state}")


def test_what_is_no_number_decides_nothing() -> None:
    runs = sweep({("a", 0.1, 0): [0.5], ("a", 0.2, 0): [float("nan")]})
    (best,) = best_over(runs, "local.lr")
    assert (best.value, best.remark) == (0.1, "lr 0.2: no validation/rouge_l")


def test_choosing_on_the_test_set_is_marked() -> None:
    on_test = replace(BASE, eval=replace(BASE.eval, choose_on="test"))
    runs = [
        replace(run({"local.lr": lr, "seed": 0}, [1 - score], [score]), config=on_test)
        for lr, score in ((0.1, 0.4), (0.2, 0.6))
    ]
    collection = Collection(name="x", folder=Path("runs"), entries=tuple(runs), varied=varied_keys(runs))
    shown, (best,) = at_best(collection, ["local.lr"])
    assert (best.value, best.chosen_on, best.key) == (0.2, "test", "global/rouge_l")
    assert [(each.chosen, each.chosen_note) for each in shown.entries] == [({"local.lr": 0.2}, "on the test set")]
    assert any("flatters" in note for note in shown.notes)


def test_a_collection_at_the_best_has_one_row_for_each_group() -> None:
    runs = sweep({(m, lr, s): [0.5 + lr if m == "a" else 0.5 - lr] for m in "ab" for lr in (0.1, 0.2) for s in (0, 1)})
    collection = Collection(name="x", folder=Path("runs"), entries=tuple(runs), varied=varied_keys(runs))
    shown, found = at_best(collection, ["local.lr"])
    assert [best.value for best in found] == [0.2, 0.1]
    assert shown.varied == ("method",)
    assert [(e.settings, e.chosen["local.lr"]) for e in shown.entries] == [
        ({"method": method, "seed": seed}, lr) for method, lr in (("a", 0.2), ("b", 0.1)) for seed in (0, 1)
    ]
    assert shown.notes == ("local.lr: the best of each row by validation/rouge_l, mean over 2 seeds",)


def test_a_group_without_a_choice_is_there_without_numbers() -> None:
    runs = sweep({("a", 0.1, 0): [0.5], ("a", 0.2, 0): [0.6], ("b", 0.1, 0): [0.5], ("b", 0.2, 0): [0.6]})
    runs[2:] = [replace(each, status=replace(each.status, state="failed")) for each in runs[2:]]
    collection = Collection(name="x", folder=Path("runs"), entries=tuple(runs), varied=varied_keys(runs))
    shown, _ = at_best(collection, ["local.lr"])
    assert [(e.settings["method"], bool(e.records)) for e in shown.entries] == [("a", True), ("b", False)]
    assert "local.lr, method b: nothing is chosen (lr 0.1: failed; lr 0.2: failed)" in shown.notes


def test_of_several_axes_a_combination_is_chosen() -> None:
    runs = [
        run({"local.lr": lr, "local.steps": steps, "seed": 0}, [score])
        for lr, steps, score in ((0.1, 1, 0.1), (0.1, 2, 0.4), (0.2, 1, 0.5), (0.2, 2, 0.3))
    ]
    (best,) = best_over(runs, ["local.lr", "local.steps"])
    assert best.values == {"local.lr": 0.2, "local.steps": 1}


@pytest.mark.parametrize(
    ("axis", "told"),
    [("local.lrr", "did you mean 'local.lr'?"), ("seed", "mean over seeds"), ("data", "Keys that vary")],
)
def test_an_axis_that_does_not_vary_is_one_line(axis: str, told: str) -> None:
    runs = sweep({("a", 0.1, 0): [0.5], ("a", 0.2, 0): [0.6]})
    with pytest.raises(UserError, match=r"^[^\n]{1,400}$") as raised:
        best_over(runs, axis)
    assert told in str(raised.value)


def test_a_score_is_that_of_the_last_round_that_was_scored() -> None:
    found = run({"local.lr": 0.1, "seed": 0}, [0.3, 0.6, 0.4])
    found = replace(found, records=(*found.records, {"round": 4}))
    assert chosen_score(found, "validation/rouge_l", "last") == (3, 0.4)
    assert chosen_score(found, "validation/rouge_l") == (2, 0.6)
    assert chosen_score(found, "validation/loss") is None


def test_a_cell_without_a_run_leaves_the_others_their_choice_where_no_seed_is_named() -> None:
    named = [run({"method": "fedit", "local.lr": lr, "seed": 0}, [0.1, lr]) for lr in (0.1, 0.2, 0.3)]
    named[2] = replace(named[2], status=replace(named[2].status, state="pending"), config=None, records=())
    entries = [replace(entry, settings={"method": "fedit", "local.lr": entry.settings["local.lr"]}) for entry in named]
    (best,) = best_over(entries, "local.lr")
    assert best.value is not None
    assert best.remark.endswith("pending")
    assert "no run" not in best.remark
