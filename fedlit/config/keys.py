"""The dotted keys of the tree: which exist, what each accepts, and which one a misspelt key meant."""

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from types import NoneType
from typing import Any, TypeAlias, get_args, get_origin

from fedlit.config.schema import MethodConfig, RunConfig
from fedlit.errors import UserError
from fedlit.lines import cut
from fedlit.options import Option, options_of
from fedlit.recipes import takers

Hint: TypeAlias = Any
"""A type annotation such as `int`, `str | None` or `list[str]`."""

TEXT_OR_LIST: Hint = str | list[str]
"""What a recipe's option with a text default accepts: `target_modules: qkv` may become `[q_proj, v_proj]`."""

INT_OR_LIST: Hint = int | list[int]
"""What an option that may differ between clients accepts: one number for all, or a list with one for each."""

SEED, DRAW = "seed", "partition.seed"
REPEATS = (SEED, DRAW)
"""Keys whose values repeat a setting: other trainings, and other draws of the rows; no methods and no conditions."""

REPLACED = {
    "eval.deviation": "give analysis=[] in place of false, and nothing in place of true",
}
"""Keys of older versions, and what to write today."""

METHOD_FIELDS = frozenset(entry.name for entry in fields(MethodConfig)) - {"options"}
"""The keys of `method.` that every recipe has; whatever else its YAML lists is an option of its parts."""


SCHEMA: Mapping[str, Option] = {
    key: found for key, found in options_of(RunConfig, without=()).items() if key != "method.options"
}
"""Every dotted key that all runs have, in the order of the fields."""


_PLAIN = re.compile(r"[^\W\d](?:[\w ./@+-]*[\w./@+-])?")
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off"})
"""Texts that YAML takes for something else."""


def run_options(options: Mapping[str, Option]) -> dict[str, Option]:
    """Return every dotted key of a run whose method has these options."""
    return {**SCHEMA, **{f"method.{name}": found for name, found in options.items()}}


def run_keys(options: Mapping[str, Option]) -> dict[str, Hint]:
    """Return every dotted key of a run whose method has these options, and what each accepts."""
    return {key: found.hint for key, found in run_options(options).items()}


def is_section(key: str, keys: Collection[str]) -> bool:
    """Tell whether keys lie below this one; the root is ''."""
    return not key or any(known.startswith(f"{key}.") for known in keys)


def level_names(section: str, keys: Iterable[str]) -> list[str]:
    """Return the names directly below a section."""
    prefix = f"{section}." if section else ""
    return list(dict.fromkeys(key[len(prefix) :].split(".")[0] for key in keys if key.startswith(prefix)))


def unknown_key(key: str, origin: str, keys: Collection[str]) -> UserError:
    """Return the error for a key that does not exist: nearest name, valid names at its level."""
    if key in REPLACED:
        return UserError(f"{key} ({origin}) is not there any more; {REPLACED[key]}")
    if key.startswith("method.") and (others := takers(key.removeprefix("method."))):
        kind, name = others[0]
        part = f"method.transforms=[{name}]" if kind == "transform" else f"method.{kind}={name}"
        return UserError(
            f"{cut(key)} ({origin}) is an option of none of this recipe's parts, but of {part}; give that too, "
            "or leave it out"
        )
    parts = key.split(".")
    for i in range(1, len(parts)):
        whole, below = ".".join(parts[:i]), ".".join(parts[i:])
        if whole in keys and whole in SCHEMA and get_origin(SCHEMA[whole].hint) is dict:
            remedy = f"{whole} is one mapping; give {whole}={{{cut(below)}: ...}}"
            return UserError(f"unknown key {cut(key)!r} ({origin}): {remedy}")
    depth = max(i for i in range(len(parts)) if is_section(".".join(parts[:i]), keys))
    section = ".".join(parts[:depth])
    names = level_names(section, keys)
    where = f"names in {section}" if section else "names"
    guess = _nearest_keys(parts, depth, keys)
    return UserError(f"unknown key {cut(key)!r} ({origin}){guess} Valid {where}: {', '.join(names)}")


def _nearest_keys(parts: list[str], depth: int, keys: Collection[str]) -> str:
    """Return '; did you mean ...?', first from the same level, then from the last part of any key, or a full stop.

    `parts` are those of an unknown key, the first `depth` of which exist.
    """
    if near := get_close_matches(parts[depth], level_names(".".join(parts[:depth]), keys), n=1, cutoff=0.7):
        mended = ".".join([*parts[:depth], near[0]])
        whole = ".".join([mended, *parts[depth + 1 :]])
        return f"; did you mean {(whole if whole in keys else mended)!r}?"
    leaves = get_close_matches(parts[-1], {key.rsplit(".", 1)[-1] for key in keys}, n=1, cutoff=0.7)
    meant = [repr(key) for key in keys if key.rsplit(".", 1)[-1] in leaves]
    return f"; did you mean {' or '.join(meant)}?" if meant else "."


def nearest(value: object, valid: Iterable[str]) -> str:
    """Return '; did you mean ...?' for the valid value nearest to this one, or a full stop if none is near."""
    near = get_close_matches(str(value), list(valid), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else "."


def short_name(key: str) -> str:
    """Return what a key is called in names and tables: its last part, or `draw` for the seed of the partition."""
    return "draw" if key == DRAW else key.rsplit(".", maxsplit=1)[-1]


def show(value: Any) -> str:
    """Write a value on one line for a person; of a long one the beginning."""
    if isinstance(value, str) and value and value.isprintable() and value == value.strip() and value != "null":
        return cut(value)
    return cut(as_argument(value))


def as_argument(value: Any) -> str:
    """Write a value on one line, whole, so that the command line gives it back."""
    if isinstance(value, str):
        plain = value.isprintable() and value == value.strip() and value not in ("", "null") and value[0] not in "'\"["
        return value if plain else _quoted(value)
    return _inside(value)


def _inside(value: Any) -> str:
    """Write a value as it stands in a list or a mapping, where a comma in a text would begin the next."""
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else _quoted(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_inside, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_inside(name)}: {_inside(part)}' for name, part in value.items())}}}"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _quoted(text: str) -> str:
    """Return a text in double quotes as JSON and YAML have them, every character that is not printable as an escape."""
    quoted = json.dumps(text, ensure_ascii=False)
    if quoted.isprintable():
        return quoted
    return "".join(
        char if char.isprintable() else f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
        for char in quoted
    )


def is_list(hint: Hint) -> bool:
    """Tell whether an annotation is `list[...]` itself, not a union with one."""
    origin: Any = get_origin(hint)
    return origin is list


def is_mapping(hint: Hint) -> bool:
    """Tell whether an annotation is `dict[...]`."""
    origin: Any = get_origin(hint)
    return origin is dict


def parts(hint: Hint) -> tuple[Hint, ...]:
    """Return the members of a union, or the annotation itself."""
    return (hint,) if is_list(hint) or is_mapping(hint) else get_args(hint) or (hint,)


def describe(hint: Hint) -> str:
    """Name what a key accepts, in words."""
    names = {int: "integer", float: "number", bool: "true or false", str: "text", NoneType: "null", Any: "any value"}
    if is_list(hint):
        return f"list of {describe(get_args(hint)[0])}".replace("list of any value", "list")
    if is_mapping(hint):
        return "mapping"
    if get_args(hint):
        return " or ".join(describe(part) for part in get_args(hint))
    return names.get(hint, getattr(hint, "__name__", str(hint)))
