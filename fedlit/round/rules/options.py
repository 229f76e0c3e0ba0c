"""The options of the aggregation rules, apart from what needs torch."""

from dataclasses import dataclass

from fedlit.options import option
from fedlit.ranges import COUNT, NOT_NEGATIVE, POSITIVE_COUNT, SHARE

ASSIGNMENTS = ("average", "reinitialize", "keep")
WAYS = ("stack", "sums")


@dataclass(frozen=True, kw_only=True)
class WayOptions:
    """Rules that look at each client's factors, or at sums of what clients make of theirs."""

    aggregate_by: str = option(
        "stack",
        "how products are added up: stack (all clients' factors side by side), or sums (two sums, which secure "
        "aggregation and noise allow)",
        values=WAYS,
    )


@dataclass(frozen=True, kw_only=True)
class ProductOptions(WayOptions):
    """Rules over the mean of the clients' products B @ A."""

    sketch_width: int | None = option(
        None,
        "columns w of the sketch of aggregate_by=sums, the rank that is kept; null for the largest that the mean can "
        "have, which is exact",
        range=POSITIVE_COUNT,
    )


@dataclass(frozen=True, kw_only=True)
class FedExOptions(ProductOptions):
    """FedEx-LoRA."""

    assignment: str = option(
        "average",
        "what becomes of the factors: average (FedEx), reinitialize or keep",
        values=ASSIGNMENTS,
    )
    residual_rank: int | None = option(None, "rank that the residual is truncated to; null for exact", range=COUNT)


@dataclass(frozen=True, kw_only=True)
class FloristOptions(ProductOptions):
    """FLoRIST."""

    energy_threshold: float = option(
        0.9,
        "share tau of the squared singular values that each layer keeps, with the fewest that reach it; 1 keeps all",
        range=SHARE,
    )


@dataclass(frozen=True, kw_only=True)
class FedMomentumOptions(ProductOptions):
    """FedMomentum."""

    energy_threshold: float = option(
        0.9999,
        "share tau of the squared singular values that factors and folded rest keep together; 1 keeps all",
        range=SHARE,
    )


@dataclass(frozen=True, kw_only=True)
class LoraFairOptions(WayOptions):
    """LoRA-FAIR."""

    regularization: float = option(
        0.01, "weight lambda of |dB|^2 beside what the means miss of the mean product", range=NOT_NEGATIVE
    )


@dataclass(frozen=True, kw_only=True)
class FedSvdOptions:
    """FedSVD."""

    svd_every: int = option(1, "rounds between two factorisations", range=POSITIVE_COUNT)


@dataclass(frozen=True, kw_only=True)
class FedAskOptions:
    """FedASK."""

    oversampling: int = option(4, "columns of the sketch above the rank: its width is r + oversampling", range=COUNT)
