"""Fonts for names in any script: installed ones, since matplotlib's own has neither Chinese nor Devanagari letters."""

import logging
from collections.abc import Iterable
from functools import lru_cache

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

from fedlit.lines import printable

MISSING_GLYPH = r"Glyph .* missing from"
"""How matplotlib's own warning begins, a line for each letter and picture."""

_SHOWN = 20
_BLANK = ("lastresort", ".lastresort", "adobe blank", "adobenotdef")
"""Beginnings of names of fonts that have a box for every letter."""

_LOG = logging.getLogger(__name__)
_told: set[str] = set()


def use_installed_fonts(figure: Figure) -> None:
    """Give a figure's texts, beside their own font, installed ones that have the letters which it lacks; say once in a
    process which letters no font has.
    """
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    lacking = {text: missing for text in texts if (missing := _missing(text))}
    letters = set().union(*lacking.values())
    if not letters:
        return
    chosen = _fonts_with(frozenset(letters))
    for text, missing in lacking.items():
        names = [name for name, has in chosen if has & missing]
        text.set_fontfamily([*text.get_fontfamily(), *names])
    tell_missing(letters.difference(*(has for _, has in chosen)))


def tell_missing(letters: Iterable[str]) -> None:
    """Say which letters will be boxes, each once in a process."""
    new = sorted(set(letters) - _told)
    if not new:
        return
    _told.update(new)
    more = f" and {len(new) - _SHOWN} more" if len(new) > _SHOWN else ""
    _LOG.warning(
        "no installed font has %s%s: pictures show boxes; install one for the script, such as Noto Sans",
        " ".join(map(printable, new[:_SHOWN])),
        more,
    )


def _missing(text: Text) -> frozenset[str]:
    """Return the letters that the font of a text lacks."""
    content = frozenset(char for char in text.get_text() if not char.isspace() and char.isprintable())
    if content == frozenset() or max(content) < "\u0080":
        return frozenset()
    return content - _letters_of(findfont(text.get_fontproperties()), content)


@lru_cache(maxsize=32)
def _fonts_with(letters: frozenset[str]) -> tuple[tuple[str, frozenset[str]], ...]:
    """Return the fewest installed fonts, by name, that have these letters as far as any have them, and which they have.

    The one with the most comes first, and of equals the first by name: the same on every start.
    """
    regular = [entry for entry in fontManager.ttflist if entry.style == "normal" and not _is_blank(entry.name)]
    found: dict[str, frozenset[str]] = {}
    for entry in sorted(regular, key=lambda entry: (entry.name, str(entry.weight) not in ("400", "normal"))):
        if entry.name not in found and (has := _letters_of(entry.fname, letters)):
            found[entry.name] = has
    chosen: list[tuple[str, frozenset[str]]] = []
    left = letters
    while left and found:
        name = max(sorted(found), key=lambda name: len(found[name] & left))
        if not found[name] & left:
            break
        if _drawn_with(name, found[name]):
            chosen.append((name, found[name]))
            left -= found[name]
        del found[name]
    return tuple(chosen)


def _letters_of(path: str, letters: frozenset[str]) -> frozenset[str]:
    """Return which of some letters a font can draw; none if it cannot be read, or is made of pictures of one size."""
    try:
        font = get_font(path)
        if not font.scalable:
            return frozenset()
        return frozenset(char for char in letters if font.get_char_index(ord(char)))
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _drawn_with(name: str, letters: frozenset[str]) -> bool:
    """Tell whether matplotlib, asked for a font of this name, takes one that has these letters."""
    return letters <= _letters_of(findfont(FontProperties(family=[name]), fallback_to_default=True), letters)


def _is_blank(name: str) -> bool:
    return name.lower().startswith(_BLANK)
