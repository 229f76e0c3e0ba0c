"""Ranks and subspaces of whole matrices that train, such as FedFTG's: singular values of dense changes, some of them.

A client's change is what its local training did to a matrix in the round; the server's is all that it has moved since
before the first round. Each needs an SVD of the dense matrix, so that only some matrices are looked at, at even
distances in the model's order.

A change of stored numbers holds their rounding, a noise of full rank. Its Frobenius norm is about eps |W|, and singular
values below that are rounding. Elementwise optimizers make changes of full rank, whose spaces are everything; the
spaces here are those of the leading singular vectors with a share ENERGY of the squared norm.

Shapes: n clients, matrices (m, k).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedlit.algebra.low_rank import rank_of_energy
from fedlit.algebra.spectra import Spectrum
from fedlit.process import communication
from fedlit.round.cohort import stack_rows
from fedlit.round.jobs import ClientJob, ClientResult
from fedlit.round.kept import Kept, OnDisk
from fedlit.round.observers import Observer, RoundView
from fedlit.round.observers.ranks import rank_numbers
from fedlit.round.observers.subspaces import angle_numbers, paired
from fedlit.round.payload import MODEL, Payload
from fedlit.round.plan import RoundPlan
from fedlit.round.server import ServerState

ENERGY = 0.9
"""Share of a change's squared norm that the singular vectors of its space have."""

MOST_WORK = 2.0**34
"""Multiplications m k min(m, k) of all matrices that are looked at, together; one is looked at anyway. A round of n
clients takes n + 3 SVDs of each.
"""


def looked_at(shapes: Mapping[str, torch.Size]) -> tuple[str, ...]:
    """Return names of matrices at even distances in their order, as many as MOST_WORK allows, one at least."""
    works = {name: shape.numel() * min(shape) for name, shape in shapes.items() if len(shape) == 2 and min(shape) > 1}
    names = list(works)
    for number in range(len(names), 1, -1):
        chosen = [names[place * len(names) // number] for place in range(number)]
        if sum(works[name] for name in chosen) <= MOST_WORK:
            return tuple(chosen)
    return tuple(names[:1])


@dataclass(kw_only=True)
class DenseObserver(Observer):
    """first: the looked-at tensors of the server before its first round. folder: where the clients' wait."""

    first: Mapping[str, Tensor]
    folder: Path | None = None

    def begin(self, plan: RoundPlan, server: ServerState) -> None:
        """Start with an empty file."""
        self._kept: Kept = OnDisk(self.folder)

    def see(self, job: ClientJob, result: ClientResult, sent: Payload) -> None:
        """Put a client's matrices aside."""
        self._kept.put(job.client_id, {name: sent[MODEL][name] for name in self.first})

    @torch.no_grad()
    def record(self, view: RoundView) -> dict[str, Any]:
        """Return means over the matrices, and the numbers of each."""
        weights = view.cohort.shares
        found: dict[str, list[float]] = {}
        single: dict[str, float] = {}
        for name in self.first if weights else ():
            like = {name: view.before.shared[name]}
            stacked = stack_rows(self._kept, tuple(weights), like)[name]
            if communication.process_index():
                continue
            for key, number in self._numbers(view, name, stacked, tuple(weights.values())):
                found.setdefault(key, []).append(number)
                if key not in ("rank/eta_bound", "rank/client_effective", "rank/effective_eta"):
                    single[f"{key}/{name.removesuffix('.weight')}"] = number
        return {key: sum(numbers) / len(numbers) for key, numbers in found.items()} | single

    def _numbers(
        self, view: RoundView, name: str, stacked: Tensor, weights: tuple[float, ...]
    ) -> Iterator[tuple[str, float]]:
        before, after, first = view.before.shared[name], view.after.shared[name], self.first[name]
        noise = torch.finfo(before.dtype).eps * float(before.double().norm())
        changes = stacked.double() - before.double()
        mean = (changes * changes.new_tensor(weights)[:, None, None]).sum(0)
        values = torch.linalg.svdvals(mean).cpu()
        clients = [_spectrum(change, noise) for change in changes]
        yield from rank_numbers(values, clients, weights, noise).items()
        yield from angle_numbers("clients", paired([_leading(each) for each in clients])).items()
        moved = [_leading(_spectrum(state.double() - first.double(), noise)) for state in (before, after)]
        yield from angle_numbers("server", [(moved[0], moved[1])]).items()


def _spectrum(change: Tensor, noise: float) -> Spectrum:
    u, s, vh = (part.cpu() for part in torch.linalg.svd(change, full_matrices=False))
    return Spectrum.of_triples(u, s, vh.mT, _floor(s, noise))


def _floor(values: Tensor, noise: float) -> float:
    largest = float(values.max())
    return noise / largest if largest > 0 else 1.0


def _leading(spectrum: Spectrum) -> Spectrum:
    shape = (len(spectrum.left), len(spectrum.right))
    rank = min(spectrum.rank, int(rank_of_energy(spectrum.values, ENERGY, shape)))
    return Spectrum(values=spectrum.values, left=spectrum.left[:, :rank], right=spectrum.right[:, :rank])
