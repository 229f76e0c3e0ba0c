"""Values that a person, an editor or a script may write where another one was meant: texts, YAML, JSON, damaged bytes.

Strategies put short and ordinary values first, since Hypothesis shrinks towards the first alternative.
"""

import json
from typing import Any

from hypothesis import strategies as st

NUMBERS = ("0", "-1", "1.5", "010", "1:30", "0x10", "1_000", "+3", "1e3", "1e400", "-1e-45", "nan", ".inf", "-.inf")
FULL_WIDTH = "３"
HUGE = ("9" * 20, "9" * 5000, "-" + "9" * 400, "1" + "0" * 30)
WORDS = ("null", "~", "true", "yes", "off", "???", "", " ", "2026-01-01", "2001-01-01T00:00:00Z", "=", "<<")
YAML = (
    *("[]", "{}", "[1, 2", "{a: 1}", "{a: {b: [1]}}", "[null]", "{1: 2}", "{null: 1}", "[[1], [a]]", "a: b: c", "- x"),
    *("!!int x", "!!float x", "!!bool x", "!!timestamp x", "!!binary x", "!!null x", "!!set {a}", "!!omap [a]"),
    *("!!int", "!!python/name:os.name", "!x y", "&a [*a]", "*a", "? x", "| x", "> x", "@x", "`x", "%TAG", "'", '"'),
    *('"\\ud83d"', '"\\x00"', '"a\\nb"', "'it''s'", "{<<: 1}", "{[a]: 1}", "--- x", "... x", "# x", "x # y", "{a, b}"),
)
TEXTS = (
    *("${x}", "${oc.env:HOME}", "$\\frac{x}{y}$", "{prompt}", "{", "{}", "{0}", "{prompt!r:>{label}}", "{prompt.x}"),
    *("%s", "%", "100%", "a/b", "../x", "/dev/full", "/proc/self/status", "~", "~nobody/x", "a\\b", "-x", "--x", "a=b"),
    *(
        "Grüße",
        "你好",
        "👍",
        "e\u0301",
        "\u202eabc",
        "a\u2028b",
        "\ufeff",
        "a\tb",
        "a\nb",
        "\x1b[31mred",
        "\x7f",
        "[bold]x",
    ),
)
NOT_UTF8 = "cut \udcf0\udc9f"
"""Bytes of a command line that are no UTF-8, as Python hands them on."""

LONG = st.sampled_from([300, 5000, 100_000]).map(lambda length: "x" * length)
DEEP = st.sampled_from([60, 1100])
"""Levels of nesting: what a parser must take, and what Python's own limit stops. Deeper is left out: it overflows the
stack of parsers written in C."""
PATHS = (
    "rows.jsonl",
    "nowhere",
    ".",
    "..",
    "rows.jsonl/x",
    "~nobody/x",
    "~/x",
    "/dev/full",
    '"a\\x00b"',
    '"\\ud83d"',
    "x" * 300,
    " x ",
)
"""For keys and options that are files or folders."""


def free_text() -> st.SearchStrategy[str]:
    """Texts without NUL, which no command line can hold, and without surrogates, which are in NOT_UTF8."""
    return st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


def words() -> st.SearchStrategy[str]:
    """What may stand after `key=`."""
    deep = DEEP.map(lambda depth: "[" * depth) | DEEP.map(lambda depth: "[" * depth + "]" * depth)
    short = [st.sampled_from(NUMBERS + WORDS), st.sampled_from(YAML), st.sampled_from(TEXTS), free_text()]
    return st.one_of(*short, *short, st.sampled_from([*HUGE, FULL_WIDTH, NOT_UTF8]) | LONG | deep)


class Raw(str):
    """JSON written as it stands: what json.dumps would not write."""


RAW = (
    *("NaN", "-Infinity", "1e999", "9" * 5000, '"\\u0000"', "1.0", "-0"),
    *('{"a": 1, "a": 2}', '{"": 1}', "tru", "'x'", "", '"\t"', "[1,]"),
)


PLAIN: list[Any] = [None, True, False, 0, -1, 1.5, 10**20, 1e308, "", " ", "x", "null", [], {}, [[]], {"a": {}}]
CANNOT_BE_ENCODED = ('"\\ud83d"', '"cut \\ud83d"', '"\\udc00 x"')
"""Halves of surrogate pairs: valid JSON, and no text."""


def json_values() -> st.SearchStrategy[Any]:
    """What may stand where a file has another value."""
    plain = st.sampled_from(PLAIN)
    deep = DEEP.map(lambda depth: Raw("[" * depth + "]" * depth)) | DEEP.map(lambda depth: Raw('{"a":' * depth))
    return st.one_of(
        plain,
        st.sampled_from(RAW).map(Raw),
        st.sampled_from(CANNOT_BE_ENCODED).map(Raw),
        st.sampled_from(TEXTS),
        st.integers(-5, 50),
        st.lists(st.integers(-1, 50), max_size=4),
        st.text(max_size=6),
        LONG,
        deep,
    )


def dumps(value: Any) -> str:
    """Write JSON with its Raw parts as they stand."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{dumps(key)}: {dumps(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dumps, value)) + "]"
    return json.dumps(value)


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with one part, at any depth, replaced, removed, renamed or given twice."""
    if not isinstance(value, (dict, list)) or not value or not draw(st.integers(0, 3)):
        return draw(json_values())
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    key = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
    change = draw(st.sampled_from(["inside", "remove", "more", "inside"]))
    if change == "inside":
        copy[key] = draw(mutated(value[key]))
    elif change == "remove":
        del copy[key]
    elif isinstance(value, list):
        copy.append(value[key])
    else:
        copy[draw(st.sampled_from(["", "1", "unassigned", "é"]))] = copy.pop(key)
    return copy


ENCODINGS = ("utf-16", "latin-1", "utf-8-sig", "utf-32")


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of a file after an accident: cut, overwritten, emptied, doubled, saved in another encoding."""
    how = draw(st.sampled_from(["cut", "overwrite", "empty", "twice", "encode", "random", "insert"]))
    place = draw(st.integers(0, max(0, len(content) - 1)))
    if how == "cut":
        return content[:place]
    if how == "empty":
        return b""
    if how == "twice":
        return content + content
    if how == "random":
        return draw(st.binary(max_size=40))
    if how == "encode":
        return content.decode("utf-8", "replace").encode(draw(st.sampled_from(ENCODINGS)), "replace")
    piece = draw(
        st.sampled_from([b"\0", b"\xff", b"\xed\xa0\xbd", b"}", b'"', b"[", b"\n", b"\r", b"\x1a"])
        | st.binary(max_size=8)
    )
    return content[:place] + piece + content[place + (len(piece) if how == "overwrite" else 0) :]
