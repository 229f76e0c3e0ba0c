"""How row numbers are dealt to clients: by label, by quantity, by the values of a column, or at random.

Equal-size Dirichlet: T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the Effects of Non-Identical Data Distribution for
Federated Visual Classification", arXiv 1909.06335: a client's label distribution is q ~ Dir(alpha * prior) with the
global label frequencies as prior. Rows are drawn without replacement and clients take turns, in a new order each time;
a label that is used up leaves every client's q, which is renormalised. All clients get floor(N / K) rows, and N mod K
rows are left over.

Differs from the usual programs in that q is kept as logarithms: with a small alpha, q itself underflows to a single 1
or to 0 / 0, and the client would have nowhere to go once its label is used up. In logarithms the renormalised rest of q
is right for any alpha that is positive and finite.

Quantity: Q. Li, Y. Diao, Q. Chen, B. He, "Federated Learning on Non-IID Data Silos: An Experimental Study", arXiv
2102.02079: the clients' shares of the rows are q ~ Dir(alpha), the rows themselves random. Differs in that every client
has a few rows beforehand and q deals the rest, so that each can train and test.

Pathological: H. B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", arXiv
1602.05629: every client has a few labels only. There, rows sorted by label are cut into pieces of one size, of which
some hold two labels; here a piece is of one label, and labels are cut into more pieces the more rows they have.

Legend: N rows, K clients, C labels.
"""

import bisect
import heapq
import math
from collections.abc import Sequence
from fractions import Fraction

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
    _check_alpha(alpha)
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


def quantity(num_rows: int, num_clients: int, alpha: float, smallest: int, rng: np.random.Generator) -> list[list[int]]:
    """Return K ascending lists of random row numbers, all N in use; a small alpha skews their sizes.

    Every client has `smallest` rows and its share q of the N - K * smallest others, made whole by largest remainder.

    Raises:
        UserError: fewer than K * smallest rows, or alpha not positive and finite.
    """
    assert smallest > 0
    _check_num_clients(num_clients, num_rows)
    _check_alpha(alpha)
    rest = num_rows - num_clients * smallest
    if rest < 0:
        raise UserError(
            f"num_clients={num_clients}: each needs {smallest} rows to train and to test, and there are {num_rows}; "
            f"set num_clients={num_rows // smallest} or less, or lower partition.min_test_rows"
        )
    log_q = _log_dirichlet(np.full(num_clients, alpha), 1, rng)[0]
    q = np.exp(log_q - log_q.max())
    shares = rest * (q / q.sum())
    sizes = np.floor(shares).astype(int)
    sizes[np.argsort(sizes - shares, kind="stable")[: rest - sizes.sum()]] += 1
    return _cut(rng.permutation(num_rows), sizes + smallest)


def pathological(
    labels: Sequence[str], num_clients: int, classes_per_client: int, rng: np.random.Generator
) -> list[list[int]]:
    """Return K ascending lists of row numbers, each of `classes_per_client` labels.

    Every label is held by somebody before the most frequent ones are held by several, in proportion to their rows;
    where K * classes_per_client < C, the rarest are held by nobody and their rows left over. Which client holds which
    labels is random, and so are the rows it has of them; a label's holders have equally many, give or take one.

    Raises:
        UserError: more clients than rows, more labels a client than there are, or too few rows for so many holders.
    """
    _check_num_clients(num_clients, len(labels))
    names = sorted(set(labels))
    asked = f"partition.classes_per_client={classes_per_client}"
    if classes_per_client > len(names):
        raise UserError(f"{asked}: the rows have {len(names)} labels; set {len(names)} or less")
    number_of = {name: number for number, name in enumerate(names)}
    label_numbers = np.array([number_of[label] for label in labels])
    counts = np.bincount(label_numbers).tolist()
    num_free = _num_holders(counts, num_clients, num_clients * classes_per_client)
    if sum(num_free) < num_clients * classes_per_client:
        raise UserError(
            f"{asked}: a label has no more holders than rows, and the {len(names)} labels cannot have "
            f"{num_clients} x {classes_per_client} in all; lower it, or num_clients={num_clients}"
        )
    holders: list[list[int]] = [[] for _ in names]
    for client_id in range(num_clients):
        # those with the most holders still to come first, or in the end a label would need one client twice
        ties = rng.permutation(len(names)).tolist()
        for number in sorted(range(len(names)), key=lambda n: (-num_free[n], ties[n]))[:classes_per_client]:
            holders[number].append(client_id)
            num_free[number] -= 1
    shards: list[list[int]] = [[] for _ in range(num_clients)]
    for number, clients in enumerate(holders):
        if clients:
            rows = rng.permutation(np.flatnonzero(label_numbers == number))
            for client_id, part in zip(rng.permutation(clients), np.array_split(rows, len(clients)), strict=True):
                shards[client_id].extend(part.tolist())
    return [sorted(shard) for shard in shards]


def iid(num_rows: int, num_clients: int, rng: np.random.Generator) -> list[list[int]]:
    """Return K ascending lists of floor(N / K) row numbers drawn at random without replacement.

    Raises:
        UserError: more clients than rows.
    """
    _check_num_clients(num_clients, num_rows)
    return _cut(rng.permutation(num_rows), [num_rows // num_clients] * num_clients)


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


def _check_alpha(alpha: float) -> None:
    if not (alpha > 0 and math.isfinite(alpha)):
        raise UserError(f"partition.alpha={alpha}: not a positive finite number; 0.1 is skewed, 100 is nearly alike")


def _cut(order: NDArray[np.int64], sizes: Sequence[int] | NDArray[np.int64]) -> list[list[int]]:
    """Return the first `sizes[0]` of a random order, then the next `sizes[1]` and so on, each part ascending."""
    ends = np.cumsum(sizes).tolist()
    return [sorted(order[end - size : end].tolist()) for end, size in zip(ends, sizes, strict=True)]


def _num_holders(counts: Sequence[int], num_clients: int, num_places: int) -> list[int]:
    """Return for each label how many clients hold it: `num_places` in all, or fewer where rows or clients run out.

    The next place goes to the label whose holders then have the most rows each, ties to the earlier label; a label that
    nobody holds goes before all others.
    """
    num_holders = [0] * len(counts)
    heap = [(0, Fraction(-count), number) for number, count in enumerate(counts)]
    heapq.heapify(heap)
    for _ in range(num_places):
        if not heap:
            break
        _, _, number = heapq.heappop(heap)
        num_holders[number] += 1
        if num_holders[number] < min(num_clients, counts[number]):
            heapq.heappush(heap, (1, Fraction(-counts[number], num_holders[number] + 1), number))
    return num_holders


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
