"""The algebra of a sweep's cells: combinations of axes, what a user's arguments pick of them, and the cells' names."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from fedlit.config.keys import as_argument, short_name

Settings: TypeAlias = Mapping[str, Any]
"""Values by dotted key, or by group: `{"model": "roberta-base", "num_rounds": 50}`."""

Axis: TypeAlias = tuple[Settings, ...]
Grid: TypeAlias = tuple[Axis, ...]


def single(settings: Settings) -> Grid:
    """Return the grid whose only cell has these settings."""
    return tuple(({key: value},) for key, value in settings.items())


def combinations(grid: Grid) -> Iterator[Settings]:
    """Yield the settings of every cell of a grid, the last axis varying fastest."""
    for entries in itertools.product(*grid):
        yield {key: value for entry in entries for key, value in entry.items()}


def is_part(part: Settings, whole: Settings) -> bool:
    """Tell whether settings have all these values."""
    return all(key in whole and whole[key] == value for key, value in part.items())


def values_by_key(grids: Sequence[Grid]) -> dict[str, list[Any]]:
    """Return the values that each key of an axis has anywhere in the grids."""
    values: dict[str, list[Any]] = {}
    for entry in (entry for grid in grids for axis in grid for entry in axis):
        for key, value in entry.items():
            if value not in values.setdefault(key, []):
                values[key].append(value)
    return values


def choose(grid: Grid, key: str, values: Sequence[Any], known: Sequence[Any]) -> Grid:
    """Return a grid with these values of a key, which has the values `known` in the sweep."""
    optional = key.startswith("method.")
    held_by = [axis for axis in grid if any(key in entry for entry in axis)]
    if not held_by:
        return grid if optional else (*grid, tuple({key: value} for value in values))

    def chosen(axis: Axis) -> Axis:
        entries: list[Settings] = []
        for value, entry in itertools.product(values, axis):
            left_alone = optional and key not in entry
            if not left_alone and value in known and entry.get(key, value) != value:
                continue
            changed = entry if left_alone else {**entry, key: value}
            if changed not in entries:
                entries.append(changed)
        return tuple(entries)

    return tuple(chosen(axis) if axis in held_by else axis for axis in grid)


def naming_keys(cells: Sequence[Settings]) -> list[str]:
    """Return the first keys, in the order of the file, that suffice to tell all cells apart."""
    chosen: list[str] = []
    names = [""] * len(cells)
    for key in dict.fromkeys(key for settings in cells for key in settings):
        longer = [f"{name}-{_part(settings, key)}" for name, settings in zip(names, cells, strict=True)]
        if len(set(longer)) > len(set(names)):
            chosen.append(key)
            names = longer
    return chosen


def cell_names(cells: Sequence[Settings], keys: Sequence[str]) -> list[str]:
    """Return the cells' names, of these keys and of whatever else tells them apart under the user's arguments."""
    names = [cell_name(settings, keys) for settings in cells]
    if len(set(names)) < len(names):
        more = [key for key in naming_keys(cells) if key not in keys]
        names = [cell_name(settings, [*keys, *more]) for settings in cells]
    assert len(set(names)) == len(names), "cells that differ have one name"
    return names


def cell_name(settings: Settings, keys: Sequence[str]) -> str:
    """Return `roberta-base-lora_rank4-seed0`: texts as they stand, other values after the short name of their key."""
    return "-".join(_part(settings, key) for key in keys if key in settings)


def _part(settings: Settings, key: str) -> str:
    if key not in settings:
        return ""
    value, leaf = settings[key], short_name(key)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    text = str(value) if isinstance(value, str) else f"{leaf}{'' if is_number else '-'}{as_argument(value)}"
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-")


def written(settings: Settings) -> str:
    """Write settings on one line, as the command line takes them."""
    return ", ".join(f"{key}={as_argument(value)}" for key, value in settings.items())
