"""How far GaLore's projector turns: FedFTG (arXiv 2410.23111) rests on subspaces of gradients that evolve slowly.

A client that keeps its optimizer begins a round with the projector P of its last one; P is taken anew from a gradient
every `update_proj_gap` steps (GaLore, arXiv 2403.03507) and stays as it is in between, at an angle of 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlit.algebra.spectra import principal_angles
from fedlit.round.jobs import ClientJob, ClientResult
from fedlit.round.observers import Observer, RoundView
from fedlit.round.payload import Payload


@dataclass(frozen=True, kw_only=True)
class ProjectorObserver(Observer):
    """The angle between a client's projectors at the end of this round and of its last one, in degrees."""

    @torch.no_grad()
    def see(self, job: ClientJob, result: ClientResult, sent: Payload) -> float | None:
        """Return a client's mean angle over principal angles and matrices; None of its first round."""
        before = bases(job.state.optimizer)
        after = bases(None if result.state is None else result.state.optimizer)
        angles = [float(principal_angles(before[name], after[name]).mean()) for name in before.keys() & after.keys()]
        return sum(sorted(angles)) / len(angles) if angles else None

    def record(self, view: RoundView) -> dict[str, Any]:
        """Return the mean over the clients that have come before, with their weights."""
        weights = {client: share for client, share in view.cohort.shares.items() if view.notes.get(client) is not None}
        if not weights:
            return {}
        total = sum(weights.values())
        return {"subspaces/projector": sum(p * view.notes[client] for client, p in weights.items()) / total}


def bases(optimizer: Mapping[str, Any] | None) -> dict[tuple[Any, int], Tensor]:
    """Return the orthonormal columns (m, r) of each projector in a kept state_dict, in float64, by parameter and
    number: P as it is, or its transpose where r rows are kept.
    """
    found: dict[tuple[Any, int], Tensor] = {}
    for index, state in ({} if optimizer is None else optimizer["state"]).items():
        held = state.get("projector")
        for place, matrix in enumerate(held if isinstance(held, list) else [] if held is None else [held]):
            tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
            # P is as exact as its own type; the angle of P with itself is to be 0.
            found[index, place] = torch.linalg.qr(tall.detach().cpu().double()).Q
    return found
