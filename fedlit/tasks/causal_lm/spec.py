"""The rows of causal language modelling: a prompt, by a template or from a column, and its response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from fedlit.data.columns import require_column
from fedlit.data.prompts import Row, prompt_template, render, required_columns, template_columns
from fedlit.data.values import shown
from fedlit.errors import UserError
from fedlit.tasks.spec import TaskSpec
from fedlit.words import blind_spots

if TYPE_CHECKING:
    from fedlit.config.schema import DataConfig


@dataclass(frozen=True, kw_only=True)
class CausalLMSpec(TaskSpec):
    """A response follows its prompt."""

    name: str = "causal_lm"
    task_class: str = "fedlit.tasks.causal_lm.task:CausalLM"
    auto_class: str = "AutoModelForCausalLM"
    scores: tuple[str, ...] = (
        *("rouge_l", "bleu_4", "bleu", "nist", "meteor", "meteor_15", "cider"),
        *("exact_match", "accuracy"),
    )
    default_scores: tuple[str, ...] = ("rouge_l", "bleu_4")
    protocols: tuple[str, ...] = ("generate", "teacher_forced", "options")
    generates: bool = True
    has_head: bool = False
    reads_text: bool = True
    counts_tokens: bool = True

    def columns(self, data: DataConfig) -> dict[str, str]:
        """Map every column of prompt and response to the option that asks for it.

        Raises:
            UserError: a template is none.
        """
        key = "data.template" if data.prompt is None else "data.prompt"
        columns = dict.fromkeys(template_columns(prompt_template(data)), key)
        columns |= dict.fromkeys(template_columns(prompt_template(data, test=True)), "data.test_template") | columns
        required = "data.required" if data.prompt is None else key
        return columns | dict.fromkeys(required_columns(data), required) | {data.response: "data.response"}

    def check(self, row: Row, place: str, data: DataConfig) -> bool:
        """Check that columns hold strings, null counting as blank, and that response and required ones are not blank.

        A row with an empty response is left out with data.drop_empty.
        """
        for column, key in self.columns(data).items():
            require_column(row, column, place, key)
            if row[column] is None:
                row[column] = ""
            if not isinstance(row[column], str):
                remedy = "write it as a string"
                if isinstance(row[column], date):
                    remedy = "a reader took the texts for dates: give the file itself, as .jsonl, with data.path"
                raise UserError(
                    f"{place}: column {column!r} ({key}) holds {shown(row[column])}, not a string; {remedy}"
                )
        if not row[data.response].strip():
            if data.drop_empty:
                return False
            raise UserError(
                f"{place}: column {data.response!r} (data.response) is empty; fill it in, "
                "or leave such rows out with data.drop_empty=true"
            )
        for column in required_columns(data):
            if not row[column].strip():
                raise UserError(f"{place}: column {column!r} is blank; fill it in or take it off data.required")
        if not any(row[column].strip() for column in template_columns(prompt_template(data))):
            raise UserError(f"{place}: every column of the prompt is blank; fill one in, or leave the row out")
        return True

    def test_notices(self, rows: Sequence[Row], data: DataConfig) -> list[str]:
        """Return a line on references that the scores of words cannot see."""
        return blind_spots([row[data.response] for row in rows], data.scores or self.default_scores)

    def identity(self, row: Row, data: DataConfig) -> str:
        """Return the prompt."""
        return render(row, data)[0]

    def text(self, row: Row, data: DataConfig) -> str:
        """Return the prompt's columns and the response, without the template's own words."""
        return "\n".join(row[column] for column in [*template_columns(prompt_template(data)), data.response])

    def problems(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield a score that will not be computed, and what scores and protocol lack."""
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
