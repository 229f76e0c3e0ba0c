"""Which folder is a cell's own: one that holds a run of the cell's settings, or a free one.

A cell is its settings, not its name: after a change of the sweep's file, or of the files that it names, a folder of the
cell's name may hold a run of the old settings. Such a run is left as it is and told, and the cell gets a folder with a
checksum of its settings behind the name.
"""

import filecmp
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from fedlit.config import Cell, RunConfig, differences, fingerprint, load_config, read_stored
from fedlit.config.keys import as_argument, show
from fedlit.config.reading import read_file
from fedlit.config.record import flat_values, why_no_more_rounds
from fedlit.data.paths import DATA_PATHS, given_paths
from fedlit.errors import UserError

NUM_DIGITS = 8
"""Of the checksum behind a cell's name."""
_SHOWN = 3
"""Keys that are no part of the fingerprint: a file may move, and a run that goes on compares its rows."""


class HasOthers(Protocol):
    """A cell that knows of runs under its name that are not its own."""

    @property
    def others(self) -> tuple[str, ...]:
        """Each in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A cell with its folder.

    num_rounds: of the folder's run, where it has fewer than the cell asks for and can go on; else None.
    others: runs of other settings under the cell's name, each with what is other, in words.
    """

    cell: Cell
    num_rounds: int | None = None
    others: tuple[str, ...] = ()


def placed(cells: Sequence[Cell]) -> list[Placed]:
    """Return the cells with their folders, in their order.

    Only cells whose name is taken have their configuration loaded. One that does not load here, for want of its data
    say, keeps its folder.
    """
    configs: dict[tuple[str, ...], RunConfig | None] = {}
    return [_placed(cell, configs) for cell in cells]


def place(cell: Cell) -> Cell:
    """Return one cell with its folder."""
    return _placed(cell, {}).cell


def told(cells: Sequence[HasOthers]) -> list[str]:
    """Return a line about the runs of other settings; none if there are none."""
    others = [other for entry in cells for other in entry.others]
    if not others:
        return []
    more = f"; and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    runs = "1 run of other settings is" if len(others) == 1 else f"{len(others)} runs of other settings are"
    return [f"{runs} left as {'it is' if len(others) == 1 else 'they are'}: {'; '.join(others[:_SHOWN])}{more}"]


def other_settings(folder: Path, asked: RunConfig) -> list[str]:
    """Return what a run folder's configuration has otherwise than the one asked for, in words.

    More rounds are no other settings, where the rounds that are done are those of the longer run.
    """
    stored = read_stored(read_file(folder / "config.yaml", str(folder / "config.yaml")), str(folder / "config.yaml"))
    old, new = stored.num_rounds, asked.num_rounds
    found = differences(replace(stored, num_rounds=new) if new > old else stored, asked)
    if not found and new > old:
        reached_last = (folder / "checkpoints" / f"round-{old:04d}").is_dir()
        reason = why_no_more_rounds(stored, new, reached_last=reached_last)
        found += [] if reason is None else [reason]
    before, after = flat_values(stored), flat_values(asked)
    return found + [
        f"{key}: {show(before[key])} in the folder, {show(after[key])} asked for"
        for key in DATA_PATHS
        if not _same_files(before[key], after[key])
    ]


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


def _placed(cell: Cell, configs: dict[tuple[str, ...], RunConfig | None]) -> Placed:
    candidates = _candidates(cell)
    config = _config(cell, configs) if candidates else None
    if config is None:
        return Placed(cell=cell)
    others, found = [], None
    for folder in candidates:
        try:
            other = other_settings(folder, config)
        except UserError as error:
            other = [str(error)]
        if not other and found is None:
            found = folder
        elif other:
            others.append(f"{folder} ({'; '.join(other[:1])})")
    if found is None:
        free = cell.folder not in candidates
        found = cell.folder if free else cell.folder.with_name(f"{cell.name}-{settings_checksum(config)}")
        return Placed(cell=_moved(cell, found), others=tuple(others))
    stored = read_stored((found / "config.yaml").read_text(encoding="utf-8"), str(found))
    fewer = stored.num_rounds if stored.num_rounds < config.num_rounds else None
    return Placed(cell=_moved(cell, found), num_rounds=fewer, others=tuple(others))


def _candidates(cell: Cell) -> list[Path]:
    """Return the folders with a run that may be the cell's, that of its very name first."""
    behind = re.compile(re.escape(cell.name) + rf"-[0-9a-f]{{{NUM_DIGITS}}}")
    parent = cell.folder.parent
    others = sorted(path for path in parent.glob("*") if behind.fullmatch(path.name)) if parent.is_dir() else []
    return [folder for folder in (cell.folder, *others) if (folder / "config.yaml").is_file()]


def _config(cell: Cell, configs: dict[tuple[str, ...], RunConfig | None]) -> RunConfig | None:
    """Return a cell's configuration; of cells that differ in their seed alone one is loaded."""
    words = [word.partition("=") for word in cell.arguments]
    common = tuple(f"{key}={text}" for key, _, text in words if key not in ("seed", "run.name"))
    seeds = [text for key, _, text in words if key == "seed"]
    if common not in configs:
        try:
            configs[common] = load_config(cell.arguments)
        except UserError:
            configs[common] = None
    config = configs[common]
    plain = len(seeds) == 1 and seeds[0].isascii() and seeds[0].isdecimal()
    return config if config is None or not plain else replace(config, seed=int(seeds[0]))


def _moved(cell: Cell, folder: Path) -> Cell:
    """Return a cell whose run goes to a folder beside its own."""
    if folder == cell.folder:
        return cell
    arguments = [f"run.name={folder.name}" if word.startswith("run.name=") else word for word in cell.arguments]
    return replace(cell, name=folder.name, arguments=arguments, folder=folder)
