"""The server's state: a value, the same on every process, that an aggregation rule maps to the next one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial

import torch

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import PARTS, LowRank
from fedlit.algebra.tensors import TensorDict, standing_alone
from fedlit.algebra.together import compacted
from fedlit.round.payload import MODEL

_PERSISTENT = {"persistent": True}


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerState:
    """What the server holds between two rounds. Its tensors lie as a checkpoint gives them back (`standing_alone`),
    whatever a rule made them of: else a resumed run would have other bits.

    round_idx: rounds aggregated so far, which is also the index of the next round.
    shared: the tensors that travel, after aggregation.
    frozen: what rules have folded into backbone weights, which stays beside them (see `fold`), and what an adapter
    derived from data when it was attached; empty for most methods.
    optimizer: moments of a server optimizer, as `m/<parameter>` and `v/<parameter>`, and the groups that travel beside
    the model, as `<group>/<parameter>`; empty for most methods.
    clients: what the server keeps of every client, `(population, *shape)` by parameter name; empty for most rules.

    Not part of a checkpoint:
    layers: the LoRA layers behind the shared tensors; empty for other adapters.
    folded: what the last round changed in that, by layer name, to the last bit.
    folded_ranks: the rank of what the last round folded, by layer name, of a rule that chose it by what clients sent.
    """

    round_idx: int = 0
    shared: TensorDict = field(metadata=_PERSISTENT)
    frozen: TensorDict = field(default_factory=dict, metadata=_PERSISTENT)
    optimizer: TensorDict = field(default_factory=dict, metadata=_PERSISTENT)
    clients: TensorDict = field(default_factory=dict, metadata=_PERSISTENT)
    layers: tuple[LoraLayer, ...] = ()
    folded: Mapping[str, LowRank] = field(default_factory=dict)
    folded_ranks: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part, tensors in self.parts().items():
            stand = {name: standing_alone(tensor) for name, tensor in tensors.items()}
            if any(stand[name] is not tensor for name, tensor in tensors.items()):
                object.__setattr__(self, part, stand)

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

    def change(self, layer: LoraLayer) -> LowRank | None:
        """Return all that was folded into a layer's weight (out, in), in the type that holds it; None without any."""
        names = {part: f"{layer.weight}/{part}" for part in PARTS}
        parts = {part: self.frozen[name] for part, name in names.items() if name in self.frozen}
        return LowRank.of_parts(parts) if parts else None

    def changes(self) -> dict[str, LowRank]:
        """Return all that was folded, by layer name."""
        found = {layer.name: self.change(layer) for layer in self.layers}
        return {name: change for name, change in found.items() if change is not None}

    def fold(self, changes: Mapping[str, LowRank]) -> "ServerState":
        """Return a copy in which each layer's frozen weight has a change (out, in) more.

        The weight itself stays as it was pretrained: in bfloat16, or in a forward pass that rounds it to that, small
        changes of it would be lost. They are kept beside it in the type of the layer's factors and take part in every
        forward pass, as `<weight>/left` and `<weight>/right`, or as `<weight>/rest` where that is smaller.
        """
        layers = [layer for layer in self.layers if layer.name in changes]
        dtypes = [next(self.shared[name].dtype for name in layer.factors if name in self.shared) for layer in layers]
        widths = {}

        def total(layer: LoraLayer) -> LowRank:
            new, before = changes[layer.name], self.change(layer)
            made = new if before is None else before + new
            widths[layer.name] = made.width
            return made

        frozen = dict(self.frozen)
        folded: dict[str, tuple[LowRank | None, LowRank]] = {}
        for layer, held in zip(layers, compacted([partial(total, layer) for layer in layers], dtypes), strict=True):
            before = self.change(layer)
            if before is not None and held.rest is None and held.width == widths[layer.name]:  # stands as it was
                folded[layer.name] = (None, held.without(before.width))
            else:
                folded[layer.name] = (before, held)
            for part in PARTS:
                frozen.pop(f"{layer.weight}/{part}", None)
            frozen |= {f"{layer.weight}/{part}": tensor for part, tensor in held.parts.items()}
        return replace(self, frozen=frozen, folded=_Differences(folded))


@dataclass(frozen=True)
class _Differences(Mapping[str, LowRank]):
    """Differences of two matrices by layer name, in float64, made when they are asked for: they are as large as all
    that is held, and only an observer looks at them.

    pairs: what is taken off, None for nothing, and from what.
    """

    pairs: Mapping[str, tuple[LowRank | None, LowRank]]

    def __getitem__(self, name: str) -> LowRank:
        before, after = self.pairs[name]
        exact = after.to(torch.float64)
        return exact if before is None else exact - before.to(torch.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)
