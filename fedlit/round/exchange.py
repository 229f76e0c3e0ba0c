"""What goes between the server and its clients in one round: downloads, uploads, aggregation, bytes.

The model of a process stands in for the server between rounds, and for one client after the other within them.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from fedlit.adapters import trainable
from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.merging import added
from fedlit.algebra.tensors import TensorDict, copy_into, num_bytes, snapshot
from fedlit.client.corrections import server_control_after
from fedlit.config import RunConfig
from fedlit.methods import Method
from fedlit.round.cohort import ClientUpdate, Cohort
from fedlit.round.observers.deviation import START, measure, round_factors
from fedlit.round.server import Download, ServerState
from fedlit.round.server_optimizers import Options, step

CONTROL = "control/"
"""Prefix of the server's control variate in ServerState.optimizer."""


class Exchange:
    """The traffic of one federation.

    Args:
        config: of the run.
        method: its recipe.
        model: the process's model, with the adapter.
        layers: the adapter's LoRA layers.
        num_examples: training rows of every client.
    """

    def __init__(
        self,
        *,
        config: RunConfig,
        method: Method,
        model: nn.Module,
        layers: tuple[LoraLayer, ...],
        num_examples: Sequence[int],
    ) -> None:
        self.config = config
        self.method = method
        self.model = model
        self.layers = layers
        self.num_examples = tuple(num_examples)
        self.measures = bool(layers) and config.eval.deviation and method.communicates

    def first_server(self, control: Mapping[str, Tensor]) -> ServerState:
        """Return the server before the first round, with a control variate if there is one."""
        rule, parameters = self.method.rule, dict(self.model.named_parameters())
        weights = [layer.weight for layer in self.layers if rule.folds]
        server = ServerState(
            shared=snapshot(self.method.shared(self.model)),
            frozen={name: _master(parameters[name]) for name in weights}
            | snapshot(self.method.adapter.fixed(self.model)),
            optimizer={f"{CONTROL}{name}": tensor for name, tensor in control.items()},
            layers=self.layers,
        )
        return rule.begin(server, len(self.num_examples))

    def load_server(self, server: ServerState) -> None:
        """Make the model the server's."""
        copy_into(self.method.shared(self.model), server.shared)
        parameters = dict(self.model.named_parameters())
        copy_into({name: parameters[name].data for name in server.frozen}, server.frozen)
        self.enter(server.round_idx)

    def download(self, server: ServerState, client_id: int) -> Download:
        """Return what a client starts from; its own frozen weights, where it has any, go into the model."""
        download = self.method.rule.download(server, client_id)
        parameters = dict(self.model.named_parameters())
        for layer in server.layers:
            if layer.name in download.offsets:
                own = added(server.frozen[layer.weight], layer.oriented(download.offsets[layer.name]))
                parameters[layer.weight].data.copy_(own)
        return Download(shared=download.shared, offsets=download.offsets, control=_control(server))

    def cohort(self, client_ids: Sequence[int], server: ServerState) -> "RoundCohort":
        """Return the clients of a round, none of them trained; the model trains what is trained in this round."""
        self.enter(server.round_idx)
        return RoundCohort(self, client_ids, server)

    def enter(self, round_idx: int) -> None:
        """Let the model train what is trained in this round, in the server's shape."""
        self.method.adapter.enter(self.model, client_id=None, round_idx=round_idx)

    def first_traffic(self, cohort_size: int, server: ServerState) -> tuple[int, int]:
        """Return the bytes up and down of one client in the first round, the mean over the first clients."""
        client_ids = range(cohort_size)
        self.enter(server.round_idx)
        up, down = self.traffic(client_ids, server).values()
        return up // cohort_size, down // cohort_size

    def traffic(self, client_ids: Collection[int], server: ServerState) -> dict[str, int]:
        """Return the bytes of the round that real clients would send and receive, all of them together."""
        if not self.method.communicates or self.method.pooled:
            return {"communication/uplink_bytes": 0, "communication/downlink_bytes": 0}
        parts = self.method.rule.traffic(server, client_ids, trainable(self.model)).values()
        control = num_bytes(_control(server)) * len(client_ids)
        return {
            "communication/uplink_bytes": sum(part.uplink_bytes for part in parts) + control,
            "communication/downlink_bytes": sum(part.downlink_bytes for part in parts) + control,
        }


class RoundCohort:
    """The cohort of one round: what its clients send, aggregated."""

    def __init__(self, exchange: Exchange, client_ids: Sequence[int], server: ServerState) -> None:
        self.exchange = exchange
        self.server = server
        self.client_ids = tuple(client_ids)
        method, model = exchange.method, exchange.model
        weights = method.weights([exchange.num_examples[client_id] for client_id in client_ids])
        factors = {name for layer in exchange.layers for name in layer.factors}
        tensors = {**method.shared(model), **method.private(model)}
        self._factors = sorted(factors & tensors.keys()) if exchange.measures else []
        device = next(iter(server.shared.values())).device if server.shared else None
        extra = {name: tensor.to(device) for name, tensor in method.private(model).items()} if exchange.measures else {}
        extra |= {f"{START}{name}": tensors[name] for name in self._factors}
        self.updates = Cohort(
            client_ids,
            weights,
            server.shared,
            round_idx=server.round_idx,
            stacks=method.rule.stacks or exchange.measures,
            private=extra,
        )
        self._controls = Cohort(client_ids, weights, _control(server), round_idx=server.round_idx, stacks=False)

    def add(self, update: ClientUpdate, download: Download, started_private: Mapping[str, Tensor]) -> None:
        """Take in a client's update; `started_private` are the private tensors that it began with."""
        rule, client_id = self.exchange.method.rule, update.client_id
        kept: TensorDict = {}
        if self.exchange.measures:
            started = {**started_private, **rule.upload(download.shared, self.server, client_id)}
            ended = {**update.private, **update.shared}
            # What a client keeps between its rounds is on the CPU.
            kept = {**update.private, **{f"{START}{name}": started[name].to(ended[name]) for name in self._factors}}
        self.updates.add(
            ClientUpdate(
                client_id=client_id,
                num_examples=update.num_examples,
                shared=rule.upload(update.shared, self.server, client_id),
                metrics=update.metrics,
                private=kept,
            )
        )
        control = {name: update.control[name].to(tensor) for name, tensor in _control(self.server).items()}
        self._controls.add(ClientUpdate(client_id=client_id, num_examples=0, shared=control, metrics={}))

    def aggregate(self) -> ServerState:
        """Return the next server: the rule's, gone along by the server optimizer, with the next control variate."""
        exchange, before = self.exchange, self.server
        options = exchange.config.server
        after = exchange.method.rule(self.updates, before)
        if options.optimizer != "none":
            numbers = Options(
                lr=1.0 if options.lr is None else options.lr, beta1=options.beta1, beta2=options.beta2, tau=options.tau
            )
            after = step(options.optimizer, numbers, before, after, trained=trainable(exchange.model).keys())
        if control := _control(before):
            population = exchange.method.weights(exchange.num_examples)
            share = sum(population[client_id] for client_id in self.client_ids)
            control = server_control_after(control, self._controls.mean(), share)
            after = after.replace(
                optimizer={**after.optimizer, **{f"{CONTROL}{name}": tensor for name, tensor in control.items()}}
            )
        return after.replace(round_idx=before.round_idx + 1)

    def deviation(self, after: ServerState, *, compute: bool) -> dict[str, float]:
        """Return the LoRA numbers of the round; one collective, so every process asks, and who need not `compute`
        gets nothing.
        """
        if not self.exchange.measures:
            return {}
        offsets: dict[str, list[LowRank]] = {}
        for client_id in self.client_ids if compute else ():
            for name, offset in self.exchange.method.rule.download(self.server, client_id).offsets.items():
                offsets.setdefault(name, []).append(offset)
        fixed = dict(self.exchange.model.named_parameters())
        factors = round_factors(self.updates, self._factors, fixed, offsets)
        with torch.no_grad():
            return measure(factors, self.server, after) if compute else {}


def _master(weight: Tensor) -> Tensor:
    """Return a copy in float32, or finer where the weight is: small changes add up only in those."""
    return weight.detach().to(torch.promote_types(weight.dtype, torch.float32), copy=True)


def _control(server: ServerState) -> TensorDict:
    return {name.removeprefix(CONTROL): tensor for name, tensor in server.optimizer.items() if name.startswith(CONTROL)}
