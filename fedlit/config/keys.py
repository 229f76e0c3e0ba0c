"""The dotted keys of the tree: which exist, what each accepts, and which one a misspelt key meant."""

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from types import NoneType
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

from fedlit.config.schema import MethodConfig, RunConfig
from fedlit.errors import UserError
from fedlit.lines import cut
from fedlit.registry import registered_hints

Hint: TypeAlias = Any
"""A type annotation such as `int`, `str | None` or `list[str]`."""

TEXT_OR_LIST: Hint = str | list[str]
"""What a recipe's option with a text default accepts: `target_modules: qkv` may become `[q_proj, v_proj]`."""

INT_OR_LIST: Hint = int | list[int]
"""What an option that may differ between clients accepts: one number for all, or a list with one for each."""

OPTION_HINTS: Mapping[str, Hint] = {
    "lora_rank": INT_OR_LIST,
    "rank": int | None,
    "residual_rank": int | None,
    "init_lr": float | None,
}
"""Options of recipes that accept more than values of their default's type."""

METHOD_FIELDS = frozenset(entry.name for entry in fields(MethodConfig)) - {"options"}
"""The parts of `method.` that every recipe has; whatever else its YAML lists is an option of that recipe."""


def schema_keys(schema: Any, prefix: str = "") -> dict[str, Hint]:
    """Return every dotted key below a configuration dataclass and its annotation, in the order of the fields."""
    keys: dict[str, Hint] = {}
    for name, hint in get_type_hints(schema).items():
        keys |= schema_keys(hint, f"{prefix}{name}.") if is_dataclass(hint) else {prefix + name: hint}
    return keys


_PLAIN = re.compile(r"[^\W\d](?:[\w ./@+-]*[\w./@+-])?")
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off"})
"""Texts that YAML takes for something else."""


def option_keys(options: Mapping[str, Any], prefix: str = "method.") -> dict[str, Hint]:
    """Return every dotted key of a recipe's options and what it accepts; a nested mapping is a section of its own."""
    keys: dict[str, Hint] = {}
    for name, default in options.items():
        nested = isinstance(default, Mapping) and default
        known = {**registered_hints(), **OPTION_HINTS}
        hint = known[name] if name in known and not nested else option_hint(default)
        keys |= option_keys(default, f"{prefix}{name}.") if nested else {f"{prefix}{name}": hint}
    return keys


def option_hint(default: Any) -> Hint:
    """Return what an option accepts, told from its default: the same type.

    A number with a point accepts an integer, a text also a list of texts, and null, `???` or `{}` anything; what such
    an option of the house accepts stands in OPTION_HINTS, and a part from outside says it in its annotations.
    """
    if default in (None, "???", {}):
        return Any
    if isinstance(default, str):
        return TEXT_OR_LIST
    if isinstance(default, list):
        kinds = {type(entry) for entry in default}
        return list[kinds.pop()] if len(kinds) == 1 else list[Any]  # type: ignore[misc]  # the element type is data
    return type(default)


def run_keys(options: Mapping[str, Any]) -> dict[str, Hint]:
    """Return every dotted key of a run whose recipe has these options."""
    keys = schema_keys(RunConfig)
    del keys["method.options"]
    return keys | option_keys(options)


def is_section(key: str, keys: Collection[str]) -> bool:
    """Tell whether keys lie below this one; the root is ''."""
    return not key or any(known.startswith(f"{key}.") for known in keys)


def level_names(section: str, keys: Iterable[str]) -> list[str]:
    """Return the names directly below a section."""
    prefix = f"{section}." if section else ""
    return list(dict.fromkeys(key[len(prefix) :].split(".")[0] for key in keys if key.startswith(prefix)))


def unknown_key(key: str, origin: str, keys: Collection[str]) -> UserError:
    """Return the error for a key that does not exist: nearest name, valid names at its level."""
    parts = key.split(".")
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
