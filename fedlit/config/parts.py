"""Parts whose options stand in a mapping of their own: that they exist, and that they take the options."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from fedlit.config.keys import describe, nearest, show
from fedlit.config.tree import accepts
from fedlit.options import REQUIRED, Option, options_of
from fedlit.outside.kinds import KINDS
from fedlit.registry import registered
from fedlit.round.availability.options import OPTIONS as AVAILABILITY_OPTIONS

Problem: TypeAlias = tuple[str, str]
"""A dotted key, and what is wrong with its value and what to do."""

MAPPINGS: Mapping[str, tuple[str, ...]] = {
    section: tuple(kind for kind, wanted in KINDS.items() if wanted.options == section)
    for section in dict.fromkeys(wanted.options for wanted in KINDS.values() if "." in wanted.options)
}
"""The mappings that hold options, and the kinds of the parts that take them."""

_OWN: Mapping[str, Mapping[str, type]] = {"availability": AVAILABILITY_OPTIONS}
"""Of the package's own parts of these kinds, dataclasses of their options."""


def part_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield parts of the round's plan that nobody knows; and options that no part takes, that are not of their type or
    out of range, and those that a part needs and does not get.
    """
    for kind in ("sampling", "availability"):
        (key,) = KINDS[kind].keys
        valid = [*KINDS[kind].own, *registered(kind)]
        if values[key] not in valid:
            yield key, f"is not valid{nearest(values[key], valid)} Valid values: {', '.join(valid)}"
    score = (values["eval.score"] or "").partition("/")[0].removesuffix("_macro")
    if score in registered("score") and score not in (values["data.scores"] or ()):
        yield "eval.score", f"is computed only where data.scores names it; give data.scores=[{score}] as well"
    for section, kinds in MAPPINGS.items():
        yield from _option_problems(section, values[section], _chosen(kinds, values))


def _chosen(kinds: tuple[str, ...], values: Mapping[str, Any]) -> dict[str, tuple[str, Option]]:
    """Return the options of the chosen parts by name, each with the part that takes it."""
    taken: dict[str, tuple[str, Option]] = {}
    for kind in kinds:
        for key in KINDS[kind].keys:
            given = values[key] if isinstance(values[key], list) else [values[key]]
            for name in given:
                factory = registered(kind).get(name) or _OWN.get(kind, {}).get(name)
                if factory is not None:
                    found = options_of(factory)
                    taken |= {option: (f"the {kind} {name}", entry) for option, entry in found.items()}
    return taken


def _option_problems(
    section: str, given: Mapping[str, Any], taken: Mapping[str, tuple[str, Option]]
) -> Iterator[Problem]:
    flat = dict(_flat(given, taken))
    for option, value in flat.items():
        if option not in taken:
            known = f"known are: {', '.join(sorted(taken))}" if taken else "no chosen part has options"
            yield section, f"has {show(option)}, which no part takes{nearest(option, taken)} {known.capitalize()}"
            continue
        part, entry = taken[option]
        numbers = value if isinstance(value, list) else [value]
        if not accepts(value, entry.hint):
            yield section, f"gives {part} {option}={show(value)} of the wrong type; expected: {describe(entry.hint)}"
        elif entry.range and not all(entry.range.contains(each) for each in numbers if isinstance(each, int | float)):
            yield section, f"gives {part} {option}={show(value)}, which is out of range; give {entry.range.text}"
        elif entry.valid and value not in entry.valid and isinstance(value, str):
            near = nearest(value, entry.valid)
            yield section, f"gives {part} {option}={show(value)}{near} Valid values: {', '.join(entry.valid)}"
    for option, (part, entry) in taken.items():
        if entry.default == REQUIRED and isinstance(entry.default, str) and option not in flat:
            yield section, f"lacks {option}, which {part} needs; give {section}={{{option}: <{describe(entry.hint)}>}}"


def _flat(given: Mapping[str, Any], taken: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield options by dotted name; the value of an option may be a mapping itself."""
    for name, value in given.items():
        option = f"{prefix}{name}"
        if isinstance(value, Mapping) and any(known.startswith(f"{option}.") for known in taken):
            yield from _flat(value, taken, f"{option}.")
        else:
            yield option, value
