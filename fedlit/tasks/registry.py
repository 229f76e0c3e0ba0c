"""The tasks by their names in `data.task`: those of the house, and those that others register."""

from fedlit.errors import UserError
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
    if spec.name in _SPECS:
        raise UserError(f"data.task={spec.name} is registered already; give the task another name")
    unknown = [score for score in (*spec.default_scores, *spec.number_scores) if score not in spec.scores]
    if unknown or not spec.default_scores:
        shown = f"names {unknown[0]}" if unknown else "is empty"
        raise UserError(
            f"data.task={spec.name}: default_scores {shown}; give some of its scores: {', '.join(spec.scores)}"
        )
    _SPECS[spec.name] = spec


def task_names() -> tuple[str, ...]:
    """Return the values that `data.task` may have."""
    return tuple(_SPECS)


def task_spec(name: str) -> TaskSpec:
    """Return the task of a `data.task`.

    Raises:
        UserError: there is none of that name.
    """
    if name not in _SPECS:
        raise UserError(
            f"data.task={name} is no task; choose one of {', '.join(_SPECS)}, or make it known with register_task"
        )
    return _SPECS[name]
