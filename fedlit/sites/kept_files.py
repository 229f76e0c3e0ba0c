"""What a site keeps, in files of its own: for frameworks that keep nothing for it between rounds or jobs.

A state is filed under the point of the run after which it holds, and a message is answered from the newest state before
its own point. So a centre that was stopped may ask for a round again, as after its checkpoint, and gets the same
answer; a federation whose first round begins anew finds nothing from before.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlit.process.storage import replacing, sync
from fedlit.sites.messages import Message

NUM_KEPT = 4
"""States: after a round's training and after its evaluation, of two rounds."""


@dataclass(frozen=True, kw_only=True)
class KeptFiles:
    """The states of one client of one federation. folder: theirs alone, which may not exist yet."""

    folder: Path

    @classmethod
    def of(cls, folder: Path, client_id: int, told: Mapping[str, Any]) -> "KeptFiles":
        """Return those of a client below a folder for all; `told` is the fingerprint of the configuration."""
        digest = hashlib.sha256(json.dumps(dict(told), sort_keys=True, default=str).encode()).hexdigest()
        return cls(folder=folder / f"{digest[:12]}-client-{client_id:05d}")

    def before(self, message: Message) -> bytes | None:
        """Return the newest state before a message of `train` or `evaluate`; None where there is none."""
        point = 2 * int(message.facts["round_idx"])
        earlier = [each for each in self._points() if each <= point]
        return self._path(max(earlier)).read_bytes() if earlier else None

    def keep(self, message: Message, state: bytes) -> None:
        """Write the state after a message, in place of all that were later.

        Raises:
            OSError: it cannot be written; the state before is still there.
        """
        point = 2 * int(message.facts["round_idx"]) + (message.kind == "train")
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self._path(point)) as target:
            target.write_bytes(state)
            sync(target)
        points = self._points()
        kept = [each for each in points if each <= point][-NUM_KEPT:]
        for each in set(points) - set(kept):
            self._path(each).unlink(missing_ok=True)

    def _points(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("*.pt") if path.stem.isdigit())

    def _path(self, point: int) -> Path:
        return self.folder / f"{point:08d}.pt"
