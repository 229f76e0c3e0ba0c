"""The start of the process group and every collective of the library; no other file names torch.distributed.

Fabric, which starts the processes, is imported by `launch` alone: what a run would take is told without it.
"""

import os
import pickle
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _get_default_store, _set_pg_timeout

from fedlit.config import ComputeConfig
from fedlit.errors import LostPeer, UserError
from fedlit.process import slurm
from fedlit.process.interrupt import first_line

if TYPE_CHECKING:
    from lightning.fabric import Fabric

T = TypeVar("T")


def require_no_group() -> None:
    """Refuse to work in a process group of somebody else's, which the end of a run would destroy.

    Raises:
        UserError: this process is in one.
    """
    if dist.is_initialized():
        raise UserError(
            "torch.distributed is initialised in this process, and a run makes its own group; call "
            "torch.distributed.destroy_process_group() before, or let fedlit.run come first"
        )


def settle_bits(compute: ComputeConfig) -> None:
    """Settle what the last bits depend on, in this thread: before the first operation."""
    # The number of threads changes the bits of a matrix product on a CPU. Lightning's launcher sets a number of its own
    # where the variable is missing.
    os.environ["OMP_NUM_THREADS"] = str(compute.threads)
    torch.set_num_threads(compute.threads)
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def launch(compute: ComputeConfig, environ: Mapping[str, str] = os.environ) -> "Fabric":
    """Start or join the process group and return its Fabric.

    The shape (devices, nodes) comes from whoever launched this process: `fabric run`, torchrun, srun, else from
    `compute`.

    Raises:
        UserError: the group that came up is not the one asked for, or its port is taken or none.
    """
    settle_bits(compute)
    if slurm.makes_processes(environ):
        os.environ.setdefault("MASTER_PORT", str(slurm.main_port(environ)))
    _require_port(os.environ.get("MASTER_PORT", "1"))
    from fedlit.process.strategy import start_fabric  # noqa: PLC0415  Fabric: seconds

    devices, num_nodes = group_shape(compute, environ)
    try:
        fabric = start_fabric(compute, devices, num_nodes, environ)
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        port = os.environ.get("MASTER_PORT", "")
        raise UserError(f"port {port} of this machine is taken; set MASTER_PORT to a free one") from error
    assert torch.get_num_threads() == compute.threads
    if fabric.world_size != devices * num_nodes:
        raise UserError(
            f"the process group has {fabric.world_size} processes, {devices * num_nodes} were asked for; "
            "start one process per device, e.g. with srun --ntasks-per-node or fabric run --devices"
        )
    if dist.is_initialized():
        _set_pg_timeout(timedelta(seconds=compute.timeout_s))
    return fabric


def _require_port(text: str) -> None:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise UserError(f"MASTER_PORT={text:.40} is no port; give a number from 1 to 65535, or leave it out")


def group_shape(compute: ComputeConfig, environ: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return (devices on a node, nodes) as the launcher of this process made them, else as `compute` asks.

    That both agree is checked before (`check_launcher`).
    """
    if "TORCHELASTIC_RUN_ID" in environ:
        local = int(environ["LOCAL_WORLD_SIZE"])
        return local, int(environ["WORLD_SIZE"]) // local
    if slurm.makes_processes(environ):
        return slurm.task_shape(environ)
    return compute.devices, compute.num_nodes


def backends() -> tuple[str, ...]:
    """Return the backends of collectives that this torch is built with."""
    built = {"gloo": dist.is_gloo_available, "nccl": dist.is_nccl_available, "mpi": dist.is_mpi_available}
    return tuple(name for name, there in built.items() if dist.is_available() and there())


def num_processes() -> int:
    """Return the number of processes of the group, 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_index() -> int:
    """Return this process's place in the group, 0 without one."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(items: Sequence[T]) -> Sequence[T]:
    """Return this process's part of what all processes have in one order, dealt in turn."""
    return items[process_index() :: num_processes()]


def sum_in_place(buffer: Tensor) -> None:
    """Add up an integer buffer over all processes, in place."""
    assert not buffer.is_floating_point(), "floating-point sums depend on the order of the processes"
    if dist.is_initialized() and buffer.numel():
        dist.all_reduce(buffer, op=dist.ReduceOp.SUM)


def gather_objects(value: T) -> list[T]:
    """Return every process's small picklable value, in the order of the processes."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def post(name: str, value: object) -> None:
    """Leave a small picklable value under a new name for process 0, from any thread: no collective, nobody waits.

    It may get lost: tell it in a collective too.
    """
    if dist.is_initialized() and num_processes() > 1:
        with suppress(RuntimeError):  # whoever keeps the notes is gone
            _get_default_store().set(_note(name, process_index()), pickle.dumps(value).hex())


def posted(name: str) -> list[Any] | None:
    """Return what all processes have left under a name, in their order, and forget it; None while one has not, or
    without a group of several.
    """
    if not dist.is_initialized() or num_processes() == 1:
        return None
    keys = [_note(name, process) for process in range(num_processes())]
    with suppress(RuntimeError):
        store = _get_default_store()
        if store.check(keys):
            values = [pickle.loads(bytes.fromhex(store.get(key).decode())) for key in keys]
            for key in keys:
                store.delete_key(key)
            return values
    return None


def _note(name: str, process: int) -> str:
    return f"fedlit/{name}/{process}"


def barrier() -> None:
    """Wait for every process."""
    gather_objects(None)


def shutdown() -> None:
    """Leave the process group: without it gloo aborts now and then when the interpreter ends."""
    if dist.is_initialized():
        dist.destroy_process_group()


_LOST_TEXTS = ("Connection closed by peer", "Connection reset by peer", "remote process exited", "Broken pipe")
_SILENT_TEXTS = ("timed out", "timeout")


def lost_peer(
    error: BaseException, timeout_s: float, saved_round: int | None = None, *, starting: bool = False
) -> LostPeer | None:
    """Return what an error of a collective says of the other processes; None if it is of another kind.

    timeout_s: of what was waited for. saved_round: of the newest checkpoint. starting: the group is being formed.
    """
    if not isinstance(error, RuntimeError) or "EADDRINUSE" in str(error):  # a DistError is a RuntimeError
        return None
    # gloo's errors are plain RuntimeErrors, each beginning with the line of its source.
    of_gloo = isinstance(error, dist.DistError) or "gloo" in str(error)
    silent = of_gloo and any(text in str(error).lower() for text in _SILENT_TEXTS)
    if not (silent or isinstance(error, dist.DistError) or any(text in str(error) for text in _LOST_TEXTS)):
        return None
    return LostPeer(
        process=process_index() if dist.is_initialized() else None,
        num_processes=num_processes(),
        reason=re.sub(r"^\[[^\]]*\]:? *", "", first_line(error)).partition(". ")[0].rstrip("."),
        timeout_s=timeout_s if silent else None,
        starting=starting,
        saved_round=saved_round,
    )
