"""A checkpoint gives back every bit; one that is damaged or unfinished is passed over, never half read."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import fedlit.store.writing
from fedlit.algebra.tensors import TensorDict, checksum
from fedlit.round.jobs import ClientState
from fedlit.round.server import ServerState
from fedlit.store.checkpoint import Checkpoints
from fedlit.store.growing import Growing

CPU = torch.device("cpu")
Save = Callable[..., tuple[ServerState, dict[int, ClientState]]]


def random_tensors(seed: int, *names: str, dtype: torch.dtype = torch.float32) -> TensorDict:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(3, 5, generator=generator).to(dtype) for name in names}


def client_state(seed: int, optimizer: str | None) -> ClientState:
    """Return a state with real moments after two steps."""
    private = random_tensors(seed, "layer.lora_B.weight", "other.lora_B.weight")
    parts = {"control": random_tensors(seed + 50, "layer.lora_B.weight"), "empty": {}}
    if optimizer is None:
        return ClientState(private=private, parts=parts)
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
    return ClientState(private=private, parts=parts, optimizer=stepper.state_dict())


def server_state(round_idx: int) -> ServerState:
    return ServerState(
        round_idx=round_idx,
        shared=random_tensors(round_idx, "a.weight", "b.weight"),
        frozen=random_tensors(round_idx + 100, "a.base", dtype=torch.bfloat16),
        optimizer=random_tensors(round_idx + 200, "momentum", dtype=torch.float64),
        clients=random_tensors(round_idx + 300, "a.weight"),
    )


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    write_records(path, 0)
    return path


def write_records(path: Path, round_idx: int) -> None:
    """Write a record for each round up to this one."""
    path.write_text("".join(f'{{"round": {done}}}\n' for done in range(round_idx + 1)), encoding="utf-8")


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
        write_records(records, round_idx)
        checkpoints.save(server, states, set(states) if changed is None else changed, records)
        checkpoints.settle()
        return server, states

    return save_round


def assert_same_server(left: ServerState, right: ServerState) -> None:
    assert left.round_idx == right.round_idx
    for part, tensors in left.parts().items():
        assert checksum(tensors) == checksum(right.parts()[part]), part


def assert_same_client(left: ClientState, right: ClientState) -> None:
    assert checksum(left.private) == checksum(right.private)
    assert {group: checksum(tensors) for group, tensors in left.parts.items()} == {
        group: checksum(tensors) for group, tensors in right.parts.items()
    }
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
    assert checkpoints.records(path).encode() == records.read_bytes()
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
    stored = torch.load(checkpoints.folder / "clients" / "client-00003-round-0002.pt", weights_only=True)
    assert checksum(stored["private"]) == checksum(states[3].private)
    manifest = json.loads((path / "manifest.json").read_text())
    assert set(manifest["files"]) == {file.name for file in path.iterdir()} - {"manifest.json"}
    lines = [json.loads(line) for line in (checkpoints.folder / manifest["clients"]["file"]).read_text().splitlines()]
    assert [(line["client"], line["round"]) for line in lines] == [(0, 2), (3, 2), (12, 2)]
    assert manifest["format"] == 3


def test_a_stateless_federation(checkpoints: Checkpoints, records: Path) -> None:
    assert checkpoints.newest() == (None, [])
    server = ServerState(round_idx=1, shared=random_tensors(0, "a"))
    write_records(records, 1)
    checkpoints.save(server, {}, set(), records)
    checkpoints.settle()
    path = newest(checkpoints)
    loaded, clients = checkpoints.load(path, CPU, set())
    assert_same_server(loaded, server)
    assert loaded.frozen == loaded.optimizer == {}
    assert clients == {}
    assert {file.name for file in checkpoints.folder.iterdir()} == {"clients", "records-0001.jsonl", "round-0001"}


CLIENT_FILE = "clients/client-00003-round-0005.pt"
FILES = ["manifest.json", *(f"{part}.safetensors" for part in ServerState.part_names()), CLIENT_FILE]


def cut_short(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
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
    damage(checkpoints.folder / name if name == CLIENT_FILE else checkpoints.folder / "round-0005" / name)
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
    "server": (fedlit.store.writing, "save_file"),
    "clients": (torch, "save"),
    "records": (Growing, "add"),
    "manifest": (fedlit.store.writing, "_write_manifest"),
    "disk": (fedlit.store.writing, "sync"),
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
        write_records(records, round_idx)
        checkpoints.save(server_state(round_idx), {}, set(), records)
        checkpoints.settle()
    names = ["round-0008", "round-0009", "round-0010", "round-9999", "round-10000"]
    assert {path.name for path in checkpoints.folder.glob("round-*")} == set(names[-keep:])
    assert newest(checkpoints).name == "round-10000"


def client_files(checkpoints: Checkpoints) -> set[str]:
    return {path.name.removesuffix(".pt") for path in (checkpoints.folder / "clients").iterdir()}


@pytest.mark.parametrize("resumed", [False, True])
def test_only_changed_clients_are_written(
    resumed: bool, checkpoints: Checkpoints, save: Save, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, states = save(1)
    writer = checkpoints
    if resumed:
        writer = again(checkpoints)
        _, states = writer.load(newest(writer), CPU, set(states))
    states[3] = client_state(99, "adamw")
    saved = []
    write = torch.save
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", lambda *arguments: (saved.append(arguments), write(*arguments)))
        write_records(records, 2)
        writer.save(server_state(2), states, {3}, records)
        writer.settle()
    assert len(saved) == 1
    first = {f"client-{client:05d}-round-0001" for client in (0, 3, 12)}
    assert client_files(checkpoints) == first | {"client-00003-round-0002"}
    for round_idx in (3, 4):  # a file outlives the checkpoint that it was written for
        write_records(records, round_idx)
        writer.save(server_state(round_idx), states, set(), records)
        writer.settle()
    assert client_files(checkpoints) == first - {"client-00003-round-0001"} | {"client-00003-round-0002"}
    path = newest(again(checkpoints))
    assert path.name == "round-0004"
    _, clients = again(checkpoints).load(path, CPU, {0, 3, 12})
    for client, state in states.items():
        assert_same_client(clients[client], state)


def test_the_best_round_keeps_its_clients(checkpoints: Checkpoints, records: Path) -> None:
    states = {}
    for round_idx in range(1, 6):
        write_records(records, round_idx)
        states[round_idx] = {client: client_state(10 * round_idx + client, "sgd") for client in (0, 3)}
        checkpoints.save(server_state(round_idx), states[round_idx], {0, 3}, records, also_keep=2)
        checkpoints.settle()
    assert {path.name for path in checkpoints.folder.glob("round-*")} == {"round-0002", "round-0004", "round-0005"}
    assert {name.partition("-round-")[2] for name in client_files(checkpoints)} == {"0002", "0004", "0005"}
    path = checkpoints.of_round(2)
    assert path is not None
    _, clients = checkpoints.load(path, CPU, {0, 3})
    for client, state in states[2].items():
        assert_same_client(clients[client], state)
    assert checkpoints.of_round(3) is None


def test_a_client_whose_file_is_gone_is_written_again(checkpoints: Checkpoints, save: Save) -> None:
    _, states = save(1)
    (checkpoints.folder / "clients" / "client-00000-round-0001.pt").unlink()
    save(2, changed=set(), clients=states)
    assert newest(checkpoints).name == "round-0002"
    assert_same_client(checkpoints.load(newest(checkpoints), CPU, {0})[1][0], states[0])


def test_what_a_kill_left_among_the_clients_is_removed(checkpoints: Checkpoints, save: Save) -> None:
    save(1)
    (checkpoints.folder / "clients" / "client-00003-round-0002.partial").touch()
    (checkpoints.folder / "clients" / "client-00009-round-0002.pt").touch()
    _, states = save(2, changed=set())
    assert client_files(checkpoints) == {f"client-{client:05d}-round-0001" for client in states}


@pytest.mark.parametrize("keep", [1, 2])
def test_damaged_checkpoints_of_later_rounds_do_not_outlive_the_new_one(
    keep: int, tmp_path: Path, records: Path
) -> None:
    """They were counted among the newest: with keep=1 the round that was done again was removed at once."""
    checkpoints = Checkpoints(folder=tmp_path / "checkpoints", keep=keep + 2)
    for round_idx in range(3, 7):
        write_records(records, round_idx)
        checkpoints.save(server_state(round_idx), {}, set(), records)
        checkpoints.settle()
    for round_idx in (4, 5, 6):
        cut_short(checkpoints.folder / f"round-{round_idx:04d}" / "shared.safetensors")
    write_records(records, 4)
    other = Checkpoints(folder=checkpoints.folder, keep=keep)
    other.save(server_state(4), {}, set(), records)
    other.settle()
    names = {path.name for path in checkpoints.folder.glob("round-*")}
    assert names == {"round-0003", "round-0004"} if keep == 2 else {"round-0004"}
    assert newest(checkpoints).name == "round-0004"
