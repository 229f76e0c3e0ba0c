"""Fabric with a strategy that leaves modules alone: it starts the processes and forms their group.

Fabric's own `ddp` strategy wraps each module in DistributedDataParallel and averages gradients in every backward pass,
which is synchronous training, not a federation. FederatedStrategy keeps its launchers and process group.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

from lightning.fabric import Fabric
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.fabric.strategies.strategy import _BackwardSyncControl
from torch import nn

from fedlit.config import ComputeConfig


class _NothingToSync(_BackwardSyncControl):
    """Modules are not wrapped, so a backward pass never communicates."""

    def no_backward_sync(self, module: nn.Module, enabled: bool) -> AbstractContextManager[None]:
        return nullcontext()


class FederatedStrategy(DDPStrategy):
    """One process per device, modules unwrapped, no sampler inserted: each client owns its model and its data."""

    def __init__(self, *, process_group_backend: str | None = None, timeout: timedelta) -> None:
        super().__init__(process_group_backend=process_group_backend, timeout=timeout)
        self._backward_sync_control = _NothingToSync()

    def _configure_launcher(self) -> None:
        """One process is not launched: Fabric would refuse to in a notebook, and watch over nobody from a thread."""
        super()._configure_launcher()
        if self.num_processes * self.num_nodes == 1:
            self._launcher = None

    @property
    def distributed_sampler_kwargs(self) -> None:  # type: ignore[override]
        """None keeps Fabric from inserting a DistributedSampler."""
        return

    def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]
        """Return the module as it is."""
        return module


def start_fabric(compute: ComputeConfig, devices: int, num_nodes: int, environ: Mapping[str, str]) -> Fabric:
    """Start or join the processes and return their Fabric.

    Args:
        compute: the options of the run.
        devices: processes on a node.
        num_nodes: nodes.
        environ: where `fabric run`, if it is the launcher, has written what it made.
    """
    precision: Any = compute.precision
    timeout = timedelta(seconds=compute.start_timeout_s)
    strategy = FederatedStrategy(process_group_backend=compute.backend, timeout=timeout)
    if environ.get("LT_CLI_USED"):
        # `fabric run` has made the processes; Fabric reads devices, nodes and accelerator from the environment and
        # joins.
        accelerator = "auto" if "LT_ACCELERATOR" in environ else compute.accelerator
        return Fabric(accelerator=accelerator, strategy=strategy, precision=precision)
    fabric = Fabric(
        accelerator=compute.accelerator, devices=devices, num_nodes=num_nodes, strategy=strategy, precision=precision
    )
    fabric.launch()
    return fabric
