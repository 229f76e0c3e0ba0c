"""A sweep: a YAML file that expands into the cells of one table, each with the arguments of its run.

    experiment: scl_table2        # every cell starts from configs/experiment/scl_table2.yaml; left out: the defaults
    overrides:                    # what all cells change of it
      num_rounds: 20
    axes:                         # one cell for every combination; the first axis varies slowest
      data: [medquad, dolly]      # an axis is named after the key whose values it lists
      model:                      # or lists mappings of keys that go together, under any name
        - {model: roberta-base, num_rounds: 50}
        - {model: roberta-large, num_rounds: 15}
      seed: [0, 1, 2]
    grids:                        # for a table with holes: each grid has axes of its own, which vary more slowly
      - method: [fedit, fedex_lora]
      - {method: [centralized], num_clients: [3]}
    exclude:                      # a combination that has all these values is no cell
      - {data: dolly, model: roberta-large}
    extra:                        # cells beside the grids, each with these values and no axis
      - {method: local_only, data: medquad, seed: 0}
    best: [local.lr]              # axes of which 'fedlit report' shows the best value only, chosen on validation
    version: 2                    # of a changed sweep: its runs go to runs/<sweep>-v2, and those of before stay

An experiment, a data set, a model or a method may be the path of a YAML file, seen from the sweep's own folder.

Neither torch nor lightning is imported here. Cells stand in the order of the file, the extra ones last, so that their
numbers from 0 can index the jobs of an array.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from fedlit.config.cells import Cell, Sweep
from fedlit.config.grid import Axis, Grid, Settings, cell_name, combinations, is_part, single, values_by_key, written
from fedlit.config.keys import REPEATS, Hint, is_list, nearest, run_keys, show, unknown_key
from fedlit.config.layers import SWEEP_MARKS
from fedlit.config.loading import CONFIG_DIR, DEFAULT_CHOICES, list_choices, read_choice
from fedlit.config.places import SUFFIXES, origin_of
from fedlit.config.reading import is_there, parse_yaml, read_file, require_text
from fedlit.config.sweep_plugins import make_parts_known
from fedlit.config.tree import Setting, flatten, settle_layer
from fedlit.errors import UserError
from fedlit.process.storage import user_path
from fedlit.recipes import all_options

__all__ = ["Cell", "Sweep", "load_sweep", "load_sweeps"]

SWEEP_KEYS = ("experiment", "overrides", "axes", "grids", "exclude", "extra", "best", "version")


def load_sweep(name: str, config_dir: Path = CONFIG_DIR) -> Sweep:
    """Return the sweep of sweep/<name>.yaml in the search path, or of the YAML file whose path is `name`.

    Raises:
        UserError: one line that names the file and the key: an unknown sweep, experiment, choice or key, an axis
            without values, two axes with one key, two equal cells, an exclusion that leaves nothing out.
    """
    return _load(name, _Files(config_dir))


def load_sweeps(config_dir: Path = CONFIG_DIR) -> list[Sweep]:
    """Return all sweeps of the search path by name."""
    files = _Files(config_dir)
    return [_load(name, files) for name in files.choices("sweep")]


class _Files:
    """The folder of configurations, looked through once however many sweeps are loaded."""

    def __init__(self, config_dir: Path) -> None:
        self.folder = config_dir
        self._choices: dict[str, dict[str, Path]] = {}

    def choices(self, group: str) -> dict[str, Path]:
        """Return the files of a group by the name that picks them."""
        if group not in self._choices:
            self._choices[group] = list_choices(self.folder, group)
        return self._choices[group]

    def require(self, group: str, choice: str, origin: str, seen_from: Path) -> None:
        """Raise UserError if there is no such file."""
        if choice not in self.choices(group):
            read_choice(self.folder, group, choice, origin, seen_from)

    @property
    def keys(self) -> dict[str, Hint]:
        """The keys of a run of any recipe, and the groups that a file is picked for."""
        return {**dict.fromkeys(DEFAULT_CHOICES, str), **run_keys(all_options())}


def _load(name: str, files: _Files) -> Sweep:
    name, path, origin = _find(name, files)
    text = read_file(path, origin)
    content = parse_yaml(text, origin)
    if not isinstance(content, Mapping):
        raise UserError(f"{origin} holds no mapping; write one 'key: value' on each line")
    make_parts_known(content, origin, path.parent, files.folder)
    keys = files.keys
    for key in (key for key in content if key not in SWEEP_KEYS):
        is_of_run = key.split(".")[0] in {known.split(".")[0] for known in keys}
        if is_of_run and not any(mark in content for mark in SWEEP_MARKS):
            raise UserError(f"{origin} has {show(key)} and no axes: it is no sweep; write fedlit run {path}")
        raise UserError(
            f"unknown key {key!r} ({origin}){nearest(key, SWEEP_KEYS)} "
            f"Valid names: {', '.join(SWEEP_KEYS)}; what varies stands below axes"
        )
    experiment = content.get("experiment")
    if experiment is not None:
        files.require("experiment", str(experiment), origin, path.parent)
    sweep = Sweep(
        name=name,
        origin=origin,
        place=path.parent,
        comment=_first_sentence(text),
        experiment=None if experiment is None else str(experiment),
        base=_entry("overrides", content.get("overrides") or {}, keys, origin),
        grids=_grids(content, keys, origin),
        exclude=tuple(_settings_list(content, "exclude", keys, origin)),
        extra=tuple(single(settings) for settings in _settings_list(content, "extra", keys, origin)),
        keys=keys,
        best=_best(content, origin),
        version=_version(content, origin),
    )
    _require_best(sweep)
    _require_choices(sweep, files)
    _require_distinct(sweep)
    _require_exclusions(sweep)
    return sweep


def _find(name: str, files: _Files) -> tuple[str, Path, str]:
    """Return the name, the path and the name in messages of a sweep that is given by its name or its path."""
    require_text(name, f"the sweep {show(name)}")
    choices = files.choices("sweep")
    path = choices[name] if name in choices else user_path(name) if is_there(name) else Path(name[:255])
    for choice, known in choices.items():
        if path == known or (path.is_file() and path.resolve() == known.resolve()):
            return choice.replace("/", "-"), known, origin_of(known, files.folder)
    if path.is_file() and path.suffix in SUFFIXES:
        return path.stem, path, str(path)
    if path.suffix in SUFFIXES or path.exists():
        what = "is no YAML file" if path.exists() else f"is not there (seen from {Path.cwd()})"
        beside = [str(other) for other in sorted(path.parent.glob("*")) if other.suffix in SUFFIXES and other.is_file()]
        near = nearest(name, beside)
        near = nearest(path.stem, choices) if near == "." else near
        raise UserError(f"the sweep {name} {what}{near} Valid names: {', '.join(choices)}, or the path of a YAML file")
    read_choice(files.folder, "sweep", name)
    raise AssertionError(f"{name} is a choice after all")


def _first_sentence(text: str) -> str:
    """Return the first sentence of the comment at the top of a file, without what stands in brackets."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    comment = " ".join(line.lstrip("# ") for line in lines)
    return re.split(r"\. |(?= \()", comment, maxsplit=1)[0].strip()


def _grids(content: Mapping[str, Any], keys: Mapping[str, Hint], origin: str) -> tuple[Grid, ...]:
    """Return the grids, each with its own axes before the common ones; none where there are extra cells only."""
    common = _axes(content.get("axes") or {}, keys, origin)
    parts = content.get("grids") or ([] if content.get("extra") and not common else [{}])
    if not isinstance(parts, list):
        raise UserError(f"{origin}: grids={show(parts)} is no list; write '- <axis>: [<values>]' for each grid")
    return tuple((*_axes(part, keys, origin), *common) for part in parts)


def _axes(content: Any, keys: Mapping[str, Hint], origin: str) -> Grid:
    """Return the axes of a mapping from their names to lists of values, or of mappings."""
    if not isinstance(content, Mapping):
        raise UserError(f"{origin}: {show(content)} is no set of axes; write one '<axis>: [<values>]' on each line")
    axes: list[Axis] = []
    for name, values in content.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"axis {name}={show(values)} ({origin}) has no values; write them as a list, [1, 2]")
        axes.append(tuple(_entry(str(name), value, keys, origin) for value in values))
    return tuple(axes)


def _settings_list(content: Mapping[str, Any], name: str, keys: Mapping[str, Hint], origin: str) -> Iterator[Settings]:
    """Yield the mappings of a list in the file; each holds one value for each of its keys."""
    parts = content.get(name) or []
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) and part for part in parts):
        raise UserError(f"{origin}: {name}={show(parts)} is no list of mappings; write '- {{<key>: <value>, ...}}'")
    for part in parts:
        settings = _entry(name, part, keys, origin)
        for key, value in settings.items():
            if isinstance(value, list) and not _takes_list(keys[key]):
                raise UserError(
                    f"{key}={show(value)} ({origin}) stands in {name}, where a key has one value; "
                    "write a mapping for each"
                )
        yield settings


def _takes_list(hint: Hint) -> bool:
    return hint is Any or is_list(hint) or any(is_list(part) for part in get_args(hint))


def _entry(name: str, value: Any, keys: Mapping[str, Hint], origin: str) -> Settings:
    """Return one value of an axis as settings; a mapping may be nested."""
    content = value if isinstance(value, Mapping) or name == "overrides" else {name: value}
    if not isinstance(content, Mapping):
        raise UserError(f"{origin}: {name}={show(value)} is no mapping; write '<key>: <value>' on each line below it")
    settings: list[Setting] = []
    for key, part in content.items():
        if key.split(".")[0] not in {known.split(".")[0] for known in keys}:
            raise unknown_key(key, origin, keys)
        settings.extend(flatten(part, key, keys, origin))
    settle_layer(settings)  # for its error: a key with two values
    for key in (setting.key for setting in settings if setting.key in ("run.name", "run.dir")):
        raise UserError(f"{key} ({origin}) is set by the sweep: every cell has a folder of its own; leave it out")
    return {setting.key: setting.value for setting in settings}


def _best(content: Mapping[str, Any], origin: str) -> tuple[str, ...]:
    """Return the axes whose best value a report shows."""
    value = content.get("best") or []
    axes = [value] if isinstance(value, str) else value
    if not isinstance(axes, list) or not all(isinstance(axis, str) for axis in axes):
        raise UserError(f"{origin}: best={show(value)} is no list of axes; write best: [local.lr]")
    return tuple(dict.fromkeys(axes))


def _version(content: Mapping[str, Any], origin: str) -> int:
    value = content.get("version", 1)
    if type(value) is not int or not 1 <= value < 10**6:
        raise UserError(f"{origin}: version={show(value)} is no version; write 1, 2, 3 ...")
    return value


def _require_best(sweep: Sweep) -> None:
    """Refuse an axis to choose on that has nothing to choose from."""
    known = {key: values for key, values in values_by_key([*sweep.grids, *sweep.extra]).items() if key not in REPEATS}
    for axis in sweep.best:
        if len(known.get(axis, ())) < 2:
            raise UserError(
                f"{sweep.origin}: best={show(axis)} is no axis with several values{nearest(axis, known)} "
                f"Keys that vary: {', '.join(key for key, values in known.items() if len(values) > 1) or 'none'}"
            )


def _require_choices(sweep: Sweep, files: _Files) -> None:
    """Refuse picks of files that do not exist."""
    values = values_by_key([*sweep.grids, *sweep.extra, single(sweep.base)])
    for group in values.keys() & DEFAULT_CHOICES.keys():
        for value in values[group]:
            files.require(group, str(value), sweep.origin, sweep.place)


def _require_distinct(sweep: Sweep) -> None:
    """Refuse two axes with one key in a grid, and cells that cannot be told apart."""
    for grid in sweep.grids:
        for one, other in itertools.combinations(grid, 2):
            for key in {key for entry in one for key in entry} & {key for entry in other for key in entry}:
                raise UserError(f"{key} ({sweep.origin}) stands in two axes of one grid; leave it out of one of them")
    first: dict[str, int] = {}
    for i, settings in enumerate(sweep.settings()):
        same = first.setdefault(cell_name(settings, sorted(settings)), i)
        if same != i:
            raise UserError(
                f"cells {same} and {i} ({sweep.origin}) are the same: {written(settings)}; leave one of them out"
            )


def _require_exclusions(sweep: Sweep) -> None:
    """Refuse an exclusion that leaves nothing out, and those that leave out everything."""
    known = values_by_key(sweep.grids)
    cells = [settings for grid in sweep.grids for settings in combinations(grid)]
    for excluded in sweep.exclude:
        if any(is_part(excluded, settings) for settings in cells):
            continue
        where = f"{{{written(excluded)}}} ({sweep.origin}) excludes no cell"
        for key, value in excluded.items():
            if key not in known:
                raise UserError(f"{where}: no axis has {key}{nearest(key, known)} Keys that vary: {', '.join(known)}")
            if value not in known[key]:
                values = [show(other) for other in known[key]]
                raise UserError(
                    f"{where}: {key} is never {show(value)}{nearest(show(value), values)} "
                    f"Its values: {', '.join(values)}"
                )
        closest = max(
            cells, key=lambda settings: sum(is_part({key: value}, settings) for key, value in excluded.items())
        )
        raise UserError(f"{where}: no cell has all of it; the nearest is {written(closest)}; mend it or leave it out")
    if not sweep.settings():
        raise UserError(f"{sweep.origin}: exclude leaves no cell; take some of its lines out")
