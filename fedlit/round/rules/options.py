"""The options of the aggregation rules, apart from what needs torch."""

from dataclasses import dataclass

from fedlit.options import option
from fedlit.ranges import COUNT, POSITIVE_COUNT

ASSIGNMENTS = ("average", "reinitialize", "keep")


@dataclass(frozen=True, kw_only=True)
class FedExOptions:
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
