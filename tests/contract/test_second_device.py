"""Every recipe on a device that is not the CPU: nothing forgets its device, and the places are listed that wait for it."""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from second_device import AWAY, OnTwoDevices, SecondDevice
from tiny_federations import Builder, assert_equal, results

import tiny_federations
from fedlit import assembly
from fedlit.client.steps import LocalSteps
from fedlit.recipes import RECIPES

NUM_CLIENTS, NUM_ROUNDS, NUM_STEPS = 3, 2, 3
SMALL = (
    f"num_clients={NUM_CLIENTS}",
    f"num_rounds={NUM_ROUNDS}",
    f"local.steps={NUM_STEPS}",
    "eval.every=2",
    "model.attention_implementation=eager",
)
OF_A_CLIENT = {
    "client/steps.py:run": "the losses of its steps",
    "round/cohort.py:require_summable": "the largest element of each tensor that it sends",
    "algebra/tensors.py:distance": "how far it went",
    "algebra/tensors.py:on_cpu": "what it keeps, and its factors that wait for the deviation",
}
"""What is read of a client after its last step, once for each kind and never for each tensor."""


class AwayFabric(Fabric):
    """Fabric whose device is the second one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._strategy._root_device = AWAY  # type: ignore[attr-defined]
        self._accelerator.setup_device = lambda _device: None  # type: ignore[method-assign]


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecondDevice]:
    """The device, on which federations are built from now on. What meta itself is for, the rehearsal, is left out."""
    monkeypatch.setattr(tiny_federations, "Fabric", AwayFabric)
    monkeypatch.setattr(assembly, "rehearse", lambda _plan: None)
    monkeypatch.setattr(
        sys.modules["torch.optim.adam"], "_device_dtype_check_for_fused", lambda *_given, **_options: None
    )
    # As on a GPU, a parameter stays the same object when its module moves.
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield SecondDevice()
    torch.__future__.set_swap_module_params_on_conversion(before)


def reads_of_steps(device: SecondDevice, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return where the device will be waited for while optimizer steps are under way."""
    seen: Counter[str] = Counter()
    step = LocalSteps._backward

    def backward(self: LocalSteps, parts: Any) -> Any:
        before = device.reads.copy()
        loss = step(self, parts)
        seen.update(device.reads - before)
        return loss

    monkeypatch.setattr(LocalSteps, "_backward", backward)
    return seen


@pytest.mark.parametrize("method", sorted(RECIPES))
def test_a_federation_ends_with_the_bits_of_the_cpu(
    method: str, away: SecondDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_steps = reads_of_steps(away, monkeypatch)
    with away:
        federation = Builder(tmp_path).run("away", f"method={method}", *SMALL)
    assert not in_steps
    trained = NUM_ROUNDS * len(federation.rows)
    found = {place: count for place, count in away.reads.items() if place in OF_A_CLIENT}
    assert found["client/steps.py:run"] == trained
    with monkeypatch.context() as back:
        back.setattr(tiny_federations, "Fabric", Fabric)
        expected = Builder(tmp_path).run("cpu", f"method={method}", *SMALL)
    assert_equal(on_cpu(results(federation)), results(expected))


def on_cpu(nested: Any) -> Any:
    if isinstance(nested, torch.Tensor):
        return getattr(nested, "held", nested)
    if isinstance(nested, tuple):
        return tuple(map(on_cpu, nested))
    return {key: on_cpu(value) for key, value in nested.items()}
