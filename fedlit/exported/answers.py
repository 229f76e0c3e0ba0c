"""What a run's model answers to one row that a person types, as its evaluation would have answered.

Every task has a kind of answer: a text that follows the prompt, a class with its probability, a number. What somebody
said before is no part of a row; of a run on conversations it is, which `Conversation` remembers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedlit.config import RunConfig
from fedlit.data.chat import Message
from fedlit.data.images import ImageFile
from fedlit.exported.columns import asked_columns, is_conversation
from fedlit.exported.found import Result
from fedlit.exported.loading import load_model
from fedlit.models import Backbone
from fedlit.store.folder import with_own_template
from fedlit.tasks import Task, task_class
from fedlit.tasks.registry import task_spec


@dataclass(frozen=True, kw_only=True)
class Answer:
    """text: what the model says. notice: a line that a person should read about it; empty for none."""

    text: str
    notice: str = ""


class Answers(ABC):
    """A model that answers."""

    @abstractmethod
    def answer(self, row: Mapping[str, str]) -> Answer:
        """Return the answer to a row that has all of `asked_columns`.

        Raises:
            UserError: what is wrong with the row; another one may do.
        """

    def obeyed(self, row: Mapping[str, str]) -> str | None:
        """Return what was done on a row that is an order, such as to begin anew; None if it asks something."""
        return None


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A model ready to answer: the task around it, its device and the precision of its run."""

    config: RunConfig
    backbone: Backbone
    task: Any
    device: torch.device

    @property
    def model(self) -> nn.Module:
        return self.backbone.model

    def autocast(self) -> AbstractContextManager[None]:
        """Compute as the run did."""
        mixed = self.config.compute.precision == "bf16-mixed"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed)


class Completions(Answers):
    """Texts that follow a prompt by the run's template, decoded and ended as in the run's evaluation."""

    def __init__(self, model: _Model) -> None:
        self._model = model

    def answer(self, row: Mapping[str, str]) -> Answer:
        """Return the continuation; an example of one row, as the evaluation made it."""
        return self._continued(row, "the prompt")

    def _continued(self, row: Mapping[str, Any], what: str) -> Answer:
        task = self._model.task
        example = task.asked_example(row)
        self._model.backbone.require_readable([example.prompt])
        with self._model.autocast():
            [text] = task.responses(self._model.model, [example], self._model.device)
        cut = f"{what} was longer than {task.longest_test_prompt} tokens; its start was cut off"
        return Answer(text=text, notice=cut if example.truncated else "")


class Conversation(Completions):
    """A conversation by the chat template that the model was trained with: every answer knows what was said before.

    `/new` begins a new one, `/system TEXT` too, with a system turn that stays until the next.
    """

    def __init__(self, model: _Model) -> None:
        super().__init__(model)
        self._system: list[Message] = []
        self._said: list[Message] = []

    def obeyed(self, row: Mapping[str, str]) -> str | None:
        """Begin anew if the row says so."""
        word, _, rest = row["message"].strip().partition(" ")
        if word == "/system":
            self._system = [{"role": "system", "content": rest.strip()}] if rest.strip() else []
        elif word != "/new" or rest.strip():
            return None
        self._said = []
        return "a new conversation" + (f"; system: {self._system[0]['content']}" if self._system else "")

    def answer(self, row: Mapping[str, str]) -> Answer:
        """Return the answer to what is said; a turn that fails is forgotten."""
        said: list[Message] = [*self._said, {"role": "user", "content": row["message"]}]
        answer = self._continued({"message": [*self._system, *said]}, "the conversation")
        self._said = [*said, {"role": "assistant", "content": answer.text}]
        return answer


class Classes(Answers):
    """The class of a text or an image with its probability, or the number of a regression."""

    def __init__(self, model: _Model, read: Callable[[str], Any]) -> None:
        self._model = model
        self._read = read

    def answer(self, row: Mapping[str, str]) -> Answer:
        """Return `class (probability)`, or the number."""
        task, data = self._model.task, self._model.config.data
        target = 0.0 if data.regression else task.classes[0]  # an example has one, and nobody looks at it here
        cells = {column: self._read(row[column]) for column in row}
        if task_spec(data.task).reads_text:
            self._model.backbone.require_readable(row.values())
        example = task.encode([{**cells, data.target: target}])[0]
        outputs = self._outputs(task.collate([example]).to(self._model.device))
        if data.regression:
            return Answer(text=f"{float(outputs):.4g}")
        probabilities = outputs.softmax(-1)
        chosen = int(probabilities.argmax())
        notice = "the text was longer than the model reads; its end was cut off" if example.truncated else ""
        return Answer(text=f"{task.classes[chosen]} ({float(probabilities[chosen]):.3f})", notice=notice)

    @torch.no_grad()
    def _outputs(self, batch: Any) -> Tensor:
        inputs = batch.inputs if hasattr(batch, "inputs") else {"pixel_values": batch.pixel_values}
        with self._model.autocast():
            outputs: Tensor = self._model.model(**inputs).logits
        return outputs.float().squeeze(0).squeeze(-1)


def load_answers(result: Result, *, max_new_tokens: int | None = None) -> Answers:
    """Return the model of a run's result, ready to answer.

    Args:
        result: of a run.
        max_new_tokens: longest answer; None for that of the run's evaluation.

    Raises:
        UserError: the model cannot be loaded, or nothing is known of how its task is asked.
    """
    config = _asking(with_own_template(result.config, result.run), max_new_tokens)
    asked_columns(config)
    torch.set_num_threads(config.compute.threads)  # it changes the bits of a matrix product
    backbone = load_model(result)
    on_gpu = config.compute.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    backbone.model.to(device).eval()
    task: Task[Any, Any] = task_class(task_spec(config.data.task)).build(config, backbone)
    maker = Conversation if is_conversation(config) else _MAKERS[config.data.task]
    return maker(_Model(config=config, backbone=backbone, task=task, device=device))


def _image(path: str) -> ImageFile:
    return ImageFile(path.strip())


_MAKERS: Mapping[str, Callable[[_Model], Answers]] = {
    "causal_lm": Completions,
    "sequence_classification": partial(Classes, read=str),
    "image_classification": partial(Classes, read=_image),
}
"""What makes the answers of a task."""


def _asking(config: RunConfig, max_new_tokens: int | None) -> RunConfig:
    """Return the configuration of a run whose model is asked: it generates, and nothing is scored."""
    longest = config.eval.max_new_tokens if max_new_tokens is None else max_new_tokens
    evaluation = replace(config.eval, protocol="generate", max_new_tokens=longest)
    return replace(config, eval=evaluation, data=replace(config.data, scores=None))
