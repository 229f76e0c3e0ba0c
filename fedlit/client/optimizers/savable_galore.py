"""galore-torch's optimizer with a state that can be saved, and its projector with another SVD."""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fedlit.client.optimizers.subspace import is_cheaper, leading_sides
from fedlit.errors import DivergenceError, UserError
from fedlit.seeding import stream_seed

OF_A_PROJECTOR = ("rank", "update_proj_gap", "scale", "proj_type")
"""The keys of a parameter group that is projected, which are a projector's options too."""


@cache
def optimizer_class() -> Callable[..., Optimizer]:
    """Return a GaLoreAdamW that saves its projection matrices in place of the Python objects around them.

    galore-torch imports bitsandbytes, which takes a second: only runs with GaLore pay for it.
    """
    GaLoreAdamW, GaLoreProjector = _imported()

    class SavableGaLoreAdamW(GaLoreAdamW):  # type: ignore[misc, valid-type]
        """galore-torch's optimizer; `projector` in its state_dict is the matrix P, or both matrices with `full`.

        draw_seed: of a randomised SVD; None for galore-torch's own. makes_projectors: whether they are made here.
        """

        def __init__(self, groups: list[dict[str, Any]], *, draw_seed: int | None, **options: Any) -> None:
            super().__init__(groups, **options)
            self.draw_seed = draw_seed
            self.makes_projectors = draw_seed is not None

        def step(self, closure: None = None) -> None:
            assert closure is None, "galore-torch evaluates closures without gradients"
            if self.makes_projectors:  # before galore-torch makes its own
                for place, parameter, group in self._projected():
                    if parameter.grad is not None and "projector" not in self.state[parameter]:
                        self.state[parameter]["projector"] = self._projector(place, parameter, group)
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
                    projector = self._projector(place, parameter, group)
                    projector.ortho_matrix, state["projector"] = state["projector"], projector

        def _projected(self) -> Iterator[tuple[int, nn.Parameter, dict[str, Any]]]:
            """Yield the place, the parameter and its group of everything that is projected."""
            places = count()
            for group in self.param_groups:
                if "rank" in group:
                    yield from ((next(places), parameter, group) for parameter in group["params"])

        def _projector(self, place: int, parameter: nn.Parameter, group: Mapping[str, Any]) -> Any:
            options = {name: group[name] for name in OF_A_PROJECTOR}
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
