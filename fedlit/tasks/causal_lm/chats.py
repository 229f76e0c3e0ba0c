"""Conversations as token sequences, by a chat template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from fedlit.data.chat import TOOLS, Message, answer_of, words_of
from fedlit.data.collation import Example
from fedlit.data.prompts import Row
from fedlit.errors import UserError
from fedlit.tasks.causal_lm.chat_tokens import ChatTokens
from fedlit.tasks.causal_lm.encoder import Encoder, Fit
from fedlit.tasks.causal_lm.forms import ChatForm
from fedlit.tasks.causal_lm.prompts import question_example
from fedlit.tasks.questions import Question, evaluation_questions


@dataclass(frozen=True, kw_only=True)
class ChatEncoder(Encoder):
    """A whole conversation in one sequence, of which the assistant's turns are learned; at evaluation the last of them
    is asked for.

    A row that is too long is cut as a prompt is: what comes before the last answer loses its start down to half of the
    length, then the answer its end; a token that begins the text stays. model_end_ids: tokens that end a generation by
    the settings that came with the model.
    """

    model_end_ids: tuple[int, ...] = ()

    @cached_property
    def tokens(self) -> ChatTokens:
        """The tokenizer with the template of the configuration."""
        return ChatTokens.of(self.tokenizer, self.data)

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer: the tokenizer's own, the model's and the one that the template writes."""
        ids = {self.tokenizer.eos_token_id, *self.model_end_ids, self.tokens.end_id}
        return tuple(sorted(number for number in ids if number is not None))

    def own_texts(self) -> list[str]:
        """Return what the template writes in the shortest conversation; a template without an end is told here."""
        return [self.tokens.shortest] if self.tokens.end_id is not None else []

    def protocol_parts(self) -> dict[str, Any]:
        """Return the chat template."""
        own = getattr(self.tokenizer, "chat_template", None)
        return {"chat_template": own if self.tokens.template is None else self.tokens.template}

    def check_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Refuse rows that the template does; the first is rendered as all are, before anything is trained."""
        for number, row in enumerate(rows):
            try:
                messages, tools = self._said(row)
                self.tokens.learned(messages, tools, num_given=ChatForm.num_given(dict(row), self.data))
            except UserError as error:
                raise UserError(f"row {number}: {error}") from error

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """Return rows as examples: the tokens of the template, and which of them are learned."""
        return [self._example(row) for row in rows]

    def _example(self, row: Mapping[str, Any]) -> Example:
        messages, tools = self._said(row)
        ids, mask = self.tokens.learned(messages, tools, num_given=ChatForm.num_given(dict(row), self.data))
        start, _ = _runs(mask)[-1]
        fit = self._fit(ids[:start], [ids[start:]], self.longest)
        prompt = fit.prompt(ids[:start])
        return Example(
            token_ids=(*prompt, *fit.response(ids[start:])),
            num_prompt_tokens=len(prompt),
            prompt=words_of(messages[:-1]),
            response=answer_of(messages),
            truncated=fit.truncated,
            learned=tuple(_runs((*fit.prompt(mask[:start]), *fit.response(mask[start:])))),
        )

    def evaluation_examples(self, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """Return test rows as examples: all before the last answer, as the template writes it when it asks for one.

        Raises:
            UserError: as evaluation_questions.
        """
        questions = evaluation_questions(rows, self.data, by_options=self.by_options, texts=self._texts)
        return [self._question(question, rows[question.row]) for question in questions]

    def _question(self, question: Question, row: Mapping[str, Any]) -> Example:
        messages, tools = self._said(row)
        prompt_ids = self.tokens.tokenized(question.prompt).ids
        answers = [[*messages[:-1], {**messages[-1], "content": text}] for text in question.candidates] or [messages]
        responses = [self._answer_ids(answer, tools, question.prompt) for answer in answers]
        return question_example(question, self._fit(prompt_ids, responses, self.longest_prompt), prompt_ids, responses)

    def _answer_ids(self, messages: Sequence[Message], tools: list[Any] | None, prompt: str) -> list[int]:
        """Return the tokens of the last answer; where its first letters and the last of the prompt make one token,
        those of its text alone.
        """
        whole = self.tokens.tokenized(self.tokens.text(messages, tools))
        start, stop = self.tokens.answer(whole, messages, tools, len(messages) - 1)
        if whole.spans[start][0] >= len(prompt):
            return whole.ids[start:stop]
        return self.tokens.tokenized(whole.text[len(prompt) : whole.spans[stop - 1][1]]).ids

    def asked(self, row: Mapping[str, Any]) -> Example:
        """Return a conversation, the list of messages in `message`, whose last turn is to be answered."""
        prompt = self.tokens.text(row["message"], asks=True)
        ids = self.tokens.tokenized(prompt).ids
        fit = self._fit(ids, [[self.tokenizer.eos_token_id]], self.longest_prompt)
        return question_example(Question(prompt=prompt, references=("",)), fit, ids, [[self.tokenizer.eos_token_id]])

    def _fit(self, prompt: Sequence[int], responses: Sequence[Sequence[int]], longest_prompt: int) -> Fit:
        begin = self.tokenizer.bos_token_id
        return Fit.of(prompt, responses, longest=self.longest, longest_prompt=longest_prompt, begin=begin)

    def _texts(self, row: Row) -> tuple[str, str]:
        """Return what is asked, as the template writes it, and the answer; of calls of tools as it writes these."""
        messages, tools = self._said(row)
        prompt = self.tokens.text(messages[:-1], tools, asks=True)
        if not messages[-1].get("tool_calls"):
            return prompt, answer_of(messages)
        ids = self._answer_ids(messages, tools, prompt)
        return prompt, self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _said(self, row: Mapping[str, Any]) -> tuple[list[Message], list[Any] | None]:
        """Return the messages of a row, and its tools."""
        return ChatForm.messages(dict(row), self.data), row.get(TOOLS)


def _runs(mask: Sequence[bool]) -> list[tuple[int, int]]:
    """Return where a mask is true, each run as its first place and the one after its last."""
    runs, place = [], 0
    for value, group in groupby(mask):
        length = len(list(group))
        if value:
            runs.append((place, place + length))
        place += length
    return runs
