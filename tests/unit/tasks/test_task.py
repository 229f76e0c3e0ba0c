"""Half a task fails when it is built, not in its first round."""

from collections.abc import Callable

import pytest

from fedlit.tasks import Task
from fedlit.tasks.causal_lm.task import CausalLM
from fedlit.tasks.image_classification.task import ImageClassification
from fedlit.tasks.sequence_classification.task import SequenceClassification


@pytest.mark.parametrize("task", [CausalLM, SequenceClassification, ImageClassification])
def test_a_task_is_one(task: type) -> None:
    assert issubclass(task, Task)
    assert not getattr(task, "__abstractmethods__", None)


WHOLE = {"build", "encode", "evaluation_examples", "collate", "loss", "evaluation_batches", "metrics", "evaluate"}


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_half_a_task_is_none(name: str) -> None:
    def answer(self: object) -> None: ...

    def half(names: set[str]) -> Callable[[], object]:
        return type("Half", (Task,), dict.fromkeys(names, answer))

    half(WHOLE)()
    with pytest.raises(TypeError, match=rf"abstract method '?{name}'?"):
        half(WHOLE - {name})()
