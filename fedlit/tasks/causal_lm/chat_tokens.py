"""A tokenizer with its chat template: a conversation as tokens, and which of them an assistant says.

The tokens are those of transformers' `apply_chat_template`. Which are the assistant's, a template may mark with
`{% generation %}`; of another they follow from its beginnings: what it writes up to a turn, with the words that ask for
an answer, ends where the answer begins.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from fedlit.config import DataConfig
from fedlit.data.chat import Message, words_of
from fedlit.data.chat_template import given_template
from fedlit.errors import UserError

_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@dataclass(frozen=True, kw_only=True)
class Tokenized:
    """A text as tokens; spans: the characters of each, from and to."""

    text: str
    ids: list[int]
    spans: list[tuple[int, int]]

    def within(self, start: int, stop: int) -> tuple[int, int]:
        """Return from which token to which the characters from `start` to before `stop` reach; one that begins before
        `start` and ends after it counts.
        """
        ends = list(accumulate((end for _, end in self.spans), max))
        return bisect_right(ends, start), bisect_left([begin for begin, _ in self.spans], stop)


@dataclass(frozen=True, kw_only=True)
class ChatTokens:
    """Conversations by one template; None for the tokenizer's own."""

    tokenizer: Any
    template: str | None = None

    @classmethod
    def of(cls, tokenizer: Any, data: DataConfig) -> "ChatTokens":
        """Return the conversations of a configuration.

        Raises:
            UserError: there is no template, or the tokenizer cannot say which characters a token stands for.
        """
        template = given_template(data)
        if template is None and not getattr(tokenizer, "chat_template", None):
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path or 'the model'} has no chat template, which data.messages "
                "needs; give data.chat_template=<file>, or a model that was made for chat"
            )
        if not getattr(tokenizer, "is_fast", False):
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path or 'the model'} has no tokenizer.json, which data.messages "
                "needs; give another with model.tokenizer=<folder or id>"
            )
        return cls(tokenizer=tokenizer, template=template)

    @property
    def _options(self) -> dict[str, bool]:
        """Options of the tokenizer: where it takes its special tokens for plain words, a template could write none."""
        return {"split_special_tokens": False} if getattr(self.tokenizer, "split_special_tokens", False) else {}

    def text(self, messages: Sequence[Message], tools: list[Any] | None = None, *, asks: bool = False) -> str:
        """Return a conversation as the template writes it; asks: with the words that ask for an answer.

        Raises:
            UserError: the template refuses it.
        """
        return str(self._applied(messages, tools, tokenize=False, add_generation_prompt=asks))

    def tokenized(self, text: str) -> Tokenized:
        """Return a conversation's text as tokens; what begins a text stands in the template, and is not added again."""
        options = {"add_special_tokens": False, "verbose": False, **self._options}
        made = self.tokenizer(text, return_offsets_mapping=True, **options)
        return Tokenized(text=text, ids=made["input_ids"], spans=made["offset_mapping"])

    def learned(
        self, messages: Sequence[Message], tools: list[Any] | None = None, *, num_given: int = 0
    ) -> tuple[list[int], list[bool]]:
        """Return a conversation as tokens, and which of them are learned: the assistant's, from its first word to what
        ends its turn.

        Not learned are turns among the first `num_given`, those with `weight: 0`, and one before which nothing is said.

        Raises:
            UserError: the template refuses the conversation, or an answer is not found in what it writes.
        """
        spoken = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        wanted = [i for i in spoken if i >= max(num_given, 1) and messages[i].get("weight", 1) != 0]
        whole = self.tokenized(self.text(messages, tools))
        if self._is_marked(tools):
            options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
            made = self._applied(messages, tools, **options, tokenizer_kwargs=self._options)
            mask = [bool(marked) for marked in made["assistant_masks"]]
            if any(i not in wanted for i in spoken if i > 0):
                inside = self._mask(whole, messages, tools, wanted)
                mask = [marked and within for marked, within in zip(mask, inside, strict=True)]
        else:
            mask = self._mask(whole, messages, tools, wanted)
        if not any(mask):
            raise UserError(
                f"the conversation {beginning(messages)} has no turn to learn: give an assistant's turn another weight "
                "than 0, or a chat template whose {% generation %} stands around what an assistant says"
            )
        return whole.ids, mask

    def _mask(
        self, whole: Tokenized, messages: Sequence[Message], tools: list[Any] | None, turns: Sequence[int]
    ) -> list[bool]:
        mask = [False] * len(whole.ids)
        for turn in turns:
            start, stop = self.answer(whole, messages, tools, turn)
            mask[start:stop] = [True] * (stop - start)
        return mask

    def answer(
        self, whole: Tokenized, messages: Sequence[Message], tools: list[Any] | None, turn: int
    ) -> tuple[int, int]:
        """Return from which token to which a turn of the assistant reaches: after the words that ask for it, up to the
        token that ends it. A blank after that token, as ChatML has it, is nobody's.

        Raises:
            UserError: what the template writes up to there is not how the whole conversation begins.
        """
        before = self.text(messages[:turn], tools, asks=True)
        until = whole.text if turn == len(messages) - 1 else self.text(messages[: turn + 1], tools)
        if not (whole.text.startswith(before) and whole.text.startswith(until) and len(before) < len(until)):
            raise UserError(
                f"the chat template writes turn {turn + 1} of the conversation {beginning(messages)} otherwise when "
                "more is said after it, or when it is asked for; give data.chat_template=<file> with {% generation %} "
                "around what an assistant says, or rows with one answer"
            )
        start, stop = whole.within(len(before), len(until))
        ends = [i for i in range(start, stop) if whole.ids[i] in self._added]
        if ends and not whole.text[whole.spans[ends[-1]][1] : len(until)].strip():
            stop = ends[-1] + 1
        return start, stop

    @property
    def shortest(self) -> str:
        """What the template writes of one question and its answer."""
        return self.text(_PROBE)

    @cached_property
    def end_id(self) -> int | None:
        """Token that the template writes after what an assistant says; None if it refuses the shortest conversation.

        Raises:
            UserError: it writes none, so that an answer would have no end.
        """
        try:
            whole = self.tokenized(self.shortest)
            _, stop = self.answer(whole, _PROBE, None, 1)
        except UserError:
            return None
        if whole.ids[stop - 1] not in self._added:
            raise UserError(
                f"the chat template writes no token after what an assistant says (it ends with {whole.text[-20:]!r}), "
                "so that an answer has no end; write {{ eos_token }} there, or give another data.chat_template"
            )
        return whole.ids[stop - 1]

    @cached_property
    def _added(self) -> frozenset[int]:
        """Tokens that stand outside the vocabulary of words: those that end a turn are among them."""
        return frozenset(self.tokenizer.added_tokens_encoder.values()) | frozenset(self.tokenizer.all_special_ids)

    def _is_marked(self, tools: list[Any] | None) -> bool:
        return bool(_MARKED.search(self.tokenizer.get_chat_template(self.template, tools)))

    def _applied(self, messages: Sequence[Message], tools: list[Any] | None, **options: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template(
                list(messages), tools=tools, chat_template=self.template, **options
            )
        except Exception as error:  # a template is a program, and may fail in any way
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise UserError(
                f"the chat template refuses the conversation {beginning(messages)}: {reason}; mend the row, or give "
                "another data.chat_template"
            ) from error


def beginning(messages: Sequence[Message]) -> str:
    """Return how a message shows a conversation."""
    return repr(words_of(messages)[:50])
