"""The base of scores that need every example at once, put in one order so that no split over processes changes a bit.

Integers do for means (`exact.py`); a score that weighs words by how many references hold them needs the texts
themselves. Each item is kept as a line of JSON. At `compute()` all processes exchange their lines and each of them
sorts them all, so that what follows sees the same items in the same order on any number of processes.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from fedlit.metrics.exact import VALUE_LIMIT


def _gather_bytes(state: Tensor, group: Any = None) -> list[Tensor]:
    """Return the bytes of every process; a process without an item joins with no bytes, of the same type.

    torchmetrics stands in for a list without elements with an empty *float* tensor, and gloo reads what the others send
    in the type of the receiver.
    """
    gathered: list[Tensor] = gather_all_tensors(state.to(torch.uint8), group)
    return gathered


class CollectedMetric(Metric):
    """Keeps items that JSON can hold and computes from all of them, in a canonical order.

    The state is a list of uint8 tensors, UTF-8 lines of JSON, which torchmetrics joins and gathers at `compute()`. A
    process may have had any number of items, also none. A tuple comes back as a list.
    """

    lines: list[Tensor] | Tensor
    full_state_update = False
    is_differentiable = False

    def __init__(self) -> None:
        # A cached result would keep a process without new items out of the collective that the others wait in.
        super().__init__(compute_with_cache=False, dist_sync_fn=_gather_bytes)
        self.add_state("lines", default=[], dist_reduce_fx="cat")

    def _collect(self, items: Iterable[Any]) -> None:
        """Add items: None, truth values, numbers, texts, and lists and mappings of them.

        Raises TypeError for what JSON cannot hold and ValueError for a number that is not finite.
        """
        encoded = "".join(json.dumps(item, sort_keys=True, allow_nan=False) + "\n" for item in items).encode("ascii")
        if not encoded:
            return
        assert len(encoded) < VALUE_LIMIT, "the sizes of a gather are 32-bit"
        assert isinstance(self.lines, list), "items are added to a metric that is not synchronised"
        self.lines.append(torch.frombuffer(bytearray(encoded), dtype=torch.uint8).to(self.device))

    def _items(self) -> list[Any]:
        """Return the items of all processes (of this one outside `compute()`), sorted by their JSON."""
        parts: Sequence[Tensor] = self.lines if isinstance(self.lines, list) else [self.lines]
        encoded = b"".join(bytes(part.cpu().numpy()) for part in parts)
        return [json.loads(line) for line in sorted(encoded.decode("ascii").splitlines())]
