"""The server's state: a value, the same on every process, that an aggregation rule maps to the next one."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.merging import added
from fedlit.algebra.tensors import TensorDict


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerState:
    """What the server holds between two rounds.

    round_idx: rounds aggregated so far, which is also the index of the next round.
    shared: the tensors that travel, after aggregation.
    frozen: fp32 masters of backbone weights that a rule folds changes into, and what an adapter derived from data when
    it was attached; empty for most methods.
    optimizer: moments of a server optimizer and control variates; empty without one.
    clients: what the server keeps of every client, (population, *shape) by parameter name; empty for most rules.

    Not part of a checkpoint:
    layers: the LoRA layers behind the shared tensors; empty for other adapters.
    folded: what the last round added to the masters, by layer name.
    """

    round_idx: int = 0
    shared: TensorDict
    frozen: TensorDict = field(default_factory=dict)
    optimizer: TensorDict = field(default_factory=dict)
    clients: TensorDict = field(default_factory=dict)
    layers: tuple[LoraLayer, ...] = ()
    folded: Mapping[str, LowRank] = field(default_factory=dict)

    def replace(self, **changes: Any) -> "ServerState":
        """Return a copy with `changes`."""
        return dataclasses.replace(self, **changes)

    def fold(self, changes: Mapping[str, LowRank]) -> "ServerState":
        """Return a copy whose masters have each layer's change added, computed in the masters' type."""
        frozen = dict(self.frozen)
        for layer in self.layers:
            if layer.name in changes:
                frozen[layer.weight] = added(frozen[layer.weight], layer.oriented(changes[layer.name]))
        return self.replace(frozen=frozen, folded=dict(changes))


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """What one client has when its round begins.

    shared: the tensors that travel, as this client takes them up.
    offsets: by layer name, what this client's frozen weight has more than the server's master; empty for most rules.
    control: the server's control variate (SCAFFOLD); empty without one.
    """

    shared: TensorDict
    control: TensorDict = field(default_factory=dict)
    offsets: Mapping[str, LowRank] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """Bytes that one client sends to the server and receives from it in one round."""

    uplink_bytes: int
    downlink_bytes: int
