"""Rank inflation: how much higher the rank of the clients' mean is than that of one client.

FedFTG (arXiv 2410.23111), proposition 1: the mean of N changes of rank r has a rank eta r, 1 <= eta <= N. With ranks
r_i it is max r_i <= rank <= sum r_i, hence eta = rank / max r_i <= sum r_i / max r_i. The upper bound is a theorem; the
lower one is not, since changes may cancel. At a finite precision nearly all means reach the upper bound, so that the
entropy of the singular values says more: the effective rank (Roy and Vetterli, 2007).
"""

from collections.abc import Sequence

from torch import Tensor

from fedlit.algebra.spectra import Spectrum, effective_rank
from fedlit.round.observers.factors import LayerMeasure, Small


class Ranks(LayerMeasure):
    """Ranks of the mean of the clients' products, before any truncation, beside those of the products."""

    @property
    def per_layer(self) -> frozenset[str]:
        """Both ranks and their inflation."""
        return frozenset({"rank/numerical", "rank/effective", "rank/eta"})

    def numbers(self, small: Small) -> dict[str, float]:
        """Return the layer's ranks."""
        # Clients that cancel leave the rounding of what they had, not of what is left.
        sizes = [weight * each.largest for weight, each in zip(small.weights, small.spectra, strict=True)]
        return rank_numbers(small.mean_values, small.spectra, small.weights, small.floor * sum(sizes))


def rank_numbers(mean: Tensor, clients: Sequence[Spectrum], weights: Sequence[float], noise: float) -> dict[str, float]:
    """Return ranks and their ratios.

    Args:
        mean: singular values of the weighted mean. clients: the matrices that it is of. weights: p_i.
        noise: singular values of the mean up to this are rounding.
    """
    kept = mean[mean > noise]
    numerical, effective = len(kept), effective_rank(kept)
    ranks = [client.rank for client in clients]
    own = sum(weight * effective_rank(client.values) for weight, client in zip(weights, clients, strict=True))
    found = {"rank/numerical": float(numerical), "rank/effective": effective, "rank/client_effective": own}
    if max(ranks, default=0):  # clients that changed nothing have no ratio
        found["rank/eta"] = numerical / max(ranks)
        found["rank/eta_bound"] = sum(ranks) / max(ranks)
        found["rank/effective_eta"] = effective / own
    return found
