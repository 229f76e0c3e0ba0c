"""A checkpoint that disagrees with itself is damaged; one of format 1 is migrated, one of a later format refused."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fedlit.algebra.tensors import checksum
from fedlit.errors import UserError
from fedlit.round.jobs import ClientState
from fedlit.round.server import ServerState
from fedlit.store.checkpoint import Checkpoints

CPU = torch.device("cpu")
Content = dict[str, Any]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_records(path: Path, *rounds: Any) -> Path:
    path.write_text("".join(json.dumps({"round": number, "global/loss": 2.5}) + "\n" for number in rounds))
    return path


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    """Return the checkpoints of rounds 4 and 5, with two clients."""
    checkpoints = Checkpoints(folder=tmp_path / "checkpoints", keep=2)
    clients = {client: ClientState(private={"a": torch.full((2,), float(client))}) for client in (0, 7)}
    for round_idx in (4, 5):
        records = write_records(tmp_path / "metrics.jsonl", *range(round_idx + 1))
        server = ServerState(round_idx=round_idx, shared={"w": torch.ones(3)})
        checkpoints.save(server, clients, set(clients), records)
        checkpoints.settle()
    return checkpoints


def edit(checkpoint: Path, change: Callable[[Content], Any]) -> None:
    """Change the manifest in place, or write what `change` returns instead."""
    content = json.loads((checkpoint / "manifest.json").read_text())
    changed = change(content)
    (checkpoint / "manifest.json").write_text(json.dumps(content if changed is None else changed))


def replace_file(checkpoint: Path, name: str, data: bytes) -> None:
    """Replace a file and the hash that the manifest has of it."""
    (checkpoint / name).write_bytes(data)
    edit(checkpoint, lambda content: content["files"].update({name: sha256(checkpoint / name)}))


def replace_table(checkpoint: Path, kind: str, data: bytes) -> None:
    """Give a checkpoint a table of its own, and the hash that the manifest has of it."""
    table = checkpoint.parent / f"{kind}-7777.jsonl"
    table.write_bytes(data)
    entry = {"file": table.name, "bytes": len(data), "sha256": sha256(table)}
    edit(checkpoint, lambda content: content.update({kind: entry}))


def replace_records(checkpoint: Path, *rounds: Any) -> None:
    replace_table(checkpoint, "records", write_records(checkpoint.parent / "new.jsonl", *rounds).read_bytes())


def lines_of(checkpoint: Path) -> bytes:
    """Return the table of clients of a checkpoint."""
    entry = json.loads((checkpoint / "manifest.json").read_text())["clients"]
    return (checkpoint.parent / entry["file"]).read_bytes()[: entry["bytes"]]


def add_line(checkpoint: Path, line: Any) -> None:
    replace_table(checkpoint, "clients", lines_of(checkpoint) + (json.dumps(line) + "\n").encode())


def replace_client(checkpoint: Path, data: bytes) -> None:
    path = checkpoint.parent / "clients" / "client-00007-round-0005.pt"
    path.write_bytes(data)
    add_line(checkpoint, {"client": 7, "round": 5, "sha256": sha256(path)})


def name_outside(checkpoint: Path, name: str) -> None:
    outside = checkpoint.parent / "outside.txt"
    outside.write_text("x")
    edit(checkpoint, lambda content: content["files"].update({name: sha256(outside)}))


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "an earlier round": (lambda path: edit(path, lambda content: content.update(round_idx=3)), "tells of round 3"),
    "a later round": (lambda path: edit(path, lambda content: content.update(round_idx=50)), "tells of round 50"),
    "round true": (lambda path: edit(path, lambda content: content.update(round_idx=True)), "no integer"),
    "round 5.0": (lambda path: edit(path, lambda content: content.update(round_idx=5.0)), "no integer"),
    "no round": (lambda path: edit(path, lambda content: {"format": 2, "files": content["files"]}), "no integer"),
    "a list": (lambda path: edit(path, lambda content: [content]), "no JSON object"),
    "a number": (lambda path: edit(path, lambda _content: 5), "no JSON object"),
    "files a list": (lambda path: edit(path, lambda content: content.update(files=["a"])), "files"),
    "files null": (lambda path: edit(path, lambda content: content.update(files=None)), "files"),
    "a hash null": (lambda path: edit(path, lambda content: content["files"].update(x=None)), "files"),
    "no clients": (lambda path: edit(path, lambda content: content.update(clients=None)), "clients"),
    "clients a list": (lambda path: edit(path, lambda content: content.update(clients=[0, 7])), "clients"),
    "clients of format 2": (lambda path: edit(path, lambda content: content.update(clients={"7": {}})), "clients"),
    "a table above": (
        lambda path: edit(path, lambda content: content["clients"].update(file="../clients-0004.jsonl")),
        "clients",
    ),
    "records for clients": (
        lambda path: edit(path, lambda content: content.update(clients=content["records"])),
        "clients",
    ),
    "fewer bytes": (lambda path: edit(path, lambda content: content["clients"].update(bytes=-1)), "clients"),
    "more bytes": (lambda path: edit(path, lambda content: content["clients"].update(bytes=10**9)), "clients-"),
    "bytes true": (lambda path: edit(path, lambda content: content["clients"].update(bytes=True)), "clients"),
    "another hash": (lambda path: edit(path, lambda content: content["clients"].update(sha256="0")), "clients-"),
    "no table": (
        lambda path: edit(path, lambda content: content["clients"].update(file="clients-0009.jsonl")),
        "clients-",
    ),
    "a client a text": (lambda path: add_line(path, "x"), "a line of clients-"),
    "a client without a number": (
        lambda path: add_line(path, {"client": "../7", "round": 1, "sha256": ""}),
        "a line of",
    ),
    "a client below 0": (lambda path: add_line(path, {"client": -1, "round": 1, "sha256": ""}), "client -1"),
    "a client true": (lambda path: add_line(path, {"client": True, "round": 1, "sha256": ""}), "a line of clients-"),
    "a client without a hash": (lambda path: add_line(path, {"client": 7, "round": 1}), "a line of clients-"),
    "a client of a later round": (lambda path: add_line(path, {"client": 7, "round": 6, "sha256": ""}), "client 7"),
    "a table that is none": (lambda path: replace_table(path, "clients", b"x\n"), "clients-7777"),
    "no server part": (
        lambda path: edit(path, lambda content: content["files"].__delitem__("clients.safetensors")),
        "clients.s",
    ),
    "no records": (lambda path: edit(path, lambda content: content.__delitem__("records")), "records"),
    "a name above": (lambda path: name_outside(path, "../outside.txt"), "outside"),
    "an absolute name": (lambda path: name_outside(path, str(path.parent / "outside.txt")), "outside"),
    "a folder's name": (lambda path: edit(path, lambda content: content["files"].update({".": "x"})), "cannot be read"),
    "an impossible name": (
        lambda path: edit(path, lambda content: content["files"].update({"a\0b": "x"})),
        "file name",
    ),
    "no tensors": (lambda path: replace_file(path, "shared.safetensors", b"not tensors"), "shared.safetensors"),
    "empty tensors": (lambda path: replace_file(path, "frozen.safetensors", b""), "frozen.safetensors"),
    "no client": (lambda path: replace_client(path, b"not a state"), "client-00007-round-0005.pt"),
    "records of fewer rounds": (lambda path: replace_records(path, 0, 1, 2, 3, 4), "metrics.jsonl"),
    "records of more rounds": (lambda path: replace_records(path, *range(7)), "metrics.jsonl"),
    "a record missing": (lambda path: replace_records(path, 0, 1, 3, 4, 5), "metrics.jsonl"),
    "a record twice": (lambda path: replace_records(path, 0, 1, 2, 3, 3, 4, 5), "metrics.jsonl"),
    "records out of order": (lambda path: replace_records(path, 0, 2, 1, 3, 4, 5), "metrics.jsonl"),
    "a record without a round": (lambda path: replace_records(path, 0, 1, 2, 3, 4, None), "metrics.jsonl"),
    "a record of round true": (lambda path: replace_records(path, 0, True, 2, 3, 4, 5), "metrics.jsonl"),
    "a record cut short": (lambda path: replace_table(path, "records", b'{"round": 0}'), "metrics.jsonl"),
    "a record that is none": (lambda path: replace_table(path, "records", b"x\n"), "metrics.jsonl"),
    "no records at all": (lambda path: replace_table(path, "records", b""), "metrics.jsonl"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checkpoint_that_disagrees_with_itself_is_passed_over(damage: str, checkpoints: Checkpoints) -> None:
    newest = checkpoints.folder / "round-0005"
    assert checkpoints.newest() == (newest, [])
    action, why = DAMAGES[damage]
    action(newest)
    path, notices = checkpoints.newest()
    assert path == checkpoints.folder / "round-0004"
    assert len(notices) == 1
    assert notices[0].startswith("checkpoint round-0005 is damaged (")
    assert notices[0].endswith(") and is passed over")
    assert why in notices[0]
    assert "\n" not in notices[0]
    assert checkpoints.of_round(5) is None
    assert checkpoints.of_round(4) == path


def test_a_folder_under_another_name_is_damaged(checkpoints: Checkpoints) -> None:
    (checkpoints.folder / "round-0005").rename(checkpoints.folder / "round-0009")
    path, notices = checkpoints.newest()
    assert path == checkpoints.folder / "round-0004"
    assert "manifest.json tells of round 5" in notices[0]


@pytest.mark.parametrize("version", [4, 70])
def test_a_format_of_another_version_is_refused(version: Any, checkpoints: Checkpoints) -> None:
    newest = checkpoints.folder / "round-0005"
    edit(newest, lambda content: content.update(format=version))
    before = {path: path.read_bytes() for path in checkpoints.folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as caught:
        checkpoints.newest()
    for part in (str(newest), f"format {json.dumps(version)}", "run.name"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        checkpoints.of_round(5)
    assert {path: path.read_bytes() for path in checkpoints.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("version", [0, -1, "2", None, True, 2.0, [2], {"format": 2}])
def test_what_is_no_format_is_damage(version: Any, checkpoints: Checkpoints) -> None:
    edit(checkpoints.folder / "round-0005", lambda content: content.update(format=version))
    path, notices = checkpoints.newest()
    assert path == checkpoints.folder / "round-0004"
    assert "format in manifest.json" in notices[0]


def write_format_2(folder: Path, round_idx: int, clients: dict[int, float]) -> Path:
    """Write a checkpoint as fedlit did while each had a copy of the records, and all clients in its manifest."""
    path = folder / f"round-{round_idx:04d}"
    path.mkdir(parents=True)
    (folder / "clients").mkdir(exist_ok=True)
    entries = {}
    for client, value in clients.items():
        file = folder / "clients" / f"client-{client:05d}-round-{round_idx:04d}.pt"
        torch.save({"private": {"a": torch.full((2,), value)}, "parts": {}, "optimizer": None}, file)
        entries[str(client)] = {"round": round_idx, "sha256": sha256(file)}
    for part in ServerState.part_names():
        save_file({"w": torch.ones(3)} if part == "shared" else {}, path / f"{part}.safetensors")
    write_records(path / "metrics.jsonl", *range(round_idx + 1))
    files = {file.name: sha256(file) for file in path.iterdir()}
    content = {"format": 2, "round_idx": round_idx, "files": files, "clients": entries}
    (path / "manifest.json").write_text(json.dumps(content))
    return path


@pytest.fixture
def format_2(tmp_path: Path) -> Checkpoints:
    """Return the checkpoints of rounds 4 and 5, of format 2."""
    for round_idx in (4, 5):
        write_format_2(tmp_path / "checkpoints", round_idx, {0: 0.0, 7: 7.0})
    return Checkpoints(folder=tmp_path / "checkpoints", keep=2)


FORMAT_2_DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no clients": (lambda path: edit(path, lambda content: content.update(clients=None)), "clients"),
    "a client a text": (lambda path: edit(path, lambda content: content["clients"].update({"7": "x"})), "client 7"),
    "a client of a later round": (
        lambda path: edit(path, lambda content: content["clients"]["7"].update(round=6)),
        "client 7",
    ),
    "no records": (
        lambda path: edit(path, lambda content: content["files"].__delitem__("metrics.jsonl")),
        "metrics.jsonl",
    ),
    "records of fewer rounds": (
        lambda path: replace_file(path, "metrics.jsonl", b'{"round": 0}\n'),
        "metrics.jsonl",
    ),
    **{
        f"client {name:.9}": (
            lambda path, name=name: edit(
                path, lambda content: content["clients"].update({name: {"round": 1, "sha256": "0"}})
            ),
            "client ",
        )
        for name in ("9" * 5000, "\uff17", "07", "-1", "x" * 5000, "", "../7")
    },
}


@pytest.mark.parametrize("damage", FORMAT_2_DAMAGES)
def test_a_damaged_checkpoint_of_format_2_is_passed_over(damage: str, format_2: Checkpoints) -> None:
    newest = format_2.folder / "round-0005"
    assert format_2.newest() == (newest, [])
    action, why = FORMAT_2_DAMAGES[damage]
    action(newest)
    path, notices = format_2.newest()
    assert path == format_2.folder / "round-0004"
    assert why in notices[0]
    assert len(notices[0]) < 400


def test_a_run_of_format_2_goes_on_in_the_new_one(format_2: Checkpoints, tmp_path: Path) -> None:
    """The clients' files stay, and with them what an older checkpoint needs."""
    server, clients = format_2.load(format_2.folder / "round-0005", CPU, {0, 7})
    assert {client: float(state.private["a"][0]) for client, state in clients.items()} == {0: 0.0, 7: 7.0}
    assert (
        format_2.records(format_2.folder / "round-0005") == (format_2.folder / "round-0005/metrics.jsonl").read_text()
    )
    clients[7] = ClientState(private={"a": torch.full((2,), 70.0)})
    after = ServerState(round_idx=6, **server.parts())
    format_2.save(after, clients, {7}, write_records(tmp_path / "metrics.jsonl", *range(7)))
    assert format_2.settle() == 6
    names = {path.name for path in (format_2.folder / "clients").iterdir()}
    assert names == {f"client-{client:05d}-round-{number:04d}.pt" for client, number in ((0, 5), (7, 5), (7, 6))}
    other = Checkpoints(folder=format_2.folder, keep=2)
    assert other.newest() == (format_2.folder / "round-0006", [])
    assert other.of_round(5) is not None
    _, states = other.load(format_2.folder / "round-0006", CPU, {0, 7})
    assert {client: float(state.private["a"][0]) for client, state in states.items()} == {0: 0.0, 7: 70.0}
    for number in (7, 8):
        after = ServerState(round_idx=number, **server.parts())
        format_2.save(after, clients, set(), write_records(tmp_path / "metrics.jsonl", *range(number + 1)))
        format_2.settle()
    names = {path.name for path in (format_2.folder / "clients").iterdir()}
    assert names == {"client-00000-round-0005.pt", "client-00007-round-0006.pt"}


def test_records_are_taken_from_the_run_where_their_table_is_damaged(checkpoints: Checkpoints, tmp_path: Path) -> None:
    newest = checkpoints.folder / "round-0005"
    (table,) = checkpoints.folder.glob("records-*.jsonl")
    whole = checkpoints.records(newest)
    table.write_bytes(b"")
    assert checkpoints.newest() == (newest, [])
    assert checkpoints.records(newest) == whole
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 6')  # of a round that was not saved
    assert checkpoints.records(newest) == whole
    (tmp_path / "metrics.jsonl").unlink()
    path, notices = checkpoints.newest()
    assert path is None
    assert all(f"{table.name} is not as it was written" in notice for notice in notices)


def write_format_1(folder: Path, round_idx: int, states: dict[int, Content]) -> Path:
    """Write a checkpoint as fedlit did before formats had numbers."""
    path = folder / f"round-{round_idx:04d}"
    (path / "clients").mkdir(parents=True)
    parts = {
        "shared": {"w": torch.arange(3.0) + round_idx},
        "frozen": {"base": torch.ones(2, dtype=torch.bfloat16)},
        "optimizer": {"control/w": torch.full((3,), 0.5)},
        "clients": {},
    }
    for part, tensors in parts.items():
        save_file(tensors, path / f"{part}.safetensors")
    for client, state in states.items():
        torch.save(state, path / "clients" / f"client-{client:05d}.pt")
    write_records(path / "metrics.jsonl", *range(round_idx + 1))
    files = {str(file.relative_to(path)): sha256(file) for file in sorted(path.rglob("*")) if file.is_file()}
    (path / "manifest.json").write_text(json.dumps({"round_idx": round_idx, "files": files}, indent=1))
    return path


OLD_STATES: dict[int, Content] = {
    0: {"private": {"b": torch.ones(2)}, "control": {"w": torch.full((3,), 0.25)}, "optimizer": None},
    7: {"private": {}, "control": {}, "optimizer": {"state": {0: {"step": torch.tensor(4.0)}}, "param_groups": []}},
}


def test_format_1_is_migrated(tmp_path: Path) -> None:
    checkpoints = Checkpoints(folder=tmp_path / "checkpoints", keep=2)
    old = write_format_1(checkpoints.folder, 3, OLD_STATES)
    assert checkpoints.newest() == (old, [])
    assert checkpoints.of_round(3) == old
    server, clients = checkpoints.load(old, CPU, {0, 7, 9})
    assert server.round_idx == 3
    assert torch.equal(server.shared["w"], torch.tensor([3.0, 4.0, 5.0]))
    assert torch.equal(server.group("control")["w"], torch.full((3,), 0.5))
    assert server.frozen["base"].dtype == torch.bfloat16
    assert clients.keys() == {0, 7}
    assert clients[0].parts.keys() == {"control"}
    assert torch.equal(clients[0].parts["control"]["w"], torch.full((3,), 0.25))
    assert clients[7].parts == {}
    assert clients[7].optimizer is not None
    assert clients[7].optimizer["state"][0]["step"] == 4


def test_a_run_of_format_1_goes_on_in_the_new_one(tmp_path: Path) -> None:
    """Its first checkpoint holds every client, changed or not, since the old files go with the old checkpoints."""
    checkpoints = Checkpoints(folder=tmp_path / "checkpoints", keep=1)
    server, clients = checkpoints.load(write_format_1(checkpoints.folder, 3, OLD_STATES), CPU, {0, 7})
    after = ServerState(round_idx=4, **server.parts())
    checkpoints.save(after, clients, {0}, write_records(tmp_path / "metrics.jsonl", *range(5)))
    checkpoints.settle()
    assert not (checkpoints.folder / "round-0003").exists()
    path, notices = Checkpoints(folder=checkpoints.folder, keep=1).newest()
    assert path is not None
    assert notices == []
    again, states = Checkpoints(folder=checkpoints.folder, keep=1).load(path, CPU, {0, 7})
    assert {part: checksum(tensors) for part, tensors in again.parts().items()} == {
        part: checksum(tensors) for part, tensors in server.parts().items()
    }
    assert states[0].parts.keys() == {"control"}
    assert states[7].optimizer is not None


@pytest.mark.parametrize("name", ["clients/client-00007.pt", "shared.safetensors", "metrics.jsonl"])
def test_a_damaged_checkpoint_of_format_1_is_passed_over(name: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(folder=tmp_path / "checkpoints", keep=2)
    older = write_format_1(checkpoints.folder, 3, OLD_STATES)
    path = write_format_1(checkpoints.folder, 4, OLD_STATES) / name
    path.write_bytes(path.read_bytes()[:-9])
    found, notices = checkpoints.newest()
    assert found == older
    assert name in notices[0]
