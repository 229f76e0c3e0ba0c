"""What a checkpoint says of itself, and whether it is so: every file as it was written, and all of them of one round.

Format 3, `manifest.json` in `round-0003/`:

    format     3
    round_idx  3, which is the folder's number too
    files      SHA-256 of each file beside it, by name
    records    the records up to this round: the first bytes of a file in the common folder (`fedlit.store.growing`)
    clients    likewise a table of the clients' files, a line for each time that one was written:
               {"client": 7, "round": 2, "sha256": "..."}; the last line of a client counts

A client's file is `clients/client-00007-round-0002.pt` beside the rounds' folders: it is written when the client has
changed, and every later checkpoint names it until the client changes again. The records can also be had from the run's
own metrics.jsonl, if that still begins with them.

Format 2 has the table of clients in the manifest, `{"7": {"round": 2, "sha256": "..."}}`, and a copy of metrics.jsonl
among its files. Format 1 has no `format` and no `clients`; the clients' files are `clients/client-00007.pt` in the
round's own folder, with SCAFFOLD's control variate under `control`. Both are read, and never written.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from fedlit.errors import UserError
from fedlit.round.server import ServerState
from fedlit.store.growing import DamagedError, Prefix

FORMAT = 3
"""The format that is written."""
MANIFEST = "manifest.json"
RECORDS = "metrics.jsonl"
TABLES = ("records", "clients")
"""Kinds of the files that grow."""
_STATE = {"private", "parts", "optimizer"}
_CLIENT_KEYS = {1: {"private", "control", "optimizer"}, 2: _STATE, 3: _STATE}
_OPTIONAL: dict[int, set[str]] = {1: set(), 2: set(), 3: {"under_way"}}
"""What else a client's file may hold: the result of a client that comes in a later round."""
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
_OLD_CLIENT = re.compile(r"clients/client-([0-9]{5,18})\.pt")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredClient:
    """A client's file: the round whose checkpoint wrote it, and its SHA-256."""

    round_idx: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The content of manifest.json and of the table of clients: hashes by file name, the clients' files, of format 1
    among `files` too, and what is needed of the files that grow, by kind, from format 3 on.
    """

    format: int = FORMAT
    round_idx: int
    files: Mapping[str, str]
    clients: Mapping[int, StoredClient] = field(default_factory=dict)
    tables: Mapping[str, Prefix] = field(default_factory=dict)

    def client_path(self, checkpoint: Path, client: int) -> Path:
        """Return where a client's file lies."""
        if self.format == 1:
            return checkpoint / "clients" / f"client-{client:05d}.pt"
        return checkpoint.parent / "clients" / client_file(client, self.clients[client].round_idx)

    def client_files(self) -> set[str]:
        """Return the names of the files in the clients' common folder that this checkpoint needs."""
        if self.format == 1:
            return set()
        return {client_file(client, stored.round_idx) for client, stored in self.clients.items()}

    def table_files(self) -> set[str]:
        """Return the names of the files that grow which this checkpoint needs."""
        return {prefix.file for prefix in self.tables.values()}

    def to_json(self) -> str:
        """Return the text of manifest.json."""
        tables = {kind: prefix.to_json() for kind, prefix in self.tables.items()}
        return json.dumps({"format": FORMAT, "round_idx": self.round_idx, "files": dict(self.files), **tables}) + "\n"


def client_lines(clients: Mapping[int, StoredClient]) -> bytes:
    """Return the lines of the table of clients."""
    lines = ({"client": id_, "round": kept.round_idx, "sha256": kept.sha256} for id_, kept in sorted(clients.items()))
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def round_folder(round_idx: int) -> str:
    """Return the name of a round's checkpoint."""
    return f"round-{round_idx:04d}"


def client_file(client: int, round_idx: int) -> str:
    """Return the name of a client's file in the clients' common folder."""
    return f"client-{client:05d}-round-{round_idx:04d}.pt"


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(checkpoint: Path) -> Manifest:
    """Return what a checkpoint says of itself; whether it is so, `find_problem` tells.

    Raises:
        DamagedError: manifest.json is missing, cut short, of another shape or of another round.
        UserError: it is of a format that this version does not know.
    """
    try:
        content = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{MANIFEST} is missing or cut short") from error
    if not isinstance(content, dict):
        raise DamagedError(f"{MANIFEST} is no JSON object")
    known = content.get("format", 1)
    if type(known) is not int or known < 1:
        raise DamagedError(f"format in {MANIFEST} is no number of a format")
    if known not in _CLIENT_KEYS:
        raise UserError(
            f"{checkpoint} has the checkpoint format {known}, and this fedlit reads 1 to {FORMAT}; "
            "go on with the version of fedlit that wrote it, or choose another run.name"
        )
    round_idx, files = content.get("round_idx"), content.get("files")
    if type(round_idx) is not int:
        raise DamagedError(f"round_idx in {MANIFEST} is no integer")
    if round_folder(round_idx) != checkpoint.name:
        raise DamagedError(f"{MANIFEST} tells of round {round_idx}")
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        raise DamagedError(f"files in {MANIFEST} is no table of hashes")
    if known < 3:
        clients = _old_clients(files) if known == 1 else _clients(content.get("clients"), round_idx)
        return Manifest(format=known, round_idx=round_idx, files=files, clients=clients)
    tables = {kind: Prefix.of_json(content.get(kind), kind) for kind in TABLES}
    table = tables["clients"]
    clients = _listed_clients(table.read(checkpoint.parent / table.file), table.file, round_idx)
    return Manifest(round_idx=round_idx, files=files, clients=clients, tables=tables)


def read_records(checkpoint: Path) -> bytes:
    """Return the records up to a checkpoint, metrics.jsonl as it was.

    Raises:
        DamagedError, UserError: as `read_manifest`; or the records are nowhere as they were written.
    """
    manifest = read_manifest(checkpoint)
    if manifest.format < 3:
        try:
            return (checkpoint / RECORDS).read_bytes()
        except OSError as error:
            raise DamagedError(f"{RECORDS} cannot be read: {error.strerror}") from error
    prefix = manifest.tables["records"]
    try:
        return prefix.read(checkpoint.parent / prefix.file)
    except DamagedError:
        with suppress(DamagedError):
            return prefix.read(checkpoint.parent.parent / RECORDS)
        raise


def _old_clients(files: Mapping[str, str]) -> dict[int, StoredClient]:
    found = {match: value for name, value in files.items() if (match := _OLD_CLIENT.fullmatch(name))}
    return {int(match[1]): StoredClient(round_idx=0, sha256=value) for match, value in found.items()}


def _listed_clients(table: bytes, name: str, round_idx: int) -> dict[int, StoredClient]:
    clients = {}
    try:
        lines = [json.loads(line) for line in table.decode("utf-8").split("\n")[:-1]]
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{name} is not one JSON object a line") from error
    for line in lines:
        entry: dict[str, Any] = line if isinstance(line, dict) else {}
        client, written, sha256 = entry.get("client"), entry.get("round"), entry.get("sha256")
        if type(client) is not int or type(written) is not int or not isinstance(sha256, str):
            raise DamagedError(f"a line of {name} has no client, round and hash")
        if client < 0 or not 0 <= written <= round_idx:
            raise DamagedError(f"a line of {name} tells of client {client} in round {written}")
        clients[client] = StoredClient(round_idx=written, sha256=sha256)
    return clients


def _clients(content: Any, round_idx: int) -> dict[int, StoredClient]:
    if not isinstance(content, dict):
        raise DamagedError(f"clients in {MANIFEST} is no table")
    clients = {}
    for name, entry in content.items():
        valid = _NUMBER.fullmatch(name) and isinstance(entry, dict)
        written, sha256 = (entry.get("round"), entry.get("sha256")) if valid else (None, None)
        if type(written) is not int or not 0 <= written <= round_idx or not isinstance(sha256, str):
            raise DamagedError(f"client {name:.20} in {MANIFEST} has no round and hash")
        clients[int(name)] = StoredClient(round_idx=written, sha256=sha256)
    return clients


def find_problem(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, None if every file is as it was written and of the same round.

    Raises:
        UserError: it is of a format that this version does not know.
    """
    try:
        manifest = read_manifest(checkpoint)
        names = [f"{part}.safetensors" for part in ServerState.part_names()]
        for name in names if manifest.format > 2 else [*names, RECORDS]:
            if name not in manifest.files:
                raise DamagedError(f"{name} is not in {MANIFEST}")
        for name, expected in manifest.files.items():
            _check_file(_inside(checkpoint, name), name, expected)
            if name.endswith(".safetensors"):
                _check_tensors(checkpoint / name)
        for client, stored in manifest.clients.items():
            path = manifest.client_path(checkpoint, client)
            if manifest.format > 1:  # else it is among the files
                _check_file(path, f"clients/{path.name}", stored.sha256)
            _check_client(path, manifest.format)
        _check_records(read_records(checkpoint), manifest.round_idx)
    except DamagedError as damage:
        return str(damage)
    return None


def _inside(checkpoint: Path, name: str) -> Path:
    """Return the path of a file beside the manifest."""
    try:
        path = (checkpoint / name).resolve()
    except (OSError, ValueError) as error:
        raise DamagedError(f"{MANIFEST} names {name!a}, which is no file name") from error
    if not path.is_relative_to(checkpoint.resolve()):
        raise DamagedError(f"{MANIFEST} names {name!a}, which is outside of the checkpoint")
    return path


def _check_file(path: Path, name: str, expected: str) -> None:
    try:
        found = file_hash(path)
    except FileNotFoundError as error:
        raise DamagedError(f"{name} is missing") from error
    except OSError as error:
        raise DamagedError(f"{name} cannot be read: {error.strerror}") from error
    if found != expected:
        raise DamagedError(f"{name} is not as it was written")


def _check_tensors(path: Path) -> None:
    """Require a file to be one of safetensors; its header tells, the tensors are not read."""
    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedError(f"{path.name} holds no tensors") from error


def _check_client(path: Path, known: int) -> None:
    """Require a file to hold a client's state; its tensors are not read."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever the unpickler makes of other bytes
        raise DamagedError(f"clients/{path.name} holds no client's state") from error
    if not isinstance(content, dict) or content.keys() - _OPTIONAL[known] != _CLIENT_KEYS[known]:
        raise DamagedError(f"clients/{path.name} holds no client's state")


def _check_records(content: bytes, round_idx: int) -> None:
    """Require one record for each round from 0 to the checkpoint's, in order."""
    try:
        lines = content.decode("utf-8").split("\n")
        records = [json.loads(line) for line in lines[:-1]]
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{RECORDS} is not one JSON record a line") from error
    rounds = [record.get("round") if isinstance(record, dict) else None for record in records]
    if lines[-1] or rounds != list(range(round_idx + 1)) or any(type(number) is not int for number in rounds):
        raise DamagedError(f"{RECORDS} does not tell of the rounds 0 to {round_idx}")
