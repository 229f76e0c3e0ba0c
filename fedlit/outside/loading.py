"""Modules that bring parts from outside: those that `plugins=` names, and installed ones with an entry point.

An installed distribution whose pyproject.toml says

    [project.entry-points."fedlit.plugins"]
    trimmed = "trimmed.parts"

is found without any configuration. Its module is imported only when a configuration names a part that is not known
otherwise, so that a slow or broken plugin costs nothing to the runs that do not use it; a listing reads metadata alone.
"""

import importlib
import linecache
import re
import sys
import sysconfig
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from fedlit.errors import UserError
from fedlit.lines import cut
from fedlit.outside.kinds import KINDS
from fedlit.registry import origin, registered, require_known, shown_path, snapshot

GROUP = "fedlit.plugins"
"""The group of entry points."""


@dataclass(frozen=True, slots=True)
class InstalledPlugin:
    """An entry point, as metadata tell it: nothing is imported."""

    name: str
    module: str
    distribution: str
    version: str


def installed_plugins() -> list[InstalledPlugin]:
    """Return the entry points of all installed distributions, in the order of their names."""
    found = [
        InstalledPlugin(entry.name, entry.module, entry.dist.name if entry.dist else "?", _version(entry))
        for entry in entry_points(group=GROUP)
    ]
    return sorted(set(found), key=lambda plugin: (plugin.name, plugin.module, plugin.version))


def _version(entry: Any) -> str:
    return str(entry.dist.version) if entry.dist else "?"


def describe_installed() -> list[str]:
    """Return one line for every installed plugin, for a listing."""
    return [f"{one.name}: {one.module} ({one.distribution} {one.version})" for one in installed_plugins()]


def load_plugins(modules: Sequence[str]) -> None:
    """Import the modules that register parts; the working folder is looked at after the import path.

    Raises:
        UserError: a module that cannot be imported, or a part that is not what its kind asks for.
    """
    here = str(Path.cwd())
    if modules and here not in sys.path:
        sys.path.append(here)
    for name in modules:
        _import(name, "plugins")


def _import(name: str, told: str) -> None:
    """Import a module; one that fails leaves no part behind."""
    restore = snapshot()
    try:
        module = importlib.import_module(name)
    except UserError:
        restore()
        raise
    except (Exception, SystemExit) as error:
        restore()
        raise UserError(_why(name, told, error)) from error
    if module.__spec__ is not None and module.__spec__.origin is None and hasattr(module, "__path__"):
        files = sorted(path.stem for folder in module.__path__ for path in Path(folder).glob("*.py"))
        such = f"{name}.{files[0]}" if files else f"{name}.<module>"
        raise UserError(
            f"{told}: {name} is a folder without __init__.py, whose modules nobody imports; give {told}=[{such}], or "
            "add an __init__.py that imports them"
        )


def _why(name: str, told: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name is not None and f"{name}.".startswith(f"{error.name}."):
        return (
            f"{told}: the module {name} cannot be imported (there is no {error.name}); "
            "give the name of a Python module on PYTHONPATH or in this folder"
        )
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    first_line = (text.splitlines() or [""])[0]
    what = f"{type(error).__name__}: {cut(first_line, 120)}"
    place = f" at {place}" if (place := _own_place(error)) else ""
    return f"{told}: the module {name} cannot be imported ({what}{place}); mend it, or leave it out of {told}"


def _own_place(error: BaseException) -> str:
    """Return file and line of the innermost frame that is nobody's library."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown_path(error.filename)}:{error.lineno}"
    libraries = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    own = Path(__file__).parent
    frames = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__, limit=200)
        if not frame.filename.startswith("<") and not Path(frame.filename).is_relative_to(own)
    ]
    outside = [each for each in frames if not each[0].startswith(tuple(libraries))] or frames
    linecache.checkcache()
    return f"{shown_path(outside[-1][0])}:{outside[-1][1]}" if outside else ""


def find_parts(*layers: Mapping[str, Any]) -> None:
    """Import installed plugins, in the order of their names, until every part that a configuration names is known.

    Args:
        layers: mappings, nested or with dotted keys, of a configuration's files and its command line; a list may be the
            text `[a, b]`.

    Raises:
        UserError: a part stays unknown, and an installed plugin that may have it cannot be imported.
    """
    named = {part for layer in layers for part in named_parts(layer)}
    broken: dict[str, UserError] = {}
    for plugin in installed_plugins() if _unknown(named) else ():
        if not _unknown(named):
            return
        try:
            _import(plugin.module, f"the installed plugin {plugin.name} ({plugin.distribution} {plugin.version})")
        except UserError as error:
            broken[plugin.name] = error
    if broken and (missing := _unknown(named)):
        kind, name = missing[0]
        raise UserError(f"{KINDS[kind].keys[0]}={name} is not known, and {next(iter(broken.values()))}")


def find_recipe(name: str) -> bool:
    """Tell whether there is a recipe from outside of this name; installed plugins are asked for one.

    Raises:
        UserError: it names a part that nobody has.
    """
    if name not in registered("recipe"):
        find_parts({"method.name": name})
    if name not in registered("recipe"):
        return False
    for kind, part in registered("recipe")[name].parts():
        find_parts({KINDS[kind].keys[0]: part})
        require_known(kind, part, f"the recipe {name} ({origin('recipe', name).place})")
    return True


def _unknown(named: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted((kind, name) for kind, name in named if name not in (*KINDS[kind].own, *registered(kind)))


def named_parts(layer: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the kind and the name of every part that a mapping names, nested or with dotted keys."""
    for name, value in layer.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from named_parts(value, f"{key}.")
        for kind, wanted in KINDS.items():
            if key in wanted.keys:
                names = value if isinstance(value, list) else re.findall(r"[^\[\]\s,'\"]+", str(value))
                yield from ((kind, _whole(kind, str(each))) for each in names if each not in (None, "null", "None"))


def _whole(kind: str, name: str) -> str:
    """Return the score that a key of the record is a part of: of `accuracy/boolq` the one before the slash."""
    return name.partition("/")[0].removesuffix("_macro") if kind == "score" and name != "f1_macro" else name
