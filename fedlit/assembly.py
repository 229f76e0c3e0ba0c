"""From a configuration to a federation: rows, shards, recipe, backbone, in the order that finds mistakes cheaply."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lightning.fabric import Fabric

from fedlit import communication
from fedlit.adapters import trainable
from fedlit.callbacks import RunSummary
from fedlit.client import ClientModule, LocalTrainer
from fedlit.config import RunConfig
from fedlit.data.collation import Example
from fedlit.data.prompts import Row
from fedlit.data.shards import Shard, label_counts, make_shards
from fedlit.data.sources import load_rows
from fedlit.evaluation import Evaluator, fixed_subset
from fedlit.federation import Federation
from fedlit.methods import Method, build_method
from fedlit.models import Backbone, load_backbone
from fedlit.run_folder import RunFolder
from fedlit.seeding import torch_stream
from fedlit.tasks import Task
from fedlit.tasks.causal_lm import CausalLM
from fedlit.tensors import num_parameters


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is known without a model: rows, who holds them, and the method."""

    config: RunConfig
    rows: list[Row]
    shards: list[Shard]
    method: Method

    @cached_property
    def clients(self) -> list[Shard]:
        """The shards that train: one a client, or a single one with everybody's rows."""
        if not self.method.pooled:
            return self.shards
        train = tuple(row for shard in self.shards for row in shard.train)
        test = tuple(row for shard in self.shards for row in shard.test)
        return [Shard(client_id=0, train=train, test=test)]

    @property
    def cohort_size(self) -> int:
        """Clients of one round."""
        return 1 if self.method.pooled else self.config.cohort_size or self.config.num_clients

    @property
    def num_step_multiples(self) -> int:
        """How many clients' steps one client takes."""
        return (self.config.cohort_size or self.config.num_clients) if self.method.pooled else 1


def gather_inputs(config: RunConfig) -> Inputs:
    """Read and deal the rows and build the method; every mistake in them is a UserError, and no model is loaded."""
    method = build_method(config.method, config.local)
    RunFolder(config).require_same_run()
    rows = load_rows(config.data, config.seed)
    shards = make_shards(rows, config.data, config.partition, config.num_clients, config.seed)
    return Inputs(config=config, rows=rows, shards=shards, method=method)


class ShardExamples(Mapping[int, Sequence[Example]]):
    """The training examples of each client, tokenised when this process first needs them."""

    def __init__(self, task: Task, rows: Sequence[Row], shards: Sequence[Shard]) -> None:
        self._task = task
        self._rows = rows
        self._shards = {shard.client_id: shard for shard in shards}
        self._encoded: dict[int, list[Example]] = {}

    def __getitem__(self, client_id: int) -> Sequence[Example]:
        if client_id not in self._encoded:
            self._encoded[client_id] = self._task.encode([self._rows[row] for row in self._shards[client_id].train])
        return self._encoded[client_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self._shards)

    def __len__(self) -> int:
        return len(self._shards)


def attach_adapter(inputs: Inputs, *, weights: bool = True) -> Backbone:
    """Return the backbone with the method's adapter, initialised from one named stream, the same everywhere."""
    backbone = load_backbone(inputs.config.model, weights=weights)
    with torch_stream(inputs.config.seed, "adapter"):
        inputs.method.adapter.attach(backbone.model, backbone.projections)
    return backbone


def assemble(inputs: Inputs, fabric: Fabric) -> tuple[Federation, RunSummary]:
    """Load the backbone and return the federation of this process, ready to resume and run, and what to tell of it."""
    config, method = inputs.config, inputs.method
    backbone = attach_adapter(inputs)
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
        cohort_size=inputs.cohort_size,
        trainer=LocalTrainer(
            fabric=fabric,
            module=module,
            method=method,
            local=config.local,
            seed=config.seed,
            num_step_multiples=inputs.num_step_multiples,
        ),
        evaluator=Evaluator(
            fabric=fabric,
            model=backbone.model,
            task=task,
            batches=task.evaluation_batches(evaluated, config.eval.batch_size),
        ),
        num_examples=[shard.num_examples for shard in inputs.clients],
        examples=ShardExamples(task, inputs.rows, inputs.clients),
        folder=folder,
    )
    parameters = {name: parameter.data for name, parameter in trainable(backbone.model).items()}
    num_trainable = num_parameters(parameters)
    summary = RunSummary(
        config=config,
        folder=folder.path,
        device=str(fabric.device),
        num_processes=communication.num_processes(),
        cohort_size=inputs.cohort_size,
        num_trainable=num_trainable,
        num_shared=num_parameters(method.shared(backbone.model)),
        num_private=num_parameters(method.private(backbone.model)),
        num_frozen=sum(parameter.numel() for parameter in backbone.model.parameters()) - num_trainable,
        num_train_examples=tuple(federation.num_examples),
        num_test_examples=len(test_rows),
        num_evaluated=len(evaluated),
        label_counts=label_counts(inputs.rows, inputs.shards, config.data.label),
    )
    return federation, summary
