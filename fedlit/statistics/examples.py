"""The error of a score from the test examples it was taken on, which says nothing about other draws or seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class ExampleError:
    """A mean over examples and its standard error, s / sqrt(n), in the unit of the scores; None for one example."""

    mean: float
    std_error: float | None
    num_examples: int


def over_examples(scores: Sequence[float]) -> ExampleError:
    """Return mean and standard error of the scores of single examples, each counted once.

    Raises:
        ValueError: there is no score, or one is not finite.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("scores of examples are one or more finite numbers")
    std_error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return ExampleError(mean=float(np.mean(values)), std_error=std_error, num_examples=len(values))


def paired_over_examples(first: Mapping[str, float], second: Mapping[str, float]) -> ExampleError | None:
    """Return mean and standard error of `first - second` over the examples that both have, by row id; None without one.

    Raises:
        ValueError: a score is not finite.
    """
    both = first.keys() & second.keys()
    return over_examples([first[row_id] - second[row_id] for row_id in both]) if both else None
