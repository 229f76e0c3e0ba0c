"""How much a run computes, from its rows and its model without weights: local training, and every evaluation.

The rows of a client's first steps are encoded, and a batch of the mean width is sent through the model on the meta
device; so is one of the evaluation. What is not known before a run is taken at its most: every answer is as long as
`eval.max_new_tokens` has it, every round is run and scored, patience or not. What the rule computes between rounds, and
what scores of texts cost beside the model, is not counted.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fedlit.budget.passes import META, Cost, scoring_pass, training_pass
from fedlit.client.row_order import steps_of_epochs, training_order
from fedlit.client.together.groups import groups_of
from fedlit.config import RunConfig
from fedlit.models import Backbone
from fedlit.partition.shards import draw_seed
from fedlit.planning import Plan, make_task
from fedlit.round.subsets import fixed_subset, sampled_clients
from fedlit.tasks import Task
from fedlit.tasks.registry import task_spec

CLIENTS_LOOKED_AT = 8
STEPS_LOOKED_AT = 32
"""Of all of them, the first of each one's first round."""
EXAMPLES_ENCODED = 4096
"""Rows of a larger test set are told by those of its beginning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What one run computes from its first round to its last.

    num_steps: optimizer steps of all clients. train, evaluate: of the whole run on one process. train_units,
    evaluate_units: what processes share: groups of clients of a round, batches of an evaluation.
    """

    num_rounds: int
    num_steps: int
    train: Cost
    evaluate: Cost
    train_units: int
    evaluate_units: int

    @property
    def flops(self) -> float:
        """Floating point operations of training and evaluation."""
        return self.train.flops + self.evaluate.flops


def share(units: int, num_processes: int) -> float:
    """Return the part of some work that the busiest of the processes has."""
    return math.ceil(units / num_processes) / units if units else 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TestSet:
    """The examples of an evaluation. tokens: of a padded batch's row in the mean; 1 of an image.

    batch: the one whose row is nearest to it. candidates: answers of an example that are looked at.
    """

    num_examples: int
    num_rows: int
    tokens: float
    batch: Sequence[Any]
    candidates: float


def work_of(plan: Plan, backbone: Backbone, trains: frozenset[str], tests: TestSet | None = None) -> Work:
    """Return the work of a run.

    Args:
        plan: the run.
        backbone: without weights, with the method's adapter in it.
        trains: names of the parameters that train in the first round.
        tests: what `test_set` gives, where it is known.
    """
    config, task = plan.inputs.config, make_task(plan, backbone)
    tests = tests or test_set(plan, task)
    has_private = bool(plan.method.private(backbone.model))
    groups = groups_of(range(plan.cohort_size), config.local.clients_per_batch, at_home=False)
    num_batches = math.ceil(_global_examples(config, tests) / config.eval.batch_size)
    train, num_steps = _training(plan, task, backbone.model, trains)
    return Work(
        num_rounds=config.num_rounds,
        num_steps=num_steps,
        train=train,
        evaluate=_evaluation(plan, task, backbone.model, tests, has_private=has_private),
        train_units=len(groups),
        evaluate_units=plan.cohort_size if has_private else max(num_batches, 1),
    )


def _training(plan: Plan, task: Task[Any, Any], model: nn.Module, trains: frozenset[str]) -> tuple[Cost, int]:
    """Return the work of all clients in all rounds, and the number of their optimizer steps."""
    config, sizes = plan.inputs.config, [shard.num_examples for shard in plan.clients]
    local, times = config.local, config.num_rounds * plan.cohort_size
    if local.epochs is not None:
        steps = statistics.fmean(
            steps_of_epochs(size, local.batch_size * local.accumulate, local.epochs) for size in sizes
        )
        rows = local.epochs * statistics.fmean(sizes)
        passes = statistics.fmean(math.ceil(size / local.batch_size) * local.epochs for size in sizes)
    else:
        assert local.steps is not None
        steps = local.steps * plan.num_step_multiples
        passes = steps * local.accumulate
        rows = passes * statistics.fmean(min(local.batch_size, size) for size in sizes)
    examples, tokens = _training_batch(plan, task)
    batch = task.collate(examples).to(META)
    cost = training_pass(model, lambda: task.loss(model, batch), trains)
    # A row of the whole run against one of the batch that was counted.
    wider = rows / passes * tokens / (len(examples) * _width(examples))
    whole = cost.times(passes * times, wider=wider)
    together = min(local.clients_per_batch, plan.cohort_size)
    return Cost(flops=whole.flops, operations=whole.operations / together), round(steps * times)


def _training_batch(plan: Plan, task: Task[Any, Any]) -> tuple[list[Any], float]:
    """Return the batch whose row is nearest to the mean one, and the tokens of that, padding included."""
    config, clients = plan.inputs.config, plan.clients
    size, stride = config.local.batch_size, max(len(clients) // CLIENTS_LOOKED_AT, 1)
    looked_at = clients[::stride][:CLIENTS_LOOKED_AT]
    number = STEPS_LOOKED_AT // len(looked_at)
    batches: list[list[Any]] = []
    for shard in looked_at:
        steps = training_order(shard.num_examples, size, config.seed, shard.client_id, skip=0, num_steps=number)
        rows = [[plan.inputs.rows[shard.train[place]] for place in step] for step in steps]
        if not _is_text(plan):
            return task.encode(rows[0]), 1.0
        batches += [task.encode(step) for step in rows]
    return _nearest(batches)


def test_set(plan: Plan, task: Task[Any, Any]) -> TestSet:
    """Return the examples on which a run is scored, as the run makes them of its test rows."""
    config, rows = plan.inputs.config, plan.inputs.test_rows
    size = config.eval.batch_size
    if not _is_text(plan):
        number = min(len(rows), config.eval.max_examples or len(rows))
        batch = task.evaluation_examples([rows[place] for place in range(min(size, number))])
        return TestSet(num_examples=number, num_rows=len(rows), tokens=1.0, batch=batch, candidates=1.0)
    encoded = [rows[place] for place in range(min(len(rows), EXAMPLES_ENCODED))]
    examples = task.evaluation_examples(encoded)
    number = round(len(examples) * len(rows) / len(encoded))
    chosen = fixed_subset(examples, config.eval.max_examples, draw_seed(config))
    batch, tokens = _nearest(task.evaluation_batches(chosen, size))
    return TestSet(
        num_examples=min(number, config.eval.max_examples or number),
        num_rows=len(rows),
        tokens=tokens,
        batch=batch,
        candidates=statistics.fmean(max(len(getattr(each, "candidates", ())), 1) for each in chosen),
    )


def _evaluation(plan: Plan, task: Task[Any, Any], model: nn.Module, tests: TestSet, *, has_private: bool) -> Cost:
    """Return the work of all evaluations: those of the test set, and those of the validation set."""
    config, rounds = plan.inputs.config, plan.inputs.config.num_rounds
    scored = rounds // config.eval.every + bool(rounds % config.eval.every)
    population = range(len(plan.clients))
    of_clients = len(sampled_clients(population, config.eval.max_clients, draw_seed(config)))
    times = 1 + scored * (of_clients if has_private else 1)  # the untrained model is one, whoever has it
    whole = own = 0
    if config.eval.on != "clients":
        whole = _global_examples(config, tests)
    if config.eval.on != "global":
        largest = config.eval.max_examples or tests.num_rows
        own = sum(min(len(shard.test), largest) for shard in plan.clients[:of_clients])
    validation = min(len(plan.inputs.validation_rows), config.eval.max_examples or len(plan.inputs.validation_rows))
    num_examples = (whole + validation) * times + own * (1 + scored)
    if not tests.batch:
        return Cost()
    size = config.eval.batch_size
    passes = num_examples / size if num_examples >= size else math.ceil(num_examples / size)
    wider = min(size, max(whole, own, 1)) * tests.tokens / (len(tests.batch) * _width(tests.batch))
    return _of_one_batch(plan, task, model, tests).times(passes, wider=wider)


def _global_examples(config: RunConfig, tests: TestSet) -> int:
    return 0 if config.eval.on == "clients" else tests.num_examples


def _of_one_batch(plan: Plan, task: Task[Any, Any], model: nn.Module, tests: TestSet) -> Cost:
    """Return the work of one batch of the test set: its loss, and what is generated."""
    evaluation, batch = plan.inputs.config.eval, task.collate(tests.batch).to(META)
    cost = scoring_pass(model, lambda: task.loss(model, batch))
    protocol = getattr(task, "protocol", None)
    if protocol == "options":
        return cost.times(1, wider=tests.candidates)
    if protocol != "generate":
        return cost
    # The prompt is read by a pass like the loss's, of fewer tokens; then each answer's tokens come one by one.
    prompt = max(each.num_prompt_tokens for each in tests.batch) / _width(tests.batch)
    tokens = torch.zeros((len(tests.batch) * evaluation.num_beams, 1), dtype=torch.int64, device=META)
    token = scoring_pass(model, lambda: model(input_ids=tokens, use_cache=False))
    return cost + cost.times(1, wider=prompt) + token.times(evaluation.max_new_tokens - 1)


def _is_text(plan: Plan) -> bool:
    return task_spec(plan.inputs.config.data.task).reads_text


def _nearest(batches: Sequence[Sequence[Any]]) -> tuple[list[Any], float]:
    """Return the full batch whose width is nearest to the mean over rows, and that mean; nothing of no batch."""
    if not batches:
        return [], 1.0
    rows = sum(map(len, batches))
    mean = sum(len(batch) * _width(batch) for batch in batches) / rows
    most = max(map(len, batches))
    full = [batch for batch in batches if len(batch) == most]
    return [*min(full, key=lambda batch: abs(_width(batch) - mean))], mean


def _width(batch: Sequence[Any]) -> int:
    """Return the tokens of the longest row; 1 of images, which are all alike."""
    return max((example.num_tokens or 1 for example in batch), default=1)
