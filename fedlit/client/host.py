"""The process's one model: the server between rounds, one client after the other within them.

This is the only file that writes the model or reads tensors out of it. What trains in a round is a set of names in its
plan; asking for something never writes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedlit.adapters import trainable
from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.tensors import TensorDict, copy_into, snapshot
from fedlit.client.folded import FoldedChanges
from fedlit.client.together.owners import Owners
from fedlit.client.together.weights import ClientWeights, Product, dropouts_of, products_of
from fedlit.method import Method
from fedlit.round.jobs import ClientJob, ClientState, LocalPart, Start
from fedlit.round.payload import MODEL
from fedlit.round.server import ServerState


class LiveTensors:
    """Tensors of a model by name, which are looked for once.

    A method finds them by a walk through all modules. For a client with one short step these walks, several a client,
    took a sixth of its time. Where each tensor is a whole parameter of the model, the parameters are kept, which stay
    the same objects when the model moves to another device; else the method is asked each time.

    Args:
        model: with the method's adapter.
        find: returns live tensors of the model, under the same names each time.
    """

    def __init__(self, model: nn.Module, find: Callable[[nn.Module], TensorDict]) -> None:
        self._model, self._find = model, find
        self._parameters = _whole_parameters(model, find(model))

    def __call__(self) -> TensorDict:
        """Return the live tensors as they are now."""
        if self._parameters is None:
            return self._find(self._model)
        return {name: parameter.data for name, parameter in self._parameters.items()}


def _whole_parameters(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, nn.Parameter] | None:
    """Return the parameters whose memory the tensors are; None if one is something else."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if all(name in parameters and _is_all_of(tensor, parameters[name].data) for name, tensor in tensors.items()):
        return {name: parameters[name] for name in tensors}
    return None


def _is_all_of(tensor: Tensor, other: Tensor) -> bool:
    """Tell whether both are the same numbers in the same memory."""
    places = [(each.data_ptr(), each.shape, each.stride(), each.dtype, each.device) for each in (tensor, other)]
    return places[0] == places[1]


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
        self.shared, self.private = LiveTensors(model, method.shared), LiveTensors(model, method.private)
        self._fixed = LiveTensors(model, method.adapter.fixed)
        self._folded = FoldedChanges(model, layers) if method.rule.folds else None
        self._of_server: Mapping[str, LowRank] = {}
        self._products: dict[tuple[str, ...], tuple[list[Product], list[nn.Dropout]]] = {}

    @property
    def has_private(self) -> bool:
        """Whether clients keep tensors of their own."""
        return bool(self.private())

    def travelling(self) -> dict[str, nn.Parameter]:
        """Return the live trained parameters that travel, of all rounds."""
        shared = self.shared()
        return {name: parameter for name, parameter in self.trained.items() if name in shared}

    def trains(self, round_idx: int) -> frozenset[str]:
        """Return the names of the parameters that train in a round."""
        return self.method.adapter.turn(frozenset(self.trained), round_idx)

    def first_server(self, parts: Sequence[LocalPart], num_clients: int) -> ServerState:
        """Return the server before the first round: the model as it stands, and the first tensors of every group."""
        server = ServerState(
            shared=snapshot(self.shared()),
            frozen=snapshot(self._fixed()),
            layers=self.layers,
        )
        for part in parts:
            if part.group:
                server = server.with_group(part.group, part.first(self.travelling()))
        return self.method.rule.begin(server, num_clients)

    def first_state(self, parts: Sequence[LocalPart]) -> ClientState:
        """Return what every client keeps before its first round."""
        kept = {part.group: part.first_kept(self.travelling()) for part in parts}
        return ClientState(
            private=snapshot(self.private(), device="cpu"),
            parts={group: snapshot(tensors, device="cpu") for group, tensors in kept.items() if tensors},
        )

    def load_server(self, server: ServerState) -> None:
        """Make the model the server's."""
        copy_into(self.shared(), server.shared)
        fixed = self._fixed()
        copy_into(fixed, {name: server.frozen[name] for name in fixed})
        if self._folded is not None:
            self._of_server = server.changes()
            self._folded.set(self._of_server)
        self.method.adapter.set_rank(self.model, client_id=None)

    def load_client(self, job: ClientJob) -> None:
        """Make the model a client's at the start of its round; its own frozen weights, where it has any, go in too."""
        shared, private = self._taken_up(job.start, job.state.private)
        copy_into(self.shared(), shared)
        self.load_private(private)
        if self._folded is not None:
            self._folded.set(self._of_server, job.start.offsets)
        self.method.adapter.set_rank(self.model, client_id=job.client_id)
        for name, parameter in self.trained.items():
            parameter.requires_grad_(name in job.plan.trains)
        self.method.adapter.begin(self.model)

    def _taken_up(self, start: Start, private: TensorDict) -> tuple[TensorDict, TensorDict]:
        """Return what a client's model holds, of what it received and kept."""
        if not self.method.adapter.takes_up_own:
            return start.groups[MODEL], private
        return self.method.adapter.taken_up(start.groups[MODEL], private, start.own_share)

    def load_together(self, jobs: Sequence[ClientJob]) -> tuple[TensorDict, dict[str, list[float]]]:
        """Make the model what several clients have in common at the start of their round.

        Returns:
            What they have of their own, stacked in their order (k, *shape), and, where their ranks differ, k factors of
            what a layer gives out by the name of its B. The model's own tensors of these names mean nothing then.
        """
        self.load_client(jobs[0])
        self.method.adapter.set_rank(self.model, client_id=None)
        both = [self._taken_up(job.start, job.state.private) for job in jobs]
        own = [{**shared, **private} for shared, private in both]
        scales = {
            layer.b: [layer.scaling(job.client_id) / layer.scaling() for job in jobs]
            for layer in self.layers
            if layer.client_ranks
        }
        first, like = own[0], {**self.shared(), **self.private()}
        differing = {name for name in first if any(each[name] is not first[name] for each in own)}
        apart = [name for name in first if name in self.trained or name in differing or name in scales]
        return {name: torch.stack([each[name].to(like[name]) for each in own]) for name in apart}, scales

    def load_private(self, private: Mapping[str, Tensor]) -> None:
        """Put a client's private tensors into the model."""
        copy_into(self.private(), private)

    def load_model_of(self, server: ServerState, client_id: int, private: TensorDict) -> None:
        """Make the model a client's own after a round, beside the server's tensors, which it has already."""
        self.load_own(self.method.rule.start(server, client_id), private)

    def load_own(self, start: Start, private: TensorDict) -> None:
        """Make the model a client's own, beside the server's tensors, which it has already; `start` as of the next
        round.
        """
        if self.method.adapter.takes_up_own:
            shared, private = self._taken_up(start, private)
            copy_into(self.shared(), shared)
        self.load_private(private)

    def client_weights(
        self, stacked: Mapping[str, Tensor], scales: Mapping[str, Sequence[float]] | None = None
    ) -> ClientWeights:
        """Return what lets the model's layers use the stacked tensors of several clients."""
        names = tuple(stacked)
        if names not in self._products:  # a walk through the model is a sixth of a short step
            self._products[names] = products_of(self.model, names), dropouts_of(self.model)
        return ClientWeights(*self._products[names], stacked, scales)

    @contextmanager
    def models_of(self, server: ServerState, private: Mapping[int, TensorDict]) -> Iterator[None]:
        """Let the model be several clients', each with the server's tensors and these of its own, by client id.

        What a forward pass is given within belongs to the clients evenly, in their order.
        """
        like, owns = self.private(), list(private.values())
        if self.method.adapter.takes_up_own:
            like = {**self.shared(), **like}
            starts = {client_id: self.method.rule.start(server, client_id) for client_id in private}
            both = [self._taken_up(starts[client_id], own) for client_id, own in private.items()]
            owns = [{**received, **own} for received, own in both]
        stacked = {name: torch.stack([each[name].to(tensor) for each in owns]) for name, tensor in like.items()}
        weights = self.client_weights(stacked)
        with weights.installed(), weights.of(Owners(slots=tuple(range(len(owns))))):
            yield

    def take(self) -> tuple[TensorDict, TensorDict]:
        """Return copies of the tensors that travel and of those that stay."""
        return snapshot(self.shared()), snapshot(self.private())
