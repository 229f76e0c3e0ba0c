r"""A row becomes a prompt and a response: the prompt by a template, the response from its column.

A template is a Python format string with plain `{column}` fields only, so that a prompt never depends on attributes,
indices or number formats. `${column}$` is the column between dollar signs; braces of LaTeX are doubled. A blank column
leaves no gap: the newlines on its two sides collapse to one blank line, and what the columns themselves contain stays
as it is.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fedlit.data.values import require_encodable
from fedlit.errors import UserError

if TYPE_CHECKING:
    from fedlit.config.schema import DataConfig

Row = dict[str, Any]


@lru_cache(maxsize=64)  # parsing takes as long as the rest of `render`
def parse_template(template: str, key: str = "data.template") -> tuple[tuple[str, str | None], ...]:
    """Return the template as (literal text, column after it); the column is None after the last literal.

    `key` is the option that holds the template, for errors.

    Raises:
        UserError: the template cannot be written as UTF-8, is no format string, has a field that is not a plain column
            name, or has none at all.
    """
    require_encodable(template, key, "the template")
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"{key}: {error}; a literal brace is written {{{{ or }}}}") from error
    for _, name, spec, conversion in pieces:
        if name is not None and (not name or name.isdigit() or set(name) & set(".[]{}") or spec or conversion):
            field = "{" + name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}"
            raise UserError(f"{key}: {field} is not a plain field; write {{column}} with the name of a column")
    if all(name is None for _, name, _, _ in pieces):
        raise UserError(f"{key}={template!r} has no {{column}}: every prompt would be the same; name a column in it")
    return tuple((literal, name) for literal, name, _, _ in pieces)


def template_columns(template: str) -> list[str]:
    """Return the columns that a template uses, each once, in order of appearance."""
    return list(dict.fromkeys(name for _, name in parse_template(template) if name is not None))


def prompt_template(config: DataConfig, *, test: bool = False) -> str:
    """Return the template of prompts in training or at evaluation; `data.prompt` stands for one of a single column.

    `data.test_template` wins at evaluation.

    Raises:
        UserError: it is no template; the message names the option that it comes from.
    """
    if test and config.test_template is not None:
        template, key = config.test_template, "data.test_template"
    elif config.prompt is not None:
        if set(config.prompt) & set(".[]{}!:") or config.prompt.isdigit() or not config.prompt:
            raise UserError(
                f"data.prompt={config.prompt!r} is not a plain column name, without any of . [ ] {{ }} ! :; "
                "rename the column"
            )
        template, key = "{" + config.prompt + "}\n", "data.prompt"
    else:
        template, key = config.template, "data.template"
    parse_template(template, key)
    return template


def required_columns(config: DataConfig) -> list[str]:
    """Return the columns that must not be blank."""
    if config.prompt is not None:
        return [config.prompt]
    if config.required is not None:
        return config.required
    columns = template_columns(prompt_template(config))
    return columns if len(columns) == 1 else []


def render(row: Row, config: DataConfig, *, test: bool = False) -> tuple[str, str]:
    """Return (prompt, response) of one checked row; their concatenation is the text that a model is trained on.

    test: render the prompt of evaluation, by `data.test_template` where one is given.
    """
    parts: list[str] = []
    literal, gap = "", False
    for text, name in (*parse_template(prompt_template(config, test=test)), ("", None)):
        literal += text
        value = "" if name is None else row[name]
        if name is not None and not value.strip():
            gap = True
            continue
        parts += [re.sub(r"\n{3,}", "\n\n", literal) if gap else literal, value]
        literal, gap = "", False
    return "".join(parts), row[config.response]
