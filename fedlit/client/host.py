"""The process's one model: the server between rounds, one client after the other within them.

This is the only file that writes the model or reads tensors out of it. What trains in a round is a set of names in its
plan; asking for something never writes.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fedlit.adapters import trainable
from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.merging import added
from fedlit.algebra.tensors import TensorDict, copy_into, snapshot
from fedlit.method import Method
from fedlit.round.jobs import ClientJob, ClientState, LocalPart
from fedlit.round.payload import MODEL
from fedlit.round.server import ServerState


class ModelHost:
    """Puts a server or a client into the model, and takes a client's tensors out of it.

    Args:
        model: with the method's adapter.
        method: says which tensors travel and which stay.
        layers: the adapter's LoRA layers.
    """

    def __init__(self, model: nn.Module, method: Method, layers: tuple[LoraLayer, ...]) -> None:
        self.model = model
        self.method = method
        self.layers = layers
        # Of all rounds: a plan may train some of them in one round and others in the next.
        self.trained: dict[str, nn.Parameter] = trainable(model)
        self._masters: Mapping[str, Tensor] = {}

    @property
    def has_private(self) -> bool:
        """Whether clients keep tensors of their own."""
        return bool(self.method.private(self.model))

    def travelling(self) -> dict[str, nn.Parameter]:
        """Return the live trained parameters that travel, of all rounds."""
        shared = self.method.shared(self.model)
        return {name: parameter for name, parameter in self.trained.items() if name in shared}

    def trains(self, round_idx: int) -> frozenset[str]:
        """Return the names of the parameters that train in a round."""
        return self.method.adapter.turn(frozenset(self.trained), round_idx)

    def first_server(self, parts: Sequence[LocalPart], num_clients: int) -> ServerState:
        """Return the server before the first round: the model as it stands, and the first tensors of every group."""
        rule, parameters = self.method.rule, dict(self.model.named_parameters())
        weights = [layer.weight for layer in self.layers if rule.folds]
        server = ServerState(
            shared=snapshot(self.method.shared(self.model)),
            frozen={name: _master(parameters[name]) for name in weights}
            | snapshot(self.method.adapter.fixed(self.model)),
            layers=self.layers,
        )
        for part in parts:
            if part.group:
                server = server.with_group(part.group, part.first(self.travelling()))
        return rule.begin(server, num_clients)

    def first_state(self, parts: Sequence[LocalPart]) -> ClientState:
        """Return what every client keeps before its first round."""
        kept = {part.group: part.first_kept(self.travelling()) for part in parts}
        return ClientState(
            private=snapshot(self.method.private(self.model), device="cpu"),
            parts={group: snapshot(tensors, device="cpu") for group, tensors in kept.items() if tensors},
        )

    def load_server(self, server: ServerState) -> None:
        """Make the model the server's."""
        copy_into(self.method.shared(self.model), server.shared)
        parameters = dict(self.model.named_parameters())
        copy_into({name: parameters[name].data for name in server.frozen}, server.frozen)
        self._masters = server.frozen
        self.method.adapter.set_rank(self.model, client_id=None)

    def load_client(self, job: ClientJob) -> None:
        """Make the model a client's at the start of its round; its own frozen weights, where it has any, go in too."""
        copy_into(self.method.shared(self.model), job.start.groups[MODEL])
        self.load_private(job.state.private)
        parameters = dict(self.model.named_parameters()) if job.start.offsets else {}
        for layer in self.layers:
            if layer.name in job.start.offsets:
                own = added(self._masters[layer.weight], layer.oriented(job.start.offsets[layer.name]))
                parameters[layer.weight].data.copy_(own)
        self.method.adapter.set_rank(self.model, client_id=job.client_id)
        for name, parameter in self.trained.items():
            parameter.requires_grad_(name in job.plan.trains)

    def load_private(self, private: Mapping[str, Tensor]) -> None:
        """Put a client's private tensors into the model."""
        copy_into(self.method.private(self.model), private)

    def take(self) -> tuple[TensorDict, TensorDict]:
        """Return copies of the tensors that travel and of those that stay."""
        return snapshot(self.method.shared(self.model)), snapshot(self.method.private(self.model))


def _master(weight: Tensor) -> Tensor:
    """Return a copy in float32, or finer where the weight is: small changes add up only in those."""
    return weight.detach().to(torch.promote_types(weight.dtype, torch.float32), copy=True)
