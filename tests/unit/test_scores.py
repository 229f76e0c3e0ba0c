"""What tables call the scores of a record, and which way is better."""

import math
from typing import Any

import pytest

from fedlit.config import DataConfig, EvalConfig
from fedlit.scores import (
    SCORES,
    best_round,
    chosen_scores,
    goodness,
    headings,
    is_lower_better,
    main_key,
    main_keys,
)
from fedlit.tasks.registry import task_names, task_spec


def test_every_named_score_is_known() -> None:
    for spec in map(task_spec, task_names()):
        assert set(spec.scores) <= set(SCORES), spec.name
        assert {*spec.default_scores, *spec.number_scores} <= set(spec.scores)


def test_headings_are_of_the_server_s_scores_alone_and_in_order() -> None:
    keys = ["client/0/loss", "global/accuracy/boolq", "global/accuracy", "global/loss", "time/evaluate_s", "round"]
    keys += [
        "global/accuracy_macro",
        "own/accuracy",
        "own/accuracy_worst",
        "own/accuracy_std",
        "own/accuracy/boolq_std",
    ]
    assert headings([*keys, "global/confusion_matrix", "global/f1", "global/f1_macro"]) == {
        "global/loss": "loss",
        "global/accuracy": "accuracy",
        "global/accuracy_macro": "accuracy, mean of groups",
        "global/accuracy/boolq": "accuracy boolq",
        "global/f1_macro": "macro F1",
        "global/f1": "F1",
        "own/accuracy": "own accuracy",
        "own/accuracy_worst": "worst accuracy",
    }


def test_only_a_loss_is_better_when_lower() -> None:
    assert is_lower_better("global/loss")
    assert is_lower_better("loss")
    assert is_lower_better("own/loss_worst")
    assert not any(is_lower_better(key) for key in ("global/accuracy/loss_of_words", "own/f1_macro", "unheard_of"))


def test_the_main_score_comes_first() -> None:
    assert chosen_scores(DataConfig(scores=["nist", "bleu"])) == ("nist", "bleu")
    assert chosen_scores(DataConfig(task="image_classification"))[0] == "f1_macro"
    regression = DataConfig(task="sequence_classification", regression=True)
    assert chosen_scores(regression) == ("pearson", "spearman")


@pytest.mark.parametrize(
    ("key", "values", "best"),
    [
        ("global/loss", {0: 0.0, 1: 3.0, 2: 1.0, 3: 2.0, 4: 1.0}, 2),
        ("global/f1_macro", {4: 0.7, 2: 0.7, 1: 0.5}, 2),
        ("own/loss_worst", {1: math.nan, 2: 3.0, 3: math.nan, 4: math.inf, 5: -math.inf}, 2),
        ("global/accuracy", {1: math.nan, 2: None, 3: "0.9", 4: True, 5: math.inf, 6: -0.5}, 6),
        ("global/accuracy", {0: 1.0}, None),
        ("global/accuracy", {1: math.nan}, None),
        ("global/accuracy", {}, None),
    ],
)
def test_the_best_round_is_the_earliest_of_the_best(key: str, values: dict[int, Any], best: int | None) -> None:
    assert best_round(key, values) == best


def test_what_is_no_number_is_below_all_that_are() -> None:
    assert goodness("global/loss", 2.0) > goodness("global/loss", 3.0) > goodness("global/loss", math.nan)
    assert goodness("global/bleu", 3.0) > goodness("global/bleu", 2.0) > goodness("global/bleu", math.inf)


def test_the_score_that_counts() -> None:
    data = DataConfig(scores=["nist", "bleu"])
    keys = main_keys(data, EvalConfig())
    assert keys == ("global/nist", "global/bleu", "global/loss")
    assert main_keys(data, EvalConfig(on="clients", score="meteor")) == ("own/meteor",)
    assert main_key(data, EvalConfig(), {"global/loss", "global/bleu"}) == "global/bleu"
    assert main_key(data, EvalConfig(), {"own/nist"}) is None
