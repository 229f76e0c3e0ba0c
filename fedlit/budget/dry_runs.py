"""Dry runs of many configurations: the rows of each data set and draw are read once, its test set is encoded once."""

from dataclasses import dataclass, field, replace
from typing import Any

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

    def of(self, config: RunConfig) -> DryRun:
        """Return what a run takes.

        Raises:
            UserError: what its data, method or model would end the run with.
        """
        without_progress_bars()
        rows = repr((config.data, config.partition, config.seed, config.num_clients, config.privacy, config.eval))
        if rows not in self._inputs:
            self._inputs[rows] = gather_inputs(config)
        plan = make_plan(replace(self._inputs[rows], config=config))
        backbone = plan.backbone(weights=False)
        sizes = measure(plan, backbone)
        read = repr((rows, config.model))
        if read not in self._tests:
            self._tests[read] = test_set(plan, make_task(plan, backbone))
        trains = plan.method.adapter.turn(frozenset(trainable(backbone.model)), 0)
        work = work_of(plan, backbone, trains, self._tests[read])
        storage = storage_of(
            plan,
            sizes,
            work,
            num_tokens=_num_tokens(backbone.tokenizer),
            num_layers=len(plan.method.adapter.layers(backbone.model)),
        )
        return DryRun(config=config, sizes=sizes, work=work, storage=storage, cohort_size=plan.cohort_size)


def _num_tokens(tokenizer: Any) -> int:
    return 0 if tokenizer is None else len(tokenizer)
