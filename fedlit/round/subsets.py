"""Which examples of a set are scored, and which clients: fixed random subsets, the same in every round and process."""

from collections.abc import Collection, Sequence
from typing import TypeVar

from fedlit.seeding import numpy_generator

T = TypeVar("T")

VALIDATION_STREAM = "evaluation_of_validation"
"""The stream by which `fixed_subset` cuts down a validation set."""


def fixed_subset(
    examples: Sequence[T], max_examples: int | None, seed: int, client_id: int = -1, purpose: str = "evaluation"
) -> list[T]:
    """Return a random subset of at most `max_examples`, the same in every round and in every process, in the given
    order; of a client's own part, its `client_id` is part of the stream's name, and a validation set has another
    `purpose`.
    """
    if max_examples is None or max_examples >= len(examples):
        return list(examples)
    rng = numpy_generator(seed, purpose, client_id=client_id)
    chosen = rng.choice(len(examples), size=max_examples, replace=False)
    return [examples[row] for row in sorted(chosen)]


def sampled_clients(clients: Collection[int], max_clients: int | None, seed: int) -> tuple[int, ...]:
    """Return a random sample of at most `max_clients`, the same in every round and in every process, in their order."""
    ordered = sorted(clients)
    if max_clients is None or max_clients >= len(ordered):
        return tuple(ordered)
    chosen = numpy_generator(seed, "evaluated_clients").choice(len(ordered), size=max_clients, replace=False)
    return tuple(ordered[place] for place in sorted(chosen.tolist()))
