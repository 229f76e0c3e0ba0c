"""From a configuration and its rows to a federation: recipe, backbone, task, and the clients of this process."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lightning.fabric import Fabric
from torch import Tensor, nn

from fedlit.adapters import Calibration
from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.tensors import num_parameters
from fedlit.client.trainer import ClientModule, LocalTrainer
from fedlit.config import RunConfig
from fedlit.data.prompts import Row
from fedlit.inputs import Inputs
from fedlit.lab.callbacks import RunSummary
from fedlit.methods import Method, build_method
from fedlit.models import Backbone, Purpose, load_backbone
from fedlit.partition.shards import Shard
from fedlit.process import communication
from fedlit.round.evaluation import Evaluator, fixed_subset
from fedlit.round.exchange import Exchange
from fedlit.round.loop import Federation
from fedlit.seeding import numpy_generator, torch_stream
from fedlit.tasks import Task
from fedlit.tasks.causal_lm import CausalLM
from fedlit.tasks.image_classification import ImageClassification
from fedlit.tasks.sequence_classification import SequenceClassification

NUM_CALIBRATION_BATCHES = 4
"""Training batches that an adapter may look at when it is initialised."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Who trains on what, and how: the inputs under a method."""

    inputs: Inputs
    method: Method

    @cached_property
    def clients(self) -> list[Shard]:
        """The shards that train: one a client, or a single one with everybody's rows."""
        shards = self.inputs.shards
        if not self.method.pooled:
            return shards
        train = tuple(row for shard in shards for row in shard.train)
        test = tuple(row for shard in shards for row in shard.test)
        return [Shard(client_id=0, train=train, test=test)]

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
        return self.inputs.config.cohort_size or self.inputs.config.num_clients


def make_plan(inputs: Inputs) -> Plan:
    """Return the inputs under the configuration's method.

    Raises:
        UserError: an unknown recipe, part or option, or parts that do not fit together.
    """
    return Plan(inputs=inputs, method=build_method(inputs.config))


TASKS: Mapping[str, Callable[[RunConfig, Backbone], Task[Any, Any]]] = {
    "causal_lm": CausalLM.build,
    "sequence_classification": SequenceClassification.build,
    "image_classification": ImageClassification.build,
}
"""How a task is made of a configuration and the backbone, by `data.task`."""


def purpose(plan: Plan) -> Purpose:
    """Return what the backbone of a run is loaded for."""
    inputs, data = plan.inputs, plan.inputs.config.data
    return Purpose(task=data.task, classes=inputs.classes, regression=data.regression, seed=inputs.config.seed)


def make_task(plan: Plan, backbone: Backbone) -> Task[Any, Any]:
    """Return the task of the configuration."""
    config = plan.inputs.config
    return TASKS[config.data.task](config, backbone)


def attach_adapter(
    plan: Plan, backbone: Backbone, calibration: Calibration | None = None
) -> tuple[tuple[LoraLayer, ...], dict[str, float]]:
    """Put the method's adapter into the backbone, initialised from one named stream, the same everywhere.

    Returns:
        Its LoRA layers, and what the record should hold of the initialisation.
    """
    with torch_stream(plan.inputs.config.seed, "adapter"):
        facts = plan.method.attach(backbone.model, backbone.projections, calibration)
    return plan.method.adapter.layers(backbone.model), facts


def calibration_batches(plan: Plan, model: nn.Module, task: Task[Any, Any]) -> Calibration:
    """Return the losses of the model as it stands on a few batches, drawn over all clients' training rows.

    A real federation would have its clients compute what an adapter makes of them, second moments or gradients, and
    send the sums.
    """
    config, rows = plan.inputs.config, [row for shard in plan.clients for row in shard.train]
    size = min(NUM_CALIBRATION_BATCHES * config.local.batch_size, len(rows))
    chosen = sorted(numpy_generator(config.seed, "calibration").choice(len(rows), size=size, replace=False))
    examples = task.encode([plan.inputs.rows[rows[index]] for index in chosen])

    def losses() -> Iterator[Tensor]:
        device = next(model.parameters()).device
        for start in range(0, len(examples), config.local.batch_size):
            yield task.loss(model, task.collate(examples[start : start + config.local.batch_size]).to(device))

    return losses


def make_evaluator(inputs: Inputs, fabric: Fabric, model: nn.Module, task: Task[Any, Any]) -> Evaluator:
    """Return what scores the model on the sets that `eval.on` names, each cut down to `eval.max_examples`."""
    config = inputs.config

    def batches(rows: Sequence[Row], client_id: int = -1) -> list[list[Any]]:
        examples = task.evaluation_examples(rows)
        chosen = fixed_subset(examples, config.eval.max_examples, config.seed, client_id)
        return task.evaluation_batches(chosen, config.eval.batch_size)

    own: dict[int, list[list[Any]]] = {}
    if config.eval.on != "global":
        own = {
            shard.client_id: batches([inputs.rows[row] for row in shard.test], shard.client_id)
            for shard in inputs.shards
            if shard.test
        }
    return Evaluator(
        fabric=fabric,
        model=model,
        task=task,
        batches=batches(inputs.test_rows) if config.eval.on != "clients" else [],
        own_batches=own,
    )


def assemble(plan: Plan, fabric: Fabric) -> tuple[Federation, RunSummary]:
    """Load the backbone and return the federation of this process, ready to resume and run, and what to tell of it."""
    inputs, config, method = plan.inputs, plan.inputs.config, plan.method
    wanted = purpose(plan)
    backbone = load_backbone(config.model, wanted)
    task = make_task(plan, backbone)
    layers, facts = attach_adapter(plan, backbone, calibration_batches(plan, backbone.model, task))
    rows = [[inputs.rows[row] for row in shard.train] for shard in plan.clients]
    exchange = Exchange(
        config=config, method=method, model=backbone.model, layers=layers, num_examples=[len(part) for part in rows]
    )
    module = ClientModule(backbone.model, task, method)
    module.configure_optimizers()  # its mistakes are told before the first evaluation
    fabric.setup_module(module)  # moves it to the device; the strategy leaves it unwrapped
    federation = Federation(
        config=config,
        exchange=exchange,
        cohort_size=plan.cohort_size,
        trainer=LocalTrainer(
            fabric=fabric,
            module=module,
            method=method,
            local=config.local,
            seed=config.seed,
            num_step_multiples=plan.num_step_multiples,
        ),
        evaluator=make_evaluator(inputs, fabric, backbone.model, task),
        rows=rows,
        initial_facts=facts,
        reload=lambda: load_backbone(config.model, wanted),
    )
    uplink_bytes, downlink_bytes = exchange.first_traffic(plan.cohort_size, federation.server)
    parameters = {name: parameter.data for name, parameter in module.trained.items()}
    num_trainable = num_parameters(parameters)
    summary = RunSummary(
        config=config,
        folder=federation.folder.path,
        device=str(fabric.device),
        num_processes=communication.num_processes(),
        cohort_size=plan.cohort_size,
        num_trainable=num_trainable,
        num_shared=num_parameters(method.shared(backbone.model)),
        num_private=num_parameters(method.private(backbone.model)),
        uplink_bytes=uplink_bytes,
        downlink_bytes=downlink_bytes,
        num_frozen=backbone.model.num_parameters() - num_trainable,  # type: ignore[operator]  # 4-bit weights are packed
        num_train_examples=tuple(map(len, federation.rows)),
        num_test_examples=len(inputs.test_rows),
        num_evaluated=federation.evaluator.num_examples,
        num_truncated=federation.evaluator.num_truncated,
        classes=inputs.classes,
    )
    return federation, summary
