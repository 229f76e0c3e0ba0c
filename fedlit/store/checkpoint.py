"""A checkpoint after every round: what a killed run needs to go on with the same bits, without the frozen backbone.

    records-0000.jsonl, clients-0000.jsonl   the records and the clients' files so far (`fedlit.store.growing`)
    round-0003/
      manifest.json              names and SHA-256 of all other files (`fedlit.store.manifest`)
      shared.safetensors  ...    the server, a file for each of its parts
    clients/
      client-00007-round-0002.pt what a client keeps, if it keeps anything, as it was after its last change

A round costs the files of the clients that it changed, and no copy of what was there before: the others stay where they
are, and the tables name them. Files that no kept checkpoint names are removed.

A thread writes while the next round trains (`fedlit.store.writing`), and the next save waits for it. Everything is on
the disk before its name is: the clients' files, then `round-0003.partial` with the manifest last, which is renamed at
the end. Only then is anything old removed. Killed before the rename, a run goes on from the checkpoint before. Random
streams have no state, so none is stored.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from fedlit.algebra.tensors import on_cpu
from fedlit.errors import UserError
from fedlit.process import communication
from fedlit.process.storage import storage_error
from fedlit.round.jobs import ClientState
from fedlit.round.server import ServerState
from fedlit.store.manifest import find_problem, read_manifest, read_records, round_folder
from fedlit.store.tidying import complete
from fedlit.store.writing import Abandoned, Handed, Ledger, Writing


@dataclass(kw_only=True)
class Checkpoints:
    """The checkpoints of one run."""

    folder: Path
    keep: int
    saved_round: int | None = None
    """Of the newest checkpoint, as far as all processes know: that a run has taken up, or since the last `settle`."""
    _ledger: Ledger = field(init=False)
    _writing: Writing | None = None

    def __post_init__(self) -> None:
        """Know nothing of what is in the folder."""
        self._ledger = Ledger.of(self.folder, self.keep)

    def save(
        self,
        server: ServerState,
        clients: Mapping[int, ClientState],
        changed: set[int],
        records: Path,
        *,
        also_keep: int | None = None,
    ) -> None:
        """Begin to write the checkpoint of a round; every process calls it with its own clients. Once it is there, old
        ones beyond `keep` go.

        The server and the clients are values: no tensor of theirs may be changed in place from now on.

        Args:
            server: its state after the round.
            clients: the states of this process's clients, by id.
            changed: those of them whose state differs from the newest checkpoint.
            records: the run's metrics.jsonl, which ends with this round.
            also_keep: number of a round whose checkpoint stays, however old.

        Raises:
            Whatever `settle` raises, of the checkpoint before.
        """
        self.settle()
        first, seen = communication.process_index() == 0, list[tuple[Tensor, int]]()
        touched = communication.gather_objects(first and self._ledger.tidying.is_touched())[0]
        # The optimizer is nested; what is handed over is the writer's own, or a value that nobody changes.
        wanted = (changed & clients.keys()) | (clients.keys() - self._ledger.stored.keys())
        handed = Handed(
            round_idx=server.round_idx,
            parts={part: _whole(tensors, seen) for part, tensors in server.parts().items()} if first else {},
            clients={**clients, **{id_: _state_on_hand(clients[id_], seen) for id_ in wanted}},
            changed=wanted,
            records=records,
            num_record_bytes=records.stat().st_size if first else 0,
            also_keep=also_keep,
            look=touched,
            seen=seen,
        )
        self._writing = Writing(self._ledger, handed)

    def settle(self) -> int | None:
        """Wait until what was saved last is on the disk, on every process; return the round of the newest checkpoint.

        Raises:
            UserError: on every process, that the file system of one of them does not take it.
        """
        writing = self._writing
        if writing is None:
            return self.saved_round
        writing.own.wait()
        # Before process 0 waits for the others' files: here it is told of one that is gone.
        everyone = communication.gather_objects(writing.mine)
        writing.tell(None if None in everyone else [part for part in everyone if part is not None])
        writing.wait()
        self._writing = None
        refusal = None if writing.error is None else self._refusal(writing.error)
        told = communication.gather_objects((refusal, writing.saved))
        if told[0][1]:
            self.saved_round = writing.round_idx
        refusals = [refusal for refusal, _ in told if refusal is not None]
        if refusals:
            raise UserError(refusals[0]) from writing.error
        if writing.error is not None and not isinstance(writing.error, Abandoned):
            raise writing.error
        return self.saved_round

    def intact_round(self) -> int | None:
        """Return what `settle` does; where a disk is full, the round of the checkpoint before: something else ends the
        run, and is told.
        """
        try:
            return self.settle()
        except UserError:
            return self.saved_round

    def close(self, *, leave: bool = False) -> int | None:
        """Wait for what this process is writing, without the others, and say nothing of errors: another one is under
        way. What all have written becomes a checkpoint. Return the round of the newest that this process knows of.

        leave: what is not written by now is left out.
        """
        if self._writing is not None:
            if leave:
                self._writing.leave()
            self._writing.wait()
            if self._writing.saved:
                self.saved_round = self._writing.round_idx
            self._writing = None
        return self.saved_round

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """However the block ends, nothing is being written afterwards; at a good end all is on the disk.

        Raises:
            Whatever `settle` raises.
        """
        try:
            yield
            self.settle()
        except KeyboardInterrupt:  # at once
            self.close(leave=True)
            raise
        finally:
            self.close()

    def _refusal(self, error: BaseException) -> str | None:
        """Return what an error says in one line, None if it is a bug."""
        told = error if isinstance(error, UserError) else storage_error(error, self.folder.parent, goes_on=True)
        return None if told is None else str(told)

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
        for path in reversed(complete(self.folder)):
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

    def records(self, path: Path) -> str:
        """Return the text of metrics.jsonl as it was at a checkpoint, one that `newest` or `of_round` has returned."""
        return read_records(path).decode("utf-8")

    def load(self, path: Path, device: torch.device, mine: set[int]) -> tuple[ServerState, dict[int, ClientState]]:
        """Return the server's state, on `device`, and the stored states of the clients in `mine`, on the CPU."""
        manifest = read_manifest(path)
        parts = {part: load_file(path / f"{part}.safetensors", device=str(device)) for part in ServerState.part_names()}
        clients = {}
        stored = manifest.clients if manifest.format > 1 else {}  # else the files go with the old checkpoint
        self._ledger.stored = dict(stored)
        for client in sorted(mine & manifest.clients.keys()):
            content = torch.load(manifest.client_path(path, client), map_location="cpu", weights_only=True)
            clients[client] = ClientState(**_migrated(content, manifest.format))
        return ServerState(round_idx=manifest.round_idx, **parts), clients


def _whole(tensors: Mapping[str, Tensor], seen: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
    """Return tensors as safetensors takes them: on the CPU, in one transfer for each type, and without gaps."""
    return {name: _on_hand(tensor.contiguous(), seen) for name, tensor in on_cpu(tensors).items()}


def _state_on_hand(state: ClientState, seen: list[tuple[Tensor, int]]) -> ClientState:
    kept = {entry.name: _on_hand(getattr(state, entry.name), seen) for entry in fields(state)}
    return ClientState(**kept)


def _on_hand(value: Any, seen: list[tuple[Tensor, int]]) -> Any:
    """Return a value, of nested dicts, lists and tuples, whose tensors are on the CPU. A tensor that is a part of a
    larger one is copied, since a file would hold the larger one; one with gaps keeps them, and so every later bit.

    seen: gets the tensors that are the run's own, not copies, with the number of their changes so far.
    """
    if isinstance(value, Tensor):
        if value.device.type != "cpu":
            return value.detach().cpu()
        if value.is_contiguous() and value.untyped_storage().nbytes() > value.numel() * value.element_size():
            return value.detach().clone()
        if not value.is_inference():
            seen.append((value, value._version))
        return value
    if type(value) is dict:
        return {key: _on_hand(each, seen) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_on_hand(each, seen) for each in value)
    return value


def _migrated(content: dict[str, Any], known: int) -> dict[str, Any]:
    """Return the fields of a client's state from what its file holds."""
    if known == 1:
        control = content.pop("control")
        return {**content, "parts": {"control": control} if control else {}}
    return content
