"""What a file holds as it stands in a message, and texts that no file, terminal or tokenizer could take."""

import reprlib
import unicodedata
from typing import Any

from fedlit.errors import UserError

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 120
_REPR.maxlong = 60
_REPR.maxlevel = 3

_JOINERS = "\u200c\u200d"
"""Without width, but they change the letters beside them (Persian, Hindi) and what an emoji is."""


def shown(value: Any) -> str:
    """Return a value as a message shows it: like `repr`, of a long or deep one a part."""
    return _REPR.repr(value)


def require_encodable(text: str, place: str, what: str) -> None:
    r"""Refuse a text that holds half of a surrogate pair, as JSON cut in the middle of an emoji does ("\ud83d").

    `place` names the row and `what` the column or name that holds the text.

    Raises:
        UserError: the text cannot be written as UTF-8; the message says which character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{place}: {what} holds half of a surrogate pair, \\u{ord(text[error.start]):04x}, at character "
            f"{error.start + 1} of {len(text)}, and cannot be written as UTF-8; mend the text (a cut emoji?) or take "
            "it out"
        ) from error


def looks(value: Any) -> str:
    """Return what a person sees of a label: each run of white space as one blank and none around it, no characters
    without width, accents in one form, numbers as they are spelled without a fraction of zero.
    """
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    seen = (sign for sign in text if unicodedata.category(sign) != "Cf" or sign in _JOINERS)
    return " ".join(unicodedata.normalize("NFC", "".join(seen)).split())
