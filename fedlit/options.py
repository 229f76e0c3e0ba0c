"""Options are typed where a part is written: its dataclass says of each option the default, the meaning and the range.

    @dataclass(frozen=True, kw_only=True)
    class TrimmedMean(AggregationRule):
        trim: float = option(0.1, "share of the clients left out at either end", range=FRACTION)

A plain field is an option too, of the annotation's type and without a line of help. A field that is a dataclass is a
section: its options have dotted names. Torch is not imported here, so that a mistake is told before it is.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import or_
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from fedlit.ranges import Range

REQUIRED = "???"
"""The default of an option without one; what a YAML file writes where only the user knows the value."""

FILLED = frozenset({"lr", "weight_decay", "momentum", "seed"})
"""Fields of parts that the run's own configuration fills: they are no options."""

Values: TypeAlias = tuple[str, ...] | Callable[[], tuple[str, ...]] | None
"""The texts that an option takes; a function where parts from outside may add to them."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a part.

    name: dotted below a section. hint: the annotation, of int, float, str, bool, None, lists and mappings of them and
    unions, or Any. default: as a configuration holds it, REQUIRED if the user must give one. help: one line.
    range: of a number, or of each number of a list. values: the texts that it takes; a list of texts is free.
    """

    name: str
    hint: Any
    default: Any = REQUIRED
    help: str = ""
    range: Range | None = None
    values: Values = None

    @property
    def valid(self) -> tuple[str, ...]:
        """The texts that it takes; empty where any will do."""
        return self.values() if callable(self.values) else self.values or ()


def option(default: Any = REQUIRED, help: str = "", *, range: Range | None = None, values: Values = None) -> Any:
    """Return the field of a dataclass that is an option.

    Args:
        default: REQUIRED, or left out, if the user must give one; of a list as a tuple.
        help: one line for `fedlit help`: the meaning, the unit, what null stands for.
        range: of `fedlit.ranges`, for a number or each number of a list. Null passes where the annotation allows it.
        values: the texts that it takes, or a function that returns them.
    """
    metadata = {"help": help, "range": range, "values": values}
    if isinstance(default, str) and default == REQUIRED:
        return field(metadata=metadata, kw_only=True)
    if isinstance(default, tuple):  # for a list, of which every instance needs its own
        return field(default_factory=partial(list, default), metadata=metadata)
    return field(default=default, metadata=metadata)


def options_of(part: Any, bound: Collection[str] = (), prefix: str = "") -> dict[str, Option]:
    """Return the options of a part by their dotted names: the fields of its dataclass, those of a section in its place.

    Args:
        part: a dataclass.
        bound: names of fields that are settled already.
        prefix: the section that it stands in, with its dot.
    """
    found: dict[str, Option] = {}
    hints = _hints(part)
    for entry in dataclasses.fields(part):
        if not entry.init or (not prefix and entry.name in FILLED) or entry.name in bound:
            continue
        hint, name = hints.get(entry.name), prefix + entry.name
        if dataclasses.is_dataclass(hint):
            found |= options_of(hint, prefix=f"{name}.")
            continue
        default = plain(_default(entry))
        values = entry.metadata.get("values")
        if get_origin(hint) is Literal and all(isinstance(text, str) for text in get_args(hint)):
            hint, values = str, values or get_args(hint)
        hint = _plain_hint(hint, default)
        found[name] = Option(name, hint, default, entry.metadata.get("help", ""), entry.metadata.get("range"), values)
    return found


def plain(value: Any) -> Any:
    """Return a value as a configuration holds it: tuples are lists, dataclasses mappings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: plain(part) for name, part in dataclasses.asdict(value).items()}
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by dotted names as mappings inside one another."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *sections, last = name.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return tree


def _default(entry: "dataclasses.Field[Any]") -> Any:
    if entry.default is not dataclasses.MISSING:
        return entry.default
    return entry.default_factory() if entry.default_factory is not dataclasses.MISSING else REQUIRED


def _hints(part: Any) -> Mapping[str, Any]:
    try:
        return get_type_hints(part)
    except (NameError, TypeError):  # of names that are imported for a type checker alone
        return {}


def _plain_hint(hint: Any, default: Any) -> Any:
    """Return an annotation in the types that a configuration holds; of any other, what the default tells."""
    members = list(_rewritten(hint))
    if all(map(_is_plain, members)):
        return reduce(or_, members)
    kind = type(default)
    return kind if kind in (int, float, str, bool) and default != REQUIRED else list[Any] if kind is list else Any


def _rewritten(hint: Any) -> Iterator[Any]:
    """Yield the members of a union, or the annotation itself, with lists for sequences and dict for mappings."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (UnionType, Union):
        for part in parts:
            yield from _rewritten(part)
    elif origin in (list, tuple, Sequence) and parts and len(inner := list(_rewritten(parts[0]))) == 1:
        yield list[inner[0]]  # type: ignore[valid-type]  # the element type is data
    elif origin in (dict, Mapping) or hint in (dict, Mapping):
        yield dict[str, Any]
    else:
        yield hint


def _is_plain(hint: Any) -> bool:
    """Tell whether a type is one that a configuration can hold."""
    if get_origin(hint) is list:
        return all(map(_is_plain, get_args(hint)))
    return hint in (int, float, str, bool, NoneType, Any) or get_origin(hint) is dict
