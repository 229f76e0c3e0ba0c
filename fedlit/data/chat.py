"""Conversations in rows: lists of messages in the forms in which people keep them, checked and brought to one form.

A message is a mapping with `role` and `content`, or with `from` and `value` as in ShareGPT's data. What else stands in
it, such as `tool_calls`, goes to the chat template as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedlit.data.prompts import Row
from fedlit.data.values import require_encodable, shown
from fedlit.errors import UserError

Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
"""Who may speak; a chat template may know fewer."""
_SHAREGPT_ROLES = {
    **{role: role for role in ROLES},
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "observation": "tool",
}
TOOLS = "tools"
"""A column of this name goes to the chat template too: the tools that an assistant may call."""


def messages_in(row: Row, column: str, place: str, key: str) -> list[Message]:
    """Return the messages of a column in one form: `role`, `content` as a text, and whatever else they have.

    A content in parts, `[{"type": "text", "text": ...}]`, becomes the one text that they make. Content that is null is
    left out where an assistant calls tools. Keys that are null, which a table has in every row, are left out.

    Args:
        row: has the column.
        column: holds the messages.
        place: names the row in errors.
        key: option that names the column.

    Raises:
        UserError: the turn that is wrong, counted from 1, and what to do about it.
    """
    where, value = f"{place}: column {column!r} ({key})", row[column]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise UserError(
            f'{where} holds {shown(value)}, not a list of messages; write [{{"role": "user", "content": "..."}}, ...]'
        )
    if not value:
        raise UserError(f"{where} holds no message; fill it in, or leave the row out")
    return [_message(entry, f"{where}, turn {number}") for number, entry in enumerate(value, start=1)]


def _message(entry: Any, where: str) -> Message:
    if not isinstance(entry, Mapping):
        raise UserError(f'{where}: {shown(entry)} is no message; write {{"role": ..., "content": ...}}')
    role_key, content_key, roles = "role", "content", {role: role for role in ROLES}
    if entry.get("role") is None and "from" in entry:
        role_key, content_key, roles = "from", "value", _SHAREGPT_ROLES
    role = entry.get(role_key)
    if not isinstance(role, str) or role not in roles:
        known = ", ".join(roles)
        raise UserError(f"{where}: {role_key} is {shown(role)}, which nobody knows here; write one of {known}")
    rest = {
        key: value for key, value in entry.items() if value is not None and key not in (role_key, content_key, "role")
    }
    message: Message = {"role": roles[role]}
    content = _content(entry.get(content_key), f"{where} ({roles[role]})", content_key)
    if content is None and not (roles[role] == "assistant" and rest.get("tool_calls")):
        raise UserError(f"{where} ({roles[role]}): {content_key} is missing or null; write a text")
    if content is not None:
        require_encodable(content, where, content_key)
        message["content"] = content
    return message | rest


def _content(value: Any, where: str, key: str) -> str | None:
    """Return a content as one text; None for null."""
    if value is None or isinstance(value, str):
        return value
    parts = [value] if isinstance(value, Mapping) else value
    if not isinstance(parts, Sequence):
        raise UserError(f"{where}: {key} holds {shown(value)}, not a text; write it as a string")
    texts = []
    for part in parts:
        kind = part.get("type", "text") if isinstance(part, Mapping) else None
        if kind is not None and kind != "text":
            raise UserError(f"{where}: {key} has a part of type {shown(kind)}, and texts are read alone; take it out")
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str):
            raise UserError(f'{where}: {key} has a part {shown(part)}; write {{"type": "text", "text": ...}}')
        texts.append(text)
    return "".join(texts)


def is_blank(message: Message) -> bool:
    """Tell whether a message says nothing: neither words nor calls of tools."""
    return not str(message.get("content", "")).strip() and not message.get("tool_calls")


def require_conversation(messages: Sequence[Message], where: str) -> None:
    """Refuse messages of which an assistant's last one is no answer to anything, or in which somebody says nothing.

    The last message may be blank; whoever asks knows what that means. `where` names row and column.

    Raises:
        UserError: the turn that is wrong.
    """
    spoken = [number for number, message in enumerate(messages, start=1) if message["role"] == "assistant"]
    if not spoken:
        raise UserError(
            f"{where} has no assistant turn, from which there is something to learn; leave the row out, or such rows "
            "with data.drop_empty=true"
        )
    if spoken[-1] != len(messages):
        last = messages[-1]["role"]
        raise UserError(
            f"{where} ends with turn {len(messages)} of role {last!r}, which nobody answers; take the turns after turn "
            f"{spoken[-1]} out, or leave such rows out with data.drop_empty=true"
        )
    if len(messages) == 1:
        raise UserError(f"{where} has one turn, the assistant's, before which nothing is asked; add what it answers")
    for number, message in enumerate(messages[:-1], start=1):
        if is_blank(message):
            raise UserError(f"{where}, turn {number} ({message['role']}) is empty; fill it in, or take the turn out")


def is_answered(messages: Sequence[Message]) -> bool:
    """Tell whether the last message is an assistant's that says something."""
    return messages[-1]["role"] == "assistant" and not is_blank(messages[-1])


def tools_of(row: Row, place: str) -> list[Any] | None:
    """Return what stands in the column of tools, a list or one written as JSON; None without one.

    Raises:
        UserError: it is no list.
    """
    value = row.get(TOOLS)
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError:
            value = row[TOOLS]
    if value is None or value in ("", []):
        return None
    if not isinstance(value, list):
        raise UserError(
            f"{place}: column {TOOLS!r} holds {shown(value)}, not a list of tools; write them as the chat template "
            "takes them, or take the column out"
        )
    return value


def words_of(messages: Sequence[Message]) -> str:
    """Return what is said, a turn after the other."""
    return "\n".join(str(message["content"]) for message in messages if "content" in message)


def asked(messages: Sequence[Message]) -> str:
    """Return all before the last message as one text, whatever template renders it: two that are equal ask the same."""
    return json.dumps(messages[:-1], sort_keys=True, ensure_ascii=False, default=str)


def answer_of(messages: Sequence[Message]) -> str:
    """Return what the last message says; '' where it calls tools alone."""
    return str(messages[-1].get("content", ""))
