"""From a configuration and its rows to a federation: recipe, backbone, task, and the clients of this process."""

from dataclasses import dataclass
from functools import cached_property

from lightning.fabric import Fabric

from fedlit import communication
from fedlit.adapters import trainable
from fedlit.callbacks import RunSummary
from fedlit.client import ClientModule, LocalTrainer
from fedlit.data.shards import Shard, label_counts
from fedlit.evaluation import Evaluator, fixed_subset
from fedlit.federation import Federation
from fedlit.inputs import Inputs
from fedlit.methods import Method, build_method
from fedlit.models import Backbone, load_backbone
from fedlit.run_folder import RunFolder
from fedlit.seeding import torch_stream
from fedlit.tasks.causal_lm import CausalLM
from fedlit.tensors import num_parameters


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
        UserError: an unknown recipe, part or option.
    """
    return Plan(inputs=inputs, method=build_method(inputs.config.method, inputs.config.local))


def attach_adapter(plan: Plan, *, weights: bool = True) -> Backbone:
    """Return the backbone with the method's adapter, initialised from one named stream, the same everywhere."""
    config = plan.inputs.config
    backbone = load_backbone(config.model, weights=weights)
    with torch_stream(config.seed, "adapter"):
        plan.method.adapter.attach(backbone.model, backbone.projections)
    return backbone


def assemble(plan: Plan, fabric: Fabric) -> tuple[Federation, RunSummary]:
    """Load the backbone and return the federation of this process, ready to resume and run, and what to tell of it."""
    inputs, config, method = plan.inputs, plan.inputs.config, plan.method
    backbone = attach_adapter(plan)
    task = CausalLM(
        tokenizer=backbone.tokenizer,
        data=config.data,
        eval=config.eval,
        max_length_tokens=config.model.max_length_tokens,
        loss_on=config.local.loss_on,
    )
    module = ClientModule(backbone.model, task, method)
    fabric.setup_module(module)  # moves it to the device; the strategy leaves it unwrapped
    test_rows = [inputs.rows[row] for shard in inputs.shards for row in shard.test]
    evaluated = fixed_subset(task.encode(test_rows), config.eval.max_examples, config.seed)
    folder = RunFolder(config)
    federation = Federation(
        config=config,
        method=method,
        cohort_size=plan.cohort_size,
        trainer=LocalTrainer(
            fabric=fabric,
            module=module,
            method=method,
            local=config.local,
            seed=config.seed,
            num_step_multiples=plan.num_step_multiples,
        ),
        evaluator=Evaluator(
            fabric=fabric,
            model=backbone.model,
            task=task,
            batches=task.evaluation_batches(evaluated, config.eval.batch_size),
        ),
        rows=[[inputs.rows[row] for row in shard.train] for shard in plan.clients],
        folder=folder,
    )
    parameters = {name: parameter.data for name, parameter in trainable(backbone.model).items()}
    num_trainable = num_parameters(parameters)
    summary = RunSummary(
        config=config,
        folder=folder.path,
        device=str(fabric.device),
        num_processes=communication.num_processes(),
        cohort_size=plan.cohort_size,
        num_trainable=num_trainable,
        num_shared=num_parameters(method.shared(backbone.model)),
        num_private=num_parameters(method.private(backbone.model)),
        num_frozen=sum(parameter.numel() for parameter in backbone.model.parameters()) - num_trainable,
        num_train_examples=tuple(map(len, federation.rows)),
        num_test_examples=len(test_rows),
        num_evaluated=len(evaluated),
        label_counts=label_counts(inputs.rows, inputs.shards, config.data.label),
    )
    return federation, summary
