"""GaLore: AdamW whose moments live in a low-rank projection of each matrix's gradient (Zhao et al., arXiv 2403.03507).

The step is galore-torch's own. Every update_proj_gap steps P is taken from the SVD of the gradient G (m, n), in float32
whatever the type of G, and keeps its value in between. With proj_type=std:

    m >= n:  P (r, n) top right singular vectors,  R = G P^T (m, r),  update = scale * N P
    m <  n:  P (m, r) top left singular vectors,   R = P^T G (r, n),  update = scale * P N

where N is Adam's step for R (betas 0.9 and 0.999, eps 1e-6). The moments are not turned into the new basis when P
changes. FedFTG's released code hands the optimizer groups without a rank, for which it projects nothing: rank=null.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.optim import Optimizer

from fedlit.client.optimizers.base import LocalOptimizer
from fedlit.client.optimizers.options import PROJ_TYPES, SVDS, GaLoreOptions, ProjectionOptions, projected_side
from fedlit.client.optimizers.savable_galore import OF_A_PROJECTOR, optimizer_class
from fedlit.client.optimizers.shared_galore import shared_optimizer_class
from fedlit.client.optimizers.shared_moments import SharedMoments
from fedlit.errors import UserError
from fedlit.round.jobs import LocalPart


@dataclass(frozen=True, kw_only=True)
class Projection(ProjectionOptions):
    """The options in the section `galore` of a method's YAML, under galore-torch's own names.

    rank: r, the rows or columns that stay of a gradient; None projects nothing.
    update_proj_gap: steps of one client between two SVDs.
    scale: factor of the projected update; a matrix that is not projected has none.
    proj_type: the side that is projected: `std` the smaller, `reverse_std` the larger, `right` the columns, `left` the
        rows, `full` both. Rows and columns as stored, which GPT-2's Conv1D does the other way round.
    svd: `full` is galore-torch's; `randomized` finds nearly the same directions several times faster (`subspace`), and
        is the whole SVD too for matrices too small for it. galore-torch does not have it.
    """

    def __post_init__(self) -> None:
        if self.rank is not None and not _is_count(self.rank):
            raise UserError(
                f"method.galore.rank={self.rank} must be an integer of 1 or more, or null to project nothing"
            )
        if not _is_count(self.update_proj_gap):
            raise UserError(f"method.galore.update_proj_gap={self.update_proj_gap} must be an integer of 1 or more")
        if isinstance(self.scale, bool) or not isinstance(self.scale, int | float) or not 0 < self.scale < float("inf"):
            raise UserError(f"method.galore.scale={self.scale} must be a finite number above 0")
        if self.proj_type not in PROJ_TYPES:
            raise UserError(f"method.galore.proj_type={self.proj_type} is not valid; give {', '.join(PROJ_TYPES)}")
        if self.svd not in SVDS:
            raise UserError(f"method.galore.svd={self.svd} is not valid; give {', '.join(SVDS)}")

    def applies(self, shape: torch.Size) -> bool:
        """Tell whether a parameter is projected: a matrix whose smaller side is above the rank.

        At or below it nothing is saved, and galore-torch fails with reverse_std on a matrix (m, n), m < n: it tells the
        side to multiply from by the shape of the projected gradient, which is square there.
        """
        return self.rank is not None and len(shape) == 2 and min(shape) > self.rank

    def num_state_scalars(self, shape: torch.Size) -> int:
        """Return the numbers kept for a parameter: two moments of the projected gradient, and P."""
        if self.rank is None or not self.applies(shape):
            return 2 * shape.numel()
        rows, columns = shape
        side = projected_side(self.proj_type, shape)
        if side == "full":
            return 2 * self.rank**2 + self.rank * (rows + columns)
        kept, projected = (columns, rows) if side == "left" else (rows, columns)
        return self.rank * (2 * kept + projected)

    def side(self, shape: torch.Size) -> str:
        """Return which side of a parameter is projected: `left`, `right` or `full`; empty for none."""
        return projected_side(self.proj_type, shape) if self.applies(shape) else ""


@dataclass(frozen=True, kw_only=True)
class GaLore(GaLoreOptions, LocalOptimizer):
    """Builds galore-torch's GaLoreAdamW.

    shares_moments: the second moments travel, and a client begins with the server's (`shared_moments`).
    """

    lr: float
    weight_decay: float = 0.0
    galore: Projection = field(default_factory=Projection)
    seed: int = 0
    shares_moments: bool = False

    def __post_init__(self) -> None:
        if self.shares_moments and self.galore.proj_type == "full":
            raise UserError(
                "method.galore.proj_type=full projects both sides, and second moments are shared in a basis of one; "
                "give std, reverse_std, left or right"
            )

    def local_parts(self) -> tuple[LocalPart, ...]:
        """Return what shares the second moments."""
        if not self.shares_moments:
            return ()
        return (SharedMoments(side=self.galore.side, rank=self.galore.rank or 0, seed=self.seed),)

    def build(self, parameters: Mapping[str, nn.Parameter]) -> Optimizer:
        """Return a GaLoreAdamW whose state_dict holds tensors and plain values only.

        Raises:
            UserError: a rank is given and no matrix is large enough for it, or galore-torch is not installed.
        """
        projection = self.galore
        projected = [parameter for parameter in parameters.values() if projection.applies(parameter.shape)]
        plain = [parameter for parameter in parameters.values() if not projection.applies(parameter.shape)]
        if projection.rank is not None and not projected:
            largest = max((min(parameter.shape) for parameter in plain if parameter.ndim == 2), default=0)
            raise UserError(
                f"method.galore.rank={projection.rank} projects none of this method's tensors: the smaller side of "
                f"their matrices is {largest} at most; give a rank below that, or null to project nothing"
            )
        options = {name: getattr(projection, name) for name in OF_A_PROJECTOR}
        groups = [{"params": plain}, {"params": projected, **options}]
        if self.shares_moments:  # each has a bias correction of its own
            groups = [{"params": [each]} for each in plain] + [{"params": [each], **options} for each in projected]
        made = shared_optimizer_class() if self.shares_moments else optimizer_class()
        return made(
            [group for group in groups if group["params"]],
            draw_seed=self.seed if projection.svd == "randomized" else None,
            lr=self.lr,
            weight_decay=self.weight_decay,
            no_deprecation_warning=True,
        )

    def num_state_scalars(self, shapes: Sequence[torch.Size]) -> int:
        """Return the moments, low-rank where a gradient is projected, and the projection matrices."""
        return sum(self.galore.num_state_scalars(shape) for shape in shapes)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
