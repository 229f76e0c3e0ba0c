"""All that a part from outside the package needs, with one line of imports.

    # my_parts.py, beside the command or on the import path
    from dataclasses import dataclass
    from fedlit.plugins import AggregationRule, option, register

    @register("rule", "half_step")
    @dataclass(frozen=True, kw_only=True)
    class HalfStep(AggregationRule):
        step: float = option(0.5, "share of the mean that the server takes")

        def __call__(self, cohort, server): ...

    fedlit run plugins=[my_parts] method.rule=half_step method.step=0.25

A part is a dataclass, and its fields are its options: the annotation is the type, `option()` adds a line of help, a
range and valid values. FRACTION leaves out 1; a range of your own is `Range(lambda value: 0 <= value <= 1, "a number
from 0 to 1")`. Options of a mapping in the table are given together: `'data.source_options={delimiter: ";"}'`. An
installed distribution with an entry point in the group `fedlit.plugins` whose value is the module needs no `plugins=`;
its module is imported when a configuration names a part that is not known otherwise.

| kind           | chosen by              | options in            | class below       | it must have                 |
|----------------|------------------------|-----------------------|-------------------|------------------------------|
| `rule`         | `method.rule=`         | `method.`             | `AggregationRule` | `__call__`                   |
| `adapter`      | `method.adapter=`      | `method.`             | `Adapter`         | `attach`, `shared`, `merged` |
| `optimizer`    | `method.optimizer=`    | `method.`             | `LocalOptimizer`  | `build`, `num_state_scalars` |
| `transform`    | `method.transforms=[]` | `method.`             | `Transform`       | `on_client` or `on_server`   |
| `recipe`       | `method=`              | `method.`             | a `Recipe(...)`   | names of its parts           |
| `sampling`     | `cohort.sampling=`     | `cohort.options`      | `Sampling`        | `invited`                    |
| `availability` | `cohort.availability=` | `cohort.options`      | `Availability`    | `arriving`                   |
| `reader`       | `data.source=`         | `data.source_options` | `Reader`          | `rows`                       |
| `partition`    | `partition.name=`      | `partition.options`   | `Partition`       | `deal`                       |
| `score`        | `data.scores=[]`       | `data.score_options`  | `TaskScore`       | `tasks`, `metric`            |
| `logger`       | `logging.loggers=[]`   | `logging.options`     | `Callback`        | what it wants to hear        |
| `task`         | `data.task=`           |                       | a `TaskSpec(...)` | as `TaskSpec` says           |

What each method takes and returns stands in the docstring of the class. The fields `lr`, `weight_decay`, `momentum` and
`seed` of a method's part are filled from `local.` and `seed` and are no options. Every process makes its own parts, and
a run that goes on makes them anew: what a part does may depend on its arguments and named streams alone.

The scores of single test examples (`fedlit.Result.examples`) are kept of a score whose `metric()` is one of
`fedlit.metrics`, or has a class attribute `notes = None` and, where `notes` is then set, calls `notes.add("", values)`
in `update` with a number for each example. A task's `identity(example)` names its examples alike in every run. Without
either all else works.

Names are imported when they are asked for: `register`, `option`, `Recipe`, `Reader`, `Partition` and `TaskScore` come
without torch, so that a module of these alone has its mistakes told at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedlit.adapters import Adapter, Calibration
    from fedlit.adapters.dense import Dense
    from fedlit.adapters.lora import Lora
    from fedlit.algebra.lora_layer import LoraLayer
    from fedlit.algebra.tensors import TensorDict, distance
    from fedlit.client.optimizers import LocalOptimizer
    from fedlit.config.schema import DataConfig
    from fedlit.data.prompts import Row
    from fedlit.data.reader import Reader
    from fedlit.errors import UserError
    from fedlit.models.projections import Projections
    from fedlit.options import option
    from fedlit.partition.outside import Partition
    from fedlit.ranges import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, POSITIVE_COUNT, Range
    from fedlit.registry import Recipe, register
    from fedlit.round.availability.base import Availability, Draws, Window
    from fedlit.round.callback import Callback, RunSummary
    from fedlit.round.cohort import Cohort
    from fedlit.round.jobs import Correction, LocalPart, LocalRound, Start
    from fedlit.round.payload import MODEL, Payload
    from fedlit.round.plan import RoundPlan, Sampling
    from fedlit.round.rules import AggregationRule, Traffic
    from fedlit.round.rules.fedavg import FedAvg
    from fedlit.round.server import ServerState
    from fedlit.round.transforms import Transform
    from fedlit.scores import TaskScore
    from fedlit.seeding import numpy_generator, torch_stream
    from fedlit.tasks import Sample, Task
    from fedlit.tasks.registry import register_task
    from fedlit.tasks.spec import TaskSpec

_MODULES = {
    "fedlit.adapters": (
        "Adapter",
        "Calibration",
    ),
    "fedlit.adapters.dense": ("Dense",),
    "fedlit.adapters.lora": ("Lora",),
    "fedlit.algebra.lora_layer": ("LoraLayer",),
    "fedlit.algebra.tensors": (
        "TensorDict",
        "distance",
    ),
    "fedlit.client.optimizers": ("LocalOptimizer",),
    "fedlit.config.schema": ("DataConfig",),
    "fedlit.data.prompts": ("Row",),
    "fedlit.data.reader": ("Reader",),
    "fedlit.errors": ("UserError",),
    "fedlit.models.projections": ("Projections",),
    "fedlit.options": ("option",),
    "fedlit.partition.outside": ("Partition",),
    "fedlit.ranges": (
        "COUNT",
        "FRACTION",
        "NOT_NEGATIVE",
        "POSITIVE",
        "POSITIVE_COUNT",
        "Range",
    ),
    "fedlit.registry": (
        "Recipe",
        "register",
    ),
    "fedlit.round.availability.base": (
        "Availability",
        "Draws",
        "Window",
    ),
    "fedlit.round.callback": (
        "Callback",
        "RunSummary",
    ),
    "fedlit.round.cohort": ("Cohort",),
    "fedlit.round.jobs": (
        "Correction",
        "LocalPart",
        "LocalRound",
        "Start",
    ),
    "fedlit.round.payload": (
        "MODEL",
        "Payload",
    ),
    "fedlit.round.plan": (
        "RoundPlan",
        "Sampling",
    ),
    "fedlit.round.rules": (
        "AggregationRule",
        "Traffic",
    ),
    "fedlit.round.rules.fedavg": ("FedAvg",),
    "fedlit.round.server": ("ServerState",),
    "fedlit.round.transforms": ("Transform",),
    "fedlit.scores": ("TaskScore",),
    "fedlit.seeding": (
        "numpy_generator",
        "torch_stream",
    ),
    "fedlit.tasks": (
        "Sample",
        "Task",
    ),
    "fedlit.tasks.registry": ("register_task",),
    "fedlit.tasks.spec": ("TaskSpec",),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "COUNT",
    "FRACTION",
    "MODEL",
    "NOT_NEGATIVE",
    "POSITIVE",
    "POSITIVE_COUNT",
    "Adapter",
    "AggregationRule",
    "Availability",
    "Calibration",
    "Callback",
    "Cohort",
    "Correction",
    "DataConfig",
    "Dense",
    "Draws",
    "FedAvg",
    "LocalOptimizer",
    "LocalPart",
    "LocalRound",
    "Lora",
    "LoraLayer",
    "Partition",
    "Payload",
    "Projections",
    "Range",
    "Reader",
    "Recipe",
    "RoundPlan",
    "Row",
    "RunSummary",
    "Sample",
    "Sampling",
    "ServerState",
    "Start",
    "Task",
    "TaskScore",
    "TaskSpec",
    "TensorDict",
    "Traffic",
    "Transform",
    "UserError",
    "Window",
    "distance",
    "numpy_generator",
    "option",
    "register",
    "register_task",
    "torch_stream",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    """Return the names that there are."""
    return sorted(__all__)
