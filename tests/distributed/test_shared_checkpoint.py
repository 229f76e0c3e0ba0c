"""Two processes make one checkpoint: without a collective beside the training's, and never one that lacks a part."""

import errno
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import fedlit.store.writing
from fedlit.errors import UserError
from fedlit.process import communication
from fedlit.round.jobs import ClientState
from fedlit.round.server import ServerState
from fedlit.store.checkpoint import Checkpoints

CPU = torch.device("cpu")
FORK = multiprocessing.get_context("fork")
Save = Callable[[int], None]
Case = Callable[[Checkpoints, Save, int, pytest.MonkeyPatch], str]


def comes_without_a_collective(checkpoints: Checkpoints, save: Save, rank: int, patch: pytest.MonkeyPatch) -> str:
    """The main threads only sleep: the checkpoint is there before they meet."""
    save(1)
    deadline = time.monotonic() + 60
    while not (checkpoints.folder / "round-0001").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    came = (checkpoints.folder / "round-0001").exists()
    return f"{came} {checkpoints.settle()}"


def notes_are_lost(checkpoints: Checkpoints, save: Save, rank: int, patch: pytest.MonkeyPatch) -> str:
    """The processes tell each other when they meet."""
    patch.setattr(communication, "post", lambda *_: None)
    save(1)
    time.sleep(0.5)
    came = (checkpoints.folder / "round-0001").exists()
    dist.barrier()
    return f"{came} {checkpoints.settle()}"


def one_disk_is_full(checkpoints: Checkpoints, save: Save, rank: int, patch: pytest.MonkeyPatch) -> str:
    def refuse(path: Path, _state: Any) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    if rank == 1:
        patch.setattr(fedlit.store.writing, "_write_client", refuse)
    save(1)
    try:
        checkpoints.settle()
    except UserError as error:
        return f"{error} {checkpoints.saved_round}"
    return "no error"


def one_has_a_bug(checkpoints: Checkpoints, save: Save, rank: int, patch: pytest.MonkeyPatch) -> str:
    """The other does not take the checkpoint for made; it misses the first in the next collective."""
    if rank == 1:
        patch.setattr(fedlit.store.writing, "_write_client", lambda *_: 1 / 0)
    save(1)
    try:
        return f"{checkpoints.settle()}"
    except ZeroDivisionError:
        return "bug"


def one_is_killed(checkpoints: Checkpoints, save: Save, rank: int, patch: pytest.MonkeyPatch) -> str:
    if rank == 1:
        patch.setattr(fedlit.store.writing, "_write_client", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    save(1)
    try:
        checkpoints.settle()
    except RuntimeError as error:
        told = communication.lost_peer(error, 60.0)
        checkpoints.close()
        return f"lost {told is not None} {checkpoints.saved_round}"
    return "nothing"


def one_leaves_after_all_is_written(checkpoints: Checkpoints, save: Save, rank: int, patch: pytest.MonkeyPatch) -> str:
    """Process 0 alone meets an error of its own, and waits for nobody."""
    save(1)
    if rank == 1:
        checkpoints._writing.own.wait()  # type: ignore[union-attr]
        return "later"
    time.sleep(0.5)
    checkpoints.close()
    return f"{checkpoints.saved_round}"


CASES: dict[str, tuple[Case, tuple[str, str], int]] = {
    "notes": (comes_without_a_collective, ("True 1", "True 1"), 1),
    "lost notes": (notes_are_lost, ("False 1", "False 1"), 1),
    "full disk": (one_disk_is_full, ("cannot be written (No space left on device)",) * 2, 0),
    "bug": (one_has_a_bug, ("0", "bug"), 0),
    "kill": (one_is_killed, ("lost True 0", ""), 0),
    "exit": (one_leaves_after_all_is_written, ("1", "later"), 1),
}
"""What happens, what both processes tell of it, and the round of the newest checkpoint."""


def work(rank: int, port: int, folder: str, name: str) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    run = Path(folder)
    checkpoints = Checkpoints(folder=run / "checkpoints", keep=2)
    clients = {client: ClientState(private={"b": torch.full((9,), float(client))}) for client in range(rank, 6, 2)}

    def save(number: int) -> None:
        if rank == 0:
            with (run / "metrics.jsonl").open("a") as file:
                file.write(f'{{"round": {number}}}\n')
        changed = {client for client in clients if client < 4}
        for client in changed if number else ():
            clients[client] = ClientState(private={"b": torch.full((9,), client + number / 10)})
        server = ServerState(round_idx=number, shared={"w": torch.full((4,), float(number))})
        checkpoints.save(server, clients, changed if number else set(), run / "metrics.jsonl")

    with pytest.MonkeyPatch.context() as patch:
        save(0)
        assert checkpoints.settle() == 0
        told = CASES[name][0](checkpoints, save, rank, patch)
    (run / f"told-{rank}.txt").write_text(told)
    with suppress(RuntimeError):  # the other one may be gone
        dist.barrier()
        dist.destroy_process_group()


@pytest.mark.parametrize("name", CASES)
def test_two_processes_make_a_checkpoint_or_none(name: str, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [FORK.Process(target=work, args=(rank, port, str(tmp_path), name)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, -signal.SIGKILL if name == "kill" else 0]
    _, expected, newest = CASES[name]
    for rank, text in enumerate(expected):
        if text:
            assert text in (tmp_path / f"told-{rank}.txt").read_text()
    checkpoints = Checkpoints(folder=tmp_path / "checkpoints", keep=2)
    assert checkpoints.newest() == (tmp_path / "checkpoints" / f"round-{newest:04d}", [])
    server, clients = checkpoints.load(tmp_path / "checkpoints" / f"round-{newest:04d}", CPU, set(range(6)))
    assert float(server.shared["w"][0]) == newest
    values = {client: round(float(state.private["b"][0]), 3) for client, state in clients.items()}
    assert values == {client: client + (newest / 10 if client < 4 else 0) for client in range(6)}
