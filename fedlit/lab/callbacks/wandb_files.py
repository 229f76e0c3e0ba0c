"""What is already in the .wandb files of a run folder, so that a resumed run logs no round twice and leaves none out.

An offline run never learns what an earlier attempt logged: wandb starts a new file with step 0, and `wandb sync`
uploads the files of one id one after the other, renumbering rounds that come twice. wandb 0.31 has no reader of its
own for programs. The format is LevelDB's log format under a header of wandb's: blocks of 32 KiB that hold chunks of
(CRC-32, length, type, bytes), and chunks that make up one protobuf message each; `wandb leet inspect` agrees.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
_CHUNK = struct.Struct("<IHB")
_BLOCK_BYTES = 32 * 1024
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4

Entry = dict[str, Any]
"""One call of `run.log`: values by key; what lies below a key, as of a table, stands under `<key>/<part>`."""


class UnreadableFileError(Exception):
    """A file that this version of the reader does not understand, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What all attempts at one run logged, in their order.

    finished: an attempt came to the run's end and said so, and no round came after, as of a run given more rounds.
    """

    entries: tuple[Entry, ...] = ()
    finished: bool = False

    @property
    def rounds(self) -> list[int]:
        """The rounds that were logged, in the order of the entries."""
        return [int(entry["round"]) for entry in self.entries if "round" in entry]

    @property
    def num_ends(self) -> int:
        """How often the pictures at the run's end were logged, each time as one entry without a round."""
        return sum("round" not in entry for entry in self.entries)

    @property
    def keys_at_end(self) -> set[str]:
        """The keys of what was logged after the last round."""
        last = max((place for place, entry in enumerate(self.entries) if "round" in entry), default=-1)
        return {key for entry in self.entries[last + 1 :] for key in entry}

    def rounds_with(self, key: str) -> list[int]:
        """Return the rounds whose entry holds a table or an image of this name."""
        return [int(entry["round"]) for entry in self.entries if "round" in entry and f"{key}/_type" in entry]


def read_history(folder: Path, run_id: str) -> History:
    """Return what the files of a run hold below `folder`, wandb's own folder in that of the run.

    A file whose writer was killed ends in the middle of a message, which is left out.

    Raises:
        UnreadableFileError: a file is of another format.
    """
    entries: list[Entry] = []
    finished = False
    # offline-run-<time>-<id>, or run-<time>-<id> of an attempt that was online.
    paths = folder.glob(f"*run-*/run-{run_id}.wandb")
    for path in sorted(paths, key=lambda path: path.parent.name.removeprefix("offline-")):
        for message in _messages(path):
            if message.HasField("history"):
                entries.append(_entry(message.history))
                finished = finished and "round" not in entries[-1]
            elif message.HasField("exit"):
                finished = finished or message.exit.exit_code == 0
    return History(entries=tuple(entries), finished=finished)


def _entry(history: Any) -> Entry:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in history.item}


def _messages(path: Path) -> Iterator[Any]:
    """Yield the whole messages of a file as wandb's protobuf records."""
    try:
        from google.protobuf.message import DecodeError  # noqa: PLC0415  comes with wandb, like the next
        from wandb.proto.wandb_internal_pb2 import Record  # noqa: PLC0415
    except ImportError as error:
        raise UnreadableFileError(f"this wandb has no description of its records ({error})") from error
    data = path.read_bytes()
    if data[: len(_HEADER)] != _HEADER[: len(data)]:
        raise UnreadableFileError(f"{path} has another format than wandb 0.31 writes")
    for payload in _payloads(data):
        record = Record()
        try:
            record.ParseFromString(payload)
        except DecodeError as error:
            raise UnreadableFileError(f"{path} holds what is no record of wandb's") from error
        yield record


def _payloads(data: bytes) -> Iterator[bytes]:
    """Yield the messages of a file's bytes, up to its end or its torn tail."""
    position, parts = len(_HEADER), b""
    while True:
        left = _BLOCK_BYTES - position % _BLOCK_BYTES
        if left < _CHUNK.size:  # too little for a chunk: padding
            position += left
            continue
        if position + _CHUNK.size > len(data):
            return
        checksum, length, kind = _CHUNK.unpack_from(data, position)
        end = position + _CHUNK.size + length
        if end > len(data) or zlib.crc32(data[position + 6 : end]) != checksum:  # over the type and the bytes
            return
        body, position = data[position + _CHUNK.size : end], end
        parts = body if kind in (_FULL, _FIRST) else parts + body
        if kind in (_FULL, _LAST):
            yield parts
