"""Runs without training, whose rounds follow from each other, and the moments at which their writer is killed."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fedlit.store.checkpoint
import fedlit.store.tidying
import fedlit.store.writing
from fedlit.algebra.tensors import checksum
from fedlit.round.jobs import ClientState
from fedlit.round.server import ServerState
from fedlit.store.checkpoint import Checkpoints
from fedlit.store.growing import Growing

CPU = torch.device("cpu")
CLIENTS, COHORT = 6, 2


def run(folder: Path, last: int, on_save: Callable[[Checkpoints, int], None] = lambda *_: None) -> int | None:
    """Do the rounds up to the last, from the newest checkpoint on; return the round that it went on after.

    on_save: called before the checkpoint of each round.
    """
    checkpoints = Checkpoints(folder=folder / "checkpoints", keep=2)
    folder.mkdir(exist_ok=True)
    server = ServerState(round_idx=-1, shared={"w": torch.arange(100.0)})
    clients = {client: ClientState(private={"b": torch.full((50,), float(client))}) for client in range(CLIENTS)}
    path, _ = checkpoints.newest()
    text = ""
    if path is not None:
        server, stored = checkpoints.load(path, CPU, set(clients))
        clients |= stored
        text = checkpoints.records(path)
    (folder / "metrics.jsonl").write_text(text)
    begun = None if path is None else server.round_idx
    while server.round_idx < last:
        number = server.round_idx + 1
        server = ServerState(round_idx=number, shared={"w": server.shared["w"] * 1.5 + number})
        changed = {(number * COHORT + i) % CLIENTS for i in range(COHORT)} if number else set()
        for client in changed:
            kept = clients[client].private["b"]
            clients[client] = ClientState(private={"b": kept * 0.5 + number})
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"round": number, "norm": float(server.shared["w"].norm())}) + "\n")
        on_save(checkpoints, number)
        checkpoints.save(server, clients, changed, folder / "metrics.jsonl")
    checkpoints.settle()
    return begun


def outcome(folder: Path) -> dict[str, Any]:
    """Return what the kept checkpoints of a run hold, and the names of its clients' files."""
    checkpoints = Checkpoints(folder=folder / "checkpoints", keep=2)
    found: dict[str, Any] = {"files": sorted(path.name for path in (checkpoints.folder / "clients").iterdir())}
    for path in sorted(checkpoints.folder.glob("round-*")):
        assert checkpoints.of_round(int(path.name[-4:])) == path
        server, clients = checkpoints.load(path, CPU, set(range(CLIENTS)))
        states = {client: checksum(state.private) for client, state in clients.items()}
        found[path.name] = (checksum(server.shared), states, checkpoints.records(path))
    return found


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *_, **__: die()


def after(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **options: (function(*arguments, **options), die())


def amid_save_file(_function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda _tensors, path: (path.write_bytes(b"half of a fi"), die())


def amid_a_client(write: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, data: (write(self, data[: len(data) // 2]), self.flush(), die())


def amid_a_table(add: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, content: (add(self, content[: len(content) // 2]), die())


def amid_a_manifest(_function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda folder, manifest: ((folder / "manifest.json").write_text(manifest.to_json()[:40]), die())


def amid_removal(_function: Callable[..., Any]) -> Callable[..., Any]:
    def kill(path: Path) -> None:
        (path / "manifest.json").unlink() if path.is_dir() else path.unlink()
        die()

    return kill


writing = fedlit.store.writing
MOMENTS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "before the hand-over": (fedlit.store.checkpoint, "_whole", before),
    "before the thread": (fedlit.store.checkpoint, "Writing", before),
    "amid the server": (writing, "save_file", amid_save_file),
    "after a part of the server": (writing, "save_file", after),
    "before the disk has it": (writing, "sync", before),
    "amid a client": (writing._HashingWriter, "write", amid_a_client),
    "after a client": (writing, "_write_client", after),
    "before the tables": (Growing, "add", before),
    "amid a table": (Growing, "add", amid_a_table),
    "after a table": (Growing, "add", after),
    "before a new table": (Growing, "begin", before),
    "after a new table": (Growing, "begin", after),
    "before the manifest": (writing, "_write_manifest", before),
    "amid the manifest": (writing, "_write_manifest", amid_a_manifest),
    "after the manifest": (writing, "_write_manifest", after),
    "before the rename": (Path, "rename", before),
    "after the rename": (Path, "rename", after),
    "before tidying": (fedlit.store.tidying.Tidying, "__call__", before),
    "amid tidying": (fedlit.store.tidying, "remove", amid_removal),
    "after tidying": (fedlit.store.tidying.Tidying, "__call__", after),
}
SAVED = ("after the rename", "before tidying", "amid tidying", "after tidying")
"""Moments at which the checkpoint is there already."""


def killed_run(folder: Path, kill_in: int, moment: str, last: int) -> None:
    """Do the rounds up to the one whose writer is killed, in this process."""
    target, name, how = MOMENTS[moment]
    if name == "begin":  # as the first round of a process does
        run(folder, kill_in - 1)

    def plant(checkpoints: Checkpoints, number: int) -> None:
        if number == kill_in:
            checkpoints.settle()
            patch.setattr(target, name, how(getattr(target, name)))

    with pytest.MonkeyPatch.context() as patch:
        run(folder, last, plant)
