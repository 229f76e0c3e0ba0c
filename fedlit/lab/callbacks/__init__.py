"""What watches a federation: the console, pictures, and the loggers of every round's numbers."""

from collections.abc import Sequence
from typing import Any

from fedlit.lab.analysis.costs import cumulative_costs
from fedlit.round.callback import Callback, RunSummary, Stop
from fedlit.tasks.registry import task_spec

__all__ = ["Callback", "RunSummary", "Stop", "numbers"]


def numbers(records: Sequence[dict[str, Any]], task: str) -> dict[str, float]:
    """Return what a logger draws of the last of a run's records: its numbers and what the run has cost up to it.

    task: `data.task`; the untrained model's record cannot tell whether there are tokens to count.
    """
    scalars = {key: value for key, value in records[-1].items() if isinstance(value, int | float)}
    costs = cumulative_costs(records)[-1]
    if not task_spec(task).counts_tokens:
        costs.pop("cost/tokens", None)
    return {**scalars, **costs}
