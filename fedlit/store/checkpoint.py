"""A checkpoint after every round: what a killed run needs to go on with the same bits, without the frozen backbone.

    round-0003/
      manifest.json              rounds, names and SHA-256 of all other files (`fedlit.store.manifest`)
      shared.safetensors  ...    the server, a file for each of its parts
      metrics.jsonl              the records so far
    clients/
      client-00007-round-0002.pt what a client keeps, if it keeps anything, as it was after its last change

A round costs the files of the clients that it changed: the others stay where they are, and the manifest names them with
the hashes that this process knows. Files that no kept checkpoint names are removed.

Everything is on the disk before its name is: the clients' files, then `round-0003.partial` with the manifest last,
which is renamed at the end. Only then is anything old removed. Random streams have no state, so none is stored.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from safetensors.torch import load_file, save_file

from fedlit.algebra.tensors import on_cpu
from fedlit.errors import UserError
from fedlit.process import communication
from fedlit.process.storage import partial_path, remove, sync
from fedlit.round.jobs import ClientState
from fedlit.round.server import ServerState
from fedlit.store.manifest import (
    MANIFEST,
    RECORDS,
    DamagedError,
    Manifest,
    StoredClient,
    client_file,
    file_hash,
    find_problem,
    read_manifest,
    round_folder,
)


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The checkpoints of one run."""

    folder: Path
    keep: int
    _stored: dict[int, StoredClient] = field(default_factory=dict)
    """File of each of this process's clients in the newest checkpoint."""

    def save(
        self,
        server: ServerState,
        clients: Mapping[int, ClientState],
        changed: set[int],
        records: Path,
        *,
        also_keep: int | None = None,
    ) -> None:
        """Write the checkpoint of a round; every process calls it with its own clients. Old ones beyond `keep` go.

        changed: the clients of this process whose state differs from the newest checkpoint.
        also_keep: number of a round whose checkpoint stays, however old.
        """
        final = self.folder / round_folder(server.round_idx)
        partial = final.with_suffix(".partial")
        first = communication.process_index() == 0
        if first:
            remove(partial)
            partial.mkdir(parents=True)
            self._clients_folder.mkdir(exist_ok=True)
        communication.barrier()
        mine = self._write_clients(clients, changed, server.round_idx)
        everyone = communication.gather_objects(mine)
        if first:
            stored = {client: entry for part in everyone for client, entry in part.items()}
            self._write_round(partial, server, stored, records)
            remove(final)
            partial.rename(final)
            sync(self.folder)
        communication.barrier()
        self._stored.update(mine)
        if first:
            self._remove_old(server.round_idx, also_keep)

    def newest(self) -> tuple[Path | None, list[str]]:
        """Return the newest intact checkpoint, or None, and a line for each damaged one that was passed over.

        Process 0 looks and the others are told, since two processes could see a shared file system differently.

        Raises:
            UserError: on every process, if a checkpoint is of a format that this version does not know.
        """
        found: tuple[Path | None, list[str]] | UserError = (None, [])
        if communication.process_index() == 0:
            try:
                found = self._look()
            except UserError as error:
                found = error
        told = communication.gather_objects(found)[0]
        if isinstance(told, UserError):
            raise told
        return told

    def _look(self) -> tuple[Path | None, list[str]]:
        damaged: list[str] = []
        for path in reversed(_complete(self.folder)):
            problem = find_problem(path)
            if problem is None:
                return path, damaged
            damaged.append(f"checkpoint {path.name} is damaged ({problem}) and is passed over")
        return None, damaged

    def of_round(self, number: int) -> Path | None:
        """Return the intact checkpoint after a round, None if it is gone.

        Raises:
            UserError: it is of a format that this version does not know.
        """
        path = self.folder / round_folder(number)
        return path if path.is_dir() and find_problem(path) is None else None

    def load(self, path: Path, device: torch.device, mine: set[int]) -> tuple[ServerState, dict[int, ClientState]]:
        """Return the server's state, on `device`, and the stored states of the clients in `mine`, on the CPU."""
        manifest = read_manifest(path)
        parts = {part: load_file(path / f"{part}.safetensors", device=str(device)) for part in ServerState.part_names()}
        clients = {}
        self._stored.clear()
        for client in sorted(mine & manifest.clients.keys()):
            content = torch.load(manifest.client_path(path, client), map_location="cpu", weights_only=True)
            clients[client] = ClientState(**_migrated(content, manifest.format))
            if manifest.format > 1:  # else its file goes with the old checkpoint
                self._stored[client] = manifest.clients[client]
        return ServerState(round_idx=manifest.round_idx, **parts), clients

    @property
    def _clients_folder(self) -> Path:
        return self.folder / "clients"

    def _write_clients(
        self, clients: Mapping[int, ClientState], changed: set[int], round_idx: int
    ) -> dict[int, StoredClient]:
        """Write the files of those clients that have changed, or have none, and return the files of all."""
        present = _names(self._clients_folder) if clients else set()
        result = {}
        for client, state in clients.items():
            before = self._stored.get(client)
            if client in changed or before is None or client_file(client, before.round_idx) not in present:
                path = self._clients_folder / client_file(client, round_idx)
                before = StoredClient(round_idx=round_idx, sha256=_write_client(path, state))
            result[client] = before
        if any(stored.round_idx == round_idx for stored in result.values()):
            sync(self._clients_folder)
        return result

    def _write_round(
        self, partial: Path, server: ServerState, clients: Mapping[int, StoredClient], records: Path
    ) -> None:
        """Write what process 0 alone writes, the manifest last."""
        written = []
        for part, tensors in server.parts().items():
            written.append(partial / f"{part}.safetensors")
            save_file({name: tensor.contiguous() for name, tensor in on_cpu(tensors).items()}, written[-1])
        written.append(Path(shutil.copyfile(records, partial / RECORDS)))
        for path in written:
            sync(path)
        files = {path.name: file_hash(path) for path in written}
        _write_manifest(partial, Manifest(round_idx=server.round_idx, files=files, clients=clients))
        sync(partial)

    def _remove_old(self, round_idx: int, also_keep: int | None) -> None:
        """Remove the checkpoints that are too old, the damaged ones of later rounds, which are done again, and the
        clients' files that no checkpoint names.
        """
        stays = {round_folder(round_idx), *([] if also_keep is None else [round_folder(also_keep)])}
        rounds = _complete(self.folder)
        until = rounds.index(self.folder / round_folder(round_idx)) + 1
        stays |= {path.name for path in rounds[:until][-self.keep :]}
        named: set[str] = set()
        for path in rounds:
            if path.name not in stays:
                remove(path)
                continue
            try:
                named |= read_manifest(path).client_files()
            except UserError:
                return  # of another version, whose files are not known
            except DamagedError as error:
                if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
                    return  # the file system could not read it now; a later round removes them
        for name in _names(self._clients_folder) - named:
            remove(self._clients_folder / name)


def _complete(folder: Path) -> list[Path]:
    """Return the renamed checkpoints, oldest first."""
    rounds = {path: re.fullmatch(r"round-([0-9]{4,})", path.name) for path in folder.glob("round-*")}
    numbers = {path: int(match[1]) for path, match in rounds.items() if match}
    return sorted(numbers, key=lambda path: numbers[path])


def _names(folder: Path) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def _migrated(content: dict[str, Any], known: int) -> dict[str, Any]:
    """Return the fields of a client's state from what its file holds."""
    if known == 1:
        control = content.pop("control")
        return {**content, "parts": {"control": control} if control else {}}
    return content


class _HashingWriter:
    """A file that hashes what is written to it on its way, so that it need not be read again."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _write_client(path: Path, state: ClientState) -> str:
    """Write a client's file, whole or not at all, and return its SHA-256."""
    temporary = partial_path(path)
    try:
        with temporary.open("wb") as file:
            writer = _HashingWriter(file)
            torch.save(
                {"private": state.private, "parts": state.parts, "optimizer": state.optimizer}, cast(BinaryIO, writer)
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return writer.hexdigest()


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        file.write(manifest.to_json())
        file.flush()
        os.fsync(file.fileno())
