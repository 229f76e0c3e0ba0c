"""The cells of a sweep under a user's own arguments, each with its name, its folder and its command line."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fedlit.config.grid import (
    Grid,
    Settings,
    cell_names,
    choose,
    combinations,
    is_part,
    naming_keys,
    values_by_key,
)
from fedlit.config.keys import Hint, as_argument, is_section, run_keys, show, unknown_key
from fedlit.config.layers import Given
from fedlit.config.loading import COMMAND_LINE, GROUPS, parse_text, plugins_of, split_arguments
from fedlit.config.places import SUFFIXES
from fedlit.config.reading import parse_yaml
from fedlit.config.tree import SWITCHED
from fedlit.errors import UserError
from fedlit.outside.loading import load_plugins
from fedlit.process.storage import user_path
from fedlit.recipes import all_options

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


@dataclass(frozen=True)
class Sweep:
    """A parsed file.

    name: of the file. origin: the file in messages. place: its folder, from which the paths
    of configurations in it are seen. comment: its first sentence. experiment: what every cell starts from; None for the
    defaults. base: what all cells change of the experiment. exclude: combinations of the grids that are no cells.
    extra: grids of one cell each. keys: those of a run and what each accepts, the groups among them. best: axes whose
    best value a report shows. version: of the file; each has a folder of runs of its own.
    """

    name: str
    origin: str
    place: Path
    comment: str
    experiment: str | None
    base: Settings
    grids: tuple[Grid, ...]
    exclude: tuple[Settings, ...]
    extra: tuple[Grid, ...]
    keys: Mapping[str, Hint]
    best: tuple[str, ...] = ()
    version: int = 1

    @property
    def runs_name(self) -> str:
        """What its runs' folder, their group and their jobs are called: `own`, of a later version `own-v2`."""
        return self.name if self.version == 1 else f"{self.name}-v{self.version}"

    def settings(self) -> list[Settings]:
        """Return the settings of every cell in the order of the file."""
        return self._kept(self.grids, self.extra)

    def cells(self, overrides: Sequence[str] = ()) -> list[Cell]:
        """Return the cells in the order of the file, under a user's own arguments.

        An argument for a key that no axis has goes to every cell. One for a key of an axis picks the cells with this
        value, `method=scl` or `seed=[0, 1]`; a value that no cell has takes the place of those in the file. An option
        of a method leaves alone the cells whose method does not have it in the file.

        Raises:
            UserError: arguments that are no `key=value`, that the sweep sets itself, or that no cell fits.
        """
        texts = split_arguments(overrides)
        keys = self.keys
        if "plugins" in texts:
            load_plugins(plugins_of(Given(COMMAND_LINE, texts, is_text=True), []))
            keys = {**keys, **run_keys(all_options())}
        if self.experiment is not None or "experiment" not in texts:
            set_here = SET_BY_SWEEP
        else:
            set_here = {key: why for key, why in SET_BY_SWEEP.items() if key != "experiment"}
        for key in sorted(set_here.keys() & texts.keys()):
            raise UserError(
                f"{key}={texts[key]} ({COMMAND_LINE}) cannot be given with a sweep: {SET_BY_SWEEP[key]}; leave it out"
            )
        for key in texts.keys() - {"experiment"}:
            if key not in keys and not is_section(key, keys):
                raise unknown_key(key, COMMAND_LINE, keys)
        known = values_by_key([*self.grids, *self.extra])
        for given, other in SWITCHED.items():
            if given in texts and other in known:
                texts.setdefault(other, "null")
        grids, extra = list(self.grids), list(self.extra)
        for key in (key for key in texts if key in known):
            values = self._asked_values(key, texts[key], known[key])
            if key in GROUPS:  # a path of the command line is seen from the working folder
                values = [
                    str(user_path(value).absolute())
                    if value not in known[key] and str(value).endswith(SUFFIXES)
                    else value
                    for value in values
                ]
            grids = [choose(grid, key, values, known[key]) for grid in grids]
            extra = [choose(grid, key, values, known[key]) for grid in extra]
        distinct = list({repr(sorted(settings.items())): settings for settings in self._kept(grids, extra)}.values())
        if not distinct:
            asked = ", ".join(f"{key}={text}" for key, text in texts.items() if key in known)
            raise UserError(f"{self.origin} has no cell with {asked} ({COMMAND_LINE}); leave one of them out")
        names = [f"{self.name}-{name}".rstrip("-") for name in cell_names(distinct, self._naming_keys)]
        runs = self.folder(overrides)
        logging = {**self.base, **texts}
        has_group = "logging.group" in logging or logging.get("logging.wandb") == "disabled"
        group = {} if has_group else {"logging.group": self.runs_name}
        others = {key: text for key, text in texts.items() if key not in known and key != "run.dir"}
        return [
            Cell(
                name,
                self._arguments(settings, {**group, **others, "run.dir": str(runs), "run.name": name}),
                settings,
                runs / name,
            )
            for name, settings in zip(names, distinct, strict=True)
        ]

    def folder(self, overrides: Sequence[str] = ()) -> Path:
        """Return the folder that holds the cells' run folders: `runs/<sweep>`, of a later version
        `runs/<sweep>-v2`, or what the user's `run.dir` says.
        """
        return user_path(split_arguments(overrides).get("run.dir", f"runs/{self.runs_name}"))

    @cached_property
    def _naming_keys(self) -> list[str]:
        """Of all combinations of the file, so that a cell has the same name however many are picked or left out."""
        return naming_keys([settings for grid in (*self.grids, *self.extra) for settings in combinations(grid)])

    def _kept(self, grids: Iterable[Grid], extra: Iterable[Grid]) -> list[Settings]:
        """Return the cells of these grids save the excluded ones, then the extra cells."""
        kept = (
            settings
            for grid in grids
            for settings in combinations(grid)
            if not any(is_part(excluded, settings) for excluded in self.exclude)
        )
        return [*kept, *(settings for grid in extra for settings in combinations(grid))]

    def _arguments(self, settings: Settings, others: Mapping[str, str]) -> list[str]:
        """Return a cell's command line: the experiment, then overrides < settings < the user's arguments."""
        above = {**{key: self._argument(key, value) for key, value in settings.items()}, **others}
        below = {key: self._argument(key, value) for key, value in self.base.items() if key not in above}
        for given, other in SWITCHED.items():
            if given in above:
                below.pop(other, None)
        start = {} if self.experiment is None else {"experiment": self._argument("experiment", self.experiment)}
        return [f"{key}={text}" for key, text in {**start, **below, **above}.items()]

    def _argument(self, key: str, value: Any) -> str:
        """Return a value as an argument: the path of a configuration is seen from the working folder then."""
        is_path = key in GROUPS and str(value).endswith(SUFFIXES)
        return str(self.place / user_path(str(value))) if is_path else as_argument(value)

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
