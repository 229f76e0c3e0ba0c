"""A checkpoint after every round: what a killed run needs to go on with the same bits, without the frozen backbone.

    round-0003/
      manifest.json              names and SHA-256 of all other files; its presence in a renamed folder means: complete
      shared.safetensors  frozen.safetensors  optimizer.safetensors  clients.safetensors      the server
      clients/client-00007.pt    a client's private tensors, control variate and optimizer state, if it has any
      metrics.jsonl              the records so far

It is written into `round-0003.partial`, each process its own clients, and renamed at the end. Random streams have no
state, so none is stored. A client that did not train this round is hard-linked from the checkpoint before.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from fedlit.client.trainer import ClientState
from fedlit.process import communication
from fedlit.round.server import ServerState

_SERVER_PARTS = ("shared", "frozen", "optimizer", "clients")


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The checkpoints of one run."""

    folder: Path
    keep: int
    _saved: dict[int, Path] = field(default_factory=dict)
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
        final = self.folder / _name(server.round_idx)
        partial = final.with_suffix(".partial")
        first = communication.process_index() == 0
        if first:
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "clients").mkdir(parents=True)
        communication.barrier()
        written = [self._write_client(partial, client, state, client in changed) for client, state in clients.items()]
        if first:
            for part in _SERVER_PARTS:
                path = partial / f"{part}.safetensors"
                tensors = {name: tensor.cpu().contiguous() for name, tensor in getattr(server, part).items()}
                save_file(tensors, path)
                written.append(path)
            written.append(Path(shutil.copyfile(records, partial / "metrics.jsonl")))
        hashes = {str(path.relative_to(partial)): _hash(path) for path in written}
        gathered = communication.gather_objects(hashes)
        if first:
            manifest = {
                "round_idx": server.round_idx,
                "files": {name: value for part in gathered for name, value in part.items()},
            }
            _write_synced(partial / "manifest.json", json.dumps(manifest, indent=1))
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
        communication.barrier()
        self._saved.update({client: final / "clients" / _client_file(client) for client in clients})
        if first:
            for old in _complete(self.folder)[: -self.keep]:
                if also_keep is None or old.name != _name(also_keep):
                    shutil.rmtree(old)

    def newest(self) -> tuple[Path | None, list[str]]:
        """Return the newest intact checkpoint, or None, and a line for each damaged one that was passed over.

        Process 0 looks and the others are told, since two processes could see a shared file system differently.
        """
        found: tuple[Path | None, list[str]] = (None, [])
        if communication.process_index() == 0:
            damaged: list[str] = []
            for path in reversed(_complete(self.folder)):
                problem = _problem(path)
                if problem is None:
                    found = (path, damaged)
                    break
                damaged.append(f"checkpoint {path.name} is damaged ({problem}) and is passed over")
            else:
                found = (None, damaged)
        return communication.gather_objects(found)[0]

    def of_round(self, number: int) -> Path | None:
        """Return the intact checkpoint after a round, None if it is gone."""
        path = self.folder / _name(number)
        return path if path.is_dir() and _problem(path) is None else None

    def load(self, path: Path, device: torch.device, mine: set[int]) -> tuple[ServerState, dict[int, ClientState]]:
        """Return the server's state, on `device`, and the stored states of the clients in `mine`, on the CPU."""
        round_idx = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["round_idx"]
        parts = {part: load_file(path / f"{part}.safetensors", device=str(device)) for part in _SERVER_PARTS}
        clients = {}
        for client in mine:
            file = path / "clients" / _client_file(client)
            if file.exists():
                clients[client] = ClientState(**torch.load(file, map_location="cpu", weights_only=True))
                self._saved[client] = file
        return ServerState(round_idx=round_idx, **parts), clients

    def _write_client(self, partial: Path, client: int, state: ClientState, changed: bool) -> Path:
        path = partial / "clients" / _client_file(client)
        before = self._saved.get(client)
        if not changed and before is not None and before.exists():
            try:
                os.link(before, path)
            except OSError:  # a file system without hard links
                shutil.copyfile(before, path)
        else:
            with path.open("wb") as file:
                torch.save({"private": state.private, "control": state.control, "optimizer": state.optimizer}, file)
                file.flush()
                os.fsync(file.fileno())
        return path


def _name(round_idx: int) -> str:
    return f"round-{round_idx:04d}"


def _client_file(client_id: int) -> str:
    return f"client-{client_id:05d}.pt"


def _complete(folder: Path) -> list[Path]:
    """Return the renamed checkpoints, oldest first."""
    rounds = {path: path.name.removeprefix("round-") for path in folder.glob("round-*")}
    return sorted((path for path, number in rounds.items() if number.isdigit()), key=lambda path: int(rounds[path]))


def _problem(path: Path) -> str | None:
    """Return what is wrong with a checkpoint, None if every file is as it was written."""
    try:
        files = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return "manifest.json is missing or cut short"
    for name, expected in files.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if _hash(path / name) != expected:
            return f"{name} is not as it was written"
    return None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
