"""What a run will take, computed without its weights: parameters, bytes on the wire, memory of a device.

Shapes: n rows in a batch, T tokens in the longest row (patches in an image), H hidden size, M width of the MLP, V
vocabulary.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import nn

from fedlit.adapters import trainable
from fedlit.algebra.tensors import num_bytes, num_parameters
from fedlit.client.host import ModelHost
from fedlit.client.together.groups import groups_of
from fedlit.client_names import rows_of_each
from fedlit.config import RunConfig
from fedlit.models import Backbone, load_backbone
from fedlit.models.quantization import quantizable_weights, quantized_bytes
from fedlit.planning import Plan, first_traffic, make_traffic, purpose, rehearse
from fedlit.private_run import claim_lines, make_privacy
from fedlit.round.server import ServerState
from fedlit.store.export import fits_peft
from fedlit.tasks.registry import task_spec
from fedlit.units import readable_bytes, told_apart


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Parameter counts, bytes of one device's memory by purpose, and what a person should know of the model.

    stored_bytes: on the disk, `checkpoint` of the server after the last round, `client` of one client's own state,
    `result` of what is exported.
    """

    num_trainable: int
    num_shared: int
    num_private: int
    num_frozen: int
    uplink_bytes: int
    downlink_bytes: int
    memory_bytes: dict[str, int]
    stored_bytes: dict[str, int]
    privacy: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def measure(plan: Plan, backbone: Backbone | None = None) -> Sizes:
    """Return the sizes of a run from a model on the meta device.

    backbone: the run's, without weights; the method's adapter is in it afterwards. Built here without one.
    """
    method, config = plan.method, plan.inputs.config
    backbone = backbone or load_backbone(config.model, purpose(plan), weights=False)
    model = backbone.model
    pretrained_bytes = _weight_bytes(model, ())
    small = {id(weight) for weight in quantizable_weights(model)} if config.model.quantization else set()
    layers = rehearse(plan, backbone)
    trained = {name: parameter.data for name, parameter in trainable(model).items()}
    shared = method.shared(model)
    host = ModelHost(model, method, layers)
    privacy = make_privacy(plan)
    num_clients = len(plan.clients) + config.privacy.canaries
    server = privacy.opened(host.first_server(method.parts, len(plan.clients)), num_clients)
    uplink_bytes, downlink_bytes = first_traffic(make_traffic(method), server, plan.cohort_size, host)
    total = {name: parameter.data for name, parameter in model.named_parameters()}
    num_trained = num_parameters(trained)
    num_at_once = min(config.local.clients_per_batch, plan.cohort_size)
    stacked = num_bytes(trained) * num_at_once if num_at_once > 1 else 0
    return Sizes(
        num_trainable=num_trained,
        num_shared=num_parameters(shared),
        num_private=num_parameters(method.private(model)),
        num_frozen=num_parameters(total) - num_trained,
        uplink_bytes=uplink_bytes,
        downlink_bytes=downlink_bytes,
        memory_bytes={
            "weights": _weight_bytes(model, small),
            # Of several clients in one pass each has weights of its own beside the model's.
            "gradients": num_at_once * num_bytes(trained) + stacked,
            "optimizer": num_at_once
            * 4
            * method.optimizer.num_state_scalars([tensor.shape for tensor in trained.values()]),
            # State, one update, integer sum; what is fixed or folded; what the server keeps of each client.
            "server": 2 * num_bytes(shared)
            + 8 * num_parameters(shared)
            + num_bytes({**server.frozen, **server.clients})
            + (_folded_bytes(server, plan) if method.rule.folds else 0),
            "activations": num_at_once * _activation_bytes(model, config),
        },
        stored_bytes=_stored_bytes(plan, host, server, pretrained_bytes),
        notices=backbone.notices,
        privacy=claim_lines(privacy, plan.cohort_size),
    )


def _stored_bytes(plan: Plan, host: ModelHost, server: ServerState, pretrained_bytes: int) -> dict[str, int]:
    """Return the bytes of a checkpoint's server, of what a client keeps, and of the result, an adapter or a model."""
    method, config = plan.method, plan.inputs.config
    trained = {name: parameter.data for name, parameter in host.trained.items()}
    shapes = [tensor.shape for tensor in trained.values()]
    moments = 4 * method.optimizer.num_state_scalars(shapes) if config.local.optimizer_state == "keep" else 0
    kept = sum(num_bytes(part.first_kept(host.travelling())) for part in method.parts)
    folded = _folded_bytes(server, plan) if method.rule.folds else 0
    of_server = {"none": 0, "fedavgm": 1}.get(config.server.optimizer, 2) * num_bytes(server.shared)
    names = {name for layer in host.layers for name in layer.factors}
    factors = {name: each.data for name, each in host.model.named_parameters() if name in names}
    as_adapter = config.run.export == "adapter" and fits_peft(method.adapter, host.model, method.head(host.model))
    return {
        "checkpoint": sum(map(num_bytes, server.parts().values())) + of_server + folded,
        "client": num_bytes(host.private()) + kept + moments,
        "result": num_bytes(factors) + folded if as_adapter else pretrained_bytes,
    }


def _folded_bytes(server: ServerState, plan: Plan) -> int:
    """Return the most that what is folded into weights can grow to: all clients' factors of all rounds, or dense."""
    total, num_sums = 0, plan.inputs.config.num_rounds * plan.cohort_size
    for layer in server.layers:
        a, b = server.shared[layer.a], server.shared[layer.b]
        num_out, num_in = b.shape[0], a.shape[1]
        total += min(num_sums * layer.rank * (num_out + num_in), num_out * num_in) * a.element_size()
    return total


def _weight_bytes(model: nn.Module, quantized: Collection[int]) -> int:
    """Return the bytes of all parameters; `quantized` are the ids of those that are kept in 4 bits."""
    return sum(
        quantized_bytes(parameter.numel()) if id(parameter) in quantized else parameter.numel() * parameter.itemsize
        for parameter in model.parameters()
    )


def _activation_bytes(model: nn.Module, run: RunConfig) -> int:
    """Return about what backward keeps: 12 H + 5 M values a token and layer, 3 V a labelled token (at most all).

    A classifier has no vocabulary to project on. With gradient checkpointing all layers but one keep their input alone.
    """
    whole: Any = model.config
    config = getattr(whole, "vision_config", whole)  # of SigLIP, whose text half a classifier leaves out
    spec = task_spec(run.data.task)
    num_tokens = run.model.max_length_tokens if spec.reads_text else _num_patches(config)
    hidden, num_layers = config.hidden_size, config.num_hidden_layers
    width = getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", None) or 4 * hidden
    layer = 12 * hidden + 5 * width
    kept = layer + (num_layers - 1) * hidden if run.model.gradient_checkpointing else num_layers * layer
    vocabulary = 0 if spec.has_head else 3 * config.vocab_size
    return 4 * run.local.batch_size * num_tokens * int(kept + vocabulary)


def _num_patches(config: Any) -> int:
    """Return the patches of an image, from sides in pixels given as a number or as (height, width)."""
    sides = [
        side if isinstance(side, int) else math.prod(side) ** 0.5 for side in (config.image_size, config.patch_size)
    ]
    return int(sides[0] / sides[1]) ** 2


def describe_sizes(plan: Plan, num_processes: int) -> list[str]:
    """Return the lines that `dry_run=true` prints."""
    config, sizes = plan.inputs.config, measure(plan)
    population = len(plan.clients)
    groups = groups_of(range(plan.cohort_size), config.local.clients_per_batch, at_home=False)
    shares = [sum(map(len, groups[process::num_processes])) for process in range(num_processes)]
    memory = ", ".join(f"{name} {readable_bytes(value)}" for name, value in sizes.memory_bytes.items())
    smallest, largest = (function(shard.num_examples for shard in plan.clients) for function in (min, max))
    rows = f"{smallest:,}" if smallest == largest else f"{smallest:,} to {largest:,}"
    num_validation = len(plan.inputs.validation_rows)
    chosen_on = f", {num_validation:,} for validation" if num_validation else ""
    return [
        f"{config.method.name} of {config.model.name} on {config.data.name} (dry run: no weights are loaded)",
        f"  clients    {population}, {plan.cohort_size} in a round; {' + '.join(map(str, shares))} on "
        f"{num_processes} device{'s' if num_processes > 1 else ''}",
        f"  rows       {rows} a client for training, {len(plan.inputs.test_rows):,} for testing{chosen_on}",
        *rows_of_each(plan.inputs.client_names, [shard.num_examples for shard in plan.inputs.shards]),
        f"  parameters {sizes.num_trainable:,} trainable ({sizes.num_shared:,} shared, {sizes.num_private:,} private), "
        f"{sizes.num_frozen:,} frozen",
        f"  traffic    {readable_bytes(sizes.uplink_bytes)} up, {readable_bytes(sizes.downlink_bytes)} down, "
        "a client in the first round",
        *told_apart("privacy", sizes.privacy),
        f"  memory     about {readable_bytes(sum(sizes.memory_bytes.values()))} a device: {memory}",
        *(f"  note       {notice}" for notice in sizes.notices),
    ]
