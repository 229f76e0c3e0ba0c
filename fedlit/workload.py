"""What clients have to do in a round, for a simulated clock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from fedlit.client.trainers.base import LocalTrainer
from fedlit.data.prompts import Row
from fedlit.tasks import Task
from fedlit.tasks.encoded import examples_of

IMAGE_TOKENS = 197
"""Tokens that an image counts on a simulated clock: ViT-B/16's at 224 x 224, patches and class token."""


@dataclass(kw_only=True)
class LocalWorkload:
    """What clients have to do in a round, for a simulated clock: the tokens of its rows, and the bytes of the method.

    Every process finds the same numbers. Rows are encoded where nobody has, and kept for the training.
    """

    rows: Sequence[Sequence[Row]]
    task: Task[Any, Any]
    _trainer: LocalTrainer | None = field(default=None, init=False)
    _traffic: Callable[[int], tuple[int, int]] = field(default=lambda _round_idx: (0, 0), init=False)
    _tokens: dict[tuple[int, int], int] = field(default_factory=dict, init=False)
    """Of every client and round that somebody has asked for; what happened before decides on who comes later."""

    def begin(self, trainer: LocalTrainer, traffic: Callable[[int], tuple[int, int]]) -> None:
        """Give what knows the rows of a round, and the bytes of a client up and down in one."""
        self._trainer, self._traffic = trainer, cache(traffic)  # asked for each client of a round

    def tokens(self, client_id: int, round_idx: int) -> int:
        """Return the tokens of a client's round, of each row as often as it is trained on."""
        key = client_id, round_idx
        if key not in self._tokens:
            assert self._trainer is not None, "begin() comes first"
            rows = self.rows[client_id]
            places = [place for step in self._trainer.order(len(rows), client_id, round_idx) for place in step]
            wanted = sorted(set(places))
            examples = dict(zip(wanted, examples_of(self.task, rows, wanted), strict=True))
            counts = [examples[place].num_tokens for place in places]
            self._tokens[key] = sum(IMAGE_TOKENS if count is None else count for count in counts)
        return self._tokens[key]

    def downlink_bytes(self, round_idx: int) -> int:
        """Return what a client receives."""
        return self._traffic(round_idx)[1]

    def uplink_bytes(self, round_idx: int) -> int:
        """Return what it sends."""
        return self._traffic(round_idx)[0]
