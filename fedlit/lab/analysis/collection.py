"""The runs that a table or a page is about: the cells of a sweep, missing ones included, or run folders."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedlit.config import CONFIG_DIR, RunConfig, load_sweep, read_stored
from fedlit.config.keys import REPEATS, short_name, show
from fedlit.config.loading import list_choices
from fedlit.config.reading import is_there, read_file
from fedlit.config.record import fingerprint
from fedlit.errors import UserError
from fedlit.lab.sweeps.cells import STALE, CellRun, cell_runs
from fedlit.lab.sweeps.placing import told
from fedlit.lab.sweeps.records import remembered
from fedlit.process.storage import user_path
from fedlit.scores import remember
from fedlit.store.environment import read_version, stored_environment
from fedlit.store.partition import read_partition
from fedlit.store.records import Record, read_records
from fedlit.store.status import RunStatus, read_status
from fedlit.store.task_version import TaskVersion


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One run, or a cell of a sweep that has none yet.

    settings: what tells it apart, by dotted key or group (`method`, `data`, `model`), seed and draw among them; of a
    sweep the settings of its cell. config: None for a cell without a run folder. records: round 0 first; empty before
    the first. partition: partition.json. chosen: values of axes that were chosen for it
    (fedlit.lab.analysis.best_axis), which are not among its settings; chosen_note: what a reader must know of the
    choice. version: None of an older run.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    status: RunStatus
    config: RunConfig | None
    records: tuple[Record, ...]
    partition: Mapping[str, Any] | None
    chosen: Mapping[str, Any] = field(default_factory=dict)
    chosen_note: str = ""
    version: TaskVersion | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """Entries in the order of the sweep, or of their folders' names.

    name: of the sweep, or of the folder that holds the runs; it may stand in a file's name. folder: where pages and
    tables about them go unless told otherwise. varied: the keys of `settings` that differ between entries, without seed
    and draw (fedlit.lab.analysis.draws). remembered: arguments that nobody gave, those with which the sweep was last
    started. notes: lines about what is left out. best: axes of which a table shows the best value, by the sweep's file.
    """

    name: str
    folder: Path
    entries: tuple[Entry, ...]
    varied: tuple[str, ...]
    remembered: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    best: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Entries that differ in seed and draw alone; `settings` is what they have in common, without these."""

    settings: Mapping[str, Any]
    entries: tuple[Entry, ...]

    def label(self, keys: Sequence[str]) -> str:
        """Return its values of these keys: texts as they stand, others after the short name of their key."""
        parts = []
        for key in keys:
            if key in self.settings:
                value = self.settings[key]
                parts.append(value if isinstance(value, str) else f"{short_name(key)} {show(value)}")
        return ", ".join(parts)


def bound_keys(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return the keys of local training and of the server that go with the method, as a learning rate of its own does:
    all else that varies leaves them one value. Methods with other values of these still meet under one condition.
    """
    varied = varied_keys(entries)
    keys = [key for key in varied if "method" in varied and key.startswith(("local.", "server."))]
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        others = sorted((k, repr(v)) for k, v in entry.settings.items() if k not in (*keys, *REPEATS))
        groups.setdefault(repr(others), []).append(entry)

    def is_bound(key: str) -> bool:
        return all(len({repr(entry.settings.get(key)) for entry in group}) == 1 for group in groups.values())

    return tuple(key for key in keys if is_bound(key))


def by_seed(collection: Collection) -> list[Group]:
    """Return the entries in groups of one setting, in the order of their first."""
    groups: dict[str, list[Entry]] = {}
    for entry in collection.entries:
        common = sorted((key, repr(value)) for key, value in entry.settings.items() if key not in REPEATS)
        groups.setdefault(repr(common), []).append(entry)
    return [
        Group(
            settings={key: value for key, value in entries[0].settings.items() if key not in REPEATS},
            entries=tuple(entries),
        )
        for entries in groups.values()
    ]


def collect(targets: Sequence[str], overrides: Sequence[str] = (), config_dir: Path = CONFIG_DIR) -> Collection:
    """Return the runs that the words of a command line name: one sweep (with `key=value` arguments), or run folders,
    each a run's own or one that holds several.

    Raises:
        UserError: nothing of that name; no run in a folder.
    """
    folders = [user_path(target) for target in targets]
    if len(targets) == 1 and not is_there(targets[0], Path.is_dir):
        is_path = "/" in targets[0] and not targets[0].endswith((".yaml", ".yml"))
        if is_path and not is_there(targets[0]) and targets[0] not in list_choices(config_dir, "sweep"):
            raise UserError(
                f"{targets[0]} is not there (seen from {Path.cwd()}); give the name of a sweep, or run folders"
            )
        return _of_sweep(targets[0], overrides, config_dir)
    if overrides:
        raise UserError(f"{overrides[0]} picks cells of a sweep, and {targets[0]} is a folder; leave it out")
    found = [run for folder in folders for run in _runs_in(folder)]
    entries = [_entry(folder.name, folder, {}) for folder in dict.fromkeys(found)]
    return _named(folders[0].resolve().name, folders[0], _with_settings(entries))


def _of_sweep(name: str, overrides: Sequence[str], config_dir: Path) -> Collection:
    sweep = load_sweep(name, config_dir)
    kept = remembered(sweep, overrides)
    runs = cell_runs(sweep, [*kept, *overrides])
    entries = [_of_cell(run) for run in runs]
    found = _named(sweep.name, entries[0].folder.parent, entries)
    return replace(found, remembered=kept, notes=tuple(told(runs)), best=sweep.best)


def _of_cell(run: CellRun) -> Entry:
    """Return a cell's run; of a stale one nothing but its state, whatever lies in its folder."""
    cell = run.cell
    if run.status.state != STALE:
        return _entry(cell.name, cell.folder, cell.settings, run.status)
    return Entry(
        name=cell.name,
        folder=cell.folder,
        settings=cell.settings,
        status=run.status,
        config=None,
        records=(),
        partition=None,
    )


def _runs_in(folder: Path) -> list[Path]:
    """Return the run folders below a folder, or itself."""
    if not is_there(str(folder), Path.is_dir):
        raise UserError(f"{folder} is no folder and no sweep; give the name of a sweep, or run folders")
    found = [folder] if (folder / "config.yaml").is_file() else sorted(p.parent for p in folder.glob("*/config.yaml"))
    if not found:
        raise UserError(f"{folder} holds no run (no config.yaml); give run folders, or the folder above them")
    return found


def _entry(name: str, folder: Path, settings: Mapping[str, Any], status: RunStatus | None = None) -> Entry:
    config_path = folder / "config.yaml"
    has_config = config_path.is_file()
    remember(stored_environment(folder).get("scores"))
    try:
        return Entry(
            name=name,
            folder=folder,
            settings=settings,
            status=status or read_status(folder),
            config=read_stored(read_file(config_path, str(config_path)), str(config_path)) if has_config else None,
            records=tuple(read_records(folder)),
            partition=read_partition(folder),
            version=read_version(folder),
        )
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{folder} has a damaged file ({error}); mend it, or move the folder away") from None


def _with_settings(entries: Sequence[Entry]) -> list[Entry]:
    """Return runs that no sweep describes with the settings in which they differ.

    Data set, model and method stand for what their files set; beside them, keys that differ between runs of one data
    set, model and method.
    """
    values = [_own_values(entry) for entry in entries]
    groups = [{"data": v["data.name"], "model": v["model.name"], "method": v["method.name"]} for v in values]
    differing: dict[str, None] = {}
    for one, other in itertools.combinations(range(len(entries)), 2):
        keys = values[one].keys() | values[other].keys()
        for key in sorted(keys - {"seed", "data.name", "model.name", "method.name"}):
            group = key.split(".")[0]
            comparable = group not in groups[one] or groups[one][group] == groups[other][group]
            if comparable and values[one].get(key) != values[other].get(key):
                differing[key] = None
    return [
        replace(entry, settings={**group, **{key: v[key] for key in differing if key in v}, "seed": v["seed"]})
        for entry, group, v in zip(entries, groups, values, strict=True)
    ]


def _own_values(entry: Entry) -> dict[str, Any]:
    assert entry.config is not None
    return fingerprint(entry.config)


def _named(name: str, folder: Path, entries: Sequence[Entry]) -> Collection:
    return Collection(name=name, folder=folder, entries=tuple(entries), varied=varied_keys(entries))


def varied_keys(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return the keys of settings that differ between runs, without seed and draw, in the order of their first."""
    keys = dict.fromkeys(key for entry in entries for key in entry.settings)
    return tuple(key for key in keys if key not in REPEATS and len({repr(e.settings.get(key)) for e in entries}) > 1)
