"""Which scores each protocol of evaluation computes, and the metrics behind their names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torchmetrics import Metric

from fedlit.config import DataConfig
from fedlit.data.collation import Example
from fedlit.errors import UserError
from fedlit.metrics.answers import Accuracy, ExactMatch
from fedlit.metrics.data_to_text import Bleu, Cider, Meteor, Nist
from fedlit.metrics.meteor_15 import Meteor15
from fedlit.metrics.text import Bleu4, RougeL
from fedlit.registry import registered
from fedlit.tasks.outside_scores import outside_metrics
from fedlit.tasks.registry import task_spec

TEXT_SCORES: Mapping[str, Callable[[], Metric]] = {
    "rouge_l": RougeL,
    "bleu_4": Bleu4,
    "bleu": Bleu,
    "nist": Nist,
    "meteor": Meteor,
    "meteor_15": Meteor15,
    "cider": Cider,
}
"""Scores of a text against references, by name in the record."""

FORCED_SCORES: Mapping[str, str] = {f"{name}_forced": name for name in ("rouge_l", "bleu_4")}
"""Those of `teacher_forced` that a run of `generate` may have beside its own, and whose figures they are: the argmax
comes from the pass that measures the loss."""

PROTOCOL_SCORES: Mapping[str, tuple[str, ...]] = {
    "generate": (*TEXT_SCORES, *FORCED_SCORES, "exact_match"),
    "teacher_forced": tuple(TEXT_SCORES),
    "options": ("accuracy",),
    "loss": (),
}
"""What a protocol computes: nothing is generated under `options`, and the argmax of `teacher_forced` has seen the
reference, so that it is no answer. Under `loss`, that of plain text, nothing is compared."""


def computed_scores(data: DataConfig, protocol: str) -> tuple[str, ...]:
    """Return the scores of `data.scores` that a protocol computes, in their order; of a data set that names none, the
    task's own, or accuracy under `options`.

    Raises:
        UserError: none of them can be computed, or exact_match lacks `data.answer`.
    """
    possible = PROTOCOL_SCORES[protocol]
    if not possible:
        return ()
    if protocol != "options":
        possible += tuple(name for name in data.scores or () if name in registered("score"))
    if data.scores is None:
        return tuple(name for name in task_spec(data.task).default_scores if name in possible) or possible
    names = tuple(name for name in data.scores if name in possible)
    if not names:
        raise UserError(
            f"data.scores=[{', '.join(data.scores)}] holds nothing that eval.protocol={protocol} computes; "
            f"it computes {', '.join(possible)}"
        )
    if "exact_match" in names and data.answer is None:
        raise UserError("data.scores has exact_match but data.answer=null; give text, number, boxed or option")
    return names


def make_metric(name: str, data: DataConfig) -> Metric:
    """Return a fresh metric by the name of its score."""
    if name in registered("score"):
        return outside_metrics(data)[name]
    if name == "exact_match":
        assert data.answer is not None
        return ExactMatch(data.answer)
    return Accuracy() if name == "accuracy" else TEXT_SCORES[FORCED_SCORES.get(name, name)]()


def signatures(data: DataConfig, protocol: str) -> dict[str, str]:
    """Return what the figures of each score of text depend on, such as its tokens, by key of the first record."""
    compare_texts = {*TEXT_SCORES, *FORCED_SCORES}
    made = {name: make_metric(name, data) for name in computed_scores(data, protocol) if name in compare_texts}
    return {f"eval/signature/{name}": str(metric.signature) for name, metric in made.items()}


def score_settings(data: DataConfig, protocol: str) -> dict[str, Any]:
    """Return for each score, as `metrics/<score>`, the settings of its own, its signature among them."""
    told: dict[str, Any] = {}
    for name in computed_scores(data, protocol):
        settings: dict[str, Any] = {}
        if name in registered("score"):
            settings["options"] = data.score_options
        elif name in TEXT_SCORES:
            settings["signature"] = str(make_metric(name, data).signature)
        else:
            settings["options"] = data.options
            settings["answer"] = data.answer if name == "exact_match" else None
        told[f"metrics/{name}"] = settings
    return told


def update_texts(
    metrics: Mapping[str, Metric],
    examples: Sequence[Example],
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
) -> None:
    """Add the predictions of n examples to those metrics that compare texts."""
    for name, metric in metrics.items():
        if name in TEXT_SCORES or name in registered("score"):
            metric.update(predictions, references)
        elif name == "exact_match":
            groups = [example.group for example in examples]
            metric.update(predictions, references, groups, [example.options for example in examples])


def forced_metrics(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """Return those of FORCED_SCORES, by the name of the score whose figures they are."""
    return {FORCED_SCORES[name]: metric for name, metric in metrics.items() if name in FORCED_SCORES}
