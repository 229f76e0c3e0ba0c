"""What tables call the scores of a record, and which way is better."""

from fedlit.config import DataConfig
from fedlit.scores import DEFAULT_SCORES, SCORES, TASK_SCORES, chosen_scores, headings, is_lower_better


def test_every_named_score_is_known() -> None:
    for table in (TASK_SCORES, DEFAULT_SCORES):
        for task, names in table.items():
            assert set(names) <= set(SCORES), task
            assert set(names) <= set(TASK_SCORES[task])


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
