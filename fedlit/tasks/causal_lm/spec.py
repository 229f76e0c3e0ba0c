"""The rows of causal language modelling: prompt and response, a conversation, or plain text (`forms.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedlit.data.prompts import Row
from fedlit.tasks.causal_lm.forms import form_named, form_of
from fedlit.tasks.spec import TaskSpec
from fedlit.words import blind_spots

if TYPE_CHECKING:
    from fedlit.config.schema import DataConfig


@dataclass(frozen=True, kw_only=True)
class CausalLMSpec(TaskSpec):
    """A response follows its prompt or what was said before; a plain text is learned whole."""

    name: str = "causal_lm"
    task_class: str = "fedlit.tasks.causal_lm.task:CausalLM"
    auto_class: str = "AutoModelForCausalLM"
    scores: tuple[str, ...] = (
        *("rouge_l", "bleu_4", "bleu", "nist", "meteor", "meteor_15", "cider"),
        *("rouge_l_forced", "bleu_4_forced", "exact_match", "accuracy"),
    )
    default_scores: tuple[str, ...] = ("rouge_l", "bleu_4")
    protocols: tuple[str, ...] = ("generate", "teacher_forced", "options")
    generates: bool = True
    has_head: bool = False
    reads_text: bool = True
    counts_tokens: bool = True

    def columns(self, data: DataConfig) -> dict[str, str]:
        """Map every column of the form of the rows to the option that asks for it.

        Raises:
            UserError: a template is none.
        """
        return form_of(data).columns(data)

    def check(self, row: Row, place: str, data: DataConfig) -> bool:
        """Check that a row holds what its form needs, and something to learn; without it data.drop_empty leaves it
        out.
        """
        return form_of(data).check(row, place, data)

    def needs_task(self, data: DataConfig) -> bool:
        """Tell of conversations, which the chat template may refuse."""
        return form_of(data).needs_task

    def test_notices(self, rows: Sequence[Row], data: DataConfig) -> list[str]:
        """Return a line on references that the scores of words cannot see."""
        form = form_of(data)
        if not form.generates:
            return []
        return blind_spots([form.reference(row, data) for row in rows], data.scores or self.default_scores)

    def identity(self, row: Row, data: DataConfig) -> str:
        """Return the prompt, all before the last answer of a conversation, or the plain text."""
        return form_of(data).identity(row, data)

    def text(self, row: Row, data: DataConfig) -> str:
        """Return the words of a row, without a template's own."""
        return form_of(data).text(row, data)

    def problems(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield a score that will not be computed, and what scores, protocol and the form of the rows lack."""
        yield from form_named(values["data.messages"], values["data.text"]).problems(values)
        score = values["eval.score"]
        if score is not None:
            recorded = ("accuracy",) if values["eval.protocol"] == "options" else values["data.scores"]
            recorded = ("loss", *(recorded or self.default_scores))
            if score.split("/")[0].removesuffix("_macro") not in recorded:
                yield (
                    "eval.score",
                    f"will not be in the record; give one of {', '.join(recorded)}, or name it in data.scores",
                )
        yield from super().problems(values)
        asks = "option" if values["data.answer"] == "option" else values["eval.protocol"]
        if asks in ("option", "options") and values["data.options"] is None:
            yield (
                "data.answer" if asks == "option" else "eval.protocol",
                "needs to know the valid answers; give data.options=<regular expression that finds them in a prompt>",
            )
