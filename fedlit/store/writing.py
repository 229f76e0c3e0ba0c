"""One checkpoint's way to the disk, in a thread beside the next round's training.

Every process writes the files of its own clients. Process 0 also writes the server and, once it knows that all are
done, what makes the checkpoint: the manifest, and its name. No collective is used here, since those of the training
are under way at the same time: the processes leave each other a note, or meet in `Checkpoints.settle`.
"""

import hashlib
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from fedlit.algebra.tensors import TensorDict
from fedlit.errors import UserError
from fedlit.process import communication
from fedlit.process.storage import partial_path, remove, sync
from fedlit.round.jobs import ClientState
from fedlit.store.growing import Growing, Prefix
from fedlit.store.manifest import (
    MANIFEST,
    TABLES,
    Manifest,
    StoredClient,
    client_file,
    client_lines,
    file_hash,
    round_folder,
)
from fedlit.store.tidying import CLIENTS, Tidying, file_names

Stored = dict[int, StoredClient]

POLL_S = 0.05
"""Between two looks at whether the other processes are done."""
_SPARE_LINES = 1000
"""Lines of the table of clients, beyond two for each client, from which on it is begun anew."""


class Abandoned(Exception):
    """A checkpoint is not made: this process leaves, or another one could not do its part."""


@dataclass(kw_only=True)
class Ledger:
    """What the writers of one process know of the files, from one checkpoint to the next.

    stored: the file of each client in the newest checkpoint; of all on process 0, at least of its own on others.
    records, table: the files of process 0 that grow.
    """

    folder: Path
    stored: Stored
    tidying: Tidying
    records: Growing
    table: Growing
    num_lines: int = 0

    @classmethod
    def of(cls, folder: Path, keep: int) -> "Ledger":
        """Return that of a process that knows of no checkpoint."""
        records, table = (Growing(folder, kind) for kind in TABLES)
        return cls(folder=folder, stored={}, tidying=Tidying(folder, keep), records=records, table=table)


@dataclass(kw_only=True)
class Handed:
    """What a round hands to the writer: values that nobody changes, on the CPU.

    parts: of the server, on process 0. clients: all of this process's. changed: those of them to write.
    records, num_record_bytes: metrics.jsonl, and how much of it belongs to the checkpoint.
    look: see whether the clients' files are all there.
    """

    round_idx: int
    parts: Mapping[str, TensorDict]
    clients: Mapping[int, ClientState]
    changed: set[int]
    records: Path
    num_record_bytes: int
    also_keep: int | None
    look: bool
    seen: list[tuple[Tensor, int]] = field(default_factory=list)
    """Tensors that the run still holds, with the number of their changes."""


class Writing:
    """The thread that writes one checkpoint.

    own: set when this process has done its part, or failed. mine: what it wrote. error: why there is no checkpoint.
    saved: process 0 has made the checkpoint.
    """

    def __init__(self, ledger: Ledger, handed: Handed) -> None:
        self.own = threading.Event()
        self.mine: Stored | None = None
        self.error: BaseException | None = None
        self.saved = False
        self.round_idx = handed.round_idx
        self._ledger = ledger
        self._name = f"checkpoint-{handed.round_idx}"
        self._everyone: list[Stored] | None = None
        self._told = threading.Event()
        self._leaves = False
        self._ended = threading.Event()
        # The thread lets go of what was handed to it at its end, long before the next checkpoint.
        self._thread = threading.Thread(target=self._run, args=(handed,), name="checkpoint")
        self._thread.start()

    def tell(self, everyone: list[Stored] | None) -> None:
        """Say what all processes wrote, None if one could not."""
        self._everyone = everyone
        self._leaves = everyone is None
        self._told.set()

    def leave(self) -> None:
        """Leave out what is not yet written."""
        self._leaves = True

    def wait(self) -> None:
        """Wait for the end of the thread. Process 0 does not wait for notes of other processes any more."""
        self._told.set()
        self._ended.wait()  # Python 3.11: a join that a signal interrupts takes the thread for ended
        self._thread.join()

    def _run(self, handed: Handed) -> None:
        try:
            try:
                self.mine = self._write_own(handed)
                communication.post(self._name, self.mine)
            finally:
                self.own.set()
            if communication.process_index() == 0:
                replaced = self._make(handed, self._of_everyone())
                self._ledger.tidying(self._manifest, replaced, handed.also_keep, look=handed.look)
            else:
                self._ledger.stored.update(self.mine)
        except BaseException as error:
            self.error = error
        finally:
            self._ended.set()

    def _write_own(self, handed: Handed) -> Stored:
        """Write the files of this process's changed clients and, on process 0, the server's."""
        folder = self._ledger.folder / CLIENTS
        folder.mkdir(parents=True, exist_ok=True)
        if communication.process_index() == 0:
            remove(self._partial)
            self._partial.mkdir()
            for part, tensors in handed.parts.items():
                self._go_on()
                path = self._partial / f"{part}.safetensors"
                save_file(tensors, path)
                sync(path)
        changed = set(handed.changed)
        if handed.look:
            there, stored = file_names(folder), self._ledger.stored
            mine = {client: stored[client] for client in handed.clients if client in stored}
            changed |= {id_ for id_, kept in mine.items() if client_file(id_, kept.round_idx) not in there}
        written = {}
        for client in sorted(changed):
            self._go_on()
            path = folder / client_file(client, handed.round_idx)
            sha256 = _write_client(path, handed.clients[client])
            written[client] = StoredClient(round_idx=handed.round_idx, sha256=sha256)
        if written:
            sync(folder)
        for tensor, version in handed.seen:
            if tensor._version != version:
                raise UserError(
                    f"round {handed.round_idx}: a tensor of the server or of a client was changed in place while its "
                    "checkpoint was written; let rules, parts and optimizers return new tensors"
                )
        return written

    def _of_everyone(self) -> Stored:
        """Return what all processes wrote, as soon as they have."""
        if communication.num_processes() == 1:
            assert self.mine is not None
            return self.mine
        everyone: list[Stored] | None = None
        while everyone is None:
            is_last = self._told.is_set()
            everyone = communication.posted(self._name) or self._everyone
            if everyone is None and is_last:
                raise Abandoned
            if everyone is None:
                self._told.wait(POLL_S)
        return {client: entry for part in everyone for client, entry in part.items()}

    def _make(self, handed: Handed, written: Stored) -> Stored:
        """Make the checkpoint, of files that are on the disk; return the files that it does not need any more."""
        self._go_on()
        ledger = self._ledger
        files = {path.name: file_hash(path) for path in sorted(self._partial.iterdir())}
        before, stored = ledger.stored, {**ledger.stored, **written}
        tables = {
            "records": _add_records(ledger, handed),
            "clients": _add_clients(ledger, self.round_idx, stored, written),
        }
        self._manifest = Manifest(round_idx=self.round_idx, files=files, clients=stored, tables=tables)
        _write_manifest(self._partial, self._manifest)
        sync(self._partial)
        final = ledger.folder / round_folder(self.round_idx)
        self._go_on()  # hashing takes seconds: the folder may have gone to another run meanwhile
        remove(final)
        self._partial.rename(final)
        sync(ledger.folder)
        self.saved, ledger.stored = True, stored
        return {id_: before[id_] for id_ in written if id_ in before and before[id_].round_idx != self.round_idx}

    def _go_on(self) -> None:
        if self._leaves:
            raise Abandoned

    @property
    def _partial(self) -> Path:
        return (self._ledger.folder / round_folder(self.round_idx)).with_suffix(".partial")


def _add_records(ledger: Ledger, handed: Handed) -> Prefix:
    known = ledger.records.num_bytes
    with handed.records.open("rb") as file:
        if known is None or known > handed.num_record_bytes:
            return ledger.records.begin(handed.round_idx, file.read(handed.num_record_bytes))
        file.seek(known)
        return ledger.records.add(file.read(handed.num_record_bytes - known))


def _add_clients(ledger: Ledger, round_idx: int, stored: Stored, written: Stored) -> Prefix:
    """Add what was written to the table; one in which most lines do not count any more is begun anew."""
    if not stored:
        return Prefix.empty("clients")
    if ledger.table.num_bytes is None or ledger.num_lines > 2 * len(stored) + _SPARE_LINES:
        ledger.num_lines = len(stored)
        return ledger.table.begin(round_idx, client_lines(stored))
    ledger.num_lines += len(written)
    return ledger.table.add(client_lines(written))


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
            content = {"private": state.private, "parts": state.parts, "optimizer": state.optimizer}
            if state.under_way is not None:
                content["under_way"] = state.under_way
            torch.save(content, cast(BinaryIO, writer))
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
