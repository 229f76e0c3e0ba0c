"""What a round did to the effective weights of a method with factors, from factors alone.

The effective weight of a client is W_i + scaling * B_i @ A_i, with its own frozen W_i; of SCL it is W_2 W_c. The ideal
server has the weighted mean of the clients' effective weights; most rules miss it, which is what their papers are about
(FedEx-LoRA, arXiv 2410.09432, section 6). What a rule folds into W counts as the model holds it, rounded to the type in
which it is kept. Norms are Frobenius norms divided by sqrt(out * in), that is root mean squares over a layer's weights,
in float64.

Shapes: n clients with weights p_i, W (out, in).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fedlit.algebra.spectra import num_above
from fedlit.algebra.tensors import TensorDict
from fedlit.round.observers.factors import LayerMeasure, LayerView, Small, coordinates

OWN = ("deviation/own_left", "deviation/own_right")
"""Coordinates of the clients' own effective weights after the round, where they have some."""


@dataclass(frozen=True)
class Deviation(LayerMeasure):
    """How far the server is from the mean of the clients, and how far all of them went.

    prefix: of the keys, `lora`, or `scl` for its pairs of layers.

    deviation: the new server's effective weight less the mean of the clients'. Where clients keep a factor of their
    own, the server's is the mean over clients of the product of theirs with the new shared one. Of FlexLoRA it is what
    the truncation cuts off.
    update_norm: the new server's effective weight less the old one's.
    drift_norm: mean over clients, with their weights, of what local training did to a client's effective weight.
    rank: rank of the weighted mean of the clients' products, before any truncation.
    spread: of clients that keep a factor, their effective weights after the round less the mean of these, root mean
    square over weights and clients, with their weights.
    """

    prefix: str = "lora"
    needs_drifts: ClassVar[bool] = True

    @property
    def per_layer(self) -> frozenset[str]:
        """Deviation and spread."""
        return frozenset(f"{self.prefix}/{name}" for name in ("deviation", "spread"))

    def taken(self, view: LayerView) -> TensorDict:
        """Return two norms, and what clients with a factor of their own hold after the round."""
        factors, after = view.factors, view.after
        ideal, new = factors.mean(view.clients), view.new
        if factors.layer.name in after.folded:
            new = new + after.folded[factors.layer.name]
        missed = new - ideal if factors.offsets is None else new - ideal - factors.mean(factors.offsets)
        taken = {"deviation/missed": missed.core().norm(), "deviation/moved": (new - view.old).core().norm()}
        if factors.has_private(after.shared):
            taken |= dict(zip(OWN, coordinates(factors.clients(instead=after.shared)), strict=True))
        return taken

    def numbers(self, small: Small) -> dict[str, float]:
        """Return the layer's numbers."""
        scale = (small.shape[0] * small.shape[1]) ** -0.5
        found = {
            "deviation": float(small.tensors["deviation/missed"]) * scale,
            "update_norm": float(small.tensors["deviation/moved"]) * scale,
            "drift_norm": sum(weight * drift for weight, drift in zip(small.weights, small.drifts, strict=True))
            * scale,
            "rank": num_above(small.mean_values, small.floor),
        }
        if OWN[0] in small.tensors:
            found["spread"] = _spread(small) * scale
        return {f"{self.prefix}/{name}": number for name, number in found.items()}


def _spread(small: Small) -> float:
    """Return sqrt(sum_i p_i |X_i - mean|^2) of the clients' own effective weights X_i."""
    left, right = (small.tensors[name] for name in OWN)
    weights = torch.tensor(small.weights, dtype=left.dtype)[:, None]
    mean = (left * weights).flatten(1) @ right.flatten(1).T
    squares = [
        weight * float((left[:, row] @ right[:, row].T - mean).square().sum())
        for row, weight in enumerate(small.weights)
    ]
    return float(sum(squares) ** 0.5)
