"""Parts from outside the package: a module registers them when it is imported, a configuration names the module.

    # my_parts.py, anywhere on the import path or beside the command
    from fedlit.registry import register
    register("rule", "trimmed_mean", TrimmedMean)

    fedlit run plugins=[my_parts] method.rule=trimmed_mean method.trim=0.2

Imports nothing: the configuration reads the options of registered parts before torch is needed.
"""

import dataclasses
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from fedlit.errors import UserError

KINDS = ("adapter", "optimizer", "rule", "transform", "sampling", "availability")
METHOD_KINDS = ("adapter", "optimizer", "rule", "transform")
"""Kinds whose options are keys of `method.`."""

GIVEN = frozenset({"lr", "weight_decay", "momentum", "seed"})
"""Fields of parts that the run's own configuration fills: they are no options of a method."""

Factory = Callable[..., Any]

_registered: dict[str, dict[str, Factory]] = {kind: {} for kind in KINDS}


def register(kind: str, name: str, factory: Factory) -> None:
    """Make a part known under a name.

    Args:
        kind: of KINDS.
        name: what the configuration calls it.
        factory: a dataclass; its fields are the part's options.

    Raises:
        UserError: an unknown kind, or a name that another part has.
    """
    if kind not in KINDS:
        raise UserError(f"register: {kind!r} is no kind of part; valid are {', '.join(KINDS)}")
    if not dataclasses.is_dataclass(factory):
        raise UserError(f"register: {kind} {name} is no dataclass, whose fields would be its options; make it one")
    before = _registered[kind].get(name)
    if before is not None and (before.__module__, before.__qualname__) != (factory.__module__, factory.__qualname__):
        raise UserError(f"register: {kind} {name} is registered by {before.__module__} already; choose another name")
    _registered[kind][name] = factory


def registered(kind: str) -> Mapping[str, Factory]:
    """Return the parts of a kind that came from outside, by name."""
    return _registered[kind]


def plugin_options() -> dict[str, Any]:
    """Return the `method.` options of all registered parts and their defaults; `???` for one without."""
    options: dict[str, Any] = {}
    for kind in METHOD_KINDS:
        for factory in _registered[kind].values():
            for field in _fields(factory):
                if field.name in GIVEN:
                    continue
                options.setdefault(field.name, _default(field))
    return options


def registered_hints() -> dict[str, Any]:
    """Return what the options of registered parts accept whose default does not tell, by their annotations: plain
    values, null and lists of them.
    """
    hints: dict[str, Any] = {}
    for kind in METHOD_KINDS:
        for factory in _registered[kind].values():
            annotated = _annotations(factory)
            for field in _fields(factory):
                if _default(field) in (None, "???") and _is_plain(hint := annotated.get(field.name)):
                    hints.setdefault(field.name, hint)
    return hints


def _annotations(factory: Factory) -> Mapping[str, Any]:
    try:
        return get_type_hints(factory)
    except (NameError, TypeError):  # of names that are imported for a type checker alone
        return {}


def _is_plain(hint: Any) -> bool:
    """Tell whether a type is one that a configuration can hold."""
    if get_origin(hint) in (UnionType, Union, list):
        return all(map(_is_plain, get_args(hint)))
    return hint in (int, float, str, bool, NoneType)


def option_names(factory: Factory) -> tuple[str, ...]:
    """Return the names of a registered part's options."""
    return tuple(field.name for field in _fields(factory))


def _fields(factory: Factory) -> "tuple[dataclasses.Field[Any], ...]":
    return dataclasses.fields(factory)  # type: ignore[arg-type]  # `register` takes dataclasses only


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default is not dataclasses.MISSING:
        return list(field.default) if isinstance(field.default, tuple) else field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else "???"


def load_plugins(modules: Sequence[str]) -> None:
    """Import the modules that register parts; the working folder is looked at after the import path.

    Raises:
        UserError: a module that cannot be imported.
    """
    here = str(Path.cwd())
    if modules and here not in sys.path:
        sys.path.append(here)
    for name in modules:
        try:
            importlib.import_module(name)
        except UserError:
            raise
        except Exception as error:
            first_line = (str(error).splitlines() or [""])[0]
            raise UserError(
                f"plugins: the module {name} cannot be imported ({type(error).__name__}: {first_line}); "
                "give the name of a Python module on PYTHONPATH or in this folder"
            ) from error
