"""Which folder is a cell's own: one that holds a run of the cell's settings, or a free one.

A cell is its settings, not its name: after a change of the sweep's file, or of the files that it names, a folder of the
cell's name may hold a run of the old settings. Such a run is stale: it is left as it is and told, with what is other in
it, and the cell gets a folder with a checksum of its settings behind the name.
"""

import filecmp
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from fedlit.config import Cell, RunConfig, fingerprint, load_config, read_stored
from fedlit.config.keys import DRAW, REPEATS, SEED, as_argument, show
from fedlit.config.reading import read_file
from fedlit.config.record import flat_values, why_no_more_rounds
from fedlit.data.paths import DATA_PATHS, given_paths
from fedlit.errors import UserError
from fedlit.store.folder import why_other_plugins

NUM_DIGITS = 8
"""Of the checksum behind a cell's name."""
SHOWN = 3
"""Runs, or keys of one, that a line tells of; the rest is counted."""
LONGEST_VALUE = 24
"""Characters of a value in such a line."""
LONGEST_LINE = 400


class HasOthers(Protocol):
    """A cell that knows of runs under its name that are not its own."""

    @property
    def others(self) -> "tuple[Other, ...]":
        """Each with what is other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Other:
    """A run of other settings under a cell's name.

    changes: what is other, by key: `local.lr: 0.1 → 0.2`, the folder's value first. Where the two cannot be compared,
    why, below the key ''.
    """

    folder: Path
    changes: Mapping[str, str]

    @property
    def why(self) -> str:
        """What is other, in one line of the first keys."""
        return at_most(list(self.changes.values()))

    def __str__(self) -> str:
        return f"{self.folder} ({self.why})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A cell with its folder.

    name: the cell's, without a checksum. num_rounds: of the folder's run, where it has fewer than the cell asks for and
    can go on; else None. others: runs of other settings under the cell's name.
    """

    cell: Cell
    name: str
    num_rounds: int | None = None
    others: tuple[Other, ...] = ()


def placed(cells: Sequence[Cell]) -> list[Placed]:
    """Return the cells with their folders, in their order.

    Only cells whose name is taken have their configuration loaded; of one that cannot be, all runs are others.
    """
    configs: dict[tuple[str, ...], RunConfig | UserError] = {}
    return [_placed(cell, configs) for cell in cells]


def place(cell: Cell) -> Cell:
    """Return one cell with its folder."""
    return _placed(cell, {}).cell


def told(cells: Sequence[HasOthers]) -> list[str]:
    """Return a line about the runs of other settings; none if there are none."""
    others = [other for entry in cells for other in entry.others]
    if not others:
        return []
    keys = [key for key in dict.fromkeys(key for other in others for key in other.changes) if key]
    runs = "1 stale run is left out" if len(others) == 1 else f"{len(others)} stale runs are left out"
    line = f"{runs}{f', of other {at_most(keys)}' if keys else ''}: "
    shown = list(map(str, others[:SHOWN]))
    while len(shown) > 1 and len(line) + len("; ".join(shown)) > LONGEST_LINE:
        shown.pop()
    more = f"; and {len(others) - len(shown)} more" if len(others) > len(shown) else ""
    return [f"{line}{'; '.join(shown)}{more}"]


def at_most(parts: Sequence[str]) -> str:
    """Return the first of some texts in one line, and how many more there are."""
    more = f", and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    return f"{', '.join(parts[:SHOWN])}{more}"


def other_settings(folder: Path, asked: RunConfig) -> dict[str, str]:
    """Return what a run folder's configuration has otherwise than the one asked for, in words by key.

    More rounds are no other settings, where the rounds that are done are those of the longer run. Other code of parts
    from outside is.

    Raises:
        UserError: the folder's configuration cannot be read.
    """
    return _changes(folder, _stored(folder), asked)


def _stored(folder: Path) -> RunConfig:
    path = folder / "config.yaml"
    return read_stored(read_file(path, str(path)), str(path))


def _changes(folder: Path, stored: RunConfig, asked: RunConfig) -> dict[str, str]:
    old, new = stored.num_rounds, asked.num_rounds
    before = fingerprint(replace(stored, num_rounds=new) if new > old else stored)
    after = fingerprint(asked)
    changes = {
        key: _change(key, before, after)
        for key in {**before, **after}
        if (key in before, before.get(key)) != (key in after, after.get(key))
    }
    if not changes and new > old:
        reached_last = (folder / "checkpoints" / f"round-{old:04d}").is_dir()
        reason = why_no_more_rounds(stored, new, reached_last=reached_last)
        changes |= {} if reason is None else {"num_rounds": f"num_rounds: {old} → {new}, {reason}"}
    all_before, all_after = flat_values(stored), flat_values(asked)
    for key in DATA_PATHS:
        if not _same_files(all_before[key], all_after[key]):
            changes[key] = _change(key, all_before, all_after)
    if not changes and (reason := why_other_plugins(folder, asked)) is not None:
        changes["plugins"] = reason
    return changes


def _change(key: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    old, new = (_short(show(values[key])) if key in values else "absent" for values in (before, after))
    if old == new:  # as long as they are shown
        old, new = (show(values.get(key)) for values in (before, after))
        first = next((i for i, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), 0)
        old, new = (_short(f"…{text[max(first - 2, 0) :]}") for text in (old, new))
    return f"{key}: {old} → {new}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def settings_checksum(config: RunConfig) -> str:
    """Return a checksum of the settings that count, the same wherever and whenever it is computed."""
    values = flat_values(config)
    content = {**fingerprint(config), **{key: values[key] for key in DATA_PATHS}}
    text = json.dumps({key: as_argument(value) for key, value in content.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:NUM_DIGITS]


def _same_files(before: str | Sequence[str] | None, after: str | Sequence[str] | None) -> bool:
    one, other = given_paths(before), given_paths(after)
    return len(one) == len(other) and all(map(_same_file, one, other))


def _same_file(before: str, after: str) -> bool:
    """Tell whether two paths are of one file, or of equal ones; a file that is gone was moved if the names agree."""
    if before == after:
        return True
    try:
        one, other = Path(before).expanduser(), Path(after).expanduser()
        if not one.exists():
            return one.name == other.name
        return one.samefile(other) or (one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False))
    except (OSError, RuntimeError):
        return False


def _placed(cell: Cell, configs: dict[tuple[str, ...], RunConfig | UserError]) -> Placed:
    candidates = _candidates(cell)
    if not candidates:
        return Placed(cell=cell, name=cell.name)
    config = _config(cell, configs)
    if isinstance(config, UserError):
        others = [Other(folder=folder, changes={"": f"cannot be compared: {config}"}) for folder in candidates]
        return Placed(cell=cell, name=cell.name, others=tuple(others))
    others, found, fewer = [], None, None
    for folder in candidates:
        try:
            stored = _stored(folder)
            changes = _changes(folder, stored, config)
        except UserError as error:
            changes = {"": str(error)}
        if not changes and found is None:
            found = folder
            fewer = stored.num_rounds if stored.num_rounds < config.num_rounds else None
        elif changes:
            others.append(Other(folder=folder, changes=changes))
    if found is None:
        free = cell.folder not in candidates
        found = cell.folder if free else cell.folder.with_name(f"{cell.name}-{settings_checksum(config)}")
        return Placed(cell=_moved(cell, found), name=cell.name, others=tuple(others))
    return Placed(cell=_moved(cell, found), name=cell.name, num_rounds=fewer, others=tuple(others))


def _candidates(cell: Cell) -> list[Path]:
    """Return the folders with a run that may be the cell's, that of its very name first."""
    behind = re.compile(re.escape(cell.name) + rf"-[0-9a-f]{{{NUM_DIGITS}}}")
    parent = cell.folder.parent
    others = sorted(path for path in parent.glob("*") if behind.fullmatch(path.name)) if parent.is_dir() else []
    return [folder for folder in (cell.folder, *others) if (folder / "config.yaml").is_file()]


def _config(cell: Cell, configs: dict[tuple[str, ...], RunConfig | UserError]) -> RunConfig | UserError:
    """Return a cell's configuration, or why there is none; of cells that differ in seed and draw alone one is loaded.

    It is only looked at: files that it names may be missing.
    """
    words = [word.partition("=") for word in cell.arguments]
    plain = {key: int(text) for key, _, text in words if key in REPEATS and text.isascii() and text.isdecimal()}
    common = tuple(f"{key}={text}" for key, _, text in words if key not in {*plain, "run.name"})
    common = (*sorted(plain), *common)
    if common not in configs:
        try:
            configs[common] = load_config(cell.arguments, checked=False)
        except UserError as error:
            configs[common] = error
    config = configs[common]
    if isinstance(config, UserError):
        return config
    partition = replace(config.partition, seed=plain.get(DRAW, config.partition.seed))
    return replace(config, seed=plain.get(SEED, config.seed), partition=partition)


def _moved(cell: Cell, folder: Path) -> Cell:
    """Return a cell whose run goes to a folder beside its own."""
    if folder == cell.folder:
        return cell
    arguments = [f"run.name={folder.name}" if word.startswith("run.name=") else word for word in cell.arguments]
    return replace(cell, name=folder.name, arguments=arguments, folder=folder)
