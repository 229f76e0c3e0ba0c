"""The server's state: a value, the same on every process, that an aggregation rule maps to the next one."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.merging import added
from fedlit.algebra.tensors import TensorDict
from fedlit.round.payload import MODEL

_PERSISTENT = {"persistent": True}


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerState:
    """What the server holds between two rounds.

    round_idx: rounds aggregated so far, which is also the index of the next round.
    shared: the tensors that travel, after aggregation.
    frozen: fp32 masters of backbone weights that a rule folds changes into, and what an adapter derived from data when
    it was attached; empty for most methods.
    optimizer: moments of a server optimizer, as `m/<parameter>` and `v/<parameter>`, and the groups that travel beside
    the model, as `<group>/<parameter>`; empty for most methods.
    clients: what the server keeps of every client, (population, *shape) by parameter name; empty for most rules.

    Not part of a checkpoint:
    layers: the LoRA layers behind the shared tensors; empty for other adapters.
    folded: what the last round added to the masters, by layer name.
    """

    round_idx: int = 0
    shared: TensorDict = field(metadata=_PERSISTENT)
    frozen: TensorDict = field(default_factory=dict, metadata=_PERSISTENT)
    optimizer: TensorDict = field(default_factory=dict, metadata=_PERSISTENT)
    clients: TensorDict = field(default_factory=dict, metadata=_PERSISTENT)
    layers: tuple[LoraLayer, ...] = ()
    folded: Mapping[str, LowRank] = field(default_factory=dict)

    @classmethod
    def part_names(cls) -> tuple[str, ...]:
        """Return the names of the parts that outlive the process: what a checkpoint holds and a checksum covers."""
        return tuple(entry.name for entry in fields(cls) if entry.metadata.get("persistent"))

    def parts(self) -> dict[str, TensorDict]:
        """Return the persistent parts by name."""
        return {name: getattr(self, name) for name in self.part_names()}

    def group(self, name: str) -> TensorDict:
        """Return the server's tensors of a payload group, by parameter name; none if it has no such group."""
        if name == MODEL:
            return self.shared
        prefix = f"{name}/"
        return {key.removeprefix(prefix): tensor for key, tensor in self.optimizer.items() if key.startswith(prefix)}

    def with_group(self, name: str, tensors: TensorDict) -> "ServerState":
        """Return a copy with other tensors of a payload group."""
        if name == MODEL:
            return replace(self, shared=dict(tensors))
        return replace(self, optimizer=self.optimizer | {f"{name}/{key}": tensor for key, tensor in tensors.items()})

    def fold(self, changes: Mapping[str, LowRank]) -> "ServerState":
        """Return a copy whose masters have each layer's change added, computed in the masters' type."""
        frozen = dict(self.frozen)
        for layer in self.layers:
            if layer.name in changes:
                frozen[layer.weight] = added(frozen[layer.weight], layer.oriented(changes[layer.name]))
        return replace(self, frozen=frozen, folded=dict(changes))
