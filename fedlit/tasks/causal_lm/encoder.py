"""What makes examples of rows, and how one that is too long is cut."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fedlit.config import DataConfig
from fedlit.data.collation import Example

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Encoder(ABC):
    """Rows of one form to token sequences.

    longest: tokens of a row. longest_prompt: tokens of a prompt at evaluation. by_options: test rows get candidates.
    """

    tokenizer: Any
    data: DataConfig
    longest: int
    longest_prompt: int
    by_options: bool = False

    @abstractmethod
    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """Return training rows as examples, one for each."""

    @abstractmethod
    def evaluation_examples(self, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """Return test rows as examples, in their order."""

    @abstractmethod
    def asked(self, row: Mapping[str, Any]) -> Example:
        """Return what a person has filled in, by the form's `asked`, as an example to be continued."""

    def check_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Refuse rows of which no example can be made, which their own check could not know: none, by default.

        Raises:
            UserError: the row and what is wrong.
        """
        return

    def own_texts(self) -> list[str]:
        """Return what a template of the tokenizer's writes, of which the model must have every token."""
        return []

    def protocol_parts(self) -> dict[str, Any]:
        """Return the words around a row's own, by the names of `Task.protocol_parts`; none by default."""
        return {}

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end what is generated; none for the tokenizer's end-of-text token alone."""
        return ()


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What is kept of a prompt and its responses: the start of the prompt is lost first, down to half of the length,
    then the end of a response.

    head: tokens kept at the prompt's very start, 1 for a token that begins every text. start: the prompt goes on there.
    most: tokens of a response. truncated: something is lost.
    """

    head: int
    start: int
    most: int
    truncated: bool

    @classmethod
    def of(
        cls, prompt: Sequence[int], responses: Sequence[Sequence[int]], *, longest: int, longest_prompt: int, begin: Any
    ) -> "Fit":
        """Return the fit of a prompt for the longest of its responses.

        Args:
            prompt: its tokens, at least one.
            responses: tokens of each with those that end it.
            longest: tokens of prompt and response.
            longest_prompt: tokens of the prompt at most, whatever the response is.
            begin: id of the token that begins a text; None if there is none.
        """
        most = max(longest - len(prompt), longest // 2)
        room = min(longest - max(min(len(response), most) for response in responses), longest_prompt)
        too_long = len(prompt) > room
        head = int(too_long and prompt[0] == begin)
        start = len(prompt) - room + head if too_long else head
        truncated = too_long or any(len(response) > most for response in responses)
        return cls(head=head, start=start, most=most, truncated=truncated)

    def prompt(self, items: Sequence[T]) -> tuple[T, ...]:
        """Return what is kept of the prompt's tokens, or of something else that there is one of for each."""
        return (*items[: self.head], *items[self.start :])

    def response(self, items: Sequence[T]) -> tuple[T, ...]:
        """Return what is kept of a response's."""
        return tuple(items[: self.most])
