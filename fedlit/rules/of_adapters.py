"""The rules for whole adapters: mappings from layer names to (A, B, scaling), and weights of any sum.

Each takes the adapters, one weight for each (3, 2, 1, say, or numbers of rows), and returns an adapter in float64. A
UserError names what does not fit: layers or shapes that differ, weights, ranks that a rule cannot mix.
"""

from collections.abc import Callable, Sequence

from fedlit.errors import UserError
from fedlit.rules import of_layers
from fedlit.rules.factors import Adapter, Factors, layer_names, normalized, terms_of


def fedit(adapters: Sequence[Adapter], weights: Sequence[float]) -> dict[str, Factors]:
    """Return the mean of A and the mean of B; ranks and scalings must be equal. See `of_layers.fedit`."""
    return _over_layers(of_layers.fedit, adapters, weights)


def hetlora(adapters: Sequence[Adapter], weights: Sequence[float]) -> dict[str, Factors]:
    """Return the mean of the factors, padded with zeros to the largest rank. See `of_layers.hetlora`."""
    return _over_layers(of_layers.hetlora, adapters, weights)


def flexlora(
    adapters: Sequence[Adapter], weights: Sequence[float], *, rank: int | None = None, energy: float | None = None
) -> dict[str, Factors]:
    """Return the truncated SVD of the mean product, at a rank or a share of its energy. See `of_layers.flexlora`."""
    require_sizes(rank=rank, energy=energy)
    return _over_layers(
        lambda terms, shares: of_layers.flexlora(terms, shares, rank=rank, energy=energy), adapters, weights
    )


def fedex(
    adapters: Sequence[Adapter], weights: Sequence[float], *, residual_rank: int | None = None
) -> dict[str, Factors]:
    """Return the mean factors with the residual beside them, exact without a rank for it. See `of_layers.fedex`."""
    require_sizes(residual_rank=residual_rank)
    return _over_layers(
        lambda terms, shares: of_layers.fedex(terms, shares, residual_rank=residual_rank), adapters, weights
    )


def fedex_residual(
    adapters: Sequence[Adapter], weights: Sequence[float], *, residual_rank: int | None = None
) -> dict[str, Factors]:
    """Return the residual alone: beside `fedit` it acts as `fedex` does. See `of_layers.fedex_residual`."""
    require_sizes(residual_rank=residual_rank)
    return _over_layers(
        lambda terms, shares: of_layers.fedex_residual(terms, shares, residual_rank=residual_rank), adapters, weights
    )


def lora_fair(
    adapters: Sequence[Adapter], weights: Sequence[float], *, regularization: float = 0.01
) -> dict[str, Factors]:
    """Return the mean factors, B corrected towards the mean product. See `of_layers.lora_fair`."""
    require_sizes(regularization=regularization)
    return _over_layers(
        lambda terms, shares: of_layers.lora_fair(terms, shares, regularization=regularization), adapters, weights
    )


def fedrot(adapters: Sequence[Adapter], weights: Sequence[float], *, align: str = "a") -> dict[str, Factors]:
    """Return the mean of factors that are rotated towards each other by A or by B. See `of_layers.fedrot`."""
    require_sizes(align=align)
    return _over_layers(lambda terms, shares: of_layers.fedrot(terms, shares, align=align), adapters, weights)


def flora(adapters: Sequence[Adapter], weights: Sequence[float]) -> dict[str, Factors]:
    """Return all factors side by side, exact for any ranks. See `of_layers.flora`."""
    return _over_layers(of_layers.flora, adapters, weights)


def require_sizes(
    *,
    rank: int | None = None,
    energy: float | None = None,
    residual_rank: int | None = None,
    regularization: float = 0.0,
    align: str = "a",
) -> None:
    """Raise a UserError for an option of a rule out of range, or for a rank and an energy at once."""
    if rank is not None and energy is not None:
        raise UserError("a rank and an energy are given; leave one of them out")
    if rank is not None and rank < 1:
        raise UserError(f"rank {rank} must be 1 or more")
    if energy is not None and not 0 < energy <= 1:
        raise UserError(f"energy {energy:g} must be above 0 and at most 1, such as 0.99")
    if residual_rank is not None and residual_rank < 0:
        raise UserError(f"residual rank {residual_rank} must be 0 or more")
    if not 0 <= regularization < float("inf"):
        raise UserError(f"regularization {regularization:g} must be a finite number of 0 or more")
    if align not in ("a", "b"):
        raise UserError(f"align={align} is no factor; give a or b")


def _over_layers(
    rule: Callable[[Sequence[Factors], Sequence[float]], Factors], adapters: Sequence[Adapter], weights: Sequence[float]
) -> dict[str, Factors]:
    names = layer_names(adapters)
    shares = normalized(weights, len(adapters))
    result = {}
    for name in names:
        try:
            result[name] = rule(terms_of(adapters, name), shares)
        except UserError as error:
            raise UserError(f"layer {name}: {error}") from None
    return result
