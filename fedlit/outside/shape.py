"""What a part must be, seen when it is registered: its methods, its attributes, and options that YAML can hold."""

import dataclasses
from collections.abc import Mapping, Sequence
from inspect import get_annotations
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fedlit.errors import UserError
from fedlit.options import FILLED, REQUIRED, plain
from fedlit.outside.kinds import KINDS, METHOD_KINDS, RESERVED, VALUE_KINDS


def annotations(factory: Any) -> Mapping[str, Any]:
    """Return the types of a part's fields; none where they name what is imported for a type checker alone."""
    try:
        return get_type_hints(factory)
    except (NameError, TypeError):
        return {}


def is_plain(hint: Any) -> bool:
    """Tell whether a type is a plain value, null or a list of them."""
    if get_origin(hint) in (UnionType, Union, list):
        return all(map(is_plain, get_args(hint)))
    return hint in (int, float, str, bool, NoneType)


def option_fields(factory: Any) -> "list[dataclasses.Field[Any]]":
    """Return the fields of a part that it is made with."""
    return [entry for entry in dataclasses.fields(factory) if entry.init]


def default_of(entry: "dataclasses.Field[Any]") -> Any:
    """Return a field's default as a configuration holds it; REQUIRED without one."""
    if entry.default is not dataclasses.MISSING:
        return plain(entry.default)
    return plain(entry.default_factory()) if entry.default_factory is not dataclasses.MISSING else REQUIRED


def require_shape(told: str, kind: str, factory: Any) -> None:
    """Raise a UserError, which begins with `told`, unless a part is what its kind asks for."""
    wanted = KINDS[kind]
    if kind in VALUE_KINDS:
        if not dataclasses.is_dataclass(factory) or isinstance(factory, type):
            raise UserError(f"{told} is {_article(factory)}; give a {wanted.base}(...) of fedlit.plugins")
        part: type = type(factory)
    elif not isinstance(factory, type) or not _is_dataclass(factory):
        raise UserError(
            f"{told} is no dataclass, whose fields would be its options; make it one: @dataclass over the class, below "
            "@register"
        )
    else:
        part = factory
    missing = sorted(getattr(part, "__abstractmethods__", ())) or [
        name for name in wanted.needs if not _has(part, name)
    ]
    if missing:
        raise UserError(
            f"{told} lacks {missing[0]}, which every {kind} must offer; write it, in a class below "
            f"fedlit.plugins.{wanted.base}"
        )
    if kind not in VALUE_KINDS:
        _require_options(told, kind, part)


def _is_dataclass(factory: type) -> bool:
    """Tell whether the fields of a class, its own among them, are those of a dataclass."""
    return dataclasses.is_dataclass(factory) and get_annotations(factory).keys() <= factory.__dataclass_fields__.keys()


def _article(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"of the type {type(value).__name__}"


def _has(part: type, name: str) -> bool:
    """Tell whether a class or one that it is made of defines a name, as an attribute or as a field."""
    fields_of = getattr(part, "__dataclass_fields__", {})
    return name in fields_of or any(name in base.__dict__ for base in part.__mro__ if base is not object)


def _require_options(told: str, kind: str, factory: Any) -> None:
    hints = annotations(factory)
    for entry in option_fields(factory):
        if kind in METHOD_KINDS and entry.name in RESERVED:
            raise UserError(f"{told}: its option {entry.name} is a key that every method has; call it something else")
        if entry.name in FILLED and kind in METHOD_KINDS:
            continue
        default = default_of(entry)
        if not _can_be_held(hints.get(entry.name, Any)) or not _is_held(default):
            hint = hints.get(entry.name, type(default))
            kept = getattr(hint, "__name__", None) or str(hint)
            raise UserError(
                f"{told}: its option {entry.name} has the type {kept}, which no configuration can hold; take numbers, "
                "texts, truth values, None, lists or mappings of them, or field(init=False)"
            )


def _can_be_held(hint: Any) -> bool:
    base, parts = get_origin(hint), get_args(hint)
    if base is Literal:
        return all(isinstance(value, int | float | str | bool | None) for value in parts)
    if base in (UnionType, Union, list, tuple, dict, Sequence, Mapping):
        return all(part is Ellipsis or _can_be_held(part) for part in parts)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return all(map(_can_be_held, annotations(hint).values()))
    return hint in (int, float, str, bool, NoneType, None, Any, list, tuple, dict, Mapping, Sequence)


def _is_held(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _is_held(part) for name, part in value.items())
    return all(map(_is_held, value)) if isinstance(value, list) else isinstance(value, int | float | str | bool | None)
