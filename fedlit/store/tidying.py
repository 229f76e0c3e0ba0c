"""What is removed once a checkpoint is there: older ones, and files that none of the kept ones needs.

Who needs which file is read from the kept checkpoints once. From then on it follows from what each round replaces, so
that a round costs what it changed, however many clients there are.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from fedlit.errors import UserError
from fedlit.process.storage import remove
from fedlit.store.growing import DamagedError
from fedlit.store.manifest import TABLES, Manifest, StoredClient, client_file, read_manifest, round_folder

CLIENTS = "clients"
"""Folder of the clients' files."""


class Tidying:
    """Removes what is old from the checkpoints of one run; only process 0 does.

    Args:
        folder: of the checkpoints.
        keep: the number of checkpoints to keep.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._needed: dict[str, set[int]] = {}
        """Client files that the newest checkpoint does not name, and the older ones that do."""
        self._tables: dict[int, set[str]] | None = None
        """By kept round, the files that grow which it needs; None until they are read."""
        self._seen_ns: int | None = None

    def is_touched(self) -> bool:
        """Tell whether anybody else has added or removed a client's file since the last time, or it is the first."""
        return self._tables is None or self._changed_ns() != self._seen_ns

    def __call__(
        self, newest: Manifest, replaced: Mapping[int, StoredClient], also_keep: int | None, *, look: bool
    ) -> None:
        """Remove the checkpoints that are too old, the damaged ones of later rounds, which are done again, and the
        files that no checkpoint needs.

        newest: what was written just now. replaced: the files that it does not name any more, and that the one before
        did. also_keep: number of a round whose checkpoint stays. look: read the kept checkpoints and the names of all
        files, in place of trusting what is known.
        """
        number = newest.round_idx
        rounds = complete(self._folder)
        until = rounds.index(self._folder / round_folder(number)) + 1
        stays = {round_folder(number), *([] if also_keep is None else [round_folder(also_keep)])}
        stays |= {path.name for path in rounds[:until][-self._keep :]}
        for path in rounds:
            if path.name not in stays:
                remove(path)
        kept = [path for path in rounds if path.name in stays and path.name != round_folder(number)]
        if look or self._tables is None:
            self._read(newest, kept)
        else:
            self._forget(newest, replaced, {round_of(path) for path in kept})
        self._seen_ns = self._changed_ns()

    def _read(self, newest: Manifest, older: Iterable[Path]) -> None:
        """Learn what the older checkpoints need, and remove what none does."""
        self._tables = None
        needed: dict[str, set[int]] = {}
        tables = {newest.round_idx: newest.table_files()}
        named = newest.client_files()
        for path in older:
            try:
                manifest = read_manifest(path)
            except UserError:
                return  # of another version, whose files are not known
            except DamagedError as error:
                if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
                    return  # the file system could not read it now; a later round removes them
                continue
            tables[manifest.round_idx] = manifest.table_files()
            for name in manifest.client_files() - named:
                needed.setdefault(name, set()).add(manifest.round_idx)
        for name in file_names(self._folder / CLIENTS) - named - needed.keys():
            remove(self._folder / CLIENTS / name)
        kinds = "|".join(TABLES)
        found = {path.name for path in self._folder.glob("*.jsonl") if re.fullmatch(f"({kinds})-.*", path.name)}
        for name in found - set[str]().union(*tables.values()):
            remove(self._folder / name)
        self._needed, self._tables = needed, tables

    def _forget(self, newest: Manifest, replaced: Mapping[int, StoredClient], kept: set[int]) -> None:
        """Remove what only the checkpoints needed that are gone, and what nobody needs of what is replaced."""
        assert self._tables is not None
        before = set[str]().union(*self._tables.values())
        gone = self._tables.keys() - kept
        self._tables = {number: names for number, names in self._tables.items() if number in kept}
        self._tables[newest.round_idx] = newest.table_files()
        for client, stored in replaced.items():
            name = client_file(client, stored.round_idx)
            self._needed[name] = {number for number in self._tables if stored.round_idx <= number < newest.round_idx}
        for name in [name for name, rounds in self._needed.items() if rounds <= gone]:
            del self._needed[name]
            remove(self._folder / CLIENTS / name)
        self._needed = {name: rounds - gone for name, rounds in self._needed.items()}
        for name in before - set[str]().union(*self._tables.values()):
            remove(self._folder / name)

    def _changed_ns(self) -> int | None:
        try:
            return (self._folder / CLIENTS).stat().st_mtime_ns
        except OSError:
            return None


def complete(folder: Path) -> list[Path]:
    """Return the renamed checkpoints, oldest first."""
    rounds = [path for path in folder.glob("round-*") if re.fullmatch(r"round-[0-9]{4,}", path.name)]
    return sorted(rounds, key=round_of)


def round_of(path: Path) -> int:
    """Return the round of a renamed checkpoint, by its name."""
    return int(path.name.removeprefix("round-"))


def file_names(folder: Path) -> set[str]:
    """Return the names in a folder."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}
