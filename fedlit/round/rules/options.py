"""The options of the aggregation rules, apart from what needs torch."""

from dataclasses import dataclass

from fedlit.options import option
from fedlit.ranges import COUNT, POSITIVE_COUNT

ASSIGNMENTS = ("average", "reinitialize", "keep")
WAYS = ("stack", "sums")


@dataclass(frozen=True, kw_only=True)
class ProductOptions:
    """Rules over the mean of the clients' products B @ A."""

    aggregate_by: str = option(
        "stack",
        "how products are added up: stack (all clients' factors side by side), or sums (two sums, which secure "
        "aggregation and noise allow)",
        values=WAYS,
    )
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
class FedSvdOptions:
    """FedSVD."""

    svd_every: int = option(1, "rounds between two factorisations", range=POSITIVE_COUNT)


@dataclass(frozen=True, kw_only=True)
class FedAskOptions:
    """FedASK."""

    oversampling: int = option(4, "columns of the sketch above the rank: its width is r + oversampling", range=COUNT)
