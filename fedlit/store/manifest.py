"""What a checkpoint says of itself, and whether it is so: every file as it was written, and all of them of one round.

Format 2, `manifest.json` in `round-0003/`:

    format     2
    round_idx  3, which is the folder's number too
    files      SHA-256 of each file beside it, by name
    clients    by client id, the round whose checkpoint wrote the client's file, and its SHA-256

A client's file is `clients/client-00007-round-0002.pt` beside the rounds' folders: it is written when the client has
changed, and every later checkpoint names it until the client changes again.

Format 1 has no `format` and no `clients`; the clients' files are `clients/client-00007.pt` in the round's own folder,
with SCAFFOLD's control variate under `control`. It is read, and never written.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from fedlit.errors import UserError
from fedlit.round.server import ServerState

FORMAT = 2
"""The format that is written."""
MANIFEST = "manifest.json"
RECORDS = "metrics.jsonl"
_CLIENT_KEYS = {1: {"private", "control", "optimizer"}, 2: {"private", "parts", "optimizer"}}
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
_OLD_CLIENT = re.compile(r"clients/client-([0-9]{5,18})\.pt")


class DamagedError(Exception):
    """A checkpoint is not what was written, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredClient:
    """A client's file: the round whose checkpoint wrote it, and its SHA-256."""

    round_idx: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The content of manifest.json: hashes by file name, and the clients' files, of format 1 among `files` too."""

    format: int = FORMAT
    round_idx: int
    files: Mapping[str, str]
    clients: Mapping[int, StoredClient] = field(default_factory=dict)

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

    def to_json(self) -> str:
        """Return the text of manifest.json."""
        clients = {id_: {"round": kept.round_idx, "sha256": kept.sha256} for id_, kept in sorted(self.clients.items())}
        content = {"format": FORMAT, "round_idx": self.round_idx, "files": dict(self.files), "clients": clients}
        return json.dumps(content) + "\n"


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
    clients = _old_clients(files) if known == 1 else _clients(content.get("clients"), round_idx)
    return Manifest(format=known, round_idx=round_idx, files=files, clients=clients)


def _old_clients(files: Mapping[str, str]) -> dict[int, StoredClient]:
    found = {match: value for name, value in files.items() if (match := _OLD_CLIENT.fullmatch(name))}
    return {int(match[1]): StoredClient(round_idx=0, sha256=value) for match, value in found.items()}


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
        for name in (*(f"{part}.safetensors" for part in ServerState.part_names()), RECORDS):
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
        _check_records(checkpoint / RECORDS, manifest.round_idx)
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
    if not isinstance(content, dict) or content.keys() != _CLIENT_KEYS[known]:
        raise DamagedError(f"clients/{path.name} holds no client's state")


def _check_records(path: Path, round_idx: int) -> None:
    """Require one record for each round from 0 to the checkpoint's, in order."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        records = [json.loads(line) for line in lines[:-1]]
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{RECORDS} is not one JSON record a line") from error
    rounds = [record.get("round") if isinstance(record, dict) else None for record in records]
    if lines[-1] or rounds != list(range(round_idx + 1)) or any(type(number) is not int for number in rounds):
        raise DamagedError(f"{RECORDS} does not tell of the rounds 0 to {round_idx}")
