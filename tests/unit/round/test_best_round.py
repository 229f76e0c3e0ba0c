"""The best round is the earliest of the best; patience counts evaluations; a resumed run counts as it would have."""

import math
from typing import Any

import pytest

from fedlit.config import DataConfig, EvalConfig, RunConfig
from fedlit.errors import UserError
from fedlit.round.best_round import BestRound


def records(key: str, *values: float | None) -> list[dict[str, Any]]:
    return [{"round": number} | ({} if value is None else {key: value}) for number, value in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("key", "values", "number"),
    [
        ("global/loss", (3.0, 1.0, 2.0, 1.0), 2),
        ("global/f1_macro", (0.5, 0.7, 0.7, 0.1), 2),
        ("own/accuracy", (None, 0.2, None, 0.3), 4),
        ("global/accuracy/boolq", (0.2, 0.1), 1),
    ],
)
def test_the_best_is_the_earliest_of_the_best(key: str, values: tuple[float | None, ...], number: int) -> None:
    best = BestRound(keys=(key,))
    best.see(records(key, *values))
    assert (best.number, best.value) == (number, values[number - 1])


def test_patience_is_used_up_by_evaluations_alone() -> None:
    best = BestRound(keys=("global/loss",), patience=2)
    stalled = []
    for record in records("global/loss", 3.0, 2.0, None, 2.5, None, 2.0, 1.0):
        best.see([record])
        stalled.append(best.stalled)
    assert stalled == [False, False, False, False, False, True, False]
    never = BestRound(keys=("global/loss",))
    never.see(records("global/loss", *range(50)))
    assert not never.stalled


def test_the_untrained_model_does_not_count() -> None:
    best = BestRound(keys=("global/loss",), patience=1)
    best.see([{"round": 0, "global/loss": 1.0}])
    assert (best.number, best.stalled) == (None, False)
    best.see([{"round": 1, "global/loss": 2.0}])
    assert (best.number, best.stalled) == (1, False)


def test_the_score_is_the_data_set_s_own_unless_given() -> None:
    """That on the validation set comes first, unless the test set is asked for by name."""
    names = ("rouge_l", "bleu_4", "loss")
    on_test = tuple(f"global/{name}" for name in names)
    assert BestRound.of(RunConfig()).keys == (*(f"validation/{name}" for name in names), *on_test)
    assert BestRound.of(RunConfig(eval=EvalConfig(choose_on="test"))).keys == on_test
    regression = DataConfig(task="sequence_classification", regression=True)
    assert BestRound.of(RunConfig(data=regression, eval=EvalConfig(choose_on="test"))).keys[0] == "global/pearson"
    named, clients = DataConfig(task="image_classification", scores=["mcc", "accuracy"]), EvalConfig(on="clients")
    assert BestRound.of(RunConfig(data=named, eval=clients)).keys[0] == "validation/mcc"
    clients.choose_on = "test"
    assert BestRound.of(RunConfig(data=named, eval=clients)).keys[0] == "own/mcc"
    by_loss = BestRound.of(RunConfig(data=named, eval=EvalConfig(on="both", score="loss")))
    assert by_loss.keys == ("validation/loss", "global/loss")


def test_what_would_be_known_after_a_record_changes_nothing() -> None:
    best = BestRound(keys=("validation/loss",), patience=1)
    best.see(records("validation/loss", 3.0))
    after = best.after({"round": 2, "validation/loss": 2.0})
    assert (after.number, after.stalled, best.number, best.num_since) == (2, False, 1, 0)
    assert best.after({"round": 2, "validation/loss": 4.0}).stalled
    best.see([{"round": 2, "validation/loss": 4.0}])
    assert (best.number, best.num_since) == (1, 1)


def test_a_score_that_no_record_will_have_is_told_before_training() -> None:
    config = RunConfig(eval=EvalConfig(score="accuracy/nosuch", patience=2, protocol="options"))
    untrained = {"round": 0, "global/loss": 1.0, "global/accuracy": 0.5, "global/accuracy/boolq": 0.5, "time/x": 1.0}
    with pytest.raises(UserError, match=r"^eval.score=accuracy/nosuch .* one of loss, accuracy, accuracy/boolq, or"):
        BestRound.of(config).see([untrained])
    BestRound.of(config).see([{**untrained, "global/accuracy/nosuch": 0.5}])
    BestRound.of(config).see([untrained, {**untrained, "round": 1}])  # of a run that is there
    BestRound.of(RunConfig()).see([untrained])


def test_a_score_that_the_protocol_cannot_compute_leaves_it_to_the_next() -> None:
    best = BestRound.of(RunConfig(data=DataConfig(scores=["accuracy", "exact_match"])))
    best.see([{"round": 1, "global/exact_match": 0.5, "global/loss": 1.0}, {"round": 2, "global/exact_match": 0.75}])
    assert (best.number, best.value) == (2, 0.75)


def test_what_is_no_number_is_an_evaluation_and_never_the_best() -> None:
    best = BestRound(keys=("global/loss",), patience=3)
    best.see(records("global/loss", math.nan, math.nan))
    assert (best.number, best.num_since) == (None, 2)
    best.see([{"round": 3, "global/loss": 2.0}])
    assert (best.number, best.num_since) == (3, 0)
    best.see([{"round": 4, "global/loss": -math.inf}])
    assert (best.number, best.value, best.num_since) == (3, 2.0, 1)


def test_one_score_decides_on_all_rounds() -> None:
    best = BestRound(keys=("global/bleu", "global/loss"))
    best.see([{"round": 1, "global/bleu": 0.5, "global/loss": 9.0}, {"round": 2, "global/loss": 8.0}])
    assert (best.number, best.num_since) == (1, 0)
