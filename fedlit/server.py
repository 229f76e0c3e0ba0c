"""The server's state: a value, the same on every process, that an aggregation rule maps to the next one."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from fedlit.tensors import TensorDict


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerState:
    """What the server holds between two rounds.

    round_idx: rounds aggregated so far, which is also the index of the next round.
    shared: the tensors that travel, after aggregation.
    frozen: fp32 masters of backbone weights that a rule folds changes into; empty for most rules.
    optimizer: moments of a server optimizer; empty without one.
    """

    round_idx: int = 0
    shared: TensorDict
    frozen: TensorDict = field(default_factory=dict)
    optimizer: TensorDict = field(default_factory=dict)

    def replace(self, **changes: Any) -> "ServerState":
        """Return a copy with `changes`."""
        return dataclasses.replace(self, **changes)
