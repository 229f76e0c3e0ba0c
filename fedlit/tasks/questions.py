"""Test rows become questions: rows with one prompt together, the options a prompt names, the response each would make.

The response that an option would make is the row's own with its option exchanged: from "the correct answer is true" and
the options true and false comes "the correct answer is false", as in the data of Hu et al., "LLM-Adapters", arXiv
2304.01933. No table of answers by task is needed.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlit.config import DataConfig
from fedlit.data.prompts import Row, render
from fedlit.errors import UserError
from fedlit.metrics.answers import final_answer, find_option, options_in


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A prompt and what is right about it.

    references: the right responses in row order, at least one. group: the value of `data.score_by`. options: the valid
    answers in the prompt's order. candidates: the response that each of them would make, of which the one at
    right_option is the first reference. row: place of the first row of its prompt.
    """

    prompt: str
    references: tuple[str, ...]
    group: str | None = None
    options: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    right_option: int = 0
    row: int = 0


def evaluation_questions(
    rows: Sequence[Mapping[str, Any]],
    data: DataConfig,
    *,
    by_options: bool = False,
    texts: Callable[[Row], tuple[str, str]] | None = None,
) -> list[Question]:
    """Return test rows as questions: one for each, or by `data.multiple_references` one for each prompt.

    A question stands where the first row of its prompt does, and has that row's group; equal references are kept, as
    in the published scripts. by_options: with candidates too. texts: prompt and reference of a row, where these are not
    those of the template.

    Raises:
        UserError: a row without a reference or without the column of `data.score_by`, a reference without a word for a
            score of words, one in which `data.answer` finds no answer, a prompt in which `data.options` finds no
            options, or, by_options, a response that names none of them.
    """
    merged: dict[Any, list[tuple[int, str, str]]] = {}
    for number, row in enumerate(rows):
        prompt, reference = render(dict(row), data, test=True) if texts is None else texts(dict(row))
        if not reference.strip():
            raise UserError(
                f"test row {number}: no reference, {_response(data)} is empty; fill it in, "
                "or leave such rows out with data.drop_empty=true"
            )
        key = prompt if data.multiple_references else number
        merged.setdefault(key, []).append((number, prompt, reference))
    return [
        _question(
            prompt=members[0][1],
            references=tuple(reference for _, _, reference in members),
            row=rows[members[0][0]],
            number=members[0][0],
            data=data,
            by_options=by_options,
        )
        for members in merged.values()
    ]


def _question(
    *, prompt: str, references: tuple[str, ...], row: Mapping[str, Any], number: int, data: DataConfig, by_options: bool
) -> Question:
    group, place = None, f"test row {number}"
    if data.score_by is not None:
        if row.get(data.score_by) is None:
            raise UserError(
                f"{place}: nothing in column {data.score_by!r} (data.score_by) among {list(row)}; "
                "fill it in, or give data.score_by=null"
            )
        group = str(row[data.score_by])
    options = () if data.options is None else find_options(prompt, data.options, place)
    _require_answers(references, options, place, data)
    if data.options is None:
        return Question(prompt=prompt, references=references, group=group, row=number)
    candidates, right = exchange_option(references[0], options, place) if by_options else ((), 0)
    return Question(
        prompt=prompt,
        references=references,
        group=group,
        options=options,
        candidates=candidates,
        right_option=right,
        row=number,
    )


def _response(data: DataConfig) -> str:
    if data.messages is not None:
        return f"the last turn of {data.messages} (data.messages)"
    return f"column {data.response!r} (data.response)"


def _require_answers(references: Sequence[str], options: Sequence[str], place: str, data: DataConfig) -> None:
    """Refuse references that exact_match could not compare with; one without a box is itself the boxed answer."""
    if data.answer is None or data.answer == "boxed" or "exact_match" not in (data.scores or ()):
        return
    for reference in references:
        if not final_answer(reference, data.answer, options):
            raise UserError(
                f"{place}: the reference {reference[-60:]!r} gives no answer of data.answer={data.answer}; correct the "
                "row, or choose another data.answer"
            )


def find_options(prompt: str, pattern: str, place: str) -> tuple[str, ...]:
    """Return the valid answers that a prompt names, by `data.options`.

    Raises:
        UserError: there are none, or `data.options` is no regular expression with a group 1.
    """
    try:
        return options_in(prompt, pattern)
    except (ValueError, re.error) as error:
        raise UserError(
            f"{place}: data.options={pattern!r}: {error}; give a regular expression whose group 1 is the options in "
            "the prompt with slashes between them"
        ) from error


def exchange_option(response: str, options: Sequence[str], place: str) -> tuple[tuple[str, ...], int]:
    """Return the response that each option would make, and the place of the response's own option.

    A response's option is the one that `find_option` reads in it, as in a generated response.

    Raises:
        UserError: the response names no option.
    """
    found = find_option(response, options)
    if found is None:
        raise UserError(
            f"{place}: the response {response[:60]!r} names none of the options {', '.join(options)} of its prompt; "
            "correct the row, or give eval.protocol=generate"
        )
    named, start, end = found
    right = tuple(options).index(named)
    before, after = response[:start], response[end:]
    candidates = [f"{before}{option}{after}" for option in options]
    candidates[right] = response
    return tuple(candidates), right
