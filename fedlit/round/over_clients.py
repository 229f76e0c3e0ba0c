"""Clients' scores in a record: each one's, and what they are together."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

Scores = dict[str, Any]
"""Score names and values: floats, or lists of them for a confusion matrix."""


def over_clients(scores: Collection[Scores], *, lowest_is_worst: Callable[[str], bool] | None = None) -> Scores:
    """Return the mean over clients of every score that is a number, and its standard deviation under `<name>_std`.

    lowest_is_worst: says of a score which end is the bad one; its value for the worst client is then `<name>_worst`.
    A score that some clients lack, of a group of rows say, is the mean over the others.
    """
    result: Scores = {}
    names = dict.fromkeys(name for score in scores for name, value in score.items() if isinstance(value, float))
    for name in names:
        values = [score[name] for score in scores if name in score]
        mean = sum(values) / len(values)
        result[name] = mean
        result[f"{name}_std"] = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
        if lowest_is_worst is not None:
            result[f"{name}_worst"] = min(values) if lowest_is_worst(name) else max(values)
    return result


def prefixed(prefix: str, by_client: Mapping[int, Scores]) -> Scores:
    """Return clients' scores under keys that begin with `prefix`, a format string over the client's id."""
    return {
        f"{prefix.format(client_id)}/{name}": value
        for client_id, scores in by_client.items()
        for name, value in scores.items()
    }
