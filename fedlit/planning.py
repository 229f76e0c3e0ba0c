"""From a configuration and its rows to a method and a model of shapes: what a dry run needs, and every run first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import torch

from fedlit.adapters import Calibration
from fedlit.algebra.lora_layer import LoraLayer
from fedlit.client.host import ModelHost
from fedlit.client.per_example.possible import require_single_rows
from fedlit.client.together.possible import require_possible
from fedlit.inputs import Inputs
from fedlit.method import Method
from fedlit.methods import build_method
from fedlit.models import Backbone, Purpose, load_backbone
from fedlit.partition.shards import Shard
from fedlit.round.observers.traffic import TrafficObserver
from fedlit.round.server import ServerState
from fedlit.seeding import torch_stream
from fedlit.store.export_proof import pretrained_shapes, require_exportable
from fedlit.tasks import Task, task_class
from fedlit.tasks.registry import task_spec


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Who trains on what, and how: the inputs under a method.

    load: `load_backbone`, or its like for a model that was given from Python.
    """

    inputs: Inputs
    method: Method
    load: Callable[..., Backbone] = load_backbone

    def backbone(self, *, weights: bool = True) -> Backbone:
        """Return the pretrained model anew, without weights on the meta device."""
        return self.load(self.inputs.config.model, purpose(self), weights=weights)

    @cached_property
    def clients(self) -> list[Shard]:
        """The shards that train: one a client, or a single one with everybody's rows."""
        shards = self.inputs.shards
        if not self.method.pooled:
            return shards
        train = tuple(row for shard in shards for row in shard.train)
        test = tuple(row for shard in shards for row in shard.test)
        validation = tuple(row for shard in shards for row in shard.validation)
        return [Shard(client_id=0, train=train, test=test, validation=validation)]

    @property
    def cohort_size(self) -> int:
        """Clients of one round."""
        return 1 if self.method.pooled else self._asked_cohort_size

    @property
    def num_step_multiples(self) -> int:
        """How many clients' steps one client takes."""
        return self._asked_cohort_size if self.method.pooled else 1

    @property
    def _asked_cohort_size(self) -> int:
        config = self.inputs.config
        return config.cohort_size or config.num_clients + config.privacy.canaries


def make_plan(inputs: Inputs, load: Callable[..., Backbone] = load_backbone) -> Plan:
    """Return the inputs under the configuration's method.

    Raises:
        UserError: an unknown recipe, part or option, or parts that do not fit together.
    """
    return Plan(inputs=inputs, method=build_method(inputs.config), load=load)


def purpose(plan: Plan) -> Purpose:
    """Return what the backbone of a run is loaded for."""
    inputs, data = plan.inputs, plan.inputs.config.data
    return Purpose(task=data.task, classes=inputs.classes, regression=data.regression, seed=inputs.config.seed)


def make_task(plan: Plan, backbone: Backbone) -> Task[Any, Any]:
    """Return the task of the configuration."""
    config = plan.inputs.config
    return task_class(task_spec(config.data.task)).build(config, backbone)


def attach_adapter(
    plan: Plan, backbone: Backbone, calibration: Calibration | None = None
) -> tuple[tuple[LoraLayer, ...], dict[str, float]]:
    """Put the method's adapter into the backbone, initialised from one named stream, the same everywhere, or as the
    adapter has it that `model.path` names.

    Returns:
        Its LoRA layers, and what the record should hold of the initialisation.
    """
    with torch_stream(plan.inputs.config.seed, "adapter"):
        facts = plan.method.attach(backbone.model, backbone.projections, calibration)
    if backbone.start is not None:
        plan.method.adapter.start_from(backbone.model, backbone.start)
    return plan.method.adapter.layers(backbone.model), facts


def rehearse(plan: Plan, backbone: Backbone | None = None) -> tuple[LoraLayer, ...]:
    """Put the adapter into the run's model on the meta device, show that its result can be written, return its layers.

    Args:
        plan: the run.
        backbone: on the meta device; built here without one.

    Raises:
        UserError: what the model, the adapter or the texts would end the run with later.
    """
    backbone = backbone or plan.backbone(weights=False)
    backbone.require_readable(_texts(plan.inputs))
    inputs = plan.inputs
    if task_spec(inputs.config.data.task).needs_task(inputs.config.data):  # torchmetrics, a second of a dry run
        own = (*inputs.own_test_rows, *inputs.own_validation_rows)
        make_task(plan, backbone).check_rows((*inputs.rows, *own) if own else inputs.rows)
    pretrained = pretrained_shapes(backbone.model)
    with torch.device("meta"):  # peft would draw the factors of a large model for seconds
        layers, _ = attach_adapter(plan, backbone)
    if inputs.config.local.clients_per_batch > 1:  # the task's class, too, is a second of a dry run
        require_possible(inputs.config, plan.method, backbone.model, task_class(task_spec(inputs.config.data.task)))
    if inputs.config.privacy.unit == "example":
        require_single_rows(inputs.config, backbone.model, task_class(task_spec(inputs.config.data.task)))
    require_exportable(plan.method.adapter, backbone.model, pretrained, plan.method.head(backbone.model))
    return layers


def _texts(inputs: Inputs) -> Iterator[str]:
    """Yield all words that may be read: the templates and what stands in the rows."""
    data = inputs.config.data
    yield from filter(None, (data.template, data.test_template))
    columns = task_spec(data.task).columns(data)
    for row in chain(inputs.rows, inputs.own_test_rows, inputs.own_validation_rows):
        yield from (str(row[column]) for column in columns if column in row)


def make_traffic(method: Method) -> TrafficObserver:
    """Return what counts the bytes of a round."""
    return TrafficObserver(
        rule=method.rule,
        groups=method.groups,
        transforms=method.transforms,
        silent=not method.communicates or method.pooled,
    )


def first_traffic(
    traffic: TrafficObserver, server: ServerState, cohort_size: int, host: ModelHost, round_idx: int = 0
) -> tuple[int, int]:
    """Return the bytes up and down of one client in the first round, the mean over the first clients.

    round_idx: another round, as far as it depends on what trains in it.
    """
    clients = range(cohort_size)
    up, down = traffic.of_round(server, clients, clients, host.trains(round_idx))
    return up // cohort_size, down // cohort_size
