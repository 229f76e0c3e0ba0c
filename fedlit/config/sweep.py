"""A sweep: configs/sweep/<name>.yaml expands into the grid of cells of one table, each with the arguments of its run.

    experiment: scl_table2        # every cell starts from configs/experiment/scl_table2.yaml
    axes:                         # one cell for every combination; the first axis varies slowest
      data: [medquad, dolly]      # an axis is named after the key whose values it lists
      model:                      # or lists mappings of keys that go together, under any name
        - {model: roberta-base, num_rounds: 50}
        - {model: roberta-large, num_rounds: 15}
      seed: [0, 1, 2]
    grids:                        # for a table with holes: each grid has axes of its own, which vary more slowly
      - method: [fedit, fedex_lora]
      - {method: [centralized], num_clients: [3]}

Neither torch nor lightning is imported here. Cells stand in the order of the file, so that their numbers from 0 can
index the jobs of an array.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from fedlit.config.keys import Hint, nearest, run_keys, show, unknown_key
from fedlit.config.loading import (
    COMMAND_LINE,
    CONFIG_DIR,
    DEFAULT_CHOICES,
    GroupFile,
    all_options,
    parse_text,
    read_choice,
    split_arguments,
)
from fedlit.config.tree import SWITCHED, Setting, flatten, parse_yaml, settle_layer
from fedlit.errors import UserError

Settings: TypeAlias = Mapping[str, Any]
"""Values by dotted key, or by group: `{"model": "roberta-base", "num_rounds": 50}`."""

Axis: TypeAlias = tuple[Settings, ...]
Grid: TypeAlias = tuple[Axis, ...]

SWEEP_KEYS = ("experiment", "axes", "grids")

SET_BY_SWEEP = {"experiment": "the sweep names it", "run.name": "every cell has a name of its own"}
"""Keys that a user cannot override, and why."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a sweep.

    name: that of its run folder, unique in the sweep: the sweep's name and what varies. arguments: its command line.
    settings: its values on the axes, by group (`model`) or dotted key. folder: its run folder.
    """

    name: str
    arguments: list[str]
    settings: Settings
    folder: Path


@dataclass(frozen=True, slots=True)
class Sweep:
    """A parsed file of configs/sweep; `keys` are those of a run and what each accepts, the groups among them."""

    name: str
    origin: str
    experiment: str
    grids: tuple[Grid, ...]
    keys: Mapping[str, Hint]

    def cells(self, overrides: Sequence[str] = ()) -> list[Cell]:
        """Return the cells in the order of the file, under a user's own arguments.

        An argument for a key that no axis has goes to every cell. One for a key of an axis picks the cells with this
        value, `method=scl` or `seed=[0, 1]`; a value that no cell has takes the place of those in the file. An option
        of a method leaves alone the cells whose method does not have it in the file.

        Raises:
            UserError: arguments that are no `key=value`, that the sweep sets itself, or that no cell fits.
        """
        texts = split_arguments(overrides)
        for key in sorted(SET_BY_SWEEP.keys() & texts.keys()):
            raise UserError(
                f"{key}={texts[key]} ({COMMAND_LINE}) cannot be given with a sweep: {SET_BY_SWEEP[key]}; leave it out"
            )
        known = _values_by_key(self.grids)
        for given, other in SWITCHED.items():
            if given in texts and other in known:
                texts.setdefault(other, "null")
        grids = list(self.grids)
        for key in (key for key in texts if key in known):
            values = self._asked_values(key, texts[key], known[key])
            grids = [_choose(grid, key, values, known[key]) for grid in grids]
        runs = Path(texts.pop("run.dir", f"runs/{self.name}"))
        group = [] if "logging.group" in texts else [f"logging.group={self.name}"]
        others = [f"{key}={text}" for key, text in texts.items() if key not in known]
        all_settings = [settings for grid in grids for settings in _combinations(grid)]
        distinct = [settings for i, settings in enumerate(all_settings) if settings not in all_settings[:i]]
        if not distinct:
            asked = ", ".join(f"{key}={text}" for key, text in texts.items() if key in known)
            raise UserError(f"{self.origin} has no cell with {asked} ({COMMAND_LINE}); leave one of them out")
        # Of all cells of the file, so that a cell has the same name however many are picked.
        naming = _naming_keys([settings for grid in self.grids for settings in _combinations(grid)])
        names = [f"{self.name}-{name}".rstrip("-") for name in _names(distinct, naming)]
        return [
            Cell(
                name,
                [*self._arguments(settings), *others, *group, f"run.dir={runs}", f"run.name={name}"],
                settings,
                runs / name,
            )
            for name, settings in zip(names, distinct, strict=True)
        ]

    def _arguments(self, settings: Settings) -> list[str]:
        return [f"experiment={self.experiment}", *(f"{key}={show(value)}" for key, value in settings.items())]

    def _asked_values(self, key: str, text: str, known: Sequence[Any]) -> list[Any]:
        """Return the values of an argument for the key of an axis: a list is several, unless the axis holds lists."""
        if not text.startswith("["):
            return [parse_text(text, self.keys[key], f"{key}={show(text)} ({COMMAND_LINE})")]
        values: list[Any] = parse_yaml(text, f"{key}={show(text)} ({COMMAND_LINE})")
        if any(isinstance(value, list) for value in known) and not any(isinstance(value, list) for value in values):
            return [values]
        if not values:
            raise UserError(f"{key}=[] ({COMMAND_LINE}) names no value; give at least one, or leave it out")
        return values


def load_sweep(name: str, config_dir: Path = CONFIG_DIR) -> Sweep:
    """Return the sweep of configs/sweep/<name>.yaml.

    Raises:
        UserError: one line that names the file and the key: an unknown sweep, experiment, choice or key, an axis
            without values, two axes with one key, two equal cells.
    """
    file = read_choice(config_dir, "sweep", name)
    for key in (key for key in file.content if key not in SWEEP_KEYS):
        raise UserError(
            f"unknown key {key!r} ({file.origin}){nearest(key, SWEEP_KEYS)} "
            f"Valid names: {', '.join(SWEEP_KEYS)}; what varies stands below axes"
        )
    experiment = file.content.get("experiment")
    if experiment is None:
        raise UserError(f"{file.origin} names no experiment; add a line 'experiment: <name of a file in experiment/>'")
    read_choice(config_dir, "experiment", str(experiment), file.origin)
    keys = {**dict.fromkeys(DEFAULT_CHOICES, str), **run_keys(all_options(config_dir))}
    common = _axes(file.content.get("axes") or {}, keys, file.origin)
    parts = file.content.get("grids") or [{}]
    if not isinstance(parts, list):
        raise UserError(f"{file.origin}: grids={show(parts)} is no list; write '- <axis>: [<values>]' for each grid")
    grids = tuple((*_axes(part, keys, file.origin), *common) for part in parts)
    _require_choices(grids, config_dir, file)
    _require_distinct(grids, file.origin)
    return Sweep(name.replace("/", "-"), file.origin, str(experiment), grids, keys)


def _axes(content: Any, keys: Mapping[str, Hint], origin: str) -> Grid:
    """Return the axes of a mapping from their names to lists of values, or of mappings."""
    if not isinstance(content, Mapping):
        raise UserError(f"{origin}: {show(content)} is no set of axes; write one '<axis>: [<values>]' on each line")
    axes = []
    for name, values in content.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"axis {name}={show(values)} ({origin}) has no values; write them as a list, [1, 2]")
        axes.append(tuple(_entry(str(name), value, keys, origin) for value in values))
    return tuple(axes)


def _entry(name: str, value: Any, keys: Mapping[str, Hint], origin: str) -> Settings:
    """Return one value of an axis as settings; a mapping may be nested."""
    content = value if isinstance(value, Mapping) else {name: value}
    settings: list[Setting] = []
    for key, part in content.items():
        if key.split(".")[0] not in {known.split(".")[0] for known in keys}:
            raise unknown_key(key, origin, keys)
        settings.extend(flatten(part, key, keys, origin))
    settle_layer(settings)  # for its error: a key with two values
    return {setting.key: setting.value for setting in settings}


def _require_choices(grids: Sequence[Grid], config_dir: Path, file: GroupFile) -> None:
    """Refuse picks of files that do not exist."""
    for key, values in _values_by_key(grids).items():
        for value in values if key in DEFAULT_CHOICES else ():
            read_choice(config_dir, key, str(value), file.origin)


def _require_distinct(grids: Sequence[Grid], origin: str) -> None:
    """Refuse two axes with one key in a grid, and cells that cannot be told apart."""
    for grid in grids:
        for one, other in itertools.combinations(grid, 2):
            for key in {key for entry in one for key in entry} & {key for entry in other for key in entry}:
                raise UserError(f"{key} ({origin}) stands in two axes of one grid; leave it out of one of them")
    cells = [settings for grid in grids for settings in _combinations(grid)]
    names = [_name(settings, sorted(settings)) for settings in cells]
    for i, name in enumerate(names):
        if (first := names.index(name)) != i:
            what = ", ".join(f"{key}={show(value)}" for key, value in cells[i].items())
            raise UserError(f"cells {first} and {i} ({origin}) are the same: {what}; leave one of them out")


def _combinations(grid: Grid) -> Iterator[Settings]:
    """Yield the settings of every cell of a grid, the last axis varying fastest."""
    for entries in itertools.product(*grid):
        yield {key: value for entry in entries for key, value in entry.items()}


def _values_by_key(grids: Sequence[Grid]) -> dict[str, list[Any]]:
    """Return the values that each key of an axis has anywhere in the sweep."""
    values: dict[str, list[Any]] = {}
    for entry in (entry for grid in grids for axis in grid for entry in axis):
        for key, value in entry.items():
            if value not in values.setdefault(key, []):
                values[key].append(value)
    return values


def _choose(grid: Grid, key: str, values: Sequence[Any], known: Sequence[Any]) -> Grid:
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


def _naming_keys(cells: Sequence[Settings]) -> list[str]:
    """Return the first keys, in the order of the file, that suffice to tell all cells apart."""
    chosen: list[str] = []
    num_told_apart = 1
    for key in dict.fromkeys(key for settings in cells for key in settings):
        num = len({_name(settings, [*chosen, key]) for settings in cells})
        if num > num_told_apart:
            chosen.append(key)
            num_told_apart = num
    return chosen


def _names(cells: Sequence[Settings], keys: Sequence[str]) -> list[str]:
    """Return the cells' names, of these keys and of whatever else tells them apart under the user's arguments."""
    names = [_name(settings, keys) for settings in cells]
    if len(set(names)) < len(names):
        more = [key for key in _naming_keys(cells) if key not in keys]
        names = [_name(settings, [*keys, *more]) for settings in cells]
    assert len(set(names)) == len(names), "cells that differ have one name"
    return names


def _name(settings: Settings, keys: Sequence[str]) -> str:
    """Return `roberta-base-lora_rank4-seed0`: texts as they stand, other values after the last part of their key."""
    parts = []
    for key in keys:
        if key in settings:
            value, leaf = settings[key], key.rsplit(".", maxsplit=1)[-1]
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            text = str(value) if isinstance(value, str) else f"{leaf}{'' if is_number else '-'}{show(value)}"
            parts.append(re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-"))
    return "-".join(parts)
