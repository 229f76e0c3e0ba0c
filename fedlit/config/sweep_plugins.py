"""Parts from outside that a sweep names: they have to be known before its keys and its methods are."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedlit.config.layers import Given, chain
from fedlit.config.loading import plugins_of
from fedlit.config.places import SUFFIXES, GroupFile, list_choices
from fedlit.outside.loading import find_parts, find_recipe, load_plugins


def make_parts_known(content: Mapping[str, Any], origin: str, place: Path, config_dir: Path) -> None:
    """Import the modules of `plugins` in a sweep, or in the experiment that it starts from, and installed ones that
    have a part which the sweep names.

    content, origin, place: of the sweep's file. Raises UserError for a module that cannot be imported.
    """
    experiment = content.get("experiment")
    below: list[GroupFile] = []
    if experiment is not None:
        below, _ = chain([GroupFile(origin, {"experiment": experiment}, place)], Given(origin, {}), config_dir)
    mappings = list(_mappings(content))
    named = [mapping["plugins"] for mapping in mappings if "plugins" in mapping]
    # An axis `plugins: [[one], [other]]` lists what its cells have.
    lists = [each for value in named for each in (value if _is_axis(value) else [value])]
    if not named:
        lists = [plugins_of(Given(origin, {}), below)]
    for value in lists:
        load_plugins(plugins_of(Given(origin, {"plugins": value}), []))
    find_parts(*mappings)
    for name in (name for mapping in mappings for name in _methods(mapping)):
        if not name.endswith(SUFFIXES) and name not in list_choices(config_dir, "method"):
            find_recipe(name)


def _mappings(content: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the mappings of a file that hold keys of runs: those below the sweep's own keys, at any depth."""
    parts = content.values() if isinstance(content, Mapping) else content if isinstance(content, list) else ()
    for part in parts:
        if isinstance(part, Mapping):
            yield part
        yield from _mappings(part)


def _is_axis(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, list) for each in value)


def _methods(mapping: Mapping[str, Any]) -> Iterator[str]:
    value = mapping.get("method")
    yield from (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str))
