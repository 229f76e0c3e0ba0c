"""How row numbers are dealt to clients: equal-size Dirichlet, iid, or whole values of a column.

Equal-size Dirichlet: T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the Effects of Non-Identical Data Distribution for
Federated Visual Classification", arXiv 1909.06335: a client's label distribution is q ~ Dir(alpha * prior) with the
global label frequencies as prior. Rows are drawn without replacement and clients take turns, in a new order each time;
a label that is used up leaves every client's q, which is renormalised. All clients get floor(N / K) rows, and N mod K
rows are left over.

Differs from the usual programs in that q is kept as logarithms: with a small alpha, q itself underflows to a single 1
or to 0 / 0, and the client would have nowhere to go once its label is used up. In logarithms the renormalised rest of q
is right for any alpha that is positive and finite.

Legend: N rows, K clients, C labels.
"""

import bisect
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedlit.errors import UserError

_MIN_SHAPE = 1e-300  # 1 / shape must stay finite


def dirichlet(labels: Sequence[str], num_clients: int, alpha: float, rng: np.random.Generator) -> list[list[int]]:
    """Return K ascending lists of floor(N / K) row numbers; a small alpha skews the labels, a large one evens them.

    Raises:
        UserError: more clients than rows, alpha not positive and finite, or a single label.
    """
    _check_num_clients(num_clients, len(labels))
    if not (alpha > 0 and math.isfinite(alpha)):
        raise UserError(f"partition.alpha={alpha}: not a positive finite number; 0.1 is skewed, 100 is nearly alike")
    names = sorted(set(labels))
    if len(names) < 2:
        raise UserError(
            f"partition.name=dirichlet: the label is {names[0]!r} in all rows, there is nothing to skew; "
            "choose another data.label or partition.name=iid"
        )
    number_of = {name: number for number, name in enumerate(names)}
    label_numbers = np.array([number_of[label] for label in labels])
    pools = [rng.permutation(np.flatnonzero(label_numbers == number)).tolist() for number in range(len(names))]
    prior = np.array([len(pool) for pool in pools]) / len(labels)
    log_q = _log_dirichlet(alpha * prior, num_clients, rng)
    cdf = _cdf(log_q)
    shards: list[list[int]] = [[] for _ in range(num_clients)]
    for _ in range(len(labels) // num_clients):
        draws = rng.random(num_clients).tolist()
        for client_id in rng.permutation(num_clients).tolist():
            number = bisect.bisect_right(cdf[client_id], draws[client_id])
            shards[client_id].append(pools[number].pop())
            if not pools[number]:
                log_q[:, number] = -np.inf
                cdf = _cdf(log_q)
    return [sorted(shard) for shard in shards]


def iid(num_rows: int, num_clients: int, rng: np.random.Generator) -> list[list[int]]:
    """Return K ascending lists of floor(N / K) row numbers drawn at random without replacement.

    Raises:
        UserError: more clients than rows.
    """
    _check_num_clients(num_clients, num_rows)
    size = num_rows // num_clients
    order = rng.permutation(num_rows)
    return [sorted(order[k * size : (k + 1) * size].tolist()) for k in range(num_clients)]


def natural(values: Sequence[str], num_clients: int) -> list[list[int]]:
    """Return K ascending lists of row numbers: whole values, largest first, each to the client with the fewest rows.

    No randomness: ties go to the value that sorts first and to the lowest client. Every client gets one value or more.

    Raises:
        UserError: more clients than values.
    """
    members: dict[str, list[int]] = {}
    for i, value in enumerate(values):
        members.setdefault(value, []).append(i)
    if num_clients > len(members):
        raise UserError(
            f"num_clients={num_clients}: partition.name=natural deals whole values and the column has {len(members)}; "
            f"set num_clients={len(members)} or less, or choose another partition.column"
        )
    shards: list[list[int]] = [[] for _ in range(num_clients)]
    for value in sorted(members, key=lambda value: (-len(members[value]), value)):
        min(shards, key=len).extend(members[value])
    return [sorted(shard) for shard in shards]


def _check_num_clients(num_clients: int, num_rows: int) -> None:
    assert num_clients > 0
    if num_clients > num_rows:
        raise UserError(f"num_clients={num_clients}: more than the {num_rows} rows; set num_clients={num_rows} or less")


def _log_dirichlet(shape: NDArray[np.float64], num_draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return (num_draws, C) logarithms of Dirichlet draws, each row up to a constant.

    Gamma(a) = Gamma(a + 1) * U^(1 / a), and -log U is a standard exponential, so that nothing underflows at small a.
    """
    size = (num_draws, len(shape))
    shape = np.maximum(shape, _MIN_SHAPE)
    return np.log(rng.standard_gamma(shape + 1.0, size)) - rng.standard_exponential(size) / shape


def _cdf(log_q: NDArray[np.float64]) -> list[list[float]]:
    """Return the (K, C) cumulative distributions, each ending in exactly 1 (all nan once every label is used up)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        q = np.exp(log_q - log_q.max(axis=1, keepdims=True))
        cumulative = q.cumsum(axis=1)
        rows: list[list[float]] = (cumulative / cumulative[:, -1:]).tolist()
    return rows
