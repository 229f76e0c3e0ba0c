"""What a row of causal language modelling is: prompt and response, a conversation, or plain text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from fedlit.data import chat
from fedlit.data.chat_template import given_template
from fedlit.data.columns import require_column
from fedlit.data.prompts import Row, prompt_template, render, required_columns, template_columns
from fedlit.data.values import shown
from fedlit.errors import UserError

if TYPE_CHECKING:
    from fedlit.config.schema import DataConfig


class Form(ABC):
    """What one kind of row holds; the methods are those of `TaskSpec`."""

    generates: bool = True
    """Whether a response is generated, and compared with the row's."""
    needs_task: bool = False
    """Whether a row's last check needs the tokenizer, whose template may refuse it."""

    @abstractmethod
    def columns(self, data: DataConfig) -> dict[str, str]:
        """Map every column to the option that asks for it."""

    @abstractmethod
    def check(self, row: Row, place: str, data: DataConfig) -> bool:
        """Check a row, which may be changed in place, and tell whether it is kept."""

    @abstractmethod
    def identity(self, row: Row, data: DataConfig) -> str:
        """Return what the model is asked."""

    @abstractmethod
    def text(self, row: Row, data: DataConfig) -> str:
        """Return the words of a row, without those of a template."""

    @abstractmethod
    def reference(self, row: Row, data: DataConfig) -> str:
        """Return what a generated text is compared with."""

    @abstractmethod
    def asked(self, data: DataConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the columns that a person fills in to ask a model, in order, and those that may not be blank."""

    def problems(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield dotted keys at odds with the form, and what is wrong and what to do."""
        yield from ()


class PromptForm(Form):
    """A prompt, by a template or from a column, and its response."""

    def columns(self, data: DataConfig) -> dict[str, str]:
        """Map the columns of prompt and response."""
        key = "data.template" if data.prompt is None else "data.prompt"
        columns = dict.fromkeys(template_columns(prompt_template(data)), key)
        columns |= dict.fromkeys(template_columns(prompt_template(data, test=True)), "data.test_template") | columns
        required = key if data.required is None or data.prompt is not None else "data.required"
        return columns | dict.fromkeys(required_columns(data), required) | {data.response: "data.response"}

    def check(self, row: Row, place: str, data: DataConfig) -> bool:
        """Check that columns hold strings, null counting as blank, and that response and required ones are not blank.

        A row with an empty response is left out with data.drop_empty.
        """
        for column, key in self.columns(data).items():
            require_column(row, column, place, key)
            if row[column] is None:
                row[column] = ""
            _require_text(row[column], f"{place}: column {column!r} ({key})", self._remedy(row[column], data))
        if not row[data.response].strip():
            return _left_out(f"{place}: column {data.response!r} (data.response)", data)
        for column in required_columns(data):
            if not row[column].strip():
                rest = "leave the row out" if data.required is None else "take it off data.required"
                raise UserError(f"{place}: column {column!r} is blank; fill it in, or {rest}")
        if not any(row[column].strip() for column in template_columns(prompt_template(data))):
            raise UserError(f"{place}: every column of the prompt is blank; fill one in, or leave the row out")
        return True

    @staticmethod
    def _remedy(value: Any, data: DataConfig) -> str:
        """Return what to do about a value that is no text."""
        if isinstance(value, list) and value and isinstance(value[0], dict) and {"role", "from"} & value[0].keys():
            both = f"[{data.prompt or 'prompt'},{data.response}]"
            return f"for a conversation give data.messages=<column>, or {both} where it is in two"
        return _TEXT_REMEDY

    def identity(self, row: Row, data: DataConfig) -> str:
        """Return the prompt."""
        return render(row, data)[0]

    def text(self, row: Row, data: DataConfig) -> str:
        """Return the prompt's columns and the response."""
        return "\n".join(row[column] for column in [*template_columns(prompt_template(data)), data.response])

    def reference(self, row: Row, data: DataConfig) -> str:
        """Return the response."""
        return str(row[data.response])

    def asked(self, data: DataConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the columns of the prompt at evaluation."""
        columns = tuple(template_columns(prompt_template(data, test=True)))
        return columns, tuple(name for name in required_columns(data) if name in columns)

    def problems(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield a chat template without conversations."""
        if values["data.chat_template"] is not None:
            yield "data.chat_template", "is for conversations; give data.messages=<column> as well, or leave it out"


class ChatForm(Form):
    """A conversation, in one column or in two, of which the second, a completion, is what is learned."""

    needs_task = True

    def columns(self, data: DataConfig) -> dict[str, str]:
        """Map the columns of messages, after a look at the chat template."""
        given_template(data)
        return dict.fromkeys(_message_columns(data), "data.messages")

    def check(self, row: Row, place: str, data: DataConfig) -> bool:
        """Bring the messages into one form and check that an assistant says something last.

        A row without such an answer is left out with data.drop_empty.
        """
        columns = _message_columns(data)
        for column in columns:
            require_column(row, column, place, "data.messages")
            row[column] = chat.messages_in(row, column, place, "data.messages")
        messages = self.messages(row, data)
        if chat.TOOLS in row:
            row[chat.TOOLS] = chat.tools_of(row, place)
        where = f"{place}: column {columns[-1]!r} (data.messages)"
        if data.drop_empty and not chat.is_answered(messages):
            return False
        chat.require_conversation(messages, where)
        if chat.is_blank(messages[-1]):
            return _left_out(f"{where}, the last turn,", data)
        return True

    @staticmethod
    def messages(row: Row, data: DataConfig) -> list[chat.Message]:
        """Return all messages of a checked row."""
        return [message for column in _message_columns(data) for message in row[column]]

    @staticmethod
    def num_given(row: Row, data: DataConfig) -> int:
        """Return how many messages come before those that are learned: those of the prompt, where it has a column."""
        columns = _message_columns(data)
        return len(row[columns[0]]) if len(columns) > 1 else 0

    def identity(self, row: Row, data: DataConfig) -> str:
        """Return all before the last answer."""
        return chat.asked(self.messages(row, data))

    def text(self, row: Row, data: DataConfig) -> str:
        """Return what is said."""
        return chat.words_of(self.messages(row, data))

    def reference(self, row: Row, data: DataConfig) -> str:
        """Return the last answer."""
        return chat.answer_of(self.messages(row, data))

    def asked(self, data: DataConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return one name: a person says one thing after the other."""
        return ("message",), ("message",)

    def problems(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield what stands beside the messages, and more columns than two."""
        columns = values["data.messages"]
        if isinstance(columns, list) and len(columns) != 2:
            yield "data.messages", "is a list; give one column, or two: [<of the prompt>,<of the completion>]"
        yield from _beside("data.messages", values)
        if values["data.test_template"] is not None:
            yield "data.test_template", "does nothing beside data.messages; leave it out"


class TextForm(Form):
    """A text, all of which is learned."""

    generates = False

    def columns(self, data: DataConfig) -> dict[str, str]:
        """Map the column of the text."""
        return {_text_column(data): "data.text"}

    def check(self, row: Row, place: str, data: DataConfig) -> bool:
        """Check that there is a text; an empty one is left out with data.drop_empty."""
        column = _text_column(data)
        require_column(row, column, place, "data.text")
        where = f"{place}: column {column!r} (data.text)"
        row[column] = "" if row[column] is None else row[column]
        _require_text(row[column], where)
        return bool(row[column].strip()) or _left_out(where, data)

    def identity(self, row: Row, data: DataConfig) -> str:
        """Return the text."""
        return str(row[_text_column(data)])

    def text(self, row: Row, data: DataConfig) -> str:
        """Return the text."""
        return str(row[_text_column(data)])

    def reference(self, row: Row, data: DataConfig) -> str:
        """Return nothing: no text is compared with it."""
        return ""

    def asked(self, data: DataConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the column of the text, which is gone on with."""
        return (_text_column(data),), (_text_column(data),)

    def problems(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield what stands beside the text, and scores of texts that nothing generates."""
        if isinstance(values["data.text"], list):
            yield "data.text", "is a list; give one column for data.task=causal_lm"
        yield from _beside("data.text", values)
        for key in ("data.test_template", "data.chat_template"):
            if values[key] is not None:
                yield key, "does nothing beside data.text; leave it out"
        loss_only = "needs a prompt, and plain text (data.text) has none: its score is the loss; leave it out"
        for key in ("data.scores", "data.answer", "data.options", "data.score_by"):
            if values[key] is not None:
                yield key, loss_only
        if values["data.multiple_references"]:
            yield "data.multiple_references", loss_only
        if values["eval.protocol"] != "generate":
            yield "eval.protocol", loss_only
        if values["eval.score"] not in (None, "loss"):
            yield "eval.score", "is not computed of plain text (data.text); give loss, or leave it out"


_PROMPTS, _CHATS, _TEXTS = PromptForm(), ChatForm(), TextForm()
_TEXT_REMEDY = "write it as a string"


def form_of(data: DataConfig) -> Form:
    """Return the form of the rows that a configuration describes."""
    return form_named(data.messages, data.text)


def form_named(messages: Any, text: Any) -> Form:
    """Return the form for the values of `data.messages` and `data.text`."""
    if messages is not None:
        return _CHATS
    return _PROMPTS if text is None else _TEXTS


def _message_columns(data: DataConfig) -> list[str]:
    return [data.messages] if isinstance(data.messages, str) else list(data.messages or ())


def _text_column(data: DataConfig) -> str:
    assert isinstance(data.text, str)
    return data.text


def _require_text(value: Any, where: str, remedy: str = _TEXT_REMEDY) -> None:
    if isinstance(value, str):
        return
    if isinstance(value, date):
        remedy = "it is a date, or a reader took it for one: give texts, in a .jsonl file with data.path"
    raise UserError(f"{where} holds {shown(value)}, not a string; {remedy}")


def _left_out(where: str, data: DataConfig) -> bool:
    """Return that a row with nothing to learn is not kept, or say so."""
    if data.drop_empty:
        return False
    raise UserError(f"{where} is empty; fill it in, or leave such rows out with data.drop_empty=true")


def _beside(key: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the options of another form that are given beside one; a template is `fedlit/config/house.py`'s."""
    for other in ("data.text", "data.prompt"):
        if other != key and values[other] is not None:
            yield other, f"is at odds with {key}={values[key]}, which takes its place; leave one of them out"
