"""The options of the local optimizers, apart from what needs torch. Learning rate and weight decay are those of
`local.`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fedlit.options import option
from fedlit.ranges import POSITIVE, POSITIVE_COUNT

PROJ_TYPES = ("std", "reverse_std", "right", "left", "full")
SVDS = ("full", "randomized")


def projected_side(proj_type: str, shape: Sequence[int]) -> str:
    """Return which side of a matrix (rows, columns) is projected: `left` the rows, `right` the columns, `full` both."""
    tall = shape[0] >= shape[1]
    return {"std": "right" if tall else "left", "reverse_std": "left" if tall else "right"}.get(proj_type, proj_type)


@dataclass(frozen=True, kw_only=True)
class ProjectionOptions:
    """GaLore's section, under galore-torch's own names. FedFTG's released configuration gives rank 16; the other
    defaults are galore-torch's own.
    """

    rank: int | None = option(
        16,
        "rows or columns left of a gradient; matrices with a side no larger are not projected; null for none at all",
        range=POSITIVE_COUNT,
    )
    update_proj_gap: int = option(
        200, "local steps between two projections; galore-torch's default", range=POSITIVE_COUNT
    )
    scale: float = option(0.25, "factor of a projected update; galore-torch's default", range=POSITIVE)
    proj_type: str = option(
        "std",
        "projected side: std (the smaller), reverse_std (the larger), right (columns), left (rows), full (both)",
        values=PROJ_TYPES,
    )
    svd: str = option(
        "full",
        "SVD of a gradient: full (galore-torch's own) or randomized (ten times faster, nearly the same)",
        values=SVDS,
    )


@dataclass(frozen=True, kw_only=True)
class GaLoreOptions:
    """GaLore."""

    galore: ProjectionOptions = field(default_factory=ProjectionOptions)
