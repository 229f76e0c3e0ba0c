"""A checkpoint gives back every bit; one that is damaged or unfinished is passed over, never half read."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import fedlit.run.checkpoint
from fedlit.algebra.tensors import TensorDict, checksum
from fedlit.client.trainer import ClientState
from fedlit.round.server import ServerState
from fedlit.run.checkpoint import Checkpoints

CPU = torch.device("cpu")
Save = Callable[..., tuple[ServerState, dict[int, ClientState]]]


def random_tensors(seed: int, *names: str, dtype: torch.dtype = torch.float32) -> TensorDict:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(3, 5, generator=generator).to(dtype) for name in names}


def client_state(seed: int, optimizer: str | None) -> ClientState:
    """Return a state with real moments after two steps."""
    private = random_tensors(seed, "layer.lora_B.weight", "other.lora_B.weight")
    if optimizer is None:
        return ClientState(private=private)
    parameters = [torch.nn.Parameter(tensor.clone()) for tensor in private.values()]
    stepper: torch.optim.Optimizer = (
        torch.optim.AdamW(parameters, lr=0.1, fused=True)
        if optimizer == "adamw"
        else torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    )
    for _ in range(2):
        torch.stack([parameter.square().sum() for parameter in parameters]).sum().backward()
        stepper.step()
        stepper.zero_grad()
    return ClientState(private=private, optimizer=stepper.state_dict())


def server_state(round_idx: int) -> ServerState:
    return ServerState(
        round_idx=round_idx,
        shared=random_tensors(round_idx, "a.weight", "b.weight"),
        frozen=random_tensors(round_idx + 100, "a.base", dtype=torch.bfloat16),
        optimizer=random_tensors(round_idx + 200, "momentum", dtype=torch.float64),
    )


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"round": 0}\n', encoding="utf-8")
    return path


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(folder=tmp_path / "checkpoints", keep=2)


@pytest.fixture
def save(checkpoints: Checkpoints, records: Path) -> Save:
    def save_round(
        round_idx: int, changed: set[int] | None = None, clients: Mapping[int, ClientState] | None = None
    ) -> tuple[ServerState, dict[int, ClientState]]:
        server = server_state(round_idx)
        states = dict(clients or {client: client_state(client, "adamw") for client in (0, 3, 12)})
        records.write_text("".join(f'{{"round": {done}}}\n' for done in range(round_idx + 1)), encoding="utf-8")
        checkpoints.save(server, states, set(states) if changed is None else changed, records)
        return server, states

    return save_round


def assert_same_server(left: ServerState, right: ServerState) -> None:
    assert left.round_idx == right.round_idx
    for part in ("shared", "frozen", "optimizer"):
        assert checksum(getattr(left, part)) == checksum(getattr(right, part)), part


def assert_same_client(left: ClientState, right: ClientState) -> None:
    assert checksum(left.private) == checksum(right.private)
    assert (left.optimizer is None) == (right.optimizer is None)
    if left.optimizer is not None:
        assert right.optimizer is not None
        assert left.optimizer["param_groups"] == right.optimizer["param_groups"]
        moments, others = left.optimizer["state"], right.optimizer["state"]
        assert moments.keys() == others.keys() != set()
        assert all(checksum(moments[index]) == checksum(others[index]) for index in moments)


def again(checkpoints: Checkpoints) -> Checkpoints:
    """Return what a new process knows of the same folder."""
    return Checkpoints(folder=checkpoints.folder, keep=checkpoints.keep)


def newest(checkpoints: Checkpoints) -> Path:
    """Return the newest checkpoint, which nothing is wrong with."""
    path, notices = checkpoints.newest()
    assert path is not None
    assert notices == []
    return path


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", None])
def test_every_bit_comes_back(optimizer: str | None, checkpoints: Checkpoints, save: Save, records: Path) -> None:
    server, states = save(3, clients={client: client_state(client, optimizer) for client in (0, 3, 12)})
    path = newest(again(checkpoints))
    loaded, clients = again(checkpoints).load(path, CPU, {0, 3, 12})
    assert_same_server(loaded, server)
    assert clients.keys() == states.keys()
    for client, state in states.items():
        assert_same_client(clients[client], state)
        assert all(tensor.device == CPU for tensor in clients[client].private.values())
    assert (path / "metrics.jsonl").read_bytes() == records.read_bytes()
    assert checkpoints.load(path, CPU, {3, 7})[1].keys() == {3}


def test_a_loaded_optimizer_steps_on_with_the_same_bits(checkpoints: Checkpoints, save: Save) -> None:
    _, states = save(1)
    path = newest(checkpoints)
    _, clients = checkpoints.load(path, CPU, {3})
    reached = []
    for state in (states[3], clients[3]):
        parameters = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in state.private.items()}
        optimizer = torch.optim.AdamW(list(parameters.values()), fused=True)
        assert state.optimizer is not None
        optimizer.load_state_dict(state.optimizer)
        torch.stack([parameter.sum() for parameter in parameters.values()]).sum().backward()
        optimizer.step()
        reached.append(checksum(parameters))
    assert reached[0] == reached[1]


def test_the_files_open_without_this_library(checkpoints: Checkpoints, save: Save) -> None:
    server, states = save(2)
    path = checkpoints.folder / "round-0002"
    assert checksum(load_file(path / "shared.safetensors")) == checksum(server.shared)
    stored = torch.load(path / "clients" / "client-00003.pt", weights_only=True)
    assert checksum(stored["private"]) == checksum(states[3].private)
    listed = json.loads((path / "manifest.json").read_text())["files"]
    files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    assert set(listed) == files - {"manifest.json"}


def test_a_stateless_federation(checkpoints: Checkpoints, records: Path) -> None:
    assert checkpoints.newest() == (None, [])
    server = ServerState(round_idx=1, shared=random_tensors(0, "a"))
    checkpoints.save(server, {}, set(), records)
    path = newest(checkpoints)
    loaded, clients = checkpoints.load(path, CPU, set())
    assert_same_server(loaded, server)
    assert loaded.frozen == loaded.optimizer == {}
    assert clients == {}


SERVER_FILES = ["shared.safetensors", "frozen.safetensors", "optimizer.safetensors"]
FILES = ["manifest.json", *SERVER_FILES, "metrics.jsonl", "clients/client-00003.pt"]


def cut_short(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()  # an unchanged client's file is one with the checkpoint before
    path.write_bytes(content[: len(content) // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    path.unlink()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "name"),
    [(damage, name) for damage in (cut_short, Path.unlink) for name in FILES]
    + [(flip_a_bit, name) for name in FILES[1:]],  # the manifest holds the others' hashes, not its own
)
def test_a_damaged_checkpoint_is_passed_over_with_a_notice(
    damage: Callable[[Path], Any], name: str, checkpoints: Checkpoints, save: Save
) -> None:
    server, _ = save(4)
    save(5)
    damage(checkpoints.folder / "round-0005" / name)
    path, notices = again(checkpoints).newest()
    assert path == checkpoints.folder / "round-0004"
    assert len(notices) == 1
    assert "round-0005" in notices[0]
    assert name in notices[0]
    loaded, _ = again(checkpoints).load(path, CPU, {0})
    assert_same_server(loaded, server)


def test_with_all_damaged_there_is_none(checkpoints: Checkpoints, save: Save) -> None:
    for round_idx in (4, 5):
        save(round_idx)
        cut_short(checkpoints.folder / f"round-{round_idx:04d}" / "shared.safetensors")
    path, notices = checkpoints.newest()
    assert path is None
    assert [notice.split()[1] for notice in notices] == ["round-0005", "round-0004"]


def test_a_damaged_checkpoint_is_replaced_when_its_round_is_done_again(checkpoints: Checkpoints, save: Save) -> None:
    save(4)
    save(5)
    cut_short(checkpoints.folder / "round-0005" / "shared.safetensors")
    server, _ = save(5)
    assert newest(checkpoints).name == "round-0005"
    assert_same_server(checkpoints.load(newest(checkpoints), CPU, set())[0], server)


STEPS = {
    "server": (fedlit.run.checkpoint, "save_file"),
    "clients": (torch, "save"),
    "records": (shutil, "copyfile"),
    "manifest": (fedlit.run.checkpoint, "_write_synced"),
    "rename": (Path, "rename"),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_run_killed_while_writing_keeps_the_checkpoint_before(
    step: str, checkpoints: Checkpoints, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, states = save(4)

    def killed(*_arguments: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(*STEPS[step], killed)
        save(5)
    assert (checkpoints.folder / "round-0005.partial").is_dir()
    fresh = again(checkpoints)
    path = newest(fresh)
    assert path.name == "round-0004"
    loaded, clients = fresh.load(path, CPU, {0, 3, 12})
    assert_same_server(loaded, server)
    assert_same_client(clients[12], states[12])
    (checkpoints.folder / "round-0005.partial" / "stray").touch()
    save(5)
    assert newest(fresh).name == "round-0005"
    assert not list(checkpoints.folder.glob("*.partial"))
    assert not list(checkpoints.folder.rglob("stray"))


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(keep: int, tmp_path: Path, records: Path) -> None:
    checkpoints = Checkpoints(folder=tmp_path / "checkpoints", keep=keep)
    for round_idx in (8, 9, 10, 9999, 10000):  # not in the order of their names' letters
        checkpoints.save(server_state(round_idx), {}, set(), records)
    names = ["round-0008", "round-0009", "round-0010", "round-9999", "round-10000"]
    assert {path.name for path in checkpoints.folder.iterdir()} == set(names[-keep:])
    assert newest(checkpoints).name == "round-10000"


def inode(checkpoints: Checkpoints, round_idx: int, client: int) -> int:
    return (checkpoints.folder / f"round-{round_idx:04d}" / "clients" / f"client-{client:05d}.pt").stat().st_ino


@pytest.mark.parametrize("resumed", [False, True])
def test_an_unchanged_client_is_linked(resumed: bool, checkpoints: Checkpoints, save: Save, records: Path) -> None:
    _, states = save(1)
    writer = checkpoints
    if resumed:
        writer = again(checkpoints)
        _, states = writer.load(newest(writer), CPU, set(states))
    states[3] = client_state(99, "adamw")
    writer.save(server_state(2), states, {3}, records)
    assert inode(checkpoints, 2, 0) == inode(checkpoints, 1, 0)
    assert inode(checkpoints, 2, 12) == inode(checkpoints, 1, 12)
    assert inode(checkpoints, 2, 3) != inode(checkpoints, 1, 3)
    for round_idx in (3, 4):  # the file outlives the checkpoint that it was written for
        writer.save(server_state(round_idx), states, set(), records)
    path = newest(again(checkpoints))
    assert path.name == "round-0004"
    _, clients = again(checkpoints).load(path, CPU, {0, 3, 12})
    for client, state in states.items():
        assert_same_client(clients[client], state)


@pytest.mark.parametrize("obstacle", ["no links", "file gone"])
def test_an_unchanged_client_is_written_where_it_cannot_be_linked(
    obstacle: str, checkpoints: Checkpoints, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: Any) -> None:
        raise OSError("no links here")

    _, states = save(1)
    if obstacle == "no links":
        monkeypatch.setattr(os, "link", refuse)
    else:
        (checkpoints.folder / "round-0001" / "clients" / "client-00000.pt").unlink()
    save(2, changed=set(), clients=states)
    assert newest(checkpoints).name == "round-0002"
    assert_same_client(checkpoints.load(newest(checkpoints), CPU, {0})[1][0], states[0])
