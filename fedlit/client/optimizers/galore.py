"""GaLore: AdamW whose moments live in a low-rank projection of each matrix's gradient (Zhao et al., arXiv 2403.03507).

The step is galore-torch's own. Every update_proj_gap steps P is taken from the SVD of the gradient G (m, n), in float32
whatever the type of G, and keeps its value in between. With proj_type=std:

    m >= n:  P (r, n) top right singular vectors,  R = G P^T (m, r),  update = scale * N P
    m <  n:  P (m, r) top left singular vectors,   R = P^T G (r, n),  update = scale * P N

where N is Adam's step for R (betas 0.9 and 0.999, eps 1e-6). The moments are not turned into the new basis when P
changes. FedFTG's released code hands the optimizer groups without a rank, for which it projects nothing: rank=null.
"""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fedlit.client.optimizers.base import LocalOptimizer
from fedlit.client.optimizers.options import PROJ_TYPES, SVDS, GaLoreOptions, ProjectionOptions
from fedlit.client.optimizers.subspace import is_cheaper, leading_sides
from fedlit.errors import DivergenceError, UserError
from fedlit.seeding import stream_seed

_OF_A_PROJECTOR = ("rank", "update_proj_gap", "scale", "proj_type")


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
        tall = rows >= columns
        left = {"left": True, "right": False, "std": not tall, "reverse_std": tall}.get(self.proj_type)
        if left is None:
            return 2 * self.rank**2 + self.rank * (rows + columns)
        kept, projected = (columns, rows) if left else (rows, columns)
        return self.rank * (2 * kept + projected)


@dataclass(frozen=True, kw_only=True)
class GaLore(GaLoreOptions, LocalOptimizer):
    """Builds galore-torch's GaLoreAdamW."""

    lr: float
    weight_decay: float = 0.0
    galore: Projection = field(default_factory=Projection)
    seed: int = 0

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
        options = {name: getattr(projection, name) for name in _OF_A_PROJECTOR}
        groups = [{"params": plain}, {"params": projected, **options}]
        return _optimizer_class()(
            [group for group in groups if group["params"]],
            draw_seed=self.seed if projection.svd == "randomized" else None,
            lr=self.lr,
            weight_decay=self.weight_decay,
            no_deprecation_warning=True,
        )

    def num_state_scalars(self, shapes: Sequence[torch.Size]) -> int:
        """Return the moments, low-rank where a gradient is projected, and the projection matrices."""
        return sum(self.galore.num_state_scalars(shape) for shape in shapes)


@cache
def _optimizer_class() -> Callable[..., Optimizer]:
    """Return a GaLoreAdamW that saves its projection matrices in place of the Python objects around them.

    galore-torch imports bitsandbytes, which takes a second: only runs with GaLore pay for it.
    """
    GaLoreAdamW, GaLoreProjector = _imported()

    class SavableGaLoreAdamW(GaLoreAdamW):  # type: ignore[misc, valid-type]
        """galore-torch's optimizer; `projector` in its state_dict is the matrix P, or both matrices with `full`.

        draw_seed: of a randomised SVD; None for galore-torch's own.
        """

        def __init__(self, groups: list[dict[str, Any]], *, draw_seed: int | None, **options: Any) -> None:
            super().__init__(groups, **options)
            self.draw_seed = draw_seed

        def step(self, closure: None = None) -> None:
            assert closure is None, "galore-torch evaluates closures without gradients"
            if self.draw_seed is not None:  # before galore-torch makes its own
                for place, parameter, group in self._projected():
                    if parameter.grad is not None and "projector" not in self.state[parameter]:
                        self.state[parameter]["projector"] = self._projector(place, group)
            try:
                super().step()
            except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
                fact = f"GaLore cannot project a gradient ({str(error).splitlines()[0]})"
                raise DivergenceError(what="a gradient", fact=fact) from error

        def state_dict(self) -> dict[str, Any]:
            saved: dict[str, Any] = super().state_dict()
            return {**saved, "state": {index: _without_objects(state) for index, state in saved["state"].items()}}

        def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
            # torch keeps the given tensors where type and device agree: two clients would step one another's moments.
            super().load_state_dict(copy.deepcopy(dict(state_dict)))
            for place, parameter, group in self._projected():
                state = self.state.get(parameter, {})
                if "projector" in state:
                    projector = self._projector(place, group)
                    projector.ortho_matrix, state["projector"] = state["projector"], projector

        def _projected(self) -> Iterator[tuple[int, nn.Parameter, dict[str, Any]]]:
            """Yield the place, the parameter and its group of everything that is projected."""
            for group in self.param_groups:
                if "rank" in group:
                    yield from ((place, parameter, group) for place, parameter in enumerate(group["params"]))

        def _projector(self, place: int, group: Mapping[str, Any]) -> Any:
            options = {name: group[name] for name in _OF_A_PROJECTOR}
            if self.draw_seed is None:
                return GaLoreProjector(**options)
            return _randomized_projector()(self.draw_seed, place, **options)

    return SavableGaLoreAdamW


def _imported() -> tuple[Any, Any]:
    """Return galore-torch's optimizer and projector.

    Raises:
        UserError: they cannot be imported.
    """
    with _quiet_import():
        try:
            from galore_torch import GaLoreAdamW  # type: ignore[import-untyped]  # noqa: PLC0415
            from galore_torch.galore_projector import GaLoreProjector  # type: ignore[import-untyped]  # noqa: PLC0415
        except ImportError as error:
            raise UserError(
                f"the local optimizer galore cannot be used ({error}); install it with `pip install galore-torch`"
            ) from error
    return GaLoreAdamW, GaLoreProjector


@cache
def _randomized_projector() -> Callable[..., Any]:
    """Return galore-torch's projector with another SVD; galore-torch is there."""
    from galore_torch.galore_projector import GaLoreProjector  # noqa: PLC0415

    class RandomizedProjector(GaLoreProjector):  # type: ignore[misc]
        """Takes P from a randomised SVD, with draws that depend on the seed, the parameter's place and the step alone:
        a client that is resumed, or trained in another process, draws the same.
        """

        def __init__(self, seed: int, place: int, **options: Any) -> None:
            super().__init__(**options)
            self._seed, self._place, self._step = seed, place, 0

        def project(self, full_rank_grad: Tensor, iter: int) -> Tensor:
            self._step = iter
            projected: Tensor = super().project(full_rank_grad, iter)
            return projected

        def get_orthogonal_matrix(self, weights: Tensor, rank: int, type: str) -> Tensor | list[Tensor]:
            if not is_cheaper(weights.shape, rank):
                whole: Tensor | list[Tensor] = super().get_orthogonal_matrix(weights, rank, type)
                return whole
            seed = stream_seed(self._seed, f"GaLore {self._place}", round_idx=self._step)
            generator = torch.Generator().manual_seed(seed)
            bases = leading_sides(weights.detach().float(), rank, generator, type)
            kept = [basis.to(weights.dtype) for basis in bases]
            return kept if type == "full" else kept[0]

    return RandomizedProjector


def _without_objects(state: Mapping[str, Any]) -> dict[str, Tensor | list[Tensor] | int]:
    """Return a parameter's state with the matrix of its projector in the projector's place."""
    return {name: value.ortho_matrix if name == "projector" else value for name, value in state.items()}


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Keep bitsandbytes silent: it complains of missing 8-bit kernels, none of which GaLoreAdamW calls."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
