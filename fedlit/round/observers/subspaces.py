"""Angles between the spaces that clients and server learn in, which FedFTG (arXiv 2410.23111) argues from.

The rank of a mean grows where the clients' changes do not lie in one subspace (proposition 1). Angles are principal
ones, in degrees; spaces those of all singular vectors above rounding, of columns (`out`, LoRA's B) and of rows (`in`,
its A).
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from fedlit.algebra.spectra import Spectrum, principal_angles
from fedlit.algebra.tensors import TensorDict
from fedlit.round.observers.factors import LayerMeasure, LayerView, Small

MOST_CLIENTS = 6
"""Clients that are paired; of more, so many at even distances in the order of the cohort."""

SERVER = ("subspaces/server_left", "subspaces/server_right", "subspaces/width")


class Subspaces(LayerMeasure):
    """Angles between two clients' products, and between the server's before and after the round.

    The server's are without what is folded into the weights, and left out where it is zero, as LoRA's is at first.
    """

    @property
    def per_layer(self) -> frozenset[str]:
        """All of them."""
        return frozenset(f"subspaces/{whose}_{side}" for whose in ("clients", "server") for side in ("out", "in"))

    def taken(self, view: LayerView) -> TensorDict:
        """Return both products of the server in coordinates (K, old and new width), and the old width."""
        both = [view.old, view.new]
        left = torch.linalg.qr(torch.cat([each.left for each in both], 1), mode="r").R
        right = torch.linalg.qr(torch.cat([each.right.T for each in both], 1), mode="r").R
        return dict(zip(SERVER, (left, right, torch.tensor(view.old.left.shape[1])), strict=True))

    def numbers(self, small: Small) -> dict[str, float]:
        """Return mean angles."""
        left, right, width = (small.tensors[name] for name in SERVER)
        split = int(width)
        old, new = (
            Spectrum.of(left[:, part] @ right[:, part].T, small.floor) for part in (slice(split), slice(split, None))
        )
        return {
            **angle_numbers("clients", paired(small.spectra)),
            **angle_numbers("server", [(old, new)]),
        }


def paired(spectra: Sequence[Spectrum]) -> list[tuple[Spectrum, Spectrum]]:
    """Return every two of the matrices, or of some of them."""
    num = min(len(spectra), MOST_CLIENTS)
    return list(combinations([spectra[place * len(spectra) // num] for place in range(num)], 2))


def angle_numbers(whose: str, pairs: Sequence[tuple[Spectrum, Spectrum]]) -> dict[str, float]:
    """Return the mean over pairs of the mean angle, of both sides; nothing where a matrix of each pair is zero."""
    found = {}
    for side in ("out", "in"):
        means = [
            float(principal_angles(_side(first, side), _side(second, side)).mean())
            for first, second in pairs
            if first.rank and second.rank
        ]
        if means:
            found[f"subspaces/{whose}_{side}"] = sum(means) / len(means)
    return found


def _side(spectrum: Spectrum, side: str) -> Tensor:
    return spectrum.left if side == "out" else spectrum.right
