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
from typing import Any

from fedlit.errors import UserError

KINDS = ("adapter", "optimizer", "rule", "transform", "sampling", "availability")
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


def option_names(factory: Factory) -> tuple[str, ...]:
    """Return the names of a registered part's options."""
    return tuple(field.name for field in dataclasses.fields(factory))  # type: ignore[arg-type]  # a dataclass


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
