"""The tasks by their names in `data.task`: those of the house, and those that others register."""

from dataclasses import replace

from fedlit.errors import UserError
from fedlit.registry import origin, register, registered
from fedlit.tasks.causal_lm.spec import CausalLMSpec
from fedlit.tasks.image_classification.spec import ImageClassificationSpec
from fedlit.tasks.sequence_classification.spec import SequenceClassificationSpec
from fedlit.tasks.spec import TaskSpec

_SPECS: dict[str, TaskSpec] = {
    spec.name: spec for spec in (CausalLMSpec(), SequenceClassificationSpec(), ImageClassificationSpec())
}


def register_task(spec: TaskSpec) -> None:
    """Make a task known under its name, in every process and before its configuration is read.

    Raises:
        UserError: the name is taken, or the task's own scores are not among those it has.
    """
    if spec.name in _SPECS or spec.name in registered("task"):
        raise UserError(f"data.task={spec.name} is registered already; give the task another name")
    _require_scores(spec)
    register("task", spec.name, spec)


def _require_scores(spec: TaskSpec) -> None:
    unknown = [score for score in (*spec.default_scores, *spec.number_scores) if score not in spec.scores]
    if unknown or not spec.default_scores:
        shown = f"names {unknown[0]}" if unknown else "is empty"
        raise UserError(
            f"data.task={spec.name}: default_scores {shown}; give some of its scores: {', '.join(spec.scores)}"
        )


def task_names() -> tuple[str, ...]:
    """Return the values that `data.task` may have."""
    return (*_SPECS, *registered("task"))


def task_spec(name: str) -> TaskSpec:
    """Return the task of a `data.task`.

    Raises:
        UserError: there is none of that name.
    """
    if name in registered("task"):
        return _with_scores(_from_outside(name))
    if name not in _SPECS:
        raise UserError(
            f"data.task={name} is no task; choose one of {', '.join(task_names())}, or make it known with register_task"
        )
    return _with_scores(_SPECS[name])


def _from_outside(name: str) -> TaskSpec:
    spec: TaskSpec = registered("task")[name]
    _require_scores(spec)
    if spec.name != name:
        raise UserError(
            f"data.task={name} ({origin('task', name).place}) calls itself {spec.name}; register it under that name"
        )
    return spec


def _with_scores(spec: TaskSpec) -> TaskSpec:
    """Return a task with the scores from outside that are for it."""
    more = {name: part for name, part in registered("score").items() if spec.name in part.tasks}
    if not more:
        return spec
    of_numbers = tuple(name for name, part in more.items() if part.of_numbers)
    numbers = (*spec.number_scores, *of_numbers) if spec.number_scores else ()
    return replace(spec, scores=(*spec.scores, *more), number_scores=numbers)
