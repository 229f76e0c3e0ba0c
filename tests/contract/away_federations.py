"""Federations on the second device, and the places where they wait for it."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from safetensors.torch import load_file
from second_device import AWAY, SecondDevice

from fedlit import assembly
from fedlit.client.steps import LocalSteps
from fedlit.store import checkpoint


class AwayFabric(Fabric):
    """Fabric whose device is the second one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._strategy._root_device = AWAY  # type: ignore[attr-defined]
        self._accelerator.setup_device = lambda _device: None  # type: ignore[method-assign]


@contextmanager
def second_device(monkeypatch: pytest.MonkeyPatch, *makers: Any) -> Iterator[SecondDevice]:
    """Yield the device. Modules in `makers`, which call their Fabric by that name, build on it inside of the block.

    What the device `meta` itself is for, the rehearsal, is left out.
    """
    with monkeypatch.context() as patch:
        for maker in makers:
            patch.setattr(maker, "Fabric", AwayFabric)
        patch.setattr(assembly, "rehearse", lambda _plan: None)
        patch.setattr(
            sys.modules["torch.optim.adam"], "_device_dtype_check_for_fused", lambda *_given, **_options: None
        )
        patch.setattr(checkpoint, "load_file", _load_file)
        # As on a GPU, a parameter stays the same object when its module moves.
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            with SecondDevice() as device:
                yield device
        finally:
            torch.__future__.set_swap_module_params_on_conversion(before)


def _load_file(path: Any, device: str) -> dict[str, torch.Tensor]:
    """As safetensors, which does not know the device."""
    return {name: tensor.to(device) for name, tensor in load_file(path).items()}


def waits_in_steps(device: SecondDevice, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return a count, filled from now on, of the places that wait between a client's first step and its last."""
    seen: Counter[str] = Counter()
    run = LocalSteps.run

    def watched(
        steps: LocalSteps, optimizer: Any, batches: Any, on_step: Callable[[], None], *others: Any, **named: Any
    ) -> Any:
        before = [device.reads.copy()]

        def after_step() -> None:
            seen.update(device.reads - before[0])
            before[0] = device.reads.copy()
            on_step()

        return run(steps, optimizer, batches, after_step, *others, **named)

    monkeypatch.setattr(LocalSteps, "run", watched)
    return seen


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a run has of each: clients and adapted layers, rounds, checkpoints, evaluations."""

    clients: int
    layers: int
    rounds: int
    saves: int
    evaluations: int


@dataclass(frozen=True, kw_only=True)
class Waits:
    """How often a place waits in a run: for each client of a round, each round, and so on."""

    client: int = 0
    client_and_layer: int = 0
    layer: int = 0
    round: int = 0
    save: int = 0
    evaluation: int = 0
    why: str

    def of_run(self, sizes: Sizes) -> int:
        """Return the number of waits of a whole run."""
        of_round = (self.client + self.client_and_layer * sizes.layers) * sizes.clients
        of_round += self.layer * sizes.layers + self.round
        return of_round * sizes.rounds + self.save * sizes.saves + self.evaluation * sizes.evaluations


def on_cpu(nested: Any) -> Any:
    """Return nested tuples and mappings of tensors with those of the second device by their values."""
    if isinstance(nested, torch.Tensor):
        return getattr(nested, "held", nested)
    if isinstance(nested, tuple):
        return tuple(map(on_cpu, nested))
    return {key: on_cpu(value) for key, value in nested.items()}


MEASURED = ("norms/", "rank/", "subspaces/")


def scores(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a run's records without its times; norms, ranks and angles without their last digits, since a device adds
    up in larger pieces and hands on tensors in another layout.
    """
    return [
        {
            key: float(f"{value:.12g}")
            if "update_norm" in key
            else float(f"{round(value, 11):.12g}")  # an angle of 0 is a few 1e-14 degrees
            if key.startswith(MEASURED)
            else value
            for key, value in record.items()
            if not key.startswith("time/")
        }
        for record in records
    ]
