"""Which rows of a client make up each of its steps.

All are pure functions of their arguments: a resumed client needs no iterator state, and no process changes what another
one draws.
"""

from collections.abc import Iterator

from fedlit.seeding import numpy_generator


def training_order(
    num_rows: int, batch_size: int, seed: int, client_id: int, *, skip: int, num_steps: int
) -> Iterator[list[int]]:
    """Yield the row numbers of `num_steps` batches of a client, after `skip` batches of earlier rounds.

    This is the order of `local.steps`. A client walks through permutations of its rows, one per pass, each from its own
    stream; a batch is full unless the client has fewer rows than `batch_size`, so one may span two passes.
    """
    size = min(batch_size, num_rows)
    epoch, order = -1, None
    for step in range(skip, skip + num_steps):
        rows = []
        for place in range(step * size, (step + 1) * size):
            if place // num_rows != epoch or order is None:
                epoch = place // num_rows
                order = numpy_generator(seed, f"order/{epoch}", client_id=client_id).permutation(num_rows)
            rows.append(int(order[place % num_rows]))
        yield rows


def epoch_order(
    num_rows: int, batch_size: int, seed: int, client_id: int, *, round_idx: int, num_epochs: int
) -> Iterator[list[int]]:
    """Yield the row numbers of a client's batches in one round of `num_epochs` passes, which is `local.epochs`.

    Every pass holds each row once, in a permutation of its own, and ends with a shorter batch where `batch_size` does
    not divide the number of rows, as a DataLoader's does (McMahan et al., arXiv 1602.05629, algorithm 1).
    """
    for epoch in range(num_epochs):
        stream = numpy_generator(seed, f"order/epoch/{epoch}", round_idx=round_idx, client_id=client_id)
        order: list[int] = stream.permutation(num_rows).tolist()
        for start in range(0, num_rows, batch_size):
            yield order[start : start + batch_size]


def steps_of_epochs(num_rows: int, batch_size: int, num_epochs: int) -> int:
    """Return the number of batches of `epoch_order`."""
    return num_epochs * -(-num_rows // batch_size)


def poisson_order(
    num_rows: int, batch_size: int, seed: int, client_id: int, *, round_idx: int, num_steps: int
) -> Iterator[list[int]]:
    """Yield the row numbers of each of `num_steps` steps of a client in one round: each row is in a step with
    probability q = min(1, batch_size / num_rows), by a coin of its own.

    A step may have no rows, or more than `batch_size`. This is the order under which a step's privacy is that of a
    sampled Gaussian (Abadi et al., arXiv 1607.00133); that of batches of one size is another.
    """
    rate = sampling_rate(num_rows, batch_size)
    stream = numpy_generator(seed, "order/poisson", round_idx=round_idx, client_id=client_id)
    for _ in range(num_steps):
        chosen: list[int] = (stream.random(num_rows) < rate).nonzero()[0].tolist()
        yield chosen


def sampling_rate(num_rows: int, batch_size: int) -> float:
    """Return q, the probability that a row takes part in a step of `poisson_order`."""
    return min(1.0, batch_size / num_rows)
