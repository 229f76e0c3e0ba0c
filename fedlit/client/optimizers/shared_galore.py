"""galore-torch's optimizer with second moments that come from the server (see `shared_moments`)."""

from collections.abc import Callable, Mapping
from functools import cache
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fedlit.client.optimizers.options import projected_side
from fedlit.client.optimizers.savable_galore import optimizer_class
from fedlit.client.optimizers.shared_moments import Second, turned


@cache
def shared_optimizer_class() -> Callable[..., Optimizer]:
    """Return a GaLoreAdamW that goes on from the server's second moments; each parameter is a group of its own."""

    class SharedGaLoreAdamW(optimizer_class()):  # type: ignore[misc]
        """Its step is galore-torch's. First and second moments have counts of their own: a client's first moment is
        new, while the second has seen the rounds before. A group has `normaliser`, N of the second moment that was
        received, and `num_seconds`, steps since then.
        """

        def __init__(self, groups: list[dict[str, Any]], **options: Any) -> None:
            super().__init__([{"normaliser": 0.0, "num_seconds": 0, **group} for group in groups], **options)
            self.makes_projectors = True
            self._awaiting: dict[nn.Parameter, Second] = {}

        def receive(self, parameter: nn.Parameter, second: Second) -> None:
            """Go on from a second moment; one in a basis waits for the client's own."""
            group = self._group(parameter)
            group["normaliser"], group["num_seconds"] = second.normaliser, 0
            if second.basis is not None:
                self._awaiting[parameter] = second
                return
            self._set(parameter, second.moment.to(parameter, copy=True))

        def second(self, parameter: nn.Parameter) -> Second | None:
            """Return what the steps since then made of it; None without a step."""
            group = self._group(parameter)
            if not group["num_seconds"]:
                return None
            state = self.state[parameter]
            basis = state["projector"].ortho_matrix if "projector" in state else None
            return Second(moment=state["exp_avg_sq"], basis=basis, normaliser=_normaliser(group))

        def step(self, closure: None = None) -> None:
            given = [(group["lr"], group["weight_decay"]) for group in self.param_groups]
            try:
                for group in self.param_groups:
                    self._correct(group)
                super().step(closure)
            finally:
                for group, (lr, weight_decay) in zip(self.param_groups, given, strict=True):
                    group["lr"], group["weight_decay"] = lr, weight_decay

        def _correct(self, group: dict[str, Any]) -> None:
            """Let a step correct the bias by N where galore-torch's takes 1 - beta_2^t; the decay stays as it is."""
            (parameter,) = group["params"]
            if parameter.grad is None:
                return
            group["num_seconds"] += 1
            num_steps = self.state[parameter].get("step", 0) + 1
            factor = sqrt(_normaliser(group) / (1.0 - group["betas"][1] ** num_steps))
            if factor != 1.0:
                group["lr"], group["weight_decay"] = group["lr"] * factor, group["weight_decay"] / factor

        def _group(self, parameter: nn.Parameter) -> dict[str, Any]:
            return next(group for group in self.param_groups if group["params"][0] is parameter)

        def _set(self, parameter: nn.Parameter, moment: Tensor) -> None:
            state = self.state[parameter]
            state["exp_avg_sq"] = moment
            state.setdefault("exp_avg", torch.zeros_like(moment))

        def _projector(self, place: int, parameter: nn.Parameter, group: Mapping[str, Any]) -> Any:
            """Return a projector that brings an awaiting moment into its basis as soon as it has one."""
            projector = super()._projector(place, parameter, group)
            project = projector.project

            def heard(gradient: Tensor, step: int) -> Tensor:
                projected: Tensor = project(gradient, step)
                second = self._awaiting.pop(parameter, None)
                if second is not None:
                    assert second.basis is not None
                    moment, old = second.moment.to(parameter), second.basis.to(parameter)
                    side = projected_side(group["proj_type"], parameter.shape)
                    self._set(parameter, turned(moment, old, projector.ortho_matrix, side))
                return projected

            projector.project = heard
            return projector

    return SharedGaLoreAdamW


def _normaliser(group: Mapping[str, Any]) -> float:
    """Return N after the steps: 1 - (1 - N) beta_2^K."""
    left: float = group["betas"][1] ** group["num_seconds"]
    return 1.0 - (1.0 - float(group["normaliser"])) * left
