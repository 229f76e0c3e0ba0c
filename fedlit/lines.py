"""Text that others wrote, made fit for one line of a console: nothing in it acts on a terminal or fills it."""

from unicodedata import category

MAX_VALUE_CHARACTERS = 200
MAX_LINE_CHARACTERS = 400
MAX_WORD_CHARACTERS = 50


def printable(text: str) -> str:
    """Return a text whose control characters, line breaks and halves of surrogate pairs are written as escapes.

    Spaces of other scripts stay, and the two joiners that Devanagari, Arabic and emoji are written with.
    """
    if text.isprintable():
        return text
    return "".join(char if _is_harmless(char) else ascii(char)[1:-1] for char in text)


def _is_harmless(char: str) -> bool:
    return char.isprintable() or char in "\u200c\u200d" or category(char) == "Zs"


def cut(text: str, limit: int = MAX_VALUE_CHARACTERS) -> str:
    """Return a text of at most `limit` characters: of a longer one the beginning, and how long it is."""
    if len(text) <= limit:
        return text
    told = f"... ({len(text):,} characters)"
    return text[: limit - len(told)] + told


def one_line(text: str, limit: int = MAX_LINE_CHARACTERS) -> str:
    """Return a message as one line of at most `limit` characters: of a longer one the middle is left out, since the
    fact stands at its beginning and the remedy at its end.
    """
    start, end = text[: limit + 1], text[-limit - 1 :]  # a megabyte is not walked through
    line = printable(text) if len(text) <= limit else printable(start) + printable(end)
    if len(line) <= limit:
        return line
    tail = limit // 3
    return f"{_whole_words(line[: limit - tail - 5])} ... {_whole_words(line[: -tail - 1 : -1])[::-1]}"


def _whole_words(text: str) -> str:
    """Return a text without the beginning of a word at its end, unless that is no word of a person's length."""
    words, _, beginning = text.rpartition(" ")
    return words if len(beginning) <= MAX_WORD_CHARACTERS else text
