"""YAML of people: numbers are decimal, keys are text, and whatever cannot be read is one line.

YAML 1.1, which PyYAML reads, takes `010` for 8, `1:30` for 90 and `1e-3` for a text. Here `1e-3` is a number, and a
number that is not written in decimal digits is refused, since whoever wrote it may have meant another. Dates stay text,
tags other than those of plain values are refused, and nothing is expanded.
"""

import math
import re
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from fedlit.errors import UserError
from fedlit.lines import cut, printable

MAX_DEPTH = 50
"""Mappings and lists inside one another. PyYAML's parser in C ends the whole process at some ten thousand."""
MAX_VALUES = 200_000
"""Values of one text, those that an alias repeats counted each time."""
MAX_DIGITS = 1_000

_DECIMAL_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
_DECIMAL_FLOAT = re.compile(
    r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9]+(?:[eE][-+]?[0-9]+)?", re.ASCII
)
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
# What YAML 1.1 takes for a number, and leading zeros in front of any digits.
_INTEGER_LIKE = re.compile(
    r"^(?:[-+]?0b[0-1_]+|[-+]?0x[0-9a-fA-F_]+|[-+]?[0-9][0-9_]*|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$"
)
_FLOAT_LIKE = re.compile(
    r"^(?:[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map"))
_TEXT = "tag:yaml.org,2002:str"


class _Refusal(Exception):
    """What is wrong with a text that is YAML, and the remedy; line: from 1."""

    def __init__(self, what: str, mark: Any = None) -> None:
        super().__init__(what)
        self.line = None if mark is None else mark.line + 1


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Return PyYAML's table of what plain text stands for, by its first character, with numbers as above and without
    dates and `=`.
    """
    kept = ("null", "bool", "merge")
    table: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items():
        mine = [(tag, pattern) for tag, pattern in entries if tag.rpartition(":")[2] in kept]
        if mine:
            table[first] = mine
    for first in "-+.0123456789":
        numbers = [("tag:yaml.org,2002:int", _INTEGER_LIKE), ("tag:yaml.org,2002:float", _FLOAT_LIKE)]
        table[first] = [*table.get(first, []), *numbers]
    return table


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # either has the same interface
    """PyYAML's loader of plain values with these numbers and keys."""

    yaml_implicit_resolvers = _resolvers()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping whose keys are the texts that stand there, each of them once."""
        values: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Refusal("a key is a list or a mapping; write a name", key.start_mark)
            earlier = values.setdefault(key.value, value)
            if earlier is not value:
                raise _Refusal(f"duplicate key {_shown(key)}{_leave_one_out(key, earlier, value)}", key.start_mark)
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


def _leave_one_out(key: yaml.ScalarNode, *values: yaml.Node) -> str:
    """Return the remedy for two values of a key: of a choice and what it should change, both can stand."""
    mapping = next((value for value in values if isinstance(value, yaml.MappingNode) and value.value), None)
    if mapping is None or not any(isinstance(value, yaml.ScalarNode) for value in values):
        return "; leave one out"
    inner = mapping.value[0][0]
    below = _shown(inner) if isinstance(inner, yaml.ScalarNode) else "<key>"
    return f", with a value and with a mapping; write what is in the mapping as {_shown(key)}.{below}: and so on"


def _shown(node: yaml.ScalarNode) -> str:
    return cut(printable(node.value), 60)


def _integer(loader: Any, node: yaml.ScalarNode) -> int:
    loader.construct_scalar(node)  # refuses a list or a mapping below `!!int`
    if len(node.value) > MAX_DIGITS:
        raise _Refusal(f"{_shown(node)} is a number of too many digits; write a shorter one", node.start_mark)
    if not _DECIMAL_INTEGER.fullmatch(node.value):
        raise _Refusal(_no_decimal(node), node.start_mark)
    return int(node.value)


def _float(loader: Any, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node)
    if len(text) <= MAX_DIGITS and _SPECIAL_FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if len(text) > MAX_DIGITS or not _DECIMAL_FLOAT.fullmatch(text):
        raise _Refusal(_no_decimal(node), node.start_mark)
    if math.isinf(number := float(text)):
        raise _Refusal(f"{_shown(node)} is beyond what a number can hold; write a smaller one", node.start_mark)
    return number


def _boolean(loader: Any, node: yaml.ScalarNode) -> bool:
    if loader.construct_scalar(node).lower() not in loader.bool_values:
        raise _Refusal(f"{_shown(node)} is no truth value; write true or false", node.start_mark)
    return bool(loader.bool_values[node.value.lower()])


def _no_decimal(node: yaml.ScalarNode) -> str:
    return f"{_shown(node)} is no number in decimal digits; write it as 12 or 1.5e-3, or in quotes if it is a text"


def _unknown_tag(_loader: Any, node: yaml.Node) -> Any:
    raise _Refusal(f"the tag {cut(printable(node.tag), 60)} is not read; write the value itself", node.start_mark)


_Loader.yaml_constructors = {
    **{tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _TAGS},
    "tag:yaml.org,2002:int": _integer,
    "tag:yaml.org,2002:float": _float,
    "tag:yaml.org,2002:bool": _boolean,
    None: _unknown_tag,
}


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML has no annotations
    """PyYAML's dumper, which puts into quotes whatever the loader above would not take for text."""

    yaml_implicit_resolvers = _resolvers()

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value that stands in two places twice."""
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Write a text with line breaks or characters that are not printable in double quotes, as escapes."""
        return self.represent_scalar(_TEXT, data, style=None if data.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_str)


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Return plain values as YAML in their order; `parse_yaml` gives them back equal."""
    return cast(str, yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False))


def parse_yaml(text: str, origin: str) -> Any:
    """Parse YAML into plain values: None, truth values, numbers, texts, lists, mappings with texts as keys.

    Raises UserError, which names the origin and the line of the mistake.
    """
    require_text(text, origin)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise _Refusal(f"lists and mappings stand more than {MAX_DEPTH} deep; write fewer", event.start_mark)
        parsed = yaml.load(text, Loader=_Loader)
        _walk(parsed, depth=0, left=[MAX_VALUES])
    except _Refusal as refusal:
        raise UserError(f"{origin}{_line(refusal.line)}: {refusal}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = cut(printable(str(error.problem or error.context)), 120)
        raise UserError(f"{origin}{_line(mark and mark.line + 1)}: this is not valid YAML ({what}); mend it") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what = cut(" ".join(str(error).split()), 120)
        raise UserError(f"{origin}: this is not valid YAML ({what}); mend it") from None
    return parsed


def read_file(path: Path, origin: str) -> str:
    """Return the text of a file.

    Raises UserError for a file that cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        raise UserError(f"{origin}, line {line}: this is not UTF-8; write the file in UTF-8") from None
    except OSError as error:
        raise UserError(f"{origin} cannot be read ({error.strerror}); give another file, or mend this one") from None


def is_there(path: str, kind: Callable[[Path], bool] = Path.exists) -> bool:
    """Tell whether there is a file, or a folder, of this name that this process may see."""
    try:
        return kind(Path(path).expanduser())
    except (OSError, RuntimeError, ValueError):  # too long, in a closed folder, the home of nobody, with NUL
        return False


def require_text(text: str, origin: str) -> None:
    """Refuse what no file could hold: half of a surrogate pair, which a byte that is not UTF-8 becomes on the command
    line, and NUL, at which names end.

    Raises UserError.
    """
    if "\0" in text:
        raise UserError(f"{origin} holds a NUL character; leave it out")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{origin} holds {ascii(text[error.start])[1:-1]}, which is no character (bytes that are not UTF-8, or "
            "half of a surrogate pair); write it in UTF-8"
        ) from None


def _line(number: int | None) -> str:
    return f", line {number}" if number else ""


def _walk(value: Any, depth: int, left: list[int]) -> None:
    """Look at every value as often as it stands in the text: what aliases repeat without end has no end here either."""
    left[0] -= 1
    if depth > MAX_DEPTH or left[0] < 0:
        raise _Refusal(f"this is more than {MAX_VALUES:,} values, or more than {MAX_DEPTH} deep; write less")
    if isinstance(value, str):
        if "\0" in value:
            raise _Refusal("a text holds a NUL character; leave it out")
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise _Refusal("a text holds half of a surrogate pair, which is no character; leave it out")
    elif isinstance(value, list):
        for part in value:
            _walk(part, depth + 1, left)
    elif isinstance(value, dict):
        for name, part in value.items():
            _walk(name, depth + 1, left)
            _walk(part, depth + 1, left)
