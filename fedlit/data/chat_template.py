"""The file of `data.chat_template`: read, and its Jinja parsed, before anything expensive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlit.errors import UserError

if TYPE_CHECKING:
    from fedlit.config.schema import DataConfig


CHAT_TEMPLATE = "chat_template.jinja"
"""Its copy, in a run's folder as the run began with it, and beside a saved tokenizer."""


def given_template(data: DataConfig) -> str | None:
    """Return the chat template of `data.chat_template`, the file's whole text; None for the tokenizer's own.

    Raises:
        UserError: no such file, or no template in it.
    """
    if data.chat_template is None:
        return None
    key = f"data.chat_template={data.chat_template}"
    path = Path(data.chat_template).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{key} is not there (seen from {Path.cwd()}); give a file with a chat template") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"{key} cannot be read: {reason}; give a text file with a chat template in Jinja") from None
    if not text.strip():
        raise UserError(f"{key} is empty; give a file with a chat template in Jinja")
    require_syntax(text, key)
    return text


def require_syntax(template: str, key: str) -> None:
    """Refuse what Jinja cannot read; `key` names the template.

    Raises:
        UserError: the line and what is wrong with it.
    """
    import jinja2.meta  # noqa: PLC0415  conversations alone need it
    from jinja2.ext import Extension  # noqa: PLC0415

    class Generation(Extension):
        """The tag around what an assistant says, which transformers adds to Jinja."""

        tags = {"generation"}  # noqa: RUF012  as Jinja has it

        def parse(self, parser: Any) -> Any:
            """Return what stands between the tags."""
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    try:
        environment = jinja2.Environment(extensions=[Generation, "jinja2.ext.loopcontrols"], autoescape=False)
        names = jinja2.meta.find_undeclared_variables(environment.parse(template))
    except jinja2.TemplateSyntaxError as error:  # also a filter or a test that there is not
        raise UserError(f"{key}, line {error.lineno}: {(error.message or '').rstrip('.')}; mend the template") from None
    if "messages" not in names:
        raise UserError(f"{key} has no `messages`, so that every conversation would be the same; write one that has")
