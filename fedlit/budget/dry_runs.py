"""Dry runs of many configurations: the rows of each data set and draw are read once, its test set is encoded once."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from fedlit.adapters import trainable
from fedlit.budget.storage import Storage, storage_of
from fedlit.budget.work import TestSet, Work, test_set, work_of
from fedlit.config import RunConfig
from fedlit.inputs import Inputs, gather_inputs
from fedlit.models.notices import without_progress_bars
from fedlit.planning import make_plan, make_task
from fedlit.sizing import Sizes, measure


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRun:
    """What one run takes. cohort_size: clients of a round."""

    config: RunConfig
    sizes: Sizes
    work: Work
    storage: Storage
    cohort_size: int


@dataclass(kw_only=True)
class DryRuns:
    """Makes dry runs and keeps what they have in common."""

    _inputs: dict[str, Inputs] = field(default_factory=dict)
    _tests: dict[str, TestSet] = field(default_factory=dict)
    _works: dict[str, Work] = field(default_factory=dict)

    def of(self, config: RunConfig) -> DryRun:
        """Return what a run takes.

        Raises:
            UserError: what its data, method or model would end the run with.
        """
        without_progress_bars()
        inputs = self._inputs_of(config)
        plan = make_plan(replace(inputs, config=config))
        backbone = plan.backbone(weights=False)
        sizes = measure(plan, backbone)
        read = repr((_reads(config), config.model))
        if read not in self._tests:
            self._tests[read] = test_set(plan, make_task(plan, backbone))
        # Methods whose models are alike in every layer compute the same: FedIT, FlexLoRA, FLoRA and others.
        trains = plan.method.adapter.turn(frozenset(trainable(backbone.model)), 0)
        alike = repr(
            (
                read,
                (config.local, config.num_rounds, plan.cohort_size, plan.num_step_multiples, len(plan.clients)),
                bool(plan.method.private(backbone.model)),
                _layers(backbone.model, trains),
            )
        )
        if alike not in self._works:
            self._works[alike] = work_of(plan, backbone, trains, self._tests[read])
        work = self._works[alike]
        storage = storage_of(
            plan,
            sizes,
            work,
            num_tokens=_num_tokens(backbone.tokenizer),
            num_layers=len(plan.method.adapter.layers(backbone.model)),
        )
        return DryRun(config=config, sizes=sizes, work=work, storage=storage, cohort_size=plan.cohort_size)

    def _inputs_of(self, config: RunConfig) -> Inputs:
        key = _reads(config)
        if key not in self._inputs:
            self._inputs[key] = gather_inputs(config)
        return self._inputs[key]


def _reads(config: RunConfig) -> str:
    """Return what it depends on which rows a run has, and which client has them."""
    return repr((config.data, config.partition, config.seed, config.num_clients, config.privacy, config.eval))


def _layers(model: nn.Module, trains: frozenset[str]) -> str:
    """Return a checksum of a model's layers, of the shapes of its parameters and of which of them train."""
    content = [
        [(name, type(module).__qualname__) for name, module in model.named_modules()],
        [(name, tuple(each.shape), name in trains) for name, each in model.named_parameters()],
    ]
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _num_tokens(tokenizer: Any) -> int:
    return 0 if tokenizer is None else len(tokenizer)
