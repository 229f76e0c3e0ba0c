"""Which examples are called what, which answers are kept, and that no number of processes changes either."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torchmetrics import MeanMetric, Metric

from fedlit.config import LoggingConfig, PartitionConfig, RunConfig, RunFolderConfig
from fedlit.metrics.exact import FixedPointMean
from fedlit.metrics.text import RougeL
from fedlit.process import communication
from fedlit.round.examples import Kept, KeptExamples, example_names, kept_examples
from fedlit.tasks import Sample

NUM = 20


class Example:
    """Something that is only known by being itself."""

    def __init__(self, text: str) -> None:
        self.text = text


EXAMPLES = [Example(f"question {number}") for number in range(NUM)]


def kept(num_samples: int = 4, seed: int = 0) -> KeptExamples:
    found = KeptExamples(num_samples=num_samples, with_scores=True, seed=seed)
    found.know(EXAMPLES, EXAMPLES, lambda example: example.text)
    return found


def evaluate(found: KeptExamples, batch: Sequence[Example], client: int | None = None, which: str = "global") -> None:
    metrics: dict[str, Metric] = {"loss": FixedPointMean(), "rouge_l": RougeL()}
    keep = found.begin(which, client, metrics)
    metrics["loss"].update(torch.tensor([float(len(each.text)) for each in batch]), torch.arange(len(batch)) + 1)
    metrics["rouge_l"].update([each.text for each in batch], [f"{each.text} and more" for each in batch])
    keep(batch, [Sample(prompt=each.text, reference="", prediction=f"of {client}") for each in batch])


def gathered(parts: list[KeptExamples], monkeypatch: pytest.MonkeyPatch) -> Kept:
    """Return what processes with these parts give to the first."""
    mine: list[Any] = []
    monkeypatch.setattr(communication, "gather_objects", lambda value: [*mine, value])
    for part in parts[:-1]:
        monkeypatch.setattr(communication, "gather_objects", lambda value: mine.append(value) or [value])
        part.gathered()
    monkeypatch.setattr(communication, "gather_objects", lambda value: [*mine, value])
    found = parts[-1].gathered()
    assert found is not None
    return found


@pytest.mark.parametrize("num_processes", [2, 3, 7])
def test_processes_in_any_number_keep_the_same(num_processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [EXAMPLES[start : start + 3] for start in range(0, NUM, 3)]
    alone = kept()
    for batch in batches:
        evaluate(alone, batch)
    parts = [kept() for _ in range(num_processes)]
    for index, part in enumerate(parts):
        for batch in batches[index::num_processes][::-1]:
            evaluate(part, batch)
    one, many = gathered([alone], monkeypatch), gathered(parts, monkeypatch)
    assert one == many
    assert one.scores["position"] == list(range(NUM)) and len(one.samples) == 4
    monkeypatch.undo()
    assert alone.gathered() is None  # nothing is told twice


def test_of_several_models_one_answers_each_example_the_same_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    def round_of(*dealt: Sequence[int]) -> Kept:
        parts = [kept() for _ in dealt]
        for part, clients in zip(parts, dealt, strict=True):
            for client in clients:
                evaluate(part, EXAMPLES, client)
        return gathered(parts, monkeypatch)

    one, two = round_of(range(6)), round_of([5, 1, 3], [0, 2, 4])
    assert one == two and len(one.samples) == 4 and len({line["example"] for line in one.samples}) == 4
    assert len({line["client"] for line in one.samples}) > 1
    assert len(one.scores["client"]) == 6 * NUM
    shared = kept()
    evaluate(shared, EXAMPLES)
    of_shared = gathered([shared], monkeypatch)
    assert {line["example"] for line in of_shared.samples} == {line["example"] for line in one.samples}


def test_a_smaller_set_keeps_what_it_can_of_the_larger_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = kept()
    evaluate(whole, EXAMPLES)
    names = {line["example"] for line in gathered([whole], monkeypatch).samples}
    part = KeptExamples(num_samples=4, with_scores=True, seed=0)
    part.know(EXAMPLES, EXAMPLES[::2], lambda example: example.text)
    evaluate(part, EXAMPLES[::2])
    found = gathered([part], monkeypatch)
    own = {name: place for place, name in enumerate(example_names([each.text for each in EXAMPLES]))}
    assert {name for name in names if own[name] % 2 == 0} <= {line["example"] for line in found.samples}
    assert found.scores["position"] == list(range(0, NUM, 2))  # of the whole set
    turned = KeptExamples(num_samples=4, with_scores=True, seed=0)
    turned.know(EXAMPLES[::-1], EXAMPLES[::-1], lambda example: example.text)
    evaluate(turned, EXAMPLES)
    assert {line["example"] for line in gathered([turned], monkeypatch).samples} == names  # wherever they stand
    other = kept(seed=1)
    evaluate(other, EXAMPLES)
    assert {line["example"] for line in gathered([other], monkeypatch).samples} != names


def test_equal_examples_have_names_of_their_own_and_others_theirs_wherever_they_stand() -> None:
    names = example_names(["a", "b", "a", None, None])
    assert len({*names}) == 5
    assert example_names(["b", "a", "a"]) == [names[1], names[0], names[2]]
    assert example_names(["x", "x", "x", None])[3] == names[3]


def test_the_values_are_those_that_were_added_up() -> None:
    found = kept()
    evaluate(found, EXAMPLES)
    scores = found.gathered()
    assert scores is not None
    mean = RougeL()
    mean.update([each.text for each in EXAMPLES], [f"{each.text} and more" for each in EXAMPLES])
    assert sum(scores.scores["rouge_l"]) / NUM == float(mean.compute())
    assert scores.scores["loss_count"] == list(range(1, NUM + 1))


def test_a_metric_from_outside_that_tells_nothing_is_left_alone() -> None:
    class Own(MeanMetric):
        notes = "what somebody else calls so"

    found, metric = kept(), Own()
    keep = found.begin("global", None, {"own": metric, "plain": MeanMetric()})
    keep(EXAMPLES, [Sample(prompt="", reference="", prediction="") for _ in EXAMPLES])
    assert metric.notes == "what somebody else calls so"
    scores = found.gathered()
    assert scores is not None and "own" not in scores.scores and len(scores.scores["example"]) == NUM


def test_a_task_that_answers_otherwise_is_left_out() -> None:
    found = kept()
    keep = found.begin("global", None, {})
    keep(EXAMPLES, [Sample(prompt="", reference="", prediction="")])
    keep([Example("new")], [Sample(prompt="", reference="", prediction="")])
    assert found.gathered() is None


def test_a_column_that_is_not_of_each_example_is_left_out() -> None:
    found, metric = kept(), FixedPointMean()
    keep = found.begin("global", None, {"loss": metric})
    metric.update(torch.ones(1), torch.tensor([NUM]))
    keep(EXAMPLES, [Sample(prompt="", reference="", prediction="") for _ in EXAMPLES])
    scores = found.gathered()
    assert scores is not None and not [name for name in scores.scores if name.startswith("loss")]


def test_who_asks_for_nothing_gets_nothing() -> None:
    nothing = RunConfig(run=RunFolderConfig(example_scores=False), logging=LoggingConfig(samples_kept=0))
    assert kept_examples(nothing) is None
    drawn = kept_examples(RunConfig(seed=3, partition=PartitionConfig(seed=5)))
    assert drawn is not None and drawn.seed == 5
