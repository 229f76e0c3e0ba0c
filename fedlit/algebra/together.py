"""Several low-rank matrices at a time: what is read from the device is read once for all of them, not once for each.

A GPU computes ahead of the program. Each value that is read makes the program wait for it, and a round has hundreds of
layers. Matrices come as functions that make them, in order to be in memory one after the other.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from fedlit.algebra.low_rank import LowRank, num_above_rounding, rank_of_energy

Maker = Callable[[], LowRank]
"""Makes a matrix; may be asked twice and must give the same bits."""


def norms(matrices: Iterable[LowRank]) -> list[float]:
    """Return the Frobenius norm of each; one wait for the device."""
    return _read([matrix.core().norm() for matrix in matrices])


def ranks(matrices: Iterable[LowRank]) -> list[int]:
    """Return the numerical rank of each; one wait for the device."""
    return [int(rank) for rank in _read([matrix.num_above_rounding() for matrix in matrices])]


def ranks_of_energy(makers: Iterable[Maker], energy: float) -> list[int]:
    """Return of each matrix the fewest singular values with this share of the squares' sum (`rank_of_energy`); one wait
    for the device.
    """
    counts = []
    for make in makers:
        matrix = make()
        counts.append(rank_of_energy(torch.linalg.svdvals(matrix.core()), energy, matrix.shape))
    return [int(count) for count in _read(counts)]


def truncations(makers: Sequence[Maker], ranks: Sequence[int]) -> list[LowRank]:
    """Return each matrix truncated to its rank (LowRank.truncated); one wait for the device.

    A matrix whose leading triples are not reliable without the others is made again.
    """
    found: list[LowRank] = []
    doubts: dict[int, Tensor] = {}
    for place, (make, rank) in enumerate(zip(makers, ranks, strict=True)):
        matrix = make()
        if matrix.has_leading(rank):
            best, doubts[place] = matrix.leading(rank)
        else:
            best = matrix.truncated_by_svd(rank)
        found.append(best)
    for place, reliable in zip(doubts, _read(list(doubts.values())), strict=True):
        if not reliable:
            found[place] = makers[place]().truncated_by_svd(ranks[place])
    return found


def compacted(makers: Sequence[Maker], dtypes: Sequence[torch.dtype]) -> list[LowRank]:
    """Return each matrix in few numbers and in its type of `dtypes`; two waits for the device at most.

    As it is while its factors are smaller than the dense matrix; then without the directions that cancelled, if these
    are so many that the next sum of this size fits again; then dense.
    """
    found: dict[int, LowRank] = {}
    probes: dict[int, Tensor] = {}
    for place, (make, dtype) in enumerate(zip(makers, dtypes, strict=True)):
        matrix = make()
        if matrix.rest is not None:
            found[place] = _dense(matrix, dtype)
        elif fits(matrix.width, matrix.shape):
            found[place] = matrix.to(dtype)
        else:
            probes[place] = _least_rank(matrix)
            # Reading costs nothing on a CPU, making the matrix again does.
            if matrix.left.device.type == "cpu" and not fits(2 * int(probes[place]), matrix.shape):
                del probes[place]
                found[place] = _dense(matrix, dtype)
    doubtful = []
    for place, rank in zip(probes, _read(list(probes.values())), strict=True):
        matrix = makers[place]()
        if fits(2 * int(rank), matrix.shape):
            doubtful.append(place)
        else:
            found[place] = _dense(matrix, dtypes[place])
    found |= _merged({place: makers[place] for place in doubtful}, dtypes)
    return [found[place] for place in range(len(makers))]


def _merged(makers: Mapping[int, Maker], dtypes: Sequence[torch.dtype]) -> dict[int, LowRank]:
    """Return the matrices without directions that cancelled, or dense where that is smaller."""
    found = {}
    triples = {place: make().svd() for place, make in makers.items()}
    shapes = {place: (len(u), vh.shape[1]) for place, (u, _, vh) in triples.items()}
    counts = _read([num_above_rounding(s, shapes[place]) for place, (_, s, _) in triples.items()])
    for (place, (u, s, vh)), count in zip(triples.items(), counts, strict=True):
        rank = int(count)
        if fits(2 * rank, shapes[place]):  # else the next sum would outgrow it again
            found[place] = LowRank(u[:, :rank] * s[:rank], vh[:rank]).to(dtypes[place])
        else:
            found[place] = _dense(makers[place](), dtypes[place])
    return found


def fits(width: int, shape: tuple[int, int]) -> bool:
    """Whether factors of this width have no more numbers than a dense matrix (out, in)."""
    return width * (shape[0] + shape[1]) <= shape[0] * shape[1]


def _least_rank(matrix: LowRank) -> Tensor:
    """Return a lower bound of the numerical rank, 0-d on the device: that of a square part of the matrix.

    The part is just large enough to show that twice the rank would not fit. Its singular values are no larger than the
    matrix's, and count against a bound of the largest of these.
    """
    num_out, num_in = matrix.shape
    size = min(num_out, num_in, num_out * num_in // (2 * (num_out + num_in)) + 8)
    device = matrix.left.device
    rows = torch.arange(size, device=device) * num_out // size
    columns = torch.arange(size, device=device) * num_in // size
    values = torch.linalg.svdvals(matrix.left[rows] @ matrix.right[:, columns])
    bound = matrix.left.norm() * matrix.right.norm() * max(matrix.shape) * torch.finfo(values.dtype).eps
    rank: Tensor = (values > bound).sum()
    return rank


def _dense(matrix: LowRank, dtype: torch.dtype) -> LowRank:
    dense = matrix.dense(dtype)
    return LowRank(dense[:, :0], dense[:0], dense)


def _read(values: Sequence[Tensor]) -> list[float]:
    """Return 0-d tensors of one type as numbers; one wait for the device."""
    numbers: list[float] = torch.stack(list(values)).tolist() if values else []
    return numbers
